"""A scripted endpoint, and stores of both kinds: a file of SQLite, and a real PostgreSQL server on a socket."""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

from codots.agent.store import Store
from codots.context.rewrite import Rewrite
from tests.sampler.server import Server

REWRITE = Rewrite(cap=200).settings()
ROOT = os.name == "posix" and os.getuid() == 0


def programs():
    """Return the folder of PostgreSQL's programs, or None."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    named = shutil.which("initdb")
    return found[-1].parent if found else Path(named).parent if named else None


def run(*command):
    """Run a program of PostgreSQL, which refuses to run as root."""
    who = {"user": "postgres", "group": "postgres", "extra_groups": []} if ROOT else {}
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, cwd="/", timeout=120, **who)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="session")
def postgres():
    """Return a function that makes the URL of a new database."""
    if (bin := programs()) is None:
        pytest.skip("needs PostgreSQL: apt-get install postgresql")
    folder = Path(tempfile.mkdtemp(prefix="pg-", dir="/tmp"))  # short, because the path of a socket is
    if ROOT:
        shutil.chown(folder, "postgres", "postgres")
    data, made = folder / "data", []
    run(bin / "initdb", "-D", data, "-U", "codots", "--auth=trust", "--no-sync")
    options = f"-c listen_addresses='' -c unix_socket_directories={folder} -c max_connections=200"
    run(bin / "pg_ctl", "-D", data, "-o", options, "-l", folder / "log", "-w", "start")

    def make():
        made.append(f"agent{len(made)}")
        run(bin / "createdb", "-h", folder, "-U", "codots", made[-1])
        return f"postgresql://codots@/{made[-1]}?host={folder}"

    try:
        yield make
    finally:
        run(bin / "pg_ctl", "-D", data, "-m", "immediate", "-w", "stop")
        shutil.rmtree(folder)


@pytest.fixture(params=["sqlite", "postgresql"])
def where(request, tmp_path):
    """Return the place of a new store of each kind."""
    return tmp_path / "agent.db" if request.param == "sqlite" else request.getfixturevalue("postgres")()


@pytest.fixture
def store(where):
    """Return a new store with one world."""
    store = Store(where)
    store.create("repo", REWRITE)
    yield store
    store.close()


@pytest.fixture
def serve(monkeypatch):
    """Start a scripted endpoint, and point `openai:` at it."""
    servers = []

    def start(*script):
        servers.append(Server(*script))
        monkeypatch.setenv("OPENAI_BASE_URL", servers[-1].url)
        return servers[-1]

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()

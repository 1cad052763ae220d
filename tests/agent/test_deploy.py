"""The files in deploy/ are accepted by the programs that read them, and agree with the server and with the docs."""

import json
import re
import shlex
import shutil
import ssl
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import httpx
import pytest
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from codots.agent.access import Access
from codots.agent.audit import AuditLog
from codots.agent.keys import create_key
from codots.agent.metrics import Metrics
from codots.agent.server import MAX_BODY, make_app
from codots.agent.serving import DRAIN_SECONDS, gateway, listening
from codots.agent.worlds import MAX_WAIT
from codots.cli.main import app
from tests.agent.lives import learner
from tests.agent.test_access import certificate
from tests.agent.test_server import ASK, Running

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"


def read(name):
    """Return a file without its comments, with lines that are continued as one."""
    lines = (DEPLOY / name).read_text().replace("\\\n", " ").splitlines()
    return "\n".join(line for line in lines if not line.startswith("#"))


def run(*command):
    """Run a program, and return its code and what it printed."""
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=60, check=False)
    return done.returncode, done.stdout + done.stderr


def accepted(words):
    """Fail unless the command exists with these options."""
    import typer

    command = typer.main.get_command(app)
    while words[0] in getattr(command, "commands", {}):
        command, words = command.commands[words[0]], words[1:]
    command.make_context("codots", list(words), resilient_parsing=False).close()


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="needs systemd-analyze")
def test_systemd_accepts_the_units(tmp_path):
    for path in (*DEPLOY.glob("*.service"), *DEPLOY.glob("*.timer")):
        text = path.read_text().replace("/opt/codots/bin/codots", sys.executable)
        (tmp_path / path.name).write_text(re.sub(r"^(User|Group|EnvironmentFile)=.*\n", "", text, flags=re.MULTILINE))
    units = sorted(tmp_path.iterdir())
    assert [unit.name for unit in units] == ["codots-backup.service", "codots-backup.timer", "codots.service"]
    code, said = run("systemd-analyze", "verify", "--man=no", *units)
    assert (code, [line for line in said.splitlines() if "codots" in line]) == (0, [])


def test_the_unit_starts_a_command_that_exists_and_waits_until_the_server_has_drained():
    unit = dict(line.partition("=")[::2] for line in read("codots.service").splitlines() if "=" in line)
    environment = dict(line.partition("=")[::2] for line in read("codots.env").splitlines() if line)
    program, *words = shlex.split(unit["ExecStart"].replace("${CODOTS_MODEL}", environment["CODOTS_MODEL"]))
    assert program == "/opt/codots/bin/codots"
    accepted(words)
    assert int(unit["TimeoutStopSec"]) > DRAIN_SECONDS
    assert unit["KillSignal"] == "SIGTERM"
    backup = next(line for line in read("codots-backup.service").splitlines() if line.startswith("ExecStart="))
    script = re.sub(r"\$\$\(.*?\)", "now", shlex.split(backup)[-1])
    accepted(script.removeprefix("exec /opt/codots/bin/codots ").split())


def test_the_proxy_has_the_limits_of_the_server():
    text = read("nginx.conf")
    assert f"client_max_body_size {MAX_BODY // 2**20}m;" in text
    assert int(re.search(r"proxy_read_timeout (\d+)s;", text)[1]) > MAX_WAIT


def free_port():
    """Return a port that nothing listens at."""
    with closing(listening("127.0.0.1", 0)) as at:
        return at.getsockname()[1]


def test_through_nginx_a_client_with_a_key_chats_over_tls_and_is_named_in_the_audit_log(serve, tmp_path):
    if not (nginx := shutil.which("nginx")):
        pytest.skip("needs nginx: apt-get install nginx-light")
    certificate(tmp_path)
    serve(learner)
    places = "".join(f"{of}_temp_path {tmp_path}/{of};" for of in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    with gateway(str(tmp_path / "agent.db"), "openai:m", "default") as service:
        log = AuditLog(tmp_path / "audit.jsonl")
        door = Access(make_app(service), service.store, audit=log)
        with closing(log), Running(service, ProxyHeadersMiddleware(door)) as running:
            key, port = create_key(service.store, "ci"), free_port()
            text = read("nginx.conf").replace("/etc/ssl/codots", str(tmp_path)).replace("443", f"127.0.0.1:{port}")
            text = text.replace("http://127.0.0.1:8010", running.url)
            head = f"daemon off; master_process off; pid {tmp_path}/pid; events {{}}"
            (tmp_path / "nginx.conf").write_text(f"{head} http {{ access_log off; {places}\n{text} }}")
            options = ("-e", tmp_path / "error.log", "-c", tmp_path / "nginx.conf")
            code, said = run(nginx, "-t", *options)
            assert code == 0, said
            with subprocess.Popen([nginx, *map(str, options)]) as proxy:
                try:
                    transport = httpx.HTTPTransport(
                        retries=8, verify=ssl.create_default_context(cafile=tmp_path / "cert.pem")
                    )
                    with httpx.Client(transport=transport, base_url=f"https://127.0.0.1:{port}", timeout=60) as client:
                        body, bearer = {"model": "m", "messages": ASK}, {"authorization": f"Bearer {key}"}
                        bearer["x-forwarded-for"] = "192.0.2.7"  # what a client claims
                        assert client.post("/v1/chat/completions", json=body).status_code == 401
                        assert client.post("/v1/chat/completions", json=body, headers=bearer).status_code == 200
                        assert client.get("/metrics", headers=bearer).status_code == 404
                        assert client.get("/ready").status_code == 200
                finally:
                    proxy.terminate()
    lines = [json.loads(line) for line in (tmp_path / "audit.jsonl").read_text().splitlines()]
    assert [(line["key"], line["client"], line["status"]) for line in lines] == [
        (None, "127.0.0.1", 401),
        ("ci", "127.0.0.1", 200),
    ]


def test_the_image_copies_what_there_is_and_starts_a_command_that_exists():
    text = read("Dockerfile")
    for sources in re.findall(r"^COPY (.*) \S+$", text, re.MULTILINE):
        assert all((ROOT / source).exists() for source in sources.split())
    command = re.search(r"^CMD \[(.*)\]$", text, re.MULTILINE)[1]
    accepted([word.strip('" ') for word in command.split(",")])


def test_the_page_names_metrics_that_there_are(serve, tmp_path):
    serve(learner)
    with gateway(str(tmp_path / "agent.db"), "openai:m", "default", 0.2) as service:
        known = set(re.findall(r"^# TYPE (\w+) (\w+)$", Metrics(service).text().decode(), re.MULTILINE))
    names = {name for name, _ in known}
    page = (ROOT / "docs" / "operations.md").read_text()
    named = set(re.findall(r"`(codots_\w+)`", page))
    assert len(named) >= 8
    assert named <= names | {name.removesuffix("_total") for name in names}

"""Schemathesis sends to every route what its OpenAPI says, and what it does not: no answer is a server error."""

import os
import re
import subprocess
import sys
from contextlib import contextmanager

import httpx
import pytest

SECONDS = 300
"""Time of one run. There are two."""
KNOWN = '[parameters]\nworld = "repo"\ntask = "task-0"\n'
"""Parameters of what is in the store, so that requests come further than to a name that is not known."""


@contextmanager
def served(folder):
    """Serve the bundled model as a command, before a store with a world, an open task and a finished one."""
    command = [sys.executable, "-m", "codots", "serve", "base", "--store", folder / "agent.db", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=folder) as process:
        try:
            url = process.stdout.readline().split(" at ")[1].split("/v1")[0]
            world = f"{url}/v1/worlds/repo"
            with httpx.Client(timeout=60) as http:
                http.put(world)
                for _ in range(2):
                    http.post(f"{world}/tasks", json={"description": "Mend it."})
                http.post(f"{world}/tasks/task-1/finish?wait=60", json={"reward": 1.0}).raise_for_status()
            yield url
        finally:
            process.kill()


@pytest.mark.slow
@pytest.mark.timeout(3 * SECONDS)
@pytest.mark.parametrize("known", [False, True])
def test_no_request_is_a_server_error(tmp_path, known):
    (tmp_path / "schemathesis.toml").write_text(KNOWN if known else "")
    main = "import sys; from schemathesis.cli import schemathesis; schemathesis(sys.argv[1:])"
    with served(tmp_path) as url:
        options = ["--max-time", str(SECONDS), "--checks", "not_a_server_error", "--continue-on-failure"]
        options += ["--seed", "0", "--suppress-health-check", "all", "--no-color"]
        command = [sys.executable, "-c", main, "run", f"{url}/openapi.json", *options]
        done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=os.environ | {"CI": "true"})
        assert httpx.get(f"{url}/ready", timeout=60).status_code == 200
    assert done.returncode == 0, done.stdout + done.stderr
    operations, tested = re.search(r"Selected: \d+/(\d+)\s+Tested: (\d+)", done.stdout).groups()
    assert operations == tested

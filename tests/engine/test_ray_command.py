"""Ray from the command line: Ctrl-C and a killed driver leave a run that resumes, and no process behind."""

import os
import signal
import subprocess
import sys
import time
import uuid
from contextlib import suppress
from pathlib import Path

import pytest

from codots.core.yaml_text import write_yaml
from codots.training.train import train
from tests.random_model import make_random_model
from tests.training.small import last_step, recipe, same_run

pytestmark = pytest.mark.slow
CODOTS = Path(sys.executable).with_name("codots")


@pytest.fixture
def config(tmp_path):
    base = make_random_model(tmp_path / "base")
    list(train(recipe(base, tmp_path / "whole")))
    return recipe(base, tmp_path / "run", engine={"kind": "ray"})


def processes_of(mark):
    """Return the processes with a mark in their environment, which all descendants of a process inherit."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        with suppress(OSError):
            if mark.encode() in path.read_bytes():
                found.append((path.parent / "cmdline").read_bytes().replace(b"\0", b" ")[:80])
    return found


def stopped(config, tmp_path, stop):
    """Start a run as a command, stop it after its first step, and return its exit code and its mark."""
    (tmp_path / "recipe.yaml").write_text(write_yaml(config.to_dict()))
    mark = uuid.uuid4().hex
    command = [CODOTS, "train", tmp_path / "recipe.yaml"]
    environment = os.environ | {"CODOTS_TEST_MARK": mark}
    with subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, env=environment, start_new_session=True
    ) as process:
        for line in process.stderr:
            if line.startswith("step 1/") or "after step 1/" in line:
                break
        stop(process)
        process.communicate(timeout=120)
    return process.returncode, mark


def test_ctrl_c_saves_the_step_and_the_run_resumes(config, tmp_path):
    code, mark = stopped(config, tmp_path, lambda process: os.killpg(process.pid, signal.SIGINT))
    assert code == 130
    assert processes_of(mark) == []
    saved = last_step(config)
    assert [report.step for report in train(config, resume=True)] == list(range(saved + 1, 5))
    same_run(tmp_path / "run", tmp_path / "whole")


def test_a_killed_driver_leaves_no_process_and_the_run_resumes(config, tmp_path):
    code, mark = stopped(config, tmp_path, lambda process: process.kill())
    assert code == -signal.SIGKILL
    until = time.monotonic() + 30
    while processes_of(mark) and time.monotonic() < until:
        time.sleep(0.1)  # nothing tells that a process of another parent has ended
    assert processes_of(mark) == []
    list(train(config, resume=True))
    same_run(tmp_path / "run", tmp_path / "whole")

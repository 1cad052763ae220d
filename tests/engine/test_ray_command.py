"""Ray from the command line: the address of a cluster; Ctrl-C and a killed driver leave a run that resumes."""

import os
import signal
import subprocess
import sys
import time
import uuid
from contextlib import suppress
from pathlib import Path

import pytest
import ray

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


def assert_ended(mark):
    """Assert that the processes with a mark end within 30 seconds."""
    until = time.monotonic() + 30
    while processes_of(mark) and time.monotonic() < until:
        time.sleep(0.1)  # nothing tells that a process of another parent has ended
    assert processes_of(mark) == []


def stopped(config, tmp_path, stop):
    """Start a run as a command, stop it after its first step, and return its exit code, its output and its mark."""
    (tmp_path / "recipe.yaml").write_text(write_yaml(config.to_dict()))
    mark = uuid.uuid4().hex
    command = [CODOTS, "train", tmp_path / "recipe.yaml"]
    environment = os.environ | {"CODOTS_TEST_MARK": mark}
    with subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, env=environment, start_new_session=True
    ) as process:
        read = []
        for line in process.stderr:
            read.append(line)
            if line.startswith("step 1/") or "after step 1/" in line:
                break
        else:
            raise AssertionError(f"ended before its first step, with code {process.wait()}: {''.join(read)}")
        stop(process)
        _, output = process.communicate(timeout=120)
    return process.returncode, "".join(read) + output, mark


def command(tmp_path, config, address):
    """Run a recipe as a command on the cluster at an address."""
    (tmp_path / "recipe.yaml").write_text(write_yaml(config.to_dict()))
    environment = os.environ | {"RAY_ADDRESS": address}
    return subprocess.run(
        [CODOTS, "train", tmp_path / "recipe.yaml"], capture_output=True, text=True, env=environment, timeout=600
    )


def test_a_run_joins_the_cluster_of_the_address_and_leaves_it_running(cluster, config, tmp_path):
    ended = command(tmp_path, config, ray.get_runtime_context().gcs_address)
    assert ended.returncode == 0, ended.stderr
    same_run(tmp_path / "run", tmp_path / "whole")
    until = time.monotonic() + 60
    while (free := ray.available_resources().get("CPU")) != 8 and time.monotonic() < until:
        time.sleep(0.1)  # the actors of the run are being ended
    assert free == 8


def test_an_address_that_does_not_answer_is_one_line_and_nothing_is_started(tmp_path):
    config = recipe(make_random_model(tmp_path / "base"), tmp_path / "run", engine={"kind": "ray"})
    ended = command(tmp_path, config, "127.0.0.1:1")
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.splitlines()[-1].startswith("codots: no Ray cluster answers at RAY_ADDRESS=127.0.0.1:1 (")
    assert "Traceback" not in ended.stderr
    assert not (tmp_path / "run").exists()


HANDLER = """
import ctypes, signal
from codots.engine.cluster import connect, disconnect

def handler():
    action = ctypes.create_string_buffer(1024)
    ctypes.CDLL(None).sigaction(signal.SIGTERM, None, action)
    return action.raw[:8]

signal.signal(signal.SIGTERM, lambda *_: None)
before = handler()
connect()
print(before == handler())
disconnect()
"""


def test_ray_does_not_replace_the_handler_of_sigterm():
    """Its own aborts the process three seconds after the signal, before a step is finished and saved."""
    done = subprocess.run([sys.executable, "-c", HANDLER], capture_output=True, text=True, timeout=200)
    assert (done.returncode, done.stdout) == (0, "True\n"), done.stderr


@pytest.mark.parametrize(
    ("number", "send"),
    [
        (signal.SIGINT, lambda process: os.killpg(process.pid, signal.SIGINT)),  # as of Ctrl-C, to every process
        (signal.SIGTERM, lambda process: process.terminate()),
    ],
)
def test_ctrl_c_and_sigterm_save_the_step_and_the_run_resumes(config, tmp_path, number, send):
    code, output, mark = stopped(config, tmp_path, send)
    assert code == 128 + number, output
    assert_ended(mark)
    saved = last_step(config)
    assert [report.step for report in train(config, resume=True)] == list(range(saved + 1, 5))
    same_run(tmp_path / "run", tmp_path / "whole")


def test_a_killed_driver_leaves_no_process_and_the_run_resumes(config, tmp_path):
    code, output, mark = stopped(config, tmp_path, lambda process: process.kill())
    assert code == -signal.SIGKILL, output
    assert_ended(mark)
    list(train(config, resume=True))
    same_run(tmp_path / "run", tmp_path / "whole")

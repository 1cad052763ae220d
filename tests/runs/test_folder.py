"""A run folder is one process's, and never taken for another run's."""

import errno
import fcntl
import os
import signal
import subprocess
import sys

import pytest
import yaml

from codots.config.schema import TrainConfig
from codots.runs.folder import open_run
from tests.runs.folders import opened, tree


def test_another_runs_folder_is_refused_with_the_key_that_differs(run, config):
    before = tree(run)
    for change, line in (
        ({"seed": 4}, "seed is 3, here 4"),
        ({"learner": {"lr": 1e-5}}, "learner is .*0.0003.*, here .*1e-05"),
        ({"steps": 61}, "steps is 60, here 61"),
    ):
        other = TrainConfig.model_validate(config.model_dump() | change)
        with pytest.raises(ValueError, match=f"is another run: there {line}") as error:
            opened(run, other, resume=True)
        assert "\n" not in str(error.value)
    assert tree(run) == before


def test_a_fresh_start_leaves_what_is_there_alone(run, config):
    before = tree(run)
    with pytest.raises(ValueError, match="already holds a run; add --resume to go on with it, or give run=ANOTHER"):
        opened(run, config)
    assert tree(run) == before


def test_a_fresh_start_takes_an_empty_folder_and_one_killed_at_its_first_write(tmp_path, config):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".config.yaml.part").write_text("half of")
    (tmp_path / "run" / ".lock").touch()
    opened(tmp_path / "run", config)
    assert TrainConfig.model_validate(yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())) == config


@pytest.mark.parametrize("content", ["", "[", "- a", "\x00", "word", b"\xff\xfe\xfa"])
def test_a_run_whose_recipe_cannot_be_read_is_one_line(run, config, content):
    (run / "config.yaml").write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ValueError, match=r"config.yaml cannot be read; is .* a run\?") as error:
        opened(run, config, resume=True)
    assert "\n" not in str(error.value)


def test_nothing_to_resume_is_one_line(tmp_path, config):
    with pytest.raises(ValueError, match=r"no run to resume at .*nowhere: it has no config\.yaml"):
        opened(tmp_path / "nowhere", config, resume=True)
    assert not (tmp_path / "nowhere").exists()


HOLD = """
import sys
from pathlib import Path
from codots.runs.folder import open_run
from tests.runs.folders import opened, tree
from codots.config.schema import TrainConfig
config = TrainConfig(run=sys.argv[1], seed=3)
with open_run(Path(sys.argv[1]), config.said(), resume=True):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(run):
    """Another process that holds the run."""
    command = [sys.executable, "-c", HOLD, str(run)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_a_run_that_another_process_holds_is_refused_and_says_whose_it_is(run, config, holder):
    before = tree(run)
    with pytest.raises(ValueError, match=f"run is in use by process {holder.pid}; wait for its end, or give run=") as e:
        opened(run, config, resume=True)
    assert "\n" not in str(e.value)
    assert tree(run) == before


@pytest.mark.parametrize("end", ["killed", "done"])
def test_a_hold_ends_with_its_process(run, config, holder, end):
    holder.send_signal(signal.SIGKILL) if end == "killed" else holder.stdin.close()
    holder.wait()
    assert opened(run, config, resume=True) == run


def test_of_two_that_start_at_once_one_is_refused(tmp_path, config):
    with (
        open_run(tmp_path / "run", config.said(), resume=False),
        pytest.raises(ValueError, match="already holds a run"),
    ):
        opened(tmp_path / "run", config)
    (tmp_path / "run" / "config.yaml").unlink()
    with (tmp_path / "run" / ".lock").open() as file:  # the other one is between its hold and its recipe
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(ValueError, match="is in use by"):
            opened(tmp_path / "run", config)
    assert not (tmp_path / "run" / "config.yaml").exists()


def test_a_file_system_without_locks_is_a_line_and_no_end(run, config, caplog, monkeypatch):
    def without(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr("fcntl.flock", without)
    opened(run, config, resume=True)
    (said,) = caplog.messages
    assert said.endswith("run cannot be locked (No locks available): make sure that no second process uses it")

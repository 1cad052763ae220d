"""A run folder is locked to one process and never reused by another run."""

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
from tests.runs.folders import open_and_close, tree


def test_another_runs_folder_is_refused_with_the_key_that_differs(run, config):
    before = tree(run)
    for change, line in (
        ({"seed": 4}, "seed is 3, here 4"),
        ({"learner": {"lr": 1e-5}}, "learner is .*0.0003.*, here .*1e-05"),
        ({"steps": 61}, "steps is 60, here 61"),
    ):
        other = TrainConfig.model_validate(config.model_dump() | change)
        with pytest.raises(ValueError, match=f"is another run: there {line}") as error:
            open_and_close(run, other, resume=True)
        assert "\n" not in str(error.value)
    assert tree(run) == before


def test_a_new_run_does_not_overwrite_an_existing_one(run, config):
    before = tree(run)
    with pytest.raises(ValueError, match="already contains a run; add --resume to continue it, or give run=ANOTHER"):
        open_and_close(run, config)
    assert tree(run) == before


def test_a_new_run_may_use_an_empty_folder_or_one_killed_at_its_first_write(tmp_path, config):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".config.yaml.part").write_text("half of")
    (tmp_path / "run" / ".lock").touch()
    open_and_close(tmp_path / "run", config)
    assert TrainConfig.model_validate(yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())) == config


@pytest.mark.parametrize("content", ["", "[", "- a", "\x00", "word", b"\xff\xfe\xfa", "seed: 3\nseed: 3"])
def test_an_unreadable_recipe_of_a_run_is_one_line(run, config, content):
    (run / "config.yaml").write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ValueError, match=r"config.yaml cannot be read.*; is .* a run\?") as error:
        open_and_close(run, config, resume=True)
    assert "\n" not in str(error.value)


def test_a_missing_run_to_resume_is_one_line(tmp_path, config):
    with pytest.raises(ValueError, match=r"no run to resume at .*nowhere: it has no config\.yaml"):
        open_and_close(tmp_path / "nowhere", config, resume=True)
    assert not (tmp_path / "nowhere").exists()


LOCK_AND_WAIT = """
import sys
from pathlib import Path
from codots.runs.folder import open_run
from tests.runs.folders import open_and_close, tree
from codots.config.schema import TrainConfig
config = TrainConfig(run=sys.argv[1], seed=3)
with open_run(Path(sys.argv[1]), config.to_dict(), resume=True):
    print("locked", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def other_process(run):
    """Start another process that locks the run."""
    command = [sys.executable, "-c", LOCK_AND_WAIT, str(run)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "locked\n"
        yield process
        process.kill()


def test_a_run_locked_by_another_process_is_refused_with_its_id(run, config, other_process):
    before = tree(run)
    with pytest.raises(
        ValueError, match=f"run is in use by process {other_process.pid}; wait for its end, or give run="
    ) as e:
        open_and_close(run, config, resume=True)
    assert "\n" not in str(e.value)
    assert tree(run) == before


@pytest.mark.parametrize("end", ["killed", "done"])
def test_a_lock_ends_with_its_process(run, config, other_process, end):
    other_process.send_signal(signal.SIGKILL) if end == "killed" else other_process.stdin.close()
    other_process.wait()
    assert open_and_close(run, config, resume=True) == run


def test_of_two_concurrent_starts_one_is_refused(tmp_path, config):
    with (
        open_run(tmp_path / "run", config.to_dict(), resume=False),
        pytest.raises(ValueError, match="already contains a run"),
    ):
        open_and_close(tmp_path / "run", config)
    (tmp_path / "run" / "config.yaml").unlink()
    with (tmp_path / "run" / ".lock").open() as file:  # the other process has the lock but has not written its recipe
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(ValueError, match="is in use by"):
            open_and_close(tmp_path / "run", config)
    assert not (tmp_path / "run" / "config.yaml").exists()


def test_a_file_system_without_locks_is_only_a_warning(run, config, caplog, monkeypatch):
    def without(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr("fcntl.flock", without)
    open_and_close(run, config, resume=True)
    (warning,) = caplog.messages
    assert warning.endswith("run cannot be locked (No locks available): make sure that no second process uses it")

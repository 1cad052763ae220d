"""A checkpoint is whole or not there, and a run is never mixed up with another."""

import errno
import json
import os
import re
import shutil
import subprocess
from contextlib import suppress

import pytest
import yaml

from codots.checkpoint import STATE, checkpoints, last_checkpoint, open_run, save_checkpoint, write_atomically
from codots.config import TrainConfig


@pytest.fixture
def config(tmp_path):
    return TrainConfig(run=str(tmp_path / "run"), seed=3)


@pytest.fixture
def run(tmp_path, config):
    return open_run(tmp_path / "run", config, resume=False)


def writes(text):
    def save(folder):
        (folder / "model").mkdir()
        (folder / "model" / "weights.bin").write_bytes(text.encode() * 1000)
        (folder / "optimiser.bin").write_text(text)

    return save


def save_steps(run, config, steps, keep=9):
    for step in steps:
        save_checkpoint(run, step, config, {"tokens": 10 * step}, writes(f"weights {step}"), keep)


def names(run):
    return [folder.name for folder in checkpoints(run)]


def tree(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def refused(run, config, line):
    with pytest.raises(ValueError, match=line) as error:
        last_checkpoint(run, config)
    assert "\n" not in str(error.value)


def test_what_was_saved_last_is_found_with_its_state(run, config):
    save_steps(run, config, [1, 2, 10])
    folder, state = last_checkpoint(run, config)
    assert folder.name == "step-000010"
    assert (state["step"], state["tokens"]) == (10, 100)
    assert (folder / "optimiser.bin").read_text() == "weights 10"


def test_a_run_without_checkpoints_has_none(run, config):
    assert last_checkpoint(run, config) is None


def test_only_the_last_few_are_kept(run, config):
    save_steps(run, config, range(1, 6), keep=2)
    assert names(run) == ["step-000004", "step-000005"]
    assert sorted(os.listdir(run / "checkpoints")) == names(run)


def test_saving_a_step_again_replaces_it(run, config):
    save_steps(run, config, [1])
    save_checkpoint(run, 1, config, {}, writes("other"), 2)
    assert (last_checkpoint(run, config)[0] / "optimiser.bin").read_text() == "other"


class Killed(BaseException):
    """Stands for a process that ends on the spot: no handler of the code under test sees it."""


@pytest.mark.parametrize("when", ["before the files", "between the files", "before the state", "before the rename"])
def test_a_half_written_checkpoint_is_ignored_and_written_anew(run, config, monkeypatch, when):
    save_steps(run, config, [1])
    before = tree(run)

    def save(folder):
        if when == "before the files":
            raise Killed
        writes("half")(folder)
        if when == "between the files":
            raise Killed

    def kill(*_):
        raise Killed

    if when == "before the state":
        monkeypatch.setattr("codots.checkpoint.write_atomically", kill)
    if when == "before the rename":
        monkeypatch.setattr("pathlib.Path.rename", kill)
    with pytest.raises(Killed):
        save_checkpoint(run, 2, config, {}, save, 9)
    monkeypatch.undo()
    assert names(run) == ["step-000001"]
    assert tree(run).items() >= before.items()
    assert last_checkpoint(run, config)[1]["step"] == 1
    save_steps(run, config, [2])
    assert sorted(os.listdir(run / "checkpoints")) == ["step-000001", "step-000002"]
    assert last_checkpoint(run, config)[1]["tokens"] == 20


@pytest.mark.parametrize("name", ["model/weights.bin", "optimiser.bin"])
@pytest.mark.parametrize("where", [0, -1])
def test_a_flipped_bit_is_found(run, config, name, where):
    save_steps(run, config, [1, 2])
    file = run / "checkpoints" / "step-000002" / name
    content = bytearray(file.read_bytes())
    content[where] ^= 1
    file.write_bytes(content)
    refused(run, config, f"step-000002 is corrupt: {name} is not what was written; remove it to resume from step-00000")


def test_a_missing_file_is_found(run, config):
    save_steps(run, config, [7])
    (run / "checkpoints" / "step-000007" / "model" / "weights.bin").unlink()
    refused(run, config, "step-000007 is corrupt: model/weights.bin is missing; remove it to start again")


@pytest.mark.parametrize(
    "text", [None, "", "{", "[]", "null", "{}", '{"step": 2, "files": 3}', "\x00", '{"files": {}}']
)
def test_a_state_that_cannot_be_read_is_found(run, config, text):
    save_steps(run, config, [1, 2])
    state = run / "checkpoints" / "step-000002" / STATE
    state.unlink() if text is None else state.write_text(text)
    refused(run, config, "step-000002 is corrupt: state.json cannot be read; remove it to resume from step-000001")


def test_the_cure_works(run, config):
    save_steps(run, config, [1, 2])
    (run / "checkpoints" / "step-000002" / "optimiser.bin").unlink()
    with pytest.raises(ValueError, match="remove it") as error:
        last_checkpoint(run, config)
    shutil.rmtree(re.search(r"the checkpoint (\S+) is corrupt", str(error.value))[1])
    assert last_checkpoint(run, config)[1]["step"] == 1


def test_a_checkpoint_of_another_run_is_refused(run, config, tmp_path):
    other = TrainConfig(run=str(tmp_path / "other"), seed=4)
    save_steps(open_run(tmp_path / "other", other, resume=False), other, [5])
    shutil.copytree(tmp_path / "other" / "checkpoints", run / "checkpoints")
    refused(run, config, "step-000005 is corrupt: it is another run's")


def test_another_runs_folder_is_refused_with_the_key_that_differs(run, config):
    before = tree(run)
    for change, line in (
        ({"seed": 4}, "seed is 3, here 4"),
        ({"learner": {"lr": 1e-5}}, "learner is .*0.0003.*, here .*1e-05"),
        ({"steps": 61}, "steps is 60, here 61"),
    ):
        other = TrainConfig.model_validate(config.model_dump() | change)
        with pytest.raises(ValueError, match=f"is another run: there {line}") as error:
            open_run(run, other, resume=True)
        assert "\n" not in str(error.value)
    assert tree(run) == before


def test_a_run_that_was_moved_goes_on(run, config, tmp_path):
    save_steps(run, config, [1])
    run.rename(tmp_path / "moved")
    moved = config.model_copy(update={"run": str(tmp_path / "moved")})
    assert last_checkpoint(open_run(tmp_path / "moved", moved, resume=True), moved)[1]["step"] == 1


def test_a_fresh_start_leaves_what_is_there_alone(run, config):
    before = tree(run)
    with pytest.raises(ValueError, match="already holds a run; add --resume to go on with it, or give run=ANOTHER"):
        open_run(run, config, resume=False)
    assert tree(run) == before


def test_a_fresh_start_takes_an_empty_folder_and_one_killed_at_its_first_write(tmp_path, config):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".config.yaml.part").write_text("half of")
    open_run(tmp_path / "run", config, resume=False)
    assert TrainConfig.model_validate(yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())) == config


@pytest.mark.parametrize("content", ["", "[", "- a", "\x00", "word", b"\xff\xfe\xfa"])
def test_a_run_whose_recipe_cannot_be_read_is_one_line(run, config, content):
    (run / "config.yaml").write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ValueError, match=r"config.yaml cannot be read; is .* a run\?") as error:
        open_run(run, config, resume=True)
    assert "\n" not in str(error.value)


def test_nothing_to_resume_is_one_line(tmp_path, config):
    with pytest.raises(ValueError, match=r"no run to resume at .*nowhere: it has no config\.yaml"):
        open_run(tmp_path / "nowhere", config, resume=True)
    assert not (tmp_path / "nowhere").exists()


def test_a_write_leaves_the_old_file_or_the_new_one(tmp_path, monkeypatch):
    path = tmp_path / "file"
    write_atomically(path, "old")
    monkeypatch.setattr("os.fsync", lambda _: (_ for _ in ()).throw(Killed))
    with pytest.raises(Killed):
        write_atomically(path, "new")
    assert path.read_text() == "old"
    monkeypatch.undo()
    write_atomically(path, "new\u2028")
    assert path.read_text(encoding="utf-8") == "new\u2028"
    assert os.listdir(tmp_path) == ["file"]


def nothing_of_it_remains(run, config, save):
    save_steps(run, config, [1, 2])
    before = tree(run)
    with pytest.raises(OSError, match=r"checkpoint 3 could not be written to .*No space left.*before are whole"):
        save_checkpoint(run, 3, config, {}, save, 1)
    assert tree(run) == before
    assert sorted(os.listdir(run / "checkpoints")) == ["step-000001", "step-000002"]
    assert last_checkpoint(run, config)[1]["step"] == 2


def test_a_disk_that_says_it_is_full_costs_only_the_new_checkpoint(run, config):
    def save(folder):
        writes("half")(folder)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    nothing_of_it_remains(run, config, save)


@pytest.fixture
def small_disk(tmp_path):
    """Mount a disk of 256 KiB; where that is not permitted there is none."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = shutil.which("mount")
    done = mount and subprocess.run([mount, "-t", "tmpfs", "-o", "size=256k", "tmpfs", disk], capture_output=True)
    if not done or done.returncode:
        yield None
        return
    yield disk
    subprocess.run(["umount", "-l", disk], check=True)


@pytest.mark.parametrize("what", ["the weights", "the state"])
def test_a_full_disk_costs_only_the_new_checkpoint(small_disk, run, config, what):
    def save(folder):
        if small_disk is None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        with (folder / "weights.bin").open("wb", buffering=0) as file:
            with suppress(OSError):
                while True:
                    file.write(bytes(4096))
            if what == "the weights":
                file.write(b"0")

    if small_disk is not None:
        run = open_run(small_disk / "run", config, resume=False)
    nothing_of_it_remains(run, config, save)
    save_steps(run, config, [3], keep=1)
    assert names(run) == ["step-000003"]


def test_the_state_is_plain_json(run, config):
    save_steps(run, config, [1])
    state = json.loads((run / "checkpoints" / "step-000001" / STATE).read_text())
    assert sorted(state["files"]) == ["model/weights.bin", "optimiser.bin"]
    assert all(re.fullmatch("[0-9a-f]{64}", digest) for digest in state["files"].values())

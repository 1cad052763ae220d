"""A checkpoint is complete or absent."""

import errno
import json
import os
import re
import shutil
from contextlib import suppress
from pathlib import Path

import pytest

from codots.config.schema import TrainConfig
from codots.core.files import write_atomically
from codots.core.processes import DeadError
from codots.runs.checkpoint import (
    STATE,
    best_checkpoint,
    checkpoints,
    find_checkpoint,
    last_checkpoint,
    save_checkpoint,
)
from tests.core.test_files import Killed
from tests.disk import mounted
from tests.runs.folders import open_and_close, recipe_hash, tree


def save_text(text):
    """Return a function that saves a small checkpoint with this text."""

    def save(folder):
        (folder / "model").mkdir()
        (folder / "model" / "weights.bin").write_bytes(text.encode() * 1000)
        (folder / "optimiser.bin").write_text(text)

    return save


def save_steps(run, config, steps, keep=9, dev=None):
    for step in steps:
        state = {"tokens": 10 * step, "dev": (dev or {}).get(step)}
        save_checkpoint(run, step, recipe_hash(config), state, save_text(f"weights {step}"), keep)


def names(run):
    return [folder.name for folder in checkpoints(run)]


def check_refused(run, config, line):
    """Check that resuming raises this one line."""
    with pytest.raises(ValueError, match=line) as error:
        last_checkpoint(run, recipe_hash(config))
    assert "\n" not in str(error.value)


def test_the_last_checkpoint_is_found_with_its_state(run, config):
    save_steps(run, config, [1, 2, 10])
    folder, state = last_checkpoint(run, recipe_hash(config))
    assert folder.name == "step-000010"
    assert (state["step"], state["tokens"]) == (10, 100)
    assert (folder / "optimiser.bin").read_text() == "weights 10"


def test_a_run_without_checkpoints_has_none(run, config):
    assert last_checkpoint(run, recipe_hash(config)) is None


def test_only_the_last_checkpoints_are_kept(run, config):
    save_steps(run, config, range(1, 6), keep=2)
    assert names(run) == ["step-000004", "step-000005"]
    assert sorted(os.listdir(run / "checkpoints")) == names(run)


def test_the_best_checkpoint_on_dev_is_kept_as_well(run, config):
    save_steps(run, config, range(1, 8), keep=2, dev={1: 0.2, 2: 0.9, 3: 0.5, 6: 0.9})
    assert names(run) == ["step-000002", "step-000006", "step-000007"]
    assert best_checkpoint(run).name == "step-000002"
    save_steps(run, config, [8, 9], keep=2, dev={9: 0.95})
    assert names(run) == ["step-000008", "step-000009"]
    assert sorted(os.listdir(run / "checkpoints")) == names(run)


def test_without_an_evaluation_there_is_no_best_checkpoint(run, config):
    assert best_checkpoint(run) is None
    save_steps(run, config, [1, 2])
    assert best_checkpoint(run) is None


def test_a_partly_deleted_checkpoint_is_removed_by_the_next_save(run, config, monkeypatch):
    save_steps(run, config, [1, 2], keep=2)

    def kill(*_, **__):
        raise Killed

    with pytest.raises(Killed):
        save_checkpoint(run, 3, recipe_hash(config), {}, lambda part: monkeypatch.setattr("shutil.rmtree", kill), 1)
    monkeypatch.undo()
    assert names(run) == ["step-000003"]
    assert len(os.listdir(run / "checkpoints")) == 3
    save_steps(run, config, [4], keep=1)
    assert os.listdir(run / "checkpoints") == ["step-000004"]


def test_saving_a_step_again_replaces_it(run, config):
    save_steps(run, config, [1])
    save_checkpoint(run, 1, recipe_hash(config), {}, save_text("other"), 2)
    assert (last_checkpoint(run, recipe_hash(config))[0] / "optimiser.bin").read_text() == "other"


@pytest.mark.parametrize("when", ["before the files", "between the files", "before the state", "before the rename"])
def test_a_partly_written_checkpoint_is_ignored_and_replaced(run, config, monkeypatch, when):
    save_steps(run, config, [1])
    before = tree(run)

    def save(folder):
        if when == "before the files":
            raise Killed
        save_text("half")(folder)
        if when == "between the files":
            raise Killed

    def kill(*_):
        raise Killed

    if when == "before the state":
        monkeypatch.setattr("codots.runs.checkpoint.write_atomically", kill)
    if when == "before the rename":
        monkeypatch.setattr("pathlib.Path.rename", kill)
    with pytest.raises(Killed):
        save_checkpoint(run, 2, recipe_hash(config), {}, save, 9)
    monkeypatch.undo()
    assert names(run) == ["step-000001"]
    assert tree(run).items() >= before.items()
    assert last_checkpoint(run, recipe_hash(config))[1]["step"] == 1
    save_steps(run, config, [2])
    assert sorted(os.listdir(run / "checkpoints")) == ["step-000001", "step-000002"]
    assert last_checkpoint(run, recipe_hash(config))[1]["tokens"] == 20


def check_fallback(run, config, caplog, reason):
    """Check that the newest checkpoint is skipped with a one-line warning and renamed."""
    before = tree(run / "checkpoints" / "step-000002")
    assert last_checkpoint(run, recipe_hash(config))[1]["step"] == 1
    assert sorted(os.listdir(run / "checkpoints")) == ["corrupt-step-000002", "step-000001"]
    assert tree(run / "checkpoints" / "corrupt-step-000002") == before
    line = (
        f"step-000002 is corrupt: {reason}; "
        "it is renamed to corrupt-step-000002, and the run continues from step-000001"
    )
    (warning,) = caplog.messages
    assert warning.endswith(line)
    caplog.clear()
    assert last_checkpoint(run, recipe_hash(config))[1]["step"] == 1
    assert caplog.messages == []


@pytest.mark.parametrize("name", ["model/weights.bin", "optimiser.bin"])
@pytest.mark.parametrize("damage", ["first bit", "last bit", "cut", "emptied", "gone"])
def test_a_damaged_newest_checkpoint_falls_back_to_the_one_before(run, config, caplog, name, damage):
    """A power cut can truncate or empty files that were already renamed."""
    save_steps(run, config, [1, 2])
    file = run / "checkpoints" / "step-000002" / name
    content = bytearray(file.read_bytes())
    content[0 if damage == "first bit" else -1] ^= 1
    cut = {"cut": content[:-1], "emptied": b""}.get(damage, content)
    file.unlink() if damage == "gone" else file.write_bytes(cut)
    check_fallback(run, config, caplog, f"{name} {'is missing' if damage == 'gone' else 'does not match its hash'}")


@pytest.mark.parametrize(
    "text", [None, "", "{", "[]", "null", "{}", '{"step": 2, "files": 3}', "\x00", '{"files": {}}', '{"recipe": 1}']
)
def test_a_state_that_cannot_be_read_falls_back_to_the_one_before(run, config, caplog, text):
    save_steps(run, config, [1, 2])
    state = run / "checkpoints" / "step-000002" / STATE
    state.unlink() if text is None else state.write_text(text)
    check_fallback(run, config, caplog, "state.json cannot be read")


def test_without_an_intact_checkpoint_nothing_changes_and_the_error_is_one_line(run, config, caplog):
    save_steps(run, config, [1, 2])
    for folder in checkpoints(run):
        (folder / "optimiser.bin").unlink()
    before = tree(run)
    check_refused(
        run,
        config,
        r"step-000002 is corrupt: optimiser\.bin is missing, and no earlier checkpoint is intact; give run=ANOTHER",
    )
    assert tree(run) == before
    assert caplog.messages == []


def test_a_checkpoint_saved_after_a_fallback_is_the_newest(run, config):
    save_steps(run, config, [1, 2])
    (run / "checkpoints" / "step-000002" / STATE).unlink()
    last_checkpoint(run, recipe_hash(config))
    save_steps(run, config, [2], keep=1)
    assert names(run) == ["step-000002"]
    assert last_checkpoint(run, recipe_hash(config))[1]["step"] == 2


def test_files_are_synced_before_a_checkpoint_is_renamed_and_its_folder_after(run, config, monkeypatch):
    """Otherwise a power cut may keep the name and lose the content."""
    calls, sync, rename = [], os.fsync, Path.rename

    def recorded_sync(number):
        calls.append(("sync", Path(os.readlink(f"/proc/self/fd/{number}"))))
        sync(number)

    def recorded_rename(path, target):
        calls.append(("rename", target))
        return rename(path, target)

    if not Path("/proc/self/fd").exists():
        pytest.skip("this system has no /proc/self/fd")
    monkeypatch.setattr("os.fsync", recorded_sync)
    monkeypatch.setattr("pathlib.Path.rename", recorded_rename)
    save_steps(run, config, [1])
    whole = run / "checkpoints" / "step-000001"
    renamed = calls.index(("rename", whole))
    part = whole.with_name(".step-000001.part")
    inside = {path.relative_to(whole) for path in (whole, *whole.rglob("*"))}
    synced = {path for what, path in calls[:renamed] if what == "sync"}
    assert {path.relative_to(part) for path in synced if path.is_relative_to(part)} >= inside
    assert calls[renamed + 1 :] == [("sync", whole.parent), ("sync", run)]
    calls.clear()
    write_atomically(run / "file", "text")
    assert calls == [("sync", run / ".file.part"), ("rename", run / "file"), ("sync", run)]


def test_a_checkpoint_of_another_run_is_refused(run, config, tmp_path):
    other = TrainConfig(run=str(tmp_path / "other"), seed=4)
    save_steps(open_and_close(tmp_path / "other", other), other, [5])
    shutil.copytree(tmp_path / "other" / "checkpoints", run / "checkpoints")
    check_refused(run, config, "step-000005 belongs to another run; move it away to resume without it")


def test_a_moved_run_resumes(run, config, tmp_path):
    save_steps(run, config, [1])
    run.rename(tmp_path / "moved")
    moved = config.model_copy(update={"run": str(tmp_path / "moved")})
    assert last_checkpoint(open_and_close(tmp_path / "moved", moved, resume=True), recipe_hash(moved))[1]["step"] == 1


def check_failed_save(run, config, save):
    """Check that a failed save raises OSError and leaves earlier checkpoints as they were."""
    save_steps(run, config, [1, 2])
    before = tree(run)
    with pytest.raises(
        OSError, match=r"checkpoint 3 could not be written to .*No space left.*; earlier checkpoints are intact"
    ):
        save_checkpoint(run, 3, recipe_hash(config), {}, save, 1)
    assert tree(run) == before
    assert sorted(os.listdir(run / "checkpoints")) == ["step-000001", "step-000002"]
    assert last_checkpoint(run, recipe_hash(config))[1]["step"] == 2


def test_a_full_disk_error_costs_only_the_new_checkpoint(run, config):
    def save(folder):
        save_text("half")(folder)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    check_failed_save(run, config, save)


@pytest.fixture
def small_disk(tmp_path):
    with mounted(tmp_path / "disk", "256k") as disk:
        yield disk


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
        run = open_and_close(small_disk / "run", config)
    check_failed_save(run, config, save)
    save_steps(run, config, [3], keep=1)
    assert names(run) == ["step-000003"]


def test_the_state_is_json_with_hashes(run, config):
    save_steps(run, config, [1])
    state = json.loads((run / "checkpoints" / "step-000001" / STATE).read_text())
    assert sorted(state["files"]) == ["model/weights.bin", "optimiser.bin"]
    assert all(re.fullmatch("[0-9a-f]{64}", digest) for digest in state["files"].values())


def test_a_checkpoint_or_the_newest_of_a_run_is_found(run, config):
    save_steps(run, config, [1, 2])
    for name, step in ((run, 2), (run / "checkpoints" / "step-000001", 1)):
        folder, state = find_checkpoint(str(name))
        assert (folder.name, state["step"]) == (f"step-00000{step}", step)


def test_a_missing_or_corrupt_checkpoint_is_one_line(run, config, tmp_path):
    with pytest.raises(ValueError, match=r"no checkpoint at .*expected a run that has one, or a checkpoint$"):
        find_checkpoint(str(run))
    with pytest.raises(ValueError, match=r"no checkpoint at .*/rum'.*; the nearest is '\S*/run'"):
        find_checkpoint(str(tmp_path / "rum"))
    save_steps(run, config, [1])
    (run / "checkpoints" / "step-000001" / "optimiser.bin").write_text("other")
    with pytest.raises(ValueError, match=r"step-000001 is corrupt: optimiser\.bin does not match its hash"):
        find_checkpoint(str(run))


def test_a_dead_process_while_a_checkpoint_is_written_is_no_fault_of_the_disk(tmp_path):
    def save(folder):
        raise DeadError("learner 0 died (killed); resume the run")

    with pytest.raises(DeadError, match=r"^learner 0 died \(killed\); resume the run$"):
        save_checkpoint(tmp_path, 1, "a recipe", {}, save, 2)
    assert not list((tmp_path / "checkpoints").iterdir())

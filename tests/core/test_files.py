"""Writes are atomic, and failures say which file, why, and how much space is free."""

import errno
import os
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from codots.core.files import writable, write_atomically, write_folder, writing
from codots.engine.open import OpenModel
from codots.runs.checkpoint import start_folder
from tests.disk import mounted
from tests.random_model import make_random_model


class Killed(BaseException):
    """Simulates a killed process: the code under test does not catch it."""


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


@pytest.fixture
def umask():
    before = os.umask(0)
    yield os.umask
    os.umask(before)


@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_files_have_the_mode_of_the_umask_whatever_the_library_gives(tmp_path, umask, mask, mode):
    """safetensors writes files that only their owner may read."""
    umask(mask)

    def fill(part):
        (part / "model").mkdir()
        save_file({"x": torch.zeros(2)}, part / "model" / "model.safetensors")
        (part / "plain").write_text("x")

    write_folder(tmp_path / "whole", fill)
    write_atomically(tmp_path / "file", "x")
    files = (tmp_path / "whole" / "model" / "model.safetensors", tmp_path / "whole" / "plain", tmp_path / "file")
    assert {file.stat().st_mode & 0o777 for file in files} == {mode}


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "No space left on device"),
        (SafetensorError("Error while serializing: I/O error: File too large (os error 27)"), "File too large"),
        (
            RuntimeError("PytorchStreamWriter failed writing file data/3: file write failed\nat x.cc"),
            "PytorchStream.*fai",
        ),
    ],
)
def test_a_failed_write_is_one_line_with_the_file_the_reason_and_the_free_space(tmp_path, error, reason):
    def fill(part):
        with writing(part / "weights"):
            raise error

    with pytest.raises(OSError, match=rf"weights could not be written: {reason}.* \(\d.* [GM]iB free\)$") as failed:
        write_folder(tmp_path / "whole", fill)
    assert "\n" not in str(failed.value)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("write", ["torch", "safetensors", "text"])
def test_a_full_disk_is_named_whatever_the_library_says(tmp_path, write):
    writers = {
        "torch": lambda path: torch.save(torch.zeros(10**6), path),
        "safetensors": lambda path: save_file({"x": torch.zeros(10**6)}, path),
        "text": lambda path: write_atomically(path, "x" * 10**6),
    }
    with mounted(tmp_path / "disk", "256k") as disk:
        if disk is None:
            pytest.skip("mounting is not permitted")
        line = r"disk/x could not be written: No space left on device \(0\.\d MiB free\)"
        with pytest.raises(OSError, match=line), writing(disk / "x"):
            writers[write](disk / "x")


@contextmanager
def another_user():
    """Be a user who may read only what everyone may."""
    if os.geteuid():
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_a_file_of_another_user_is_refused_with_permission_denied():
    with TemporaryDirectory() as folder:
        model = make_random_model(Path(folder) / "model")
        for path in (Path(folder), model):
            path.chmod(0o755)
        (model / "model.safetensors").chmod(0)
        line = r"model\.safetensors cannot be read: Permission denied"
        with another_user(), pytest.raises(ValueError, match=line):
            OpenModel(model, "frozen-lake-v1")
        with another_user(), pytest.raises(ValueError, match=line):
            start_folder(str(model), None)


def test_a_folder_that_cannot_be_written_to_is_refused_before_the_work(tmp_path, monkeypatch):
    monkeypatch.setattr("os.access", lambda path, mode: path != tmp_path)
    with pytest.raises(ValueError, match=rf"cannot write .*page\.html: the folder {tmp_path} cannot be written to"):
        writable(tmp_path / "page.html")

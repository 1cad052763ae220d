"""Writes are atomic."""

import os

import pytest

from codots.core.files import write_atomically


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

"""Save the rows of an evaluation life by life, so that a stopped evaluation resumes where it stopped."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from contextlib import ExitStack
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO, Self

from codots.core.files import claimed_file, write_atomically, writing
from codots.core.renamed import OLD_VERSION
from codots.rollout.records import HEAD, MISSING, Row, dump, read_rows, solves

Lives = dict[tuple[str, int], list[Row]]
"""Rows of each life, by arm and index of the pack."""


class Journal:
    """The finished lives of an evaluation, in memory and optionally in a file, which is locked inside a `with` block.

    The first line of the file identifies the evaluation. Each life is appended when it ends.
    """

    def __init__(self, path: Path | None, head: dict[str, Any]) -> None:
        """Take the path of the file, and `head`: everything that the evaluation depends on, including `pack_size`."""
        self.path, self.head = path, head
        self.lives: Lives = {}
        self._file: BinaryIO | None = None
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        """Open the file, read its complete lives, and remove everything else from it.

        Raises ValueError, and does not change the file, if it belongs to another evaluation, another process uses it,
        or it cannot be written to.
        """
        with ExitStack() as stack:
            if self.path is not None:
                try:
                    stack.enter_context(claimed_file(self.path))
                    self._file = stack.enter_context(self._opened(self.path))
                except OSError as error:
                    raise ValueError(f"cannot write {self.path}: {error.strerror or error}") from error
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        """Close the file."""
        self._stack.close()

    def _opened(self, path: Path) -> BinaryIO:
        written = path.read_bytes() if path.exists() else b""
        if not _line(self.head).startswith(written):  # otherwise the file ended before the first row
            check_head(path, written, self.head)
            found: Lives = {}
            for row in read_rows(path):
                found.setdefault((row.arm, int(row.pack[-1])), []).append(row)
            self.lives = {key: rows for key, rows in found.items() if is_complete(rows, self.head["pack_size"])}
        if (kept := self._content()) != written:
            write_atomically(path, kept)
        return path.open("ab")

    def _content(self) -> bytes:
        return _line(self.head) + dump(chain.from_iterable(self.lives.values())).encode()

    def of(self, arm: str, pack: int) -> list[Row]:
        """Return the finished life of an arm on a pack, or an empty list."""
        return self.lives.get((arm, pack), [])

    def add(self, rows: list[Row]) -> None:
        """Add a life, and append it to the file. Raises OSError if it cannot be written."""
        self.lives[rows[0].arm, int(rows[0].pack[-1])] = rows
        if self.path is not None and self._file is not None:
            with writing(self.path):
                self._file.write(dump(rows).encode())
                self._file.flush()

    def sync(self) -> None:
        """Flush the file to disk, so that a power cut cannot lose its lives."""
        if self._file is not None:
            os.fsync(self._file.fileno())

    def sort(self) -> None:
        """Put the lives of each arm in the order of their packs, so that equal evaluations give equal files.

        Nothing can be added afterwards.
        """
        arms = list(dict.fromkeys(arm for arm, _ in self.lives))
        before, self.lives = self.lives, dict(sorted(self.lives.items(), key=lambda of: (arms.index(of[0][0]), of[0])))
        if self.path is not None and list(before) != list(self.lives):
            write_atomically(self.path, self._content())


def _line(head: dict[str, Any]) -> bytes:
    return (json.dumps({HEAD: head}) + "\n").encode()


def check_head(path: Path, written: bytes, head: dict[str, Any]) -> None:
    """Raise ValueError, with the first difference, if a file does not belong to this evaluation."""
    try:
        saved = dict(json.loads(written.partition(b"\n")[0])[HEAD])
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{path} exists and is not the file of an evaluation; give another name") from error
    if "size" in saved and "pack_size" not in saved:
        raise ValueError(
            f"{path} was written by codots {OLD_VERSION}; finish it with that version, or give another name"
        )
    for key, now in head.items():
        if saved.get(key) != now:
            difference = f"there {key} is {saved.get(key)!r}, here {now!r}"
            raise ValueError(f"{path} belongs to another evaluation: {difference}; give another name")


def is_complete(rows: Sequence[Row], size: int) -> bool:
    """Return whether a life is missing (lost to an infrastructure failure) or has a solve episode at every position.

    A life that diverged when it was re-scored is not complete, so that it is rolled out again.
    """
    return rows[0].kind == rows[0].stop == MISSING or [row.position for row in solves(rows)] == list(range(size))

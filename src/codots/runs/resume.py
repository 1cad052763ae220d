"""Save the rows of an evaluation in chunks of packs, so that a stopped evaluation resumes where it stopped."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from codots.core.files import write_atomically
from codots.core.renamed import OLD_VERSION
from codots.rollout.records import HEAD, MISSING, Row, dump, read_rows, solves

Lives = dict[tuple[str, int], list[Row]]
"""Rows of each life, by arm and index of the pack."""


class Journal:
    """The finished lives of an evaluation, in memory and optionally in a file.

    The first line of the file identifies the evaluation.
    """

    def __init__(self, path: Path | None, head: dict[str, Any]) -> None:
        """Read the complete chunks of the file if it exists, and remove an incomplete chunk from the file.

        `head` contains everything that the evaluation depends on, including `packs`, `pack_size` and `chunk`. Raises
        ValueError, and does not change the file, if the file belongs to another evaluation.
        """
        self.path, self.head = path, json.dumps({HEAD: head}) + "\n"
        self.lives: Lives = {}
        if path is not None and path.exists():
            self._resume(path, head)

    def _resume(self, path: Path, head: dict[str, Any]) -> None:
        written = path.read_bytes()
        if not self.head.encode().startswith(written):  # otherwise the file ended before the first row
            check_head(path, written, head)
            found: Lives = {}
            for row in read_rows(path):
                found.setdefault((row.arm, int(row.pack[-1])), []).append(row)
            self.lives = complete_chunks(found, head["packs"], head["pack_size"], head["chunk"])
        kept = self.head + dump(chain.from_iterable(self.lives.values()))
        if kept.encode() != written:
            write_atomically(path, kept)

    def of(self, arm: str, packs: Sequence[int]) -> list[list[Row]]:
        """Return the finished lives of an arm on these packs, or an empty list if any of them is not finished."""
        found = [self.lives[arm, i] for i in packs if (arm, i) in self.lives]
        return found if len(found) == len(packs) else []

    def add(self, lives: list[list[Row]]) -> list[list[Row]]:
        """Add a chunk of lives and return it. The chunk is flushed to disk, so that a crash cannot lose it."""
        self.lives |= {(rows[0].arm, int(rows[0].pack[-1])): rows for rows in lives}
        if self.path is not None:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(("" if file.tell() else self.head) + dump(chain.from_iterable(lives)))
                file.flush()
                os.fsync(file.fileno())
        return lives


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


def complete_chunks(lives: Lives, packs: int, size: int, chunk: int) -> Lives:
    """Return the lives of complete chunks only."""
    complete = {key for key, rows in lives.items() if is_complete(rows, size)}

    def chunk_of(i: int) -> Iterable[int]:
        first = i // chunk * chunk
        return range(first, min(first + chunk, packs))

    return {(arm, i): rows for (arm, i), rows in lives.items() if all((arm, k) in complete for k in chunk_of(i))}


def is_complete(rows: Sequence[Row], size: int) -> bool:
    """Return whether a life is missing (lost to an infrastructure failure) or has a solve episode at every position."""
    return rows[0].kind == MISSING or [row.position for row in solves(rows)] == list(range(size))

"""The rows of an evaluation, kept a chunk of packs at a time, so that one that was stopped goes on where it was."""

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
    """What was lived, in memory and, where there is a path, in a file that begins with what it is an evaluation of."""

    def __init__(self, path: Path | None, head: dict[str, Any]) -> None:
        """Take up the whole chunks of an earlier file; one of another evaluation raises ValueError and stays as it is.

        `head` says all that an evaluation depends on, among it `packs`, `pack_size` and `chunk`.
        """
        self.path, self.head = path, json.dumps({HEAD: head}) + "\n"
        self.lives: Lives = {}
        if path is not None and path.exists():
            self._take_up(path, head)

    def _take_up(self, path: Path, head: dict[str, Any]) -> None:
        written = path.read_bytes()
        if not self.head.encode().startswith(written):  # else it was cut off before any row
            check_head(path, written, head)
            found: Lives = {}
            for row in read_rows(path):
                found.setdefault((row.arm, int(row.pack[-1])), []).append(row)
            self.lives = whole_chunks(found, head["packs"], head["pack_size"], head["chunk"])
        kept = self.head + dump(chain.from_iterable(self.lives.values()))
        if kept.encode() != written:
            write_atomically(path, kept)

    def of(self, arm: str, packs: Sequence[int]) -> list[list[Row]]:
        """The lives of an arm on these packs, none unless all are there."""
        found = [self.lives[arm, i] for i in packs if (arm, i) in self.lives]
        return found if len(found) == len(packs) else []

    def add(self, lives: list[list[Row]]) -> list[list[Row]]:
        """Keep a chunk of lives; once this returns, no crash can lose it."""
        self.lives |= {(rows[0].arm, int(rows[0].pack[-1])): rows for rows in lives}
        if self.path is not None:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(("" if file.tell() else self.head) + dump(chain.from_iterable(lives)))
                file.flush()
                os.fsync(file.fileno())
        return lives


def check_head(path: Path, written: bytes, head: dict[str, Any]) -> None:
    """Raise ValueError, naming the first difference, unless a file is of this evaluation."""
    try:
        then = dict(json.loads(written.partition(b"\n")[0])[HEAD])
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{path} is there already and is no evaluation's; give another name") from error
    if "size" in then and "pack_size" not in then:
        raise ValueError(
            f"{path} was written by codots {OLD_VERSION}; finish it with that version, or give another name"
        )
    for key, now in head.items():
        if then.get(key) != now:
            raise ValueError(
                f"{path} is of another evaluation: there {key} is {then.get(key)!r}, here {now!r}; give another name"
            )


def whole_chunks(lives: Lives, packs: int, size: int, chunk: int) -> Lives:
    """Leave out the lives whose chunk was cut off."""
    whole = {key for key, rows in lives.items() if over(rows, size)}

    def beside(i: int) -> Iterable[int]:
        first = i // chunk * chunk
        return range(first, min(first + chunk, packs))

    return {(arm, i): rows for (arm, i), rows in lives.items() if all((arm, k) in whole for k in beside(i))}


def over(rows: Sequence[Row], size: int) -> bool:
    """Whether a life was written down to its end, which is its last solve, or that it is missing."""
    return rows[0].kind == MISSING or [row.position for row in solves(rows)] == list(range(size))

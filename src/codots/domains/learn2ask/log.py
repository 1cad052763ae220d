"""Logs of patient-doctor dialogues, with functions that read, cut and split them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby
from operator import itemgetter
from pathlib import Path

from codots.core.rng import stream
from codots.domains.base import Rng

PATIENT, DOCTOR = "user", "assistant"
HELD_OUT = 0.2
"""Share of the rounds to hold out from training."""
Line = tuple[str, str]
"""A message: role and text."""
FIELDS = ("cid", "session_id", "diagn", "messages", "decision_truth", "info_truth")
FORM = f"""expected an object of {", ".join(FIELDS)}; \
messages like {{"role": "{PATIENT}" or "{DOCTOR}", "content": "..."}}, \
decision_truth "stop" or "continue", info_truth a text or a list of texts"""


@dataclass(frozen=True)
class Round:
    """The content of a task: a dialogue up to a doctor's turn, and what the doctor did next."""

    cid: str
    session: str
    diagnosis: str
    lines: tuple[Line, ...]
    stop: bool
    """Whether stopping is right, because the patient wrote nothing after this point."""
    wanted: str
    """What the doctor learned after this point, as `field: value; field: value`."""


Session = tuple[Round, ...]
"""Rounds of one dialogue."""


@dataclass(frozen=True)
class Log:
    """The dialogues of `train` and of the held-out splits."""

    train: tuple[Session, ...]
    held_out: tuple[Session, ...]

    def side(self, split: str) -> tuple[Session, ...]:
        """Return the dialogues of the side that a split belongs to."""
        return self.train if split == "train" else self.held_out

    def pick(self, split: str, seed: int, position: int, rng: Rng) -> Round:
        """Draw a round from the dialogue at `position` in the log shuffled by `seed`.

        All positions have the same distribution. No two positions share a dialogue, because a later round reveals how
        an earlier round continued. Positions beyond the end of the log start over at its beginning.
        """
        sessions = self.side(split)
        order = stream("learn2ask", "sessions", seed).permutation(len(sessions))
        session = sessions[int(order[position % len(order)])]
        return session[int(rng.integers(len(session)))]


def cut(
    session: str, diagnosis: str, lines: Sequence[Line], extract: Callable[[Sequence[Line]], list[str]]
) -> list[Round]:
    """Return a round for each point of a dialogue at which the doctor writes after the patient.

    `extract` lists what the doctor learns in the rest of a dialogue. A point is skipped if the dialogue continues but
    the doctor learns nothing that counts. A dialogue that ends with the patient has no rounds.
    """
    if not lines or lines[-1][0] == PATIENT:
        return []
    rounds = []
    ends = [i for i in range(1, len(lines)) if (lines[i - 1][0], lines[i][0]) == (PATIENT, DOCTOR)]
    for number, end in enumerate(ends, start=1):
        rest = lines[end:]
        stop = all(role != PATIENT for role, _ in rest)
        wanted = "" if stop else "; ".join(extract(rest))
        if stop or wanted:
            rounds.append(Round(f"{session}-{number}", session, diagnosis, tuple(lines[:end]), stop, wanted))
    return rounds


def split(rounds: Sequence[Round]) -> Log:
    """Split rounds into a log by holding out whole diagnoses, until they cover HELD_OUT of the rounds.

    The order of the diagnoses is random but fixed, and the last one is never held out. Raises ValueError if there are
    fewer than two diagnoses.
    """
    counts = Counter(r.diagnosis for r in rounds)
    if len(counts) < 2:
        raise ValueError(f"the log has {len(counts)} diagnoses; expected at least 2, to hold some out")
    names, aside, size = sorted(counts), set[str](), 0
    for i in stream("learn2ask", "diagnoses", 42).permutation(len(names))[:-1]:
        if size < HELD_OUT * len(rounds):
            aside.add(names[i])
            size += counts[names[i]]
    sessions: dict[str, list[Round]] = {}
    for found in rounds:
        sessions.setdefault(found.session, []).append(found)
    sides: tuple[list[Session], list[Session]] = ([], [])
    for session in sessions.values():
        sides[session[0].diagnosis in aside].append(tuple(session))
    return Log(tuple(sides[False]), tuple(sides[True]))


def read_log(path: Path) -> Log:
    """Read a log of JSON lines. The log is cached until the file changes.

    Raises ValueError if the file cannot be read, or with the line number if a line is invalid.
    """
    try:
        stat = path.stat()
        return _read(path, stat.st_mtime_ns, stat.st_size)
    except OSError as error:
        raise ValueError(f"cannot read the dialogue log {path}: {error.strerror}") from None


@lru_cache(maxsize=2)
def _read(path: Path, changed: int, size: int) -> Log:
    rounds: dict[str, Round] = {}
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                found = _parse_round(line, f"{path}:{number}")
                if found.cid in rounds:
                    raise ValueError(f"{path}:{number}: cid {found.cid!r:.80} appears on two lines")
                rounds[found.cid] = found
    return split(list(rounds.values()))


def _parse_round(line: str, where: str) -> Round:
    try:
        row = json.loads(line)
        lines = tuple((message["role"], message["content"]) for message in row["messages"])
        wanted = row["info_truth"]
        wanted = "; ".join(wanted) if isinstance(wanted, list) else wanted or ""
        stop = {"stop": True, "continue": False}[row["decision_truth"]]
        read = Round(str(row["cid"]), str(row["session_id"]), str(row["diagn"]), lines, stop, wanted)
    except (ValueError, KeyError, TypeError, RecursionError):
        raise ValueError(f"{where}: {FORM}") from None
    if not lines or not all(role in (PATIENT, DOCTOR) and isinstance(said, str) for role, said in lines):
        raise ValueError(f"{where}: {FORM}")
    if not isinstance(wanted, str) or not (stop or wanted):
        raise ValueError(f"{where}: info_truth is empty but decision_truth is continue; {FORM}")
    return read


def merged(lines: Sequence[Line]) -> list[Line]:
    """Return the dialogue with consecutive messages of one speaker merged."""
    return [(role, "\n".join(said for _, said in run)) for role, run in groupby(lines, key=itemgetter(0))]

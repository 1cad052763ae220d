"""A small invented log and a judge by rule, so that the game of real dialogues can be played offline."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from itertools import pairwise

from codots.core.rng import stream
from codots.domains.base import Rng
from codots.domains.learn2ask.judge import Verdict
from codots.domains.learn2ask.log import DOCTOR, PATIENT, Line, Log, cut, split
from codots.domains.learn2ask.score import single

FAMILIES = {
    "symptom": ("alone", "with a second one"),
    "nature": ("sharp", "dull", "burning"),
    "location": ("left", "right", "both sides"),
    "severity": ("mild", "middling", "strong"),
    "trigger": ("cold air", "walking", "nothing that I know"),
}
"""What counts, and what patients say of it."""
IGNORED = "allergy"
"""What the doctors ask too, though it counts for nothing."""
COMPLAINTS = ("ache", "cramp", "itch", "numbness", "stiffness", "throbbing", "tingling", "twitch")
SESSIONS = 64
SEARCH = "<search>"
"""The doctors' last message."""


@cache
def toy_log() -> Log:
    """The invented log, the same everywhere."""
    rounds = []
    for i in range(SESSIONS):
        complaint = COMPLAINTS[i % len(COMPLAINTS)]
        rounds += cut(f"toy{i}", complaint, _dialogue(stream("learn2ask", "toy", i), complaint), _asked)
    return split(rounds)


def _dialogue(rng: Rng, complaint: str) -> list[Line]:
    lines = [(PATIENT, f"Hello, there is a {complaint}."), (PATIENT, f"It began {int(rng.integers(2, 9))} days ago.")]
    asked = [family for family in FAMILIES if rng.random() < 0.6] or ["severity"]
    for family in [*asked, *([IGNORED] if rng.random() < 0.4 else [])]:
        said = FAMILIES.get(family, ("none",))
        lines += [
            (DOCTOR, f"May I ask about the {family}?"),
            (PATIENT, f"I would say {said[rng.integers(len(said))]}."),
        ]
    return [*lines, (DOCTOR, "Thank you."), (DOCTOR, SEARCH)]


def _asked(rest: Sequence[Line]) -> list[str]:
    """What the rest of an invented dialogue brings up, of what counts."""
    pairs = [(a, b) for (role, a), (_, b) in pairwise(rest) if role == DOCTOR]
    return [f"{family}: {b.removeprefix('I would say ')}" for a, b in pairs for family in named(a)]


def named(text: str) -> list[str]:
    """The families that a text names."""
    words = set(re.findall(r"[a-z]+", text.lower()))
    return [family for family in FAMILIES if family in words]


def judge_by_rule(lines: Sequence[Line], reply: str, wanted: str) -> Verdict:
    """Score a question by the families that it names."""
    asked, still = set(named(reply)), set(named(wanted))
    content = 1.0 if asked & still else 0.5 if asked else 0.0
    return Verdict(single(reply.count("?")), content, "It was scored by the words in it.")

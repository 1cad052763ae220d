"""A small invented log and a rule-based judge, with which v0 runs offline."""

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

TOPICS = {
    "symptom": ("alone", "with a second one"),
    "nature": ("sharp", "dull", "burning"),
    "location": ("left", "right", "both sides"),
    "severity": ("mild", "middling", "strong"),
    "trigger": ("cold air", "walking", "nothing that I know"),
}
"""Possible answers of patients, by topic that counts."""
IGNORED = "allergy"
"""Topic that doctors also ask about but that does not count."""
COMPLAINTS = ("ache", "cramp", "itch", "numbness", "stiffness", "throbbing", "tingling", "twitch")
SESSIONS = 64
"""Number of dialogues in the log."""
SEARCH = "<search>"
"""Last message of every doctor."""


@cache
def toy_log() -> Log:
    """Return the invented log, which is the same in every process."""
    rounds = []
    for i in range(SESSIONS):
        complaint = COMPLAINTS[i % len(COMPLAINTS)]
        rounds += cut(f"toy{i}", complaint, _dialogue(stream("learn2ask", "toy", i), complaint), _extract)
    return split(rounds)


def _dialogue(rng: Rng, complaint: str) -> list[Line]:
    lines = [(PATIENT, f"Hello, there is a {complaint}."), (PATIENT, f"It began {int(rng.integers(2, 9))} days ago.")]
    asked = [topic for topic in TOPICS if rng.random() < 0.6] or ["severity"]
    for topic in [*asked, *([IGNORED] if rng.random() < 0.4 else [])]:
        said = TOPICS.get(topic, ("none",))
        lines += [
            (DOCTOR, f"May I ask about the {topic}?"),
            (PATIENT, f"I would say {said[rng.integers(len(said))]}."),
        ]
    return [*lines, (DOCTOR, "Thank you."), (DOCTOR, SEARCH)]


def _extract(rest: Sequence[Line]) -> list[str]:
    """Return what the rest of an invented dialogue reveals about topics that count."""
    pairs = [(a, b) for (role, a), (_, b) in pairwise(rest) if role == DOCTOR]
    return [f"{topic}: {b.removeprefix('I would say ')}" for a, b in pairs for topic in named(a)]


def named(text: str) -> list[str]:
    """Return the topics that a text names."""
    words = set(re.findall(r"[a-z]+", text.lower()))
    return [topic for topic in TOPICS if topic in words]


def judge_by_rule(lines: Sequence[Line], reply: str, wanted: str) -> Verdict:
    """Score a question by the topics named in it."""
    asked, still = set(named(reply)), set(named(wanted))
    content = 1.0 if asked & still else 0.5 if asked else 0.0
    return Verdict(single(reply.count("?")), content, "It was scored by the words in it.")

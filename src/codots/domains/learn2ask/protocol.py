"""Protocols of the clinic, and invented patients."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from itertools import permutations

from codots.core.rng import digest
from codots.domains.base import Rng

TOPICS = {
    "onset": "when it began",
    "place": "where it sits",
    "strength": "how strong it is",
    "nature": "what it feels like",
    "trigger": "what brings it on",
    "rhythm": "whether it comes and goes",
    "relief": "what makes it easier",
}
"""Meaning of each topic, by the word that names it in a question."""

CHANNELS = {"call": "on a call", "visit": "on a visit", "chat": "in a chat"}
"""Wording of each channel by which a patient comes to the clinic."""

COMPLAINTS = (
    "a dull ache", "a tingling", "a stiffness", "an itch", "a numb feeling", "a throbbing", "a burning", "a cramp",
    "a twitch", "a sore spot", "a heavy feeling", "a tightness",
)  # fmt: skip

ANSWERS = {
    "onset": ("It began this morning.", "It began two days ago.", "I have had it for a week.", "Since last month."),
    "place": ("It sits on the left.", "It sits on the right.", "It is in the middle.", "It is all over that side."),
    "strength": ("It is mild.", "It is middling.", "It is strong.", "On a scale of ten it would be a six."),
    "nature": ("It feels sharp.", "It feels dull.", "It feels like pressure.", "It feels like pins."),
    "trigger": ("Walking brings it on.", "Cold air sets it off.", "Sitting long starts it.", "Nothing sets it off."),
    "rhythm": ("It comes and goes.", "It never pauses.", "It comes in the evenings.", "It comes every few hours."),
    "relief": ("Rest makes it easier.", "Warmth helps.", "Moving about helps.", "Nothing makes it easier."),
}


@dataclass(frozen=True)
class Case:
    """The content of a task: a patient and what they volunteered."""

    channel: str
    complaint: str
    answers: tuple[tuple[str, str], ...]
    """Answer of the patient to each topic."""
    volunteered: tuple[str, ...]
    """Topics that the patient mentioned unasked, in this order."""

    @property
    def split(self) -> str:
        """The side, `train` or `held-out`, by a hash of what the model sees. The order of topics does not matter."""
        shown = [f"{topic} {answer}" for topic, answer in sorted(self.answers) if topic in self.volunteered]
        return "held-out" if digest("case", self.channel, self.complaint, *shown) % 4 == 0 else "train"


@dataclass(frozen=True)
class Protocol:
    """The hidden part of a world: the protocol of a clinic."""

    order: tuple[str, ...]
    """Topics by rank, most wanted first."""
    depth: tuple[int, ...]
    """Number of topics that must be known before stopping, by channel in the order of CHANNELS."""

    def wanted(self, case: Case) -> tuple[str, ...]:
        """Return the required topics that are not known yet, by rank. An empty tuple means to stop."""
        needed = self.order[: self.depth[list(CHANNELS).index(case.channel)]]
        return tuple(topic for topic in needed if topic not in case.volunteered)


@cache
def protocols(topics: int, depths: tuple[int, ...]) -> tuple[Protocol, ...]:
    """Return every possible protocol. All are equally likely."""
    orders = permutations(tuple(TOPICS)[:topics], max(depths))
    return tuple(Protocol(order, depth) for order in orders for depth in sorted(set(permutations(depths))))


def draw_case(rng: Rng, topics: int, channels: int, volunteered: tuple[int, int]) -> Case:
    """Draw a patient, independently of the protocol."""
    known = tuple(TOPICS)[:topics]
    count = int(rng.integers(volunteered[0], volunteered[1] + 1))
    return Case(
        channel=tuple(CHANNELS)[rng.integers(channels)],
        complaint=COMPLAINTS[rng.integers(len(COMPLAINTS))],
        answers=tuple((topic, ANSWERS[topic][rng.integers(len(ANSWERS[topic]))]) for topic in known),
        volunteered=tuple(known[i] for i in rng.permutation(topics)[:count]),
    )

"""Environment of one patient at the clinic, with parsing, scores and review of the reply."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from typing import Literal

from codots.domains.base import Step
from codots.domains.family import action
from codots.domains.learn2ask.protocol import CHANNELS, TOPICS, Case, Protocol
from codots.domains.learn2ask.score import STOP, Scores, best, fuse, single
from codots.domains.learn2ask.template import render

MODE = "Ra+Rs"
LONGEST = 300
"""Maximum characters of a question."""
WORD = re.compile(r"[a-z]+", re.A)


@dataclass(frozen=True)
class Dials:
    """Settings that differ between presets."""

    topics: int
    """Number of topics, at most 7."""
    depths: tuple[int, ...]
    """Numbers of topics that must be known before stopping, one per channel. The assignment to channels is hidden."""
    volunteered: tuple[int, int]
    """Minimum and maximum number of topics that a patient mentions unasked."""
    review: Literal["named", "scored"] = "named"
    """Whether the review names the topic that the clinic wanted, or only scores the reply."""

    @property
    def named(self) -> tuple[str, ...]:
        """Names of the topics."""
        return tuple(TOPICS)[: self.topics]

    @property
    def channels(self) -> tuple[str, ...]:
        """Names of the channels."""
        return tuple(CHANNELS)[: len(self.depths)]


@dataclass(frozen=True)
class Reply:
    """Parsed reply."""

    stop: bool
    """Whether the reply stops."""
    topics: tuple[str, ...] = ()
    """Topics that the question names."""
    questions: int = 1
    """Number of questions."""


@dataclass(frozen=True)
class Review:
    """The clinic's review of a reply."""

    reply: Reply
    scores: Scores
    wanted: str | None
    """Topic that the clinic wanted, or `stop` if it wanted none. None if the review does not name the topic."""


@dataclass(frozen=True)
class View:
    """Public state of an episode. It holds only what the texts show."""

    case: Case
    """The patient, with answers only to the volunteered topics."""
    review: Review | None = None


@dataclass
class ClinicEnv:
    """The environment of one patient, which takes one reply."""

    case: Case
    protocol: Protocol
    dials: Dials
    view: View = field(init=False)

    def __post_init__(self) -> None:
        volunteered = tuple((topic, answer) for topic, answer in self.case.answers if topic in self.case.volunteered)
        self.view = View(replace(self.case, answers=volunteered))

    def observe(self) -> str:
        """Return what the patient volunteered."""
        answers = dict(self.case.answers)
        return render(
            "case.clinic", case=self.case, volunteered=[answers[topic] for topic in self.case.volunteered], by=CHANNELS
        )

    def step(self, text: str) -> Step:
        """Score the reply. The step contains the patient's answer and the review."""
        reply = read_reply(text, self.dials.named)
        if reply is None:
            feedback = f"The reply did not hold stop or a question of at most {LONGEST} characters in one "
            return Step("", 0.0, True, feedback + "<action></action>; it counts for nothing.", "malformed", self.view)
        wanted = self.protocol.wanted(self.case)
        scores = score(reply, wanted)
        named = None if self.dials.review == "scored" else wanted[0] if wanted else STOP
        review = Review(reply, scores, named)
        self.view = replace(self.view, review=review)
        reward = fuse(scores, MODE) / best(MODE)
        return Step(self._answer(reply), reward, True, self._feedback(review), ended(reply, scores), self.view)

    def _feedback(self, review: Review) -> str:
        """Return the text of the review."""
        content = review.scores.content
        asked = "It was the topic that the clinic wanted next."
        if content < 1:
            asked = "The clinic wanted none of it." if content == 0 else "The clinic wanted another topic before it."
        if len(review.reply.topics) > 1:
            asked = "You named several topics, of which the mean counts."
        return render("review.clinic", review=review, case=self.case, by=CHANNELS, asked=asked)

    def _answer(self, reply: Reply) -> str:
        """Return the patient's answer, which does not depend on the protocol."""
        if reply.stop:
            return "Patient: Thank you."
        answers = dict(self.case.answers)
        return f"Patient: {' '.join(answers[topic] for topic in reply.topics) or 'I could not say.'}"


def ended(reply: Reply, scores: Scores) -> str:
    """Return how the episode ended: `stopped`, `asked`, `early` or `needless`."""
    if scores.action:
        return "stopped" if reply.stop else "asked"
    return "early" if reply.stop else "needless"


def score(reply: Reply, wanted: tuple[str, ...]) -> Scores:
    """Score a reply, given the wanted topics by rank. The content score is the mean over the topics of the question."""
    if reply.stop != (not wanted):
        return Scores(0.0)
    if reply.stop:
        return Scores(1.0, 1.0, 1.0)
    worth = [1.0 if topic == wanted[0] else 0.5 if topic in wanted else 0.0 for topic in reply.topics]
    return Scores(1.0, sum(worth) / max(len(worth), 1), single(reply.questions))


def read_reply(text: str, topics: tuple[str, ...]) -> Reply | None:
    """Parse a reply: `stop` or a question in exactly one pair of action tags.

    Returns None if the text is malformed.
    """
    inside = (action(text) or "").strip()
    words = WORD.findall(inside[: LONGEST + 1].lower())
    if len(inside) > LONGEST or not words:
        return None
    if inside.lower() == STOP:
        return Reply(True)
    named = tuple(topic for topic in topics if topic in words)
    return Reply(False, named, max(len(named), inside.count("?"), 1))


def write_reply(topic: str) -> str:
    """Return a reply that asks about a topic, or that stops if `topic` is STOP."""
    return f"<action>{STOP if topic == STOP else f'Could you tell me about the {topic}: {TOPICS[topic]}?'}</action>"

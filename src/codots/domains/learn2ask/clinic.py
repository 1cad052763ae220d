"""One patient at the clinic: what is shown, what is read, how the clinic reviews it."""

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
"""Greatest length of a question in characters."""
WORD = re.compile(r"[a-z]+", re.A)


@dataclass(frozen=True)
class Dials:
    """What differs between presets."""

    topics: int
    """How many topics there are, at most 7."""
    depths: tuple[int, ...]
    """How many topics have to be known before one stops: one number for each channel, hidden which for which."""
    told: tuple[int, int]
    """Least and greatest number of topics that a patient has spoken of."""
    review: Literal["named", "scored"] = "named"
    """Whether the clinic's review names what it would have asked, or only scores the reply."""

    @property
    def named(self) -> tuple[str, ...]:
        """The topics."""
        return tuple(TOPICS)[: self.topics]


@dataclass(frozen=True)
class Reply:
    """What was read of a model's text."""

    stop: bool
    topics: tuple[str, ...] = ()
    """The topics that the question names."""
    questions: int = 1


@dataclass(frozen=True)
class Review:
    """What the clinic lets one know."""

    reply: Reply
    scores: Scores
    wanted: str | None
    """The topic that it would have asked about, or `stop`; None where it does not say."""


@dataclass(frozen=True)
class View:
    """The public state of an episode: nothing that its texts do not tell."""

    case: Case
    """With no answer but to the topics that the patient spoke of."""
    review: Review | None = None


@dataclass
class ClinicEnv:
    """One patient, one reply."""

    case: Case
    protocol: Protocol
    dials: Dials
    view: View = field(init=False)

    def __post_init__(self) -> None:
        told = tuple((topic, answer) for topic, answer in self.case.answers if topic in self.case.told)
        self.view = View(replace(self.case, answers=told))

    def observe(self) -> str:
        """Show what the patient has told."""
        answers = dict(self.case.answers)
        return render("case.clinic", case=self.case, told=[answers[topic] for topic in self.case.told], by=CHANNELS)

    def step(self, text: str) -> Step:
        """Put the question, or stop."""
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
        """What the clinic says to it."""
        content = review.scores.content
        asked = "It was the topic that the clinic wanted next."
        if content < 1:
            asked = "The clinic wanted none of it." if content == 0 else "The clinic wanted another topic before it."
        if len(review.reply.topics) > 1:
            asked = "You named several topics, of which the mean counts."
        return render("review.clinic", review=review, case=self.case, by=CHANNELS, asked=asked)

    def _answer(self, reply: Reply) -> str:
        """What the patient says to it, which does not hang on the clinic."""
        if reply.stop:
            return "Patient: Thank you."
        answers = dict(self.case.answers)
        return f"Patient: {' '.join(answers[topic] for topic in reply.topics) or 'I could not say.'}"


def ended(reply: Reply, scores: Scores) -> str:
    """Name the end: `stopped`, `asked`, `early` (stopped too early) or `needless` (asked, but all was known)."""
    if scores.action:
        return "stopped" if reply.stop else "asked"
    return "early" if reply.stop else "needless"


def score(reply: Reply, wanted: tuple[str, ...]) -> Scores:
    """Score a reply where these topics are wanted, the first of them most; of several topics the mean counts."""
    if reply.stop != (not wanted):
        return Scores(0.0)
    if reply.stop:
        return Scores(1.0, 1.0, 1.0)
    worth = [1.0 if topic == wanted[0] else 0.5 if topic in wanted else 0.0 for topic in reply.topics]
    return Scores(1.0, sum(worth) / max(len(worth), 1), single(reply.questions))


def read_reply(text: str, topics: tuple[str, ...]) -> Reply | None:
    """Read stop or a question in exactly one pair of tags, None if the text is malformed."""
    inside = (action(text) or "").strip()
    words = WORD.findall(inside[: LONGEST + 1].lower())
    if len(inside) > LONGEST or not words:
        return None
    if inside.lower() == STOP:
        return Reply(True)
    named = tuple(topic for topic in topics if topic in words)
    return Reply(False, named, max(len(named), inside.count("?"), 1))


def write_reply(topic: str) -> str:
    """Word the question about a topic, or stop."""
    return f"<action>{STOP if topic == STOP else f'Could you tell me about the {topic}: {TOPICS[topic]}?'}</action>"

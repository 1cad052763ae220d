"""Scripted reference policies of the clinic."""

from __future__ import annotations

import numpy as np

from codots.domains.base import Rng, Step
from codots.domains.learn2ask.belief import NO_TOPIC, Ints, Wanted, agreeing, all_protocols, notes_of, wanted_by
from codots.domains.learn2ask.clinic import Dials, View, write_reply
from codots.domains.learn2ask.notes import Claim, Situation, read_claims
from codots.domains.learn2ask.protocol import Case, Protocol, protocols
from codots.domains.learn2ask.score import STOP


class Random:
    """Policy that chooses uniformly between stopping and asking about one of the topics.

    If it has read claims about the protocol, it follows a uniformly drawn protocol that agrees with them.
    """

    def __init__(self, rng: Rng, dials: Dials) -> None:
        self.rng, self.dials, self.claims = rng, dials, list[Claim]()

    def act(self, view: View) -> str:
        every = protocols(self.dials.topics, self.dials.depths)
        left = agreeing(self.dials, all_protocols(self.dials), self.claims)
        if len(left) < len(every):
            wanted = every[left[self.rng.integers(len(left))]].wanted(view.case)
            return write_reply((*wanted, STOP)[0])
        choices = (STOP, *self.dials.named)
        return write_reply(choices[self.rng.integers(len(choices))])

    def end(self, step: Step) -> None:
        """Ignore the outcome."""

    def read(self, context: str) -> None:
        """Read claims about the protocol."""
        self.claims = read_claims(context)


class Informed:
    """Policy that follows the protocol."""

    def __init__(self, protocol: Protocol) -> None:
        self.protocol = protocol

    def act(self, view: View) -> str:
        return write_reply((*self.protocol.wanted(view.case), STOP)[0])

    def end(self, step: Step) -> None:
        """Ignore the outcome; the protocol is already known."""


class Bayes:
    """Policy that exactly maximizes the expected reward of each task, given every review of the life.

    Only stopping and questions about one topic are candidates. A question about several topics is never better, because
    its content score is a mean and its format score is lower.
    """

    def __init__(self, dials: Dials) -> None:
        self.dials = dials
        self.remaining: Ints = all_protocols(dials)
        """Indices of the protocols that agree with every review."""
        self.claims: list[Claim] = []
        self.situations: dict[Situation, None] = {}
        """The situations that were read about or reviewed, in order."""

    def act(self, view: View) -> str:
        rewards = self.wanted(view.case, self.belief).rewards().mean(axis=0)
        best = int(np.flatnonzero(rewards > rewards.max() - 1e-9)[0])
        return write_reply((STOP, *self.dials.named)[best])

    def end(self, step: Step) -> None:
        view: View = step.view
        if view.review is None:  # a malformed reply gets no review
            return
        wanted, reply, scores = self.wanted(view.case, self.remaining), view.review.reply, view.review.scores
        on = wanted.first != NO_TOPIC
        fits = on == (reply.stop != bool(scores.action))
        if scores.action and reply.topics:
            asked = [self.dials.named.index(topic) for topic in reply.topics]
            fits &= np.abs(wanted.worth[:, asked].mean(axis=1) - scores.content) < 1e-9
        if view.review.wanted is not None:
            named = NO_TOPIC if view.review.wanted == STOP else self.dials.named.index(view.review.wanted)
            fits &= wanted.first == named
        self.remaining = self.remaining[fits]
        self.situations[view.case.channel, tuple(sorted(view.case.volunteered))] = None

    def read(self, context: str) -> None:
        """Read claims about the protocol."""
        self.claims = read_claims(context)
        found = [claim.about for claim in self.claims if isinstance(claim.about, tuple)]
        self.situations |= {(channel, known): None for channel, known in found if channel in self.dials.channels}

    @property
    def belief(self) -> Ints:
        """Indices of the protocols that agree with every review and with the claims read."""
        return agreeing(self.dials, self.remaining, self.claims)

    def wanted(self, case: Case, candidates: Ints) -> Wanted:
        """Return what candidate protocols want in a case."""
        return wanted_by(self.dials, candidates, case.channel, case.volunteered)

    def notes(self, style: str) -> dict[str, str]:
        """Return the possible topics of each rank and the possible depths of each channel, if not all are possible."""
        return notes_of(self.dials, self.belief, self.situations)

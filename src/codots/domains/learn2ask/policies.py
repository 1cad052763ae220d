"""Scripted reference policies of the clinic."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from codots.domains.base import Rng, Step
from codots.domains.learn2ask.clinic import Dials, View, write_reply
from codots.domains.learn2ask.protocol import CHANNELS, Case, Protocol, protocols
from codots.domains.learn2ask.score import STOP

Ints = NDArray[np.int64]
NO_TOPIC = -1
"""Index used instead of a topic if the clinic would stop."""


class Random:
    """Policy that chooses uniformly between stopping and asking about one of the topics."""

    def __init__(self, rng: Rng, topics: tuple[str, ...]) -> None:
        self.rng, self.choices = rng, (STOP, *topics)

    def act(self, view: View) -> str:
        return write_reply(self.choices[self.rng.integers(len(self.choices))])

    def end(self, step: Step) -> None:
        """Ignore the outcome."""


class Informed:
    """Policy that follows the protocol."""

    def __init__(self, protocol: Protocol) -> None:
        self.protocol = protocol

    def act(self, view: View) -> str:
        return write_reply((*self.protocol.wanted(view.case), STOP)[0])

    def end(self, step: Step) -> None:
        """Ignore the outcome; the protocol is already known."""


@dataclass(frozen=True)
class Wanted:
    """What each of N protocols wants to know from one patient."""

    first: Ints
    """Index of the wanted topic, or NO_TOPIC to stop. Shape (N,)."""
    worth: NDArray[np.float64]
    """Content score of a question about each topic. Shape (N, topics)."""

    def rewards(self) -> NDArray[np.float64]:
        """Return the reward of stopping and of asking about each topic, as an array of shape (N, 1 + topics)."""
        on = (self.first != NO_TOPIC)[:, None]
        return np.hstack([~on * 1.0, on * (0.5 + 0.5 * self.worth)])


@cache
def _table(topics: int, depths: tuple[int, ...]) -> tuple[Ints, Ints]:
    """Return all N protocols as arrays: ranked topics (N, max depth) and depths by channel (N, channels)."""
    every = protocols(topics, depths)
    index = {topic: i for i, topic in enumerate(Dials(topics, depths, (0, 0)).named)}
    order = np.array([[index[topic] for topic in p.order] for p in every], dtype=np.int64)
    return order, np.array([p.depth for p in every], dtype=np.int64)


class Bayes:
    """Policy that exactly maximizes the expected reward of each task, given every review of the life.

    Only stopping and questions about one topic are candidates. A question about several topics is never better, because
    its content score is a mean and its format score is lower.
    """

    def __init__(self, dials: Dials) -> None:
        self.dials = dials
        self.remaining: Ints = np.arange(len(protocols(dials.topics, dials.depths)))
        """Indices of the protocols that agree with every review."""

    def act(self, view: View) -> str:
        rewards = self.wanted(view.case).rewards().mean(axis=0)
        best = int(np.flatnonzero(rewards > rewards.max() - 1e-9)[0])
        return write_reply((STOP, *self.dials.named)[best])

    def end(self, step: Step) -> None:
        view: View = step.view
        if view.review is None:  # a malformed reply gets no review
            return
        wanted, reply, scores = self.wanted(view.case), view.review.reply, view.review.scores
        on = wanted.first != NO_TOPIC
        fits = on == (reply.stop != bool(scores.action))
        if scores.action and reply.topics:
            asked = [self.dials.named.index(topic) for topic in reply.topics]
            fits &= np.abs(wanted.worth[:, asked].mean(axis=1) - scores.content) < 1e-9
        if view.review.wanted is not None:
            named = NO_TOPIC if view.review.wanted == STOP else self.dials.named.index(view.review.wanted)
            fits &= wanted.first == named
        self.remaining = self.remaining[fits]

    def wanted(self, case: Case) -> Wanted:
        """Return what the remaining protocols want in a case."""
        order, depth = (table[self.remaining] for table in _table(self.dials.topics, self.dials.depths))
        known = np.isin(order, [self.dials.named.index(topic) for topic in case.volunteered])
        missing = ~known & (np.arange(order.shape[1]) < depth[:, [list(CHANNELS).index(case.channel)]])
        place = missing.argmax(axis=1)
        rows = np.arange(len(order))
        first = np.where(missing.any(axis=1), order[rows, place], NO_TOPIC)
        worth = np.zeros((len(order), self.dials.topics))
        np.put_along_axis(worth, order, 0.5 * missing, axis=1)
        worth[rows[first != NO_TOPIC], first[first != NO_TOPIC]] = 1.0
        return Wanted(first, worth)

"""Sets of protocols that may be true: what they want, which of them agree with claims, and what they have in common."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from codots.domains.learn2ask.clinic import Dials
from codots.domains.learn2ask.notes import Claim, Situation, Subject, write_channel, write_rank
from codots.domains.learn2ask.protocol import protocols
from codots.domains.learn2ask.score import STOP

Ints = NDArray[np.int64]
NO_TOPIC = -1
"""Index used instead of a topic if the clinic would stop."""


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


def all_protocols(dials: Dials) -> Ints:
    """Return the indices of all protocols. Other functions take and return some of them."""
    return np.arange(len(protocols(dials.topics, dials.depths)))


def wanted_by(dials: Dials, candidates: Ints, channel: str, known: Iterable[str]) -> Wanted:
    """Return what the candidates want from a patient who comes by this channel, given the known topics."""
    order, depth = (table[candidates] for table in _table(dials.topics, dials.depths))
    mentioned = np.isin(order, [dials.named.index(topic) for topic in known if topic in dials.named])
    missing = ~mentioned & (np.arange(order.shape[1]) < depth[:, [dials.channels.index(channel)]])
    place = missing.argmax(axis=1)
    rows = np.arange(len(order))
    first = np.where(missing.any(axis=1), order[rows, place], NO_TOPIC)
    worth = np.zeros((len(order), dials.topics))
    np.put_along_axis(worth, order, 0.5 * missing, axis=1)
    worth[rows[first != NO_TOPIC], first[first != NO_TOPIC]] = 1.0
    return Wanted(first, worth)


def agreeing(dials: Dials, candidates: Ints, claims: Iterable[Claim]) -> Ints:
    """Return the candidates that agree with the claims.

    Claims are applied in order. A claim that excludes all remaining candidates is ignored.
    """
    numbers: dict[int | str, int] = {STOP: NO_TOPIC, **{topic: i for i, topic in enumerate(dials.named)}}
    for claim in claims:
        said = _said(dials, candidates, claim.about)
        if said is not None:
            wanted = [numbers.get(option, option) for option in claim.options]
            kept = candidates[np.isin(said, [option for option in wanted if isinstance(option, int)])]
            candidates = kept if len(kept) else candidates
    return candidates


def _said(dials: Dials, candidates: Ints, about: Subject) -> Ints | None:
    """Return what each candidate says about the subject of a claim: a topic, NO_TOPIC or a depth.

    Returns None if the protocols have no such rank or channel.
    """
    order, depth = (table[candidates] for table in _table(dials.topics, dials.depths))
    if isinstance(about, int):
        return order[:, about - 1] if about <= order.shape[1] else None
    channel = about if isinstance(about, str) else about[0]
    if channel not in dials.channels:
        return None
    if isinstance(about, str):
        return depth[:, dials.channels.index(channel)]
    return wanted_by(dials, candidates, *about).first


def _claim(dials: Dials, candidates: Ints, about: Subject) -> Claim:
    """Return the claim that names everything that some candidate says about a subject."""
    said = _said(dials, candidates, about)
    assert said is not None
    numbers: list[int] = np.unique(said).tolist()
    if isinstance(about, str):
        return Claim(about, tuple(numbers))
    return Claim(about, tuple(STOP if i == NO_TOPIC else dials.named[i] for i in numbers))


def notes_of(dials: Dials, candidates: Ints, situations: Iterable[Situation]) -> dict[str, str]:
    """Return what all candidates have in common: possible topics by rank, and possible depths by channel.

    A line is omitted if it excludes nothing. The line of a channel also says what may be wanted in those of the
    situations for which this does not follow from the rest.
    """
    ranks = [_claim(dials, candidates, rank) for rank in range(1, max(dials.depths) + 1)]
    channels = {channel: _claim(dials, candidates, channel) for channel in dials.channels}
    left = agreeing(dials, all_protocols(dials), [*ranks, *channels.values()])
    cases: dict[str, list[Claim]] = {channel: [] for channel in dials.channels}
    for situation in situations:
        claim = _claim(dials, candidates, situation)
        kept = agreeing(dials, left, [claim])
        if len(kept) < len(left) and (STOP not in claim.options or len(claim.options) == 1):
            cases[situation[0]].append(claim)
            left = kept
    found = {f"rank {c.about}": write_rank(c) for c in ranks if len(c.options) < dials.topics}
    for channel, claim in channels.items():
        said = [*[claim][: len(claim.options) < len({*dials.depths})], *cases[channel]]
        if said:
            found[channel] = write_channel(channel, said)
    return found

"""Reading and writing claims about a clinic's protocol in a context."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from codots.domains.learn2ask.protocol import CHANNELS, TOPICS
from codots.domains.learn2ask.score import STOP

MOST = 100
"""Maximum number of claims read. Further ones are ignored."""
_TOPIC, _CHANNEL = "|".join(TOPICS), "|".join(CHANNELS)
RANK = re.compile(rf"\b([1-9])\W{{1,3}}((?:{_TOPIC})(?: or (?:{_TOPIC})){{0,6}})\b", re.I | re.A)
DEPTH = re.compile(
    rf"\b({_CHANNEL})\b(?:\W{{1,3}}(?!(?:{_CHANNEL})\b)[a-z]+){{0,4}}?\W{{1,3}}([1-9](?: or [1-9]){{0,8}})\b"
    rf"(?!\W{{1,3}}(?:{_TOPIC})\b)",
    re.I | re.A,
)
CASE = re.compile(
    rf"\b({_CHANNEL})\b|\b(?:({STOP})|ask ((?:{_TOPIC})(?: or (?:{_TOPIC})){{0,6}})) when "
    rf"(nothing|(?:{_TOPIC})(?: and (?:{_TOPIC})){{0,6}})\b|\n",
    re.I | re.A,
)
Situation = tuple[str, tuple[str, ...]]
"""A channel and the sorted topics that are known."""
Subject = int | str | Situation
"""What a claim is about: a rank, counted from 1, or a channel, or a situation."""


@dataclass(frozen=True)
class Claim:
    """A claim about a rank, about a channel, or about what is wanted in a situation."""

    about: Subject
    options: tuple[int | str, ...]
    """The topics that may have this rank, the depths that the channel may have, or what may be wanted."""


def read_claims(context: str) -> list[Claim]:
    """Return the different claims of a text: about ranks, then about channels, then about situations, each in order."""
    found = [Claim(int(rank), _options(topics)) for rank, topics in RANK.findall(context)]
    found += [Claim(channel.lower(), tuple(map(int, _options(d)))) for channel, d in DEPTH.findall(context)]
    return list(dict.fromkeys([*found, *_read_cases(context)]))[:MOST]


def _read_cases(context: str) -> Iterator[Claim]:
    """Yield the claims about situations. Each is about the last channel named before it on its line."""
    channel = ""
    for named, stop, topics, known in CASE.findall(context):
        if known and channel:
            there = tuple(sorted({*known.lower().split(" and ")} - {"nothing"}))
            yield Claim((channel, there), (STOP,) if stop else _options(topics))
        elif not known:
            channel = named.lower()


def _options(text: str) -> tuple[str, ...]:
    return tuple(text.lower().split(" or "))


def write_rank(claim: Claim) -> str:
    """Return a claim about a rank as text."""
    return f"- rank {claim.about}: {_either(claim)}"


def write_channel(channel: str, claims: Iterable[Claim]) -> str:
    """Return claims about a channel, and about situations in which a patient comes by it, as one line."""
    said = []
    for claim in claims:
        if isinstance(claim.about, tuple):
            known = " and ".join(claim.about[1]) or "nothing"
            what = STOP if STOP in claim.options else f"ask {_either(claim)}"
            said.append(f"{what} when {known} {'are' if ' ' in known else 'is'} known")
        else:
            said.append(f"stop once the first {_either(claim)} are known")
    return f"- {CHANNELS[channel]}: {'; '.join(said)}"


def _either(claim: Claim) -> str:
    return " or ".join(map(str, claim.options))

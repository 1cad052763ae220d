"""The arms of an evaluation: own contexts, and controls that replace them."""

from __future__ import annotations

from collections.abc import Sequence

from codots.context.record import RECORDS
from codots.core.rng import stream
from codots.domains.base import Pack

CONTROLS = ("own", "null", "shuffled", "frozen", "oracle")
ARMS = (*CONTROLS, *RECORDS)


def needed_own(arms: Sequence[str]) -> bool:
    """Return whether any arm is derived from the model's own contexts."""
    return any(arm in ("own", "shuffled", "frozen") for arm in arms)


def fitted(contexts: Sequence[str], size: int) -> tuple[str, ...]:
    """Return the contexts of a life, or `size` empty contexts if the life is missing."""
    return tuple(contexts) or ("",) * size


def contexts_of(arm: str, i: int, packs: Sequence[Pack], own: Sequence[Sequence[str]], style: str) -> tuple[str, ...]:
    """Return the contexts that an arm other than `own` and the records gives to the life of pack i.

    `own` holds, for each pack, the contexts of the model's own life.
    """
    pack, size = packs[i], len(packs[i].tasks)
    if arm == "null":
        return ("",) * size
    if arm == "oracle":
        return tuple(pack.domain.oracle_context(pack.world.at(j), style) for j in range(size))
    if arm == "frozen":
        first, *rest = fitted(own[i], size)
        return (first, *(rest[:1] * (size - 1)))
    return fitted(own[stranger(i, packs)], size)


def stranger(i: int, packs: Sequence[Pack]) -> int:
    """Return the index of a random pack whose hidden rule differs from that of pack i.

    The name of pack i seeds the draw. Raises ValueError if there is no such pack.
    """
    others = [k for k, pack in enumerate(packs) if pack.world.hidden != packs[i].world.hidden]
    if not others:
        raise ValueError("shuffled contexts need packs of at least two different worlds; give more packs")
    return others[int(stream("stranger", *packs[i].names).integers(len(others)))]

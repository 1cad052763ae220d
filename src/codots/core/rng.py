"""Worlds, tasks and packs, and the named random streams they are drawn from."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from codots.domains.base import Domain, Env

Names = tuple[str | int, ...]


def digest(*names: str | int) -> int:
    """Hash a list of names to a 128-bit integer that is the same on every machine and in every process."""
    text = "\x1f".join(f"{type(name).__name__}:{name}" for name in names)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:16], "big")


def stream(*names: str | int) -> np.random.Generator:
    """Give the random generator of this name: equal names, equal draws, whatever else was drawn before."""
    return np.random.Generator(np.random.PCG64(digest(*names)))


@dataclass(frozen=True)
class World:
    """One draw of what is hidden and stable."""

    hidden: Any
    """The domain's own frozen record of the hidden part."""
    dials: Any
    """The preset that it was drawn with."""
    split: str = "train"
    """`train` or a held-out name (`dev`, `test`, ...)."""
    names: Names = ()
    """The name of the pack it belongs to."""


@dataclass(frozen=True)
class Task:
    """One problem in a world."""

    domain: Domain
    world: World
    position: int
    content: Any
    """The domain's own frozen record of the problem."""
    names: Names
    """The name of this task's random stream."""

    def env(self, *, style: str = "natural", memory: object | None = None) -> Env:
        """Open a fresh single-use environment; equal tasks give equal environments."""
        return self.domain.open(self, style=style, memory=memory)


@dataclass(frozen=True)
class Pack:
    """One world and its tasks in the order they are met."""

    domain: Domain
    preset: str
    split: str
    index: int
    world: World
    tasks: tuple[Task, ...]

    @property
    def names(self) -> Names:
        """The name under which everything random about this pack is drawn."""
        return (self.domain.id, self.preset, self.split, self.index)

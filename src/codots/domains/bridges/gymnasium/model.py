"""What an environment does, as a list of outcomes, and the best that can be made of it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from codots.core.rng import stream
from codots.domains.bridges.gymnasium.upstream import Spec, open_env, plain

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
PLAYS = 20_000
"""Random episodes that outcomes are counted from where an environment has no table of them."""
SCALE = 500
"""Random episodes that the zero of the reward is read off."""


@dataclass(frozen=True)
class Model:
    """Outcomes `_N`: in state `at` the action `act` leads to `to` with chance `p`, pays `pays`, and perhaps ends."""

    states: dict[Any, int]
    """Index of each observation."""
    actions: int
    at: Ints
    act: Ints
    p: Floats
    to: Ints
    pays: Floats
    ends: NDArray[np.bool_]
    told: bool
    """Whether the environment has told its outcomes; otherwise they were counted."""

    @property
    def certain(self) -> bool:
        """Whether no action has two outcomes."""
        return self.told and bool((self.p == 1).all())

    def values(self, turns: int, hurry: float = 0.0) -> list[Floats]:
        """Expected return of each action, `(states, actions)`, by the number of turns that were used, played best.

        `hurry` is the part that a turn takes off what comes after it: next to nothing tells the ways apart that earn
        the same, sooner or later.
        """
        return self._backwards(turns, self._mean, keep=1 - hurry)

    def bounds(self, turns: int) -> tuple[Floats, Floats]:
        """The least and the greatest return that may come of each state, whatever luck and the player do."""
        low = self._backwards(turns, self._extreme(np.minimum, np.inf), np.min)
        high = self._backwards(turns, self._extreme(np.maximum, -np.inf))
        return low[0].min(1), high[0].max(1)

    def _backwards(self, turns: int, combine: Any, choose: Any = np.max, keep: float = 1.0) -> list[Floats]:
        after, found = np.zeros(len(self.states)), []
        for _ in range(turns):
            found.append(combine(self.pays + np.where(self.ends, 0.0, keep * after[self.to])))
            after = choose(found[-1], axis=1)
        return found[::-1]

    def _mean(self, return_N: Floats) -> Floats:
        size = len(self.states) * self.actions
        mean = np.bincount(self.at * self.actions + self.act, self.p * return_N, size)
        return mean.astype(float).reshape(-1, self.actions)

    def _extreme(self, ufunc: np.ufunc, start: float) -> Any:
        def combine(return_N: Floats) -> Floats:
            out = np.full((len(self.states), self.actions), start)
            ufunc.at(out, (self.at, self.act), return_N)
            return np.where(np.isfinite(out), out, 0.0)

        return combine

    @cached_property
    def _likely(self) -> dict[tuple[int, int, bool], Floats]:
        likely: dict[tuple[int, int, bool], Floats] = {}
        for at, act, p, to, ends in zip(self.at, self.act, self.p, self.to, self.ends, strict=True):
            likely.setdefault((int(at), int(to), bool(ends)), np.zeros(self.actions))[act] += p
        return likely

    def likelihood(self, before: Any, after: Any, ended: bool) -> Floats | None:
        """Chance of this outcome under each action; None where it is not known to happen."""
        key = (self.states.get(before, -1), self.states.get(after, -1), ended)
        return self._likely.get(key)


@lru_cache(maxsize=256)
def model_of(spec: Spec, board: tuple[str, ...] | None, turns: int) -> Model:
    """The outcomes of an environment: as it tells them, or counted over many random plays of this many turns."""
    env = open_env(spec, board, drawn=False)
    table = getattr(env.unwrapped, "P", None)
    if not isinstance(table, dict):
        return _counted(spec, env, turns)
    rows = [(s, a, *o) for s, by_action in table.items() for a, outs in by_action.items() for o in outs]
    at, act, p, to, pays, ends = map(np.array, zip(*rows, strict=True))
    return Model({s: s for s in table}, spec.actions, at, act, p, to, pays.astype(float), ends.astype(bool), told=True)


def _counted(spec: Spec, env: Any, turns: int) -> Model:
    states: dict[Any, int] = {}
    counts: Counter[tuple[int, int, int, float, bool]] = Counter()
    for before, act, after, pays, ends in _random_steps(spec, env, turns, PLAYS):
        i, j = (states.setdefault(s, len(states)) for s in (before, after))
        counts[i, act, j, pays, ends] += 1
    at, act, to, pays, ends = map(np.array, zip(*counts, strict=True))
    n = np.array(list(counts.values()), float)
    total = np.bincount(at * spec.actions + act, n, len(states) * spec.actions)
    return Model(states, spec.actions, at, act, n / total[at * spec.actions + act], to, pays, ends, told=False)


def _random_steps(spec: Spec, env: Any, turns: int, plays: int) -> Any:
    """Steps of random episodes, the same ones every time."""
    rng, seed = stream("gymnasium", "plays", spec.id), 7
    for _ in range(plays):
        before, seed = plain(env.reset(seed=seed)[0]), None  # type: ignore[assignment]
        for act in rng.integers(spec.actions, size=turns).tolist():
            seen, pays, ends, cut, _ = env.step(spec.first + act)
            yield before, act, (before := plain(seen)), float(pays), bool(ends)
            if ends or cut:
                break


@lru_cache(maxsize=64)
def zero_of(spec: Spec, turns: int) -> float:
    """The return that half of random plays do not exceed, on the environment's own map."""
    env = open_env(spec, drawn=False)
    rng, returns = stream("gymnasium", "zero", spec.id), []
    for play in range(SCALE):
        env.reset(seed=play)
        total = 0.0
        for act in rng.integers(spec.actions, size=turns).tolist():
            _, pays, ends, cut, _ = env.step(spec.first + act)
            total += float(pays)
            if ends or cut:
                break
        returns.append(total)
    return float(np.median(returns))

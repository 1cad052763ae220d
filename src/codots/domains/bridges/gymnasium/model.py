"""Outcome models of environments, and optimal returns under the models."""

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
COUNTED_EPISODES = 20_000
"""Number of random episodes in which outcomes are counted if an environment has no table of outcomes."""
ZERO_EPISODES = 500
"""Number of random episodes that estimate the return that maps to reward 0."""


@dataclass(frozen=True)
class Model:
    """Outcome model. In each row, action `act` in state `at` leads to `to` with probability `p` and reward `pays`."""

    states: dict[Any, int]
    """State index of each observation."""
    actions: int
    at: Ints
    act: Ints
    p: Floats
    to: Ints
    pays: Floats
    ends: NDArray[np.bool_]
    """Whether the outcome ends the episode."""
    declared: bool
    """Whether the environment declares its outcomes. If False, the outcomes were counted."""

    @property
    def certain(self) -> bool:
        """Whether every action has one declared outcome."""
        return self.declared and bool((self.p == 1).all())

    def values(self, turns: int, decay: float = 0.0) -> list[Floats]:
        """Return the optimal expected return of each action, as one array for each number of turns used.

        Each array has shape `(states, actions)`. `decay` is the fraction of the later return that each turn costs. A
        tiny `decay` breaks ties in favor of shorter episodes.
        """
        return self._backwards(turns, self._mean, keep=1 - decay)

    def bounds(self, turns: int) -> tuple[Floats, Floats]:
        """Return the minimum and the maximum return from each state over all actions and outcomes."""
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
    def _probabilities(self) -> dict[tuple[int, int, bool], Floats]:
        probabilities: dict[tuple[int, int, bool], Floats] = {}
        for at, act, p, to, ends in zip(self.at, self.act, self.p, self.to, self.ends, strict=True):
            probabilities.setdefault((int(at), int(to), bool(ends)), np.zeros(self.actions))[act] += p
        return probabilities

    def likelihood(self, before: Any, after: Any, ended: bool) -> Floats | None:
        """Return the probability of this outcome under each action, or None if the model does not contain it."""
        key = (self.states.get(before, -1), self.states.get(after, -1), ended)
        return self._probabilities.get(key)


@lru_cache(maxsize=256)
def model_of(spec: Spec, board: tuple[str, ...] | None, turns: int) -> Model:
    """Return the model that the environment declares, or a model counted in random episodes of `turns` turns."""
    env = open_env(spec, board, drawn=False)
    table = getattr(env.unwrapped, "P", None)
    if not isinstance(table, dict):
        return _counted(spec, env, turns)
    rows = [(s, a, *o) for s, by_action in table.items() for a, outs in by_action.items() for o in outs]
    at, act, p, to, pays, ends = map(np.array, zip(*rows, strict=True))
    return Model(
        {s: s for s in table}, spec.actions, at, act, p, to, pays.astype(float), ends.astype(bool), declared=True
    )


def _counted(spec: Spec, env: Any, turns: int) -> Model:
    states: dict[Any, int] = {}
    counts: Counter[tuple[int, int, int, float, bool]] = Counter()
    for before, act, after, pays, ends in _random_steps(spec, env, turns, COUNTED_EPISODES):
        i, j = (states.setdefault(s, len(states)) for s in (before, after))
        counts[i, act, j, pays, ends] += 1
    at, act, to, pays, ends = map(np.array, zip(*counts, strict=True))
    n = np.array(list(counts.values()), float)
    total = np.bincount(at * spec.actions + act, n, len(states) * spec.actions)
    return Model(states, spec.actions, at, act, n / total[at * spec.actions + act], to, pays, ends, declared=False)


def _random_steps(spec: Spec, env: Any, turns: int, plays: int) -> Any:
    """Yield the steps of random episodes. The steps are the same on every call."""
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
    """Return the median return of `turns` turns of random play on the environment's own map."""
    env = open_env(spec, drawn=False)
    rng, returns = stream("gymnasium", "zero", spec.id), []
    for play in range(ZERO_EPISODES):
        env.reset(seed=play)
        total = 0.0
        for act in rng.integers(spec.actions, size=turns).tolist():
            _, pays, ends, cut, _ = env.step(spec.first + act)
            total += float(pays)
            if ends or cut:
                break
        returns.append(total)
    return float(np.median(returns))

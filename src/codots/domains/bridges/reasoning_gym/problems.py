"""The problems of Reasoning Gym and its scorers, kept from touching anything else."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from codots.core.rng import digest
from codots.core.suggest import check_known
from codots.domains.base import Rng
from codots.domains.isolation import isolated

WRONG = ("boxnet", "graph_color", "propositional_logic", "rubiks_cube", "rush_hour")
"""Their own answer does not score 1, so that there is nothing to hold a player against (reasoning-gym 0.1.25)."""
RUNS = ("intermediate_integration", "polynomial_multiplication", "simple_integration")
"""Their scorer runs the reply as code, and what they ask for takes words: it cannot be made harmless by its letters."""
EXCLUDED = (
    dict.fromkeys(WRONG, "its own answer does not score 1")
    | dict.fromkeys(RUNS, "its scorer runs the reply as code")
    | {"composite": "it has to be given other families"}
)
LISTS, SUMS = re.compile(r"[-\d\s,.\[\]]*"), re.compile(r"(?:[-+/()\d\s]|(?<!\*)\*(?!\s*\*))*")
HARMLESS = {
    "binary_matrix": LISTS,
    "spiral_matrix": LISTS,
    "countdown": SUMS,
    "puzzle24": SUMS,
    "n_queens": re.compile(r"[Q_'\",\s\[\]]*"),
    "string_insertion": re.compile(r"[A-E'\",\s\[\]]*"),
}
"""What a reply may be made of where the scorer runs it as code: no name but a letter, no call, no power."""
LONGEST = 20_000
"""Characters of an answer that are looked at; a longer one is malformed."""
TRIES = 100
"""Draws of levels until a family is left at its own settings."""
SPAN = 500
"""Problems of a lot; Reasoning Gym makes as many unless told otherwise."""


@dataclass(frozen=True)
class Lot:
    """Settings of a family, and one of very many lots of problems that are made under them."""

    levels: tuple[tuple[str, int], ...]
    """Level of each attribute of the family's curriculum; empty where its own settings are kept."""
    seed: int


@dataclass(frozen=True)
class Problem:
    """One problem, by its number in a lot."""

    lot: Lot
    number: int
    question: str
    answer: str
    """One that scores 1."""

    @property
    def split(self) -> str:
        """`train` or `held-out`, by the words of the question."""
        return "train" if digest("reasoning-gym", self.question) % 2 else "held-out"


def families() -> list[str]:
    """The families that there are packs of. Raises ModuleNotFoundError without the package."""
    from reasoning_gym.factory import DATASETS

    return sorted(set(DATASETS) - set(EXCLUDED))


def check_family(name: str) -> None:
    """Raise ValueError for a family that is not there, or excluded."""
    if name in EXCLUDED:
        raise ValueError(f"reasoning-gym:{name} is left out: {EXCLUDED[name]}")
    check_known(name, families(), "family of reasoning-gym")


def draw_lot(rng: Rng, name: str, least: int, most: int) -> Lot:
    """Draw a level for each attribute until the family takes them together; levels count from 0, as far as there are.

    A family that takes none, such as knight_swap, is left at its own settings.
    """
    tops, seed = _tops(name), int(rng.integers(1 << 31))
    for _ in range(TRIES if tops else 0):
        levels = [(attribute, int(rng.integers(min(least, top), min(most, top) + 1))) for attribute, top in tops]
        lot = Lot(tuple(levels), seed)
        if _dataset(name, lot) is not None:
            return lot
    return Lot((), seed)


@lru_cache(maxsize=4096)
def make_problem(name: str, lot: Lot, number: int) -> Problem | None:
    """Make the problem of this number; None where the family fails to."""
    entry = _entry(name, lot, number)
    return None if entry is None else Problem(lot, number, entry["question"], entry["answer"])


def settings(name: str, lot: Lot) -> dict[str, Any]:
    """What the levels set, in the family's own words."""
    config = vars(_dataset(name, lot).config)
    plain = _plain_config(name)
    return {key: value for key, value in config.items() if key not in ("seed", "size") and value != plain.get(key)}


def harmless(name: str, answer: str) -> bool:
    """Whether an answer may be shown to the scorer."""
    return name not in HARMLESS or HARMLESS[name].fullmatch(answer) is not None


def score(name: str, problem: Problem, answer: str) -> float | None:
    """Score an answer by the family's own rule, 0 to 1; None for one that it stumbles over."""
    entry = _entry(name, problem.lot, problem.number)
    try:
        with isolated(name, "score", problem.lot.seed, problem.number):
            given = float(_dataset(name, problem.lot).score_answer(answer, entry))
    except Exception:  # whatever a scorer does not expect of a reply
        return None
    return min(1.0, max(0.0, given)) if given == given else None


@lru_cache(maxsize=256)
def _dataset(name: str, lot: Lot) -> Any:
    """The family under these settings, None where they do not go together."""
    from reasoning_gym.factory import CURRICULA, DATASETS

    kind, config = DATASETS[name]
    fixed = {"seed": lot.seed, "size": SPAN}
    try:
        with isolated(name, lot.seed):
            if not lot.levels:
                return kind(config(**fixed))
            curriculum = CURRICULA[name]()
            for attribute, level in lot.levels:
                curriculum.set_attr_level(attribute, level)
            return kind(curriculum.generate_configuration(fixed))
    except (AssertionError, ValueError):
        return None


@lru_cache(maxsize=4096)
def _entry(name: str, lot: Lot, number: int) -> dict[str, Any] | None:
    try:
        with isolated(name, lot.seed, number):
            entry: dict[str, Any] = _dataset(name, lot)[number]
            return entry
    except (AssertionError, RuntimeError, ValueError):  # some settings can hardly be met
        return None


@lru_cache(maxsize=256)
def _tops(name: str) -> list[tuple[str, int]]:
    from reasoning_gym.factory import CURRICULA

    return [(a, len(d.levels) - 1) for a, d in CURRICULA[name]().attributes.items()] if name in CURRICULA else []


@lru_cache(maxsize=256)
def _plain_config(name: str) -> dict[str, Any]:
    from reasoning_gym.factory import DATASETS

    return dict(vars(DATASETS[name][1]()))

"""Problems and scorers of Reasoning Gym, isolated from global state."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from codots.core.rng import digest, stream
from codots.core.suggest import check_known
from codots.domains.base import Rng
from codots.domains.isolation import isolated

WRONG = ("boxnet", "graph_color", "propositional_logic", "rubiks_cube", "rush_hour")
"""Families whose reference answers do not score 1, so that the ceiling is unknown (reasoning-gym 0.1.25)."""
RUNS_REPLIES = ("intermediate_integration", "polynomial_multiplication", "simple_integration")
"""Families whose scorer runs replies as code. Their answers contain names, so no filter can make replies safe."""
EXCLUDED = (
    dict.fromkeys(WRONG, "its own answer does not score 1")
    | dict.fromkeys(RUNS_REPLIES, "its scorer runs the reply as code")
    | {"composite": "it needs other families as arguments"}
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
"""Allowed replies by family, if the scorer runs replies as code. They allow no calls, no powers and few letters."""
LONGEST = 20_000
"""Maximum characters of an answer. Longer answers are malformed."""
TRIES = 100
"""Maximum draws of levels before a family falls back to its default settings."""
LOT_SIZE = 500
"""Number of problems in a lot, which is the default of Reasoning Gym."""


@dataclass(frozen=True)
class Lot:
    """A lot of problems: the settings of the family and the seed that generate them."""

    levels: tuple[tuple[str, int], ...]
    """Level of each attribute of the family's curriculum. Empty for the default settings."""
    seed: int


@dataclass(frozen=True)
class Problem:
    """One problem of a lot."""

    lot: Lot
    number: int
    question: str
    answer: str
    """An answer that scores 1."""

    @property
    def split(self) -> str:
        """The side, `train` or `held-out`, that the question belongs to."""
        return "train" if digest("reasoning-gym", self.question) % 2 else "held-out"


def families() -> list[str]:
    """Return the supported families. Raises ModuleNotFoundError if reasoning-gym is not installed."""
    from reasoning_gym.factory import DATASETS

    return sorted(set(DATASETS) - set(EXCLUDED))


def check_family(name: str) -> None:
    """Raise ValueError if a family is unknown or excluded."""
    if name in EXCLUDED:
        raise ValueError(f"reasoning-gym:{name} is excluded: {EXCLUDED[name]}")
    check_known(name, families(), "family of reasoning-gym")


def draw_lot(rng: Rng, name: str, least: int, most: int) -> Lot:
    """Draw levels for all attributes until the family accepts them.

    Levels are capped at the highest level of the attribute. A family that accepts none of the drawn levels, such as
    knight_swap, keeps its default settings.
    """
    seed = int(rng.integers(1 << 31))
    for _ in range(TRIES if _top_levels(name) else 0):
        lot = Lot(_draw_levels(rng, name, least, most), seed)
        if _dataset(name, lot) is not None:
            return lot
    return Lot((), seed)


def _draw_levels(rng: Rng, name: str, least: int, most: int) -> tuple[tuple[str, int], ...]:
    return tuple((a, int(rng.integers(min(least, top), min(most, top) + 1))) for a, top in _top_levels(name))


@lru_cache(maxsize=4096)
def make_problem(name: str, lot: Lot, number: int) -> Problem | None:
    """Return the problem of a lot with this number, or None if the family cannot generate it."""
    entry = _entry(name, lot, number)
    return None if entry is None else Problem(lot, number, entry["question"], entry["answer"])


def settings(name: str, lot: Lot) -> dict[str, Any]:
    """Return the settings that differ from the family's defaults, by the family's own names."""
    return _changed(name, vars(_dataset(name, lot).config))


def _changed(name: str, config: dict[str, Any]) -> dict[str, Any]:
    plain = _default_config(name)
    return {key: value for key, value in config.items() if key not in ("seed", "size") and value != plain.get(key)}


@lru_cache(maxsize=256)
def stated_settings(name: str, least: int, most: int) -> tuple[str, ...]:
    """Return the settings that differ from the family's defaults at all levels of this range.

    Each attribute sets its own settings, so one attribute is varied at a time.
    """
    low = {attribute: min(least, top) for attribute, top in _top_levels(name)}
    varied = [low | {a: min(level, top)} for a, top in _top_levels(name) for level in range(least + 1, most + 1)]
    stated = [_changed(name, _config(name, Lot(tuple(levels.items()), 0))) for levels in (low, *varied)]
    return tuple(key for key in stated[0] if all(key in other for other in stated))


def draw_setting(rng: Rng, name: str, key: str, least: int, most: int) -> Any:
    """Draw the value of a setting under drawn levels, whether the family accepts them or not."""
    return _config(name, Lot(_draw_levels(rng, name, least, most), 0))[key]


@lru_cache(maxsize=1024)
def other_answer(name: str, least: int, most: int, number: int) -> str:
    """Return the answer to a problem, chosen by its number, of a lot that belongs to no world."""
    lot = draw_lot(stream("reasoning-gym", name, "answers"), name, least, most)
    problems = (make_problem(name, lot, i) for i in range(number, LOT_SIZE))
    return next((problem.answer for problem in problems if problem is not None), "")


def harmless(name: str, answer: str) -> bool:
    """Return whether an answer is safe to pass to the scorer."""
    return name not in HARMLESS or HARMLESS[name].fullmatch(answer) is not None


def score(name: str, problem: Problem, answer: str) -> float | None:
    """Return the family's score of an answer, 0 to 1, or None if the scorer fails."""
    entry = _entry(name, problem.lot, problem.number)
    try:
        with isolated(name, "score", problem.lot.seed, problem.number):
            value = float(_dataset(name, problem.lot).score_answer(answer, entry))
    except Exception:  # scorers may raise anything on an unexpected reply
        return None
    return min(1.0, max(0.0, value)) if value == value else None


@lru_cache(maxsize=256)
def _dataset(name: str, lot: Lot) -> Any:
    """Return the dataset under these settings, or None if the settings are incompatible."""
    from reasoning_gym.factory import DATASETS

    try:
        with isolated(name, lot.seed):
            return DATASETS[name][0](_configure(name, lot))
    except (AssertionError, ValueError):
        return None


def _configure(name: str, lot: Lot) -> Any:
    """Return a family's own configuration object."""
    from reasoning_gym.factory import CURRICULA, DATASETS

    fixed = {"seed": lot.seed, "size": LOT_SIZE}
    if not lot.levels:
        return DATASETS[name][1](**fixed)
    curriculum = CURRICULA[name]()
    for attribute, level in lot.levels:
        curriculum.set_attr_level(attribute, level)
    return curriculum.generate_configuration(fixed)


@lru_cache(maxsize=1024)
def _config(name: str, lot: Lot) -> dict[str, Any]:
    """Return the settings of a lot, whether the family accepts them or not."""
    with isolated(name, lot.seed):
        return dict(vars(_configure(name, lot)))


@lru_cache(maxsize=4096)
def _entry(name: str, lot: Lot, number: int) -> dict[str, Any] | None:
    try:
        with isolated(name, lot.seed, number):
            entry: dict[str, Any] = _dataset(name, lot)[number]
            return entry
    except (AssertionError, RuntimeError, ValueError):  # some settings are nearly unsatisfiable
        return None


@lru_cache(maxsize=256)
def _top_levels(name: str) -> list[tuple[str, int]]:
    from reasoning_gym.factory import CURRICULA

    return [(a, len(d.levels) - 1) for a, d in CURRICULA[name]().attributes.items()] if name in CURRICULA else []


@lru_cache(maxsize=256)
def _default_config(name: str) -> dict[str, Any]:
    from reasoning_gym.factory import DATASETS

    return dict(vars(DATASETS[name][1]()))

"""Environments of Gymnasium by name: which can be bridged, how one is opened, and how it looks as text."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import yaml

from codots.core.suggest import check_known
from codots.domains.base import Rng

MOST = 7
"""Actions at most: the learner weighs every order of them."""
NAMES = {
    "BlackjackEnv": ("stick", "hit"),
    "CliffWalkingEnv": ("up", "right", "down", "left"),
    "FrozenLakeEnv": ("left", "down", "right", "up"),
    "TaxiEnv": ("south", "north", "east", "west", "pick up", "drop off"),
}
"""What the actions do, in their order, where an environment is known to us."""
MARK = re.compile(r"\x1b\[([\d;]+)m(.*?)\x1b\[0m", re.S)
MARKS = {"42": "{}", "34;1": "()", "35": "<>"}
"""Brackets for colours: a taxi with a passenger, one who waits, where to; all others are [where one is]."""


@dataclass(frozen=True)
class Spec:
    """A name that was looked into."""

    id: str
    """As Gymnasium registers it."""
    options: tuple[tuple[str, Any], ...]
    """Arguments besides: what stands behind a question mark."""
    kind: str
    """Name of the class."""
    actions: int
    first: int
    """Number of the first action."""
    drawn: bool
    """Whether it can show itself as text."""
    limit: int | None
    """Its own limit of steps."""

    @property
    def names(self) -> tuple[str, ...]:
        """What the actions do, or just their numbers."""
        return NAMES.get(self.kind) or tuple(f"action {self.first + i}" for i in range(self.actions))

    @property
    def side(self) -> int | None:
        """Side of the maps that this environment can be given, None where it cannot."""
        given = dict(self.options).get("map_name", "8x8" if self.id.startswith("FrozenLake8x8") else "4x4")
        return int(str(given).partition("x")[0]) if self.kind == "FrozenLakeEnv" else None


@cache
def look_into(name: str) -> Spec:
    """Find the environment of a name such as `FrozenLake-v1?is_slippery=false`.

    Raises ValueError, in one line, for a name that is unknown or cannot be bridged.
    """
    import gymnasium
    from gymnasium.envs.registration import registry

    id, _, rest = name.partition("?")
    options = tuple((key, _value(value)) for key, _, value in (o.partition("=") for o in rest.split("&") if o))
    check_known(id, registry, "environment of gymnasium")
    try:
        env = gymnasium.make(id, disable_env_checker=True, **dict(options))
    except ModuleNotFoundError:
        raise
    except Exception as error:
        raise ValueError(f"gymnasium:{name} cannot be made: {' '.join(str(error).split())}") from error
    spaces, own = gymnasium.spaces, env.unwrapped
    seen, acts = env.observation_space, env.action_space
    env.close()
    if not isinstance(acts, spaces.Discrete) or not 2 <= acts.n <= MOST:
        raise ValueError(f"gymnasium:{name} acts by {acts}, expected Discrete(2) to Discrete({MOST})")
    if not _countable(seen, spaces):
        raise ValueError(f"gymnasium:{name} observes {' '.join(str(seen).split())}, expected numbers to count or text")
    drawn = "ansi" in own.metadata.get("render_modes", ())
    spec = registry[id]
    return Spec(id, options, type(own).__name__, int(acts.n), int(acts.start), drawn, spec.max_episode_steps)


def _value(text: str) -> Any:
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        return text
    return value if isinstance(value, bool | int | float) else text


def _countable(space: Any, spaces: Any) -> bool:
    if isinstance(space, spaces.Tuple):
        return all(_countable(inner, spaces) for inner in space)
    return isinstance(space, spaces.Discrete | spaces.MultiDiscrete | spaces.MultiBinary | spaces.Text)


def open_env(spec: Spec, board: tuple[str, ...] | None = None, *, drawn: bool = True) -> Any:
    """Open an environment, on a map where it takes one."""
    import gymnasium

    extra: dict[str, Any] = {"desc": list(board)} if board else {}
    if drawn and spec.drawn:
        extra["render_mode"] = "ansi"
    return gymnasium.make(spec.id, disable_env_checker=True, **dict(spec.options), **extra)


def draw_board(spec: Spec, rng: Rng) -> tuple[str, ...] | None:
    """Draw a map that has a way to the goal, None where the environment takes none."""
    if spec.side is None:
        return None
    from gymnasium.envs.toy_text.frozen_lake import generate_random_map

    return tuple(generate_random_map(size=spec.side, seed=int(rng.integers(1 << 31))))


def plain(seen: Any) -> Any:
    """An observation as something that can be compared and looked up."""
    if isinstance(seen, str):
        return seen
    if isinstance(seen, tuple | list | np.ndarray):
        return tuple(plain(part) for part in seen)
    return int(seen)


def picture(env: Any) -> str:
    """What an environment draws of itself, its colours as brackets."""
    text = MARK.sub(lambda m: _bracketed(m[1], m[2]), str(env.render()))
    return "\n".join(line.rstrip() for line in text.strip("\n").split("\n"))


def _bracketed(colour: str, text: str) -> str:
    pair = MARKS.get(colour, "[]")
    return f"{pair[0]}{text.strip() or '_'}{pair[1]}"

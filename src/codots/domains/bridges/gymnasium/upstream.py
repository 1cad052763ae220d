"""Lookup, checking, opening and rendering of environments of the gymnasium package."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from codots.core.suggest import check_known
from codots.core.yaml_text import read_yaml
from codots.domains.base import Rng

MAX_ACTIONS = 7
"""Maximum number of actions. The `bayes` policy weighs every order of the actions."""
NAMES = {
    "BlackjackEnv": ("stick", "hit"),
    "CliffWalkingEnv": ("up", "right", "down", "left"),
    "FrozenLakeEnv": ("left", "down", "right", "up"),
    "TaxiEnv": ("south", "north", "east", "west", "pick up", "drop off"),
}
"""Names of the actions, in order, by environment class."""
MARK = re.compile(r"\x1b\[([\d;]+)m(.*?)\x1b\[0m", re.S)
MARKS = {"42": "{}", "34;1": "()", "35": "<>"}
"""Brackets by ANSI color: a taxi with a passenger, a waiting passenger and the destination.

Any other color marks the position and becomes `[]`.
"""


@dataclass(frozen=True)
class Spec:
    """A supported environment and its properties."""

    id: str
    """Id in the Gymnasium registry."""
    options: tuple[tuple[str, Any], ...]
    """Arguments after the question mark."""
    kind: str
    """Name of the environment class."""
    actions: int
    first: int
    """Number of the first action."""
    drawn: bool
    """Whether the environment renders as text."""
    limit: int | None
    """Step limit of the environment, or None if there is no limit."""

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the actions. Actions of an unknown environment class are named by their numbers."""
        return NAMES.get(self.kind) or tuple(f"action {self.first + i}" for i in range(self.actions))

    @property
    def side(self) -> int | None:
        """Side length of the environment's maps, or None if the environment takes no map."""
        given = dict(self.options).get("map_name", "8x8" if self.id.startswith("FrozenLake8x8") else "4x4")
        return int(str(given).partition("x")[0]) if self.kind == "FrozenLakeEnv" else None


@cache
def find_spec(name: str) -> Spec:
    """Return the spec of a name such as `FrozenLake-v1?is_slippery=false`.

    Raises a one-line ValueError if the environment is unknown or unsupported. Raises ModuleNotFoundError if gymnasium
    or a package that the environment needs is not installed.
    """
    import gymnasium
    from gymnasium.envs.registration import registry

    id, _, rest = name.partition("?")
    options = tuple((key, _value(value)) for key, _, value in (o.partition("=") for o in rest.split("&") if o))
    if words := [f"{key}={value}" for key, value in options if str(value).lower() in ("yes", "no", "on", "off")]:
        raise ValueError(f"gymnasium:{name} has {words[0]}, which is a text; expected true or false")
    check_known(id, registry, "environment of gymnasium")
    try:
        env = gymnasium.make(id, disable_env_checker=True, **dict(options))
    except ModuleNotFoundError:
        raise
    except Exception as error:
        raise ValueError(f"gymnasium:{name} cannot be created: {' '.join(str(error).split())}") from error
    spaces, own = gymnasium.spaces, env.unwrapped
    observations, actions = env.observation_space, env.action_space
    env.close()
    if not isinstance(actions, spaces.Discrete) or not 2 <= actions.n <= MAX_ACTIONS:
        raise ValueError(
            f"gymnasium:{name} has action space {actions}, expected Discrete(2) to Discrete({MAX_ACTIONS})"
        )
    if not _supported(observations, spaces):
        got = " ".join(str(observations).split())
        raise ValueError(f"gymnasium:{name} has observation space {got}, expected discrete numbers or text")
    drawn = "ansi" in own.metadata.get("render_modes", ())
    spec = registry[id]
    return Spec(id, options, type(own).__name__, int(actions.n), int(actions.start), drawn, spec.max_episode_steps)


def _value(text: str) -> Any:
    try:
        value = read_yaml(text)
    except ValueError:
        return text
    return value if isinstance(value, bool | int | float) else text


def _supported(space: Any, spaces: Any) -> bool:
    if isinstance(space, spaces.Tuple):
        return all(_supported(inner, spaces) for inner in space)
    return isinstance(space, spaces.Discrete | spaces.MultiDiscrete | spaces.MultiBinary | spaces.Text)


def open_env(spec: Spec, board: tuple[str, ...] | None = None, *, drawn: bool = True) -> Any:
    """Open an environment on a map, or on its own map if `board` is None. `drawn` turns text rendering on."""
    import gymnasium

    extra: dict[str, Any] = {"desc": list(board)} if board else {}
    if drawn and spec.drawn:
        extra["render_mode"] = "ansi"
    return gymnasium.make(spec.id, disable_env_checker=True, **dict(spec.options), **extra)


def draw_board(spec: Spec, rng: Rng) -> tuple[str, ...] | None:
    """Draw a map that has a path to the goal, or return None if the environment takes no map."""
    if spec.side is None:
        return None
    from gymnasium.envs.toy_text.frozen_lake import generate_random_map

    return tuple(generate_random_map(size=spec.side, seed=int(rng.integers(1 << 31))))


def plain(observation: Any) -> Any:
    """Convert an observation to a hashable value."""
    if isinstance(observation, str):
        return observation
    if isinstance(observation, tuple | list | np.ndarray):
        return tuple(plain(part) for part in observation)
    return int(observation)


def picture(env: Any) -> str:
    """Return the environment's text rendering, with colors as brackets."""
    text = MARK.sub(lambda m: _bracketed(m[1], m[2]), str(env.render()))
    return "\n".join(line.rstrip() for line in text.strip("\n").split("\n"))


def _bracketed(color: str, text: str) -> str:
    pair = MARKS.get(color, "[]")
    return f"{pair[0]}{text.strip() or '_'}{pair[1]}"

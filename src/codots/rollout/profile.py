"""Profiles: prompt style and length limits of a model, stored as `codots.json` in its folder."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from codots.context.rewrite import Rewrite
from codots.context.strategies import UPDATES
from codots.core.renamed import with_new_keys
from codots.core.suggest import check_known
from codots.domains.base import STYLES
from codots.domains.registry import get_domain
from codots.sampler.base import SamplingParams

PROFILE = "codots.json"
MINIMA = {"solve_tokens": 1, "update_tokens": 1, "max_context_chars": 0, "max_model_len": 1, "temperature": 0}
"""Minimum of each number in a profile."""


@dataclass(frozen=True)
class EpisodeParams:
    """Prompt style and sampling parameters of the episodes of a life."""

    style: str
    solve: SamplingParams
    update: SamplingParams


@dataclass(frozen=True)
class Profile:
    """Contents of `codots.json`. The defaults apply to a folder that has no such file."""

    style: str = "natural"
    """Prompt style, `natural` or `compact`."""
    solve_tokens: int = 1024
    """Maximum length of a reply in a solve, in tokens."""
    update_tokens: int = 1024
    """Maximum length of the reply in an update, in tokens."""
    max_context_chars: int = Rewrite.cap
    """Maximum length of a context, in characters."""
    temperature: float = 1.0
    """Sampling temperature; 0 is greedy."""
    update: str = "rewrite"
    """How the context is updated: `rewrite` writes it anew, `delta` edits numbered items, `bank` edits titled items of
    which a task is given those that fit it best."""
    thinking: bool = False
    """Whether to enable thinking in a chat template that supports it."""
    max_model_len: int = 8192
    """Maximum length of an episode, in tokens; the model's own limit applies as well."""

    def __post_init__(self) -> None:
        """Raise ValueError for an invalid field."""
        check_known(self.style, STYLES, "prompt style")
        check_known(self.update, UPDATES, "update of the context")
        for name, minimum in MINIMA.items():
            kind = int | float if name == "temperature" else int
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, kind) or not minimum <= value < math.inf:
                raise ValueError(f"{name} is {value!r}; expected a number of at least {minimum}")
        if not isinstance(self.thinking, bool):
            raise ValueError(f"thinking is {self.thinking!r}; expected true or false")

    def fits(self, domain: str) -> Profile:
        """Return this profile. Raises ValueError if the domain lacks the prompt style."""
        if self.style not in get_domain(domain).styles:
            known = ", ".join(get_domain(domain).styles)
            raise ValueError(f"the model uses prompt style {self.style!r}; {domain} has {known}")
        return self

    def episode_params(self) -> EpisodeParams:
        """Return the prompt style and the sampling parameters of episodes."""
        return EpisodeParams(
            self.style,
            SamplingParams(self.solve_tokens, self.temperature),
            SamplingParams(self.update_tokens, self.temperature),
        )

    def strategy(self, on_parse_failure: Any = "keep") -> Rewrite:
        """Return the strategy that writes contexts."""
        return UPDATES[self.update](on_parse_failure, self.max_context_chars)

    def at(self, temperature: float) -> Profile:
        """Return this profile with another temperature."""
        return replace(self, temperature=temperature)

    def save(self, folder: Path) -> None:
        """Write `codots.json` into a model folder."""
        (folder / PROFILE).write_text(json.dumps(asdict(self), indent=2) + "\n")


def load_profile(folder: Path) -> Profile:
    """Read the profile of a model folder, or return the defaults if it has none.

    Raises ValueError if the profile is invalid.
    """
    path = folder / PROFILE
    if not path.is_file():
        return Profile()
    try:
        return Profile(**with_new_keys(json.loads(path.read_text(), object_pairs_hook=_unique), "profile."))
    except (AttributeError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is not a profile: {error}") from error


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    keys = [key for key, _ in pairs]
    if repeated := [key for i, key in enumerate(keys) if key in keys[:i]]:
        raise ValueError(f"the key {repeated[0]!r} is given twice")
    return dict(pairs)

"""How a model wants to be spoken to: what `codots.json` in its folder says."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from codots.context.rewrite import Rewrite
from codots.core.renamed import with_new_keys
from codots.core.suggest import check_known
from codots.domains.base import STYLES
from codots.domains.registry import get_domain
from codots.sampler.base import SamplingParams

PROFILE = "codots.json"


LEAST = {"solve_tokens": 1, "update_tokens": 1, "max_context_chars": 0, "max_model_len": 1, "temperature": 0}
"""Smallest allowed value of each number of a profile."""


@dataclass(frozen=True)
class EpisodeParams:
    """How a model plays: what it is asked in, and how long it may answer."""

    style: str
    solve: SamplingParams
    update: SamplingParams


@dataclass(frozen=True)
class Profile:
    """What `codots.json` says; a folder without one is spoken to in plain words."""

    style: str = "natural"
    solve_tokens: int = 1024
    """Greatest length of a reply in a task."""
    update_tokens: int = 1024
    """Greatest length of a rewrite."""
    max_context_chars: int = Rewrite.cap
    """Maximum length of a context, in characters."""
    temperature: float = 1.0
    thinking: bool = False
    """Whether the chat template is told to let the model think, where it knows how."""
    max_model_len: int = 8192
    """Maximum length of an episode, in ids; the model's own limit applies as well."""

    def __post_init__(self) -> None:
        """Raise ValueError for what no model can be spoken to with."""
        check_known(self.style, STYLES, "prompt style")
        for name, least in (
            ("solve_tokens", 1),
            ("update_tokens", 1),
            ("max_context_chars", 0),
            ("max_model_len", 1),
            ("temperature", 0),
        ):
            kind = int | float if name == "temperature" else int
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, kind) or not value >= least:
                raise ValueError(f"{name} is {value!r}; expected a number of at least {least}")
        if not isinstance(self.thinking, bool):
            raise ValueError(f"thinking is {self.thinking!r}; expected true or false")

    def fits(self, domain: str) -> Profile:
        """The same, if this domain has its style; ValueError if not."""
        if self.style not in get_domain(domain).styles:
            known = ", ".join(get_domain(domain).styles)
            raise ValueError(f"the model is spoken to in style {self.style!r}; {domain} has {known}")
        return self

    def episode_params(self) -> EpisodeParams:
        """How episodes are sampled."""
        return EpisodeParams(
            self.style,
            SamplingParams(self.solve_tokens, self.temperature),
            SamplingParams(self.update_tokens, self.temperature),
        )

    def strategy(self, on_parse_failure: Any = "keep") -> Rewrite:
        """How contexts are written."""
        return Rewrite(on_parse_failure, self.max_context_chars)

    def at(self, temperature: float) -> Profile:
        """The same at another temperature."""
        return replace(self, temperature=temperature)

    def save(self, folder: Path) -> None:
        """Write it beside the weights."""
        (folder / PROFILE).write_text(json.dumps(asdict(self), indent=2) + "\n")


def load_profile(folder: Path) -> Profile:
    """Read `codots.json`; ValueError if it is not readable."""
    path = folder / PROFILE
    if not path.is_file():
        return Profile()
    try:
        return Profile(**with_new_keys(json.loads(path.read_text()), "profile."))
    except (AttributeError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is not a profile: {error}") from error

"""A model folder: a Hugging Face folder, and beside it how the model wants to be spoken to."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import Any

from codots.context.rewrite import Rewrite
from codots.domains.base import STYLES, closest, get_domain, nearest
from codots.model.device import Place
from codots.model.renderer import Render
from codots.rollout.life import Play
from codots.sampler.base import Params

PROFILE = "codots.json"
BASE = "base"
"""Names the tiny model that comes with the package."""
HERE = Place()
ENDPOINT = "openai:"
"""Begins the name of a model that is served elsewhere."""


@dataclass(frozen=True)
class Profile:
    """What `codots.json` says; a folder without one is spoken to in plain words."""

    style: str = "natural"
    solve_tokens: int = 1024
    """Greatest length of a reply in a task."""
    update_tokens: int = 1024
    """Greatest length of a rewrite."""
    cap: int = 4000
    """Greatest length of a context in characters."""
    temperature: float = 1.0
    thinking: bool = False
    """Whether the chat template is told to let the model think, where it knows how."""
    length: int = 8192
    """Greatest length of an episode in ids; a model that can read less reads less."""

    def __post_init__(self) -> None:
        """Raise ValueError for what no model can be spoken to with."""
        if self.style not in STYLES:
            raise ValueError(nearest(str(self.style), list(STYLES), "prompt style"))
        for name, least in (("solve_tokens", 1), ("update_tokens", 1), ("cap", 0), ("length", 1), ("temperature", 0)):
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

    def play(self) -> Play:
        """How episodes are sampled."""
        return Play(
            self.style, Params(self.solve_tokens, self.temperature), Params(self.update_tokens, self.temperature)
        )

    def strategy(self, on_parse_failure: Any = "keep") -> Rewrite:
        """How contexts are written."""
        return Rewrite(on_parse_failure, self.cap)

    def at(self, temperature: float) -> Profile:
        """The same at another temperature."""
        return replace(self, temperature=temperature)

    def save(self, folder: Path) -> None:
        """Write it beside the weights."""
        (folder / PROFILE).write_text(json.dumps(asdict(self), indent=2) + "\n")


def model_folder(name: str | Path) -> Path:
    """Find a model: `base`, or a folder; a run or a checkpoint leads to its model. ValueError says what is missing."""
    if str(name) == BASE:
        return Path(str(files("codots.model") / "base"))
    if str(name).startswith(ENDPOINT):
        raise ValueError(f"{name} is an endpoint, which only answers; expected a model folder, or {BASE!r}")
    folder = Path(name)
    for inner in (folder, folder / "model"):
        if (inner / "config.json").is_file():
            return inner
    if not folder.exists():
        expected = f"expected a Hugging Face folder on this machine, or {BASE!r} for the one shipped"
        raise ValueError(f"no model at {str(name)!r}; {expected}{closest(folder, BASE)}")
    stopped = sorted((folder / "checkpoints").glob("step-*/model"))
    hint = f"; its run stopped before the end, and left {stopped[-1].parent}" if stopped else ""
    raise ValueError(f"{folder} is not a model folder: it has no config.json{hint}")


def identity(folder: Path) -> str:
    """Tell models apart: a hash of everything in the folder, weights, words and profile."""
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.iterdir() if path.is_file() and path.name[0] != "."):
        with path.open("rb") as file:
            digest.update(path.name.encode() + hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:16]


def load_profile(folder: Path) -> Profile:
    """Read `codots.json`; ValueError if it is not readable."""
    path = folder / PROFILE
    if not path.is_file():
        return Profile()
    try:
        return Profile(**json.loads(path.read_text()))
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path} is not a profile: {error}") from error


def load_render(folder: Path, thinking: bool = False) -> Render:
    """Load a model's words; ValueError if they cannot be read, or its chat template does not fit."""
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except Exception as error:
        raise ValueError(f"{folder} cannot be loaded: {str(error).splitlines()[0]}") from error
    return Render(tokenizer, thinking)


def load_model(folder: Path, place: Place = HERE, thinking: bool = False) -> tuple[Any, Render]:
    """Load a causal LM and its renderer; ValueError says what is missing or does not fit."""
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    logging.set_verbosity_error()  # what is wrong is said here, in one line
    if not any(folder.glob("*.safetensors")):
        raise ValueError(f"{folder} has no weights: expected a .safetensors file beside config.json")
    try:
        model, found = AutoModelForCausalLM.from_pretrained(
            folder, dtype=place.torch_dtype, local_files_only=True, output_loading_info=True
        )
    except Exception as error:
        raise ValueError(f"{folder} cannot be loaded: {str(error).splitlines()[0]}") from error
    if missing := sorted(found["missing_keys"]):
        raise ValueError(f"{folder} lacks {len(missing)} of the model's weights, such as {missing[0]}")
    render = load_render(folder, thinking)
    if (known := len(render.tokenizer)) > model.config.vocab_size:
        raise ValueError(f"{folder} has a foreign tokenizer: it knows {known} ids, the model {model.config.vocab_size}")
    return model.to(place.device).eval(), render

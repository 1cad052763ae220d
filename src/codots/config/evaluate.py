"""Schema of the settings of `codots eval`."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

from pydantic import Field, field_validator, model_validator

from codots.config.schema import EntryProfile, preset_exists
from codots.core.deadline import MAX_TIMEOUT, STAGE_TIMEOUT
from codots.core.section import Config, FilePath
from codots.core.suggest import check_known
from codots.domains.registry import check_split
from codots.model.device import check_device
from codots.model.load import ENDPOINT
from codots.rollout.arms import ARMS


class EvalConfig(Config):
    """Settings of `codots eval`, which evaluates one model on held-out packs, with the same packs for every arm."""

    model: FilePath
    """Model to evaluate: a model folder, a run folder, a LoRA adapter, an id on the Hugging Face hub, `base`, or
    `openai:NAME`."""
    base: FilePath | None = None
    """Base of a LoRA adapter that is given as `model`, instead of the base that the adapter names."""
    domain: str = "frozen-lake-v1"
    """Versioned id of the domain."""
    preset: str = "easy"
    """Preset of the domain, such as `easy` or `hard`."""
    split: str = "dev"
    """Split of the packs: `train`, `dev`, `test`, or any other held-out name."""
    packs: int = Field(default=100, ge=2)
    """Number of packs; use 500 for reported results."""
    pack_size: int = Field(default=4, ge=1)
    """Number of tasks in a pack, S."""
    arms: list[str] = Field(default=["own", "null"], min_length=1)
    """Arms to compare: `own`, `null`, `shuffled`, `frozen`, `oracle`, `transcript`, `notes`. On the command line, write
    `arms=own,null`."""
    context_tokens: int | None = Field(default=None, ge=1)
    """Maximum length of the contexts of `transcript` and `notes`, in tokens. The default is the `update_tokens` of the
    model, the longest context that it could write itself."""
    writer: FilePath | None = None
    """Model that writes the contexts, instead of the evaluated model."""
    seed: int = 0
    """Seed of the sampling."""
    temperature: float | None = Field(default=None, ge=0)
    """Sampling temperature; 0 is greedy. The default is that of the model's `codots.json`."""
    profile: EntryProfile = Field(default={})
    """Keys that override keys of the model's `codots.json`: `style`, `solve_tokens`, `update_tokens`,
    `max_context_chars`, `update`."""
    extra_body: dict[str, Any] = Field(default={})
    """Options that every request to an `openai:NAME` model adds or replaces, such as `extra_body.top_k=20`. An option
    that is null is not sent, such as `extra_body.seed=null`."""
    max_tokens_total: int | None = Field(default=None, ge=1)
    """Maximum number of tokens that `openai:NAME` models may read and write, in all runs with the same `rows`."""
    max_cost: float | None = Field(default=None, gt=0)
    """Maximum cost of `openai:NAME` models, in the currency of the prices, in all runs with the same `rows`."""
    price_in: float | None = Field(default=None, ge=0)
    """Price of a million prompt tokens."""
    price_out: float | None = Field(default=None, ge=0)
    """Price of a million tokens of replies."""
    workers: int = Field(default=2, ge=1)
    """Number of processes, one per core."""
    rows: FilePath | None = None
    """File to write with one JSON line per episode. A stopped evaluation resumes from this file."""
    device: str = "auto"
    """Device: `cpu`, `cuda`, `cuda:1`, `mps`; `auto` uses a GPU for models of 50 million weights or more."""
    stage_timeout: float = Field(default=STAGE_TIMEOUT, gt=0, le=MAX_TIMEOUT)
    """Timeout of the rollouts of 100 packs of one arm, in seconds."""

    @field_validator("arms", mode="before")
    @classmethod
    def _words(cls, given: Any) -> Any:
        words = [word for word in given.split(",") if word] if isinstance(given, str) else given
        if isinstance(words, list | tuple):
            return [_null(word) for word in words]
        return [_null(words)] if words is None else words

    @property
    def asks_endpoint(self) -> bool:
        """Whether a model behind an API is evaluated, or writes the contexts."""
        return any(model.startswith(ENDPOINT) for model in (self.model, self.writer or ""))

    @field_validator("split")
    @classmethod
    def _split(cls, given: str) -> str:
        return check_split(given)

    @field_validator("model", "base", "writer", "rows", mode="before")
    @classmethod
    def _path(cls, given: Any) -> Any:
        return str(given) if isinstance(given, Path) else given

    @model_validator(mode="after")
    def _exists(self) -> Self:
        for arm in self.arms:
            check_known(arm, ARMS, "arm")
        if self.extra_body and not self.asks_endpoint:
            raise ValueError("extra_body is for a model behind an API; expected openai:NAME as model or writer")
        if self.max_tokens_total is not None or self.max_cost is not None:
            if not self.asks_endpoint:
                raise ValueError("max_tokens_total and max_cost are for openai:NAME as model or writer")
            if self.rows is None:
                raise ValueError("max_tokens_total and max_cost need rows=FILE, which keeps what was paid for")
        if self.max_cost is not None and (self.price_in is None or self.price_out is None):
            raise ValueError("max_cost needs price_in and price_out, the prices of a million tokens")
        preset_exists(self.domain, self.preset)
        check_device(self.device)
        return self


def _null(word: Any) -> Any:
    """Return the arm name `null` if the word is None, because YAML reads an unquoted `null` as None."""
    return "null" if word is None else word

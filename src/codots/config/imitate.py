"""Schema of recipes of `codots imitate`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from codots.config.schema import MAX_COUNT, RunKeys, WorldConfig, one_item
from codots.core.section import Config, FilePath, Section
from codots.domains.registry import get_domain
from codots.domains.teacher import ScriptedTeacher, make_teacher
from codots.learner.config import DEFAULT_LOSS, LearnerConfig


class LessonConfig(WorldConfig):
    """Lessons of one kind: worlds, and the teacher that lives in them."""

    teacher: Literal["format", "literate", "skilled"] = "literate"
    """Teacher of the lives: `format` acts and writes at random, `literate` acts on what a context claims and writes at
    random, `skilled` plays and writes as `bayes` does."""
    noise: dict[str, bool | int | float] = Field(default={})
    """Keys that override the teacher's noise: `right`, `wrong` and `invent`, the probabilities that a known fact is
    written correctly, that it is written as a guess, and that an unknown fact is. A domain may have further keys."""
    given: float = Field(default=0.6, ge=0, le=1)
    """Fraction of lives that are given the true context and write none."""
    partial: float = Field(default=0.0, ge=0, le=1)
    """Fraction of the given contexts that say only a part of what is hidden, drawn for each task."""

    @property
    def scripted(self) -> ScriptedTeacher:
        """The teacher of these lessons."""
        return make_teacher(self.teacher, get_domain(self.domain), self.noise)

    @model_validator(mode="after")
    def _taught(self) -> Self:
        self.scripted  # noqa: B018  (raises ValueError)
        return self


class Stage(Section):
    """One stage of imitation, with a learning rate schedule and an optimizer of its own."""

    SHORT: ClassVar = ("domain", "preset", "pack_size", "packs_per_step", "teacher", "noise", "given", "partial")
    """Keys of an entry of `worlds` that a stage with only one entry may set itself instead."""

    steps: int = Field(default=100, ge=1)
    """Number of optimizer steps."""
    worlds: list[LessonConfig] = Field(default=[], max_length=MAX_COUNT)
    """Worlds of the lessons: a list of `{domain, preset, pack_size, packs_per_step, profile, teacher, noise, given,
    partial}`. A stage with one entry may set these keys itself instead. Every pack has one life."""
    recorded: FilePath | None = None
    """Run folder or `.jsonl` file whose recorded lives are the lessons, instead of a teacher's."""
    min_reward: float = Field(default=0.5, allow_inf_nan=False)
    """Minimum mean reward of a recorded life, over its tasks."""
    lives_per_step: int = Field(default=16, ge=1, le=MAX_COUNT)
    """Number of recorded lives in a step."""
    lr: float | None = Field(default=None, gt=0, le=100)
    """Learning rate; the default is that of `learner`."""
    min_lr_ratio: float | None = Field(default=None, ge=0, le=1)
    """Learning rate at the last step of the stage, as a fraction of `lr`; the default is that of `learner`."""

    @model_validator(mode="before")
    @classmethod
    def _one_entry(cls, given: Any) -> Any:
        return one_item("worlds", cls.SHORT, given)

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if self.recorded and self.worlds:
            raise ValueError("both worlds and recorded are given; expected one of them")
        if not self.recorded and not self.worlds:
            raise ValueError("expected worlds, such as [{domain: bandit-v1, teacher: literate}], or recorded")
        return self


class NewModel(Section):
    """Architecture of a new model, a small Qwen3."""

    width: int = Field(default=64, ge=8)
    """Hidden size."""
    layers: int = Field(default=4, ge=1)
    """Number of layers."""
    heads: int = Field(default=4, ge=1)
    """Number of attention heads per layer."""
    initializer_range: float = Field(default=0.02, gt=0, le=1)
    """Standard deviation of the initial weights."""
    positions: int = Field(default=1024, ge=16)
    """Maximum length of an episode, in tokens."""
    vocabulary: int | None = Field(default=None, ge=300, le=MAX_COUNT)
    """Number of tokens, learned from lessons of the first stage. By default, the tokens are the words of the compact
    styles of the lake, alchemy and the bandit, characters and bytes."""

    @model_validator(mode="after")
    def _splits(self) -> Self:
        if self.width % (2 * self.heads):
            raise ValueError(f"a width of {self.width} cannot be split into {self.heads} heads of even width")
        return self


class ImitateKeys(Config):
    """Keys of imitation: the model and the stages."""

    SHORT: ClassVar = (*Stage.model_fields, *Stage.SHORT)
    """Keys of a stage that a recipe with only one stage may set at the top level instead."""

    model: FilePath | None = None
    """Model to start from: a model folder, a LoRA adapter, an id on the Hugging Face hub, or `base`. By default, a new
    model is made."""
    new: NewModel | None = None
    """Architecture of the new model if no `model` is given."""
    stages: list[Stage] = Field(min_length=1)
    """Stages, in order. A recipe with one stage may set its keys at the top level instead."""

    @model_validator(mode="before")
    @classmethod
    def _one_stage(cls, given: Any) -> Any:
        return one_item("stages", cls.SHORT, given)


class ImitateConfig(RunKeys, ImitateKeys):  # in this order, so that the keys of imitation are listed first
    """Recipe of `codots imitate`, which trains a model on the lives of scripted teachers or on recorded lives."""

    run: FilePath = "runs/imitate"
    """Folder of the run."""

    @property
    def steps(self) -> int:
        """Total number of optimizer steps."""
        return sum(stage.steps for stage in self.stages)

    def learner_of(self, stage: Stage) -> LearnerConfig:
        """Return the learner of a stage. Its loss is that of maximum likelihood: REINFORCE with all advantages 1."""
        own = stage.model_dump(include={"lr", "min_lr_ratio"}, exclude_none=True)
        return self.learner.model_copy(update={"loss": "reinforce", **own})

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.model is not None and self.new is not None:
            raise ValueError("both model and new are given; expected one of them")
        if self.learner.loss != DEFAULT_LOSS or self.learner.kl_coef or self.learner.entropy_coef:
            raise ValueError("loss, kl_coef and entropy_coef are for RL; imitation maximizes the likelihood of lessons")
        return self

    def entries(self) -> Iterator[LessonConfig]:
        """Yield the lessons of all stages."""
        for stage in self.stages:
            yield from stage.worlds

"""Lessons: the lives of teachers, and recorded lives, as samples of imitation."""

from __future__ import annotations

from collections.abc import Sequence

from codots.config.imitate import ImitateConfig, LessonConfig, Stage
from codots.config.schema import WorldConfig
from codots.context.rewrite import Rewrite
from codots.core.rng import Names, stream
from codots.core.transcript import Sample
from codots.domains.base import Pack
from codots.domains.teacher import ScriptedTeacher
from codots.rollout.arms import contexts_of
from codots.rollout.life import Job, Life
from codots.rollout.profile import Profile
from codots.rollout.recorded import RecordedLife, recorded_lives
from codots.rollout.steps import Given, Own
from codots.training.batch import Entry
from codots.training.setup import make_entry

SOURCE = {"domain", "preset", "pack_size", "profile"}
"""Keys of an entry that say what its packs are."""


class Lessons:
    """The lessons of one stage."""

    def __init__(self, config: ImitateConfig, stage: Stage, profile: Profile) -> None:
        """Raise ValueError if a domain lacks what its teacher needs, or no recorded life is good enough."""
        self.stage, self.seed, self.profile = stage, config.seed, profile
        self.entries = [make_entry(stage.worlds, i, profile) for i in range(len(stage.worlds))]
        self.recorded = recorded_lives(stage.recorded, stage.min_reward) if stage.recorded else []
        for entry in self.entries:
            if entry.strategy.name != Rewrite.name:
                raise ValueError(f"teachers write whole contexts; expected update: rewrite, got {entry.strategy.name}")
            teacher_of(entry).player(entry.pack("train", 0).tasks[0], "", entry.params.style, ())

    def jobs(self, step: int) -> list[Job]:
        """Return the jobs of a step. `step` counts from 1 over all stages, so that no stage repeats earlier packs."""
        if self.stage.recorded:
            return [self._recorded_job(step, i) for i in range(self.stage.lives_per_step)]
        return [
            self._taught_job(entry, pack, ("imitate", self.seed, step, e, i))
            for e, entry in enumerate(self.entries)
            for i, pack in enumerate(entry.packs(step))
        ]

    def _taught_job(self, entry: Entry, pack: Pack, names: Names) -> Job:
        lesson, style = lesson_of(entry), entry.params.style
        contexts: Own | Given = Own(entry.strategy)
        if stream(*names, "given").random() < lesson.given:
            truth = contexts_of("oracle", 0, [pack], (), style)
            partial = stream(*names, "partial").random() < lesson.partial
            contexts = Given(entry.strategy, partial_contexts(pack, style, names) if partial else truth)
        return Job(pack, contexts, entry.params, names, teacher_of(entry))

    def _recorded_job(self, step: int, i: int) -> Job:
        """Return the job of a recorded life. All lives are used, in another order each time, before one is repeated."""
        use, at = divmod((step - 1) * self.stage.lives_per_step + i, len(self.recorded))
        order = stream("imitate", self.seed, "order", use).permutation(len(self.recorded))
        life: RecordedLife = self.recorded[order[at]]
        return life.job(self.profile, ("imitate", self.seed, step, i))

    @property
    def worlds(self) -> list[WorldConfig]:
        """The worlds of the lessons."""
        if not self.stage.recorded:
            return [WorldConfig(**world.model_dump(include=SOURCE)) for world in self.stage.worlds]
        packs = [(life.pack.domain.id, life.pack.preset, life.size) for life in self.recorded]
        return [WorldConfig(domain=d, preset=p, pack_size=s) for d, p, s in dict.fromkeys(packs)]


def partial_contexts(pack: Pack, style: str, names: Names) -> tuple[str, ...]:
    """Draw a context for each task of a pack that says a part of what is hidden there."""
    rng = stream(*names, "partial", "contexts")
    return tuple(pack.domain.partial_context(pack.world.at(j), style, rng) for j in range(len(pack.tasks)))


def lesson_of(entry: Entry) -> LessonConfig:
    """Return the entry of the recipe."""
    assert isinstance(entry.world, LessonConfig)
    return entry.world


def teacher_of(entry: Entry) -> ScriptedTeacher:
    """Return the teacher of an entry."""
    return lesson_of(entry).scripted


def samples_of(lives: Sequence[Life], longest: int) -> list[Sample]:
    """Return the episodes of taught lives as samples, all with advantage 1.

    Raises RuntimeError if a life failed, and ValueError if an episode has more than `longest` ids.
    """
    if failure := next((life.failure for life in lives if life.failure), None):
        raise RuntimeError(f"the teacher failed: {failure}")
    samples = [episode.transcript.sample(1.0) for life in lives for episode in life.episodes]
    if (length := max(len(sample.ids) for sample in samples)) > longest:
        raise ValueError(f"a lesson has {length} ids, and the model reads {longest}; raise max_model_len or positions")
    return samples

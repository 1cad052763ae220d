"""A new tiny model for imitation, with a tokenizer that may be learned from lessons."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from codots.config.imitate import ImitateConfig, NewModel
from codots.config.schema import WorldConfig
from codots.core.deadline import run_loop
from codots.core.files import write_folder
from codots.domains.registry import make_pack
from codots.model.alphabet import make_render
from codots.model.renderer import Render
from codots.model.tiny import learn_tokenizer, make_model, make_tokenizer, save
from codots.rollout.fit import check_fit
from codots.rollout.life import rollouts
from codots.rollout.profile import Profile
from codots.runs.folder import open_run
from codots.sampler.scripted import ScriptedSampler
from codots.training.lessons import Lessons
from codots.training.setup import entry_profile

START = "start"
"""Folder in a run that holds the new model."""
TEXTS = 256
"""Minimum number of lives from which a vocabulary is learned."""


def open_new_model(
    config: ImitateConfig,
    lessons: Lessons,
    worlds: Sequence[WorldConfig],
    profile: Profile,
    stack: ExitStack,
    *,
    resume: bool,
) -> Path:
    """Open the run of a new model and return the folder of that model, which is created unless the run has one.

    Raises ValueError, before anything is written, if the first prompt of a world does not fit into the model.
    """
    folder, shape = Path(config.run) / START, config.new or NewModel()
    if resume and folder.is_dir():
        return folder
    tokenizer = make_tokenizer() if shape.vocabulary is None else learned(lessons, shape.vocabulary)
    for world in worlds:
        pack = make_pack(world.domain, world.preset, "train", 0, world.pack_size)
        check_fit(pack, entry_profile(profile, world), Render(tokenizer), shape.positions)
    if not resume:
        stack.enter_context(open_run(Path(config.run), config.to_dict(), resume=False))
    model = make_model(
        tokenizer,
        width=shape.width,
        layers=shape.layers,
        heads=shape.heads,
        seed=config.seed,
        length=shape.positions,
        initializer_range=shape.initializer_range,
    )
    write_folder(folder, lambda part: save(model, tokenizer, part))
    return folder


def learned(lessons: Lessons, vocabulary: int) -> Any:
    """Return a tokenizer learned from the texts of at least TEXTS lives. Raises RuntimeError if a life failed."""
    render, texts, lives, step = make_render(), list[str](), 0, 1
    while lives < TEXTS:
        jobs = lessons.jobs(step)
        for life in run_loop(rollouts(jobs, ScriptedSampler(render, lambda names: str), render)):
            if life.failure:
                raise RuntimeError(f"the teacher failed: {life.failure}")
            texts += [render.text(episode.transcript.ids) for episode in life.episodes]
        lives, step = lives + len(jobs), step + 1
    return learn_tokenizer(texts, vocabulary)

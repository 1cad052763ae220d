"""The batch of one step: its packs and lives, the credit of their episodes, and the samples that are learned from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from codots.algorithm.credit import Advantages, Rewards, block_advantages
from codots.config.schema import TrainConfig, WorldConfig
from codots.context.rewrite import Rewrite
from codots.core.transcript import Sample
from codots.domains.base import Pack
from codots.domains.registry import make_pack
from codots.rollout.life import Job, Life
from codots.rollout.profile import EpisodeParams
from codots.rollout.steps import EpisodeKind, Given, Own


@dataclass(frozen=True)
class Entry:
    """One entry of a run's worlds, ready to be drawn from."""

    label: str
    """Name in metrics: the domain, with the preset or the pack size where entries share it."""
    world: WorldConfig
    params: EpisodeParams
    strategy: Rewrite
    group_size: int
    """Lives of each pack, G."""
    own: bool
    """Whether lives write their own contexts; else all contexts stay empty."""
    first: int
    """Index of this entry's first pack among those of a step that share its domain and preset."""
    stride: int
    """Packs of a step that share its domain and preset, so that no pack is met twice."""

    def packs(self, step: int) -> list[Pack]:
        """Draw the packs of a step."""
        at = (step - 1) * self.stride + self.first
        return [self.pack("train", at + i) for i in range(self.world.packs_per_step)]

    def pack(self, split: str, index: int) -> Pack:
        """Draw one pack."""
        return make_pack(self.world.domain, self.world.preset, split, index, self.world.pack_size)

    def contexts(self) -> Own | Given:
        """Say whose contexts the lives of a step get."""
        return Own(self.strategy) if self.own else self.null()

    def null(self) -> Given:
        """Contexts that stay empty."""
        return Given(self.strategy, ("",) * self.world.pack_size)


@dataclass(frozen=True)
class Block:
    """The lives of one entry in one step, the group of each pack side by side."""

    entry: Entry
    packs: list[Pack]
    lives: list[Life]

    @property
    def rewards(self) -> Rewards:
        """Lay the rewards and sampled tokens out as arrays."""
        return rewards_of(self.lives, len(self.packs), self.entry.group_size, self.entry.world.pack_size)


def step_jobs(entries: Sequence[Entry], seed: int, step: int) -> list[Job]:
    """Make the jobs of a step, entry by entry, the group of each pack side by side."""
    packs = [(entry, pack) for entry in entries for pack in entry.packs(step)]
    return [
        Job(pack, entry.contexts(), entry.params, ("train", seed, step, i, g))
        for i, (entry, pack) in enumerate(packs)
        for g in range(entry.group_size)
    ]


def blocks_of(entries: Sequence[Entry], step: int, lives: Sequence[Life]) -> list[Block]:
    """Sort the lives of a step by their entries."""
    blocks, first = [], 0
    for entry in entries:
        packs = entry.packs(step)
        end = first + len(packs) * entry.group_size
        blocks.append(Block(entry, packs, list(lives[first:end])))
        first = end
    return blocks


def rewards_of(lives: Sequence[Life], packs: int, group: int, size: int) -> Rewards:
    """Lay lives out as arrays: solves (P, G, S), updates (P, G, S-1); a missing life is a row of NaN."""
    solve, solve_tokens = np.full((2, packs * group, size), np.nan)
    update, update_tokens = np.full((2, packs * group, size - 1), np.nan)
    for i, life in enumerate(lives):
        if life.failure is None:
            update[i] = update_tokens[i] = 0.0  # a life that was given its contexts rewrites nothing
        for episode in life.episodes:
            values, counts = (solve, solve_tokens) if episode.kind == "solve" else (update, update_tokens)
            values[i, episode.position] = episode.reward
            counts[i, episode.position] = episode.transcript.tokens
    return Rewards(*(array.reshape(packs, group, -1) for array in (solve, update, solve_tokens, update_tokens)))


def credit_of(config: TrainConfig, blocks: Sequence[Block]) -> list[Advantages]:
    """Turn the rewards of a step into one advantage per episode, block by block."""
    rewards = [block.rewards for block in blocks]
    if config.contexts == "own":
        return block_advantages(rewards, config.credit.preset, **config.credit.overrides)
    alone = block_advantages(list(map(task_by_task, rewards)), config.credit.preset, **config.credit.overrides)
    return [as_lives(credit, np.shape(r.solve_PGS)) for credit, r in zip(alone, rewards, strict=True)]


def task_by_task(rewards: Rewards) -> Rewards:
    """Make each position a pack of one task, so that every solve is credited by its own reward alone."""
    P, G, S = np.shape(rewards.solve_PGS)
    solve, tokens = (
        np.transpose(array, (0, 2, 1)).reshape(P * S, G, 1)  # type: ignore[arg-type]
        for array in (rewards.solve_PGS, rewards.solve_tokens_PGS)
    )
    none = np.zeros((P * S, G, 0))
    return Rewards(solve, none, tokens, none)


def as_lives(credit: Advantages, shape: tuple[int, ...]) -> Advantages:
    """Lay the advantages of `task_by_task` out as those of whole lives, (P, G, S)."""
    P, G, S = shape
    solve_PGS = credit.solve_PGS.reshape(P, S, G).transpose(0, 2, 1)
    return Advantages(solve_PGS, np.zeros((P, G, S - 1)), credit.metrics)


def minibatches(blocks: Sequence[Block], credit: Sequence[Advantages], count: int) -> Iterator[list[Sample]]:
    """Cut a step by pack into mini-batches, each with an equal share of every entry's packs, without empty ones."""
    for k in range(count):
        batch: list[Sample] = []
        for block, advantages in zip(blocks, credit, strict=True):
            per_cut = len(block.packs) // count * block.entry.group_size
            for i in range(k * per_cut, (k + 1) * per_cut):
                batch += samples(block.lives[i], advantages, *divmod(i, block.entry.group_size))
        if batch:
            yield batch


def samples(life: Life, credit: Advantages, p: int, g: int) -> list[Sample]:
    """Give the episodes of a life their advantages; one without sampled ids has nothing to teach."""
    scored = [(e, advantage_of(credit, p, g, e.kind, e.position)) for e in life.episodes]
    return [episode.transcript.sample(advantage) for episode, advantage in scored if episode.transcript.tokens]


def advantage_of(credit: Advantages, p: int, g: int, kind: EpisodeKind, position: int) -> float:
    """Look up one episode's advantage."""
    array = credit.solve_PGS if kind == "solve" else credit.update_PGS
    return float(array[p, g, position])

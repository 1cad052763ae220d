"""The batch of one training step: packs, lives, advantages of the episodes, and samples for the learner."""

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
    """One entry of the recipe's `worlds`, from which packs are drawn."""

    label: str
    """Name in metrics: the domain, plus as many of preset, pack size and index as are needed to distinguish the entry
    from the other entries."""
    world: WorldConfig
    params: EpisodeParams
    strategy: Rewrite
    group_size: int
    """Number of lives per pack, G."""
    own: bool
    """Whether lives write their own contexts; otherwise all contexts stay empty."""
    first: int
    """Index of this entry's first pack among the packs of a step that have the same domain and preset."""
    stride: int
    """Number of packs per step that have the same domain and preset. Each step starts this many packs later, so that no
    pack is repeated."""

    def packs(self, step: int) -> list[Pack]:
        """Draw the training packs of a step."""
        start = (step - 1) * self.stride + self.first
        return [self.pack("train", start + i) for i in range(self.world.packs_per_step)]

    def pack(self, split: str, index: int) -> Pack:
        """Draw one pack."""
        return make_pack(self.world.domain, self.world.preset, split, index, self.world.pack_size)

    def contexts(self) -> Own | Given:
        """Return the context source of training lives: their own rewrites, or empty contexts."""
        return Own(self.strategy) if self.own else self.null_contexts()

    def null_contexts(self) -> Given:
        """Return an empty context for every position."""
        return Given(self.strategy, ("",) * self.world.pack_size)


@dataclass(frozen=True)
class Block:
    """The lives of one entry in one step, ordered by pack, then by group member."""

    entry: Entry
    packs: list[Pack]
    lives: list[Life]

    @property
    def rewards(self) -> Rewards:
        """Rewards and token counts as arrays."""
        return rewards_of(self.lives, len(self.packs), self.entry.group_size, self.entry.world.pack_size)


def step_jobs(entries: Sequence[Entry], seed: int, step: int) -> list[Job]:
    """Return the jobs of a step, ordered by entry, pack and group member."""
    packs = [(entry, pack) for entry in entries for pack in entry.packs(step)]
    return [
        Job(pack, entry.contexts(), entry.params, ("train", seed, step, i, g))
        for i, (entry, pack) in enumerate(packs)
        for g in range(entry.group_size)
    ]


def blocks_of(entries: Sequence[Entry], step: int, lives: Sequence[Life]) -> list[Block]:
    """Split the lives of a step, in the order of `step_jobs`, by entry."""
    blocks, first = [], 0
    for entry in entries:
        packs = entry.packs(step)
        end = first + len(packs) * entry.group_size
        blocks.append(Block(entry, packs, list(lives[first:end])))
        first = end
    return blocks


def rewards_of(lives: Sequence[Life], packs: int, group: int, size: int) -> Rewards:
    """Return the rewards and token counts of lives as arrays.

    Arrays of solves have shape (P, G, S), arrays of updates (P, G, S-1). All values of a missing life are NaN. Lives
    must be ordered by pack, then by group member.
    """
    solve, solve_tokens = np.full((2, packs * group, size), np.nan)
    update, update_tokens = np.full((2, packs * group, size - 1), np.nan)
    for i, life in enumerate(lives):
        if life.failure is None:
            update[i] = update_tokens[i] = 0.0  # stays 0 if contexts are given, since then there are no updates
        for episode in life.episodes:
            values, counts = (solve, solve_tokens) if episode.kind == "solve" else (update, update_tokens)
            values[i, episode.position] = episode.reward
            counts[i, episode.position] = episode.transcript.tokens
    return Rewards(*(array.reshape(packs, group, -1) for array in (solve, update, solve_tokens, update_tokens)))


def credit_of(config: TrainConfig, blocks: Sequence[Block]) -> list[Advantages]:
    """Return the advantages of each block, one per episode, computed from the rewards of a step."""
    rewards = [block.rewards for block in blocks]
    if config.contexts == "own":
        return block_advantages(rewards, config.credit.preset, **config.credit.overrides)
    per_task = block_advantages(list(map(task_by_task, rewards)), config.credit.preset, **config.credit.overrides)
    return [as_lives(credit, np.shape(r.solve_PGS)) for credit, r in zip(per_task, rewards, strict=True)]


def task_by_task(rewards: Rewards) -> Rewards:
    """Turn each position into a pack of one task, so that the credit of a solve ignores rewards at other positions."""
    P, G, S = np.shape(rewards.solve_PGS)
    solve, tokens = (
        np.transpose(array, (0, 2, 1)).reshape(P * S, G, 1)  # type: ignore[arg-type]
        for array in (rewards.solve_PGS, rewards.solve_tokens_PGS)
    )
    none = np.zeros((P * S, G, 0))
    return Rewards(solve, none, tokens, none)


def as_lives(credit: Advantages, shape: tuple[int, ...]) -> Advantages:
    """Reshape the advantages of `task_by_task` rewards to whole lives of this shape, (P, G, S), without updates."""
    P, G, S = shape
    solve_PGS = credit.solve_PGS.reshape(P, S, G).transpose(0, 2, 1)
    return Advantages(solve_PGS, np.zeros((P, G, S - 1)), credit.metrics)


def minibatches(blocks: Sequence[Block], credit: Sequence[Advantages], count: int) -> Iterator[list[Sample]]:
    """Split a step into `count` mini-batches with equally many packs of every entry, and yield those with samples."""
    for k in range(count):
        batch: list[Sample] = []
        for block, advantages in zip(blocks, credit, strict=True):
            size = len(block.packs) // count * block.entry.group_size
            for i in range(k * size, (k + 1) * size):
                batch += samples(block.lives[i], advantages, *divmod(i, block.entry.group_size))
        if batch:
            yield batch


def samples(life: Life, credit: Advantages, p: int, g: int) -> list[Sample]:
    """Return the episodes of a life that have sampled tokens, as samples with advantages."""
    scored = [(e, advantage_of(credit, p, g, e.kind, e.position)) for e in life.episodes]
    return [episode.transcript.sample(advantage) for episode, advantage in scored if episode.transcript.tokens]


def advantage_of(credit: Advantages, p: int, g: int, kind: EpisodeKind, position: int) -> float:
    """Return the advantage of one episode. `p` is the index of the pack, `g` the index of the life in the group."""
    array = credit.solve_PGS if kind == "solve" else credit.update_PGS
    return float(array[p, g, position])

"""Metrics of a training step: rewards by position, failures, and facts in the final contexts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from codots.core.transcript import StopReason, Transcript
from codots.rollout.life import Life
from codots.training.batch import Block


def summary(blocks: Sequence[Block]) -> dict[str, float]:
    """Return the metrics of a step: rewards by position, failures, and facts in the final contexts.

    If there are several entries, rewards and facts are reported per entry.
    """
    values: dict[str, float] = {}
    for block in blocks:
        for j, reward in enumerate(position_means(block)):
            values[named("reward", block, blocks, str(j))] = float(reward)
    lives = [life for block in blocks for life in block.lives]
    for kind in ("solve", "update"):
        episodes = [episode for life in lives for episode in life.episodes if episode.kind == kind]
        values[f"malformed/{kind}"] = share(episode.stop == "malformed" for episode in episodes)
        values[f"cut/{kind}"] = share(episode.ended == StopReason.LENGTH for episode in episodes)
        values[f"no_room/{kind}"] = share(episode.ended == StopReason.FULL for episode in episodes)
    values["rollout/failed"] = float(sum(life.failure is not None for life in lives))
    if distinct := [found for block in blocks for found in distinct_replies(block)]:
        values["rollout/distinct_replies"] = float(np.mean(distinct))
    for block in blocks:
        for name, value in last_facts(block).items():
            values[named("facts", block, blocks, name)] = value
    return values


def distinct_replies(block: Block) -> Iterator[float]:
    """Yield, for each pack and position, the distinct solves of its lives as a fraction of their number.

    The fraction is 1 if every life replied in its own words, and 0 if all replied in the same.
    """
    size = block.entry.group_size
    for p in range(len(block.packs)):
        solves = [[e for e in life.episodes if e.kind == "solve"] for life in block.lives[p * size : (p + 1) * size]]
        for group in zip(*(life for life in solves if life), strict=False):
            if len(group) > 1:
                yield (len({_reply(solve.transcript) for solve in group}) - 1) / (len(group) - 1)


def _reply(transcript: Transcript) -> tuple[int, ...]:
    return tuple(id for id, sampled in zip(transcript.ids, transcript.mask, strict=True) if sampled)


def named(section: str, block: Block, blocks: Sequence[Block], name: str) -> str:
    """Return the name of a block's metric, including the block's label if there are several blocks."""
    return f"{section}/{block.entry.label}/{name}" if len(blocks) > 1 else f"{section}/{name}"


def position_means(block: Block) -> Sequence[float]:
    """Return the mean reward by position, or an empty list if all lives are missing."""
    present = any(life.episodes for life in block.lives)
    return list(np.nanmean(np.asarray(block.rewards.solve_PGS), axis=(0, 1))) if present else []


def share(hits: Iterable[bool]) -> float:
    """Return the fraction of hits, or 0 for an empty iterable."""
    found = list(hits)
    return sum(found) / len(found) if found else 0.0


def last_facts(block: Block) -> dict[str, float]:
    """Return the right and wrong facts in the final contexts, as fractions of all knowable facts.

    Returns an empty dict if the domain counts no facts or all lives are missing.
    """
    counts = []
    for i, life in enumerate(block.lives):
        pack = block.packs[i // block.entry.group_size]
        world = pack.world.at(len(life.contexts) - 1)
        if life.contexts and (facts := pack.domain.facts(world, life.contexts[-1])):
            counts.append(facts)
    if not counts:
        return {}
    right, wrong, knowable = np.mean(counts, axis=0)
    return {"right": float(right / knowable), "wrong": float(wrong / knowable)}


def sampled_tokens(blocks: Sequence[Block]) -> int:
    """Count the sampled tokens of a step."""
    return sum(episode.transcript.tokens for block in blocks for life in block.lives for episode in life.episodes)


def staleness(lives: Sequence[Life], version: int) -> dict[str, float]:
    """Return the mean and maximum age of the sampled tokens, in weight versions, and the fraction of each age.

    Ages that no token has are omitted. Returns an empty dict if `version` sampled all tokens.
    """
    transcripts = [episode.transcript for life in lives for episode in life.episodes]
    ages = [version - v for t in transcripts for v, sampled in zip(t.versions, t.mask, strict=True) if sampled]
    if not any(ages):
        return {}
    values = {"rollout/staleness": float(np.mean(ages)), "rollout/staleness_max": float(max(ages))}
    return values | {f"rollout/staleness/{age}": ages.count(age) / len(ages) for age in sorted(set(ages))}

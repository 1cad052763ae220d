"""A batch as trees of ids: what several episodes begin with is run once, and nothing is padding."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from codots.core.transcript import Sample
from codots.learner.config import LearnerConfig
from codots.model.attention import Rows, shared_prefix

WEIGHTED = ("train/loss", "train/clip_fraction", "train/ref_kl")
"""Sums that the loss weighs by its aggregation; all others are sums over tokens."""


@dataclass(frozen=True)
class MicroBatch:
    """Some episodes as one tree, to be run in one pass."""

    samples: list[Sample] = field(default_factory=list)
    ids: list[int] = field(default_factory=list)
    """What is run, sample after sample what it adds to those before."""
    nodes: list[list[int]] = field(default_factory=list)
    """Where each sample's ids stand among those; its last id foretells nothing and is not run."""
    shared: list[int] = field(default_factory=list)
    """How many ids of each sample were there before it came."""

    def add(self, sample: Sample, shared: int) -> None:
        """Take a sample whose first ids are those of the sample before."""
        fresh = sample.ids[shared:-1]
        before = self.nodes[-1][:shared] if shared else []
        self.nodes.append([*before, *range(len(self.ids), len(self.ids) + len(fresh))])
        self.ids.extend(fresh)
        self.samples.append(sample)
        self.shared.append(shared)

    def rows(self, device: Any) -> Rows:
        """How the ids attend: each to its own sample's, wherever those stand."""
        shared_B, lengths_B = np.array(self.shared), np.array([len(nodes) for nodes in self.nodes])

        def places(b: np.ndarray, width: int) -> tuple[Tensor, np.ndarray]:
            padded = [self.nodes[i] + [0] * (width - len(self.nodes[i])) for i in b]
            return torch.tensor(padded, device=device), np.arange(len(b))

        return Rows.of(lengths_B - shared_B, shared_B, places, lambda layer, keys, values: (keys, values), device)


def in_tree_order(batch: Sequence[Sample]) -> list[tuple[Sample, int]]:
    """Put samples that begin alike side by side, each with how many ids it shares with the one before."""
    ordered = sorted(batch, key=lambda sample: sample.ids)
    shared = [0, *(shared_prefix(one.ids[:-1], other.ids[:-1]) for one, other in pairwise(ordered))]
    return list(zip(ordered, shared, strict=False))


def micro_batches(batch: Sequence[Sample], budget: int) -> Iterator[MicroBatch]:
    """Cut a batch so that no micro-batch runs more ids than the budget, unless it is of one sample."""
    part = MicroBatch()
    for sample, shared in in_tree_order(batch):
        if part.samples and len(part.ids) + len(sample.ids) - 1 - shared > budget:
            yield part
            part, shared = MicroBatch(), 0
        part.add(sample, shared)
    if part.samples:
        yield part


def fair_shares(batch: Sequence[Sample], n: int) -> list[list[Sample]]:
    """Part a batch among n learners, so that each runs about as many ids and beginnings are seldom parted."""
    shares: list[list[Sample]] = [[] for _ in range(n)]
    ordered = [(sample, len(sample.ids) - shared) for sample, shared in in_tree_order(batch)]
    total, run = sum(fresh for _, fresh in ordered), 0
    for sample, fresh in ordered:
        shares[(2 * run + fresh) * n // (2 * total)].append(sample)  # by where its middle falls
        run += fresh
    return shares


def trained(part: MicroBatch) -> Iterator[tuple[Sample, list[int], int]]:
    """Walk the sampled ids: the sample, its nodes, and the place of the id in it."""
    for sample, nodes in zip(part.samples, part.nodes, strict=True):
        for at, sampled in enumerate(sample.mask):
            if sampled:
                yield sample, nodes, at


def normalizer(samples: Sequence[Sample], config: LearnerConfig) -> int:
    """Count what the loss of a batch is a mean over: its trained ids or, under `episode-mean`, its episodes."""
    return len(samples) if config.by_episode else sum(sum(sample.mask) for sample in samples)


def means(shares: Sequence[dict[str, float]]) -> dict[str, float]:
    """Turn sums of all shares of a batch into means: a loss over its `weight`, others over `tokens`; maxima stay."""
    totals = {name: sum(share.get(name, 0.0) for share in shares) for name in ("tokens", "weight")}
    metrics = {}
    for name in dict.fromkeys(name for share in shares for name in share if name not in totals):
        values = [share.get(name, 0.0) for share in shares]
        over = totals["weight" if name in WEIGHTED else "tokens"]
        metrics[name] = max(values) if name.endswith("max") else sum(values) / max(over, 1.0)
    return metrics

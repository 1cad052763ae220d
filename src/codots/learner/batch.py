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
from codots.model.attention import Rows, alike


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
    shared = [0, *(alike(one.ids[:-1], other.ids[:-1]) for one, other in pairwise(ordered))]
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


def trained_tokens(batch: Sequence[Sample]) -> int:
    """Count the ids that the policy sampled."""
    return sum(sum(sample.mask) for sample in batch)

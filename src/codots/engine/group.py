"""Workers that train one model together: each holds a part of it (FSDP2), and all make each call at the same time."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch._C._distributed_c10d import TCPStore  # which mypy does not find in torch.distributed

from codots.engine.plan import Plan, no_sampler
from codots.engine.worker import Worker
from codots.learner.config import LearnerConfig
from codots.learner.fsdp import ShardedLearner, ShardedScorer
from codots.learner.score import Scorer
from codots.model.adapter import Model
from codots.model.load import load_model
from codots.model.renderer import Render

JOIN_SECONDS = 120
"""Time in which a worker must reach the meeting point, in seconds."""
TIMEOUT = timedelta(hours=2)
"""Timeout of a pass of all workers. Those of the stages of a run are shorter and end it first."""


@dataclass(frozen=True)
class Group:
    """A worker's place in its group, and the address where the workers meet."""

    rank: int
    size: int
    host: str
    port: int


def meeting(host: str, size: int) -> Any:
    """Return the store in which the workers of a group meet. It is in this process, of rank 0; its `port` is free."""
    return TCPStore(host, 0, size, is_master=True, wait_for_workers=False)


def join(group: Group, store: Any, device: str) -> None:
    """Make the process group. `store` is that of `meeting` in the process of rank 0, and None in the others."""
    if store is None:
        seconds = timedelta(seconds=JOIN_SECONDS)
        store = TCPStore(group.host, group.port, group.size, is_master=False, timeout=seconds)
    backend = "nccl" if device.startswith("cuda") else "gloo"
    dist.init_process_group(backend, store=store, rank=group.rank, world_size=group.size, timeout=TIMEOUT)


class GroupWorker(Worker):
    """A worker of a group. It trains and does not roll out. What is whole is returned and written by rank 0."""

    def __init__(self, plan: Plan, group: Group, store: Any = None) -> None:
        """Load the model and split it over the group."""
        torch.set_num_threads(1)
        join(group, store, plan.place.device)
        self.first = group.rank == 0
        super().__init__(replace(plan, make_sampler=no_sampler))

    def _load(self, model: Model) -> tuple[Any, Render]:
        place = replace(self.plan.place, device="cpu")  # until it is split over the devices of the group
        return load_model(model, place, self.plan.profile.thinking)

    def _learner(self, config: LearnerConfig) -> Any:
        how = self.plan.total_steps, self.plan.profile.temperature, self.plan.place.device
        return ShardedLearner(self.model, config, *how)

    def _scorer(self, model: Any, config: LearnerConfig) -> Scorer:
        return ShardedScorer(model, config, self.plan.profile.temperature, self.plan.place.device)

    def _whole(self, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        learner: Any = self.learner
        whole: dict[str, Tensor] = learner.whole(weights)
        return whole

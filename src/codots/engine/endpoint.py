"""Engine for a model behind an API endpoint; it rolls out lives and cannot train."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from codots.core.deadline import SideThread, run_loop
from codots.model.alphabet import make_render
from codots.rollout.environments import EnvProcesses
from codots.rollout.life import Job, Life, OnLife, rollouts
from codots.sampler.budget import Budget
from codots.sampler.endpoint import Endpoint, Terms
from codots.sampler.openai import EndpointError, EndpointSampler


class EndpointEngine:
    """Engine that rolls out lives with the model of an endpoint."""

    def __init__(self, endpoint: Endpoint, budget: Budget | None = None) -> None:
        self.endpoint, self._terms, self._budget = endpoint, Terms(), budget
        self._thread, self._processes = SideThread(), EnvProcesses()

    def rollout(self, jobs: Sequence[Job], timeout: float, on_life: OnLife | None = None) -> list[Life]:
        """Roll out jobs and return their lives, calling `on_life` for each life when it ends.

        Raises EndpointError if every life failed, and SpentError if a limit of the budget is reached.
        """
        operation = f"rolling out {len(jobs)} lives at {self.endpoint.name}"
        return self._thread.call(
            timeout,
            operation,
            lambda emit: run_loop(self._rollout(jobs, lambda index, life: emit((index, life)))),
            lambda event: on_life(*event) if on_life else None,
        )

    async def _rollout(self, jobs: Sequence[Job], on_life: OnLife) -> list[Life]:
        async with EndpointSampler(self.endpoint, self._terms, self._budget) as sampler:
            room = asyncio.Semaphore(self.endpoint.at_once)
            lives = await rollouts(jobs, sampler, make_render(), on_life, room, self._processes)
        if jobs and all(life.failure for life in lives):
            raise EndpointError(f"every life failed; the first error: {lives[0].failure}")
        return lives

    def close(self) -> None:
        """Stop the thread, and the processes of environments."""
        self._thread.close()
        self._processes.close()

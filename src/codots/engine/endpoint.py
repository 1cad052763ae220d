"""The engine of a model that is served elsewhere: it lives lives, and cannot be trained."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from codots.rollout.life import Job, Life, rollouts
from codots.rollout.profile import Profile
from codots.sampler.openai import Endpoint, EndpointError, EndpointSampler, make_render


class EndpointEngine:
    """Live lives with an endpoint's model."""

    def __init__(self, endpoint: Endpoint, profile: Profile) -> None:
        self.endpoint, self.profile = endpoint, profile

    def live(self, jobs: Sequence[Job], told: Callable[[Life], None] = lambda _: None) -> list[Life]:
        """Live all these lives at once. Raises EndpointError if not one came through."""
        return asyncio.run(self._live(jobs, told))

    async def _live(self, jobs: Sequence[Job], told: Callable[[Life], None]) -> list[Life]:
        async with EndpointSampler(self.endpoint) as sampler:
            lives = await rollouts(jobs, sampler, make_render(), self.profile.play(), told)
        if jobs and all(life.failure for life in lives):
            raise EndpointError(f"every life is missing: {lives[0].failure}")
        return lives

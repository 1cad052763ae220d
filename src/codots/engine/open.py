"""A model by its name, ready to live: a folder's in the processes of this machine, `openai:NAME` behind an endpoint."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from codots.engine.endpoint import EndpointEngine
from codots.engine.local import LocalEngine, Plan
from codots.model.device import Place, place
from codots.model.load import ENDPOINT, identity, model_folder
from codots.rollout.life import Job, Life
from codots.rollout.profile import load_profile
from codots.sampler.openai import Endpoint

AT_ONCE = 8
"""Requests under way for each worker, where an endpoint does the work."""


class Player:
    """A model at work on lives; its engine starts when there is something to live.

    Where NAME of `openai:NAME` is a folder here, its `codots.json` says how the model is spoken to. Raises ValueError
    for what is not there or does not fit the domain.
    """

    def __init__(
        self,
        model: str | Path,
        domain: str,
        *,
        temperature: float | None = None,
        workers: int = 1,
        device: str = "auto",
    ) -> None:
        name, self.workers = str(model), workers
        served = name.removeprefix(ENDPOINT) if name.startswith(ENDPOINT) else None
        self.endpoint = None if served is None else Endpoint.from_environment(served, AT_ONCE * workers)
        self.folder = model_folder(model) if served is None else Path(served)
        profile = load_profile(self.folder).fits(domain)
        self.profile = profile if temperature is None else profile.at(temperature)
        self.place = Place() if self.endpoint else place(self.folder, device)
        self.engine: LocalEngine | None = None

    @property
    def identity(self) -> str:
        """What tells this model from all others, as far as can be known."""
        return str(self.endpoint) if self.endpoint else identity(self.folder)

    def live(self, jobs: Sequence[Job], told: Callable[[Life], None] = lambda _: None) -> list[Life]:
        """Live lives; `told` hears of each as it ends where an endpoint is waited for."""
        if self.endpoint:
            return EndpointEngine(self.endpoint, self.profile).live(jobs, told)
        if self.engine is None:
            self.engine = LocalEngine(Plan(self.folder, self.profile, None, place=self.place), self.workers)
        return self.engine.live(jobs)

    def close(self) -> None:
        """End the engine, if there was something to live."""
        if self.engine is not None:
            self.engine.close()

"""A model by its name, ready to live: a folder's in the processes of this machine, `openai:NAME` behind an endpoint."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from codots.engine.base import OnLife
from codots.engine.endpoint import EndpointEngine
from codots.engine.local import LocalEngine
from codots.engine.worker import Plan
from codots.model.device import Place, place
from codots.model.load import ENDPOINT, identity, model_folder
from codots.rollout.life import Job, Life
from codots.rollout.profile import load_profile
from codots.sampler.openai import Endpoint

AT_ONCE = 8
"""Requests under way for each worker, where an endpoint does the work."""


class OpenModel:
    """A model opened for rollouts; its engine starts with the first rollout.

    Where NAME of `openai:NAME` is a folder here, its `codots.json` says how the model is spoken to. Raises ValueError
    for what is not there or does not fit the domain.
    """

    def __init__(
        self,
        model: str | Path,
        domain: str,
        *,
        temperature: float | None = None,
        profile: dict[str, Any] | None = None,
        workers: int = 1,
        device: str = "auto",
    ) -> None:
        name, self.workers = str(model), workers
        served = name.removeprefix(ENDPOINT) if name.startswith(ENDPOINT) else None
        self.endpoint = None if served is None else Endpoint.from_environment(served, AT_ONCE * workers)
        self.folder = model_folder(model) if served is None else Path(served)
        asked = replace(load_profile(self.folder), **(profile or {})).fits(domain)
        self.profile = asked if temperature is None else asked.at(temperature)
        self.place = Place() if self.endpoint else place(self.folder, device)
        self.engine: LocalEngine | EndpointEngine | None = None

    @property
    def identity(self) -> str:
        """What tells this model from all others, as far as can be known."""
        return str(self.endpoint) if self.endpoint else identity(self.folder)

    def rollout(self, jobs: Sequence[Job], timeout: float, on_life: OnLife = lambda _: None) -> list[Life]:
        """Roll these jobs out and return their lives; `on_life` hears of each as it ends at an endpoint."""
        if self.engine is None:
            local = Plan(self.folder, self.profile, None, place=self.place)
            self.engine = EndpointEngine(self.endpoint) if self.endpoint else LocalEngine(local, self.workers)
        return self.engine.rollout(jobs, timeout, on_life) if self.endpoint else self.engine.rollout(jobs, timeout)

    def close(self) -> None:
        """End the engine, if there was something to live."""
        if self.engine is not None:
            self.engine.close()

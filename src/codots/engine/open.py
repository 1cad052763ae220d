"""Open a model for rollouts by its name: a local folder, or `openai:NAME` for an API endpoint."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from codots.core.files import check_readable
from codots.domains.base import Pack
from codots.engine.endpoint import EndpointEngine
from codots.engine.forkserver import model_processes
from codots.model.adapter import Model, folders, holder
from codots.model.device import Place, place
from codots.model.load import ENDPOINT, identity, model_folder
from codots.rollout.fit import check_fits
from codots.rollout.life import Job, Life, OnLife
from codots.rollout.profile import PROFILE, load_profile
from codots.sampler.budget import Budget
from codots.sampler.endpoint import Endpoint

if TYPE_CHECKING:
    from codots.engine.local import LocalEngine

AT_ONCE = 8
"""Concurrent requests to an endpoint per worker."""


class OpenModel:
    """A model opened for rollouts. Its engine starts with the first rollout.

    The profile is the `codots.json` of the model's folder. For `openai:NAME`, that folder is NAME, if it exists on this
    machine. `base` names the base model of an adapter. Raises ValueError if the model is missing or the domain, if one
    is given, lacks the prompt style.
    """

    def __init__(
        self,
        model: str | Path,
        domain: str | None,
        *,
        temperature: float | None = None,
        profile: dict[str, Any] | None = None,
        workers: int = 1,
        device: str = "auto",
        extra_body: Mapping[str, Any] | None = None,
        budget: Budget | None = None,
        base: str | None = None,
    ) -> None:
        """`extra_body` holds options that every request to an endpoint adds or replaces; None drops an option.

        `budget` limits all requests to an endpoint.
        """
        name, self.workers, self._budget = str(model), workers, budget
        served = name.removeprefix(ENDPOINT) if name.startswith(ENDPOINT) else None
        if served is not None and base is not None:
            raise ValueError(f"base={base} is given, but {name} is an endpoint, not a LoRA adapter")
        self.endpoint = None if served is None else Endpoint.from_environment(served, AT_ONCE * workers, extra_body)
        self.folder: Model = model_folder(model, base) if served is None else Path(served)
        if served is None:
            check_readable(*folders(self.folder))
        chosen = replace(load_profile(holder(self.folder, PROFILE)), **(profile or {}))
        if domain is not None:
            chosen.fits(domain)
        self.profile = chosen if temperature is None else chosen.at(temperature)
        self.place = Place() if self.endpoint else place(self.folder, device)
        self.engine: LocalEngine | EndpointEngine | None = None

    @property
    def identity(self) -> str:
        """Identity of the model: a hash of its folder, or the name of its endpoint."""
        return str(self.endpoint) if self.endpoint else identity(self.folder)

    def check_fits(self, pack: Pack) -> None:
        """Raise ValueError if the first prompt of a pack does not fit into the model. An endpoint is not checked."""
        if self.endpoint is None:
            if self.workers > 1 and self.place.device == "cpu":
                model_processes()  # they import in parallel with this process
            check_fits(self.folder, [(pack, self.profile)])

    def rollout(self, jobs: Sequence[Job], timeout: float, on_life: OnLife | None = None) -> list[Life]:
        """Roll out jobs and return their lives. `on_life` is called for each life when it ends."""
        if self.engine is None:
            self.engine = EndpointEngine(self.endpoint, self._budget) if self.endpoint else self._local()
        return self.engine.rollout(jobs, timeout, on_life)

    def _local(self) -> LocalEngine:
        from codots.engine.local import LocalEngine  # imported here, because only a local model needs torch
        from codots.engine.plan import Plan

        return LocalEngine(Plan(self.folder, self.profile, None, place=self.place), self.workers)

    def close(self) -> None:
        """Stop the engine, if it was started."""
        if self.engine is not None:
            self.engine.close()

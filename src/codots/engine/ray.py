"""Engine on a Ray cluster: actors that roll out, and actors that train."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from codots.core.deadline import MAX_TIMEOUT, SideThread
from codots.core.transcript import Sample
from codots.engine.cluster import check_ray, check_room, connect, disconnect, reserve
from codots.engine.crew import Call, Crew
from codots.engine.plan import Plan
from codots.engine.split import OnEvent, Share, SplitEngine
from codots.model.adapter import absolute
from codots.rollout.life import Job, Life

log = logging.getLogger("codots")
CLOSE_SECONDS = 30.0
"""Time that the actors and a cluster of this process have to end, in seconds."""


class RayEngine(SplitEngine):
    """Engine whose samplers and learners are actors on a Ray cluster. Several learners each hold a part of the model.

    It joins the cluster of RAY_ADDRESS, or starts one on this machine. Submitted jobs are rolled out in the background.
    `sync` first waits for them, so that every life is sampled by one version of the weights. If the plan has lives in
    flight, they run on instead: the new weights read their ids again, and sample all later ones. One sampler gives the
    lives of a local engine with one worker, bit for bit. A sampler that dies is replaced and repeats its share. All
    machines need the model and the run folder under the same path. `on_life` is called when a sampler has ended all of
    its lives.
    """

    def __init__(self, plan: Plan, samplers: int = 1, learners: int = 1, *, max_logprob_gap: float = 0.05) -> None:
        """Start the actors.

        `max_logprob_gap` bounds the mean difference between the logprobs of a sampler and of the learner after a sync.
        Raises ValueError if the cluster has no room for the actors.
        """
        check_ray()
        super().__init__(on_any_machine(plan))
        self.samplers, self.learners, self.max_logprob_gap = samplers, learners, max_logprob_gap
        self._flying: deque[list[Call]] = deque()
        self._group: Any = None
        self._ray = SideThread()  # a cluster of this process ends with the thread that starts it
        self._connected = False
        try:
            self._ray.call(MAX_TIMEOUT, "starting Ray", lambda _: self._open())
            self._call(MAX_TIMEOUT, "starting the actors", self._start)
        except BaseException:
            self.close()
            raise

    def _open(self) -> None:
        self._connected = connect()
        device, parts = self.plan.place.device, self.plan.tensor_parallel
        check_room(self.samplers, self.learners, device, parts)
        self._group = reserve([1] * self.learners + [parts] * self.samplers, device)

    def _start(self) -> None:
        first = self.learners
        self._learner = Crew("learner", self.plan, self._group, range(first))
        self._sampler = Crew("sampler", self.plan, self._group, range(first, first + self.samplers))
        for crew in (self._learner, self._sampler):
            crew.ready()
        self._check_tokenizers()
        for line in self._first("warnings"):
            log.warning(line)
        self._serve(0)

    def _check_tokenizers(self) -> None:
        """Raise ValueError if a sampler reads other ids than the learner, as with other files on its machine."""
        own = self._first("vocabulary")
        for k, other in enumerate(self._sampler.call("vocabulary", [()] * self.samplers)):
            if other != own:
                raise ValueError(
                    f"sampler {k} has another tokenizer than the learner; expected the same files in {self.plan.model} "
                    "on all machines"
                )

    def _sample(self, method: str, shares: Sequence[Share], on_event: OnEvent | None = None) -> list[Any]:
        parts = self._sampler.call(method, shares)
        if on_event is not None:
            for k, lives in enumerate(parts):
                for i, life in enumerate(lives):
                    on_event(k, i, life)
        return parts

    def _learn(self, method: str, shares: Sequence[Share]) -> list[Any]:
        return self._learner.call(method, shares)

    def _first(self, method: str, *arguments: Any) -> Any:
        return self._learner.call(method, [arguments] * self.learners)[0]  # all, since each has a part of the model

    def _optim_step(self) -> dict[str, float]:
        metrics: dict[str, float] = self._first("optim_step")
        return metrics | {"ray/restarts": float(self._sampler.restarts)}

    def _load(self, folder: Path, restart: bool) -> int:
        self._flying.clear()
        steps: int = self._first("load", folder.absolute(), restart)
        return steps

    def _serve(self, version: int) -> None:
        if not self.plan.in_flight:
            self._land_all()
        weights, *others = self._learner.begin("flat_weights", [()] * self.learners)  # shipped to the samplers
        self._learner.finish(others)
        probes = self._sampler.call("receive", [(weights.ref, version)] * self.samplers)
        self._sampler.renewal = [("receive", (weights.ref, version))]
        rows = self._first("logprobs", probes, False)
        for k, (probe, row) in enumerate(zip(probes, rows, strict=True)):
            self._check_probe(f"sampler {k}", probe, row, version)

    def _check_probe(self, name: str, probe: Sample, row: list[float], version: int) -> None:
        """Raise RuntimeError unless a probe is of this version, and its logprobs are close to the learner's."""
        at = np.flatnonzero(probe.mask)
        gap = float(np.abs(np.subtract(probe.logprobs, row))[at].mean())
        if {probe.versions[i] for i in at} != {version}:
            raise RuntimeError(f"{name} serves another version than {version}")
        if not gap <= self.max_logprob_gap:
            raise RuntimeError(
                f"{name} does not serve the weights of version {version}: its logprobs differ from the "
                f"learner's by {gap:.3g} on average, and max_logprob_gap is {self.max_logprob_gap:g}"
            )

    @property
    def pending(self) -> int:
        """Number of submitted batches of jobs that have not been collected."""
        return len(self._lives) + len(self._flying)

    def submit(self, jobs: Sequence[Job], timeout: float) -> None:
        """Start to roll out jobs with the current weights; `collect` returns their lives."""
        self._meter.start()
        shares = self._shares(jobs)
        calls = self._call(timeout, f"submitting {len(jobs)} lives", lambda: self._sampler.begin("rollout", shares))
        self._flying.append(calls)

    def collect(self, timeout: float) -> list[Life]:
        """Return the lives of the oldest pending batch, in the order of its jobs."""
        if self._flying and not self._lives:
            self._call(timeout, "rolling out lives", self._land)
        return super().collect(timeout)

    def _land(self) -> None:
        """Wait for the oldest batch that is being rolled out."""
        parts = self._sampler.finish(self._flying[0])
        self._lives.append([life for part in parts for life in part])
        self._flying.popleft()

    def _land_all(self) -> None:
        while self._flying:
            self._land()

    def save(self, folder: Path) -> None:
        """Save a Hugging Face model folder, the optimizer, any LoRA adapter, and the lives of pending batches."""
        self._land_all()
        super().save(folder.absolute())

    def save_model(self, folder: Path) -> None:
        """Save the weights as a Hugging Face model folder with its `codots.json`."""
        super().save_model(folder.absolute())

    def close(self) -> None:
        """Stop the actors, and the cluster if this engine started it."""
        self._thread.close(0.0)
        with suppress(RuntimeError, TimeoutError):  # closed before, or abandoned while it started
            self._ray.call(CLOSE_SECONDS, "closing Ray", lambda _: self._shut())
        self._ray.close()

    def _shut(self) -> None:
        from ray.util import remove_placement_group

        if self._group is not None:
            remove_placement_group(self._group)  # and its actors
        if self._connected:
            disconnect()


def on_any_machine(plan: Plan) -> Plan:
    """Return a plan with absolute paths, and with the GPU that Ray gives to an actor."""
    device = "cuda" if plan.place.device.startswith("cuda") else plan.place.device
    reference = plan.reference and absolute(plan.reference)
    return replace(plan, model=absolute(plan.model), reference=reference, place=replace(plan.place, device=device))

"""Ray actors that each hold one worker of an engine."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from codots.engine.answers import Answer, answer, value_of
from codots.engine.cluster import needs

if TYPE_CHECKING:
    from codots.engine.worker import Plan

SHIPPED = ("CODOTS_", "HF_", "OMP_", "TOKENIZERS_", "TORCH_", "TRANSFORMERS_")
"""First letters of the environment variables that actors have from the driver."""
WAIT_SECONDS = 1.0
"""Time between two looks at whether a call was abandoned, in seconds."""


class Actor:
    """The process of an actor. It imports torch only after it has the environment variables of the driver."""

    def __init__(self, name: str, environment: dict[str, str]) -> None:
        self.name = name
        os.environ.update(environment)

    def start(self, plan: Plan, learns: bool) -> Answer:
        """Make the worker."""
        return answer(lambda: self._start(plan, learns), self.name)

    def _start(self, plan: Plan, learns: bool) -> None:
        from codots.engine.worker import Worker

        self.worker = Worker(plan, learns=learns)

    def call(self, method: str, *arguments: Any) -> Answer:
        """Call a method of the worker."""
        return answer(lambda: getattr(self.worker, method)(*arguments), self.name)


@dataclass
class Call:
    """A call of an actor, and the reference to its answer."""

    k: int
    """Index of the actor in its crew."""
    ref: Any


class Crew:
    """The actors of one role. An actor runs its calls in order."""

    def __init__(self, role: str, plan: Plan, group: Any, bundles: range) -> None:
        """Start an actor in each of these bundles of a placement group. `ready` waits for them."""
        self.role, self.plan, self.group, self.bundles = role, plan, group, bundles
        self.actors = [self._actor(k) for k in range(len(bundles))]
        self._starts = [Call(k, actor.start.remote(plan, role == "learner")) for k, actor in enumerate(self.actors)]

    def ready(self) -> None:
        """Wait until every actor has its worker, or raise the error of the first that has none."""
        self.finish(self._starts)

    def _actor(self, k: int) -> Any:
        import ray
        from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

        resources, name = needs(self.plan.place.device), f"{self.role} {k}"
        how = {
            "name": f"codots {name} of {self.group.id.hex()[:8]}",
            "num_cpus": resources["CPU"],
            "num_gpus": resources.get("GPU", 0),
            "scheduling_strategy": PlacementGroupSchedulingStrategy(self.group, self.bundles[k]),
        }
        return ray.remote(Actor).options(**how).remote(name, environment())

    def begin(self, method: str, shares: Sequence[tuple[Any, ...]]) -> list[Call]:
        """Call a method of every actor's worker, without waiting. Arguments may be references to results."""
        return [
            Call(k, actor.call.remote(method, *share))
            for k, (actor, share) in enumerate(zip(self.actors, shares, strict=True))
        ]

    def finish(self, calls: Sequence[Call]) -> list[Any]:
        """Return the results of calls, or raise the first one's error when all have ended."""
        import ray

        left = [call.ref for call in calls]
        while left:
            _, left = ray.wait(left, timeout=WAIT_SECONDS)
        return [value_of(self._answer(call)) for call in calls]

    def call(self, method: str, shares: Sequence[tuple[Any, ...]]) -> list[Any]:
        """Call a method of every actor's worker and return the results."""
        return self.finish(self.begin(method, shares))

    def _answer(self, call: Call) -> Answer:
        import ray
        from ray.exceptions import RayError

        try:
            found: Answer = ray.get(call.ref)
        except RayError as error:
            return "error", (RuntimeError, f"{self.role} {call.k} ended: {' '.join(str(error).split())}", "")
        return found


def environment() -> dict[str, str]:
    """Return the environment variables of the driver that actors have too."""
    return {name: value for name, value in os.environ.items() if name.startswith(SHIPPED)}

"""Ray actors that each hold one worker of an engine."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from codots.engine.answers import Answer, answer

if TYPE_CHECKING:
    from codots.engine.group import Group
    from codots.engine.plan import Plan

log = logging.getLogger("codots")
SHIPPED = ("CODOTS_", "GLOO_", "HF_", "NCCL_", "OMP_", "TOKENIZERS_", "TORCH_", "TRANSFORMERS_", "VLLM_")
"""First letters of the environment variables that actors have from the driver."""
BEAT = "beat"
"""Name of the thread of an actor that answers heartbeats."""
LIVES = "lives"
"""Name of the threads of an actor that wait for lives while the actor loads weights."""


class Actor:
    """The process of an actor. It imports torch only after it has the environment variables of the driver."""

    def __init__(self, name: str, environment: dict[str, str]) -> None:
        self.name = name
        self.worker: Any = None
        self.store: Any = None
        """Where the learners of a group meet, in the actor of rank 0."""
        os.environ.update(environment)

    def call(self, method: str, *arguments: Any) -> Answer:
        """Call a method of the worker or, before there is one, of this actor."""
        return answer(lambda: self._call(method, arguments), self.name)

    def _call(self, method: str, arguments: Sequence[Any]) -> Any:
        if self.worker is not None:
            return getattr(self.worker, method)(*arguments)
        return getattr(self, method)(*arguments)

    def start(self, plan: Plan, learns: bool, group: Group | None = None) -> None:
        """Make the worker."""
        if group is None:
            from codots.engine.plan import no_sampler
            from codots.engine.worker import Worker

            self.worker = Worker(replace(plan, make_sampler=no_sampler) if learns else plan, learns=learns)
        else:
            from codots.engine.group import GroupWorker

            self.worker = GroupWorker(plan, group, self.store)

    def meet(self, size: int) -> tuple[str, int]:
        """Open the meeting point of a group in this process, and return its address."""
        import ray

        from codots.engine.group import meeting

        host = ray.util.get_node_ip_address()
        self.store = meeting(host, size)
        return host, self.store.port

    def beat(self) -> None:
        """Show, in a thread of its own, that the process is alive."""


class Sampler(Actor):
    """An actor that rolls out. Ray shows the process by the name of its class."""


class Learner(Actor):
    """An actor that trains."""


def environment() -> dict[str, str]:
    """Return the environment variables of the driver that actors have too."""
    return {name: value for name, value in os.environ.items() if name.startswith(SHIPPED)}

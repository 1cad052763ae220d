"""The Ray actors of one role. A sampler that dies is replaced, and its calls are repeated."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from textwrap import shorten
from time import monotonic
from typing import TYPE_CHECKING, Any

from codots.core.processes import DeadError
from codots.engine.actors import BEAT, LIVES, Learner, Sampler, environment
from codots.engine.answers import Answer, OutOfStepError, value_of
from codots.engine.cluster import needs
from codots.engine.plan import Plan

if TYPE_CHECKING:
    from codots.engine.group import Group

log = logging.getLogger("codots")
WAIT_SECONDS = 1.0
"""Time between two looks at the heartbeats, and at whether a call was abandoned, in seconds."""
HEARTBEAT_SECONDS = 60.0
"""Time in which the process of a running call must show that it is alive, in seconds."""
MESSAGE = 300
"""Maximum number of characters that are shown of a message of Ray."""
PLACE_SECONDS = 120.0
"""Time in which a cluster must have a place for a new actor, in seconds. It may have to notice a lost machine first."""
PATIENCE_SECONDS = 5.0
"""Time in which other learners may fail in the same call, before they count as out of step, in seconds."""
TRIES = 3
"""Number of processes that may die of the same call, or while they start, before the engine gives up."""


@dataclass
class Call:
    """A call of an actor's worker, and the reference to its answer."""

    k: int
    """Index of the actor in its crew."""
    method: str
    arguments: tuple[Any, ...]
    actor: Any = None
    ref: Any = None
    deaths: int = 0
    """Number of actors that died before they answered."""


@dataclass(frozen=True)
class Beat:
    """A heartbeat that was asked for."""

    ref: Any
    since: float


class Crew:
    """The actors of one role. An actor runs its calls in order, but for the rollouts of a plan with lives in flight.

    A sampler that dies is replaced: the new one gets the weights by `renewal`, and the calls without an answer are
    repeated. A learner is not, because its state is lost.
    """

    def __init__(self, role: str, plan: Plan, group: Any, bundles: range) -> None:
        """Start an actor in each of these bundles of a placement group. `ready` waits for them."""
        self.role, self.plan, self.group, self.bundles = role, plan, group, bundles
        self.renewal: list[tuple[str, tuple[Any, ...]]] = []
        """Calls that bring a new actor up to date."""
        self.restarts = 0
        """Number of actors that were replaced."""
        self._beats: dict[int, Beat] = {}
        self._out_of_step = False
        """Whether a learner has failed alone, while the others wait for it in the middle of a call."""
        self.actors = [self._actor(k) for k in range(len(bundles))]
        self._starts = self.begin("start", [(plan, role == "learner", group) for group in self._groups()])

    def _groups(self) -> Sequence[Group | None]:
        """Return the place of each actor in the group that trains one model; a sampler has a whole one."""
        size = len(self.actors)
        if self.role != "learner" or size == 1:
            return [None] * size
        from codots.engine.group import Group

        ((host, port),) = self.finish([self._send(Call(0, "meet", (size,)))])
        return [Group(rank, size, host, port) for rank in range(size)]

    def ready(self) -> None:
        """Wait until every actor has its worker, or raise the error of the first that has none."""
        self.finish(self._starts)

    def begin(self, method: str, shares: Sequence[tuple[Any, ...]]) -> list[Call]:
        """Call a method of every actor's worker, without waiting. Arguments may be references to results."""
        if self._out_of_step:
            raise OutOfStepError("a learner has failed, and the others wait for it")
        return [self._send(Call(k, method, share)) for k, share in enumerate(shares)]

    def finish(self, calls: Sequence[Call]) -> list[Any]:
        """Return the results of calls, or raise the first one's error when all have ended.

        If one of several learners fails, and the others still wait for it after PATIENCE_SECONDS, its error is raised.
        """
        answers: dict[int, Answer] = {}
        waiting, failed, since = {call.ref: call for call in calls}, None, 0.0
        while waiting:
            for call in self._ended(waiting):
                try:
                    answers[id(call)] = _answer_to(call)
                except DeadError as death:
                    if failed:  # why the process has ended
                        value_of(failed)
                    self._repeat(call, death)
                    waiting[call.ref] = call
                    continue
                if failed is None and answers[id(call)][0] == "error" and self.role == "learner":
                    failed, since = answers[id(call)], monotonic()
            if failed and waiting and monotonic() - since > PATIENCE_SECONDS:
                self._out_of_step = True
                value_of(failed)
        return [value_of(answers[id(call)]) for call in calls]

    def call(self, method: str, shares: Sequence[tuple[Any, ...]]) -> list[Any]:
        """Call a method of every actor's worker and return the results."""
        return self.finish(self.begin(method, shares))

    def _send(self, call: Call) -> Call:
        from ray.exceptions import RayError

        call.actor = self.actors[call.k]
        remote = call.actor.call
        if call.method == "rollout" and self.plan.in_flight:
            remote = remote.options(concurrency_group=LIVES)
        try:
            call.ref = remote.remote(call.method, *call.arguments)
        except RayError as error:  # such as arguments that do not fit into the object store
            raise RuntimeError(f"{call.method} cannot be sent to {self.role} {call.k}: {described(error)}") from error
        return call

    def _actor(self, k: int) -> Any:
        import ray
        from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

        devices = self.plan.tensor_parallel if self.role == "sampler" else 1
        resources, name = needs(self.plan.place.device, devices), f"{self.role} {k}"
        how = {
            "name": f"codots {name} of {self.group.id.hex()[:8]}, {self.restarts}",
            "num_cpus": resources["CPU"],
            "num_gpus": resources.get("GPU", 0),
            "scheduling_strategy": PlacementGroupSchedulingStrategy(self.group, self.bundles[k]),
        }
        kind = Learner if self.role == "learner" else Sampler
        groups = {BEAT: 1, LIVES: max(1, self.plan.in_flight)}
        return ray.remote(concurrency_groups=groups)(kind).options(**how).remote(name, environment())

    def _ended(self, waiting: dict[Any, Call]) -> Iterator[Call]:
        """Wait for a second, and yield the calls that have ended. Kill the actors that have no heartbeat."""
        import ray

        ready, _ = ray.wait(list(waiting), timeout=WAIT_SECONDS)
        for ref in ready:
            yield waiting.pop(ref)
        for call in waiting.values():
            if call.actor is self.actors[call.k] and call.method not in ("start", "meet"):
                self._check_beat(call.k)

    def _check_beat(self, k: int) -> None:
        import ray

        beat = self._beats.get(k)
        if beat is None or ray.wait([beat.ref], timeout=0)[0]:
            self._beats[k] = Beat(self._beat(k), monotonic())
        elif monotonic() - beat.since > HEARTBEAT_SECONDS:
            log.warning(f"{self.role} {k} has shown no heartbeat for {HEARTBEAT_SECONDS:g} s; it is killed")
            ray.kill(self.actors[k])

    def _repeat(self, call: Call, death: DeadError) -> None:
        """Call again, on a new actor if the call's own has not been replaced yet."""
        if self.role == "learner":
            raise DeadError(f"learner {call.k} died ({death}); resume the run to continue from its last checkpoint")
        call.deaths += 1
        if call.deaths == TRIES:
            raise DeadError(f"{self.role} {call.k} died {TRIES} times during the same call ({death})")
        if call.actor is self.actors[call.k]:
            self._replace(call.k, death)
        self._send(call)

    def _replace(self, k: int, death: DeadError) -> None:
        """Start another actor and bring it up to date."""
        import ray

        log.warning(f"{self.role} {k} died ({death}); it is started again and repeats its calls")
        last = death
        for _ in range(TRIES):
            self.restarts += 1
            ray.kill(self.actors[k])  # it may only be out of reach, and must not keep its place
            self.actors[k] = self._actor(k)
            self._beats.pop(k, None)
            self._check_placed(k, death)
            try:
                for method, arguments in [("start", (self.plan, False, None)), *self.renewal]:
                    value_of(_answer_to(self._send(Call(k, method, arguments))))
                return
            except DeadError as again:
                last = again
        raise DeadError(f"{self.role} {k} died {TRIES} times while it started ({last})")

    def _check_placed(self, k: int, death: DeadError) -> None:
        """Wait until an actor has a place. Raises RuntimeError if the cluster has none."""
        import ray

        ref, until = self._beat(k), monotonic() + PLACE_SECONDS
        while not ray.wait([ref], timeout=WAIT_SECONDS)[0]:
            if monotonic() > until:
                raise RuntimeError(
                    f"{self.role} {k} died ({death}), and for {PLACE_SECONDS:g} s the cluster has had no room for "
                    "another one; add machines, then resume the run to continue from its last checkpoint"
                )

    def _beat(self, k: int) -> Any:
        """Ask an actor for a heartbeat."""
        return self.actors[k].beat.options(concurrency_group=BEAT).remote()


def _answer_to(call: Call) -> Answer:
    """Wait for the answer to a call. Raises DeadError if there will be none."""
    import ray
    from ray.exceptions import ObjectLostError, OutOfMemoryError, RayActorError, RayError

    while not ray.wait([call.ref], timeout=WAIT_SECONDS)[0]:
        pass  # an abandoned call ends here
    try:
        found: Answer = ray.get(call.ref)
        return found
    except (RayActorError, ObjectLostError, OutOfMemoryError) as error:
        if getattr(error, "actor_id", None) in (None, call.actor._actor_id.hex()):
            raise DeadError(cause_of(error)) from error
        return "error", (RuntimeError, f"the actor of an argument of {call.method} died ({cause_of(error)})", "")
    except RayError as error:
        return "error", (RuntimeError, f"{call.method} failed: {described(error)}", "")


def cause_of(error: Exception) -> str:
    """Return why an actor died, in a few words of the message of Ray."""
    from ray.exceptions import ActorUnavailableError

    if isinstance(error, ActorUnavailableError):
        return "its process or machine cannot be reached"
    text = str(error).strip()
    patterns = (
        r"(killed due to the node running low on memory)",
        r"Worker exit detail: (.*?)\.(\s|$)",
        r"The actor is dead because (.*?)\.(\s|$)",
    )
    found = next(filter(None, (re.search(pattern, text) for pattern in patterns)), None)
    return found[1] if found else text.splitlines()[-1].rstrip(".")


def described(error: Exception) -> str:
    """Return the message of an error of Ray in one line, without the traceback of an actor."""
    return shorten(str(getattr(error, "cause", None) or error), MESSAGE, placeholder="...")

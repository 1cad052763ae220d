"""HTTP routes of worlds: their versions and tasks, and how tasks ended."""

from __future__ import annotations

import asyncio
from dataclasses import asdict, replace
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Query, Request
from pydantic import BaseModel, ConfigDict, Field

from codots.agent import access
from codots.agent.blame import blame
from codots.agent.gateway import Gateway
from codots.agent.lift import LAST, lift_of
from codots.agent.quarantine import adopt, drop, list_held
from codots.agent.records import Outcome, Task, World, as_json, diff
from codots.agent.updates import opened_world
from codots.context.rewrite import Rewrite

routes = APIRouter(prefix="/v1/worlds", tags=["worlds"], dependencies=[Depends(access.in_scope)])
MAX_NUMBER = 2**31 - 1
"""Largest integer that every database can hold."""
MAX_WAIT = 600.0
"""Longest time that a request may wait for an update, in seconds."""


async def gateway_of(request: Request) -> Gateway:
    """Return the gateway of the server."""  # async, since FastAPI calls plain functions in a thread
    found: Gateway = request.app.state.gateway
    return found


Service = Annotated[Gateway, Depends(gateway_of)]
Limit = Annotated[int, Query(ge=1, le=10_000, description="Maximum number of the newest ones.")]
Number = Annotated[int, Path(ge=0, le=MAX_NUMBER)]
Compared = Annotated[int, Query(ge=0, le=MAX_NUMBER, description="Number of a version.")]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class NewWorld(_Strict):
    """A world to make."""

    strategy: str | None = None
    """How contexts are updated; by default, as the profile of the model says."""
    bounds: tuple[float, float] | None = None
    """Lowest and highest reward; by default 0 and 1."""


class NewTask(_Strict):
    """A task to start."""

    description: str
    rules: str = ""
    name: str | None = None


class Ended(_Strict):
    """How a task ended."""

    reward: Annotated[float, Field(strict=True)] | None = None
    feedback: str = ""
    outcome: str = ""


class Back(_Strict):
    """The version to go back to."""

    version: int = Field(ge=0, le=MAX_NUMBER)


class Adoption(_Strict):
    """How a context that was held back is adopted."""

    replace: bool = False
    """Whether it takes the place of a context that has changed since."""


def world_json(world: World) -> dict[str, Any]:
    """Return a world as JSON, with the name of its strategy."""
    return as_json(world) | {"strategy": {"strategy": Rewrite.name} | world.strategy}


def task_json(task: Task) -> dict[str, Any]:
    """Return a task as JSON."""
    return as_json(replace(task, finish=None)) | {"finish": task.finish and as_json(task.finish)}


@routes.get("")
def list_worlds(service: Service) -> dict[str, Any]:
    """List the worlds that the caller may read."""
    seen = [world for world in service.store.worlds() if access.caller.get().allows(world.name, write=False)]
    return {"worlds": list(map(world_json, seen))}


@routes.put("/{world}")
def make_world(world: str, service: Service, new: NewWorld | None = None) -> dict[str, Any]:
    """Make a world, unless it exists. One that exists with other settings than the given ones is an error."""
    given = new or NewWorld()
    profile = service.updater.model.profile
    return world_json(opened_world(service.store, profile, world, given.strategy, given.bounds))


@routes.get("/{world}")
def read_world(world: str, service: Service) -> dict[str, Any]:
    """Return a world with its newest context. Calls no model."""
    return world_json(service.store.world(world)) | {"head": as_json(service.store.head(world))}


@routes.get("/{world}/versions")
def list_versions(world: str, service: Service, limit: Limit = 100) -> dict[str, Any]:
    """List the newest versions of the context, oldest first."""
    return {"versions": list(map(as_json, service.store.history(world, limit)))}


@routes.get("/{world}/versions/{number}")
def read_version(world: str, number: Number, service: Service) -> dict[str, Any]:
    """Return one version."""
    return as_json(service.store.version(world, number))


@routes.get("/{world}/diff")
def compare(world: str, a: Compared, b: Compared, service: Service) -> dict[str, Any]:
    """Compare two versions line by line."""
    return {"diff": diff(service.store.version(world, a), service.store.version(world, b))}


@routes.get("/{world}/blame")
def read_blame(
    world: str,
    service: Service,
    version: Annotated[int | None, Query(ge=0, le=MAX_NUMBER, description="By default, the newest one.")] = None,
) -> dict[str, Any]:
    """Return the lines of a context, each with the version and the task that taught it."""
    return {"lines": list(map(asdict, blame(service.store, world, version)))}


@routes.post("/{world}/rollback")
def roll_back(world: str, back: Back, service: Service) -> dict[str, Any]:
    """Add an earlier context as the newest version."""
    return as_json(service.store.rollback(world, back.version))


@routes.get("/{world}/quarantine")
def list_quarantine(
    world: str,
    service: Service,
    decided: Annotated[bool, Query(description="Whether to list those that were adopted or dropped, too.")] = False,
) -> dict[str, Any]:
    """List the contexts that the guard holds back, oldest first."""
    return {"held": list(map(as_json, list_held(service.store, world, decided)))}


@routes.post("/{world}/quarantine/{number}/adopt")
def adopt_held(world: str, number: Number, service: Service, how: Adoption | None = None) -> dict[str, Any]:
    """Make a context that was held back the newest version."""
    return as_json(adopt(service.store, world, number, (how or Adoption()).replace))


@routes.post("/{world}/quarantine/{number}/drop")
def drop_held(world: str, number: Number, service: Service) -> dict[str, Any]:
    """Decide that a context which was held back stays out."""
    return as_json(drop(service.store, world, number))


@routes.get("/{world}/lift")
def read_lift(world: str, service: Service, last: Limit = LAST) -> dict[str, Any]:
    """Compare rewards with and without the context, in the newest tasks whose arm was drawn."""
    return lift_of(service.store, world, last).as_json()


@routes.get("/{world}/tasks")
def list_tasks(world: str, service: Service, limit: Limit = 100) -> dict[str, Any]:
    """List the newest tasks, newest first."""
    return {"tasks": list(map(task_json, service.store.tasks(world, limit)))}


@routes.post("/{world}/tasks", status_code=201)
def start_task(world: str, new: NewTask, service: Service) -> dict[str, Any]:
    """Start a task; it is given the newest context, or none (`arm`)."""
    task, context = service.start(world, new.description, new.rules, new.name)
    return task_json(task) | {"context": context}


@routes.get("/{world}/tasks/{task}")
def read_task(world: str, task: str, service: Service) -> dict[str, Any]:
    """Return a task with its turns, and the version that learned from it."""
    found, turns = service.store.task(world, task), service.store.turns(world, task)
    after = found.finish and service.store.version_after(world, found.finish.number)
    return task_json(found) | {"turns": list(map(asdict, turns)), "learned_by": after and after.number}


@routes.post("/{world}/tasks/{task}/finish")
async def finish_task(
    world: str,
    task: str,
    ended: Ended,
    service: Service,
    wait: Annotated[float, Query(ge=0, le=MAX_WAIT, description="Seconds to wait for the update.")] = 0.0,
) -> dict[str, Any]:
    """End a task. The answer means that the outcome is on disk; the context is updated in the background.

    `number` is the place of the task in the order of the updates. `version` is the version that learned from it, or
    null if it is not written yet; `error` says why the update failed. It stays due then.
    """
    told = Outcome(ended.reward, ended.feedback, ended.outcome)
    number = (await asyncio.to_thread(service.finish, world, task, told)).number
    return {"world": world, "task": task, "number": number, **await service.version_after(world, number, wait)}

"""The agent: a model with a context that outlives the process."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

from codots.agent.blame import Line, blame
from codots.agent.guard import GUARD, Guard
from codots.agent.lift import LAST, Lift, lift_of
from codots.agent.model import ServedModel
from codots.agent.quarantine import adopt, drop, list_held
from codots.agent.records import Held, Outcome, Task, Version, check_share, diff
from codots.agent.store import Store
from codots.agent.task import AgentTask, Played, Update
from codots.agent.updates import Updater, opened_world, strategy_in
from codots.domains import base as domain


class Agent:
    """A model that solves tasks of one world, is told how they went, and rewrites its context after each.

    `model` is what `codots eval` takes: a model or run folder, an adapter, `base` or `openai:NAME`. `store` is a file
    or a URL of PostgreSQL. A new world begins with an empty context; `strategy` says how it is updated, by default as
    the model's profile says. Updates that an earlier process left run now. Further options are those of `OpenModel`.
    """

    def __init__(
        self,
        model: str | Path,
        store: str | Path = "agent.db",
        world: str = "default",
        strategy: str | None = None,
        *,
        bounds: tuple[float, float] | None = None,
        null_share: float = 0.0,
        guard: Guard | None = GUARD,
        **options: Any,
    ) -> None:
        """`bounds` are the lowest and the highest reward, by default 0 and 1.

        `null_share` is the fraction of tasks that get no context, so that `lift` can tell what contexts are worth.
        `guard` decides which updates are held back for a person; None adopts all.
        Raises ConflictError if the world exists with another strategy or other bounds.
        """
        check_share(null_share)
        with ExitStack() as exits:
            self._model = ServedModel(model, **options)
            exits.callback(self._model.close)
            self._store = exits.enter_context(Store(store))
            exits.callback(self._model.close)  # before the store, which its updates write to
            opened_world(self._store, self._model.profile, world, strategy, bounds)
            self.world, self._strategy = world, strategy_in(self._store, world)
            self._null_share = null_share
            self._exits = exits.pop_all()
        self._updater = Updater(self._store, self._model, guard)
        self._updater.wake(world)

    def task(
        self,
        description: str | domain.Task,
        *,
        rules: str = "",
        name: str | None = None,
        memory: object | None = None,
    ) -> AgentTask:
        """Start a task with the newest context, or without it (`null_share`).

        `description` is the first observation, and `rules` come before the context in the system prompt. A task of a
        domain has both; `memory` is that of its life (`Domain.make_memory`).
        """
        if not isinstance(description, domain.Task):
            return self._start(description, rules, name)
        if rules:
            raise ValueError("a task of a domain has its own rules; expected rules with a description only")
        of, style = description.domain, self._model.profile.fits(description.domain.id).style
        env = description.env(style=style, memory=memory)
        task = self._start(env.observe(), of.rules_text(description, style), name)
        task.played = Played(of, env)
        return task

    def _start(self, description: str, rules: str, name: str | None) -> AgentTask:
        self._model.check_open()
        stored = self._store.start(self.world, description, rules, name, self._null_share)
        given = self._store.given(stored)
        return AgentTask(self._store, self._model, self._updater, stored, given, self._strategy)

    def finish(self, task: str, reward: float | None = None, feedback: str = "") -> Update:
        """End an open task by its name, such as one that an earlier process started."""
        self._model.check_open()
        finish = self._store.finish(self.world, task, Outcome(reward, feedback))
        self._updater.wake(self.world)
        return Update(self.world, finish.number, self._updater)

    @property
    def context(self) -> str:
        """The newest context."""
        return self._store.head(self.world).context

    def history(self) -> list[Version]:
        """Return all versions of the context, oldest first."""
        return self._store.history(self.world)

    def tasks(self, limit: int = 100) -> list[Task]:
        """Return the newest tasks, newest first."""
        return self._store.tasks(self.world, limit)

    def lift(self, last: int = LAST) -> Lift:
        """Return what the context is worth: rewards with it minus rewards without it, in the newest drawn tasks."""
        return lift_of(self._store, self.world, last)

    def diff(self, a: int, b: int) -> str:
        """Return the differences between two versions, line by line."""
        return diff(self._store.version(self.world, a), self._store.version(self.world, b))

    def blame(self) -> list[Line]:
        """Return the lines of the newest context, each with the version and the task that taught it."""
        return blame(self._store, self.world)

    def quarantine(self) -> list[Held]:
        """Return the contexts that the guard holds back and that wait for a decision, oldest first."""
        return list_held(self._store, self.world)

    def adopt(self, version: int, replace: bool = False) -> Version:
        """Make the context that was held back in a version the newest one.

        Raises ConflictError if the context has changed since; `replace` puts it in place of the newest one then.
        """
        return adopt(self._store, self.world, version, replace)

    def drop(self, version: int) -> Held:
        """Decide that the context which was held back in a version stays out."""
        return drop(self._store, self.world, version)

    def rollback(self, version: int) -> Version:
        """Go back to the context of an earlier version, which is added as the newest one."""
        return self._store.rollback(self.world, version)

    def fork(self, world: str) -> Agent:
        """Return an agent in a new world that starts with this context. It shares the model and the store."""
        self._store.fork(self.world, world)
        made = object.__new__(Agent)
        vars(made).update(vars(self), world=world, _exits=ExitStack())
        return made

    def close(self) -> None:
        """Close the model and the store, unless this is a fork. Updates that are not done run at the next start."""
        self._exits.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

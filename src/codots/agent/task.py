"""One task of an agent, from its prompt to its outcome."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, Self

from codots.agent.model import ServedModel
from codots.agent.records import Outcome, Task, Version, check_is_text
from codots.agent.store import Store
from codots.agent.updates import Updater, stream_names
from codots.context.rewrite import Rewrite, Turn
from codots.core.deadline import within
from codots.domains.base import Domain, Env, Step
from codots.rollout.steps import SolveSteps
from codots.sampler.base import Session
from codots.sampler.scripted import scripted


@dataclass(frozen=True)
class Update:
    """An update that follows a finished task."""

    world: str
    number: int
    """Number of the finish that it learns from."""
    updater: Updater

    def wait(self, timeout: float | None = None) -> Version:
        """Return the version of the context that learned from the task.

        Raises TimeoutError after `timeout` seconds, and the error of a model that gives no answer. The update stays due
        in both cases.
        """
        try:
            return self.updater.wait(self.world, self.number, timeout)
        except TimeoutError as error:
            raise TimeoutError(f"no new version of {self.world} within {timeout:g} s; the update goes on") from error


@dataclass(frozen=True)
class Played:
    """A task of a domain, as its environment plays it."""

    domain: Domain
    env: Env


class AgentTask:
    """One task, which `finish` ends. A `with` block that ends without it leaves the task open.

    Replies come from the agent's model (`reply`), from elsewhere (`record`), or, for a task of a domain, from `run`.
    """

    def __init__(
        self, store: Store, model: ServedModel, updater: Updater, stored: Task, context: str, strategy: Rewrite
    ) -> None:
        self.name, self.version = stored.name, stored.version
        self._store, self._model, self._updater, self._stored = store, model, updater, stored
        params = model.profile.episode_params()
        self._steps = SolveSteps(stored.number, stored.rules, stored.description, context, strategy, params)
        prompt = strategy.solve(stored.rules, context, stored.description, params.style)
        self.messages = [{"role": "system", "content": prompt.system}, {"role": "user", "content": prompt.user}]
        """The chat so far, with the context in place."""
        self.played: Played | None = None
        """The environment, for a task of a domain."""
        self._last: Step | None = None
        self._exact, self._ended = True, False
        self._ids: list[int] = []
        self._session: Session | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        session, self._session = self._session, None
        if session is not None:
            self._model.call(session.__aexit__(None, None, None))

    def reply(self, observation: str | None = None) -> str:
        """Return the next reply of the agent's model, after `observe(observation)` if an observation is given."""
        if observation is not None:
            self.observe(observation)
        self._check_asks()
        return self._ask()

    def record(self, reply: str) -> None:
        """Record a reply to `messages` that was sampled elsewhere."""
        check_is_text(reply, "reply")
        self._check_asks()
        self._steps.next_ids(self._model.render)
        self._exact = False
        self._steps.reply(scripted(reply, self._model.render), reply)
        self._said(reply)

    def observe(self, observation: str) -> None:
        """Add what the world said to the last reply. Raises ValueError if it has answered that before."""
        self._check_open()
        check_is_text(observation, "observation")
        if self._steps.due != "observe":
            raise ValueError("an observation answers a reply, and none is waiting for it; expected reply() or record()")
        self._steps.observe(Step(observation, 0.0, False))
        self.messages.append({"role": "user", "content": observation})

    def run(self) -> Step:
        """Let the model play the environment of a domain's task, and return the last step."""
        if self.played is None:
            raise ValueError("only a task of a domain has an environment; expected reply() or record()")
        while not self._steps.done:
            step = self._step(self._ask())
            self._steps.observe(step)
            self._last = step
            if not step.done:
                self.messages.append({"role": "user", "content": step.observation})
        assert self._last is not None
        return self._last

    def finish(self, reward: float | None = None, feedback: str = "", outcome: str = "") -> Update:
        """End the task, and return the update that follows, once the outcome is durable.

        After `run`, reward and feedback default to those of the environment. `outcome` answers the last reply. Raises
        ValueError for a reward outside of the bounds of the world, and if the task has ended before.
        """
        self._model.check_open()
        told = self._outcome(reward, feedback, outcome)
        finish = self._store.finish(self._stored.world, self.name, told)
        self._ended = True
        self._updater.wake(self._stored.world)
        return Update(self._stored.world, finish.number, self._updater)

    def _outcome(self, reward: float | None, feedback: str, outcome: str) -> Outcome:
        steps, last, hides = deepcopy(self._steps), self._last, False
        if last is not None and last.done:
            reward, feedback = last.reward if reward is None else reward, feedback or last.feedback
            outcome, hides = last.observation, self.played is not None and not self.played.domain.reveals_reward
        elif steps.due == "observe":
            steps.observe(Step(outcome, reward or 0.0, True, feedback, "finished"))
        episode = asdict(steps.finish()) if self._exact and steps.done else None
        return Outcome(reward, feedback, outcome, not hides, episode=episode)

    def _check_open(self) -> None:
        if self._ended:
            raise ValueError(f"the task {self.name} is finished; expected an open task")

    def _check_asks(self) -> None:
        """Raise ValueError unless the model or another program is asked for a reply."""
        self._check_open()
        if self._steps.due == "observe":
            raise ValueError("the last reply has no answer yet; expected observe(), or finish()")

    def _ask(self) -> str:
        """Sample a reply. After an error of the model, the same ids are sent again."""
        if self._steps.due == "next_ids":
            self._ids = self._steps.next_ids(self._model.render)
        sampled = self._model.call(self._sample())
        text = self._model.render.text(sampled.ids)
        action = self._steps.reply(sampled, text)
        self._said(text)
        return action

    async def _sample(self) -> Any:
        self._model.ask_again()
        if self._session is None:
            names = (*stream_names(self._stored.world), self._stored.number, "solve")
            self._session = await self._model.sampler.session(names).__aenter__()
        return await self._session.sample(self._ids, self._steps.sampling)

    def _step(self, action: str) -> Step:
        assert self.played is not None
        domain, act = self.played.domain, partial(self.played.env.step, action)
        return within(domain.step_timeout, f"a step of {domain.id}", act) if domain.blocking else act()

    def _said(self, text: str) -> None:
        """Keep a turn: what was said is stored at once, so that a later process can finish the task."""
        turn = Turn(self.messages[-1]["content"], text)
        self._store.record(self._stored.world, self.name, len(self.messages) // 2 - 1, turn)
        self.messages.append({"role": "assistant", "content": text})

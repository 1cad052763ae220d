"""A life as a state machine, one call at a time: which ids a sampler reads next, and what its answer leads to.

Nothing here samples, waits, draws or holds an environment: the caller carries ids to a sampler and texts to an
environment, at once or days later. All objects can be pickled between two calls.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from codots.context.rewrite import Prompt, Strategy, Trajectory, Turn
from codots.core.transcript import Sampled, StopReason, Transcript
from codots.domains.base import Step
from codots.model.renderer import Render, without_thought
from codots.rollout.profile import EpisodeParams
from codots.sampler.base import SamplingParams

EpisodeKind = Literal["solve", "update"]
FORMAT_PENALTY = 0.1
"""What an update loses whose reply cannot be read (arXiv 2606.20002, table 1)."""
NOT_OVER = Step("", 0.0, done=False)


@dataclass(frozen=True)
class Own:
    """A life that writes its own contexts."""

    strategy: Strategy


@dataclass(frozen=True)
class Given:
    """A life that is handed a context for each position, and writes none."""

    strategy: Strategy
    contexts: tuple[str, ...]


@dataclass(frozen=True)
class Episode:
    """One solve or update that was played."""

    kind: EpisodeKind
    position: int
    reward: float
    context: str
    """What it was given."""
    written: str | None
    """What an update left behind."""
    stop: str
    """How it ended, in the domain's word; of an update: `ok` or `malformed`."""
    turns: tuple[Turn, ...]
    outcome: str
    """The answer to the last action."""
    transcript: Transcript


class _Steps:
    """What a solve and an update share: ids to read, and an answer to each."""

    def __init__(self, position: int, context: str, prompt: Prompt, sampling: SamplingParams) -> None:
        self.position, self.context = position, context
        self.sampling = sampling
        """How to sample every reply."""
        self.due = "next_ids"
        """The call that comes next; any other raises RuntimeError."""
        self.transcript = Transcript()
        self._prompt = prompt
        self._asked, self._stop = prompt.user, StopReason.STOP
        self._turns: list[Turn] = []
        self._ids: list[int] = []

    @property
    def done(self) -> bool:
        """Whether only `finish` is left."""
        return self.due == "finish"

    def next_ids(self, render: Render) -> list[int]:
        """Give the new ids that the sampler reads: the opening, later one turn each time."""
        self._check("next_ids")
        if self._turns:
            self._ids = render.turn(self._asked, self._stop)
        else:
            self._ids = render.opening(self._prompt.system, self._prompt.user)
        self.due = "reply"
        return self._ids

    def _answer(self, sampled: Sampled, text: str) -> str:
        self._check("reply")
        if sampled.stop is not StopReason.FULL or sampled.ids:  # else the sampler had no room to read
            self.transcript.read(self._ids)
            self.transcript.wrote(sampled)
        self._turns.append(Turn(self._asked, text))
        self._stop = sampled.stop
        return without_thought(text)

    def _check(self, call: str) -> None:
        if call != self.due:
            raise _out_of_order(call, self.due)


class SolveSteps(_Steps):
    """One task: `next_ids`, `reply` and `observe` in turns until it is `done`, then `finish`."""

    def __init__(
        self, position: int, rules: str, observation: str, context: str, strategy: Strategy, params: EpisodeParams
    ) -> None:
        super().__init__(position, context, strategy.solve(rules, context, observation, params.style), params.solve)
        self.rules, self._asked = rules, observation
        self._last = NOT_OVER

    def reply(self, sampled: Sampled, text: str) -> str:
        """Record a reply, whose ids decode to `text`; give the action, which is the text after any thoughts."""
        action = self._answer(sampled, text)
        self.due = "observe"
        return action

    def observe(self, step: Step) -> None:
        """Take in the environment's answer to the action; its view is not read."""
        self._check("observe")
        self._asked = step.observation
        if step.done:
            self._last = Step(step.observation, step.reward, True, step.feedback, step.stop)  # a view may not pickle
        self.due = "finish" if step.done else "next_ids"

    def finish(self) -> Episode:
        """Give the finished episode."""
        self._check("finish")
        last, turns = self._last, tuple(self._turns)
        return Episode(
            "solve",
            self.position,
            last.reward,
            self.context,
            None,
            last.stop or "done",
            turns,
            last.observation,
            self.transcript,
        )

    def trajectory(self, reveals_reward: bool) -> Trajectory:
        """Give the finished episode as an update reads it."""
        if not self.done:
            raise _out_of_order("trajectory", self.due)
        last = self._last
        reward = last.reward if reveals_reward else None
        return Trajectory(self.rules, tuple(self._turns), last.observation, reward, last.feedback)


class UpdateSteps(_Steps):
    """One rewrite of the context: `next_ids`, `reply`, then `finish`."""

    def __init__(
        self, position: int, trajectory: Trajectory, context: str, strategy: Strategy, params: EpisodeParams
    ) -> None:
        super().__init__(position, context, strategy.prompt(trajectory, context, params.style), params.update)
        self._strategy = strategy
        self.written = context
        """The new context, once there is a reply."""
        self._failure: str | None = None

    def reply(self, sampled: Sampled, text: str) -> str:
        """Record the reply, whose ids decode to `text`, and read the context in it; give its words without thoughts."""
        said = self._answer(sampled, text)
        parsed = self._strategy.parse(said, self.context)
        self.written, self._failure = parsed.context, parsed.failure
        self.due = "finish"
        return said

    def finish(self) -> Episode:
        """Give the finished episode; a reply that could not be read is fined."""
        self._check("finish")
        reward, stop = (0.0, "ok") if self._failure is None else (-FORMAT_PENALTY, "malformed")
        turns, outcome = tuple(self._turns), self._failure or ""
        return Episode(
            "update", self.position, reward, self.context, self.written, stop, turns, outcome, self.transcript
        )


class LifeSteps:
    """The order of a life: `solve` and `update` in turns, each episode finished before the next is opened.

    `tasks` is how many tasks there are, after the last of which nothing is rewritten; None where the life has no end.
    """

    def __init__(self, contexts: Own | Given, params: EpisodeParams, tasks: int | None = None) -> None:
        self.contexts, self.params, self.tasks = contexts, params, tasks
        self.episode: SolveSteps | UpdateSteps | None = None
        """What was opened last, None before the first and where nothing is rewritten."""
        self._context = contexts.strategy.initial()

    @property
    def due(self) -> str:
        """The call that comes next, here or on the episode."""
        if self.episode is None:
            return "solve"
        if not self.episode.done:
            return self.episode.due
        return "update" if isinstance(self.episode, SolveSteps) else "solve"

    def solve(self, position: int, rules: str, observation: str) -> SolveSteps:
        """Open a task with the context that is given for its position, or was written last."""
        if self.due != "solve":
            raise _out_of_order("solve", self.due)
        if isinstance(self.contexts, Given):
            self._context = self.contexts.contexts[position]
        elif isinstance(self.episode, UpdateSteps):
            self._context = self.episode.written
        self.episode = SolveSteps(position, rules, observation, self._context, self.contexts.strategy, self.params)
        return self.episode

    def update(self, reveals_reward: bool) -> UpdateSteps | None:
        """Open the rewrite after a task; None where contexts are given, and after the last task."""
        solved = self.episode
        if not isinstance(solved, SolveSteps) or not solved.done:
            raise _out_of_order("update", self.due)
        if isinstance(self.contexts, Given) or solved.position + 1 == self.tasks:
            self.episode = None
            return None
        trajectory, strategy = solved.trajectory(reveals_reward), self.contexts.strategy
        self.episode = UpdateSteps(solved.position, trajectory, solved.context, strategy, self.params)
        return self.episode


def _out_of_order(call: str, due: str) -> RuntimeError:
    return RuntimeError(f"{call} was called out of order; expected {due}")

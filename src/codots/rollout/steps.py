"""A life as a state machine: each call returns the next token ids for the sampler, or records a reply.

Nothing here samples, waits, draws random numbers or holds an environment: the caller passes ids to a sampler and text
to an environment, immediately or days later. All objects can be pickled between two calls.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

from codots.context.record import Count, Recorder
from codots.context.rewrite import Prompt, Strategy, Trajectory, Turn
from codots.core.rng import digest
from codots.core.transcript import Sampled, StopReason, Transcript
from codots.domains.base import Step
from codots.model.renderer import Render, without_thought
from codots.rollout.profile import EpisodeParams
from codots.sampler.base import SamplingParams

EpisodeKind = Literal["solve", "update"]
STOPPED = "skipped"
"""Stop word of an attempt that was not made, because an earlier one solved the task."""
FORMAT_PENALTY = 0.1
"""Penalty of an update whose reply cannot be parsed (arXiv 2606.20002, table 1)."""
NOT_OVER = Step("", 0.0, done=False)


@dataclass(frozen=True)
class Own:
    """Contexts of the life itself, written by the model or, with a `Recorder`, recorded without it."""

    strategy: Strategy | Recorder


@dataclass(frozen=True)
class Given:
    """One given context per position; a life with given contexts has no updates."""

    strategy: Strategy | Recorder
    contexts: tuple[str, ...]


@dataclass(frozen=True)
class Episode:
    """One finished solve or update."""

    kind: EpisodeKind
    position: int
    reward: float
    context: str
    """Context in the prompt."""
    written: str | None
    """New context of an update, or None for a solve."""
    stop: str
    """How the episode ended: the domain's stop word for a solve, `ok` or `malformed` for an update."""
    turns: tuple[Turn, ...]
    outcome: str
    """Observation after the last action of a solve, or parse failure of an update (empty if the reply was parsed)."""
    transcript: Transcript
    ended: str = StopReason.STOP.value
    """How the last reply ended: `stop` by itself, `length` at the maximum of its tokens, `full` for lack of room."""
    prompt: dict[str, Any] | None = None
    """What `prompt_record` returns for the prompt. None in checkpoints of earlier versions."""


def stopped(solved: Episode, position: int) -> Episode:
    """Return the attempt at a later position that a success ended: the same reward, and no tokens."""
    return replace(solved, position=position, stop=STOPPED, turns=(), outcome="", transcript=Transcript())


def prompt_record(prompt: Prompt, style: str, strategy: Strategy | Recorder) -> dict[str, Any]:
    """Return what re-scoring needs: the prompt style, the settings of the strategy, and a hash of the prompt."""
    return {"style": style, **strategy.settings(), "hash": f"{digest(prompt.system, prompt.user):032x}"}


class _Steps:
    """Base class of a solve and an update."""

    def __init__(
        self,
        position: int,
        context: str,
        prompt: Prompt,
        strategy: Strategy | Recorder,
        style: str,
        sampling: SamplingParams,
    ) -> None:
        self.position, self.context = position, context
        self.strategy, self.style = strategy, style
        self.sampling = sampling
        """Sampling parameters of every reply."""
        self.due = "next_ids"
        """Name of the method to call next. Any other call raises RuntimeError."""
        self.transcript = Transcript()
        self._prompt = prompt
        self._message, self._stop = prompt.user, StopReason.STOP
        self._turns: list[Turn] = []
        self._ids: list[int] = []

    @property
    def done(self) -> bool:
        """Whether `finish` is the only remaining call."""
        return self.due == "finish"

    def next_ids(self, render: Render) -> list[int]:
        """Return the new token ids for the sampler: the opening at the first call, then one user turn per call."""
        self._check("next_ids")
        if self._turns:
            self._ids = render.turn(self._message, self._stop)
        else:
            self._ids = render.opening(self._prompt.system, self._prompt.user)
        self.due = "reply"
        return self._ids

    def _record(self, sampled: Sampled, text: str) -> str:
        self._check("reply")
        if sampled.stop is not StopReason.FULL or sampled.ids:  # otherwise the prompt did not fit
            self.transcript.read(self._ids)
            self.transcript.wrote(sampled)
        self._turns.append(Turn(self._message, text))
        self._stop = sampled.stop
        return without_thought(text)

    def _check(self, call: str) -> None:
        if call != self.due:
            raise _out_of_order(call, self.due)


class SolveSteps(_Steps):
    """One task: `next_ids`, `reply` and `observe` repeatedly until `done`, then `finish`."""

    def __init__(
        self,
        position: int,
        rules: str,
        observation: str,
        context: str,
        strategy: Strategy | Recorder,
        params: EpisodeParams,
    ) -> None:
        prompt = strategy.solve(rules, context, observation, params.style)
        super().__init__(position, context, prompt, strategy, params.style, params.solve)
        self.rules, self._message = rules, observation
        self._last = NOT_OVER

    def reply(self, sampled: Sampled, text: str) -> str:
        """Record a reply, given as ids and as decoded text, and return the action: the text after any thinking."""
        action = self._record(sampled, text)
        self.due = "observe"
        return action

    def observe(self, step: Step) -> None:
        """Record the environment's step, except the view."""
        self._check("observe")
        self._message = step.observation
        if step.done:
            self._last = Step(step.observation, step.reward, True, step.feedback, step.stop)  # views may not pickle
        self.due = "finish" if step.done else "next_ids"

    def finish(self) -> Episode:
        """Return the finished episode."""
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
            self._stop.value,
            prompt_record(self._prompt, self.style, self.strategy),
        )

    def trajectory(self, reveals_reward: bool) -> Trajectory:
        """Return the finished episode as input of an update."""
        if not self.done:
            raise _out_of_order("trajectory", self.due)
        last = self._last
        reward = last.reward if reveals_reward else None
        return Trajectory(self.rules, tuple(self._turns), last.observation, reward, last.feedback)


class UpdateSteps(_Steps):
    """One update of the context: `next_ids`, `reply`, then `finish`."""

    def __init__(
        self, position: int, trajectory: Trajectory, context: str, strategy: Strategy, params: EpisodeParams
    ) -> None:
        prompt = strategy.prompt(trajectory, context, params.style)
        super().__init__(position, context, prompt, strategy, params.style, params.update)
        self._parse = strategy.parse
        self.written = context
        """The old context until the reply is recorded, then the parsed one."""
        self._failure: str | None = None

    def reply(self, sampled: Sampled, text: str) -> str:
        """Record a reply, given as ids and as decoded text, and parse the new context.

        Return the text after any thinking.
        """
        answer = self._record(sampled, text)
        parsed = self._parse(answer, self.context)
        self.written, self._failure = parsed.context, parsed.failure
        self.due = "finish"
        return answer

    def finish(self) -> Episode:
        """Return the finished episode. The reward is 0, or -FORMAT_PENALTY if the reply was malformed."""
        self._check("finish")
        reward, stop = (0.0, "ok") if self._failure is None else (-FORMAT_PENALTY, "malformed")
        return Episode(
            "update",
            self.position,
            reward,
            self.context,
            self.written,
            stop,
            tuple(self._turns),
            self._failure or "",
            self.transcript,
            self._stop.value,
            prompt_record(self._prompt, self.style, self.strategy),
        )


class LifeSteps:
    """A life: `solve` and `update` alternate, and each episode is finished before the next one is opened.

    `tasks` is the number of tasks; the last task has no update. None means no limit.
    """

    def __init__(self, contexts: Own | Given, params: EpisodeParams, tasks: int | None = None) -> None:
        self.contexts, self.params, self.tasks = contexts, params, tasks
        self.episode: SolveSteps | UpdateSteps | None = None
        """The last opened episode. None before the first task, and after a task that has no update."""
        self._context = contexts.strategy.initial()

    @property
    def due(self) -> str:
        """Name of the method to call next, either on this object or on `episode`."""
        if self.episode is None:
            return "solve"
        if not self.episode.done:
            return self.episode.due
        return "update" if isinstance(self.episode, SolveSteps) else "solve"

    def solve(self, position: int, rules: str, observation: str) -> SolveSteps:
        """Open a task with the context given for its position or, if none are given, the last one written."""
        if self.due != "solve":
            raise _out_of_order("solve", self.due)
        if isinstance(self.contexts, Given):
            self._context = self.contexts.contexts[position]
        elif isinstance(self.episode, UpdateSteps):
            self._context = self.episode.written
        self.episode = SolveSteps(position, rules, observation, self._context, self.contexts.strategy, self.params)
        return self.episode

    def update(self, reveals_reward: bool, count: Count = len) -> UpdateSteps | None:
        """Open the update after a task. Returns None if no model writes the context, or after the last task.

        `count` returns the number of tokens of a text, by which a `Recorder` keeps its budget; the default is the
        number of characters.
        """
        solved = self.episode
        if not isinstance(solved, SolveSteps) or not solved.done:
            raise _out_of_order("update", self.due)
        if isinstance(self.contexts, Given) or solved.position + 1 == self.tasks:
            self.episode = None
            return None
        trajectory, strategy = solved.trajectory(reveals_reward), self.contexts.strategy
        if isinstance(strategy, Recorder):
            self._context, self.episode = strategy.record(trajectory, solved.context, self.params.style, count), None
            return None
        self.episode = UpdateSteps(solved.position, trajectory, solved.context, strategy, self.params)
        return self.episode


def _out_of_order(call: str, due: str) -> RuntimeError:
    return RuntimeError(f"{call} was called out of order; expected {due}")

"""Scripted teachers whose lives a model imitates: the form, how to read a context, or a skilled policy with noise."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Protocol

from codots.context.rewrite import CLOSE, OPEN
from codots.core.rng import Names, stream
from codots.core.suggest import check_known, nearest
from codots.domains.base import Domain, Policy, Reader, Step, Task, Witness, Writer
from codots.domains.noise import Noise


class Player(Protocol):
    """A teacher in one task: it solves the task and then rewrites the context."""

    def act(self, view: Any) -> str:
        """Return the text of an action."""
        ...

    def end(self, step: Step) -> None:
        """Observe the last step."""
        ...

    def rewrite(self) -> str:
        """Return the reply of the update after the task."""
        ...


class Teacher(Protocol):
    """A source of lives to imitate. It knows what a model reads, and nothing of earlier tasks but the context."""

    def player(self, task: Task, context: str, style: str, names: Names) -> Player:
        """Return the player of a task, which has read the context. `names` is the name of its random streams."""
        ...


LONGEST = 80
"""Maximum number of characters of the line about how a task ended that a teacher repeats."""
TEACHERS = {
    "format": Noise(right=0.0, invent=0.6),
    "literate": Noise(right=0.15, wrong=0.45),
    "skilled": Noise(),
}
"""Teachers by name, with their default noise.

`format` acts at random and writes guesses, so it shows the form and nothing else. `literate` acts on what the context
claims, and at random where the context says nothing; its notes hold true claims at a small rate, mixed with claims of a
twin and with nothing, so that they are worth little more than an empty context. `skilled` plays the domain's `bayes`
with nothing but the context, and knows what that policy knows.
"""


def make_teacher(name: str, domain: Domain, changes: dict[str, Any] | None = None) -> ScriptedTeacher:
    """Return a teacher of a domain. `changes` overrides its default noise.

    Raises ValueError if there is no such teacher, the noise is invalid, or the domain lacks what the teacher needs.
    """
    check_known(name, TEACHERS, "teacher")
    kind = domain.noise if name == "skilled" else Noise
    known = list(kind.__dataclass_fields__)
    for key in changes or {}:
        if key not in known:
            raise ValueError(nearest(key, known, f"noise of {name}"))
    return ScriptedTeacher(name, replace(kind(**vars(TEACHERS[name])), **(changes or {})))


@dataclass(frozen=True)
class ScriptedTeacher:
    """A teacher made of a domain's scripted policies and claims."""

    name: str
    noise: Noise

    def player(self, task: Task, context: str, style: str, names: Names) -> ScriptedPlayer:
        """Return the player of a task. Raises ValueError if it has to read a context and its policy cannot."""
        return ScriptedPlayer(self, task, self._policy(task, context, names), context, style, names)

    def _policy(self, task: Task, context: str, names: Names) -> Policy:
        domain, world = task.domain, task.world
        if self.name == "skilled":
            policy = domain.skilled(world, self.noise, stream(*names, "solve", "teacher"))
        else:  # the lives of a pack differ, although `random` is seeded by the name of the world
            policy = domain.policy("random", replace(world, names=(*names, "solve")))
        if self.name == "format":
            return policy
        if not isinstance(policy, Reader):
            raise ValueError(f"the policies of {domain.id} cannot read a context; expected teacher: format")
        policy.read(context)
        if self.noise.seen and not (self.name == "literate" and isinstance(policy, Witness)):
            raise ValueError(f"{self.name} cannot say what a task of {domain.id} showed; expected noise without seen")
        return policy


@dataclass
class ScriptedPlayer:
    """A scripted teacher in one task."""

    teacher: ScriptedTeacher
    task: Task
    policy: Policy
    context: str
    style: str
    names: Names
    ending: str = ""
    """How the task ended, in one line; empty if no short line says it."""

    def act(self, view: Any) -> str:
        """Return the action of the policy."""
        return self.policy.act(view)

    def end(self, step: Step) -> None:
        """Show the last step to the policy."""
        self.policy.end(step)
        lines = (step.observation.strip(), step.feedback)
        self.ending = next((line for line in lines if 0 < len(line) <= LONGEST and "\n" not in line), "")

    def rewrite(self) -> str:
        """Return a context of claims, each drawn with noise, before the old ones if they are kept.

        In `natural` style it may come after a line that says how the task ended, so that a model has this before its
        eyes when it writes.
        """
        new = list(self._claims())
        note = self.task.domain.note([*new, *self._kept(new)], self.style)
        if self.style == "compact":
            return " ".join(filter(None, [OPEN, note, CLOSE]))
        ending = self.ending if self._drawn("ending", self.teacher.noise.ending) else ""
        return "\n".join(filter(None, [ending, OPEN, note, CLOSE]))

    def _drawn(self, what: str, probability: float) -> bool:
        return bool(stream(*self.names, "update", what).random() < probability)

    def _kept(self, new: list[str]) -> list[str]:
        """Return the old notes that are kept."""
        if not self._drawn("keep", self.teacher.noise.keep):
            return []
        replaced = {_first_word(line) for line in new}
        old = self.context.split() if self.style == "compact" else self.context.splitlines()
        return [line for line in old if _first_word(line) not in replaced]

    def _claims(self) -> Iterator[str]:
        noise, domain, style = self.teacher.noise, self.task.domain, self.style
        world = self.task.world.at(self.task.position)
        rng, known = stream(*self.names, "update", "teacher"), self._known()
        # Claims about one twin, instead of a guess for each fact, so that reading what is not known does not pay.
        twin = domain.claims(domain.twin(world, rng), style) if self.teacher.name == "literate" else {}
        for subject in domain.claims(world, style):
            draw, guess = rng.random(), twin.get(subject) or domain.guess(world, subject, style, rng)
            if (draw := draw - noise.seen) < 0:
                yield from filter(None, [self._shown().get(subject)])
            elif subject in known and draw < noise.right:
                yield known[subject]
            elif draw < (noise.right + noise.wrong if subject in known else noise.invent):
                yield guess
            elif twin and draw < noise.right + noise.wrong + noise.invent:
                yield domain.guess(world, subject, style, rng)

    def _shown(self) -> dict[str, str]:
        """Return what the task has shown, by subject."""
        return self.policy.shown(self.style) if isinstance(self.policy, Witness) else {}

    def _known(self) -> dict[str, str]:
        """Return what the teacher knows, by subject."""
        if self.teacher.name == "literate":
            return self.task.domain.claims(self.task.world.at(self.task.position), self.style)
        return (
            self.policy.notes(self.style) if self.teacher.name == "skilled" and isinstance(self.policy, Writer) else {}
        )


def _first_word(line: str) -> str:
    return next(iter(re.findall(r"\w+", line)), "")

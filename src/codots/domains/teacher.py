"""Scripted teachers whose lives a model imitates: the form, how to read a context, or a skilled policy with noise."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from codots.context.rewrite import CLOSE, OPEN
from codots.core.rng import Names, stream
from codots.core.suggest import check_known, nearest
from codots.domains.base import Domain, Policy, Reader, Rng, World, Writer
from codots.domains.noise import Noise

TEACHERS = {
    "format": Noise(right=0.0, invent=0.6),
    "literate": Noise(right=0.15, wrong=0.45),
    "skilled": Noise(),
}
"""Teachers by name, with their default noise.

`format` acts at random and writes guesses, so it shows the form and nothing else. `literate` acts on what the context
claims, and at random where the context says nothing; it treats all facts as known. `skilled` plays the domain's `bayes`
with nothing but the context, and knows what that policy knows.
"""


def make_teacher(name: str, domain: Domain, changes: dict[str, Any] | None = None) -> Teacher:
    """Return a teacher of a domain. `changes` overrides its default noise.

    Raises ValueError if there is no such teacher, the noise is invalid, or the domain lacks what the teacher needs.
    """
    check_known(name, TEACHERS, "teacher")
    kind = domain.noise if name == "skilled" else Noise
    known = list(kind.__dataclass_fields__)
    for key in changes or {}:
        if key not in known:
            raise ValueError(nearest(key, known, f"noise of {name}"))
    return Teacher(name, replace(kind(**vars(TEACHERS[name])), **(changes or {})))


@dataclass(frozen=True)
class Teacher:
    """A scripted player of lives. It knows what the model reads: the context, and the task's public views.

    Every task has a new policy, so only the context carries knowledge from task to task.
    """

    name: str
    noise: Noise

    def policy(self, domain: Domain, world: World, context: str, names: Names) -> Policy:
        """Return the policy of one task, which has read the context. `names` seeds it."""
        rng = stream(*names, "teacher")
        if self.name == "skilled":
            policy = domain.skilled(world, self.noise, rng)
        else:
            policy = domain.policy("random", replace(world, names=names))  # or every life of a world would be the same
        if self.name == "format":
            return policy
        if not isinstance(policy, Reader):
            raise ValueError(f"the policies of {domain.id} cannot read a context; expected teacher: format")
        policy.read(context)
        return policy

    def rewrite(self, policy: Policy, domain: Domain, world: World, style: str, names: Names) -> str:
        """Return the reply of an update, after the policy has played the task. `names` seeds the noise."""
        facts = self._facts(policy, domain, world, style)
        lines = domain.note(self._noisy(facts, domain, world, style, stream(*names, "teacher")), style)
        return (" " if style == "compact" else "\n").join(filter(None, [OPEN, lines, CLOSE]))

    def _facts(self, policy: Policy, domain: Domain, world: World, style: str) -> dict[str, str | None]:
        """Return the known claim about each subject, or None if it is unknown."""
        known: dict[str, str] = {}
        if self.name == "literate":
            known = domain.claims(world, style)
        elif self.name == "skilled" and isinstance(policy, Writer):
            known = policy.notes(style)
        return {subject: known.get(subject) for subject in domain.claims(world, style)}

    def _noisy(self, facts: dict[str, str | None], domain: Domain, world: World, style: str, rng: Rng) -> Iterator[str]:
        for subject, claim in facts.items():
            draw, guess = rng.random(), domain.guess(world, subject, style, rng)
            if claim is not None and draw < self.noise.right:
                yield claim
            elif draw < (self.noise.invent if claim is None else self.noise.right + self.noise.wrong):
                yield guess

"""Reference policies for optimal control."""

from __future__ import annotations

import math

from codots.domains.base import Rng, Step
from codots.domains.optimal_control.env import View, columns, write_reply
from codots.domains.optimal_control.notes import Estimate, read_estimate, read_sign, write_claim
from codots.domains.optimal_control.point import Fit, Plant, plan

PUSHES = tuple(k / 10 for k in range(-10, 11))
"""Pushes that the random policy draws from."""
ROUNDING = 0.0005
"""About the standard deviation of v' - a v - b u that comes from showing three decimals."""


class Random:
    """Policy that draws one push uniformly and holds it for the whole task.

    If it has read a and b, it plays the best law under them. If it has read only the sign of b, it plays a cautious
    law.
    """

    def __init__(self, rng: Rng) -> None:
        self.rng = rng
        self.claimed: Estimate | None = None
        self.positive: bool | None = None

    def act(self, view: View) -> str:
        if self.claimed is not None:
            return write_reply(best_law(self.claimed.plant, view), "I read a and b.", view.strict_reply)
        if self.positive is not None:
            return write_reply(cautious(self.positive), "I read the sign of b.", view.strict_reply)
        push = PUSHES[self.rng.integers(len(PUSHES))]
        return write_reply(str(push), "Anything will do.", view.strict_reply)

    def end(self, step: Step) -> None:
        """Ignore the outcome."""

    def read(self, context: str) -> None:
        """Read a and b, or the sign of b."""
        self.claimed, self.positive = read_estimate(context), read_sign(context)


class Informed:
    """Policy that plays the best pushes under the true a and b."""

    def __init__(self, plant: Plant) -> None:
        self.plant = plant

    def act(self, view: View) -> str:
        return write_reply(best_law(self.plant, view), "I know a and b.", view.strict_reply)

    def end(self, step: Step) -> None:
        """Ignore the outcome; the world is already known."""


class AdaptivePolicy:
    """Policy that plays the best law under the fit of a and b to all steps of the life.

    An a and b that it has read count as further data of the fit, unless the steps contradict them. Until a and b are
    determined, it plays a cautious law. It guesses the sign of b if it has not read it.
    """

    def __init__(self, rng: Rng, noise: float) -> None:
        self.positive = bool(rng.integers(2))
        self.deviation = math.hypot(ROUNDING, noise)
        self.fit = Fit()
        self.claimed: Estimate | None = None

    def act(self, view: View) -> str:
        plant = self._belief().solve()
        law = cautious(self.positive) if plant is None else best_law(plant, view)
        return write_reply(law, "I guess." if plant is None else "I measured a and b.", view.strict_reply)

    def end(self, step: Step) -> None:
        self.fit.add(*columns(step.view.rows))

    def read(self, context: str) -> None:
        """Read a and b, or the sign of b."""
        self.claimed, positive = read_estimate(context), read_sign(context)
        self.positive = self.positive if positive is None else positive

    def notes(self, style: str) -> dict[str, str]:
        """Return a and b with their errors, if they are determined."""
        belief = self._belief()
        plant = belief.solve()
        return {} if plant is None else {"law": write_claim(Estimate(plant, belief.errors(self.deviation)))}

    def _belief(self) -> Fit:
        """Return the fit to all steps of the life, and to the claims read unless the steps contradict them."""
        if self.claimed is None:
            return self.fit
        claim = Fit(least=0.0).add_estimate(self.claimed.plant, self.claimed.errors, self.deviation)
        return self.fit if claim.contradicts(self.fit, self.deviation) else claim.join(self.fit)


def cautious(positive: bool) -> str:
    """Return a law that pushes gently towards the target if this is the sign of b."""
    return CAUTIOUS.format(sign="" if positive else "-")


CAUTIOUS = "{sign}(0.25 * (x_target - x) + 0.8 * (v_target - v))"


def best_law(plant: Plant, view: View) -> str:
    """Return the best law under this a and b: a call of `steer` if the view has aid, otherwise a table over t."""
    if view.aid:
        return f"steer({plant.a:.6f}, {plant.b:.6f})"
    law = ""
    for t, push in reversed(list(enumerate(plan(plant, view.goal)))):
        law = f"ifelse(lt(t, {t + 1}), {push:.6f}, {law})" if law else f"{push:.6f}"
    return law

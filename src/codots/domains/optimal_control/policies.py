"""Reference policies for optimal control."""

from __future__ import annotations

from codots.domains.base import Rng, Step
from codots.domains.optimal_control.env import View, columns, write_reply
from codots.domains.optimal_control.point import Fit, Plant, plan

PUSHES = tuple(k / 10 for k in range(-10, 11))
"""Pushes that the random policy draws from."""


class Random:
    """Policy that draws one push uniformly and holds it for the whole task."""

    def __init__(self, rng: Rng) -> None:
        self.rng = rng

    def act(self, view: View) -> str:
        push = PUSHES[self.rng.integers(len(PUSHES))]
        return write_reply(str(push), "Anything will do.", view.strict_reply)

    def end(self, step: Step) -> None:
        """Ignore the outcome."""


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

    Until the steps determine a and b, it plays a cautious law with a guessed sign of b.
    """

    def __init__(self, rng: Rng) -> None:
        self.sign = "" if rng.integers(2) else "-"
        self.fit = Fit()

    def act(self, view: View) -> str:
        plant = self.fit.solve()
        law = CAUTIOUS.format(sign=self.sign) if plant is None else best_law(plant, view)
        return write_reply(law, "I guess." if plant is None else "I measured a and b.", view.strict_reply)

    def end(self, step: Step) -> None:
        self.fit.add(*columns(step.view.rows))


CAUTIOUS = "{sign}(0.25 * (x_target - x) + 0.8 * (v_target - v))"


def best_law(plant: Plant, view: View) -> str:
    """Return the best law under this a and b: a call of `steer` if the view has aid, otherwise a table over t."""
    if view.aid:
        return f"steer({plant.a:.6f}, {plant.b:.6f})"
    law = ""
    for t, push in reversed(list(enumerate(plan(plant, view.goal)))):
        law = f"ifelse(lt(t, {t + 1}), {push:.6f}, {law})" if law else f"{push:.6f}"
    return law

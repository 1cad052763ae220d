"""Dynamics of the point, the loss of a run, the optimal pushes, and fits of a and b to runs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from codots.core.rng import digest
from codots.domains.optimal_control.law import Function, Law, State, push

V_WEIGHT = 2.0
"""Weight of the velocity error relative to the position error."""
SIGMAS = 3
"""Standard errors in a stated maximum error."""
FAR = 6
"""Standard errors between two fits that contradict each other."""
RIDGE = 1e-9


@dataclass(frozen=True)
class Plant:
    """The hidden part of a world: the a and b of v' = a v + b u, where v' is the next velocity."""

    a: float
    b: float

    @property
    def clipped(self) -> Plant:
        """The plant with a clipped to [-2, 2] and b to [-5, 5]."""
        return Plant(min(2.0, max(-2.0, self.a)), min(5.0, max(-5.0, self.b)))


@dataclass(frozen=True)
class Goal:
    """The content of a task."""

    x0: float
    v0: float
    x_target: float
    v_target: float
    horizon: int
    penalty: float
    """Cost per unit of u squared."""

    @property
    def split(self) -> str:
        """The side, `train` or `held-out`, that a hash of the content assigns to the task."""
        numbers = (self.x0, self.v0, self.x_target, self.v_target, self.horizon, self.penalty)
        return "held-out" if digest("goal", *map(repr, numbers)) % 4 == 0 else "train"

    @property
    def shown(self) -> Goal:
        """The goal with numbers rounded as the model sees them."""
        places = ("x0", "v0", "x_target", "v_target")
        return replace(self, **{place: round(getattr(self, place), 3) + 0.0 for place in places})


@dataclass(frozen=True)
class Simulation:
    """A run of a law: x and v before each step and after the last step, and u of each step."""

    x: tuple[float, ...]
    v: tuple[float, ...]
    u: tuple[float, ...]
    failure: str | None = None
    """Why the law failed, or None if it ran to the end."""


def run(plant: Plant, goal: Goal, law: Law, gusts: Sequence[float]) -> Simulation:
    """Simulate the point under a control law.

    Pushes are clipped to [-1, 1]. If the law cannot be evaluated, the simulation ends there and
    `failure` gives the reason.
    """
    x, v = [goal.x0], [goal.v0]
    us: list[float] = []
    for t in range(goal.horizon):
        try:
            u = min(1.0, max(-1.0, push(law, _state(goal, x[-1], v[-1], t))))
        except (ArithmeticError, ValueError) as error:
            return Simulation(tuple(x), tuple(v), tuple(us), f"at t = {t}: {error}"[:500])
        us.append(u)
        v.append(plant.a * v[-1] + plant.b * u + gusts[t])
        x.append(x[-1] + v[-1])
    return Simulation(tuple(x), tuple(v), tuple(us))


def constant_law(value: float) -> Law:
    """Return a law whose push is always `value`."""
    return lambda _: value


def _state(goal: Goal, x: float, v: float, t: int) -> State:
    """Return the state that a law reads. Laws cannot name `penalty`, which only `steer` uses."""
    left = float(max(1, goal.horizon - t))
    targets = {"x_target": goal.x_target, "v_target": goal.v_target, "penalty": goal.penalty}
    return {"x": x, "v": v, "t": float(t), "horizon": float(goal.horizon), "remaining_steps": left, **targets}


def loss(goal: Goal, done: Simulation) -> float:
    """Return the loss of a run."""
    missed = (done.x[-1] - goal.x_target) ** 2 + V_WEIGHT * (done.v[-1] - goal.v_target) ** 2
    return missed + goal.penalty * sum(u * u for u in done.u)


def plan(plant: Plant, goal: Goal, gusts: Sequence[float] = ()) -> list[float]:
    """Return the pushes that exactly minimize the loss under these gusts. If `gusts` is empty, all gusts are 0.

    The last x and v are linear in the pushes, so the problem is bounded least squares, a convex quadratic program.
    """
    from scipy.optimize import lsq_linear  # slow to import

    steps, weight = goal.horizon, math.sqrt(V_WEIGHT)
    powers = plant.a ** np.arange(steps, dtype=float)
    effects = plant.b * np.stack([np.cumsum(powers)[::-1], weight * powers[::-1]])
    rest = run(plant, goal, constant_law(0.0), gusts or (0.0,) * steps)
    wanted = np.zeros(steps + 2)
    wanted[:2] = goal.x_target - rest.x[-1], weight * (goal.v_target - rest.v[-1])
    rows = np.vstack([effects, math.sqrt(goal.penalty) * np.eye(steps)])
    found = lsq_linear(rows, wanted, bounds=(-1.0, 1.0), method="bvls", max_iter=50 * steps)
    return [float(u) for u in np.clip(found.x, -1.0, 1.0)]


@lru_cache(maxsize=8192)
def least_loss(plant: Plant, goal: Goal, gusts: tuple[float, ...] = ()) -> float:
    """Return the least possible loss, which is that of the best pushes if these gusts are known in advance."""
    pushes = plan(plant, goal, gusts)
    return loss(goal, run(plant, goal, lambda state: pushes[int(state["t"])], gusts or (0.0,) * goal.horizon))


def _steer(state: State, a: float, b: float) -> float:
    """Return the best push at this step, given a and b. First clips a to [-2, 2] and b to [-5, 5]."""
    if not (math.isfinite(a) and math.isfinite(b)):
        raise ValueError("steer was given no finite numbers")
    left = Goal(
        x0=state["x"],
        v0=state["v"],
        x_target=state["x_target"],
        v_target=state["v_target"],
        horizon=int(state["remaining_steps"]),
        penalty=state["penalty"],
    )
    return plan(Plant(float(a), float(b)).clipped, left)[0]


STEER = {"steer": Function(2, 2, _steer, times=4)}


@dataclass
class Fit:
    """Least-squares fit of a and b to any number of runs."""

    least: float = 1e-4
    """Minimum smallest eigenvalue of the normal equations at which a and b count as determined."""

    def __post_init__(self) -> None:
        self.normal, self.right = np.zeros((2, 2)), np.zeros(2)

    def add(self, v: Sequence[float], u: Sequence[float]) -> Fit:
        """Add the velocities and pushes of a run, and return the fit itself."""
        seen = np.array([v[: len(u)], u]).T
        self.normal += seen.T @ seen
        self.right += seen.T @ np.array(v[1 : len(u) + 1])
        return self

    def add_estimate(self, plant: Plant, errors: tuple[float, float], deviation: float) -> Fit:
        """Add an earlier estimate, whose maximum errors count as three standard errors, and return the fit itself.

        `deviation` is the standard deviation of a step. The estimate weighs as much as steps that determine a and b
        equally well.
        """
        weights = np.square([SIGMAS * deviation / error for error in errors])
        self.normal += np.diag(weights)
        self.right += weights * (plant.a, plant.b)
        return self

    def join(self, other: Fit) -> Fit:
        """Add all data of another fit, and return the fit itself."""
        self.normal += other.normal
        self.right += other.right
        return self

    def contradicts(self, other: Fit, deviation: float) -> bool:
        """Return whether two fits lie more than FAR standard errors apart. `deviation` is that of a step."""
        inverses = [np.linalg.inv(fit.normal + RIDGE * np.eye(2)) for fit in (self, other)]
        apart = inverses[0] @ self.right - inverses[1] @ other.right
        return float(apart @ np.linalg.solve(sum(inverses), apart)) > (FAR * deviation) ** 2

    def errors(self, deviation: float) -> tuple[float, float]:
        """Return three standard errors of a and of b, if a and b are determined. `deviation` is that of a step."""
        a, b = SIGMAS * deviation * np.sqrt(np.diag(np.linalg.inv(self.normal)))
        return float(a), float(b)

    def solve(self) -> Plant | None:
        """Return the best fit, or None if the runs do not determine a and b."""
        if np.linalg.eigvalsh(self.normal)[0] < self.least:
            return None
        a, b = np.linalg.solve(self.normal, self.right)
        return Plant(float(a), float(b))

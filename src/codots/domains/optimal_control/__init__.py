"""Optimal control: write one law that pushes a point to its target, without knowing how it responds to pushes.

Description:
    A point on a line has a position x and a velocity v. At each step v becomes a v + b u, then x becomes x + v. The
    model writes u once, as an expression of the state, and the law runs to the end.
Hidden and shared:
    The numbers a and b, which are fixed for the whole world. In about a third of the worlds a > 1, so that the point
    runs away if it is not pushed. Starts and targets are public and independent of a and b.
Observation:
    Start, target, number of steps and price of pushing; after the run, a table of x, v and u at each step.
Action:
    One expression over x, v, t, x_target, v_target, horizon, remaining_steps. v0 reads exactly one
    `<action><law>-v</law></action>`, v1 one `<action>-v</action>`.
Reward:
    L = (x - x_target)^2 + 2 (v - v_target)^2 + c * (sum of u^2) is the loss after the last step. v0: 1 / (1 + L); 0 if
    the law fails during the run; -0.1 if there is no law. v1: 0.1 + 0.9 / (1 + ln(1 + d)), where d is the square root
    of the difference between L and the least possible loss; 0 if the law fails or if there is no law.
Episode end:
    `done`; `failed` if the law fails (division by zero, no number); or malformed text.
Presets:
    v0: `easy`, `medium`, `hard`. v1: `easy`, `hard` (further, faster, 8 to 14 steps, three prices, moving targets),
    `by-hand` (easy, but the model does all arithmetic), `gusts` (easy with noise), `remembered` (easy, but the
    environment shows the last law and where it ended), `tiny` (tests).
    Dials: x0, v0, x_target, v_target, horizon, penalty, a, b, least_b, noise, aid, memory.
Reference policies:
    `random` plays one constant push for the whole task. `informed` plays the exact optimum by a quadratic program (with
    noise: replanned at each step). `bayes` is an adaptive scripted policy: it plays a cautious law with a guessed sign
    until a and b can be fitted to the observed runs, then the optimum under the fit. The optimum under the posterior
    over a and b cannot be computed.
Version history:
    v0: the rules of arXiv 2606.20002: the environment shows the last law and its final errors, whatever the context
    contains; all bad laws get a reward near 0; planning and fitting need mental arithmetic; replies are XML, which a
    bare `<` or a code fence breaks; numbers are shown rounded; tasks are not split.
    v1: only the context carries knowledge unless the dial `memory` is `environment`; the reward separates good laws
    from better ones and bad laws from worse ones; the environment does the arithmetic unless the dial `aid` is off;
    replies are plain text; numbers are exact, starts and targets at least 1 apart; tasks are split by content between
    `train` and held-out.
"""

from __future__ import annotations

from dataclasses import replace

from codots.core.rng import stream
from codots.domains.base import Env, Rng, Task, World
from codots.domains.family import Family, Policies
from codots.domains.optimal_control.env import ControlEnv, Dials, Memory, Rules, View, render, table
from codots.domains.optimal_control.law import LENGTH
from codots.domains.optimal_control.notes import CLOSE, Estimate, read_claims, read_signs, write_claim
from codots.domains.optimal_control.point import Goal, Plant, constant_law, least_loss, loss, run
from codots.domains.optimal_control.policies import PUSHES, AdaptivePolicy, Informed, Random
from codots.domains.registry import register


class OptimalControl(Family):
    """Domain family: control a point whose response to pushes is hidden. Each version has one rule set."""

    rules: Rules

    solved_above = 0.5

    def __init__(self, id: str, rules: Rules, presets: dict[str, Dials]) -> None:
        super().__init__(id, rules, presets)
        self.bounds = (min(0.0, rules.unreadable), 1.0)

    def make_world(self, rng: Rng, dials: Dials) -> Plant:
        """Draw a and b. The absolute value of b is at least `least_b`, so that pushing always has an effect."""
        a = float(rng.uniform(*dials.a))
        low, high = dials.b
        below, above = max(0.0, -dials.least_b - low), max(0.0, high - max(low, dials.least_b))
        at = float(rng.uniform(0.0, below + above))
        return Plant(a, low + at if at < below else max(low, dials.least_b) + at - below)

    def make_task(self, world: World, position: int, rng: Rng) -> Goal:
        """Draw tasks until one belongs to this split and has a target far enough from the start."""
        while True:
            goal = self._goal(world.dials, rng)
            apart = abs(goal.x_target - goal.x0) >= self.rules.apart
            if apart and (not self.rules.split_tasks or (goal.split == "train") == (world.split == "train")):
                return goal

    def side(self, task: Task) -> str | None:
        """Return the side, `train` or `held-out`, that the task belongs to, or None if the rules do not split tasks."""
        goal: Goal = task.content
        return goal.split if self.rules.split_tasks else None

    def _goal(self, dials: Dials, rng: Rng) -> Goal:
        ranges = (dials.x0, dials.v0, dials.x_target, dials.v_target)
        numbers = [float(rng.uniform(-most, most)) if most else 0.0 for most in ranges]
        if self.rules.exact_numbers:
            numbers = [round(number, 3) + 0.0 for number in numbers]
        x0, v0, x_target, v_target = numbers
        steps = int(rng.integers(dials.horizon[0], dials.horizon[1] + 1))
        return Goal(x0, v0, x_target, v_target, steps, dials.penalty[rng.integers(len(dials.penalty))])

    def make_memory(self, world: World) -> Memory | None:
        """Create a memory for the last law, or return None if the environment does not show it."""
        return Memory() if world.dials.memory == "environment" else None

    def make_env(self, task: Task, *, style: str = "natural", memory: object | None = None, rng: Rng) -> Env:
        """Open the environment of a task."""
        dials, goal = task.world.dials, task.content
        gusts = tuple(map(float, rng.normal(0.0, dials.noise, goal.horizon) if dials.noise else [0.0] * goal.horizon))
        kept = memory if isinstance(memory, Memory) else None
        return ControlEnv(task.world.hidden, goal, self.rules, dials, gusts, kept)

    def rules_text(self, task: Task, style: str) -> str:
        """Return the rules of a task as text."""
        return render("rules", rules=self.rules, dials=task.world.dials, length=LENGTH)

    def policies(self, world: World) -> Policies:
        """Return a factory for each scripted policy, by name."""
        return {
            "random": lambda: Random(stream(*world.names, "random")),
            "informed": lambda: Informed(world.hidden),
            "bayes": lambda: AdaptivePolicy(stream(*world.names, "bayes"), world.dials.noise),
        }

    def claims(self, world: World, style: str) -> dict[str, str]:
        """Return a and b."""
        return {"law": write_claim(Estimate(world.hidden))}

    def floor(self, task: Task) -> float:
        """Return the expected reward of a uniformly drawn push that is held for the whole task."""
        env = self._env(task)
        done = [run(env.plant, env.goal, constant_law(push), env.gusts) for push in PUSHES]
        least = self._least(env)
        return sum(self.rules.reward(loss(env.goal, each), least) for each in done) / len(PUSHES)

    def _env(self, task: Task) -> ControlEnv:
        env = task.env()
        assert isinstance(env, ControlEnv)
        return env

    def _least(self, env: ControlEnv) -> float:
        return least_loss(env.plant, env.goal, env.gusts)

    def ceiling(self, task: Task) -> float:
        """Return the reward of the best pushes. If there is noise, return the reward of replanning at each step."""
        env = self._env(task)
        if task.world.dials.noise:
            return env.step(self.policy("informed", task.world).act(env.view)).reward
        return self.rules.reward(self._least(env), self._least(env))

    def twin(self, world: World, rng: Rng) -> World:
        """Draw a and b until they differ so much that the twin's oracle context has a wrong claim about this world."""
        while True:
            twin = replace(world, hidden=self.make_world(rng, world.dials))
            if self.facts(world, self.oracle_context(twin, "natural"))[1]:
                return twin

    def facts(self, world: World, context: str) -> tuple[int, int, int]:
        """Count claims such as `a = 0.9`, `b is -1.1` or `b is negative`. Repeated claims count each time.

        An estimate whose stated error exceeds CLOSE, such as `a = 0.9 +- 0.1`, is no claim.
        """
        true = {"a": world.hidden.a, "b": world.hidden.b}
        claims = [abs(true[claim.name] - claim.value) <= CLOSE for claim in read_claims(context) if claim.sure]
        claims += [positive == (true["b"] > 0) for positive in read_signs(context)]
        return sum(claims), len(claims) - sum(claims), len(true)

    def draw(self, view: View) -> str:
        """Return the run as a table."""
        return table(view)


V0 = Rules(
    strict_reply=True,
    unreadable=-0.1,
    base=0.0,
    regret=False,
    failure_shown=False,
    exact_numbers=False,
    apart=0.0,
    split_tasks=False,
)
V1 = Rules(
    strict_reply=False,
    unreadable=0.0,
    base=0.1,
    regret=True,
    failure_shown=True,
    exact_numbers=True,
    apart=1.0,
    split_tasks=True,
)
REFERENCE = {
    "easy": Dials(1.0, 0.5, 3.0, horizon=(8, 8), memory="environment"),
    "medium": Dials(2.0, 1.0, 5.0, memory="environment"),
    "hard": Dials(2.0, 1.5, 8.0, memory="environment"),
}
EASY = Dials(1.0, 0.5, 3.0, horizon=(8, 8), aid=True)
HARD = Dials(2.0, 1.5, 8.0, v_target=1.0, horizon=(8, 14), penalty=(0.01, 0.03, 0.1), aid=True)
TINY = Dials(1.0, 0.5, 2.0, horizon=(3, 4), aid=True)
CARRIED = {
    "easy": EASY,
    "hard": HARD,
    "by-hand": replace(EASY, aid=False),
    "gusts": replace(EASY, noise=0.1),
    "remembered": replace(EASY, memory="environment"),
    "tiny": TINY,
}

register(OptimalControl("optimal-control-v0", V0, REFERENCE))
register(OptimalControl("optimal-control-v1", V1, CARRIED))

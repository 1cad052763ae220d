"""PDE discovery: find the hidden law of a field from a few noisy points, with a regression tool.

Description:
    A field obeys u_t = D u_xx + f(u), with zero at both ends. Each task starts the field from a different state. The
    model measures a few points, fits sums of terms to these points with the tool, then answers with one equation.
Hidden and shared:
    f: one to three terms of a library of fifteen, and their coefficients. f is fixed for the whole world. The starts
    are independent of f and never shown; the model sees only its measurements.
Observation:
    The tool's output, the turns and points left, and the names of the data sets.
Action:
    Exactly one `<action>...</action>` with one XML element: `sample`, `regress`, `summary` or `answer`.
Reward:
    v0: 1 / (1 + loss), with loss = sum |c' - c| / sum |c| + number of surplus terms. v1: max(0, 1 - 2 m), where m is
    the mean over u of |f' - f| / (|f'| + |f|). 0 if there is no answer.
Episode end:
    `answered`, `late` (out of turns), or malformed text. A refused tool call costs a turn.
Presets:
    v0: `easy` (the paper's training: one or two terms) and `hard` (its evaluation: other supports, up to three terms,
    amplitudes in eight bands). v1: `easy`, `hard` (easy with another family of equations), `remembered` (easy, but the
    environment keeps the data), `slow` (easy with a tenth of the diffusion, so that later times stay informative).
    Dials: family, terms, points, turns, noise, least, bands, diffusion, memory.
Reference policies:
    `random` measures random points and fits random terms. `informed` answers the true terms fitted to all data in v0,
    and the true equation in v1. `bayes` is an adaptive scripted policy that measures at t = 0. In v0 it fits every
    support to the shown points and takes the fewest terms that fit nearly as well as the best. In v1 it remembers its
    points and answers the equation of highest expected reward, under a posterior over the family by Laplace's
    approximation. The optimum over all measurement strategies cannot be computed.
Version history:
    v0: the rules of arXiv 2606.20002: the environment keeps all data across tasks; one task is nearly enough; the tool
    prefers too many terms; the reward separates terms that are nearly equal, and pays 0.3 for any answer; some settings
    have no effect; points are shown in four digits; the updater does not see the effect of the answer. The reward is
    hidden from the updater, in v1 too.
    v1: only the context carries knowledge unless the dial `memory` is `environment`; any equation may be answered, and
    noted points, shown in six digits, may be fitted; fewer points, more noise on y and none on u; the tool weighs fit
    against terms; the reward compares values of f; amplitudes have the same distribution at every position; equations
    are split between `train` and held-out.
"""

from __future__ import annotations

from dataclasses import replace

from codots.core.rng import digest, stream
from codots.domains.base import Env, Policy, Rng, Task, World
from codots.domains.family import Family, Policies
from codots.domains.pde_discovery.env import Archive, PdeEnv, View
from codots.domains.pde_discovery.equation import Equation
from codots.domains.pde_discovery.families import SIZES, draw_equation, templates
from codots.domains.pde_discovery.field import TOP, WAVES, Start
from codots.domains.pde_discovery.notes import CLOSE, read_claims, write_claim
from codots.domains.pde_discovery.policies import AdaptivePolicy, Informed, Random, Sparse
from codots.domains.pde_discovery.posterior import Posterior
from codots.domains.pde_discovery.rules import Dials, Rules, rules_text
from codots.domains.registry import register


class PdeDiscovery(Family):
    """Domain family: find the hidden equation of a field. Each version has one rule set."""

    rules: Rules
    reveals_reward = False
    solved_above = 0.5

    def make_world(self, rng: Rng, dials: Dials) -> Equation:
        """Draw the hidden equation."""
        return draw_equation(rng, dials.family, dials.terms)

    def belongs(self, hidden: Equation, split: str) -> bool:
        """Return whether an equation may appear in this split. `train` and the held-out splits share no equation."""
        side = "held-out" if digest("equation", str(hidden)) % 4 == 0 else "train"
        return not self.rules.split_equations or (side == "train") == (split == "train")

    def make_task(self, world: World, position: int, rng: Rng) -> Start:
        """Draw the start of a task."""
        dials: Dials = world.dials
        turn, place = divmod(position, dials.bands)
        band = stream(*world.names, "bands", turn).permutation(dials.bands)[place]
        share = (band + rng.random()) / dials.bands
        waves = int(rng.integers(1, WAVES + 1))
        amplitude = TOP * (dials.least + (1 - dials.least) * share)
        return Start(float(amplitude), tuple(rng.standard_normal(waves).tolist()))

    def make_memory(self, world: World) -> Archive | None:
        """Create an archive, or return None if the environment does not remember data and findings."""
        return Archive() if world.dials.memory == "environment" else None

    def make_env(self, task: Task, *, style: str = "natural", memory: object | None = None, rng: Rng) -> Env:
        """Open the environment of a task."""
        archive = memory if isinstance(memory, Archive) else Archive()
        return PdeEnv(task.world.hidden, task.content, self.rules, task.world.dials, archive, rng)

    def rules_text(self, task: Task, style: str) -> str:
        """Return the rules of a task as text."""
        return rules_text(self.rules, task.world.dials)

    def policies(self, world: World) -> Policies:
        """Return a factory for each scripted policy, by name."""
        dials: Dials = world.dials

        def adaptive() -> Policy:
            if self.rules.free:
                return AdaptivePolicy(Posterior(templates(dials.family), SIZES, dials.noise[1]))
            return Sparse(dials.terms[1], dials.noise)

        return {
            "random": lambda: Random(stream(*world.names, "random"), dials.terms, self.rules.free),
            "informed": lambda: Informed(world.hidden, self.rules.free),
            "bayes": adaptive,
        }

    def claims(self, world: World, style: str) -> dict[str, str]:
        """Return the hidden equation."""
        return {"law": write_claim(world.hidden)}

    def twin(self, world: World, rng: Rng) -> World:
        """Draw an equation with different terms."""
        while True:
            hidden = self.make_world(rng, world.dials)
            if hidden.support != world.hidden.support and self.belongs(hidden, world.split):
                return replace(world, hidden=hidden)

    def facts(self, world: World, context: str) -> tuple[int, int, int]:
        """Count claims of the form `number * term`. Repeated claims count each time, doubtful ones do not count."""
        truth: Equation = world.hidden
        claims = [claim for line in read_claims(context) if line.sure for claim in line.found]
        right = sum(i in truth.support and abs(truth.coefficients[i] - c) <= CLOSE for i, c in claims)
        return right, len(claims) - right, len(truth.support)

    def draw(self, view: View) -> str:
        """Return the points and the best fit of the latest report as text, or only the counts if there is no report."""
        if view.report is None:
            return f"turn {view.turn} of {view.turns}, {view.left} points left"
        pairs = zip(view.report.points, view.report.fitted, strict=True)
        rows = [f"u {point.u:8.4f}  y {point.y:8.4f}  fit {fitted:8.4f}" for point, fitted in pairs]
        return "\n".join([f"f(u) = {view.answer or view.report.best.equation}", *rows])


V0 = Rules(
    score="formula",
    ranking="worst",
    shown=2,
    digits=4,
    free=False,
    decoys=True,
    split_equations=False,
    last_shown=False,
)
V1 = Rules(
    score="curve",
    ranking="spare",
    shown=4,
    digits=6,
    free=True,
    decoys=False,
    split_equations=True,
    last_shown=True,
)
TRAINED = Dials("known", (1, 2), bands=4, memory="environment")
EVALUATED = Dials("new", (1, 3), bands=8, memory="environment")
EASY = Dials("known", (1, 2), points=2, noise=(0.0, 0.02), least=0.2)
HARD = replace(EASY, family="new", terms=(1, 3))
REMEMBERED = replace(EASY, memory="environment")
SLOW = replace(EASY, diffusion=0.1)

register(PdeDiscovery("pde-discovery-v0", V0, {"easy": TRAINED, "hard": EVALUATED}))
register(PdeDiscovery("pde-discovery-v1", V1, {"easy": EASY, "hard": HARD, "remembered": REMEMBERED, "slow": SLOW}))

"""Bandit: one of k named options pays, the same one all life long.

Description:
    The smallest world, for tests and for the first run of a model. A context of three words is worth everything, and
    there is nothing else to learn: names are drawn for each world, and their order for each task.
Hidden and shared:
    The option that pays. In `drift`, also the option that pays after one change, and the position of the change.
Observation:
    The names of the options, then whether the chosen one paid. Names are labels: `k47` in `natural`, `k4` in
    `compact`.
Action:
    One option. `natural` requires exactly one `<action> k47 </action>`; `compact` takes the last word: `k4`.
Reward:
    1 if the chosen option pays; otherwise 0.
Episode end:
    `paid`, `empty`, or malformed text. Every task has one turn.
Presets:
    `easy` (4 options), `wide` (8), `noisy` (the right option pays with probability .8, each other one with .1), `drift`
    (the right option changes once), `tiny` (2, for tests).
    Dials: options, chance, stray, change.
Reference policies:
    `random` chooses uniformly. `informed` chooses the right option and knows when it changes. `bayes` maximizes the
    current task's expected reward exactly, under the posterior over rules given everything seen in the life.
Version history:
    v1: the first version. The paper has no such world.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from codots.core.rng import digest, stream
from codots.core.templates import Prompts
from codots.domains.bandit.env import BanditEnv, Dials, Option, Secret
from codots.domains.bandit.names import CODES, LABELS
from codots.domains.bandit.notes import NOT, SURE, read_claims, write_claim
from codots.domains.bandit.policies import Bayes, Informed, Random
from codots.domains.base import Env, Rng, Task, World
from codots.domains.drift import Drift, holds
from codots.domains.family import Family, Policies
from codots.domains.registry import register

render = Prompts(__package__)


def side_of(name: str) -> str:
    """Return the side, `train` or `held-out`, that a hash assigns to a name."""
    return "held-out" if digest("bandit", name) % 4 == 0 else "train"


def by_letter(names: Iterable[str]) -> dict[str, list[str]]:
    """Group names by their first letter."""
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(name[0], []).append(name)
    return groups


SIDES = ("train", "held-out")
NAMES = [[by_letter(name for name in names if side_of(name) == side) for names in (LABELS, CODES)] for side in SIDES]
"""Labels and codes of each side, by their first letter."""


def draw_names(groups: dict[str, list[str]], count: int, rng: Rng) -> list[str]:
    """Draw names with different first letters, so that the first letter identifies an option."""
    letters = rng.choice([*groups], count, replace=False)
    return [str(rng.choice(groups[letter])) for letter in letters]


class Bandit(Family):
    """Domain family: find the option that pays."""

    styles = ("natural", "compact")
    exact = True

    def make_world(self, rng: Rng, dials: Dials) -> Secret | Drift:
        """Draw a side, options with names of this side, and the option that pays."""
        names = NAMES[rng.integers(len(SIDES))]
        labels, codes = (draw_names(side, dials.options, rng) for side in names)
        options = tuple(map(Option, labels, codes))
        secret: Secret | Drift = self.drift(Secret(options, options[rng.integers(len(options))]), dials, rng)
        return secret

    def belongs(self, hidden: Secret | Drift, split: str) -> bool:
        """Return whether the names may appear in this split. `train` and the held-out splits share no name."""
        return (side_of(holds(hidden).options[0].label) == "train") == (split == "train")

    def make_task(self, world: World, position: int, rng: Rng) -> tuple[Option, ...]:
        """Shuffle the options."""
        options = holds(world.hidden).options
        return tuple(options[i] for i in rng.permutation(len(options)))

    def side(self, task: Task) -> str:
        """Return the side that the names belong to."""
        return side_of(task.content[0].label)

    def make_env(self, task: Task, *, style: str = "natural", memory: object | None = None, rng: Rng) -> Env:
        """Open the environment of a task."""
        return BanditEnv(task.content, task.world.hidden, task.world.dials, style, rng)

    def rules_text(self, task: Task, style: str) -> str:
        """Return the rules of a task as text."""
        return render("rules", style, dials=task.world.dials)

    def policies(self, world: World) -> Policies:
        """Return a factory for each scripted policy, by name."""
        options = holds(world.hidden).options
        return {
            "random": lambda: Random(options, stream(*world.names, "random")),
            "informed": lambda: Informed(holds(world.hidden).right),
            "bayes": lambda: Bayes(options, world.dials),
        }

    def claims(self, world: World, style: str) -> dict[str, str]:
        """Return which option pays."""
        return {"pays": write_claim([holds(world.hidden).right], SURE, style)}

    def guess(self, world: World, subject: str, style: str, rng: Rng) -> str:
        """Draw a claim that a uniformly drawn option pays, or that it is empty."""
        options = holds(world.hidden).options
        kind = SURE if rng.random() < 0.5 else NOT
        return write_claim([options[rng.integers(len(options))]], kind, style)

    def partial_context(self, world: World, style: str, rng: Rng) -> str:
        """Draw a context that says of one or more options that they are empty."""
        secret = holds(world.hidden)
        wrong = [option for option in secret.options if option != secret.right]
        denied = rng.permutation(len(wrong))[: rng.integers(1, len(wrong) + 1)]
        return self.note((write_claim([wrong[i]], NOT, style) for i in denied), style)

    def floor(self, task: Task) -> float:
        """Return the expected reward of a uniform choice."""
        dials: Dials = task.world.dials
        return (dials.chance + (dials.options - 1) * dials.stray) / dials.options

    def ceiling(self, task: Task) -> float:
        """Return the probability that the right option pays."""
        dials: Dials = task.world.dials
        return dials.chance

    def twin(self, world: World, rng: Rng) -> World:
        """Return the world with the same names, of which another one pays."""
        secret: Secret = holds(world.hidden)
        others = [option for option in secret.options if option != secret.right]
        other = replace(secret, right=others[rng.integers(len(others))])
        return replace(world, hidden=other if secret is world.hidden else self.drift(other, world.dials, rng))

    def facts(self, world: World, context: str) -> tuple[int, int, int]:
        """Count options that are said to pay, each once. Guesses and options that do not pay are ignored."""
        secret: Secret = holds(world.hidden)
        claimed = [option for option, kind in read_claims(context, secret.options).items() if kind == SURE]
        right = claimed.count(secret.right)
        return right, len(claimed) - right, 1


EASY = Dials(options=4)
PRESETS = {
    "easy": EASY,
    "wide": Dials(options=8),
    "noisy": Dials(options=4, chance=0.8, stray=0.1),
    "drift": Dials(options=4, change=(2, 5)),
    "tiny": Dials(options=2),
}

register(Bandit("bandit-v1", None, PRESETS))

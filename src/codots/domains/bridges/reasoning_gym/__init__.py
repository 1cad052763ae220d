"""Reasoning Gym: packs of one family of problems, with its own scorer.

Description:
    `reasoning-gym:<name>`, for example `reasoning-gym:spell_backward`: every task is one problem of the family `name`
    of the package reasoning-gym (`pip install 'codots[reasoning-gym]'`), answered in one message.
Hidden and shared:
    The settings of a world: a level for each attribute of the family's curriculum (how long, how large, how many), and
    the lot that its problems come from. `acre`, `gsm_symbolic` and `list_functions` have no curriculum, `knight_swap`
    none that it accepts: their worlds share the lot alone. That is real, but little: settings show in the problems, so
    what a context can carry over is mostly how such problems are solved and how their answers are written, which is the
    same in all worlds and may as well be learned into weights.
Observation:
    The problem, in the family's words.
Action:
    Exactly one `<action>...</action>`; what stands in it is given to the family's scorer.
Reward:
    What the scorer gives, 0 to 1. An answer that it stumbles over gets 0, and so does one that holds anything but
    digits, brackets and the like where the scorer would run it as code.
Episode end:
    After one reply: `solved` (1), `partly`, `wrong` (0), `unread` (the scorer stumbled), or malformed text. The updater
    is told an answer that scores 1.
Presets:
    `easy`, levels 0 and 1 of each attribute; `hard`, levels 1 and 2. Dials: least, most.
Reference policies:
    `random`, the right answer to another problem of the family; `informed`, knows the lot, and so makes each problem
    anew together with its answer; `bayes`, a scripted learner that cannot reason: the answer that it was told most
    often in its life, so that its curve rises only where some answers are more common than others. The floor is 0, the
    ceiling 1.
Version history:
    Problems and scores are those of the installed reasoning-gym: another version may give other packs. Left out are
    boxnet, graph_color, propositional_logic, rubiks_cube and rush_hour, whose own answer does not score 1;
    intermediate_integration, polynomial_multiplication and simple_integration, whose scorer runs replies as code; and
    composite, which has to be given other families.
"""

from __future__ import annotations

from dataclasses import dataclass

from codots.core.rng import stream
from codots.core.templates import Prompts
from codots.domains.base import Domain, Env, Rng, Step, Task, World
from codots.domains.bridges.reasoning_gym.policies import Habit, Informed, Random, View, draw_problem
from codots.domains.bridges.reasoning_gym.problems import (
    LONGEST,
    Lot,
    Problem,
    check_family,
    draw_lot,
    harmless,
    score,
    settings,
)
from codots.domains.family import Family, Policies, action
from codots.domains.registry import Bridge

render = Prompts(__package__)
TRIES = 1000
"""Problems that are drawn for a split before it is given up."""
SHOWN = 1000
"""Characters of an answer that are told in a context or to the updater."""


@dataclass(frozen=True)
class Dials:
    """What differs between presets."""

    least: int
    """Least level of an attribute."""
    most: int
    """Greatest level of an attribute."""


@dataclass
class ProblemEnv:
    """One problem."""

    name: str
    problem: Problem

    def __post_init__(self) -> None:
        self.view = View(self.problem.number, self.problem.question)

    def observe(self) -> str:
        """Show the problem."""
        return self.problem.question

    def step(self, text: str) -> Step:
        """Have the answer in the text scored."""
        answer = (action(text) or "").strip()
        if not answer or len(answer) > LONGEST:
            return self._end("The reply did not hold one answer in <action></action>.", 0.0, "malformed")
        given = score(self.name, self.problem, answer) if harmless(self.name, answer) else None
        if given is None:
            return self._end("The checker cannot read this answer.", 0.0, "unread")
        stop = "solved" if given == 1 else "partly" if given > 0 else "wrong"
        return self._end(f"The checker gives {given:.2g}.", given, stop)

    def _end(self, told: str, reward: float, stop: str) -> Step:
        self.view = View(self.problem.number, self.problem.question, self.problem.answer)
        right = f"An answer that gets 1 here: {shortened(self.problem.answer)}" if stop != "solved" else ""
        return Step(told, reward, True, right, stop, self.view)


def shortened(answer: str) -> str:
    """An answer, cut where it is very long."""
    return answer if len(answer) <= SHOWN else f"{answer[:SHOWN]}..."


class ReasoningGym(Family):
    """Problems of one family."""

    rules: str
    """Its name."""
    chance = False

    def make_world(self, rng: Rng, dials: Dials) -> Lot:
        """Draw settings and a lot."""
        return draw_lot(rng, self.rules, dials.least, dials.most)

    def make_task(self, world: World, position: int, rng: Rng) -> Problem:
        """Draw problems of the lot until one belongs to this split. Raises RuntimeError where there is none."""
        for _ in range(TRIES):
            problem = draw_problem(rng, self.rules, world.hidden)
            if (problem.split == "train") == (world.split == "train"):
                return problem
        raise RuntimeError(f"{self.id} made no problem for {world.split} in {TRIES} tries: it makes too few")

    def side(self, task: Task) -> str:
        """Problems are kept apart by the words of the question."""
        problem: Problem = task.content
        return problem.split

    def make_env(self, task: Task, *, style: str = "natural", memory: object | None = None, rng: Rng) -> Env:
        """Put the problem."""
        return ProblemEnv(self.rules, task.content)

    def rules_text(self, task: Task, style: str) -> str:
        """Say how to answer."""
        return render("rules", style, name=self.rules)

    def policies(self, world: World) -> Policies:
        """Say how each scripted player is made."""
        levels = (world.dials.least, world.dials.most)
        return {
            "random": lambda: Random(stream(*world.names, "random"), self.rules, levels),
            "informed": lambda: Informed(self.rules, world.hidden),
            "bayes": lambda: Habit(stream(*world.names, "bayes"), self.rules, levels),
        }

    def oracle_context(self, world: World, style: str) -> str:
        """Write down the settings and an answer of this world, for its form."""
        example = draw_problem(stream(*world.names, "example"), self.rules, world.hidden)
        told = [f"- {key}: {value}" for key, value in settings(self.rules, world.hidden).items()]
        return "\n".join(["Settings of the problems here:", *told, f"- an answer: {shortened(example.answer)}"])

    def ceiling(self, task: Task) -> float:
        """The reward of the family's own answer."""
        return 1.0


def build(name: str) -> Domain:
    """Make the domain of a family. Raises ValueError for one that is unknown or left out."""
    check_family(name)
    return ReasoningGym(f"reasoning-gym:{name}", name, {"easy": Dials(0, 1), "hard": Dials(1, 2)})


bridge = Bridge(build, "reasoning-gym:spell_backward", "reasoning_gym", "codots[reasoning-gym]")

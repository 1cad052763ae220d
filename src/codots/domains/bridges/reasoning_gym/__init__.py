"""Reasoning Gym: packs of problems of one kind, scored by its own scorer.

Description:
    `reasoning-gym:<name>`, for example `reasoning-gym:spell_backward`: every task is one problem of the family `name`
    of the package reasoning-gym (`pip install 'codots[reasoning-gym]'`), answered in one message.
Hidden and shared:
    The settings of a world: a level for each attribute of the family's curriculum (such as length, size or count), and
    the lot that the problems come from. `acre`, `gsm_symbolic` and `list_functions` have no curriculum, and
    `knight_swap` accepts none of its levels, so the tasks of their worlds share only the lot. The settings are a
    small hidden part, and problems show them. A context mostly carries how to solve such problems and how to write the
    answers. That knowledge is the same in all worlds and may as well be learned into weights.
Observation:
    The problem, as the family words it.
Action:
    Exactly one `<action>...</action>`. The family's scorer receives the text inside.
Reward:
    The score, 0 to 1. An answer on which the scorer raises an error scores 0. If the scorer runs answers as code, an
    answer with characters other than digits, brackets and the like also scores 0.
Episode end:
    After one reply: `solved` (score 1), `partly` (between 0 and 1), `wrong` (0), `unread` (the answer is unsafe or the
    scorer raised an error), or malformed text. The updater sees an answer that scores 1.
Presets:
    `easy`, levels 0 and 1 of each attribute; `hard`, levels 1 and 2. Dials: least, most.
Reference policies:
    `random` gives the right answer to another problem of the family. `informed` has the lot and so regenerates each
    problem with its answer. `bayes` is an adaptive scripted policy that does not reason: it repeats the most frequent
    answer shown in its life, so that its reward rises only if some answers are more common than others. The floor is
    0, the ceiling 1.
Version history:
    Problems and scores are those of the installed reasoning-gym. Another version of it may generate other packs. Some
    families are excluded: the reference answers of boxnet, graph_color, propositional_logic, rubiks_cube and rush_hour
    do not score 1, the scorers of intermediate_integration, polynomial_multiplication and simple_integration run
    replies as code, and composite needs other families as arguments.
"""

from __future__ import annotations

from dataclasses import dataclass

from codots.core.rng import stream
from codots.core.templates import Prompts
from codots.domains.base import Domain, Env, Rng, Step, Task, World
from codots.domains.bridges.reasoning_gym.policies import AdaptivePolicy, Informed, Random, View, draw_problem
from codots.domains.bridges.reasoning_gym.problems import (
    LONGEST,
    Lot,
    Problem,
    check_family,
    draw_lot,
    draw_setting,
    harmless,
    other_answer,
    score,
    settings,
    stated_settings,
)
from codots.domains.family import Family, Policies, action
from codots.domains.registry import Bridge

render = Prompts(__package__)
TRIES = 1000
"""Maximum number of problems drawn to find one of the right split."""
SHOWN = 1000
"""Maximum characters of an answer shown in a context or to the updater."""
GUESSES = 16
"""Number of answers to other problems that guesses are drawn from."""


@dataclass(frozen=True)
class Dials:
    """Settings that differ between presets."""

    least: int
    """Minimum level of an attribute."""
    most: int
    """Maximum level of an attribute."""


@dataclass
class ProblemEnv:
    """The environment of one problem."""

    name: str
    problem: Problem

    def __post_init__(self) -> None:
        self.view = View(self.problem.number, self.problem.question)

    def observe(self) -> str:
        """Return the problem."""
        return self.problem.question

    def step(self, text: str) -> Step:
        """Score the answer in the text."""
        answer = (action(text) or "").strip()
        if not answer or len(answer) > LONGEST:
            return self._end("The reply did not hold one answer in <action></action>.", 0.0, "malformed")
        reward = score(self.name, self.problem, answer) if harmless(self.name, answer) else None
        if reward is None:
            return self._end("The checker cannot read this answer.", 0.0, "unread")
        stop = "solved" if reward == 1 else "partly" if reward > 0 else "wrong"
        return self._end(f"The checker gives {reward:.2g}.", reward, stop)

    def _end(self, message: str, reward: float, stop: str) -> Step:
        self.view = View(self.problem.number, self.problem.question, self.problem.answer)
        feedback = f"An answer that gets 1 here: {shortened(self.problem.answer)}" if stop != "solved" else ""
        return Step(message, reward, True, feedback, stop, self.view)


def shortened(answer: str) -> str:
    """Return an answer, truncated if it is very long."""
    return answer if len(answer) <= SHOWN else f"{answer[:SHOWN]}..."


def _claim_answer(answer: str) -> str:
    return f"- an answer: {shortened(answer)}".splitlines()[0]


class ReasoningGym(Family):
    """Domain family of one kind of Reasoning Gym problems."""

    rules: str
    """Name of the Reasoning Gym family."""
    chance = False
    solved_above = 0.99

    def make_world(self, rng: Rng, dials: Dials) -> Lot:
        """Draw the settings and the lot."""
        return draw_lot(rng, self.rules, dials.least, dials.most)

    def make_task(self, world: World, position: int, rng: Rng) -> Problem:
        """Draw problems of the lot until one belongs to this split. Raises RuntimeError if none of TRIES draws does."""
        for _ in range(TRIES):
            problem = draw_problem(rng, self.rules, world.hidden)
            if (problem.split == "train") == (world.split == "train"):
                return problem
        raise RuntimeError(
            f"{self.id} generated no problem for {world.split} in {TRIES} tries: it has too few different ones"
        )

    def side(self, task: Task) -> str:
        """Return the side, `train` or `held-out`, that the question belongs to."""
        problem: Problem = task.content
        return problem.split

    def make_env(self, task: Task, *, style: str = "natural", memory: object | None = None, rng: Rng) -> Env:
        """Open the environment of a task."""
        return ProblemEnv(self.rules, task.content)

    def rules_text(self, task: Task, style: str) -> str:
        """Return the rules of a task as text."""
        return render("rules", style, name=self.rules)

    def policies(self, world: World) -> Policies:
        """Return a factory for each scripted policy, by name."""
        levels = self._levels(world)
        return {
            "random": lambda: Random(stream(*world.names, "random"), self.rules, levels),
            "informed": lambda: Informed(self.rules, world.hidden),
            "bayes": lambda: AdaptivePolicy(stream(*world.names, "bayes"), self.rules, levels),
        }

    def claims(self, world: World, style: str) -> dict[str, str]:
        """Return the settings that differ from the defaults in every world, and the first line of an example answer."""
        found, (least, most) = settings(self.rules, world.hidden), self._levels(world)
        stated = [key for key in stated_settings(self.rules, least, most) if key in found]
        return {key: f"- {key}: {found[key]}" for key in stated} | {"answer": _claim_answer(self._example(world))}

    def guess(self, world: World, subject: str, style: str, rng: Rng) -> str:
        """Draw the value of a setting under other levels, or an answer to a problem of another world."""
        if subject == "answer":
            return _claim_answer(other_answer(self.rules, *self._levels(world), int(rng.integers(GUESSES))))
        return f"- {subject}: {draw_setting(rng, self.rules, subject, *self._levels(world))}"

    def _levels(self, world: World) -> tuple[int, int]:
        return world.dials.least, world.dials.most

    def _example(self, world: World) -> str:
        return draw_problem(stream(*world.names, "example"), self.rules, world.hidden).answer

    def oracle_context(self, world: World, style: str) -> str:
        """Return the settings and an example answer of this world as text."""
        lines = [f"- {key}: {value}" for key, value in settings(self.rules, world.hidden).items()]
        example = f"- an answer: {shortened(self._example(world))}"
        return "\n".join(["Settings of the problems here:", *lines, example])

    def ceiling(self, task: Task) -> float:
        """Return the reward of the family's reference answer."""
        return 1.0


def build(name: str) -> Domain:
    """Build the domain of a family. Raises ValueError if the family is unknown or excluded."""
    check_family(name)
    return ReasoningGym(f"reasoning-gym:{name}", name, {"easy": Dials(0, 1), "hard": Dials(1, 2)})


bridge = Bridge(build, "reasoning-gym:spell_backward", "reasoning_gym", "codots[reasoning-gym]")

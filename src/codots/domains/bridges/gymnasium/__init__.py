"""Gymnasium: environments with few actions, which are chosen by codes whose meaning is hidden.

Description:
    `gymnasium:<id>`, for example `gymnasium:FrozenLake-v1`, for any environment registered in the package gymnasium
    (`pip install 'codots[gymnasium]'`) with 2 to 7 discrete actions and discrete or text observations: Blackjack-v1,
    CliffWalking-v1, FrozenLake-v1, Taxi-v4, and environments that other packages register. Arguments follow a question
    mark: `gymnasium:FrozenLake-v1?is_slippery=false`.
Hidden and shared:
    The action of each code. The rules name the actions; maps and starts are public, and drawn by task.
Observation:
    The environment's text rendering, if it has one, with colors as brackets; then the observation and the reward of
    the step.
Action:
    Exactly one `<action>3</action>`.
Reward:
    The return of the episode, scaled linearly and clipped to [0, 1]. The median return of random play on the
    environment's own map maps to 0, the best possible return from this start to 1.
Episode end:
    `ended` if the environment ends the episode; `late` at the turn limit of the preset or the environment; or
    malformed text, with reward 0.
Presets:
    `easy`, 20 turns; `long`, 100. Dials: turns.
Reference policies:
    `random` draws codes uniformly. `informed` takes the best action under the true codes and the environment's table of
    outcomes. If there is no table (Blackjack), the outcomes are counted over 20,000 random episodes. `bayes` is an
    adaptive scripted policy (Thompson sampling): it keeps the posterior over the orders of the codes, draws an order at
    every turn, and acts as if that order were true. The floor is 0. The ceiling is exact if outcomes are deterministic
    or if no return is clipped (FrozenLake). Otherwise the ceiling is 1, which no policy reaches.
Version history:
    Environments are those of the installed gymnasium. Another version of it may behave differently and have other ids.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from codots.core.rng import digest, stream
from codots.domains.base import Domain, Env, Rng, Task, World
from codots.domains.bridges.gymnasium.env import CodedEnv, Start, View, codes, render
from codots.domains.bridges.gymnasium.model import model_of, zero_of
from codots.domains.bridges.gymnasium.notes import read_claims, write_claim
from codots.domains.bridges.gymnasium.policies import AdaptivePolicy, Informed, Random
from codots.domains.bridges.gymnasium.upstream import Spec, draw_board, find_spec, open_env, plain
from codots.domains.family import Family, Policies
from codots.domains.registry import Bridge

TRIES = 200
"""Maximum number of starts drawn for a task."""


@dataclass(frozen=True)
class Dials:
    """Settings that differ between presets."""

    turns: int
    """Maximum actions of an episode."""


class Gymnasium(Family):
    """Domain family of a Gymnasium environment whose actions are hidden behind codes."""

    rules: Spec
    chance = False
    solved_above = 0.5

    def _turns(self, dials: Dials) -> int:
        return min(dials.turns, self.rules.limit or dials.turns)

    def make_world(self, rng: Rng, dials: Dials) -> tuple[int, ...]:
        """Draw the action of each code. Actions and codes are counted from 0."""
        return tuple(rng.permutation(self.rules.actions).tolist())

    def make_task(self, world: World, position: int, rng: Rng) -> Start:
        """Draw starts until one can earn more than random play and its map belongs to this split.

        Raises RuntimeError if none of TRIES draws qualifies.
        """
        turns = self._turns(world.dials)
        for _ in range(TRIES):
            board = draw_board(self.rules, rng)
            start = self._start(board, int(rng.integers(1 << 31)), turns)
            if start.one > start.zero and (board is None or (_side(board) == "train") == (world.split == "train")):
                return start
        raise RuntimeError(f"{self.id} has no start in {TRIES} from which {turns} turns can earn more than random play")

    def _start(self, board: tuple[str, ...] | None, seed: int, turns: int) -> Start:
        env = open_env(self.rules, board, drawn=False)
        seen = plain(env.reset(seed=seed)[0])
        env.close()
        model, zero = model_of(self.rules, board, turns), zero_of(self.rules, turns)
        state = model.states.get(seen)
        best = model.bounds(turns)[1]
        return Start(seed, board, seen, zero, float(best.max() if state is None else best[state]))

    def side(self, task: Task) -> str | None:
        """Return the side, `train` or `held-out`, that the map belongs to, or None if the environment takes no map."""
        start: Start = task.content
        return None if start.board is None else _side(start.board)

    def make_env(self, task: Task, *, style: str = "natural", memory: object | None = None, rng: Rng) -> Env:
        """Open the environment of a task."""
        return CodedEnv(self.rules, task.content, task.world.hidden, self._turns(task.world.dials))

    def rules_text(self, task: Task, style: str) -> str:
        """Return the rules of a task as text."""
        spec = self.rules
        slippery = dict(spec.options).get("is_slippery", True)
        values = {"id": spec.id, "kind": spec.kind, "slippery": slippery, "turns": self._turns(task.world.dials)}
        return render("rules", style, names=sorted(spec.names), codes=codes(spec), **values)

    def policies(self, world: World) -> Policies:
        """Return a factory for each scripted policy, by name."""
        turns = self._turns(world.dials)
        return {
            "random": lambda: Random(self.rules, turns, stream(*world.names, "random")),
            "informed": lambda: Informed(self.rules, turns, world.hidden),
            "bayes": lambda: AdaptivePolicy(self.rules, turns, stream(*world.names, "bayes")),
        }

    def claims(self, world: World, style: str) -> dict[str, str]:
        """Return the action of each code."""
        pairs = zip(codes(self.rules), enumerate(world.hidden), strict=True)
        return {code: write_claim(self.rules, *pair) for code, pair in pairs}

    def guess(self, world: World, subject: str, style: str, rng: Rng) -> str:
        """Draw a claim with a uniformly drawn action."""
        return write_claim(self.rules, int(subject) - 1, int(rng.integers(self.rules.actions)))

    def twin(self, world: World, rng: Rng) -> World:
        """Draw another mapping of codes to actions."""
        while (other := self.make_world(rng, world.dials)) == world.hidden:
            pass
        return replace(world, hidden=other)

    def facts(self, world: World, context: str) -> tuple[int, int, int]:
        """Count claims of the form `code ... action`. Repeated claims count each time."""
        claims = read_claims(self.rules, context)
        right = sum(world.hidden[code] == action for code, action in claims)
        return right, len(claims) - right, self.rules.actions

    def draw(self, view: View) -> str | None:
        """Return the environment's text rendering, or None if it has none."""
        return view.picture or None


class ExactGymnasium(Gymnasium):
    """Domain family of a Gymnasium environment whose ceiling is exact.

    The ceiling is exact because the outcomes are deterministic or because none of the returns is clipped.
    """

    def ceiling(self, task: Task) -> float:
        """Return the expected reward of the best play."""
        start: Start = task.content
        turns = self._turns(task.world.dials)
        model = model_of(self.rules, start.board, turns)
        return start.reward(float(model.values(turns)[0][model.states[start.seen]].max()))


def _side(board: tuple[str, ...]) -> str:
    """Return the side, `train` or `held-out`, that a map belongs to."""
    return "train" if digest("gymnasium", *board) % 2 else "held-out"


def build(name: str) -> Domain:
    """Build the domain of an environment. Raises ValueError if the environment is unknown or unsupported."""
    spec, presets = find_spec(name), {"easy": Dials(20), "long": Dials(100)}
    domain = Gymnasium(f"gymnasium:{name}", spec, presets)
    turns = max(map(domain._turns, presets.values()))
    model = model_of(spec, None, turns)
    exact = model.certain or (model.declared and bool((model.bounds(turns)[0] >= zero_of(spec, turns)).all()))
    return ExactGymnasium(domain.id, spec, presets) if exact else domain


bridge = Bridge(build, "gymnasium:FrozenLake-v1", "gymnasium", "codots[gymnasium]")

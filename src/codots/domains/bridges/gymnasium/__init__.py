"""Gymnasium: environments of few actions, taken by codes whose meaning is hidden.

Description:
    `gymnasium:<id>`, for example `gymnasium:FrozenLake-v1`, of any environment that the package gymnasium knows
    (`pip install 'codots[gymnasium]'`) with 2 to 7 discrete actions and observations that can be counted or read:
    Blackjack-v1, CliffWalking-v1, FrozenLake-v1, Taxi-v4, and what other packages register. Arguments stand behind a
    question mark: `gymnasium:FrozenLake-v1?is_slippery=false`.
Hidden and shared:
    Which code stands for which action. What the actions are is told; maps and starts are public, and drawn by task.
Observation:
    The environment's own picture in text, colours as brackets, where it has one; its observation; what the step paid.
Action:
    Exactly one `<action>3</action>`.
Reward:
    All that the episode paid, linear between 0, what half of random plays do not exceed (on the environment's own map),
    and 1, the best that may come of this start; what lies outside counts as 0 or 1.
Episode end:
    `ended`, by the environment; `late`, out of turns, the preset's or the environment's own; or malformed text, which
    pays 0.
Presets:
    `easy`, 20 turns; `long`, 100. Dials: turns.
Reference policies:
    `random`, codes drawn evenly; `informed`, knows the codes and takes the action that is best by the environment's
    table of outcomes, or where it has none (Blackjack) by outcomes counted over 20,000 random plays; `bayes`, a
    scripted learner (Thompson sampling): keeps the posterior over the orders of the codes, draws one at every turn, and
    acts as if it were true. The floor is 0. The ceiling is exact where outcomes are certain, or where no return can be
    clipped (FrozenLake); elsewhere it is 1, which nobody reaches.
Version history:
    Environments are those of the installed gymnasium: another version may play differently, and has other ids.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from codots.core.rng import digest, stream
from codots.domains.base import Domain, Env, Rng, Task, World
from codots.domains.bridges.gymnasium.env import CodedEnv, Start, View, codes, render
from codots.domains.bridges.gymnasium.model import model_of, zero_of
from codots.domains.bridges.gymnasium.policies import Informed, Learner, Random
from codots.domains.bridges.gymnasium.upstream import Spec, draw_board, look_into, open_env, plain
from codots.domains.family import Family, Policies
from codots.domains.registry import Bridge

TRIES = 200
"""Starts that are drawn until one is worth playing."""


@dataclass(frozen=True)
class Dials:
    """What differs between presets."""

    turns: int
    """Actions of an episode."""


class Gymnasium(Family):
    """Episodes of one environment."""

    rules: Spec
    chance = False

    def _turns(self, dials: Dials) -> int:
        return min(dials.turns, self.rules.limit or dials.turns)

    def make_world(self, rng: Rng, dials: Dials) -> tuple[int, ...]:
        """Draw the action of each code, counted from 0."""
        return tuple(rng.permutation(self.rules.actions).tolist())

    def make_task(self, world: World, position: int, rng: Rng) -> Start:
        """Draw starts until there is something to earn and the map belongs to this split.

        Raises RuntimeError where there is none.
        """
        turns = self._turns(world.dials)
        for _ in range(TRIES):
            board = draw_board(self.rules, rng)
            start = self._start(board, int(rng.integers(1 << 31)), turns)
            if start.one > start.zero and (board is None or (_side(board) == "train") == (world.split == "train")):
                return start
        raise RuntimeError(f"{self.id} has no start in {TRIES} from which {turns} turns earn more than random play")

    def _start(self, board: tuple[str, ...] | None, seed: int, turns: int) -> Start:
        env = open_env(self.rules, board, drawn=False)
        seen = plain(env.reset(seed=seed)[0])
        env.close()
        model, zero = model_of(self.rules, board, turns), zero_of(self.rules, turns)
        state = model.states.get(seen)
        best = model.bounds(turns)[1]
        return Start(seed, board, seen, zero, float(best.max() if state is None else best[state]))

    def side(self, task: Task) -> str | None:
        """Maps are kept apart; where there are none, nothing is."""
        start: Start = task.content
        return None if start.board is None else _side(start.board)

    def make_env(self, task: Task, *, style: str = "natural", memory: object | None = None, rng: Rng) -> Env:
        """Open an episode."""
        return CodedEnv(self.rules, task.content, task.world.hidden, self._turns(task.world.dials))

    def rules_text(self, task: Task, style: str) -> str:
        """Say what there is to do, and that the codes are hidden."""
        spec = self.rules
        slippery = dict(spec.options).get("is_slippery", True)
        told = {"id": spec.id, "kind": spec.kind, "slippery": slippery, "turns": self._turns(task.world.dials)}
        return render("rules", style, names=sorted(spec.names), codes=codes(spec), **told)

    def policies(self, world: World) -> Policies:
        """Say how each scripted player is made."""
        turns = self._turns(world.dials)
        return {
            "random": lambda: Random(self.rules, stream(*world.names, "random")),
            "informed": lambda: Informed(self.rules, turns, world.hidden),
            "bayes": lambda: Learner(self.rules, turns, stream(*world.names, "bayes")),
        }

    def oracle_context(self, world: World, style: str) -> str:
        """Write down what each code stands for."""
        pairs = zip(codes(self.rules), world.hidden, strict=True)
        return "\n".join(f"- code {code} is {self.rules.names[action]}" for code, action in pairs)

    def twin(self, world: World, rng: Rng) -> World:
        """Draw another order of the codes."""
        while (other := self.make_world(rng, world.dials)) == world.hidden:
            pass
        return replace(world, hidden=other)

    def facts(self, world: World, context: str) -> tuple[int, int, int]:
        """Count claims of the form code ... action; a code claimed twice counts twice."""
        names = [name.lower() for name in self.rules.names]
        claims = [(int(code) - 1, names.index(name.lower())) for code, name in self._claims(context)]
        right = sum(world.hidden[code] == action for code, action in claims)
        return right, len(claims) - right, self.rules.actions

    def _claims(self, context: str) -> list[tuple[str, str]]:
        names = "|".join(map(re.escape, self.rules.names))
        said = rf"\b([1-{self.rules.actions}])\b(?:\W+(?!(?:{names})\b)[a-z]+){{0,4}}?\W+({names})\b"
        return re.findall(said, context, re.I)

    def draw(self, view: View) -> str | None:
        """Show the environment's picture."""
        return view.picture or None


class Told(Gymnasium):
    """Episodes of an environment that tells its outcomes, where none of its returns is clipped on the best way."""

    def ceiling(self, task: Task) -> float:
        """The expected reward of the best play."""
        start: Start = task.content
        turns = self._turns(task.world.dials)
        model = model_of(self.rules, start.board, turns)
        return start.worth(float(model.values(turns)[0][model.states[start.seen]].max()))


def _side(board: tuple[str, ...]) -> str:
    """Whether a map belongs to `train` or is held out."""
    return "train" if digest("gymnasium", *board) % 2 else "held-out"


def build(name: str) -> Domain:
    """Make the domain of an environment. Raises ValueError for one that is unknown or cannot be bridged."""
    spec, presets = look_into(name), {"easy": Dials(20), "long": Dials(100)}
    domain = Gymnasium(f"gymnasium:{name}", spec, presets)
    turns = max(map(domain._turns, presets.values()))
    model = model_of(spec, None, turns)
    exact = model.certain or (model.told and bool((model.bounds(turns)[0] >= zero_of(spec, turns)).all()))
    return Told(domain.id, spec, presets) if exact else domain


bridge = Bridge(build, "gymnasium:FrozenLake-v1", "gymnasium", "codots[gymnasium]")

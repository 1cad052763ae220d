"""Alchemy-Random: combine elements into the one that is asked for, by recipes that are hidden.

Description:
    Elements stand in tiers; those of tier 0 are given. A pair of elements makes one of a higher tier, or nothing. Each
    task asks for one element.
Hidden and shared:
    The recipe book: which pair makes what. Elements and their tiers are public; their names are drawn for each world.
Observation:
    The target and the stock, then what each attempt made and the stock after it. Elements are made-up words in
    `natural`, letters in `compact`.
Action:
    Two elements. `natural` reads exactly one `<action>this + that</action>`; `compact` reads the last two words:
    `e a c` hopes for e and combines a with c. To name what is not in stock costs the round.
Reward:
    Holding the target after round k of H gives 1 - 0.1 k/H, anything else 0.
Episode end:
    the target (`made`), out of rounds (`late`), too little left to combine (`spent`), or malformed text.
Presets:
    v0 has the paper's `easy` and `hard`. v1 turns one dial of its `easy` at a time: `tall` (another tier), `wide`
    (more elements), `double` (second recipes), `noisy` (elements good for nothing), `limited` (attempts use up copies,
    of which there are plenty) and from there `scarce` (few copies). `hard` turns all of them; `tiny` is for tests.
    Dials: rounds, tiers, base, growth, recipes, gap, cross, noise, depth, limited, copies, targets.
Reference policies:
    `random`, an even draw of the pairs that the stock allows; `informed`, a shortest way under the true book; `bayes`,
    a scripted learner, not the optimum: it remembers every pair of the life, follows a shortest way of recipes it
    knows, else tries the pair that by the prior most likely helps. `floor` is the mean of 32 random plays of the task.
Version history:
    v0: the rules of arXiv 2606.20002: few targets, which return within a pack; recipes never cross a tier; below a
    tier of one element a recipe can be read off the table; noise stands last in its tier; some tasks of `hard` cannot
    be solved; the updater is not told what the last round did; the natural prompt advises to explore. The paper draws
    as many targets as a pack has tasks; here they are 8, the size of its evaluation packs.
    v1: more elements than targets, 8 different targets before one returns, recipes that cross tiers, tiers of at
    least two, a mixed table, every task proved solvable by a search, books split by content between `train` and
    held-out, the last round told, no advice.
"""

from __future__ import annotations

from dataclasses import replace

from codots.core.rng import stream
from codots.domains.alchemy.book import Book, counted_copies, least_copies, opening_stock, plan
from codots.domains.alchemy.draw import Dials, Rules, draw_book
from codots.domains.alchemy.env import AlchemyEnv, Order, View, held, render
from codots.domains.alchemy.notes import claims, write_down
from codots.domains.alchemy.policies import Informed, Learner, Random
from codots.domains.base import Env, Rng, Task, World
from codots.domains.family import Family, Policies
from codots.domains.registry import register
from codots.domains.scripted import turns

LUCK = 32
"""Random plays that the floor of a task is the mean of."""


class Alchemy(Family):
    """The family, under one set of rules."""

    rules: Rules
    chance = False
    styles = ("natural", "compact")

    def make_world(self, rng: Rng, dials: Dials) -> Book:
        """Draw the recipe book."""
        return draw_book(rng, dials, self.rules)

    def belongs(self, hidden: Book, split: str) -> bool:
        """Keep the books of `train` apart from all others."""
        return not self.rules.split or (hidden.side == "train") == (split == "train")

    def make_task(self, world: World, position: int, rng: Rng) -> Order:
        """Ask for the next target, and count out what it takes."""
        book, dials = world.hidden, world.dials
        target = book.targets[position % len(book.targets)]
        if not dials.limited:
            return Order(target, 1)
        needed = self._needed(book, target)
        return Order(target, max(needed, int(needed * rng.uniform(*dials.copies) + 0.5)))

    def _needed(self, book: Book, target: int) -> int:
        return (least_copies(book, target) or 1) if self.rules.proved else counted_copies(book, target)

    def make_env(self, task: Task, *, style: str = "natural", memory: object | None = None, rng: Rng) -> Env:
        """Open the laboratory."""
        return self._env(task, style)

    def _env(self, task: Task, style: str) -> AlchemyEnv:
        return AlchemyEnv(task.content, task.world.hidden, self.rules, task.world.dials, style)

    def rules_text(self, task: Task, style: str) -> str:
        """Say the rules, and what elements there are."""
        table = task.world.hidden.table
        names = table.names(style)
        return render("rules", style, dials=task.world.dials, rules=self.rules, table=table, names=names)

    def policies(self, world: World) -> Policies:
        """Say how each scripted player is made."""
        return {
            "random": lambda: Random(stream(*world.names, "random")),
            "informed": lambda: Informed(world.hidden),
            "bayes": lambda: Learner(world.dials, stream(*world.names, "bayes")),
        }

    def oracle_context(self, world: World, style: str) -> str:
        """Write the whole book down."""
        return write_down(world.hidden.table, sorted(world.hidden.recipes), style)

    def floor(self, task: Task) -> float:
        """The mean reward of some random plays, the same ones every time."""
        player, total = Random(stream(*task.names, "floor")), 0.0
        for _ in range(LUCK):
            *_, (_, last) = turns(self._env(task, "compact"), player.act)
            total += last.reward
        return min(total / LUCK, self.ceiling(task))  # no more than the ceiling, but for the rounding of a sum

    def ceiling(self, task: Task) -> float:
        """The reward of a shortest way, 0 where there is none."""
        book, dials, order = task.world.hidden, task.world.dials, task.content
        way = plan(book.ways, opening_stock(book.table, order.copies), order.target, dials.limited)
        return 0.0 if way is None or len(way) > dials.rounds else 1 - 0.1 * len(way) / dials.rounds

    def twin(self, world: World, rng: Rng) -> World:
        """Let elements of one tier that take as many copies to make change places, so that no task gets harder."""
        book: Book = world.hidden
        needed = [self._needed(book, e) if world.dials.limited else 1 for e in range(len(book.table.tier))]
        classes = [(tier, e in book.noise, needed[e]) for e, tier in enumerate(book.table.tier)]
        for _ in range(100):  # where little is hidden, a shuffled book may be the same again
            twin = book.shuffled(rng, classes)
            if twin.products != book.products:
                break
        return replace(world, hidden=twin)

    def facts(self, world: World, context: str) -> tuple[int, int, int]:
        """Count recipes that are claimed, each once; what makes nothing is not counted."""
        book: Book = world.hidden
        claimed = claims(book.table, context)
        right = sum(book.products.get(pair) == product for pair, product in claimed)
        return right, len(claimed) - right, len(book.recipes)

    def draw(self, view: View) -> str:
        """List the stock and the target."""
        names = view.table.names(view.style)
        stock = " ".join(f"{name}x{n}" if view.limited else name for name, n in held(view))
        return f"round {view.turn} of {view.rounds}, target {names[view.target]}\n{stock}"


V0 = Rules(
    least=1,
    refuse=False,
    mixed=False,
    proved=False,
    split=False,
    last_round_told=False,
    advice=True,
)
V1 = Rules(
    least=2,
    refuse=True,
    mixed=True,
    proved=True,
    split=True,
    last_round_told=True,
    advice=False,
)
V0_EASY = Dials(rounds=8, tiers=(3, 4), base=(3, 4), growth=(0.4, 0.6), cross=(0.0, 0.1))
V0_HARD = Dials(
    rounds=15,
    tiers=(3, 4),
    base=(4, 6),
    growth=(0.4, 0.8),
    recipes=(1, 2),
    cross=(0.0, 0.05),
    noise=(0.0, 0.3),
    limited=True,
)
EASY = Dials(rounds=8, tiers=(3, 3), base=(4, 4), growth=(1.0, 1.3), gap=3, cross=(0.1, 0.3))
LIMITED = replace(EASY, limited=True, copies=(4.0, 4.0))  # plenty: the rounds are what runs out
HARD = replace(V0_HARD, growth=(0.7, 1.0), gap=3, cross=(0.1, 0.3))
ONE_DIAL_EACH = {
    "easy": EASY,
    "tall": replace(EASY, tiers=(4, 4)),
    "wide": replace(EASY, base=(6, 6)),
    "double": replace(EASY, recipes=(1, 2)),
    "noisy": replace(EASY, noise=(0.2, 0.4)),
    "limited": LIMITED,
    "scarce": replace(LIMITED, copies=(1.5, 2.0)),
    "hard": HARD,
    "tiny": replace(EASY, rounds=6, base=(3, 3), targets=4),
}

register(Alchemy("alchemy-v0", V0, {"easy": V0_EASY, "hard": V0_HARD}))
register(Alchemy("alchemy-v1", V1, ONE_DIAL_EACH))

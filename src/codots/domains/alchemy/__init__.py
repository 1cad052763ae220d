"""Alchemy-Random: combine elements into the requested one by hidden recipes.

Description:
    Elements are arranged in tiers; those of tier 0 are given. A pair of elements makes one element of a higher tier, or
    nothing. Each task asks for one element.
Hidden and shared:
    The recipe book: which pair makes what. Elements and their tiers are public; their names are drawn for each world.
Observation:
    The target and the stock, then the result of each attempt and the new stock. Elements are invented words in
    `natural`, letters in `compact`.
Action:
    Two elements. `natural` requires exactly one `<action>this + that</action>`; `compact` takes the last two words:
    `e a c` combines a with c and hopes for e. Naming an element that is not in stock costs the round.
Reward:
    1 - 0.1 k/H for holding the target after round k of H; otherwise 0.
Episode end:
    `made` (the target), `late` (out of rounds), `spent` (too few copies left to combine), or malformed text.
Presets:
    v0 has the paper's `easy` and `hard`. v1 changes one dial of its `easy` at a time: `tall` (one more tier), `wide`
    (more elements), `double` (second recipes), `noisy` (useless elements), `drift` (the book changes once), `limited`
    (attempts use up copies, which are plentiful). `scarce` is `limited` with few copies, `hard` changes all dials,
    `tiny` is for tests.
    Dials: rounds, tiers, base, growth, recipes, gap, cross, noise, depth, limited, copies, targets, change.
Reference policies:
    `random` draws uniformly among the pairs that the stock allows. `informed` follows a shortest plan under the true
    book. `bayes` is an adaptive scripted policy, not the optimum: it remembers every pair of the life, follows a
    shortest plan of known recipes if there is one, and otherwise tries the pair that most likely helps under the prior.
    `floor` is the mean reward of 32 random plays of the task.
Version history:
    v0: the rules of arXiv 2606.20002. There are few targets, and they repeat within a pack. Recipes never cross a tier.
    Below a tier of one element, a recipe can be read off the table. Noise comes last in its tier. Some tasks of `hard`
    cannot be solved. The updater does not see the result of the last round. The natural prompt advises exploration. The
    paper draws as many targets as a pack has tasks; here there are 8, the size of its evaluation packs.
    v1: more elements than targets, 8 different targets before one repeats, recipes that cross tiers, tiers of at least
    two elements, a shuffled table, every task proved solvable by search, books split by content between `train` and
    held-out. The updater sees the result of the last round. There is no advice.
"""

from __future__ import annotations

from dataclasses import replace

from codots.core.rng import stream
from codots.domains.alchemy.book import Book, Table, counted_copies, least_copies, opening_stock, plan
from codots.domains.alchemy.draw import Dials, Rules, draw_book
from codots.domains.alchemy.env import AlchemyEnv, Order, View, held, render
from codots.domains.alchemy.notes import NOTHING, by_subject, products_of, read_claims, write_claim
from codots.domains.alchemy.policies import AdaptivePolicy, Informed, Random, guess_recipe
from codots.domains.base import Env, Rng, Task, World
from codots.domains.drift import Drift, holds
from codots.domains.family import Family, Policies
from codots.domains.registry import register
from codots.domains.scripted import turns

FLOOR_PLAYS = 32
"""Number of random plays averaged for the floor of a task."""


class Alchemy(Family):
    """Domain family: make elements by hidden recipes. Each version has one rule set."""

    rules: Rules
    chance = False
    styles = ("natural", "compact")

    def make_world(self, rng: Rng, dials: Dials) -> Book | Drift:
        """Draw the recipe book, or two of them if it changes."""
        book: Book | Drift = self.drift(draw_book(rng, dials, self.rules), dials, rng)
        return book

    def belongs(self, hidden: Book | Drift, split: str) -> bool:
        """Return whether a book may appear in this split. `train` and the held-out splits share no book."""
        return not self.rules.split or (holds(hidden).side == "train") == (split == "train")

    def make_task(self, world: World, position: int, rng: Rng) -> Order:
        """Return the order for the target at this position, with the number of copies in the initial stock."""
        book, dials = holds(world.hidden), world.dials
        target = book.targets[position % len(book.targets)]
        if not dials.limited:
            return Order(target, 1)
        needed = self._needed(book, target)
        return Order(target, max(needed, int(needed * rng.uniform(*dials.copies) + 0.5)))

    def _needed(self, book: Book, target: int) -> int:
        return (least_copies(book, target) or 1) if self.rules.proved else counted_copies(book, target)

    def make_env(self, task: Task, *, style: str = "natural", memory: object | None = None, rng: Rng) -> Env:
        """Open the environment of a task."""
        return self._env(task, style)

    def _env(self, task: Task, style: str) -> AlchemyEnv:
        return AlchemyEnv(task.content, holds(task.world.hidden, task.position), self.rules, task.world.dials, style)

    def rules_text(self, task: Task, style: str) -> str:
        """Render the rules of a task and the table of elements."""
        table = holds(task.world.hidden).table
        names = table.names(style)
        return render("rules", style, dials=task.world.dials, rules=self.rules, table=table, names=names)

    def policies(self, world: World) -> Policies:
        """Return a factory for each scripted policy, by name."""
        table, dials = holds(world.hidden).table, world.dials
        return {
            "random": lambda: Random(table, dials, stream(*world.names, "random")),
            "informed": lambda: Informed(world.hidden),
            "bayes": lambda: AdaptivePolicy(table, dials, stream(*world.names, "bayes")),
        }

    def claims(self, world: World, style: str) -> dict[str, str]:
        """Return the recipes, each by its product. Further recipes of a product are numbered by tier."""
        book: Book = holds(world.hidden)
        recipes = by_subject(book.table, book.recipes)
        return {subject: write_claim(book.table, recipe, style) for subject, recipe in recipes.items()}

    def guess(self, world: World, subject: str, style: str, rng: Rng) -> str:
        """Draw a recipe of a product from the prior."""
        table: Table = holds(world.hidden).table
        products = products_of(table, subject)
        product = products[int(rng.random() * len(products))]
        return write_claim(table, guess_recipe(table, world.dials, product, rng), style)

    def oracle_context(self, world: World, style: str) -> str:
        """Return the whole recipe book as text, sorted by inputs."""
        book: Book = holds(world.hidden)
        return self.note((write_claim(book.table, recipe, style) for recipe in sorted(book.recipes)), style)

    def floor(self, task: Task) -> float:
        """Return the mean reward of FLOOR_PLAYS random plays, which are the same on every call."""
        table, dials = holds(task.world.hidden).table, task.world.dials
        policy, total = Random(table, dials, stream(*task.names, "floor")), 0.0
        for _ in range(FLOOR_PLAYS):
            *_, (_, last) = turns(self._env(task, "compact"), policy.act)
            total += last.reward
        return min(total / FLOOR_PLAYS, self.ceiling(task))  # rounding could lift the mean above the ceiling

    def ceiling(self, task: Task) -> float:
        """Return the reward of a shortest plan, or 0 if the task cannot be solved."""
        book, dials, order = holds(task.world.hidden, task.position), task.world.dials, task.content
        pairs = plan(book.pairs_by_product, opening_stock(book.table, order.copies), order.target, dials.limited)
        return 0.0 if pairs is None or len(pairs) > dials.rounds else 1 - 0.1 * len(pairs) / dials.rounds

    def twin(self, world: World, rng: Rng) -> World:
        """Return the world with a shuffled book.

        Elements swap places only within a tier and only if they need equally many copies, so no task gets harder.
        """
        book: Book = holds(world.hidden)
        needed = [self._needed(book, e) if world.dials.limited else 1 for e in range(len(book.table.tier))]
        classes = [(tier, e in book.noise, needed[e]) for e, tier in enumerate(book.table.tier)]
        for _ in range(100):  # if little is hidden, a shuffle may return the same book
            twin = book.shuffled(rng, classes)
            if twin.products != book.products:
                break
        return replace(world, hidden=twin if book is world.hidden else self.drift(twin, world.dials, rng))

    def facts(self, world: World, context: str) -> tuple[int, int, int]:
        """Count claimed recipes, each only once. Claims that a pair makes nothing are ignored."""
        book: Book = holds(world.hidden)
        claims = [claim for claim in read_claims(book.table, context) if claim[2] != NOTHING]
        right = sum(book.products.get((a, b)) == product for a, b, product in claims)
        return right, len(claims) - right, len(book.recipes)

    def draw(self, view: View) -> str:
        """Return the round, the target and the stock as text."""
        names = view.table.names(view.style)
        stock = " ".join(f"{name}x{n}" if view.limited else name for name, n in held(view))
        return f"round {view.turn} of {view.rounds}, target {names[view.target]}\n{stock}"


V0 = Rules(
    least=1,
    refuse=False,
    mixed=False,
    proved=False,
    split=False,
    last_round_shown=False,
    advice=True,
)
V1 = Rules(
    least=2,
    refuse=True,
    mixed=True,
    proved=True,
    split=True,
    last_round_shown=True,
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
LIMITED = replace(EASY, limited=True, copies=(4.0, 4.0))  # plentiful, so that rounds run out first
HARD = replace(V0_HARD, growth=(0.7, 1.0), gap=3, cross=(0.1, 0.3))
V1_PRESETS = {
    "easy": EASY,
    "tall": replace(EASY, tiers=(4, 4)),
    "wide": replace(EASY, base=(6, 6)),
    "double": replace(EASY, recipes=(1, 2)),
    "noisy": replace(EASY, noise=(0.2, 0.4)),
    "drift": replace(EASY, change=(2, 5)),
    "limited": LIMITED,
    "scarce": replace(LIMITED, copies=(1.5, 2.0)),
    "hard": HARD,
    "tiny": replace(EASY, rounds=6, base=(3, 3), targets=4),
}

register(Alchemy("alchemy-v0", V0, {"easy": V0_EASY, "hard": V0_HARD}))
register(Alchemy("alchemy-v1", V1, V1_PRESETS))

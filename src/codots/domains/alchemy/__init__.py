"""stub"""
from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

from codots.domain import Domain, Env, Policy, Rng, nearest, register
from codots.domains.alchemy.book import Book, Pair, counted_copies, least_copies, opening_stock, ordered, plan
from codots.domains.alchemy.draw import Dials, Rules, draw_book
from codots.domains.alchemy.env import AlchemyEnv, Order, View, held
from codots.domains.alchemy.players import Informed, Learner, Random
from codots.domains.alchemy.prompts import render
from codots.pack import Task, World, stream

CLAIM = re.compile(r"\b([a-z]{1,5})(?: ?\+ ?| and | with | )([a-z]{1,5}) ?(?:=|->|:|makes|gives) ?([a-z]{1,5})\b")
LUCK = 32
"""Plays of the random policy that the floor of a task is taken from."""


class Alchemy(Domain):
    """The family, under one set of rules."""

    styles = ("natural", "compact")

    def __init__(self, id: str, rules: Rules, presets: dict[str, Dials]) -> None:
        self.id = id
        self.rules = rules
        self.presets = presets

    def make_world(self, rng: Rng, dials: Dials) -> Book:
        """Draw the recipe book."""
        return draw_book(rng, dials, self.rules)

    def belongs(self, hidden: Book, split: str) -> bool:
        """Keep the books of `train` apart from all others."""
        return not self.rules.split or (hidden.side == "train") == (split == "train")

    def make_task(self, world: World, position: int, rng: Rng) -> Order:
        """Ask for the next target, and count out what it takes."""
        book: Book = world.hidden
        target = book.targets[position % len(book.targets)]
        needed = self._copies(book, target, world.dials)
        spare = rng.uniform(*world.dials.copies)
        return Order(target, max(needed, int(needed * spare + 0.5)) if world.dials.limited else 1)

    def _copies(self, book: Book, target: int, dials: Dials) -> int:
        if not dials.limited:
            return 1
        return (least_copies(book, target) or 1) if self.rules.proved else counted_copies(book, target)

    def make_env(self, task: Task, *, style: str = "natural", memory: object | None = None, rng: Rng) -> Env:
        """Open a laboratory."""
        if style not in self.styles:
            raise ValueError(nearest(style, list(self.styles), "prompt style"))
        return AlchemyEnv(task.content, task.world.hidden, self.rules, task.world.dials, style)

    def rules_text(self, task: Task, style: str) -> str:
        """Say the rules, and what elements there are."""
        table = task.world.hidden.table
        names = table.names(style)
        return render("rules", style, dials=task.world.dials, rules=self.rules, table=table, names=names)

    def policy(self, name: str, world: World) -> Policy:
        """Give a scripted player."""
        if name == "random":
            return Random(stream(*world.names, "random"))
        if name == "informed":
            return Informed(world.hidden)
        if name == "bayes":
            return Learner(world.dials, stream(*world.names, "bayes"))
        raise ValueError(nearest(name, ["random", "informed", "bayes"], "policy"))

    def oracle_context(self, world: World, style: str) -> str:
        """Write the whole book down."""
        book: Book = world.hidden
        names = book.table.names(style)
        written = "{} {} = {}" if style == "compact" else "- {} + {} makes {}"
        return "\n".join(written.format(*(names[e] for e in recipe)) for recipe in sorted(book.recipes))

    def floor(self, task: Task) -> float:
        """The mean reward of some random plays, always the same ones."""
        player, rewards = Random(stream(*task.names, "floor")), 0.0
        for _ in range(LUCK):
            env = AlchemyEnv(task.content, task.world.hidden, self.rules, task.world.dials, "compact")
            step = env.step(player.act(env.view))
            while not step.done:
                step = env.step(player.act(step.view))
            rewards += step.reward
        return min(rewards / LUCK, self.ceiling(task))

    def ceiling(self, task: Task) -> float:
        """The reward of a shortest way, 0 where there is none."""
        book, dials, order = task.world.hidden, task.world.dials, task.content
        stock = opening_stock(book.table, order.copies)
        way = plan(book.ways, stock, order.target, dials.limited)
        return 0.0 if way is None or len(way) > dials.rounds else 1 - 0.1 * len(way) / dials.rounds

    def twin(self, world: World, rng: Rng) -> World:
        """Let elements change places that look alike: of one tier, and in need of as many copies."""
        book: Book = world.hidden
        copies = [self._copies(book, e, world.dials) for e in range(len(book.table.tier))]
        classes = [(tier, e in book.noise, copies[e]) for e, tier in enumerate(book.table.tier)]
        for _ in range(100):
            twin = book.shuffled(rng, classes)
            if twin.products != book.products:
                break
        return replace(world, hidden=twin)

    def facts(self, world: World, context: str) -> tuple[int, int, int]:
        """Count recipes that are claimed, each once, by whatever names; what makes nothing is not counted."""
        book: Book = world.hidden
        claimed = claims(book, context)
        right = sum(book.products.get(pair) == product for pair, product in claimed)
        return right, len(claimed) - right, len(book.recipes)

    def draw(self, view: Any) -> str:
        return draw(view)


def claims(book: Book, context: str) -> set[tuple[Pair, int]]:
    """The recipes that a text claims: two names and what they make."""
    numbers = book.table.numbers
    found = (tuple(numbers.get(name, -1) for name in claim) for claim in CLAIM.findall(context.lower()))
    return {(ordered(a, b), product) for a, b, product in found if min(a, b, product) >= 0}

def draw(view: View) -> str:
    return ""


V0 = Rules(
    least=1, refuse=False, mixed=False, proved=False, split=False, last_round_told=False, advice=True
)
V1 = Rules(least=2, refuse=True, mixed=True, proved=True, split=True, last_round_told=True, advice=False)
EASY_V0 = Dials(rounds=8, tiers=(3, 4), base=(3, 4), shrink=(0.4, 0.6), cross=(0.0, 0.1))
HARD_V0 = Dials(
    rounds=15, tiers=(3, 4), base=(4, 6), shrink=(0.4, 0.8), recipes=(1, 2), cross=(0.0, 0.05), noise=(0.0, 0.3), limited=True
)
EASY = Dials(rounds=8, tiers=(4, 4), base=(4, 5), shrink=(0.8, 1.0), gap=3, cross=(0.2, 0.4))
register(Alchemy("alchemy-v0", V0, {"easy": EASY_V0, "hard": HARD_V0}))
register(Alchemy("alchemy-v1", V1, {"easy": EASY, "limited": replace(EASY, limited=True)}))

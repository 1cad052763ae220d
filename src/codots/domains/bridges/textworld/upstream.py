"""Generation of houses with the textworld package, and compilation and opening of game files."""

from __future__ import annotations

import os
import shutil
import tempfile
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from codots.core.rng import digest
from codots.domains.bridges.textworld.house import Fact, House
from codots.domains.isolation import isolated

PORTABLE, SUPPORTER, CONTAINER = ("o", "f", "k"), "s", "c"


@dataclass(frozen=True)
class Size:
    """The size of a house."""

    rooms: int
    things: int
    """Number of things and pieces of furniture."""


@lru_cache(maxsize=64)
def draw_house(size: Size, seed: int, places: tuple[int, ...]) -> House:
    """Generate a house from its seeds."""
    game = _game(size, seed, places)
    names = {id: str(info.name) for id, info in game.infos.items()}
    kinds = {names[id]: str(info.type) for id, info in game.infos.items() if info.name}
    facts = sorted(_named(fact, names) for fact in game.world.facts)
    start = next(fact[2] for fact in facts if fact[:2] == ("at", "P"))

    def of(*types: str) -> tuple[str, ...]:
        return tuple(sorted(name for name, kind in kinds.items() if kind in types))

    return House(seed, places, start, of(*PORTABLE), of(SUPPORTER), of(CONTAINER), tuple(facts))


def _named(fact: Any, names: dict[str, str]) -> Fact:
    """Convert a fact and replace generator ids with the displayed names. A running game already uses names."""
    return (str(fact.name), *(v.name if names.get(v.name) in (None, "None") else names[v.name] for v in fact.arguments))


def plain_facts(facts: Any) -> set[Fact]:
    """Convert the facts of a running game."""
    return {_named(fact, {}) for fact in facts}


def _game(size: Size, seed: int, places: tuple[int, ...]) -> Any:
    """Generate a game without locks. `seed` determines rooms, things and names, and `places` determines the places."""
    with isolated("textworld", seed, *places):
        from numpy.random import RandomState
        from textworld import generator
        from textworld.generator.game import Game
        from textworld.generator.text_generation import assign_description_to_room
        from textworld.generator.world import World

        rngs = [RandomState(digest("textworld", seed, part) % (1 << 32)) for part in ("map", "things", "names")]
        world = World.from_map(generator.make_map(size.rooms, rng=rngs[0], possible_door_states=["open", "closed"]))
        world.set_player_room()
        world.populate(size.things, rng=rngs[1])
        grammar = generator.make_grammar({"theme": "house"}, rng=rngs[2])
        named = generator.make_game_with(world, [], grammar)
        facts = _placed(world, seed, places)
        game = Game(World.from_facts(facts), grammar, [])
        for id, info in named.infos.items():  # keep names, but describe rooms by their new contents
            game.infos[id] = info
            info.desc = "" if info.type == "r" else info.desc
        described = generator.generate_text_from_grammar(game, grammar)
        for room in described.world.rooms:  # one stream per room, so that a text does not depend on other rooms
            grammar.rng = RandomState(digest("textworld", seed, "room", room.id) % (1 << 32))
            described.infos[room.id].desc = assign_description_to_room(room, described, grammar)
        return described


def _placed(world: Any, seed: int, places: tuple[int, ...]) -> list[Any]:
    """Draw a place for every thing, and unlock all locks.

    The first seed places all things. Each further seed moves only things outside the first room.
    """
    from numpy.random import RandomState
    from textworld.logic import Proposition

    rng = RandomState(digest("textworld", seed, "places", *places) % (1 << 32))
    facts: list[Any] = sorted(world.facts)
    words = {SUPPORTER: "on", CONTAINER: "in"}
    first = next(fact.arguments[1] for fact in facts if fact.name == "at" and fact.arguments[0].type == "P")
    at = {v: fact.arguments[1] for fact in facts if fact.name == "at" and (v := fact.arguments[0]).type in words}
    at |= {room: room for room in sorted({fact.arguments[1] for fact in facts if fact.name.endswith("_of")})}
    kept, holders = {}, list(at)
    if len(places) > 1:
        before = [fact.arguments for fact in _placed(world, seed, places[:-1]) if _is_placement(fact)]
        kept = {thing: holder for thing, holder in before if at[holder] == first}
        holders = [holder for holder in holders if at[holder] != first]
    for i, fact in enumerate(facts):
        if fact.name == "locked":
            facts[i] = Proposition("closed", fact.arguments)
        elif _is_placement(fact):
            thing = fact.arguments[0]
            holder = kept.get(thing) or holders[rng.randint(len(holders))]
            facts[i] = Proposition(words.get(holder.type, "at"), (thing, holder))
    return facts


def _is_placement(fact: Any) -> bool:
    return fact.name in ("at", "in", "on") and fact.arguments[0].type in PORTABLE


def open_game(size: Size, house: House) -> Any:
    """Start the game of a house from its file."""
    path = game_file(size, house)
    with isolated("textworld", "play"):
        import textworld

        wanted = textworld.EnvInfos(facts=True, description=True, admissible_commands=True, feedback=True)
        return textworld.start(str(path), wanted)


def cache_folder() -> Path:
    """Return the folder of game files, which is in `$CODOTS_CACHE` or `~/.cache/codots`."""
    return Path(os.environ.get("CODOTS_CACHE") or Path.home() / ".cache" / "codots") / "textworld"


def game_file(size: Size, house: House) -> Path:
    """Return the game file of a house. Compiles the game if the file does not exist. The folder appears atomically."""
    name = f"{digest(version('textworld'), size.rooms, size.things, house.seed, *house.places):032x}"
    folder = cache_folder() / name
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=folder.parent))
        try:
            _compile(_game(size, house.seed, house.places), temporary / "house.z8")
            temporary.replace(folder)
        except OSError:
            if not folder.is_dir():  # otherwise another process was faster
                raise
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    return folder / "house.z8"


def _compile(game: Any, path: Path) -> None:
    with isolated("textworld", "compile"):
        from textworld import generator
        from textworld.generator.game import GameOptions

        options = GameOptions()
        options.path = str(path)
        generator.compile_game(game, options)

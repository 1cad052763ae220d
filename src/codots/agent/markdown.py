"""Contexts as a folder of Markdown: one file a world, its newest version after a short head."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from codots.agent.records import Version, World, check_name, when
from codots.agent.store import Store
from codots.context.rewrite import Rewrite
from codots.context.strategies import strategy_of
from codots.core.files import write_atomically

RULE = "---\n"
"""Line before and after the head of a file."""


@dataclass(frozen=True)
class Page:
    """One file of an export."""

    path: Path
    world: str
    strategy: Rewrite
    bounds: tuple[float, float]
    context: str


def export_worlds(store: Store, folder: Path) -> list[Path]:
    """Write the newest context of every world to `WORLD.md` in a folder, which may exist, and return the files."""
    folder.mkdir(parents=True, exist_ok=True)
    pages = [(folder / f"{world.name}.md", _as_text(world, store.head(world.name))) for world in store.worlds()]
    for path, text in pages:
        write_atomically(path, text)
    return [path for path, _ in pages]


def _as_text(world: World, version: Version) -> str:
    head: dict[str, Any] = {"world": world.name, "version": version.number, "written": when(version.created)}
    head |= {"model": version.model, "strategy": world.strategy, "bounds": [world.low, world.high]}
    return f"{RULE}{yaml.safe_dump(head, sort_keys=False, allow_unicode=True)}{RULE}{version.context}\n"


def read_pages(folder: Path) -> list[Page]:
    """Read the files of an export, edited or not. Raises ValueError if a file is not of an export."""
    paths = sorted(folder.glob("*.md"))
    if not paths:
        raise ValueError(f"{folder} has no .md file; expected a folder of `codots context export`")
    return list(map(_read, paths))


def _read(path: Path) -> Page:
    try:
        start, head, text = path.read_text(encoding="utf-8").split(RULE, 2)
        values = yaml.safe_load(head)
        world, strategy = values["world"], strategy_of(values["strategy"])
        low, high = map(float, values.get("bounds", (0, 1)))
        if start or not isinstance(strategy, Rewrite):
            raise ValueError
    except (yaml.YAMLError, AttributeError, KeyError, TypeError, ValueError):
        raise ValueError(f"{path} is not of an export; expected ---, world and strategy, ---, the context") from None
    check_name(world, "world")
    return Page(path, world, strategy, (low, high), text.strip())


def import_pages(store: Store, pages: list[Page]) -> list[tuple[str, Version | None]]:
    """Make each context the newest version of its world, and return the versions, or None if nothing changed.

    A world that does not exist is made, with an empty version 0. Raises ValueError, before anything is written, for a
    context that the world's strategy does not allow.
    """
    known = {world.name: strategy_of(world.strategy) for world in store.worlds()}
    for page in pages:
        own = known.get(page.world, page.strategy)
        assert isinstance(own, Rewrite)
        _check(page, own)
    return [(page.world, _put(store, page, made=page.world not in known)) for page in pages]


def _check(page: Page, own: Rewrite) -> None:
    if own.name != page.strategy.name:
        raise ValueError(f"{page.path} has a context of {page.strategy.name}; {page.world} has contexts of {own.name}")
    if (length := len(page.context)) > own.cap:
        raise ValueError(f"{page.path} has a context of {length:,} characters; {page.world} allows {own.cap:,}")


def _put(store: Store, page: Page, made: bool) -> Version | None:
    store.create(page.world, page.strategy.settings(), page.bounds)
    if (head := store.head(page.world)).context == page.context:
        return head if made else None
    return store.put(page.world, page.context, "import", page.path.name)

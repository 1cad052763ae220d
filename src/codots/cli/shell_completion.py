"""What a shell offers for a word that is half typed; only what is needed for it is imported, and only then."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from difflib import get_close_matches
from pathlib import Path

import typer


def domains() -> list[str]:
    """Ids of all domains."""
    from codots.domains.registry import domain_ids

    return domain_ids()


def presets() -> list[str]:
    """Presets of all domains."""
    from codots.domains.registry import get_domain

    return sorted({preset for id in domains() for preset in get_domain(id).presets})


def arms() -> Iterable[str]:
    """Whose contexts a life may be given."""
    from codots.rollout.arms import ARMS

    return ARMS


def keys() -> list[str]:
    """Keys of a recipe, as the beginning of a change."""
    from codots.config.load import keys_of
    from codots.config.schema import TrainConfig

    return [f"{key.name}=" for key in keys_of(TrainConfig)]


def completing(choices: Callable[[], Iterable[str]]) -> Callable[[str], list[str]]:
    """Complete the last of words that are parted by commas."""

    def complete(incomplete: str) -> list[str]:
        before, comma, last = incomplete.rpartition(",")
        return [f"{before}{comma}{choice}" for choice in choices() if choice.startswith(last)]

    return complete


def policies() -> Iterable[str]:
    """Names of the scripted policies."""
    from codots.domains.base import POLICIES

    return POLICIES


def import_from_here() -> None:
    """Find modules in the folder where one is, as `python` does."""
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))


def found_domain(name: str) -> str:
    """Take `module:Class` for the id of that domain."""
    if name and ":" in name:
        from codots.domains.registry import find_domain

        import_from_here()
        return find_domain(name).id
    return name


def checked_split(name: str) -> str:
    """Refuse what is no name, such as the option that came next, and what looks like a slip: any word is a split."""
    known = ("train", "dev", "test")
    if not name.replace("-", "").replace("_", "").isalnum() or name.startswith("-"):
        raise typer.BadParameter("expected train, dev, test, or another word")
    if name not in known and (close := get_close_matches(name, known, n=1, cutoff=0.7)):
        raise typer.BadParameter(f"expected train, dev, test, or a word unlike them; the nearest is {close[0]!r}")
    return name

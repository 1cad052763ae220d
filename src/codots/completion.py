"""What a shell offers for a word that is half typed; only what is needed for it is imported, and only then."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import typer


def domains() -> list[str]:
    """Ids of all domains."""
    from codots.domain import domain_ids

    return domain_ids()


def presets() -> list[str]:
    """Presets of all domains."""
    from codots.domain import get_domain

    return sorted({preset for id in domains() for preset in get_domain(id).presets})


def arms() -> Iterable[str]:
    """Whose contexts a life may be given."""
    from codots.arms import ARMS

    return ARMS


def keys() -> list[str]:
    """Keys of a recipe, as the beginning of a change."""
    from codots.config import TrainConfig, known_keys

    return [f"{key}=" for key in known_keys(TrainConfig)]


def completing(choices: Callable[[], Iterable[str]]) -> Callable[[str], list[str]]:
    """Complete the last of words that are parted by commas."""

    def complete(incomplete: str) -> list[str]:
        before, comma, last = incomplete.rpartition(",")
        return [f"{before}{comma}{choice}" for choice in choices() if choice.startswith(last)]

    return complete


def checked_split(name: str) -> str:
    """Refuse what is no name, such as the option that came next."""
    if not name.replace("-", "").replace("_", "").isalnum() or name.startswith("-"):
        raise typer.BadParameter("expected train, dev, test, or another word")
    return name

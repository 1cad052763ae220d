"""What a shell offers for a word that is half typed; only what is needed for it is imported, and only then."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
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


def keys() -> list[str]:
    """Keys of a recipe, as the beginning of a change."""
    from codots.config.load import keys_of
    from codots.config.schema import TrainConfig

    return [f"{key.name}=" for key in keys_of(TrainConfig)]


def settings() -> list[str]:
    """Keys of an evaluation, as the beginning of a change."""
    from codots.config.load import keys_of
    from codots.config.schema import EvalConfig

    return [f"{key.name}=" for key in keys_of(EvalConfig)]


def completing(choices: Callable[[], Iterable[str]]) -> Callable[[str], list[str]]:
    """Complete the last of words that are parted by commas."""

    def complete(incomplete: str) -> list[str]:
        before, comma, last = incomplete.rpartition(",")
        return [f"{before}{comma}{choice}" for choice in choices() if choice.startswith(last)]

    return complete


def changing(keys: Callable[[], list[str]]) -> Callable[[typer.Context, str], list[str]]:
    """Complete `key=value`, the value too where its choices are known; bash makes words of key, `=` and value."""

    def complete(ctx: typer.Context, incomplete: str) -> list[str]:
        key, equals, value = incomplete.partition("=")
        if equals:
            return [f"{key}={choice}" for choice in values(key, value)]
        before: list[str] = ["", "", *(ctx.params.get("changes") or [])]
        key, equals = before[-2:]
        return values(key, incomplete) if equals == "=" else [key for key in keys() if key.startswith(incomplete)]

    return complete


def values(key: str, incomplete: str) -> list[str]:
    """Complete the value of a key."""
    choices = {"domain": domains, "preset": presets, "split": splits, "arms": arms}
    return completing(choices[key])(incomplete) if key in choices else []


def splits() -> Iterable[str]:
    """Names of the splits that everybody knows."""
    from codots.domains.registry import SPLITS

    return SPLITS


def arms() -> Iterable[str]:
    """Names of the arms."""
    from codots.rollout.arms import ARMS

    return ARMS


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
    """Refuse what is no name, such as the option that came next, and what looks like a slip."""
    from codots.domains.registry import check_split

    try:
        return check_split(name)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error

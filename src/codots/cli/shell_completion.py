"""Shell completion and argument callbacks. Imports are lazy to keep completion fast."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import typer


def domains() -> list[str]:
    """Return the ids of all domains."""
    from codots.domains.registry import domain_ids

    return domain_ids()


def presets() -> list[str]:
    """Return the names of the presets of all domains, each once."""
    from codots.domains.registry import get_domain

    return sorted({preset for id in domains() for preset in get_domain(id).presets})


def keys() -> list[str]:
    """Return the keys of a training recipe, each followed by `=`."""
    from codots.config.load import keys_of
    from codots.config.schema import TrainConfig

    return [f"{key.name}=" for key in keys_of(TrainConfig)]


def settings() -> list[str]:
    """Return the settings of an evaluation, each followed by `=`."""
    from codots.config.evaluate import EvalConfig
    from codots.config.load import keys_of

    return [f"{key.name}=" for key in keys_of(EvalConfig)]


def completing(choices: Callable[[], Iterable[str]]) -> Callable[[str], list[str]]:
    """Return a function that completes the last word of a comma-separated list."""

    def complete(incomplete: str) -> list[str]:
        before, comma, last = incomplete.rpartition(",")
        return [f"{before}{comma}{choice}" for choice in choices() if choice.startswith(last)]

    return complete


def changing(keys: Callable[[], list[str]]) -> Callable[[typer.Context, str], list[str]]:
    """Return a function that completes keys, and values that have known choices.

    Bash passes `key`, `=` and `value` as separate words, so both forms are handled.
    """

    def complete(ctx: typer.Context, incomplete: str) -> list[str]:
        key, equals, value = incomplete.partition("=")
        if equals:
            return [f"{key}={choice}" for choice in values(key, value)]
        before: list[str] = ["", "", *(ctx.params.get("changes") or [])]
        key, equals = before[-2:]
        return values(key, incomplete) if equals == "=" else [key for key in keys() if key.startswith(incomplete)]

    return complete


def values(key: str, incomplete: str) -> list[str]:
    """Return the completions of the value of a key. Returns an empty list if the key has no known choices."""
    choices = {"domain": domains, "preset": presets, "split": splits, "arms": arms}
    return completing(choices[key])(incomplete) if key in choices else []


def splits() -> Iterable[str]:
    """Return the names of the standard splits."""
    from codots.domains.registry import SPLITS

    return SPLITS


def arms() -> Iterable[str]:
    """Return the names of the arms."""
    from codots.rollout.arms import ARMS

    return ARMS


def policies() -> Iterable[str]:
    """Return the names of the scripted policies."""
    from codots.domains.base import POLICIES

    return POLICIES


def import_from_here() -> None:
    """Make modules in the current folder importable, as `python` does."""
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))


def found_domain(name: str) -> str:
    """Return the id of a domain. If the name is `module:Class`, first import and register that domain."""
    if name and ":" in name:
        from codots.domains.registry import find_domain

        import_from_here()
        return find_domain(name).id
    return name


def checked_split(name: str) -> str:
    """Return the name of a split.

    Raises BadParameter if the name is invalid (for example, because it is the next option) or is likely a typo.
    """
    from codots.domains.registry import check_split

    try:
        return check_split(name)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error

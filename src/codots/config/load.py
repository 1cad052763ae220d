"""Read recipe files, apply `key=value` changes, validate them, and list their keys."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError

from codots.config.evaluate import EvalConfig
from codots.config.imitate import ImitateConfig
from codots.config.schema import TrainConfig
from codots.core.section import Section
from codots.core.suggest import closest, nearest
from codots.core.yaml_text import read_yaml

C = TypeVar("C", bound=Section)
COMMAND_KEYS: dict[type[Section], tuple[str, tuple[str, ...]]] = {
    TrainConfig: ("train", ("worlds", "steps", "group_size", "learner", "credit", "engine")),
    ImitateConfig: ("imitate", ("stages", "teacher", "recorded", "new")),
    EvalConfig: ("eval", ("arms", "split", "writer")),
}
"""The command of each kind of recipe, and some keys that only this kind of recipe has."""


def load_recipe(kind: type[C], path: Path, changes: list[str] | None = None) -> C:
    """Read a recipe, apply `key=value` changes, and validate it.

    Raises ValueError if the file or a change is invalid. The message is one line and suggests the nearest key.
    """
    values = read_recipe(path)
    allowed = {*kind.model_fields, *getattr(kind, "SHORT", ())}
    for other, (command, own_keys) in COMMAND_KEYS.items():
        if other is not kind and (found := [key for key in own_keys if key in values and key not in allowed]):
            raise ValueError(f"{path} is a file for `codots {command}`: it has {found[0]}")
    return settings(kind, values, changes, str(path))


def read_recipe(path: Path) -> dict[str, Any]:
    """Return the keys and values of a recipe. Raises ValueError if the file cannot be read or holds something else."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ValueError(f"cannot read the recipe {path}: {reason}{closest(path)}") from error
    values = _read(text, str(path)) or {}
    if not isinstance(values, dict):
        raise ValueError(f"{path} is not a recipe: expected keys and values, got {type(values).__name__}")
    return values


def settings(kind: type[C], values: dict[str, Any], changes: list[str] | None, where: str) -> C:
    """Apply `key=value` changes to values and validate them.

    Raises ValueError if a change or a value is invalid. The message is one line and suggests the nearest key. `where`
    is the name of the recipe in error messages.
    """
    for change in changes or []:
        _change(values, change)
    return validate(kind, values, where)


def _read(text: str, what: str) -> Any:
    try:
        return read_yaml(text)
    except ValueError as error:
        raise ValueError(f"{what}: {error}") from error


def _change(values: dict[str, Any], change: str) -> None:
    key, equals, value = change.partition("=")
    if not equals or not key or not value.strip():
        raise ValueError(f"{change!r} is not a change; expected key=value, such as steps=10 or learner.lr=1e-3")
    *outer, last = key.split(".")
    inner: Any = values
    for name in outer:
        inner = _section(inner, name, change)
    if isinstance(inner, list):
        inner[_index(inner, last, change)] = _read(value, repr(change))
    else:
        inner[last] = _read(value, repr(change))


def _section(values: Any, name: str, change: str) -> Any:
    """Return the section or list of this name. If there is none, add and return an empty section.

    If `engine` has its short form, such as `engine: local`, first replace the string by the section `{kind: local}`.
    """
    if isinstance(values, list):
        inner = values[_index(values, name, change)]
    else:
        inner = values.setdefault(name, {})
        if isinstance(inner, str) and name == "engine":
            inner = values[name] = {"kind": inner}
    if not isinstance(inner, dict | list):
        raise ValueError(f"{change!r}: {name} is not a section")
    return inner


def _index(values: list[Any], name: str, change: str) -> int:
    if not name.isdecimal() or int(name) >= len(values):
        raise ValueError(f"{change!r}: {name!r} is not an index; expected a number below {len(values)}")
    return int(name)


def validate(kind: type[C], values: dict[str, Any], where: str) -> C:
    """Validate values as this kind of recipe. Raises ValueError with a one-line message that starts with `where`."""
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        loc = _short_form(kind, values, first["loc"])
        if first["type"] == "extra_forbidden":
            unknown = ".".join(part for part in loc if isinstance(part, str))
            raise ValueError(f"{where}: {nearest(unknown, [key.name for key in keys_of(kind)], 'key')}") from error
        loc = loc[:-1] if loc[-1:] and loc[-1] in ("str", "bool", "int", "float") else loc  # drop the branch of a union
        path = " ".join(".".join(map(str, loc)).split())
        if first["type"] == "literal_error" and isinstance(first["input"], str):
            choices = re.findall(r"'([^']*)'", first["ctx"]["expected"])
            raise ValueError(f"{where}: {nearest(first['input'], choices, f'choice of {path}')}") from error
        message = first["msg"].removeprefix("Value error, ")
        given = "" if isinstance(first["input"], dict | BaseModel) or not path else f", got {first['input']!r}"
        raise ValueError(f"{where}: {path}{': ' if path else ''}{message}{given}") from error


def _short_form(kind: type[Section], values: dict[str, Any], loc: tuple[int | str, ...]) -> tuple[int | str, ...]:
    """Drop `stages.0` and `worlds.0` from a location if the recipe uses the short form."""
    for name in ("stages", "worlds"):
        loc = loc[2:] if name not in values and loc[:2] == (name, 0) else loc
    return loc


@dataclass(frozen=True)
class Key:
    """A key of a recipe."""

    name: str
    """Name of the key. The names of its sections come first, separated by dots."""
    default: Any
    """Default value. None for a required key, a section and a list of sections."""
    meaning: str
    """Documentation of the key."""


def keys_of(kind: type[Section], prefix: str = "") -> Iterator[Key]:
    """Yield every key of a kind of recipe, including the keys of sections and of lists of sections.

    The keys that may be set one level higher if a list has one entry are also yielded in that short form.
    """
    for name, info in kind.model_fields.items():
        sections = [part for part in (info.annotation, *get_args(info.annotation)) if _is_section(part)]
        default = None if sections or info.is_required() else info.default
        yield Key(prefix + name, default, " ".join((info.description or "").split()))
        for section in sections:
            if name in ("worlds", "stages"):
                short = [prefix + key for key in getattr(kind, "SHORT", ())]
                yield from (key for key in keys_of(section, prefix) if key.name in short)
            yield from keys_of(section, f"{prefix}{name}.")


def _is_section(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, Section)

"""Recipes as files: read, changed by `key=value`, checked, and told about key by key."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ValidationError

from codots.config.schema import EvalConfig, PretrainConfig, TrainConfig
from codots.core.section import Section
from codots.core.suggest import closest, nearest

C = TypeVar("C", bound=Section)
MARKS: dict[type[Section], tuple[str, tuple[str, ...]]] = {
    TrainConfig: ("train", ("worlds", "steps", "group_size", "learner", "credit", "engine")),
    PretrainConfig: ("pretrain", ("stages",)),
    EvalConfig: ("eval", ("arms", "split", "writer")),
}
"""Keys by which a file of one command is told from those of others."""


def load_recipe(kind: type[C], path: Path, changes: list[str] | None = None) -> C:
    """Read a recipe and apply `key=value` changes; ValueError is one line that names the nearest key."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        said = getattr(error, "strerror", None) or error
        raise ValueError(f"cannot read the recipe {path}: {said}{closest(path)}") from error
    values = _read(text, str(path)) or {}
    if not isinstance(values, dict):
        raise ValueError(f"{path} is not a recipe: expected keys and values, got {type(values).__name__}")
    for other, (command, marks) in MARKS.items():
        if other is not kind and (found := [key for key in marks if key in values]):
            raise ValueError(f"{path} is a file for `codots {command}`: it has {found[0]}")
    return settings(kind, values, changes, str(path))


def settings(kind: type[C], values: dict[str, Any], changes: list[str] | None, where: str) -> C:
    """Apply `key=value` changes to values and check them; ValueError is one line that names the nearest key."""
    for change in changes or []:
        _change(values, change)
    return validate(kind, values, where)


def _read(text: str, what: str) -> Any:
    try:
        return yaml.safe_load(text)
    except Exception as error:  # besides YAMLError, whatever the constructor of a tag happens to raise
        raise ValueError(f"{what} is not YAML: {' '.join(str(error).split()) or type(error).__name__}") from error


def _change(values: dict[str, Any], change: str) -> None:
    key, equals, value = change.partition("=")
    if not equals or not key or not value.strip():
        raise ValueError(f"{change!r} is not a change; expected key=value, such as steps=10 or learner.lr=1e-3")
    *outer, last = key.split(".")
    inner: Any = values
    for name in outer:
        inner = _inside(inner, name, change)
    if isinstance(inner, list):
        inner[_index(inner, last, change)] = _read(value, repr(change))
    else:
        inner[last] = _read(value, repr(change))


def _inside(values: Any, name: str, change: str) -> Any:
    """Find or make the section or list of this name; `engine: local` is short for a section of that kind."""
    if isinstance(values, list):
        inner = values[_index(values, name, change)]
    else:
        inner = values.setdefault(name, {})
        if isinstance(inner, str) and name == "engine":
            inner = values[name] = {"kind": inner}
    if not isinstance(inner, dict | list):
        raise ValueError(f"{change!r}: {name} holds no keys")
    return inner


def _index(values: list[Any], name: str, change: str) -> int:
    if not name.isdecimal() or int(name) >= len(values):
        raise ValueError(f"{change!r}: {name!r} is no entry; expected a number below {len(values)}")
    return int(name)


def validate(kind: type[C], values: dict[str, Any], where: str) -> C:
    """Check values against a kind of recipe."""
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        loc = _as_said(kind, values, first["loc"])
        if first["type"] == "extra_forbidden":
            named = ".".join(part for part in loc if isinstance(part, str))
            raise ValueError(f"{where}: {nearest(named, [key.name for key in keys_of(kind)], 'key')}") from error
        loc = loc[:-1] if loc[-1:] and loc[-1] in ("str", "bool", "int", "float") else loc  # a branch of a union
        path = " ".join(".".join(map(str, loc)).split())
        if first["type"] == "literal_error" and isinstance(first["input"], str):
            choices = re.findall(r"'([^']*)'", first["ctx"]["expected"])
            raise ValueError(f"{where}: {nearest(first['input'], choices, f'choice of {path}')}") from error
        message = first["msg"].removeprefix("Value error, ")
        given = "" if isinstance(first["input"], dict | BaseModel) or not path else f", got {first['input']!r}"
        raise ValueError(f"{where}: {path}{': ' if path else ''}{message}{given}") from error


def _as_said(kind: type[Section], values: dict[str, Any], loc: tuple[int | str, ...]) -> tuple[int | str, ...]:
    """Name the key of the short form that a recipe used in place of the entry it stands for."""
    return loc[2:] if "worlds" not in values and loc[:2] == ("worlds", 0) else loc


@dataclass(frozen=True)
class Key:
    """A key of a recipe."""

    name: str
    """With a dot between a section and its key."""
    default: Any
    """None where there is none, and of a section."""
    meaning: str


def keys_of(kind: type[Section], prefix: str = "") -> Iterator[Key]:
    """Tell of every key of a kind of recipe, of sections and of lists of them too."""
    for name, info in kind.model_fields.items():
        sections = [part for part in (info.annotation, *get_args(info.annotation)) if _is_section(part)]
        default = None if sections or info.is_required() else info.default
        yield Key(prefix + name, default, " ".join((info.description or "").split()))
        for section in sections:
            if name == "worlds":
                yield from (key for key in keys_of(section) if key.name in TrainConfig.SHORT)
            yield from keys_of(section, f"{prefix}{name}.")


def _is_section(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, Section)

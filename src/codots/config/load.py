"""Recipes as files: read, changed by `key=value`, checked, and told about key by key."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ValidationError

from codots.config.schema import TrainConfig
from codots.core.section import Section
from codots.core.suggest import closest, nearest

C = TypeVar("C", bound=Section)


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
    if kind is TrainConfig and "stages" in values:
        raise ValueError(f"{path} is a recipe of `codots pretrain`: it has stages")
    for change in changes or []:
        _change(values, change)
    return validate(kind, values, str(path))


def _read(text: str, what: str) -> Any:
    try:
        return yaml.safe_load(text)
    except Exception as error:  # besides YAMLError, whatever the constructor of a tag happens to raise
        raise ValueError(f"{what} is not YAML: {' '.join(str(error).split()) or type(error).__name__}") from error


def _change(values: dict[str, Any], change: str) -> None:
    key, equals, value = change.partition("=")
    if not equals or not key:
        raise ValueError(f"{change!r} is not a change; expected key=value, such as steps=10 or learner.lr=1e-3")
    *outer, last = key.split(".")
    for name in outer:
        inner = values.setdefault(name, {})
        if not isinstance(inner, dict):
            raise ValueError(f"{change!r}: {name} holds no keys")
        values = inner
    values[last] = _read(value, repr(change))


def validate(kind: type[C], values: dict[str, Any], where: str) -> C:
    """Check values against a kind of recipe."""
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        if first["type"] == "extra_forbidden":
            named = ".".join(part for part in first["loc"] if isinstance(part, str))
            raise ValueError(f"{where}: {nearest(named, [key.name for key in keys_of(kind)], 'key')}") from error
        path = " ".join(".".join(map(str, first["loc"])).split())
        if first["type"] == "literal_error" and isinstance(first["input"], str):
            choices = re.findall(r"'([^']*)'", first["ctx"]["expected"])
            raise ValueError(f"{where}: {nearest(first['input'], choices, f'choice of {path}')}") from error
        message = first["msg"].removeprefix("Value error, ")
        given = "" if isinstance(first["input"], dict | BaseModel) or not path else f", got {first['input']!r}"
        raise ValueError(f"{where}: {path}{': ' if path else ''}{message}{given}") from error


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
            yield from keys_of(section, f"{prefix}{name}.")


def _is_section(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, Section)

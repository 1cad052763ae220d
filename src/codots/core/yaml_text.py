"""Read and write YAML 1.2, whose numbers PyYAML does not know, and refuse a key that a mapping has twice."""

from __future__ import annotations

from re import compile as pattern
from typing import Any

import yaml

TAG = "tag:yaml.org,2002:"
MERGE = TAG + "merge"
CORE = {
    "null": (pattern(r"(?:~|null|Null|NULL|)$"), ["~", "n", "N", ""]),
    "bool": (pattern(r"(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF")),
    "int": (pattern(r"(?:[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+)$"), list("-+0123456789")),
    "float": (
        pattern(
            r"(?:[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$"
        ),
        list("-+.0123456789"),
    ),
    "merge": (pattern(r"<<$"), ["<"]),
}
"""What a plain scalar is unless it is a string: pattern and first characters. Merges are those of YAML 1.1."""


class _Loader(yaml.SafeLoader):
    yaml_implicit_resolvers: dict[Any, Any] = {}  # noqa: RUF012

    def compose_mapping_node(self, anchor: Any) -> Any:
        """Compare keys before merges, which may add equal ones."""
        node = super().compose_mapping_node(anchor)
        lines: dict[Any, int] = {}
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                name = key.value if key.tag == MERGE else self.construct_object(key)
                line = key.start_mark.line + 1
                if name in lines:
                    where = f"line {line}" if lines[name] == line else f"lines {lines[name]} and {line}"
                    raise _DuplicateError(f"the key {name!r} is given twice, in {where}")
                lines[name] = line
        return node

    def construct_core_int(self, node: Any) -> int:
        """Return an integer in decimal, octal (0o17) or hexadecimal (0x1f)."""
        text = str(self.construct_scalar(node))
        return int(text, {"0o": 8, "0x": 16}.get(text[:2], 10))


class _Dumper(yaml.SafeDumper):
    """Quotes strings that are something else in YAML 1.1 or 1.2, so that both read what was written."""


class _DuplicateError(ValueError):
    """A mapping has a key twice."""


for _tag, (_pattern, _first) in CORE.items():
    for _class in (_Loader, _Dumper):
        _class.add_implicit_resolver(TAG + _tag, _pattern, _first)
_Loader.add_constructor(TAG + "int", _Loader.construct_core_int)


def read_yaml(text: str) -> Any:
    """Read YAML as plain data.

    Raises ValueError, one line, if it is not YAML or if a mapping has a key twice.
    """
    try:
        return yaml.load(text, _Loader)
    except _DuplicateError:
        raise
    except Exception as error:  # YAMLError, or any error from the constructor of a tag
        raise ValueError(f"this is not YAML: {' '.join(str(error).split()) or type(error).__name__}") from error


def write_yaml(values: Any) -> str:
    """Return plain data as YAML, with keys in their order."""
    return yaml.dump(values, Dumper=_Dumper, sort_keys=False)

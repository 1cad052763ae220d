"""Export worlds and tasks as rows of Parquet or JSON lines."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np

from codots.core.files import writable, write_atomically
from codots.core.suggest import check_known, nearest
from codots.domains.registry import get_domain, make_pack

ENDINGS = (".parquet", ".jsonl")


def task_rows(
    id: str, *, preset: str, split: str = "train", packs: int = 100, size: int = 4, style: str | None = None
) -> Iterator[dict[str, Any]]:
    """Yield a row for each task of the first `packs` packs of a preset.

    `style` defaults to the first style of the domain. The columns `hidden` and `content` are JSON. Never show `hidden`
    or `oracle_context` to a model, because both reveal the hidden part. Raises ValueError if the domain, the preset or
    the style is unknown.
    """
    domain = get_domain(id)
    style = style or domain.styles[0]
    check_known(style, domain.styles, f"prompt style of {id}")
    for index in range(packs):
        pack = make_pack(id, preset, split, index, size)
        hidden = as_json(pack.world.hidden)
        for task in pack.tasks:
            yield {
                "domain": id,
                "preset": preset,
                "split": split,
                "index": index,
                "position": task.position,
                "style": style,
                "rules": domain.rules_text(task, style),
                "opening": task.env(style=style, memory=domain.make_memory(pack.world)).observe(),
                "floor": float(domain.floor(task)),
                "ceiling": float(domain.ceiling(task)),
                "oracle_context": domain.oracle_context(pack.world.at(task.position), style),
                "content": as_json(task.content),
                "hidden": hidden,
            }


def check_out(out: Path) -> None:
    """Raise ValueError if rows cannot be written to this file. Call this before drawing rows."""
    if out.suffix not in ENDINGS:
        raise ValueError(f"cannot write {out}: {nearest(out.suffix, list(ENDINGS), 'ending')}")
    writable(out)
    if out.suffix == ".parquet":
        _pyarrow()


def write_rows(rows: list[dict[str, Any]], out: Path, types: Mapping[str, str] | None = None) -> None:
    """Write rows atomically, as Parquet or JSON lines depending on the suffix of the file.

    `types` names the Parquet type of columns that may be empty, a string by default.
    """
    if out.suffix == ".jsonl":
        return write_atomically(out, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    arrow, parquet = _pyarrow()
    table, content = arrow.Table.from_pylist(rows), io.BytesIO()
    fields = [
        field.with_type(arrow.type_for_alias((types or {}).get(field.name, "string")))
        if arrow.types.is_null(field.type)
        else field
        for field in table.schema
    ]
    parquet.write_table(table.cast(arrow.schema(fields)), content)
    write_atomically(out, content.getvalue())


def _pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise ValueError("Parquet needs pyarrow: pip install 'codots[parquet]'; or end the file in .jsonl") from error
    return pyarrow, pyarrow.parquet


def as_json(value: Any) -> str:
    """Encode a hidden part or the content of a task, of any type, as JSON."""
    return json.dumps(plain(value), ensure_ascii=False)


def plain(value: Any) -> Any:
    """Convert a value to JSON types.

    Dataclasses, named tuples and dicts become objects. A dict with keys other than strings becomes a list of pairs.
    Other collections and arrays become lists. Infinite floats, NaN and values of any other type become their `str`.
    """
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return plain(value._asdict())
    if isinstance(value, dict):
        if all(isinstance(key, str) for key in value):
            return {key: plain(inner) for key, inner in value.items()}
        return [[plain(key), plain(inner)] for key, inner in value.items()]
    if isinstance(value, set | frozenset):
        return sorted(map(plain, value), key=json.dumps)
    if isinstance(value, list | tuple | bytes | bytearray):
        return [plain(inner) for inner in value]
    if isinstance(value, np.ndarray | np.generic):
        return plain(value.tolist())
    if isinstance(value, float) and not np.isfinite(value):
        return str(value)
    return value if isinstance(value, str | int | float | None) else str(value)

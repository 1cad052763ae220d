"""Run folders: opened anew or found again, held by one process, and never taken for another run's."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from codots.core.files import LOCK, claimed, write_atomically
from codots.core.renamed import OLD_VERSION, new_key, old_keys
from codots.core.suggest import closest

ELSEWHERE = frozenset({"run", "loggers", "max_logprob_gap", "stage_timeout"})
"""What may differ when a run goes on: where it is, who hears of it, and when it gives up."""


@contextmanager
def open_run(folder: Path, recipe: dict[str, Any], *, resume: bool, resumable: bool = True) -> Iterator[Path]:
    """Make a run's folder, or find it again, and hold it; ValueError if it is another run's or held."""
    check_run(folder, recipe, resume, resumable)
    folder.mkdir(parents=True, exist_ok=True)
    with claimed(folder):
        check_run(folder, recipe, resume, resumable)  # once more, now that nobody else can change it
        if not resume:
            write_atomically(folder / "config.yaml", yaml.safe_dump(recipe, sort_keys=False))
        yield folder


def check_run(folder: Path, recipe: dict[str, Any], resume: bool, resumable: bool = True) -> None:
    """Raise ValueError unless a run can start in this folder, or go on in it."""
    written = folder / "config.yaml"
    if in_the_way := [path for path in (folder, *folder.parents) if path.exists() and not path.is_dir()]:
        raise ValueError(f"no run can be at {folder}: {in_the_way[0]} is a file")
    if not resume:
        if folder.exists() and any(file.suffix != ".part" and file.name != LOCK for file in folder.iterdir()):
            again = "add --resume to go on with it, or " if resumable else ""
            raise ValueError(f"{folder} already holds a run; {again}give run=ANOTHER")
        return
    if not written.is_file():
        raise ValueError(f"there is no run to resume at {folder}: it has no config.yaml{closest(folder)}")
    try:
        then = dict(yaml.safe_load(written.read_text(encoding="utf-8")))
    except (ValueError, TypeError, yaml.YAMLError) as error:
        raise ValueError(f"{written} cannot be read; is {folder} a run?") from error
    if old := next(iter(old_keys(then)), None):
        raise ValueError(
            f"{folder} is a run of codots {OLD_VERSION}, whose {old} is now called {new_key(old)}; resume it with that "
            f"version, or start a new run from its weights: give run=ANOTHER --init-from {folder}"
        )
    changed = [key for key in recipe if key not in ELSEWHERE and then.get(key) != recipe[key]]
    if changed:
        key = changed[0]
        raise ValueError(
            f"{folder} is another run: there {key} is {then.get(key)!r}, here {recipe[key]!r}; "
            f"to start a new one from its weights, give run=ANOTHER --init-from {folder}"
        )

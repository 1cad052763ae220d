"""Create or reopen run folders. A folder is locked to one process, and a folder of another run is refused."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from codots.core.files import LOCK, claimed, write_atomically
from codots.core.renamed import OLD_VERSION, new_key, old_keys, with_new_engine
from codots.core.suggest import closest
from codots.core.yaml_text import read_yaml, write_yaml

MUTABLE_KEYS = frozenset({"run", "loggers", "max_logprob_gap", "stage_timeout"})
"""Keys that may change on resume."""


@contextmanager
def open_run(folder: Path, recipe: dict[str, Any], *, resume: bool) -> Iterator[Path]:
    """Create the folder of a run, or reopen it if `resume` is true, and keep it locked inside the `with` block.

    Raises ValueError if another process has the lock; if the folder already holds files and `resume` is false; or if
    `resume` is true and the folder holds no run, or a run of another recipe.
    """
    check_run(folder, recipe, resume)
    folder.mkdir(parents=True, exist_ok=True)
    with claimed(folder):
        check_run(folder, recipe, resume)  # again, because the folder may have changed before it was locked
        if not resume:
            write_atomically(folder / "config.yaml", write_yaml(recipe))
        yield folder


def check_run(folder: Path, recipe: dict[str, Any], resume: bool) -> None:
    """Raise ValueError if a run cannot start in this folder or, if `resume` is true, cannot be resumed in it."""
    if files := [path for path in (folder, *folder.parents) if path.exists() and not path.is_dir()]:
        raise ValueError(f"cannot create a run at {folder}: {files[0]} is a file")
    if not resume:
        if folder.exists() and any(file.suffix != ".part" and file.name != LOCK for file in folder.iterdir()):
            raise ValueError(f"{folder} already contains a run; add --resume to continue it, or give run=ANOTHER")
        return
    saved = saved_recipe(folder)
    if old := next(iter(old_keys(saved)), None):
        raise ValueError(
            f"{folder} is a run of codots {OLD_VERSION}, whose {old} is now called {new_key(old)}; resume it with that "
            f"version, or start a new run from its weights: give run=ANOTHER --init-from {folder}"
        )
    changed = [key for key in recipe if key not in MUTABLE_KEYS and saved.get(key) != recipe[key]]
    if changed:
        key = changed[0]
        raise ValueError(
            f"{folder} is another run: there {key} is {saved.get(key)!r}, here {recipe[key]!r}; "
            f"to start a new one from its weights, give run=ANOTHER --init-from {folder}"
        )


def saved_recipe(folder: Path) -> dict[str, Any]:
    """Return the recipe that a run has stored. Raises ValueError if the folder holds no run."""
    config = folder / "config.yaml"
    if not config.is_file():
        raise ValueError(f"there is no run to resume at {folder}: it has no config.yaml{closest(folder)}")
    try:
        saved = read_yaml(config.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{config} cannot be read: {error}; is {folder} a run?") from error
    if not isinstance(saved, dict):
        raise ValueError(f"{config} cannot be read; is {folder} a run?")
    return with_new_engine(saved)

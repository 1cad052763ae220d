"""Run folders and checkpoints: whole or not there, and never mixed up with another run's."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from codots.config import Section, fingerprint

STATE = "state.json"
ELSEWHERE = frozenset({"run"})
"""A run that was moved or renamed is still the same run."""


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write a file so that a reader finds the old one or the new one, never a part."""
    part = path.with_name(f".{path.name}.part")
    with part.open("wb") as file:
        file.write(content if isinstance(content, bytes) else content.encode())
        file.flush()
        os.fsync(file.fileno())
    part.rename(path)


def open_run(folder: Path, config: Section, *, resume: bool) -> Path:
    """Make a run's folder, or find it again; ValueError if it is another run's."""
    recipe = folder / "config.yaml"
    if not resume:
        if folder.exists() and any(file.suffix != ".part" for file in folder.iterdir()):
            raise ValueError(f"{folder} already holds a run; add --resume to go on with it, or give run=ANOTHER")
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(recipe, yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False))
        return folder
    if not recipe.is_file():
        raise ValueError(f"there is no run to resume at {folder}: it has no config.yaml")
    try:
        then = dict(yaml.safe_load(recipe.read_text(encoding="utf-8")))
    except (ValueError, TypeError, yaml.YAMLError) as error:
        raise ValueError(f"{recipe} cannot be read; is {folder} a run?") from error
    now = config.model_dump(mode="json", exclude=set(ELSEWHERE))
    changed = [key for key in now if then.get(key) != now[key]]
    if changed:
        key = changed[0]
        raise ValueError(f"{folder} is another run: there {key} is {then.get(key)!r}, here {now[key]!r}")
    return folder


def save_checkpoint(
    run: Path, step: int, config: Section, state: dict[str, Any], save: Callable[[Path], None], keep: int
) -> Path:
    """Write checkpoint `step`, then drop all but the last `keep`; on a failure nothing of it remains."""
    folder = run / "checkpoints"
    part, whole = folder / f".step-{step:06d}.part", folder / f"step-{step:06d}"
    shutil.rmtree(part, ignore_errors=True)
    try:
        part.mkdir(parents=True)
        save(part)
        digests = {str(file.relative_to(part)): _digest(file) for file in sorted(part.rglob("*")) if file.is_file()}
        said = {"step": step, "recipe": fingerprint(config, without=ELSEWHERE), "files": digests, **state}
        write_atomically(part / STATE, json.dumps(said, indent=2))
        if whole.exists():
            shutil.rmtree(whole)
        part.rename(whole)
    except Exception as error:
        shutil.rmtree(part, ignore_errors=True)
        raise OSError(
            f"checkpoint {step} could not be written to {folder}: {error}; the ones before are whole"
        ) from error
    for old in checkpoints(run)[:-keep]:
        shutil.rmtree(old)
    return whole


def checkpoints(run: Path) -> list[Path]:
    """The checkpoints of a run, oldest first."""
    return sorted((run / "checkpoints").glob("step-*"))


def last_checkpoint(run: Path, config: Section) -> tuple[Path, dict[str, Any]] | None:
    """Find the newest checkpoint and check it file by file; ValueError says what is wrong with it."""
    found = checkpoints(run)
    if not found:
        return None
    folder = found[-1]
    try:
        state: dict[str, Any] = json.loads((folder / STATE).read_text())
        files, recipe = dict(state["files"]), state["recipe"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(_corrupt(folder, found, f"{STATE} cannot be read")) from error
    if recipe != fingerprint(config, without=ELSEWHERE):
        raise ValueError(_corrupt(folder, found, "it is another run's"))
    for name, digest in files.items():
        if not (folder / name).is_file():
            raise ValueError(_corrupt(folder, found, f"{name} is missing"))
        if _digest(folder / name) != digest:
            raise ValueError(_corrupt(folder, found, f"{name} is not what was written"))
    return folder, state


def _corrupt(folder: Path, found: list[Path], what: str) -> str:
    cure = f"remove it to resume from {found[-2].name}" if len(found) > 1 else "remove it to start again"
    return f"the checkpoint {folder} is corrupt: {what}; {cure}"


def _digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()

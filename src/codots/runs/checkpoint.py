"""Checkpoints: whole or absent, verified by hash, and never mixed up with those of another run."""

from __future__ import annotations

import hashlib
import json
import logging
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from codots.core.files import write_atomically, write_folder
from codots.core.suggest import closest
from codots.model.load import model_folder

STATE = "state.json"
log = logging.getLogger("codots")


def save_checkpoint(
    run: Path, step: int, recipe: str, state: dict[str, Any], save: Callable[[Path], None], keep: int
) -> Path:
    """Write checkpoint `step` of the recipe with this fingerprint, then drop all but the last `keep` and the best.

    On a failure nothing of it remains.
    """
    whole = run / "checkpoints" / f"step-{step:06d}"

    def fill(part: Path) -> None:
        save(part)
        digests = {str(file.relative_to(part)): _digest(file) for file in sorted(part.rglob("*")) if file.is_file()}
        said = {"step": step, "recipe": recipe, "files": digests, **state}
        write_atomically(part / STATE, json.dumps(said, indent=2))

    try:
        write_folder(whole, fill)
    except Exception as error:
        raise OSError(
            f"checkpoint {step} could not be written to {whole.parent}: {error}; the ones before are whole"
        ) from error
    _drop_old(run, keep)
    return whole


def _drop_old(run: Path, keep: int) -> None:
    best = best_checkpoint(run)
    for old in checkpoints(run)[:-keep]:
        if old != best:
            old.rename(old.with_name(f".{old.name}.part"))  # so that half of one is never taken for one
    for part in (run / "checkpoints").glob(".*.part"):
        shutil.rmtree(part)


def checkpoints(run: Path) -> list[Path]:
    """The checkpoints of a run, oldest first."""
    return sorted((run / "checkpoints").glob("step-*"))


def is_saved(run: Path, step: int) -> bool:
    """Whether a step needs no checkpoint: it has one, or it is the start."""
    return step == 0 or (run / "checkpoints" / f"step-{step:06d}").exists()


def dev_of(folder: Path | None) -> float:
    """What a checkpoint's model reached on `dev`, -inf where nobody looked."""
    try:
        return float(json.loads((folder / STATE).read_text())["dev"]) if folder else -math.inf
    except (OSError, ValueError, KeyError, TypeError):
        return -math.inf


def best_checkpoint(run: Path) -> Path | None:
    """The checkpoint that reached most on `dev`, None if none was looked at."""
    best = max(checkpoints(run), key=dev_of, default=None)
    return best if dev_of(best) > -math.inf else None


def last_checkpoint(run: Path, recipe: str) -> tuple[Path, dict[str, Any]] | None:
    """Find the newest whole checkpoint; newer ones that are corrupt are set aside, and a line says so.

    Raises ValueError, and changes nothing, if none is whole or the newest that is belongs to another run.
    """
    corrupt: list[tuple[Path, ValueError]] = []
    for folder in reversed(checkpoints(run)):
        try:
            state = verified(folder)
        except ValueError as error:
            corrupt.append((folder, error))
            continue
        if state["recipe"] != recipe:
            raise ValueError(f"the checkpoint {folder} is another run's; move it away to resume without it")
        for broken, why in corrupt:
            aside = broken.with_name(f"corrupt-{broken.name}")
            shutil.rmtree(aside, ignore_errors=True)
            broken.rename(aside)
            log.warning(f"{why}; it is set aside as {aside.name}, and the run goes on from {folder.name}")
        return folder, state
    if corrupt:
        raise ValueError(f"{corrupt[0][1]}, and none before it is whole; give run=ANOTHER to start again")
    return None


def verified(folder: Path) -> dict[str, Any]:
    """Check a checkpoint file by file and give its state; ValueError says what is wrong with it."""
    try:
        state: dict[str, Any] = json.loads((folder / STATE).read_text())
        files, _ = dict(state["files"]), (state["recipe"], state["step"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"the checkpoint {folder} is corrupt: {STATE} cannot be read") from error
    for name, digest in files.items():
        if not (folder / name).is_file():
            raise ValueError(f"the checkpoint {folder} is corrupt: {name} is missing")
        if _digest(folder / name) != digest:
            raise ValueError(f"the checkpoint {folder} is corrupt: {name} is not what was written")
    return state


def fork_point(name: str) -> tuple[Path, dict[str, Any]]:
    """Find what a fork starts from: this checkpoint, or the newest of this run; ValueError if it is not whole."""
    folder = Path(name)
    found = [folder] if (folder / STATE).is_file() else checkpoints(folder)
    if not found:
        raise ValueError(f"no checkpoint at {name!r}; expected a run that has one, or a checkpoint{closest(folder)}")
    return found[-1], verified(found[-1])


def start_folder(model: str, fork: str | None) -> Path:
    """Find the folder that a run starts from: that of the checkpoint in `fork`, else that of `model`."""
    return model_folder(fork_point(fork)[0] if fork else model)


def _digest(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()

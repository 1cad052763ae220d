"""Checkpoints: written atomically, verified by hash, and tied to the recipe of their run."""

from __future__ import annotations

import hashlib
import json
import logging
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from codots.core.files import check_readable, write_atomically, write_folder
from codots.core.processes import DeadError
from codots.core.suggest import closest
from codots.model.adapter import Model, folders
from codots.model.load import model_folder

STATE = "state.json"
log = logging.getLogger("codots")


def save_checkpoint(
    run: Path, step: int, recipe: str, state: dict[str, Any], save: Callable[[Path], None], keep: int | Literal["all"]
) -> Path:
    """Write the checkpoint of a step and return its folder.

    Then delete all checkpoints except the best one and the last `keep`, unless that is `all`. `recipe` is the
    fingerprint of the recipe. `save` writes the files of the checkpoint into a folder. If writing fails, raises OSError
    and leaves no partial checkpoint. A DeadError of `save` is raised as it is.
    """
    folder = run / "checkpoints" / f"step-{step:06d}"

    def fill(part: Path) -> None:
        save(part)
        digests = {str(file.relative_to(part)): _digest(file) for file in sorted(part.rglob("*")) if file.is_file()}
        content = {"step": step, "recipe": recipe, "files": digests, **state}
        write_atomically(part / STATE, json.dumps(content, indent=2))

    try:
        write_folder(folder, fill)
    except DeadError:
        raise
    except Exception as error:
        raise OSError(
            f"checkpoint {step} could not be written to {folder.parent}: {error}; earlier checkpoints are intact"
        ) from error
    if keep != "all":
        _drop_old(run, keep)
    return folder


def _drop_old(run: Path, keep: int) -> None:
    best = best_checkpoint(run)
    for old in checkpoints(run)[:-keep]:
        if old != best:
            old.rename(old.with_name(f".{old.name}.part"))  # so that a partly deleted checkpoint is never loaded
    for part in (run / "checkpoints").glob(".*.part"):
        shutil.rmtree(part)


def checkpoints(run: Path) -> list[Path]:
    """Return the checkpoints of a run, oldest first."""
    return sorted((run / "checkpoints").glob("step-*"))


def saved_steps(run: Path) -> int:
    """Return the step of the newest checkpoint, intact or not, or 0 if there is none."""
    return max((int(folder.name.removeprefix("step-")) for folder in checkpoints(run)), default=0)


def is_saved(run: Path, step: int) -> bool:
    """Return whether a step has a checkpoint. Step 0 needs no checkpoint and counts as saved."""
    return step == 0 or (run / "checkpoints" / f"step-{step:06d}").exists()


def score_of(folder: Path | None) -> float:
    """Return the score of a checkpoint on `dev`, or -inf if there is no checkpoint or it has no readable score."""
    try:
        return float(json.loads((folder / STATE).read_text())["dev"]) if folder else -math.inf
    except (OSError, ValueError, KeyError, TypeError):
        return -math.inf


def best_checkpoint(run: Path) -> Path | None:
    """Return the checkpoint with the best score on `dev`, or None if no checkpoint has a score."""
    best = max(checkpoints(run), key=score_of, default=None)
    return best if score_of(best) > -math.inf else None


def last_checkpoint(run: Path, recipe: str) -> tuple[Path, dict[str, Any]] | None:
    """Return the newest intact checkpoint and its state, or None if there are no checkpoints.

    Corrupt checkpoints that are newer are renamed with a warning. Raises ValueError, and renames nothing, if all
    checkpoints are corrupt or the newest intact checkpoint belongs to another run.
    """
    corrupt: list[tuple[Path, ValueError]] = []
    for folder in reversed(checkpoints(run)):
        try:
            state = verified(folder)
        except ValueError as error:
            corrupt.append((folder, error))
            continue
        if state["recipe"] != recipe:
            raise ValueError(f"the checkpoint {folder} belongs to another run; move it away to resume without it")
        for broken, reason in corrupt:
            renamed = broken.with_name(f"corrupt-{broken.name}")
            shutil.rmtree(renamed, ignore_errors=True)
            broken.rename(renamed)
            log.warning(f"{reason}; it is renamed to {renamed.name}, and the run continues from {folder.name}")
        return folder, state
    if corrupt:
        raise ValueError(f"{corrupt[0][1]}, and no earlier checkpoint is intact; give run=ANOTHER to start again")
    return None


def verified(folder: Path) -> dict[str, Any]:
    """Verify every file of a checkpoint and return the state.

    Raises ValueError if the checkpoint is corrupt, and PermissionError if it may not be read.
    """
    try:
        state: dict[str, Any] = json.loads((folder / STATE).read_text())
        files, _ = dict(state["files"]), (state["recipe"], state["step"])
    except PermissionError as error:
        raise PermissionError(f"{folder / STATE} cannot be read: permission denied") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"the checkpoint {folder} is corrupt: {STATE} cannot be read") from error
    for name, digest in files.items():
        if not (folder / name).is_file():
            raise ValueError(f"the checkpoint {folder} is corrupt: {name} is missing")
        if _digest(folder / name) != digest:
            raise ValueError(f"the checkpoint {folder} is corrupt: {name} does not match its hash")
    return state


def find_checkpoint(name: str) -> tuple[Path, dict[str, Any]]:
    """Return a checkpoint and its state. If `name` is a run, the checkpoint is the newest one of the run.

    Raises ValueError if there is no checkpoint or it is corrupt.
    """
    folder = Path(name)
    found = [folder] if (folder / STATE).is_file() else checkpoints(folder)
    if not found:
        raise ValueError(f"no checkpoint at {name!r}; expected a run that has one, or a checkpoint{closest(folder)}")
    return found[-1], verified(found[-1])


def start_folder(model: str, init_from: str | None, base: str | None = None) -> Model:
    """Return the model that a run starts from: that of `init_from` if that is given, otherwise `model` on `base`.

    Raises ValueError if a file of it cannot be read.
    """
    found = model_folder(find_checkpoint(init_from)[0]) if init_from else model_folder(model, base)
    check_readable(*folders(found))
    return found


def _digest(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()

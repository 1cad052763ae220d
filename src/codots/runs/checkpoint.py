"""Run folders and checkpoints: whole or not there, held by one process, and never mixed up with another run's."""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import math
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import yaml

from codots.config.schema import Section, TrainConfig, fingerprint
from codots.domains.base import closest

STATE = "state.json"
LOCK = ".lock"
ELSEWHERE = frozenset({"run", "loggers", "gap_limit", "patience"})
"""What may differ when a run goes on: where it is, who hears of it, and when it gives up."""
log = logging.getLogger("codots")


def sync(path: Path) -> None:
    """Have a file or a folder on the disk itself, where no power cut reaches it."""
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write a file so that a reader finds the old one or the new one, never a part."""
    part = path.with_name(f".{path.name}.part")
    try:
        with part.open("wb") as file:
            file.write(content if isinstance(content, bytes) else content.encode())
            file.flush()
            os.fsync(file.fileno())
        part.rename(path)
        sync(path.parent)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise OSError(f"{path} could not be written: {error.strerror or error}") from error


def writable(path: Path) -> None:
    """Raise ValueError if no file of this name can be written, before there is anything to write."""
    why = ""
    if not path.parent.is_dir():
        why = f"there is no folder {path.parent}{closest(path.parent)}"
    elif path.exists() and not path.is_file():  # a device, say, which a rename would put an end to
        why = "it is a folder" if path.is_dir() else "it is no ordinary file"
    if why:
        raise ValueError(f"cannot write {path}: {why}")


def write_folder(whole: Path, fill: Callable[[Path], None]) -> None:
    """Write a folder so that it is there whole or not at all; on a failure nothing of it remains."""
    part = whole.with_name(f".{whole.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    try:
        part.mkdir(parents=True)
        fill(part)
        for path in (*part.rglob("*"), part):
            sync(path)
        if whole.exists():
            shutil.rmtree(whole)
        part.rename(whole)
        for folder in (whole.parent, whole.parent.parent):
            sync(folder)
    except Exception:
        shutil.rmtree(part, ignore_errors=True)
        raise


@contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """Hold a folder against every other process; the kernel lets go of it however this one ends."""
    with (folder / LOCK).open("a+b", buffering=0) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            holder = f"process {found.decode()}" if (found := file.read()).isdigit() else "another process"
            raise ValueError(f"{folder} is in use by {holder}; wait for its end, or give run=ANOTHER") from error
        except OSError as error:
            log.warning(f"{folder} cannot be locked ({error.strerror}): see to it that no second process uses it")
        with suppress(OSError):  # a full disk; the hold is as good without a name
            file.truncate(0)
            file.write(str(os.getpid()).encode())
        yield


@contextmanager
def open_run(folder: Path, config: Section, *, resume: bool) -> Iterator[Path]:
    """Make a run's folder, or find it again, and hold it; ValueError if it is another run's or held."""
    check_run(folder, config, resume)
    folder.mkdir(parents=True, exist_ok=True)
    with claimed(folder):
        check_run(folder, config, resume)  # once more, now that nobody else can change it
        if not resume:
            write_atomically(folder / "config.yaml", yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False))
        yield folder


def check_run(folder: Path, config: Section, resume: bool) -> None:
    """Raise ValueError unless a run can start in this folder, or go on in it."""
    recipe = folder / "config.yaml"
    if in_the_way := [path for path in (folder, *folder.parents) if path.exists() and not path.is_dir()]:
        raise ValueError(f"no run can be at {folder}: {in_the_way[0]} is a file")
    if not resume:
        if folder.exists() and any(file.suffix != ".part" and file.name != LOCK for file in folder.iterdir()):
            again = "add --resume to go on with it, or " if isinstance(config, TrainConfig) else ""
            raise ValueError(f"{folder} already holds a run; {again}give run=ANOTHER")
        return
    if not recipe.is_file():
        raise ValueError(f"there is no run to resume at {folder}: it has no config.yaml{closest(folder)}")
    try:
        then = dict(yaml.safe_load(recipe.read_text(encoding="utf-8")))
    except (ValueError, TypeError, yaml.YAMLError) as error:
        raise ValueError(f"{recipe} cannot be read; is {folder} a run?") from error
    now = config.model_dump(mode="json", exclude=set(ELSEWHERE))
    changed = [key for key in now if then.get(key) != now[key]]
    if changed:
        key = changed[0]
        raise ValueError(
            f"{folder} is another run: there {key} is {then.get(key)!r}, here {now[key]!r}; "
            f"to start a new one from its weights, give run=ANOTHER --from {folder}"
        )


def save_checkpoint(
    run: Path, step: int, config: Section, state: dict[str, Any], save: Callable[[Path], None], keep: int
) -> Path:
    """Write checkpoint `step`, then drop all but the last `keep` and the best; on a failure nothing of it remains."""
    whole = run / "checkpoints" / f"step-{step:06d}"

    def fill(part: Path) -> None:
        save(part)
        digests = {str(file.relative_to(part)): _digest(file) for file in sorted(part.rglob("*")) if file.is_file()}
        said = {"step": step, "recipe": fingerprint(config, without=ELSEWHERE), "files": digests, **state}
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


def last_checkpoint(run: Path, config: Section) -> tuple[Path, dict[str, Any]] | None:
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
        if state["recipe"] != fingerprint(config, without=ELSEWHERE):
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


def _digest(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()

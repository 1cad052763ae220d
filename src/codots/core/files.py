"""Atomic writes, and the lock that keeps a folder to one process."""

from __future__ import annotations

import fcntl
import logging
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

from codots.core.suggest import closest

LOCK = ".lock"
log = logging.getLogger("codots")


def sync(path: Path) -> None:
    """Flush a file or a folder to disk, so that it survives a power cut."""
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write a file atomically: a reader finds the old content or the new one, never a part."""
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
    """Raise ValueError if the parent folder of this path is missing, or the path exists but is not a regular file.

    Call this before the work whose result is to be written there.
    """
    why = ""
    if not path.parent.is_dir():
        why = f"there is no folder {path.parent}{closest(path.parent)}"
    elif path.exists() and not path.is_file():  # such as a device, which a rename would replace
        why = "it is a folder" if path.is_dir() else "it is not a regular file"
    if why:
        raise ValueError(f"cannot write {path}: {why}")


def write_folder(whole: Path, fill: Callable[[Path], None]) -> None:
    """Write a folder atomically. After a failure, no partly written folder remains.

    `fill` writes the files to a temporary folder, which then replaces `whole`.
    """
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
def claimed_file(path: Path) -> Iterator[None]:
    """Lock a file, which need not exist, against other processes, as `claimed` does."""
    lock = path.with_name(f".{path.name}{LOCK}")
    with _locked(lock, path, "another name"):
        try:
            yield
        finally:
            lock.unlink(missing_ok=True)


def claimed(folder: Path) -> AbstractContextManager[None]:
    """Lock a folder against other processes. The kernel releases the lock however this process ends.

    Raises ValueError if another process has the lock. If the folder cannot be locked, only logs a warning.
    """
    return _locked(folder / LOCK, folder, "run=ANOTHER")


@contextmanager
def _locked(lock: Path, what: Path, other: str) -> Iterator[None]:
    with lock.open("a+b", buffering=0) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not lock.exists() or not os.path.samestat(os.fstat(file.fileno()), lock.stat()):
                raise BlockingIOError  # its last holder has just removed it
        except BlockingIOError as error:
            file.seek(0)
            holder = f"process {found.decode()}" if (found := file.read()).isdigit() else "another process"
            raise ValueError(f"{what} is in use by {holder}; wait for its end, or give {other}") from error
        except OSError as error:
            log.warning(f"{what} cannot be locked ({error.strerror}): make sure that no second process uses it")
        with suppress(OSError):  # on a full disk; the lock also works without the process id
            file.truncate(0)
            file.write(str(os.getpid()).encode())
        yield

"""Atomic writes, and the lock that keeps a folder to one process."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

from codots.core.processes import DeadError
from codots.core.suggest import closest

LOCK = ".lock"
FULL = 2**20
"""Free bytes below which a failed write of unknown reason is put down to a full disk."""
log = logging.getLogger("codots")


class WriteError(OSError):
    """A file could not be written; the message says which, why, and how much space is free."""


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Raise any error inside the `with` block, which writes this file, as a WriteError, but for a DeadError."""
    try:
        yield
    except (WriteError, DeadError):
        raise
    except Exception as error:
        free = shutil.disk_usage(_existing(path)).free
        raise WriteError(f"{path} could not be written: {_reason(error, free)} ({_size(free)} free)") from error


def _reason(error: Exception, free: int) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if found := re.search(r"\(os error (\d+)\)", str(error)):  # of a library in Rust, such as safetensors
        return os.strerror(int(found[1]))
    if free < FULL and not isinstance(error, OSError):  # torch does not say why
        return os.strerror(errno.ENOSPC)
    return (str(error).splitlines() or [type(error).__name__])[0]


def _size(count: int) -> str:
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.1f} MiB"


def _existing(path: Path) -> Path:
    """Return the nearest folder above a path that exists."""
    return next(folder for folder in path.absolute().parents if folder.is_dir())


def check_space(path: Path, needed: int) -> None:
    """Raise ValueError if the disk of a path has less than this many bytes free."""
    if (free := shutil.disk_usage(folder := _existing(path)).free) < needed:
        raise ValueError(f"{path} needs {_size(needed)}, and the disk of {folder} has {_size(free)} free")


def check_new(folder: Path) -> None:
    """Raise ValueError if a folder to be written exists already, or cannot be made."""
    if folder.exists() or folder.is_symlink():
        raise ValueError(f"{folder} exists already; expected the name of a new folder")
    if not os.access(above := _existing(folder), os.W_OK | os.X_OK):
        raise ValueError(f"cannot write {folder}: the folder {above} cannot be written to")


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
    with writing(path):
        try:
            with part.open("wb") as file:
                file.write(content if isinstance(content, bytes) else content.encode())
                file.flush()
                os.fsync(file.fileno())
            part.rename(path)
            sync(path.parent)
        except OSError:
            part.unlink(missing_ok=True)
            raise


def writable(path: Path) -> None:
    """Raise ValueError if the parent folder is missing or read-only, or the path exists but is not a regular file.

    Call this before the work whose result is to be written there.
    """
    why = ""
    if not path.parent.is_dir():
        why = f"there is no folder {path.parent}{closest(path.parent)}"
    elif not os.access(path.parent, os.W_OK | os.X_OK):
        why = f"the folder {path.parent.absolute()} cannot be written to"
    elif path.exists() and not path.is_file():  # such as a device, which a rename would replace
        why = "it is a folder" if path.is_dir() else "it is not a regular file"
    if why:
        raise ValueError(f"cannot write {path}: {why}")


def check_readable(*paths: Path) -> None:
    """Raise ValueError if one of these files, or a file in one of these folders, cannot be read."""
    for path in (file for given in paths for file in (given.iterdir() if given.is_dir() else [given])):
        if path.is_file():
            try:
                path.open("rb").close()
            except OSError as error:
                raise ValueError(f"{path} cannot be read: {error.strerror}") from error


def write_folder(whole: Path, fill: Callable[[Path], None], check: Callable[[Path], None] = lambda part: None) -> None:
    """Write a folder atomically. After a failure or a stop signal, no partly written folder remains.

    `fill` writes the files to a temporary folder, which then replaces `whole`, unless `check` raises an error. The
    files have the mode 0666 less the umask. Raises OSError if a file cannot be written.
    """
    part = whole.with_name(f".{whole.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    try:
        with writing(whole):
            part.mkdir(parents=True)
            fill(part)
        check(part)
        with writing(whole):
            for path in (*part.rglob("*"), part):
                if path.is_file():
                    path.chmod(part.stat().st_mode & 0o666)  # as the umask has it; safetensors writes 0600
                sync(path)
            if whole.exists():
                shutil.rmtree(whole)
            part.rename(whole)
            for folder in (whole.parent, whole.parent.parent):
                sync(folder)
    except BaseException:
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

"""Processes of vLLM: their start, and the main module that each of them imports before vLLM.

vLLM starts one process for its engine, which starts one for each device. As multiprocessing has it, they import the
main module of their parent. Here this is not the user's program but this module: it keeps the signals of the job from
the processes, so that a step can be finished and saved, and ends them with their parent, also if that was killed.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

from codots.core.processes import STOP_SIGNALS

NAME = "codots.sampler.vllm_process"
LOG_FILE = "log"
LOG = "CODOTS_VLLM_LOG"
"""Environment variable with the file that has the output of the processes."""
FOLDER = "CODOTS_VLLM_FOLDER"
"""Environment variable with the folder that the first process deletes if its parent was killed."""
FROM_PARENT = getattr(signal, "SIGURG", signal.SIGINT)  # absent on Windows, where vLLM does not run
"""Signal that stands for a stop signal of the parent. It is not blocked."""
LOOK_SECONDS = 0.5
"""Time between two looks at the parent, in seconds."""


@contextmanager
def main_module(folder: Path, environment: Mapping[str, str]) -> Iterator[None]:
    """Start processes of vLLM in this block: their main module is this one, and their output goes to a log in `folder`.

    `environment` has the variables that are set for them, unless they are set already.
    """
    main, added = sys.modules["__main__"], {k: v for k, v in environment.items() if k not in os.environ}
    added |= {LOG: str(folder / LOG_FILE), FOLDER: str(folder)}
    instead: Any = ModuleType("__main__")
    instead.__spec__ = find_spec(NAME)
    sys.modules["__main__"] = instead
    os.environ.update(added)
    try:
        yield
    finally:
        sys.modules["__main__"] = main
        for name in added:
            os.environ.pop(name, None)


def keep_to_parent() -> None:
    """Take stop signals from the parent alone, end when it ends, and write to the log."""
    descriptor = os.open(os.environ[LOG], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for output in (1, 2):
        os.dup2(descriptor, output)
    signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)  # in all threads to come as well
    signal.signal(FROM_PARENT, _end)
    threading.Thread(target=_watch, args=(os.getppid(), os.environ.pop(FOLDER, None)), daemon=True).start()


def _watch(parent: int, folder: str | None) -> None:
    while os.getppid() == parent:
        found = signal.sigtimedwait(STOP_SIGNALS, LOOK_SECONDS)
        if found is not None and found.si_pid == parent:
            signal.pthread_kill(threading.main_thread().ident or 0, FROM_PARENT)
    if folder:
        shutil.rmtree(folder, ignore_errors=True)
    os._exit(1)


def _end(number: int, frame: Any) -> None:
    """Handle a stop signal as vLLM does."""
    handler = signal.getsignal(signal.SIGTERM)
    if not callable(handler):
        os._exit(1)
    handler(signal.SIGTERM, frame)


if __name__ == "__mp_main__":
    keep_to_parent()

"""Worker processes with the heavy imports preloaded."""

from __future__ import annotations

import sys
from multiprocessing import forkserver, get_context
from typing import Any

from codots.core.processes import check_main_guard, stop_signals_blocked

PRELOAD = [
    "codots.engine.local",
    "transformers.models.auto.modeling_auto",
    "transformers.models.auto.tokenization_auto",
    "transformers.models.qwen3.modeling_qwen3",
]
"""Modules whose import takes much longer than the start of a process."""


def model_processes() -> Any:
    """Start the fork server, if it is not running, and return its multiprocessing context.

    The fork server preloads the heavy imports. Return a spawn context, slower to start, on other systems than Linux,
    whose system libraries do not survive a fork, and where the fork server cannot open its socket, as in a temporary
    folder with a long name.
    """
    check_main_guard()
    if sys.platform != "linux":
        return get_context("spawn")
    context = get_context("forkserver")
    context.set_forkserver_preload(PRELOAD)
    try:
        with stop_signals_blocked():
            forkserver.ensure_running()
    except OSError:
        return get_context("spawn")
    return context

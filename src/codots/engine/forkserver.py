"""Worker processes with the heavy imports preloaded."""

from __future__ import annotations

import sys
from multiprocessing import forkserver, get_context
from typing import Any

from codots.core.processes import sigint_blocked

PRELOAD = [
    "codots.engine.local",
    "transformers.models.auto.modeling_auto",
    "transformers.models.auto.tokenization_auto",
    "transformers.models.qwen3.modeling_qwen3",
]
"""Modules whose import takes much longer than the start of a process."""


def model_processes() -> Any:
    """Start the fork server, if it is not running, and return its multiprocessing context.

    The fork server preloads the heavy imports. On other systems than Linux, return a spawn context: their system
    libraries do not survive a fork.
    """
    if sys.platform != "linux":
        return get_context("spawn")
    context = get_context("forkserver")
    context.set_forkserver_preload(PRELOAD)
    with sigint_blocked():
        forkserver.ensure_running()
    return context

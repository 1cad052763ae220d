"""Worker processes that start with everything that a model needs already imported."""

from __future__ import annotations

import sys
from multiprocessing import forkserver, get_context
from typing import Any

from codots.core.processes import sigint_blocked

HEAVY = [
    "codots.engine.local",
    "transformers.models.auto.modeling_auto",
    "transformers.models.auto.tokenization_auto",
    "transformers.models.qwen3.modeling_qwen3",
]
"""What takes far longer to import than a process to start."""


def model_processes() -> Any:
    """A context whose processes are copies of one that has imported all that a model needs; that one starts now, once.

    Where system libraries do not survive a fork, which is everywhere but on Linux, each starts from nothing.
    """
    if sys.platform != "linux":
        return get_context("spawn")
    context = get_context("forkserver")
    context.set_forkserver_preload(HEAVY)
    with sigint_blocked():
        forkserver.ensure_running()
    return context

"""Audit log: one JSON line for each request, with who sent it and what became of it."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping
from io import TextIOWrapper
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Any

from codots.agent.records import when

MAX_BYTES, FILES = 10 * 2**20, 10
"""Maximum size of a file of the log, and number of older files that are kept."""
log = logging.getLogger("codots")


class AuditLog:
    """A file of JSON lines, rotated by size. A line is written when its request ends; the process may be killed then.

    Lines hold names, routes and numbers; no keys, and nothing of what was said.
    """

    def __init__(self, path: Path) -> None:
        self._file = _Private(path, maxBytes=MAX_BYTES, backupCount=FILES, encoding="utf-8", delay=True)

    def write(self, seconds: float, values: Mapping[str, Any]) -> None:
        """Add a line. A failure, such as a full disk, is a warning: requests go on."""
        line = json.dumps({"time": when(seconds), **values}, ensure_ascii=True)
        self._file.handle(logging.LogRecord("codots.audit", logging.INFO, "", 0, line, None, None))

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class _Private(RotatingFileHandler):
    """A rotated file that only its owner can read."""

    def _open(self) -> TextIOWrapper:
        def private(path: str, flags: int) -> int:
            return os.open(path, flags, 0o600)

        return open(self.baseFilename, self.mode, encoding=self.encoding, opener=private)  # type: ignore[return-value]

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        log.warning("the audit log %s cannot be written", self.baseFilename, exc_info=False)

"""Look at other processes."""

import time
from pathlib import Path

SECONDS = 30
"""Time that a process has to end, in seconds."""


def gone(pid):
    """Wait until a process has ended, and return whether it has."""
    until = time.monotonic() + SECONDS
    while time.monotonic() < until:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2]
        except OSError:
            return True
        if state[0] == "Z":
            return True
        time.sleep(0.05)
    return False

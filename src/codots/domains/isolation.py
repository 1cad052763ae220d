"""Isolate third-party code from the global random generators and from warnings."""

from __future__ import annotations

import random
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from codots.core.rng import digest


@contextmanager
def isolated(*names: str | int) -> Iterator[None]:
    """Run third-party code with global generators seeded by `names` and silenced warnings, then restore both."""
    before = random.getstate(), np.random.get_state()
    seed = digest("secluded", *names) % (1 << 32)
    random.seed(seed)
    np.random.seed(seed)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])

"""What the bridges share: prompts, how a reply is read, and how code from outside is kept to itself."""

from __future__ import annotations

import random
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined

from codots.pack import digest


@cache
def _templates(package: str) -> Environment:
    loader = PackageLoader(package, "prompts")
    return Environment(
        loader=loader, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, auto_reload=False
    )


def render(package: str, template: str, **values: object) -> str:
    """Fill in a template of a family."""
    return _templates(package).get_template(f"{template}.natural.jinja").render(**values).strip()


def between(text: str, tag: str) -> str | None:
    """What stands between the one opening and the one closing tag of a reply; None where there is no such pair."""
    start, end = f"<{tag}>", f"</{tag}>"
    if text.count(start) != 1 or text.count(end) != 1:
        return None
    inside, closed, _ = text.partition(start)[2].partition(end)
    return inside.strip() if closed else None


@contextmanager
def secluded(*names: str | int) -> Iterator[None]:
    """Let code from outside draw from the global generators and warn as it likes, equally each time and unnoticed."""
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

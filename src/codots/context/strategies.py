"""Strategies by name: how the context is updated after a task."""

from __future__ import annotations

from typing import Any

from codots.context.bank import Bank
from codots.context.delta import Delta
from codots.context.record import RECORDS, Recorder
from codots.context.rewrite import Rewrite, Strategy

UPDATES: dict[str, type[Rewrite]] = {kind.name: kind for kind in (Rewrite, Delta, Bank)}
"""Strategies by which a model updates its context: it rewrites the whole, edits items, or edits a bank."""


def strategy_of(settings: dict[str, Any]) -> Strategy | Recorder:
    """Return the strategy that has these settings."""
    values = dict(settings)
    kinds: dict[str, Any] = UPDATES | RECORDS
    made: Strategy | Recorder = kinds[values.pop("strategy", Rewrite.name)](**values)
    return made

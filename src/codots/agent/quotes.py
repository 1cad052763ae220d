"""Contexts that a task quotes: an update would learn them again, as if they were news."""

from __future__ import annotations

import re
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace

from codots.agent.records import Task, UnknownError, Version
from codots.agent.store import Store
from codots.context.rewrite import Trajectory

QUOTED = "(the notes of this task)"
"""What stands for a context that is quoted."""
SHORT = 20
"""Length from which a context is recognized in a text, in characters."""


def without(contexts: Iterable[str], text: str) -> str:
    """Return a text without the contexts that it quotes, also with other white space or with `>` before each line."""
    for context in sorted(contexts, key=len, reverse=True):
        if len(context) >= SHORT and (words := re.findall(r"[^\s>]+", context)):
            text = re.sub(r"[\s>]++".join(map(re.escape, words)), QUOTED, text)
    return text


def unquoted(contexts: Iterable[str], said: Trajectory) -> Trajectory:
    """Return a trajectory without the contexts that it quotes. Replies stay as the model of the agent has said them."""
    known = set(contexts)
    turns = tuple(replace(turn, observation=without(known, turn.observation)) for turn in said.turns)
    rules, outcome, feedback = (without(known, text) for text in (said.rules, said.outcome, said.feedback))
    return replace(said, rules=rules, turns=turns, outcome=outcome, feedback=feedback)


def contexts_of(store: Store, task: Task, head: Version) -> set[str]:
    """Return the newest context, and that which a task was given, unless it was pruned."""
    known = {head.context}
    with suppress(UnknownError):
        known.add(store.version(task.world, task.version).context)
    return known

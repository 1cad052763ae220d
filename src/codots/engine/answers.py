"""Answers of worker processes to the calls of an engine: a result, or an error in one line."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from typing import Any

from codots.core.files import WriteError

Answer = tuple[str, Any]
"""`("result", value)` or `("error", (type, message, traceback))`; before them `("event", arguments)`, if asked for."""
CLEAR = (ValueError, WriteError)
"""Errors whose message is for the user and needs no name of the error before it."""


class OutOfStepError(RuntimeError):
    """One of several learners has failed in a call that the others still make, so they take no more calls."""


def answer(call: Callable[[], Any], who: str = "a worker process") -> Answer:
    """Run a call, and return its result or its error. The end of a connection is raised."""
    try:
        return "result", call()
    except (EOFError, BrokenPipeError):
        raise
    except Exception as error:
        kind = next((kind for kind in (ArithmeticError, *CLEAR) if isinstance(error, kind)), RuntimeError)
        message = str(error) if kind in CLEAR else f"{who} failed: {type(error).__name__}: {error}"
        return "error", (kind, " ".join(message.split()), traceback.format_exc())


def value_of(answer: Answer) -> Any:
    """Return the result of an answer, or raise its error with the worker's traceback as a note."""
    kind, value = answer
    if kind == "result":
        return value
    error, message, trace = value
    failure: Exception = error(message)
    if trace:
        failure.add_note(trace)
    raise failure

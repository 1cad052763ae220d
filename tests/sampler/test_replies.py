"""Replies are read wherever they are readable; otherwise the reason is told apart."""

from types import SimpleNamespace

import pytest

from codots.core.transcript import StopReason
from codots.sampler.replies import UnreadableError, read_reply

CALL = [{"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}]


def answer(content, ended, usage=None, **message):
    message = SimpleNamespace(role="assistant", content=content, **message)
    return SimpleNamespace(choices=[SimpleNamespace(message=message, finish_reason=ended)], usage=usage)


def part(text, kind="text"):
    return {"type": kind, "text": text}


@pytest.mark.parametrize(
    ("content", "ended", "message", "text", "stop"),
    [
        ("x", "stop", {}, "x", StopReason.STOP),
        ("x", None, {}, "x", StopReason.STOP),
        ("x", "eos", {}, "x", StopReason.STOP),
        ("x", "MAX_TOKENS", {}, "x", StopReason.LENGTH),
        ("x", "model_length", {}, "x", StopReason.FULL),
        ("", "stop", {}, "", StopReason.STOP),
        (None, "stop", {"refusal": "I cannot"}, "I cannot", StopReason.STOP),
        ([part("x"), part("y")], "stop", {}, "xy", StopReason.STOP),
        ([part("hm", "thinking"), part("x"), "y"], None, {}, "xy", StopReason.STOP),
        ([{"type": "thinking", "thinking": [part("hm")]}], "length", {}, "", StopReason.THOUGHT),
        (None, "length", {}, "", StopReason.LENGTH),
        (None, "length", {"reasoning_content": "hm"}, "", StopReason.THOUGHT),
        ("", "length", {"reasoning": "hm"}, "", StopReason.THOUGHT),
        ("x", "length", {"reasoning": "hm"}, "x", StopReason.LENGTH),
        (None, "content_filter", {}, "", StopReason.FILTERED),
        ("x", "content_filter", {}, "x", StopReason.FILTERED),
        (None, "SAFETY", {}, "", StopReason.FILTERED),
        (None, "tool_calls", {"tool_calls": CALL}, "", StopReason.TOOLS),
        (None, "stop", {"tool_calls": CALL}, "", StopReason.TOOLS),
        ("x", "tool_calls", {"tool_calls": CALL}, "x", StopReason.STOP),
    ],
)
def test_text_and_stop_reason(content, ended, message, text, stop):
    reply = read_reply(answer(content, ended, **message))
    assert (reply.text, reply.stop) == (text, stop)


def test_reasoning_that_is_only_counted_is_a_thought_too():
    usage = SimpleNamespace(
        prompt_tokens=5, completion_tokens=9, completion_tokens_details=SimpleNamespace(reasoning_tokens=9)
    )
    reply = read_reply(answer("", "length", usage))
    assert (reply.stop, reply.prompt_tokens, reply.completion_tokens) == (StopReason.THOUGHT, 5, 9)


@pytest.mark.parametrize(
    "broken",
    [
        answer(None, None),
        answer("x", "error"),
        answer(3, "stop"),
        answer({"text": "x"}, "stop"),
        SimpleNamespace(choices=[]),
        SimpleNamespace(choices=None),
        "text",
        3,
    ],
)
def test_other_answers_are_unreadable(broken):
    with pytest.raises(UnreadableError):
        read_reply(broken)

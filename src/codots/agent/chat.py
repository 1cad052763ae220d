"""Chat requests as tasks: their rules, their turns, and the context in the system prompt."""

from __future__ import annotations

from dataclasses import dataclass
from io import StringIO
from typing import Any

from codots.context.rewrite import Turn
from codots.core.rng import digest

RULES = ("system", "developer")
"""Roles whose first messages are the rules of the task."""
Message = dict[str, Any]


@dataclass(frozen=True)
class Chat:
    """What a request says about its task."""

    rules: str
    """Text of the system messages before the first other one."""
    description: str
    """Text of the first message after the rules."""
    position: int
    """Number of replies before the one that is asked for."""
    observation: str
    """Text of the messages since the last reply."""
    messages: tuple[Message, ...]
    """Messages after the rules."""

    @property
    def name(self) -> str:
        """Name of the chat: equal for all requests with the same rules and first message."""
        return f"chat-{digest(self.rules, self.description):032x}"[:21]

    def history(self) -> tuple[Turn, ...]:
        """Return the turns before the reply that is asked for."""
        turns: list[Turn] = []
        said: list[Message] = []
        for message in self.messages:
            if message["role"] == "assistant":
                turns.append(Turn("\n\n".join(map(text_of, said)), text_of(message)))
                said = []
            else:
                said.append(message)
        return tuple(turns)


def read_chat(messages: Any) -> Chat:
    """Read the messages of a request. Raises ValueError if they are not a chat that asks for a reply."""
    try:
        return _read(messages)
    except (AttributeError, TypeError) as error:
        raise ValueError(f"messages: not in the form of chat completions ({error})") from None


def _read(messages: Any) -> Chat:
    roles = [m.get("role") if isinstance(m, dict) else None for m in messages] if isinstance(messages, list) else []
    if not roles or not all(isinstance(role, str) for role in roles):
        raise ValueError("messages: expected a list of messages, each with a role")
    rules = leading_rules(messages)
    rest = messages[len(rules) :]
    if not rest or rest[0]["role"] == "assistant":
        raise ValueError("messages: expected a message of the user after the system prompt")
    replies = [i for i, message in enumerate(rest) if message["role"] == "assistant"]
    new = rest[replies[-1] + 1 :] if replies else rest
    if not new:
        raise ValueError("messages: the last one is of the assistant; expected one of the user or of a tool")
    texts = ["\n\n".join(map(text_of, part)) for part in (rules, rest[:1], new)]
    return Chat(texts[0], texts[1], len(replies), texts[2], tuple(rest))


def leading_rules(messages: list[Message]) -> list[Message]:
    """Return the system messages before the first other one."""
    first = next((i for i, message in enumerate(messages) if message["role"] not in RULES), len(messages))
    return messages[:first]


def with_system(messages: list[Message], text: str) -> list[Message]:
    """Return messages with this text in place of the rules."""
    rules = leading_rules(messages)
    role = rules[0]["role"] if rules else RULES[0]
    return [{"role": role, "content": text}, *messages[len(rules) :]]


def text_of(message: Message) -> str:
    """Return the text of a message, with its calls of tools. Other parts, such as images, are named."""
    content = message.get("content")
    parts = [content] if isinstance(content, str) else [_part(part) for part in content or ()]
    return "\n".join(filter(None, [*parts, *map(_call, message.get("tool_calls") or ())]))


def _part(part: Any) -> str:
    return str(part.get("text") or part.get("refusal") or f"[{part.get('type', 'part')}]")


def _call(call: Message) -> str:
    made = call.get("function") or call.get("custom") or {}
    return f"call {made.get('name', '')}({made.get('arguments') or made.get('input') or ''})"


class StreamedReply:
    """The message that the chunks of a stream add up to."""

    def __init__(self) -> None:
        self._text = StringIO()
        self._calls: dict[int, dict[str, str]] = {}

    def add(self, chunk: Message) -> None:
        """Read a chunk. Only the first choice counts. Raises AttributeError or TypeError if it is of another shape."""
        for choice in chunk.get("choices") or ():
            if choice.get("index", 0) == 0:
                delta = choice.get("delta") or {}
                self._text.write(delta.get("content") or "")
                for call in delta.get("tool_calls") or ():
                    self._add_call(call)

    def _add_call(self, call: Message) -> None:
        made = self._calls.setdefault(call.get("index", 0), {"name": "", "arguments": ""})
        for key in made:
            made[key] += (call.get("function") or {}).get(key) or ""

    @property
    def message(self) -> Message:
        """The message so far."""
        return {"content": self._text.getvalue(), "tool_calls": [{"function": call} for call in self._calls.values()]}

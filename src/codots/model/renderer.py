"""Encode chat turns to token ids and decode replies, encoding only new text."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

from codots.core.transcript import StopReason

SYSTEM, USER, REPLY, NEXT = "\ue000system\ue001", "\ue000user\ue001", "\ue000reply\ue001", "\ue000next\ue001"

THOUGHT = "</think>"
"""Ends the reasoning part of a reply."""
EMPTY_THOUGHT = re.compile(r"(<think>\s*</think>\s*)?")
"""Empty reasoning that some templates put before a new reply to turn reasoning off, but omit from earlier turns."""


def without_thought(text: str) -> str:
    """Return a reply without its reasoning, which may contain tags that only count in the answer."""
    return text.rpartition(THOUGHT)[2]


class Render:
    """Encoder and decoder of chat turns, with the tokenizer's own chat template.

    A session only grows, reasoning included: the template's output for a longer chat must begin with its output for a
    shorter one, except for empty reasoning. Raises ValueError for other templates. The text of users, environments and
    contexts is encoded with special tokens disabled, so a role marker inside such text is plain text.
    """

    def __init__(self, tokenizer: Any, thinking: bool = False) -> None:
        self.tokenizer, self.thinking = tokenizer, thinking
        head, middle, prompt, turn_head, turn_tail = self._cut_template()
        self._head, self._middle, self._prompt = map(self._special, (head, middle, prompt))
        self._turn_head, self._turn_tail = self._special(turn_head), self._special(turn_tail)
        self.stop_ids = self._stops()
        # Episodes repeat the same text many times: rules, moves, effects.
        self.encode = lru_cache(maxsize=65536)(self._encode)

    def opening(self, system: str, user: str) -> list[int]:
        """Encode the start of an episode, up to where the model replies."""
        return [*self._head, *self.encode(system), *self._middle, *self.encode(user), *self._prompt]

    def turn(self, user: str, stop: StopReason) -> list[int]:
        """Encode only the next user turn, preceded by the end of the reply if the model did not sample it."""
        head = self._turn_head[1:] if stop is StopReason.STOP else self._turn_head
        return [*head, *self.encode(user), *self._turn_tail]

    def reply(self, text: str) -> list[int]:
        """Encode a reply as a model would have sampled it, including the id that ends the turn."""
        return [*self.encode(text), self._turn_head[0]]

    def text(self, ids: list[int]) -> str:
        """Decode sampled ids to the text that an environment reads, without the stop id."""
        ids = ids[:-1] if ids and ids[-1] in self.stop_ids else ids
        return str(self.tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False))

    def _encode(self, text: str) -> tuple[int, ...]:
        return tuple(self.tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"])

    def _special(self, text: str) -> list[int]:
        return list(self.tokenizer.encode(text, add_special_tokens=False))

    def _apply(self, messages: list[dict[str, str]]) -> str:
        how = {"tokenize": False, "add_generation_prompt": True, "enable_thinking": self.thinking}
        return str(self.tokenizer.apply_chat_template(messages, **how))

    def _cut_template(self) -> tuple[str, str, str, str, str]:
        opening = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": USER}]
        reply = [{"role": "assistant", "content": REPLY}, {"role": "user", "content": NEXT}]
        try:
            short, long = self._apply(opening), self._apply(opening + reply)
        except Exception as error:
            raise ValueError(f"the tokenizer's chat template cannot render system, user, assistant: {error}") from error
        before = long.partition(REPLY)[0]
        if not short.startswith(before) or not EMPTY_THOUGHT.fullmatch(short.removeprefix(before)):
            raise ValueError(
                "the tokenizer's chat template rewrites earlier turns when a chat grows; expected one that only adds"
            )
        if any(long.count(message) != 1 for message in (SYSTEM, USER, NEXT)):
            raise ValueError("the tokenizer's chat template does not write every message exactly once")
        head, rest = short.split(SYSTEM)
        middle, prompt = rest.split(USER)
        turn_head, turn_tail = long.removeprefix(before + REPLY).split(NEXT)
        return head, middle, prompt, turn_head, turn_tail

    def _stops(self) -> frozenset[int]:
        """Return the id that ends a turn in the template, and the tokenizer's EOS id."""
        if not self._turn_head:
            raise ValueError("the tokenizer's chat template does not mark the end of a reply")
        eos = self.tokenizer.eos_token_id
        return frozenset({self._turn_head[0]} | ({eos} if eos is not None else set()))

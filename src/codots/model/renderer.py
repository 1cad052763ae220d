"""Encode chat turns to token ids and decode replies, encoding only new text."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import Any, TypeVar

from codots.core.transcript import StopReason
from codots.model.pieces import Mark, Pieces
from codots.model.template import fixed_clock, layout_of

T = TypeVar("T")
THINK, THOUGHT = "<think>", "</think>"
"""Tags around the reasoning part of a reply."""


def without_thought(text: str) -> str:
    """Return a reply without its reasoning, which may contain tags that only count in the answer.

    Nothing is left of a reply whose reasoning has no end.
    """
    if THOUGHT not in text and text.lstrip().startswith(THINK):
        return ""
    return text.rpartition(THOUGHT)[2]


class Render:
    """Encoder and decoder of chat turns, with the tokenizer's own chat template.

    A session only grows, reasoning included. Its ids are those of the template's output for the whole chat, except for
    reasoning that the template leaves out of earlier turns. The text of users, environments and contexts is encoded
    with special tokens disabled, so a role marker inside such text is plain text. `eos_ids` end a reply too. Raises
    ValueError if the template or the tokenizer does not fit.
    """

    def __init__(self, tokenizer: Any, thinking: bool = False, eos_ids: Iterable[int] = ()) -> None:
        self.tokenizer, self.thinking = tokenizer, thinking
        self._clock = fixed_clock(tokenizer)
        try:
            layout = layout_of(self._apply, thinking)
        except ValueError as error:
            raise ValueError(f"the tokenizer's chat template {error}") from error
        self._layout = layout
        self._pieces = pieces = Pieces(tokenizer, (*layout.opening, *layout.turn))
        self._opening = [pieces.split(text) for text in layout.opening]
        self._after, self._tail = map(pieces.split, layout.turn)
        self._space = self._after.pop(0) if self._after and str(self._after[0]).isspace() else ""
        self._end = self._end_of_reply()
        eos = tokenizer.eos_token_id
        self.stop_ids = frozenset({self._end, *([] if eos is None else [eos]), *eos_ids})
        self._prompt = [self._after[0], *self._tail]
        self._prompt_ids = pieces.ids(self._prompt)
        self.encode = pieces.inner
        self._check_whole()

    @property
    def marks(self) -> tuple[str, ...]:
        """Texts of the tokens of their own that the template writes around messages, in order."""
        parts = [*chain.from_iterable(self._opening), *self._after, *self._tail]
        return tuple(dict.fromkeys(part.text for part in parts if isinstance(part, Mark)))

    def opening(self, system: str, user: str) -> list[int]:
        """Encode the start of an episode, up to where the model replies."""
        messages: list[list[str | Mark]] = [[message] for message in self._layout.messages(system, user)]
        return self._pieces.ids(chain.from_iterable(_alternate(self._opening, messages)))

    def turn(self, user: str, stop: StopReason) -> list[int]:
        """Encode only the next user turn, after the end of the reply if the model did not sample that."""
        ids = self._pieces.ids([*self._after, self._layout.trims[-1](user), *self._tail])
        return ids[1:] if stop is StopReason.STOP else ids

    def reply(self, text: str) -> list[int]:
        """Encode a reply as a model would have sampled it, with its end."""
        said = f"{self._layout.lead}{text.removeprefix(self._layout.thought)}{self._space}"
        ids, before = self._pieces.ids([*self._prompt, said]), self._prompt_ids
        if ids[: len(before)] != before:  # the reply merges with the end of the prompt
            return [*self.encode(said), self._end]
        return [*ids[len(before) :], self._end]

    def text(self, ids: list[int]) -> str:
        """Decode sampled ids to the text that an environment reads, without the stop id.

        It starts with the tag of a thought if the template has already opened one.
        """
        if not ids:
            return ""
        ids = ids[:-1] if ids[-1] in self.stop_ids else ids
        said = self.tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
        return f"{self._layout.thought}{said}"

    def _apply(self, messages: list[dict[str, str]]) -> str:
        switches = {"enable_thinking": self.thinking, "thinking": self.thinking}
        how = {"tokenize": False, "add_generation_prompt": True, **switches, **self._clock}
        return str(self.tokenizer.apply_chat_template(messages, **how))

    def _end_of_reply(self) -> int:
        """Return the id that ends a reply in the template."""
        if not self._after:
            raise ValueError("the tokenizer's chat template does not mark the end of a reply")
        end = self._after[0]
        if isinstance(end, Mark):
            return end.id
        raise ValueError(
            f"the tokenizer's chat template ends a reply with plain text, {end!r}; expected a single special token"
        )

    def _check_whole(self) -> None:
        """Raise ValueError if a chat of plain words has other ids turn by turn than as a whole."""
        layout, (close, tail) = self._layout, self._layout.turn
        start = "".join(_alternate(layout.opening, layout.messages("Be brief.", "One and two.")))
        whole = f"{start}{layout.lead}Three.{close}More than two?{tail}"
        turn = self.turn("More than two?", StopReason.LENGTH)
        if self.opening("Be brief.", "One and two.") != self._whole(start) or self._whole(whole)[-len(turn) :] != turn:
            raise ValueError("the tokenizer encodes a whole chat to other ids than turn by turn")

    def _whole(self, text: str) -> list[int]:
        return list(self.tokenizer.encode(text, add_special_tokens=False))


def _alternate(parts: Sequence[T], others: Sequence[T]) -> Iterator[T]:
    """Yield the first part, and then each of the others with the part after it."""
    yield parts[0]
    for other, part in zip(others, parts[1:], strict=True):
        yield from (other, part)

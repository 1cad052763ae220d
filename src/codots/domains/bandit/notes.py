"""Reading and writing claims about options in a context."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from codots.domains.bandit.env import Option

SURE, LIKELY, NOT = 2, 1, -1
"""Kinds of claim: an option pays, it probably pays, it does not pay."""
VALUE = re.compile(r"(?:[=:]|\breward) {0,3}(?:([01])(?:\.0{1,4})?(?![\w.])|\?)")
MARKS = {SURE: "1", LIKELY: "?", NOT: "0"}
VALUES = {"1": " pays, ", "0": " empty, ", None: " probably, "}
SENTENCE, PART = re.compile(r"[.;!](?=\s|$)|\n"), re.compile(r",|\b(?:and|but|while|so|because)\b")
WORD = re.compile(r"[a-z'][a-z0-9']*|\?")
PAYS = {
    "pay",
    "pays",
    "paid",
    "paying",
    "right",
    "correct",
    "best",
    "good",
    "win",
    "wins",
    "winning",
    "works",
    "answer",
}
PAYS |= {"choose", "pick", "use", "yes"}
UNSURE = {"probably", "maybe", "perhaps", "possibly", "likely", "might", "may", "could", "seems", "think", "guess", "?"}
UNSURE |= {"if", "whether", "or"}
DENIED = {"not", "no", "never", "none", "nor", "neither", "cannot", "without", "avoid", "empty", "wrong", "incorrect"}
DENIED |= {"bad", "fail", "fails", "failed", "lose", "loses", "lost", "nothing", "stopped"}


def read_claims(context: str, options: Iterable[Option]) -> dict[Option, int]:
    """Return the kind of the last claim that a text in either style makes about each option."""
    named = {name.lower(): option for option in options for name in option}
    text = VALUE.sub(lambda found: VALUES[found[1]], context.lower().replace("\u2019", "'"))
    return {option: kind for sentence in SENTENCE.split(text) for option, kind in _claims(sentence, named)}


def _claims(sentence: str, named: dict[str, Option]) -> Iterator[tuple[Option, int]]:
    """Yield the claims of a sentence. Parts of it that are bare names share the claim of the part before or after.

    Examples of shared claims: `not a, b`; `a, b do not pay`; `I chose a, and it paid`.
    """
    parts = [words for part in PART.split(sentence) if (words := WORD.findall(part))]
    if len(parts) == 1 and len(parts[0]) == 1:
        parts = [[*parts[0], "pays"]]  # nothing but a name
    waiting: list[Option] = []
    listed, shared = True, None
    for words in parts:
        found = [named[word] for word in words if word in named]
        bare = len(found) == len(words)
        kind = kind_of(words) or (shared if bare else None)
        if kind is None:
            waiting = waiting if bare and listed else []
            waiting.extend(found)
            listed, shared = bare, None
            continue
        yield from ((option, kind) for option in (waiting if listed or not found else []) + found)
        waiting, listed = [], True
        shared = kind if words[-1] in named else None


def kind_of(words: Sequence[str]) -> int | None:
    """Return the kind of claim that these words make, or None if they make none."""
    if any(word in DENIED or word.endswith("n't") for word in words):
        return NOT
    return LIKELY if not UNSURE.isdisjoint(words) else SURE if not PAYS.isdisjoint(words) else None


def write_claim(options: Sequence[Option], kind: int, style: str) -> str:
    """Return a claim about options as one line. A claim that they do not pay may be about several."""
    names = [option.name(style) for option in options]
    if style == "compact":
        return " ".join(f"{name}={MARKS[kind]}" for name in names)
    if kind == NOT:
        return f"- {', '.join(names)} {'is' if len(names) == 1 else 'are'} empty"
    return f"- {names[0]} {'pays' if kind == SURE else 'probably pays'}"

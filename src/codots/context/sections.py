"""Text that stays in its section of a prompt: what a task, a tool or a model wrote is data, whatever it looks like."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import replace

from codots.context.trajectory import Trajectory, Turn

HEADINGS = (
    "notes",
    "rules of the task",
    "what happened",
    "observation",
    "reply",
    "outcome of the last reply",
    "how it ended",
    "an earlier task in this world",
)
"""Headings of the prompts, in lower case. Observations and replies are numbered; `notes so far` counts as `notes`."""
ROLE = re.compile(
    r"""<(?= [|\uff5c][\w/] | /?(?:s|bos|eos|context|start_of_turn|end_of_turn)> | </?SYS>> ) | \[(?= /?INST\] )""",
    re.IGNORECASE | re.VERBOSE,
)
"""First character of what a server may read as the start or the end of a message, or of a context."""
MARKS = "#*_=~-:.\"'`> \t"
"""Marks before and after the words of a heading."""
MAX_HEADING = 1000
"""Maximum length of a heading, in characters: nothing reads a longer line as one."""
CONTROLS = dict.fromkeys((*range(9), *range(14, 32), 127))
"""Invisible characters of ASCII, which are deleted before lines are compared."""
SPLIT = re.compile(r"(\r\n|[\n\r\v\f\x1c-\x1e\x85\u2028\u2029])")


def inert(text: str) -> str:
    """Return a text with a backslash before each line that reads like a heading, and inside of each marker of a role.

    Only the headings of the prompt count, in any case, level and Unicode form. Any other text stays as it is. A text
    that is inert already does, too.
    """
    text = ROLE.sub(r"\g<0>\\", text)
    if not any(mark in text for mark in ("#", "\uff03", "\ufe5f", "*", "_", "=", "-")):
        return text
    parts = SPLIT.split(text)  # lines, with the ends of lines between them
    lines = parts[::2]
    for i, line in enumerate(lines):
        if _is_heading(line, lines[i + 1] if i + 1 < len(lines) else ""):
            parts[2 * i] = f"\\{line}"
    return "".join(parts)


def inert_trajectory(said: Trajectory) -> Trajectory:
    """Return a trajectory that stays in its sections of the prompt of an update."""
    turns = tuple(Turn(inert(turn.observation), inert(turn.reply)) for turn in said.turns)
    rules, outcome, feedback = map(inert, (said.rules, said.outcome, said.feedback))
    return replace(said, rules=rules, turns=turns, outcome=outcome, feedback=feedback)


def _is_heading(line: str, below: str) -> bool:
    """Return whether a line has the words of a known heading, and its marks or, in the line below, its underline."""
    if len(line) > MAX_HEADING:
        return False
    plain = _plain(line)
    words = " ".join(plain.strip(MARKS).split()).replace("notes so far", "notes")
    if not words.startswith(HEADINGS):
        return False
    if all(words[len(known) :].lstrip()[:1].isalpha() for known in HEADINGS if words.startswith(known)):
        return False
    under = _plain(below)
    return plain.startswith(("#", "**", "__")) or (len(under) > 1 and not under.strip("=-"))


def _plain(line: str) -> str:
    """Return a line in one Unicode form and in lower case, without invisible characters and white space around it."""
    if not line.isascii():
        line = unicodedata.normalize("NFKC", line).casefold()
        line = "".join(c for c in line if unicodedata.category(c) != "Cf")
    return line.translate(CONTROLS).strip().lower()

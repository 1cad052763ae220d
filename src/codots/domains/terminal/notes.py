"""Reading and writing claims about the settings of a server in a context."""

from __future__ import annotations

import re
from collections.abc import Iterator

from codots.domains.base import Rng
from codots.domains.terminal.env import Dials
from codots.domains.terminal.site import BY_EXAMPLE, LOCAL_NAMES, MARKS, ROOTS, TOOLS, TRANSFERS, Naming

QUIRKS = """\
- an archive of a folder belongs beside the folder; one to upload is named like the folder, with the ending of its kind
- `ssh user@host` first, then the commands, then `exit`: a command on the ssh line is ignored
- `tar` has no -C and unpacks where you stand: cd first; `unzip -d` works
- write paths in full: on Windows without quotes, in scp without ~; `ren` takes a full new path
- chmod wants three digits; no pipes, no redirection, no wildcards; the target folder of scp, cp and mv has to exist"""
"""The context of v0, which hides nothing: the quirks of the simulator."""

NAME = re.compile(r"\b(?:" + "|".join(LOCAL_NAMES) + r")\b")
TOOL = re.compile(r"\b(?:" + "|".join(TOOLS) + r")\b")
ROOT = re.compile(r"\broot\b(?:[ :=`*'\"]{1,5}(?!not\b)[a-z]{1,12}){0,4}[ :=`*'\"]{1,5}(/[\w/-]{1,40}\w)", re.I)
_MARKS = "|".join(MARKS)
MARK = re.compile(rf"(?<![\w/-])(?:({_MARKS})([-_])[A-Za-z]{{1,20}}(?=\.)|[A-Za-z]{{1,20}}([-_])({_MARKS})(?=\.))")
WORKS = re.compile(r"\b(scp|rsync)\b[` ]{1,3}(works|is broken|does not work|fails)")
WRITTEN = {
    "root": "- the document root is {}",
    "naming": "- under it, a file X.txt is named {}",
    "transfer": "- {} works, the other one does not",
}

Claim = tuple[str, str]
"""A setting and its claimed value, as in `truth`."""


def read_claims(context: str) -> Iterator[Claim]:
    """Yield all claims of a context line by line, including repeated claims."""
    for line in context.splitlines():
        for local, standard in zip(NAME.findall(line), TOOL.findall(line), strict=False):
            yield standard, local
        yield from (("root", path) for path in ROOT.findall(line))
        for front, joint, other, mark in MARK.findall(line):
            yield "naming", Naming(front or mark, joint or other, bool(front))("X.txt")
        for tool, how in WORKS.findall(line):
            yield "transfer", tool if how == "works" else TRANSFERS[tool == "scp"]


def values(setting: str, dials: Dials) -> tuple[str, ...]:
    """Return the possible values of a setting."""
    known = {"root": ROOTS[: dials.roots], "naming": tuple(BY_EXAMPLE), "transfer": TRANSFERS}
    return known.get(setting, LOCAL_NAMES)


def settings(dials: Dials) -> tuple[str, ...]:
    """Return the hidden settings."""
    return (*TOOLS[: dials.tools], *WRITTEN)


def read_settings(context: str, dials: Dials) -> dict[str, str]:
    """Return the claimed value of each setting. The last possible claim counts."""
    hidden = settings(dials)
    return {
        setting: value
        for setting, value in read_claims(context)
        if setting in hidden and value in values(setting, dials)
    }


def read_names(context: str, dials: Dials) -> list[str]:
    """Return the local names that a context lists, or an empty list unless there are as many as renamed tools."""
    names = sorted(set(NAME.findall(context)))
    return names if len(names) == dials.tools else []


def draw_value(setting: str, dials: Dials, rng: Rng) -> str:
    """Draw a possible value of a setting."""
    possible = values(setting, dials)
    return possible[rng.integers(len(possible))]


def write_claim(setting: str, value: str) -> str:
    """Return a claim as text."""
    return WRITTEN.get(setting, f"- `{{}}` is the local name of `{setting}`").format(value)


def write_unknown(name: str) -> str:
    """Return a line which says that a local name exists."""
    return f"- `{name}` is the local name of a tool not known yet"

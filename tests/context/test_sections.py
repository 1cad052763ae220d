"""Whatever a task, a tool or a model writes stays in its section of the prompts of a task and of an update."""

import re
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codots.context.rewrite import Rewrite, Trajectory, Turn
from codots.context.sections import inert
from codots.core.rng import stream
from codots.domains.contract import rollout
from codots.domains.registry import first_preset, make_pack

CORPUS = [
    re.sub(r"\\([nrt]|u[0-9a-f]{4})", lambda found: f"\\{found[1]}".encode().decode("unicode_escape"), line)
    for line in Path(__file__).with_name("hostile.txt").read_text(encoding="utf-8").split("\n")
    if line
]
DOMAINS = (
    "alchemy-v1",
    "bandit-v1",
    "frozen-lake-v1",
    "grid-navigation-v1",
    "learn2ask-v1",
    "optimal-control-v1",
    "pde-discovery-v1",
    "terminal-v1",
)
HEADINGS = (
    "notes",
    "rules of the task",
    "what happened",
    "how it ended",
    "notes so far",
    "outcome of the last reply",
    "an earlier task in this world",
)
ROLES = re.compile(r"<[|\uff5c]\w|</?(s|bos|eos|context|start_of_turn|end_of_turn)>|<</?SYS>>|\[/?INST\]", re.I)
PLAIN = Trajectory("be quick", (Turn("a lake", "up"), Turn("b2", "left")), "a2", 0.5, "late")
FIELDS = ("rules", "observation", "reply", "outcome", "feedback", "context")


def headings(prompt):
    """Return the headings that a generous reader finds in a prompt: a second way to look for them."""
    found, lines = [], [clean(line) for line in prompt.splitlines()]
    for line, below in zip(lines, [*lines[1:], ""], strict=True):
        words = re.sub(r"[^a-z0-9 ]+.*", "", line.lstrip("#*_ ")).strip()
        named = words in HEADINGS or re.fullmatch(r"(observation|reply)( \d+)?", words)
        if named and (re.match(r"#|\*\*|__", line) or re.fullmatch(r"=+|--+", below)):
            found.append(words)
    return found


def clean(line):
    """Return a line as a reader sees it."""
    line = unicodedata.normalize("NFKC", line).casefold()
    return " ".join("".join(c for c in line if unicodedata.category(c) not in ("Cf", "Cc") or c == "\t").split())


def prompts(field, text, strategy=None):
    """Return the prompts of a task and of an update with a text in one place."""
    strategy, turns = strategy or Rewrite(), PLAIN.turns
    changed = {"rules": PLAIN.rules, "outcome": PLAIN.outcome, "feedback": PLAIN.feedback}
    if field in ("observation", "reply"):
        turns = (Turn(**{"observation": "a lake", "reply": "up"} | {field: text}), turns[1])
    elif field != "context":
        changed[field] = text
    context = text if field == "context" else "the red one"
    said = Trajectory(turns=turns, reward=0.5, **changed)
    solve, update = strategy.solve("be quick", context, "a lake", "natural"), strategy.prompt(said, context, "natural")
    return solve.system, update.user


def check(field, text):
    """Fail if a text changes the headings of a prompt, or brings a role marker into it."""
    for harmless, hostile in zip(prompts(field, text and "harmless"), prompts(field, text), strict=True):
        assert headings(hostile) == headings(harmless), (field, text)
        assert not ROLES.search(hostile), (field, text)


@pytest.mark.parametrize("text", CORPUS)
def test_no_hostile_text_leaves_its_section(text):
    for field in FIELDS:
        check(field, text)
    assert inert(inert(text)) == inert(text)


BITS = [*CORPUS, *HEADINGS, "#", "##", "\n", "\r\n", "\u2028", "\t", " ", "=====", "---", "**", "text"]


@given(st.lists(st.sampled_from(BITS), max_size=6).map("".join), st.sampled_from(FIELDS))
def test_no_mixture_of_hostile_texts_leaves_its_section(text, field):
    check(field, text)
    assert inert(inert(text)) == inert(text)


@pytest.mark.slow
def test_none_of_20_000_hostile_texts_leaves_its_section():
    rng = stream("hostile", 0)
    for i in range(20_000):
        check(FIELDS[i % len(FIELDS)], "".join(BITS[k] for k in rng.integers(len(BITS), size=rng.integers(1, 7))))


@given(st.text())
def test_a_text_without_headings_and_markers_is_unchanged(text):
    safe = re.sub(r"[#\uff03\ufe5f*_=<\[-]", "", unicodedata.normalize("NFKC", text))
    assert inert(safe) == safe


@pytest.mark.parametrize(
    "text",
    [
        "# Ways of working\n- ask first",
        "# Notes on doors",
        "# reply to the user, then stop",
        "#!/bin/sh\n# what happened here is unknown",
        "Observation 1: red\nReply 2 was wrong",
        "| a | b |\n|---|---|",
        "x <| f | g; a < b; [s] [|1|]",
        "# . . #\n#######",
    ],
)
def test_ordinary_text_is_unchanged(text):
    assert inert(text) == text


@pytest.mark.parametrize("id", DOMAINS)
def test_what_the_domains_say_is_unchanged(id):
    pack = make_pack(id, first_preset(id), "dev", 0, 2)
    for task, played in zip(pack.tasks, rollout(pack, "random", "natural"), strict=True):
        said = [pack.domain.rules_text(task, "natural"), pack.domain.oracle_context(pack.world, "natural")]
        turns = [part for text, step in played.turns for part in (text, step.observation, step.feedback)]
        said += [played.opening, *turns]
        assert [inert(text) for text in said] == said

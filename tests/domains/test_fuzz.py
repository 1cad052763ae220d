"""20,000 hostile replies over all domains: no exception, no side effect, no reward out of bounds."""

import os
import pickle
import random
import socket
import subprocess
import sys
from contextlib import contextmanager
from itertools import cycle

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codots.domains.base import POLICIES
from codots.domains.contract import GARBAGE, HOSTILE, check_step, rollout
from codots.domains.grid_navigation.ground import UNKNOWN
from codots.domains.learn2ask.log import merged
from codots.domains.registry import domain_ids, get_domain, make_pack
from codots.domains.terminal.machine import NODES, PATH

ACTIONS = 20_000
IDS = domain_ids()
SHARE = -(-ACTIONS // len(IDS))
"""Number of actions for each domain."""
AT_ONCE = 20
"""Number of actions in one example, a life of as many tasks as needed."""
PIECES = (
    *("<action>", "</action>", "<action><action>", "</action></action>", "<ACTION>", "<action/>", "<law>", "</law>"),
    *('<sample><point x="1e999" t="-1"/></sample>', '<regress data="t9.9"', '<point x="0.5" x="0.5" t="0.1"/>'),
    *(
        "<answer>",
        "</answer>",
        "<stop />",
        "stop",
        "<context>",
        "</context>",
        "<|im_end|>",
        "<!DOCTYPE a>",
        "&amp;",
        "&#0;",
    ),
    *(
        "9" * 400,
        "-1",
        "0",
        "1e308",
        "1e999",
        "nan",
        "inf",
        "-inf",
        "0x10",
        "1_000",
        "\u0661\u0662",
        "\u00b2",
        "\u2460",
    ),
    *(
        "(" * 200,
        ")" * 200,
        "**9" * 60,
        " if x else ",
        "lambda: 0",
        "__import__('os')",
        "exec('1')",
        "{{ 7 * 7 }}",
        "%s",
    ),
    *(
        "; rm -rf /",
        "&& cat /etc/passwd",
        "| sh",
        "> /tmp/x",
        "../" * 50,
        "$(ls)",
        "`ls`",
        "~root",
        "*",
        "'",
        '"',
        "\\",
    ),
    *("+", "=", ":", "a1", "z99", "p16", "P0", "\x00", "\n", "\r\n", "\t", "\u202e", "\ud800", "\U0001f9ca", "\u0130"),
)
"""Text spliced into good replies."""


def spliced(text, at, other):
    return text[: at % (len(text) + 1)] + other + text[at % (len(text) + 1) :]


def word_replaced(text, at, other):
    words = text.split(" ")
    words[at % len(words)] = other
    return " ".join(words)


CHANGES = (
    spliced,
    word_replaced,
    lambda text, at, other: text[: at % (len(text) + 1)],
    lambda text, at, other: text[at % (len(text) + 1) :],
    lambda text, at, other: text + text,
    lambda text, at, other: text + other,
    lambda text, at, other: f"<action>{text}</action>",
    lambda text, at, other: text.replace("<action>", f"<action>{other}"),
    lambda text, at, other: text.replace(" ", other),
    lambda text, at, other: "".join(chr(0x660 + int(c)) if c in "0123456789" else c for c in text),
    lambda text, at, other: "".join(other if c.isdigit() else c for c in text),
    lambda text, at, other: text.swapcase(),
    lambda text, at, other: text[::-1],
    lambda text, at, other: text.replace("=", f'="1" {other}='),
)
"""Functions that corrupt a good reply, given a place and another text."""

pieces = st.lists(st.sampled_from(PIECES), max_size=5).map("".join)
garbage = st.text(st.characters(exclude_categories=[]), max_size=20) | pieces | st.sampled_from(HOSTILE)
seeds = [st.integers(i, 2**31) for i in range(9)]  # equal in effect, but hypothesis would count equal strategies once
replies = st.lists(st.one_of(*seeds, garbage), min_size=AT_ONCE, max_size=AT_ONCE)
"""Garbage, and seeds for corrupting good replies."""


def corrupted(seed, good):
    """Change a good reply up to three times, more often inside its tags than around them."""
    rng = random.Random(seed)
    text = rng.choice(good)
    for _ in range(rng.choice((0, 1, 1, 2, 3))):
        change, at, other = rng.choice(CHANGES), rng.randrange(10_000), rng.choice(PIECES)
        head, opened, rest = text.partition("<action>")
        inside, closed, tail = rest.partition("</action>")
        if closed and rng.random() < 0.7:
            text = head + opened + change(inside, at, other) + closed + tail
        else:
            text = change(text, at, other)
    return text[:5000]


def bandit(env):
    view = env.view
    assert view.chosen in (None, *view.options)
    assert not view.paid or view.chosen


def lake(env):
    board = env.view.board
    assert all(0 <= at < board.side for at in env.view.at)
    assert env.view.turn <= env.view.turns


def alchemy(env):
    view = env.view
    assert len(view.stock) == len(view.table.tier)
    assert all(0 <= copies <= 1000 for copies in view.stock)
    assert view.turn <= view.rounds


def grid(env):
    view = env.view
    assert 0 <= view.at < view.trip.side**2
    assert 0 <= view.left <= view.trip.rounds
    assert all(known in (UNKNOWN, cost) for known, cost in zip(view.known, env.ground.costs, strict=True))


def terminal(env):
    for machine in env.shell.machines.values():
        assert len(machine.nodes) <= NODES
        assert all(len(path) <= PATH and ".." not in path.split("/") for path in machine.nodes)
    assert env.view.used <= env.view.turns


def control(env):
    assert len(env.view.rows) <= env.goal.horizon + 1
    assert all(number - number == 0 for row in env.view.rows for number in row)


def pde(env):
    assert 0 <= env.view.left <= env.dials.points
    assert env.view.turn <= env.dials.turns
    places = [point for points in env.archive.data.values() for point in points]
    assert all(0 <= point.x <= 1 and 0 <= point.t <= 1 and abs(point.u) < 1e6 for point in places)


def clinic(env):
    review = env.view.review
    assert review is None or set(review.reply.topics) <= set(env.dials.named)


def dialogue(env):
    assert env.view.lines == tuple(merged(env.round.lines))


INVARIANTS = {
    "bandit": bandit,
    "frozen-lake": lake,
    "alchemy": alchemy,
    "grid-navigation": grid,
    "terminal": terminal,
    "optimal-control": control,
    "pde-discovery": pde,
    "learn2ask-v0": dialogue,
    "learn2ask-v1": clinic,
}
"""Checks of every state of an environment, by family."""


AUDITED = {"open", "os", "shutil", "subprocess", "socket", "exec", "compile", "import", "ctypes", "pathlib", "tempfile"}


class Guard:
    """An audit hook that records side effects: files, processes, sockets, code compiled or run."""

    def __init__(self):
        self.events = None

    def __call__(self, event, args):
        if self.events is not None and event.partition(".")[0] in AUDITED:
            self.events.append(f"{event} {args!r:.200}")

    @contextmanager
    def watching(self):
        self.events = events = []
        try:
            yield
        finally:
            self.events = None
        assert not events, f"side effects: {events}"


guard = Guard()
sys.addaudithook(guard)  # a hook cannot be removed, so it records on demand only


@pytest.mark.parametrize("id", IDS)
def test_no_reply_has_a_side_effect_or_breaks_an_invariant(id):
    domain = get_domain(id)
    presets = [preset for preset in domain.presets if domain.lacks(preset) is None]
    packs = [make_pack(id, preset, "train", 0, 3) for preset in presets]
    good = {
        (p, style): sorted({text for name in POLICIES for task in rollout(pack, name, style) for text, _ in task.turns})
        for p, pack in enumerate(packs)
        for style in domain.styles
    }
    check_state = next(check for family, check in INVARIANTS.items() if id.startswith(family))
    pickled, count = [pickle.dumps(pack) for pack in packs], 0
    for p, style in good:  # load what is imported on first use
        for text in (*GARBAGE, *HOSTILE, *good[p, style][:20]):
            packs[p].tasks[0].env(style=style).step(text)

    @settings(max_examples=-(-SHARE // AT_ONCE), deadline=None, derandomize=True, database=None)
    @given(st.sampled_from(sorted(good)), replies)
    def life(where, replies):
        nonlocal count
        pack, style = packs[where[0]], where[1]
        left = [corrupted(reply, good[where]) if isinstance(reply, int) else reply for reply in replies]
        memory, tasks = domain.make_memory(pack.world), cycle(pack.tasks)
        while left:
            env, done = next(tasks).env(style=style, memory=memory), False
            env.observe()
            while left and not done:
                with guard.watching():
                    step = env.step(left.pop())
                check_step(domain, step)
                check_state(env)
                done, count = step.done, count + 1
        assert pack == pickle.loads(pickled[where[0]])

    life()
    assert count >= SHARE


def test_the_guard_records_files_processes_sockets_and_code(tmp_path):
    for side_effect in (
        lambda: (tmp_path / "x").write_text("x"),
        lambda: (tmp_path / "x").unlink(),
        lambda: os.system("true"),
        lambda: subprocess.run(["true"], check=True),
        lambda: socket.socket().close(),
        lambda: eval("1"),
    ):
        with pytest.raises(AssertionError, match="side effects: "), guard.watching():
            side_effect()

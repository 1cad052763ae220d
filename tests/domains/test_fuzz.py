"""Twenty thousand hostile replies to every domain: no exception, no way out of the world, no reward out of bounds."""

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
"""Actions for each domain."""
AT_ONCE = 20
"""Actions of one example, which is a life of as many tasks as it takes."""
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
"""What is spliced into a reply that was fine."""


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
"""How a reply that was fine is spoilt; all take where, and what else."""

pieces = st.lists(st.sampled_from(PIECES), max_size=5).map("".join)
garbage = st.text(st.characters(exclude_categories=[]), max_size=20) | pieces | st.sampled_from(HOSTILE)
seeds = [st.integers(i, 2**31) for i in range(9)]  # alike, but hypothesis would count equal ones once
replies = st.lists(st.one_of(*seeds, garbage), min_size=AT_ONCE, max_size=AT_ONCE)
"""Garbage, and seeds of good replies that are spoilt."""


def spoilt(seed, good):
    """Change a good reply up to three times, more often within its tags than around them."""
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


INSIDE = {
    "frozen-lake": lake,
    "alchemy": alchemy,
    "grid-navigation": grid,
    "terminal": terminal,
    "optimal-control": control,
    "pde-discovery": pde,
    "learn2ask-v0": dialogue,
    "learn2ask-v1": clinic,
}
"""What holds of every state of a world, by family."""


OUTSIDE = {"open", "os", "shutil", "subprocess", "socket", "exec", "compile", "import", "ctypes", "pathlib", "tempfile"}


class Guard:
    """Hears of what Python does to the machine: files, processes, sockets, code that is compiled or run."""

    def __init__(self):
        self.heard = None

    def __call__(self, event, args):
        if self.heard is not None and event.partition(".")[0] in OUTSIDE:
            self.heard.append(f"{event} {args!r:.200}")

    @contextmanager
    def watching(self):
        self.heard = heard = []
        try:
            yield
        finally:
            self.heard = None
        assert not heard, f"left the world by {heard}"


guard = Guard()
sys.addaudithook(guard)  # nobody can take it away again, but it listens on demand only


@pytest.mark.parametrize("id", IDS)
def test_no_reply_leads_out_of_a_world(id):
    domain = get_domain(id)
    presets = [preset for preset in domain.presets if domain.lacks(preset) is None]
    packs = [make_pack(id, preset, "train", 0, 3) for preset in presets]
    good = {
        (p, style): sorted({text for who in POLICIES for task in rollout(pack, who, style) for text, _ in task.turns})
        for p, pack in enumerate(packs)
        for style in domain.styles
    }
    inside = next(holds for family, holds in INSIDE.items() if id.startswith(family))
    whole, told = [pickle.dumps(pack) for pack in packs], 0
    for p, style in good:  # whatever is loaded when it is first used
        for text in (*GARBAGE, *HOSTILE, *good[p, style][:20]):
            packs[p].tasks[0].env(style=style).step(text)

    @settings(max_examples=-(-SHARE // AT_ONCE), deadline=None, derandomize=True, database=None)
    @given(st.sampled_from(sorted(good)), replies)
    def life(where, replies):
        nonlocal told
        pack, style = packs[where[0]], where[1]
        left = [spoilt(reply, good[where]) if isinstance(reply, int) else reply for reply in replies]
        memory, tasks = domain.make_memory(pack.world), cycle(pack.tasks)
        while left:
            env, done = next(tasks).env(style=style, memory=memory), False
            env.observe()
            while left and not done:
                with guard.watching():
                    step = env.step(left.pop())
                check_step(domain, step)
                inside(env)
                done, told = step.done, told + 1
        assert pack == pickle.loads(whole[where[0]])

    life()
    assert told >= SHARE


def test_the_guard_hears_of_a_file_a_process_and_code(tmp_path):
    for way_out in (
        lambda: (tmp_path / "x").write_text("x"),
        lambda: (tmp_path / "x").unlink(),
        lambda: os.system("true"),
        lambda: subprocess.run(["true"], check=True),
        lambda: socket.socket().close(),
        lambda: eval("1"),
    ):
        with pytest.raises(AssertionError, match="left the world by"), guard.watching():
            way_out()

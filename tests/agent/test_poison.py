"""An instruction that an upstream, a tool or a client tries to plant reaches no later task."""

import re
from collections import Counter
from pathlib import Path

import pytest

from codots.agent.database import SETTINGS
from codots.agent.guard import GUARD
from codots.agent.quarantine import list_held
from codots.agent.serving import gateway
from codots.context.rewrite import Rewrite, Trajectory, Turn
from tests.agent.poison import WAYS, upstream
from tests.agent.test_server import Running

DOCS = Path(__file__).parents[2] / "docs"


def attack(at, number, way):
    """Play the tasks of a way in a world of its own."""
    store, world = at.service.store, f"way{number}"
    store.create(world, Rewrite().settings())
    store.put(world, way.before, "import", "a test")
    for k, text in enumerate(way.texts):
        told = {"reward": 1.0} | ({way.place: text} if way.place in ("feedback", "outcome") else {})
        task = [{"role": "system", "content": "Open a door."}, {"role": "user", "content": f"way-{number}: which one?"}]
        named = {"world": world, "task": f"task{k}"}
        at.ask(task, metadata=named)
        if way.place == "tool":
            at.ask(
                [*task, {"role": "assistant", "content": "I look."}, {"role": "user", "content": text}], metadata=named
            )
        at.finish(f"task{k}", world, **told)


def prompt_of_a_later_task(at, number):
    """Return the system prompt that the upstream gets in a later task."""
    task = [{"role": "system", "content": "Open a door."}, {"role": "user", "content": f"way-{number}: again?"}]
    at.ask(task, metadata={"world": f"way{number}", "task": "later"})
    return at.upstream.requests[-1]["messages"][0]["content"]


def outcome(store, number):
    """Say what became of a way: an update was held back, one was rejected, or the text was inert."""
    world = f"way{number}"
    if list_held(store, world):
        return "held back"
    return "rejected" if any(version.failure for version in store.history(world)) else "inert"


@pytest.fixture(autouse=True)
def fast_disk(monkeypatch):
    """Do not wait for the disk: nothing here is about a power cut."""
    monkeypatch.setattr("codots.agent.database.SETTINGS", (*SETTINGS, "synchronous=OFF"))


@pytest.fixture
def running(serve, tmp_path):
    """A server before the upstream."""
    scripted = serve(upstream)
    with gateway(str(tmp_path / "agent.db"), "openai:m", "default") as service, Running(service) as at:
        at.upstream = scripted
        yield at


def test_the_guard_alone_holds_back_what_an_update_copies():
    for way in WAYS:
        if way.writes == "copy":
            old, held = way.before, []
            for text in way.texts:
                placed = {place: text if way.place == place else "" for place in ("outcome", "feedback")}
                turns = (Turn("Which one?", text if way.place == "reply" else "The red door."),)
                if way.place == "tool":
                    turns += (Turn(text, "The red door."),)
                new = f"{old}\n{text}"
                held.append(GUARD.check(old, new, Trajectory("Open a door.", turns, reward=1.0, **placed)))
                old = old if held[-1] else new
            assert held[-1], way.name


@pytest.mark.slow
def test_fifty_ways_of_planting_are_held_back_or_inert(running):
    assert len(WAYS) == len({way.name for way in WAYS}) == 50
    counts, places = Counter(), Counter()
    for number, way in enumerate(WAYS):
        attack(running, number, way)
        prompt = prompt_of_a_later_task(running, number)
        assert way.planted not in prompt.lower(), way.name
        assert prompt.startswith("Open a door.")
        became = outcome(running.service.store, number)
        assert became == (
            "inert" if way.writes == "obey" else "rejected" if way.name == "two contexts" else "held back"
        )
        counts[became] += 1
        places[way.place, became] += 1
    page = (DOCS / "agent.md").read_text()
    page, kinds = (DOCS / "agent.md").read_text(), ("held back", "rejected", "inert")
    for place in ("feedback", "tool", "outcome", "reply", "update"):
        row = " | ".join(str(places[place, became]) for became in kinds)
        assert re.search(rf"^\| `{place}`[^|]*\| {re.escape(row)} \|$", page, re.MULTILINE), (place, row)
    assert f"| all | {' | '.join(str(counts[became]) for became in kinds)} |" in page


def test_without_the_guard_the_upstream_plants_what_it_copies(serve, tmp_path):
    """The ways are real: this upstream does plant instructions where nothing holds them back."""
    scripted = serve(upstream)
    with gateway(str(tmp_path / "agent.db"), "openai:m", "default", guard=None) as service, Running(service) as at:
        at.upstream = scripted
        copies = [(number, way) for number, way in enumerate(WAYS) if way.writes == "copy"][::12]
        for number, way in copies:
            attack(at, number, way)
            assert way.planted in prompt_of_a_later_task(at, number).lower(), way.name

"""Lift in production: the draw is the same everywhere, the interval is honest, and drift is not taken for lift."""

import json
from dataclasses import dataclass

import anyio
import numpy as np
import pytest
from alembic.command import upgrade
from mcp import Client

from codots.agent import database
from codots.agent.agent import Agent
from codots.agent.changes import Joining
from codots.agent.database import Database
from codots.agent.lift import LAST, compare, lift_of
from codots.agent.records import Outcome
from codots.agent.rows import withheld
from codots.agent.serving import gateway
from codots.agent.sql import sa
from codots.agent.store import Store
from codots.agent.tools import make_server
from codots.cli.contexts import run_lift
from tests.agent.conftest import REWRITE
from tests.agent.lives import learner
from tests.agent.test_server import Running

TIMEOUT = 60
REPEATS, TASKS, SHARE = 1000, 500, 0.2


@dataclass
class Drawn:
    """A task whose arm was drawn, as the store returns it."""

    number: int
    arm: str
    null_share: float
    reward: float | None
    created: float = 0.0


def drawn(world, own, null, rng, graded=False, shares=None):
    """Return tasks with these mean rewards with and without context, drawn as in a store."""
    tasks = []
    for i, means in enumerate(zip(own, null, strict=True)):
        share = SHARE if shares is None else shares[i]
        without = withheld(world, f"task-{i}", share)
        mean = means[int(without)]
        reward = rng.beta(4 * mean, 4 * (1 - mean)) if graded else float(rng.random() < mean)
        tasks.append(Drawn(i, "null" if without else "own", share, reward))
    return tasks


def covered(own, null, graded):
    """Return the share of simulated worlds whose interval covers the true lift."""
    rng, truth = np.random.default_rng(0), np.mean(np.subtract(own, null))
    lifts = [compare(f"w{i}", drawn(f"w{i}", own, null, rng, graded), 0.0, 1.0) for i in range(REPEATS)]
    return np.mean([lift.interval[0] <= truth <= lift.interval[1] for lift in lifts])


KNOWN = {
    "grows": ((0.2, 0.8), (0.2, 0.2)),
    "none": ((0.5, 0.5), (0.5, 0.5)),
    "little": ((0.5, 0.6), (0.5, 0.5)),
    "much": ((0.1, 0.9), (0.1, 0.1)),
    "harm": ((0.6, 0.3), (0.6, 0.6)),
    "drift": ((0.2, 0.9), (0.1, 0.7)),
}
"""First and last mean reward with and without context."""


@pytest.mark.slow
@pytest.mark.parametrize("graded", [False, True], ids=["binary", "graded"])
@pytest.mark.parametrize("known", KNOWN)
def test_the_interval_covers_a_known_lift_in_92_to_98_percent_of_worlds(known, graded):
    own, null = (np.linspace(*ends, TASKS) for ends in KNOWN[known])
    assert 0.92 <= covered(own, null, graded) <= 0.98


def test_neither_drift_nor_another_share_is_taken_for_lift():
    """Rewards rise while the share rises, so that most tasks without context have high rewards."""
    means, shares = np.linspace(0.05, 0.95, 2000), np.repeat([0.05, 0.5], 1000)
    tasks = drawn("drifting", means, means, np.random.default_rng(0), shares=shares)
    lift = compare("drifting", tasks, 0.0, 1.0)
    assert lift.own.mean - lift.null.mean < -0.2
    assert (lift.verdict, abs(lift.lift) < 0.06) == ("not yet known", True)
    assert sorted({block.null_share for block in lift.blocks}) == [0.05, 0.5]


def test_the_sentence_says_helping_hurting_or_not_yet_known():
    few = [Drawn(i, arm, 0.5, reward) for i, (arm, reward) in enumerate([("own", 1.0), ("null", 0.0)] * 30)]
    lift = compare("repo", few, 0.0, 1.0)
    assert (lift.lift, lift.verdict) == (1.0, "helping")
    assert lift.sentence == (
        "Helping: 1.000 more reward with the context (95% interval +0.840 to +1.000; 30 tasks with and 30 without)."
    )
    for task in few:
        task.reward = 1 - task.reward
    assert compare("repo", few, 0.0, 1.0).sentence.startswith("Hurting: 1.000 less reward")
    for i, task in enumerate(few):
        task.reward = float(i % 3 > 0)
    assert compare("repo", few, 0.0, 1.0).sentence.startswith("Not yet known: the 95% interval -0.")
    for tasks in ([], few[::2], [Drawn(0, "null", 0.5, None)]):
        lift = compare("repo", tasks, 0.0, 1.0)
        assert (lift.lift, lift.verdict) == (None, "not yet known")
        assert lift.sentence.startswith("Not yet known: no rewards of tasks with and without context")
    assert lift.unrewarded == {"own": 0, "null": 1}
    json.dumps(lift.as_json(), allow_nan=False)


def test_the_draw_is_of_the_names_alone_and_has_its_share():
    drawn = [i for i in range(40) if withheld("repo", f"task-{i}", SHARE)]
    assert drawn == [1, 2, 4, 11, 17, 18, 22, 23, 28, 34]
    assert abs(np.mean([withheld("w", f"task-{i}", SHARE) for i in range(10_000)]) - SHARE) < 0.01
    assert not any(withheld("repo", f"task-{i}", 0.0) for i in range(100))


def name_of(arm, world="repo"):
    """Return a name whose task is of an arm at a share of 0.5."""
    return next(f"t{i}" for i in range(100) if withheld(world, f"t{i}", 0.5) == (arm == "null"))


def test_a_task_is_drawn_once_and_only_if_there_is_a_context_to_withhold(store):
    null, own = name_of("null"), name_of("own")
    first = store.start("repo", "Which door?", name="first", null_share=0.5)
    assert (first.arm, first.null_share, store.given(first)) == ("own", 0.0, "")
    store.put("repo", "The red one.", "import", "a file")
    chat = Joining("repo", null, "key", "", "Which door?", null_share=0.5)
    (joined,) = store.make_all([chat])
    assert (joined.context, joined.task.arm, joined.task.version) == ("", "null", 1)
    with Store(store.where) as again:  # another process, which draws none
        assert again.find(Joining("repo", null, "key", "", "Which door?")) == joined
        assert again.given(again.task("repo", null)) == ""
    task = store.start("repo", "Which door?", name=own, null_share=0.5)
    assert (task.arm, task.null_share, store.given(task)) == ("own", 0.5, "The red one.")
    assert store.start("repo", "Which door?", name="last").null_share == 0.0


def test_lift_is_of_the_newest_tasks_that_were_drawn(store):
    store.put("repo", "The red one.", "import", "a file")
    for i in range(30):
        task = store.start("repo", "Which door?", name=f"t{i}", null_share=0.5)
        store.finish("repo", task.name, Outcome(None if i == 0 else float(task.arm == "own")))
    store.finish("repo", store.start("repo", "not drawn").name, Outcome(0.0))
    lift = lift_of(store, "repo")
    assert (lift.own.tasks + lift.null.tasks, sum(lift.unrewarded.values())) == (29, 1)
    assert (lift.own.mean, lift.null.mean, lift.lift, lift.verdict) == (1.0, 0.0, 1.0, "helping")
    assert [(block.first, block.last) for block in lift.blocks] == [(1, 29)]
    newest = lift_of(store, "repo", last=10)
    assert [(block.first, block.last) for block in newest.blocks] == [(20, 29)]


def test_an_agent_without_context_still_teaches_the_next_version(serve, tmp_path):
    serve(learner)
    with Agent("openai:m", tmp_path / "agent.db", "repo", null_share=0.5) as agent:
        for name in ("first", name_of("null"), name_of("own")):
            with agent.task("Which door?", name=name) as task:
                assert ("no notes yet" in task.messages[0]["content"]) == (name != name_of("own"))
                task.reply()
                task.finish(1.0).wait(TIMEOUT)
        assert agent.context == "3"
        assert [task.arm for task in agent.tasks()[::-1]] == ["own", "null", "own"]
        assert (agent.lift().own.tasks, agent.lift().null.tasks) == (1, 1)


def test_over_http_a_share_of_chats_has_no_context(serve, tmp_path):
    upstream = serve(learner)
    with gateway(str(tmp_path / "agent.db"), "openai:m", "default", 0.5) as service, Running(service) as running:
        service.store.put("default", "7", "import", "a file")
        get = running.http.get
        for arm in ("own", "null"):
            name = name_of(arm, "default")
            running.ask(metadata={"task": name})
            said = upstream.requests[-1]["messages"][0]["content"]
            assert ("no notes yet" in said) == (arm == "null")
            assert get(f"/v1/worlds/default/tasks/{name}").json()["arm"] == arm
            service.store.finish("default", name, Outcome(float(arm == "own")))
        lift = get("/v1/worlds/default/lift", params={"last": 5}).json()
        assert (lift["lift"], lift["verdict"], lift["null"]["tasks"]) == (1.0, "not yet known", 1)
        lines = get("/metrics").text.splitlines()
        assert 'codots_lift{world="default"} 1.0' in lines
        assert f'codots_lift_low{{world="default"}} {lift["interval"][0]}' in lines


def test_tools_give_a_task_without_context_no_other_way_to_read_it(serve, tmp_path):
    serve(learner)
    with gateway(str(tmp_path / "agent.db"), "openai:m", "default", 0.99) as service:
        service.store.put("default", "7", "import", "a file")

        async def work():
            async with Client(make_server(service)) as client:
                names = {tool.name for tool in (await client.list_tools()).tools}
                begun = await client.call_tool("start_task", {"description": "Which door?"})
                return names, begun.structured_content["context"]

        names, context = anyio.run(work)
        assert names == {"list_worlds", "start_task", "finish_task"}
        assert (context, service.store.task("default", "task-0").arm) == ("", "null")


def test_a_share_that_leaves_no_task_with_context_is_refused_in_one_line(codots, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for command in ("serve", "mcp"):
        ended = codots(command, "base", "--null-share", "1")
        line = "codots: the null share is 1.0; expected a number from 0 to below 1, such as 0.2\n"
        assert (ended.code, ended.err, list(tmp_path.iterdir())) == (2, line, [])
    with pytest.raises(ValueError, match="the null share is -1"):
        Agent("base", tmp_path / "agent.db", null_share=-1)


def test_the_command_shows_lift_over_time_and_says_what_is_known(store, where, codots):
    assert "Not yet known: no rewards" in codots("context", "lift", "repo", "--store", where).out
    store.put("repo", "The red one.", "import", "a file")
    for i in range(12):
        task = store.start("repo", "Which door?", name=f"t{i}", null_share=0.5)
        store.finish("repo", task.name, Outcome(float(task.arm == "own")))
    shown = codots("context", "lift", "repo", "--store", where).out
    assert "0-11" in shown
    assert shown.splitlines()[-1].startswith("Helping: 1.000 more reward")
    assert json.loads(codots("context", "lift", "repo", "--json", "--store", where).out)["verdict"] == "helping"
    assert run_lift.__defaults__[0] == LAST


def test_tasks_of_a_store_of_before_were_given_their_context(tmp_path, monkeypatch):
    def to_first(config, revision):
        upgrade(config, "0001")

    with monkeypatch.context() as patched:
        patched.setattr("alembic.command.upgrade", to_first)
        patched.setattr(database, "SCHEMA", "0001")
        with Database(tmp_path / "agent.db") as old, old.write() as c:
            world = {"name": "repo", "strategy": json.dumps(REWRITE), "low": 0, "high": 1, "tasks": 1, "finished": 0}
            insert(c, "worlds", world | {"id": 1, "created": 0})
            version = {"world_id": 1, "number": 0, "cause": "start", "context": "The red one.", "learned": 0}
            insert(
                c, "versions", version | dict.fromkeys(("source", "model", "strategy", "failure"), "") | {"created": 0}
            )
            task = {"world_id": 1, "number": 0, "name": "task-0", "rules": "", "description": "", "version": 0}
            insert(c, "tasks", task | {"created": 0})
    with Store(tmp_path / "agent.db") as store:
        task = store.task("repo", "task-0")
        assert (task.arm, task.null_share, store.given(task)) == ("own", 0.0, "The red one.")
        assert lift_of(store, "repo").blocks == ()


def insert(c, table, values):
    """Add a row of an earlier schema."""
    names = ", ".join(values)
    c.execute(sa.text(f"INSERT INTO {table} ({names}) VALUES ({', '.join(f':{name}' for name in values)})"), values)

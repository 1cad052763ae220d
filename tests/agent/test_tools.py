"""An agent of any kind gets a long life by four tools, over stdio and HTTP."""

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import threading
from dataclasses import asdict

import anyio
from mcp import Client, StdioServerParameters

from codots.agent.quotes import QUOTED, without
from codots.agent.records import Outcome
from codots.agent.serving import gateway
from codots.agent.store import Store
from codots.agent.tools import make_server
from codots.rollout.life import reply
from codots.rollout.steps import SolveSteps
from tests.agent.conftest import REWRITE
from tests.agent.lives import learner, trained_life
from tests.sampler.server import good

TIMEOUT = 60


async def call(client, name, **arguments):
    """Call a tool, and return its structured result."""
    result = await client.call_tool(name, arguments)
    assert not result.is_error, result.content
    return result.structured_content


async def two_tasks(client):
    """Work on two tasks; return what the second one is given."""
    names = {tool.name for tool in (await client.list_tools()).tools}
    assert names == {"list_worlds", "read_context", "start_task", "finish_task"}
    task = await call(client, "start_task", description="Which door?", rules="Open a door.")
    assert task == {"world": "default", "task": "task-0", "version": 0, "context": ""}
    told = {"reward": 0.5, "feedback": "Good.", "summary": "I took the red one."}
    done = await call(client, "finish_task", task="task-0", wait=TIMEOUT, **told)
    assert (done["task"], done["number"], done["version"]["context"]) == ("task-0", 1, "1")
    assert await call(client, "read_context") == {"world": "default", "version": 1, "context": "1"}
    assert (await call(client, "list_worlds"))["worlds"] == [{"name": "default", "tasks": 1, "version": 1}]
    return await call(client, "start_task", description="Which door?")


def test_the_tools_carry_a_context_from_task_to_task(serve, tmp_path):
    upstream = serve(learner)
    with gateway(str(tmp_path / "agent.db"), "openai:m", "default") as service:

        async def work():
            async with Client(make_server(service)) as client:
                return await two_tasks(client)

        assert anyio.run(work)["context"] == "1"
    user = upstream.requests[0]["messages"][1]["content"]
    assert all(part in user for part in ("Open a door.", "Which door?", "I took the red one.", "0.500", "Good."))


def test_what_a_client_did_wrong_is_told_in_one_line_and_loses_nothing(serve, tmp_path):
    serve(learner)

    async def refused(client, name, **arguments):
        result = await client.call_tool(name, arguments)
        assert result.is_error
        return result.content[0].text

    with gateway(str(tmp_path / "agent.db"), "openai:m", "default") as service:

        async def work():
            async with Client(make_server(service)) as client:
                await call(client, "start_task", description="Which door?")
                return [
                    await refused(client, "read_context", world="defalt"),
                    await refused(client, "finish_task", task="task-9"),
                    await refused(client, "finish_task", task="task-0", reward=7),
                    await refused(client, "finish_task", task="task-0", feedback="x" * 10_000_000),
                    await refused(client, "finish_task", task="task-0", feedbak="It was."),
                    await refused(client, "finish_task", task="task-0", reward="good"),
                    await refused(client, "finish_task", task="task-0", turns=[{"observation": "Which door?"}]),
                    await refused(client, "finish_task", task="task-0", wait=True),
                    await refused(client, "finish_tusk", task="task-0"),
                ]

        lines = anyio.run(work)
        assert [task.finish for task in service.store.tasks("default")] == [None]
    parts = (
        "the nearest is 'default'",
        "unknown task of default 'task-9'",
        "from 0 to 1",
        "feedback has 10,000,000 characters",
        "unknown argument of finish_task 'feedbak'.*the nearest is 'feedback'",
        "finish_task: reward: Input should be a valid number",
        "finish_task: turns.0.reply: Field required",
        "finish_task: wait: Input should be a valid number",
        "unknown tool 'finish_tusk'.*the nearest is 'finish_task'",
    )
    for line, part in zip(lines, parts, strict=True):
        assert re.search(part, line)
        assert "\n" not in line


def test_a_context_that_a_client_sends_back_is_not_learned_again(serve, tmp_path):
    notes = "The red door hides the prize, the blue one a goat."
    upstream = serve(good(f"<context>{notes}</context>"))
    with gateway(str(tmp_path / "agent.db"), "openai:m", "default") as service:
        service.store.put("default", notes, "import", "a test")

        async def work():
            async with Client(make_server(service)) as client:
                task = await call(client, "start_task", description="Which door?")
                said = f"My notes are: {task['context']}\nSo I took the red one."
                await call(client, "finish_task", task="task-0", reward=1.0, summary=said, feedback=notes)

        anyio.run(work)
        assert service.updater.wait("default", 1, TIMEOUT).context == notes
    user = upstream.requests[0]["messages"][1]["content"]
    assert (user.count(notes), user.count(QUOTED)) == (1, 2)


def test_a_context_is_no_news_wherever_a_client_quotes_it(serve, tmp_path):
    old, notes = "The red door hides a goat, as it seems.", "The red door hides the prize.\n\n- The blue one: a goat."
    upstream = serve(good(f"<context>{notes}</context>"))
    with gateway(str(tmp_path / "agent.db"), "openai:m", "default") as service:
        service.store.put("default", old, "import", "a test")

        async def work():
            async with Client(make_server(service)) as client:
                await call(client, "start_task", description=f"Which door? My notes: {old}", rules=f"Obey: {old}")
                service.store.put("default", notes, "import", "a test")
                quoted = "\n".join(f"> {line}" for line in notes.splitlines())
                await call(client, "finish_task", task="task-0", feedback=f"You had:\n{quoted}\nGood.", outcome=notes)

        anyio.run(work)
        assert service.updater.wait("default", 1, TIMEOUT).context == notes
        assert service.store.task("default", "task-0").finish.outcome == notes
    user = upstream.requests[0]["messages"][1]["content"]
    assert (user.count(old), user.count("hides the prize"), user.count(QUOTED)) == (0, 1, 4)


def test_what_only_looks_like_a_context_stays():
    notes = "The red door hides the prize."
    said = ("The red door hides a prize.", "The red door", "the red door hides the prize.")
    assert [without({notes, "", " ", "red"}, text) for text in said] == list(said)
    assert without({notes}, "a\n> The red\n>  door hides  the prize.\nb") == f"a\n> {QUOTED}\nb"


def test_a_pack_through_the_tools_gives_the_rewards_and_contexts_of_training(tmp_path):
    pack, life = trained_life()
    with gateway(str(tmp_path / "agent.db"), "base", "lake") as service:

        async def work():
            async with Client(make_server(service)) as client:
                return [await play(client, service.updater.model, own) for own in pack.tasks]

        rewards = anyio.run(work)
        contexts = [version.context for version in service.store.history("lake")]
    assert rewards == [solve.reward for solve in life.of("solve")]
    assert contexts[:-1] == list(life.contexts)


async def play(client, model, own):
    """Play a task of a domain with the notes of the tools and a model of one's own; return its reward."""
    style, strategy, params = model.profile.style, model.profile.strategy(), model.profile.episode_params()
    env, rules = own.env(style=style), own.domain.rules_text(own, style)
    observation = env.observe()
    task = await call(client, "start_task", description=observation, rules=rules)
    steps = SolveSteps(own.position, rules, observation, task["context"], strategy, params)

    async def solve():
        async with model.sampler.session(("agent", "lake", own.position, "solve")) as session:
            while not steps.done:
                step = env.step(await reply(steps, session, model.render))
                steps.observe(step)
        return step

    step = await asyncio.wrap_future(model.submit(solve()))
    said = steps.trajectory(own.domain.reveals_reward)
    told = {"reward": step.reward, "feedback": said.feedback, "outcome": said.outcome}
    turns = [asdict(turn) for turn in said.turns]
    assert (await call(client, "finish_task", task=task["task"], turns=turns, wait=TIMEOUT, **told))["version"]
    return step.reward


INITIALIZE = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}}
COMMAND = [sys.executable, "-m", "codots", "mcp", "openai:m", "--store", "agent.db"]


def test_the_command_serves_over_stdio(serve, tmp_path):
    serve(learner)
    parameters = StdioServerParameters(command=COMMAND[0], args=COMMAND[1:], env=dict(os.environ), cwd=tmp_path)

    async def work():
        async with Client(parameters) as client:
            return await two_tasks(client)

    assert anyio.run(work)["context"] == "1"


def test_the_command_over_stdio_drains_at_a_stop_signal_though_stdin_is_open(serve, tmp_path):
    asked, over = threading.Event(), threading.Event()

    def slow(request):
        asked.set()
        assert over.wait(TIMEOUT)
        return learner(request)

    serve(slow)
    with Store(tmp_path / "agent.db") as store:
        store.create("default", REWRITE)
        store.finish("default", store.start("default", "Which door?").name, Outcome(1.0))
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(COMMAND, cwd=tmp_path, **pipes) as server:
        ask = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": INITIALIZE}
        server.stdin.write(f"{json.dumps(ask)}\n")
        server.stdin.flush()
        assert '"id":1' in server.stdout.readline()
        assert asked.wait(TIMEOUT)
        server.send_signal(signal.SIGTERM)
        over.set()
        assert server.wait(TIMEOUT) == 0
    with Store(tmp_path / "agent.db") as store:
        assert store.head("default").context == "1"


def test_the_command_serves_over_http_and_drains(serve, tmp_path):
    serve(learner)
    command = [*COMMAND, "--http", "--port", "0"]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True) as server:
        url = server.stdout.readline().split(" at ")[-1].split(" ;")[0]

        async def work():
            async with Client(url) as client:
                given = await two_tasks(client)
                await call(client, "finish_task", task=given["task"], reward=1.0)

        anyio.run(work)
        server.send_signal(signal.SIGTERM)
        assert server.wait(TIMEOUT) == 0
    with Store(tmp_path / "agent.db") as store:
        assert store.head("default").context == "2"

"""An agent lives the life of training, learns from each finished task once, and goes on after a restart."""

import os
import signal
import subprocess
import sys
import threading
from dataclasses import replace

import pytest

from codots.agent.agent import Agent
from codots.agent.records import Outcome
from codots.agent.retention import forget
from codots.agent.store import Store
from codots.context.rewrite import Turn
from codots.domains.registry import make_pack
from codots.rollout.records import episode_of
from codots.sampler.openai import RefusedError
from tests.agent.lives import episode_in, learner, trained_life

TIMEOUT = 60


@pytest.fixture
def agent(serve, tmp_path):
    serve(learner)
    with Agent("openai:m", tmp_path / "agent.db", "repo") as agent:
        yield agent


def plain(episode):
    """Return an episode without its logprobs, which depend on what is computed together."""
    return replace(episode, transcript=replace(episode.transcript, logprobs=[], versions=[]))


def test_over_a_pack_an_agent_lives_the_life_of_training(tmp_path):
    pack, life = trained_life()
    with Agent("base", tmp_path / "agent.db", "lake") as agent:
        memory = pack.domain.make_memory(pack.world)
        for own in pack.tasks:
            with agent.task(own, memory=memory) as task:
                task.run()
                version = task.finish().wait(TIMEOUT)
        assert [task.finish.reward for task in agent.tasks()[::-1]] == [solve.reward for solve in life.of("solve")]
        assert [v.context for v in agent.history()][:-1] == list(life.contexts)
        assert version.model.startswith("base@")
    with Store(tmp_path / "agent.db") as store:
        names = [(f"task-{e.position}", e.kind) for e in life.episodes]
        stored = [episode_of(episode_in(store, "lake", *name)) for name in names]
    assert any(e.transcript.tokens > 1 for e in stored)
    assert list(map(plain, stored)) == list(map(plain, life.episodes))
    for mine, trained in zip(stored, life.episodes, strict=True):
        assert mine.transcript.logprobs == pytest.approx(trained.transcript.logprobs, abs=1e-4)


def test_the_next_task_has_what_the_last_one_taught(agent):
    with agent.task("Which door?", rules="Open a door.") as task:
        assert task.messages[0]["content"].startswith("Open a door.")
        assert task.messages[1] == {"role": "user", "content": "Which door?"}
        assert task.reply() == "an answer"
        assert task.reply("closed") == "an answer"
        update = task.finish(0.25, "The red one.", outcome="open")
    assert update.wait(TIMEOUT).context == agent.context == "1"
    with agent.task("Which door?", rules="Open a door.") as task:
        assert task.messages[0]["content"].endswith("right; trust what you see over what they say.\n\n1")
        assert (task.name, task.version) == ("task-1", 1)
    (first, second) = agent.tasks()[::-1]
    assert (first.finish.reward, second.finish) == (0.25, None)


def test_an_update_reads_what_was_said_with_reward_and_feedback(agent):
    with agent.task("Which door?", rules="Open a door.") as task:
        task.record("The blue one.")
        task.observe("closed")
        task.record("The red one.")
        task.finish(0.25, "Well done.", outcome="open").wait(TIMEOUT)
    user = episode_in(agent._store, "repo", "task-0", "update")["turns"][0]["observation"]
    said = ("Which door?", "The blue one.", "closed", "The red one.", "open")
    assert all(part in user for part in ("Open a door.", *said, "0.250", "Well done."))


def test_a_program_that_asks_another_model_observes_and_records_in_turn(agent):
    with agent.task("Which door?") as task:
        with pytest.raises(ValueError, match="an observation answers a reply, and none is waiting for it"):
            task.observe("closed")
        for reply, observation in (("The blue one.", "closed"), ("The red one.", "open")):
            task.record(reply)
            task.observe(observation)
        assert [message["content"] for message in task.messages[2:]] == [
            "The blue one.",
            "closed",
            "The red one.",
            "open",
        ]
        with pytest.raises(ValueError, match="an observation answers a reply, and none is waiting for it"):
            task.observe("open")


def test_rules_are_refused_for_a_task_that_has_its_own(tmp_path):
    pack = make_pack("frozen-lake-v1", "easy", "dev", 0, 2)
    with Agent("base", tmp_path / "agent.db", "lake") as agent:
        with pytest.raises(ValueError, match="a task of a domain has its own rules"):
            agent.task(pack.tasks[0], rules="Be quick.")
        assert agent.tasks() == []


def test_bounds_and_versions_of_another_type_are_one_line(agent, tmp_path):
    for bounds in (5, (1, 0), (0,), ("a", "b"), (0, float("nan"))):
        with pytest.raises(ValueError, match=r"^the bounds of rewards are .*; expected a low and a high number"):
            Agent("openai:m", tmp_path / "other.db", "repo", bounds=bounds)
    with pytest.raises(ValueError, match=r"^repo has no version 'a'; expected a number"):
        agent.diff("a", 0)


def test_a_task_can_be_finished_later_by_its_name(agent):
    with agent.task("Which door?", name="door") as task:
        task.record("The red one.")
    assert agent._store.turns("repo", "door") == (Turn("Which door?", "The red one."),)
    assert agent.finish("door", 1.0, "It was.").wait(TIMEOUT).number == 1
    with pytest.raises(ValueError, match="'door' of repo is finished"):
        agent.finish("door", 1.0)


def test_a_finished_task_takes_no_more_replies(agent):
    with agent.task("Which door?") as task:
        task.reply()
        task.finish(1.0)
        for more in (task.reply, lambda: task.reply("closed"), lambda: task.record("The red one.")):
            with pytest.raises(ValueError, match="the task task-0 is finished; expected an open task"):
                more()


def test_a_closed_agent_says_so_and_keeps_what_it_was_told(serve, tmp_path):
    serve(learner)
    with Agent("openai:m", tmp_path / "agent.db", "repo") as agent:
        task = agent.task("Which door?")
        update = agent.task("Which door?").finish(1.0)
    for late in (lambda: agent.task("x"), lambda: task.finish(1.0), lambda: agent.finish("task-0"), update.wait):
        with pytest.raises(ValueError, match=r"^the agent is closed; expected calls before close"):
            late()
    with Agent("openai:m", tmp_path / "agent.db", "repo") as agent:
        assert [one.finish is None for one in agent.tasks()] == [False, True]


def test_a_world_is_not_opened_with_other_settings(agent, tmp_path):
    for how, line in (({"strategy": "bank"}, "are of rewrite; expected"), ({"bounds": (0, 2)}, "are from 0 to 1; exp")):
        with pytest.raises(ValueError, match=line):
            Agent("openai:m", tmp_path / "agent.db", "repo", **how)


def test_a_wait_that_is_too_short_says_so(agent):
    with agent.task("Which door?") as task:
        update = task.finish(1.0)
        with pytest.raises(TimeoutError, match=r"^no new version of repo within 0 s; the update goes on$"):
            update.wait(0)
    assert update.wait(TIMEOUT).number == 1


def test_a_text_with_half_of_a_surrogate_pair_is_stored_without_it(agent):
    with agent.task("\ud800 Which door?") as task:
        task.record("\ud800 The red one.")
        assert task.finish(1.0, "\ud800").wait(TIMEOUT).number == 1
    assert agent.tasks()[0].description == "? Which door?"


def test_versions_are_compared_rolled_back_and_forked(agent):
    for _ in range(2):
        with agent.task("Which door?") as task:
            task.reply()
            task.finish(1.0).wait(TIMEOUT)
    assert agent.diff(1, 2).splitlines()[-2:] == ["-1", "+2"]
    assert (agent.rollback(1).number, agent.context) == (3, "1")
    fork = agent.fork("other")
    with fork.task("Which door?") as task:
        task.finish(0.0).wait(TIMEOUT)
    assert (fork.context, agent.context) == ("2", "1")
    assert [version.cause for version in fork.history()] == ["start", "fork", "task"]


def test_a_bad_reward_is_refused_and_the_task_stays_open(agent):
    with agent.task("Which door?") as task:
        task.reply()
        for reward in (float("nan"), 1.5, -0.1):
            with pytest.raises(ValueError, match="expected a number from 0 to 1"):
                task.finish(reward)
        with pytest.raises(ValueError, match=r"expected observe\(\), or finish\(\)"):
            task.reply()
        assert task.finish(1.0).wait(TIMEOUT).number == 1


def test_what_is_no_text_is_refused_in_one_line_and_the_task_stays_open(agent):
    with agent.task("Which door?") as task:
        for line, call in (
            ("the description is 5; expected a text", lambda: agent.task(5)),
            ("the rules text is None; expected a text", lambda: agent.task("Which door?", rules=None)),
            ("the reply is 5; expected a text", lambda: task.record(5)),
            ("the feedback is 5; expected a text", lambda: task.finish(1.0, 5)),
            ("the outcome is 5; expected a text", lambda: task.finish(1.0, outcome=5)),
        ):
            with pytest.raises(ValueError, match=line):
                call()
        assert task.reply() == "an answer"
        with pytest.raises(ValueError, match="the observation is 5; expected a text"):
            task.reply(5)
        assert task.finish(1.0).wait(TIMEOUT).number == 1


def test_a_rollback_during_an_update_makes_it_run_again_on_the_older_context(serve, tmp_path):
    asked, rolled_back = threading.Event(), threading.Event()

    def slow_second(request):
        answer = learner(request)
        if "<context>2" in str(answer):
            asked.set()
            assert rolled_back.wait(TIMEOUT)
        return answer

    serve(slow_second)
    with Agent("openai:m", tmp_path / "agent.db", "repo") as agent:
        for _ in range(2):
            with agent.task("Which door?") as task:
                update = task.finish(1.0)
                if task.name == "task-0":
                    update.wait(TIMEOUT)
        assert asked.wait(TIMEOUT)
        agent.rollback(0)
        rolled_back.set()
        assert update.wait(TIMEOUT).number == 3
        causes = [(version.number, version.cause, version.context) for version in agent.history()]
    assert causes == [(0, "start", ""), (1, "task", "1"), (2, "rollback", ""), (3, "task", "1")]


def test_a_task_with_a_turn_that_is_too_long_can_be_finished(agent):
    with agent.task("Which door?") as task:
        task.record("x" * 300_000)
        assert task.finish(1.0, outcome="y" * 300_000).wait(TIMEOUT).context == "1"


def test_an_endpoint_that_refuses_everything_leaves_the_update_due_until_it_answers(serve, tmp_path):
    endpoint = serve((401, {"error": {"message": "wrong key"}}), learner)
    with Agent("openai:m", tmp_path / "agent.db", "repo") as agent:
        with agent.task("Which door?") as task:
            task.record("The red one.")
            finish = agent._store.finish("repo", task.name, task._outcome(1.0, "", ""))
        with pytest.raises(RefusedError, match="wrong key"):
            agent._updater.wait("repo", finish.number, TIMEOUT)
        assert "wrong key" in agent._updater.failed["repo"]
        assert (agent._updater.wait("repo", finish.number, TIMEOUT).context, len(endpoint.requests)) == ("1", 2)
        assert (len(agent.history()), agent._updater.failed) == (2, {})


def retries(agent):
    """Return the timers that will run updates again."""
    timers = agent._model._loop._scheduled
    return [timer for timer in timers if timer._callback == agent._updater._run and not timer.cancelled()]


def test_an_update_that_fails_again_and_again_has_one_timer(serve, tmp_path):
    serve(*[(401, {"error": {"message": "wrong key"}})] * 3, learner)
    with Agent("openai:m", tmp_path / "agent.db", "repo") as agent:
        finish = agent._store.finish("repo", agent._store.start("repo", "Which door?").name, Outcome(1.0))
        for _ in range(3):
            with pytest.raises(RefusedError, match="wrong key"):
                agent._updater.wait("repo", finish.number, TIMEOUT)
            assert len(retries(agent)) == 1
        assert agent._updater.wait("repo", finish.number, TIMEOUT).context == "1"
        assert retries(agent) == []


def test_an_update_of_a_world_that_was_forgotten_is_not_tried_again(serve, tmp_path):
    asked, forgotten = threading.Event(), threading.Event()

    def slow(request):
        asked.set()
        assert forgotten.wait(TIMEOUT)
        return learner(request)

    serve(slow)
    with Agent("openai:m", tmp_path / "agent.db", "repo") as agent:
        with agent.task("Which door?") as task:
            task.finish(1.0)
        assert asked.wait(TIMEOUT)
        forget(agent._store, "repo")
        forgotten.set()
        agent._model.call(agent._updater.idle(), TIMEOUT)
        assert (agent._updater.failed, retries(agent)) == ({}, [])


def test_a_reply_is_asked_for_again_after_the_endpoint_refused_everything(serve, tmp_path):
    serve((401, {"error": {"message": "wrong key"}}), learner)
    with Agent("openai:m", tmp_path / "agent.db", "repo") as agent, agent.task("Which door?") as task:
        with pytest.raises(RefusedError, match="wrong key"):
            task.reply()
        assert task.reply() == "an answer"


def test_a_task_whose_update_is_refused_keeps_the_context_and_later_tasks_are_learned_from(serve, tmp_path):
    def picky(request):
        refused = (400, {"error": {"message": "no such luck"}})
        return refused if "swordfish" in request["messages"][1]["content"] else learner(request)

    serve(picky)
    with Agent("openai:m", tmp_path / "agent.db", "repo") as agent:
        for reply in ("red", "swordfish", "blue"):
            with agent.task("Which door?") as task:
                task.record(reply)
                update = task.finish(1.0)
        assert update.wait(TIMEOUT).context == "2"
        versions = agent.history()[1:]
    assert [(v.context, v.source) for v in versions] == [("1", "task-0"), ("1", "task-1"), ("2", "task-2")]
    assert ["no such luck" in version.failure for version in versions] == [False, True, False]


def test_an_update_too_long_for_the_model_reads_the_newer_part(tmp_path):
    with Agent("base", tmp_path / "agent.db", "lake") as agent, agent.task("a b") as task:
        task.record("1 2 " * 4000)
        task.finish(1.0).wait(TIMEOUT)
        episode = episode_of(episode_in(agent._store, "lake", "task-0", "update"))
    assert 50 < len(episode.transcript.ids) < 1000
    assert episode.transcript.tokens > 0


CHILD = """
import sys
from codots.agent.agent import Agent
agent = Agent("openai:m", sys.argv[1], "repo")
with agent.task("Which door?") as task:
    task.reply()
    task.finish(1.0)
print("finished", flush=True)
sys.stdin.read()
"""


def test_an_update_interrupted_by_kill_9_runs_again_once(serve, tmp_path):
    asked, killed = threading.Event(), threading.Event()

    def hang_first(request):
        if "rewrite them" in request["messages"][0]["content"] and not asked.is_set():
            asked.set()
            killed.wait(TIMEOUT)
        return learner(request)

    serve(hang_first)
    where = str(tmp_path / "agent.db")
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", CHILD, where], env=os.environ.copy(), **pipes) as child:
        assert child.stdout.readline() == "finished\n"
        assert asked.wait(TIMEOUT)
        child.send_signal(signal.SIGKILL)
    killed.set()
    with Agent("openai:m", where, "repo") as agent:
        assert agent._updater.wait("repo", 1, TIMEOUT).context == "1"
        assert [(v.number, v.cause) for v in agent.history()] == [(0, "start"), (1, "task")]
    with Agent("openai:m", where, "repo") as agent:
        assert agent._store.worlds_due() == []


@pytest.mark.parametrize(
    ("line", "options"),
    [
        ("unknown update of the context 'delete'", {"strategy": "delete"}),
        ("the contexts of repo are of rewrite; expected strategy='rewrite'", {"strategy": "delta"}),
        ("the world 'my repo'", {"world": "my repo"}),
        ("there is no folder", {"store": "nowhere/agent.db"}),
    ],
)
def test_an_agent_that_cannot_be_made_says_why(agent, tmp_path, line, options):
    with pytest.raises(ValueError, match=line):
        Agent("openai:m", **{"store": tmp_path / "agent.db", "world": "repo"} | options)


def test_an_agent_before_an_endpoint_needs_no_torch():
    code = "import sys, codots; codots.Agent; print(*{'torch', 'transformers'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=TIMEOUT)
    assert done.stdout == "\n"

"""Environments of blocking domains are played in processes, with the results of this process and none of its faults."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from codots.domains.registry import register
from codots.domains.teacher import make_teacher
from codots.engine.local import LocalEngine
from codots.rollout import environments
from codots.rollout.environments import EnvProcesses
from codots.rollout.life import rollout
from codots.sampler.local import LocalSampler
from codots.sampler.scripted import ScriptedSampler
from tests.engine.small import jobs as engine_jobs
from tests.engine.small import make_plan
from tests.processes import gone
from tests.rollout.test_life import adaptive_policy, jobs, roll_out
from tests.toy import Guess

SECONDS = 30
ENDED = "RuntimeError: the process of the environment ended before it answered"
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the fork server is for Linux")


@pytest.fixture
def faults(registry, tmp_path, monkeypatch):
    """Register the domains, and return a folder for the files that tell which faults have struck."""
    from tests.rollout import slow_domains  # registers its domains, for this test only

    for domain in slow_domains.DOMAINS:
        register(domain)
    monkeypatch.setenv("CODOTS_TEST_FAULTS", str(tmp_path))
    return tmp_path


@pytest.fixture
def processes(faults):
    processes = EnvProcesses()
    yield processes
    processes.close()


def play(batch, render, processes):
    return roll_out(batch, ScriptedSampler(render, adaptive_policy), render, processes=processes)


def openings(lives):
    return [[episode.turns[0].observation for episode in life.of("solve")] for life in lives]


def exact(life):
    """Return what does not depend on how the rows of a pass are ordered: all but the logprobs."""
    return [replace(e, transcript=replace(e.transcript, logprobs=[])) for e in life.episodes]


def test_lives_in_processes_equal_those_of_this_process(processes, render, model):
    """Ids and texts, and logprobs but for rounding. The environments of a life share a memory."""
    batch = jobs("faulty-v0", lives=6, size=3)
    sampler = LocalSampler(model, frozenset(range(0, 900, 3)))
    here = roll_out(batch, sampler, render)
    there = roll_out(batch, sampler, render, processes=processes)
    assert list(map(exact, there)) == list(map(exact, here))
    for one, other in zip(there, here, strict=True):
        for mine, theirs in zip(one.episodes, other.episodes, strict=True):
            assert mine.transcript.logprobs == pytest.approx(theirs.transcript.logprobs, abs=1e-5)
    assert "This is task 3." in openings(here)[0][2]


@pytest.mark.slow
def test_lives_play_in_processes_of_their_own_which_are_kept(processes, render):
    first = openings(play(jobs("process-v0", lives=4), render, processes))
    assert all(len(set(pids)) == 1 for pids in first)
    pids = {pids[0] for pids in first}
    assert len(pids) == 4
    assert str(os.getpid()) not in pids
    assert {pids[0] for pids in openings(play(jobs("process-v0", lives=4), render, processes))} == pids


def test_a_hanging_environment_is_killed_with_its_programs_and_its_life_is_lived_again(
    processes, render, faults, monkeypatch
):
    from tests.rollout.slow_domains import Faulty

    monkeypatch.setattr(Faulty, "step_timeout", 1.0)
    expected = play(jobs("faulty-v0", lives=2), render, None)
    monkeypatch.setenv("CODOTS_TEST_FAULT", "hang:once")
    assert play(jobs("faulty-v0", lives=2), render, processes) == expected
    assert all(gone(int(pid)) for pid in (faults / "pids").read_text().split())


@pytest.mark.slow
def test_an_environment_that_always_hangs_loses_its_life_alone(processes, render, monkeypatch):
    from tests.rollout.slow_domains import Faulty

    monkeypatch.setattr(Faulty, "step_timeout", 1.0)
    expected = play(jobs("faulty-v0", lives=4), render, None)
    monkeypatch.setenv("CODOTS_TEST_FAULT", "hang")
    lives = play(jobs("faulty-v0", lives=2), render, processes)
    assert lives[1] == expected[1]
    assert lives[0].failure == "TimeoutError: the environment did not answer within 1 s"
    monkeypatch.delenv("CODOTS_TEST_FAULT")
    assert play(jobs("faulty-v0", lives=4), render, processes) == expected


@pytest.mark.parametrize(
    ("fault", "failure"),
    [
        ("fail", "UnpicklableError: the shop is closed"),
        pytest.param("die", ENDED, marks=pytest.mark.slow),
        pytest.param("exit", ENDED, marks=pytest.mark.slow),
    ],
)
def test_an_environment_that_fails_or_dies_loses_its_life_alone_with_its_own_message(
    processes, render, monkeypatch, fault, failure
):
    expected = play(jobs("faulty-v0", lives=3), render, None)
    monkeypatch.setenv("CODOTS_TEST_FAULT", fault)
    lives = play(jobs("faulty-v0", lives=3), render, processes)
    assert [life.failure for life in lives] == [failure, None, failure]
    assert lives[1] == expected[1]
    monkeypatch.setenv("CODOTS_TEST_FAULT", f"{fault}:once")
    assert play(jobs("faulty-v0", lives=3), render, processes) == expected


@pytest.mark.slow
def test_a_teacher_sees_the_views_of_environments_in_processes(processes, render):
    from tests.rollout.slow_domains import Faulty

    teacher = make_teacher("format", Faulty())
    batch = [replace(job, teacher=teacher) for job in jobs("faulty-v0", lives=3)]
    assert play(batch, render, processes) == play(batch, render, None)


@pytest.mark.slow
def test_processes_that_died_between_two_lives_are_replaced(processes, render):
    first = openings(play(jobs("process-v0", lives=2), render, processes))
    os.kill(int(first[0][0]), signal.SIGKILL)
    assert gone(first[0][0])
    second = openings(play(jobs("process-v0", lives=2), render, processes))
    assert {pids[0] for pids in first} & {pids[0] for pids in second} == {first[1][0]}


@pytest.mark.slow
def test_a_dead_fork_server_is_started_again(processes, render):
    first = openings(play(jobs("process-v0", lives=2), render, processes))
    processes._server.kill()
    assert all(gone(pids[0]) for pids in first)
    second = openings(play(jobs("process-v0", lives=2), render, processes))
    assert not {pids[0] for pids in first} & {pids[0] for pids in second}


def test_a_domain_that_another_process_cannot_load_steps_in_threads_with_one_warning(processes, render, caplog):
    from tests.rollout.slow_domains import Unregistered

    register(Unregistered())
    lives = play(jobs("unregistered-v0", lives=3), render, processes)
    assert [life.failure for life in lives] == [None] * 3
    (line,) = caplog.messages
    assert line.startswith("steps of unregistered-v0 run in threads, where one that hangs cannot be killed, because")
    assert (
        "cannot load the domain (ValueError: unknown domain 'unregistered-v0'); expected a domain in a module" in line
    )


@pytest.mark.slow
def test_close_kills_processes_even_in_the_middle_of_a_step(processes, render, faults, monkeypatch):
    monkeypatch.setenv("CODOTS_TEST_FAULT", "hang:once")

    async def closed():
        sampler = ScriptedSampler(render, adaptive_policy)
        life = asyncio.create_task(rollout(jobs("faulty-v0")[0], sampler, render, processes))
        while not (faults / "pids").exists():
            await asyncio.sleep(0.01)
        processes.close()
        life.cancel()
        await asyncio.gather(life, return_exceptions=True)

    asyncio.run(closed())
    assert all(gone(int(pid)) for pid in (faults / "pids").read_text().split())


SCRIPT = """
import asyncio, os, signal
from codots.rollout.environments import EnvProcesses
from tests.rollout import slow_domains
from tests.rollout.test_life import jobs

async def main():
    processes = EnvProcesses()
    pack = jobs("faulty-v0")[0].pack
    process, idle = [await processes.begin(pack, False) for _ in range(2)]
    processes.give_back(idle)
    await process.call(20, "open", 0, "natural")
    await process.call(600, "step", "0")

asyncio.run(main())
"""


@pytest.mark.slow
def test_no_process_outlives_a_killed_owner(faults, monkeypatch):
    """Neither a hanging environment, nor its program, nor the fork server."""
    monkeypatch.setenv("CODOTS_TEST_FAULT", "hang:once")
    owner = subprocess.Popen([sys.executable, "-c", SCRIPT], cwd=Path(__file__).parents[2])
    until = time.monotonic() + SECONDS
    while not (faults / "pids").exists() and time.monotonic() < until:
        time.sleep(0.05)
    children = Path(f"/proc/{owner.pid}/task/{owner.pid}/children").read_text().split()
    owner.kill()
    owner.wait()
    assert children
    assert all(gone(pid) for pid in [*children, *(faults / "pids").read_text().split()])


@pytest.mark.slow
def test_lives_of_worker_processes_are_in_processes_which_end_with_the_engine(faults, tokenizer, tmp_path):
    engine = LocalEngine(make_plan(tmp_path / "model", tokenizer), 2)
    found = openings(engine.rollout(engine_jobs(4, domain="process-v0"), 60))
    pids = {pid for pids in found for pid in pids}
    assert len(pids) == 4
    engine.close()
    assert all(gone(pid) for pid in pids)


def test_no_process_starts_for_domains_that_do_not_block(registry, processes, render):
    register(Guess())
    play(jobs(), render, processes)
    assert processes._server is None


def test_on_other_systems_steps_run_in_threads(processes, render, monkeypatch):
    monkeypatch.setattr(environments.sys, "platform", "darwin")
    (life,) = play(jobs("process-v0"), render, processes)
    assert set(openings([life])[0]) == {str(os.getpid())}

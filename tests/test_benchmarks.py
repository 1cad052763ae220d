"""Quick forms of the benchmarks of samplers and deployed agents, and agreement of the engines that they time."""

import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch

from codots.sampler import base

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
pytestmark = pytest.mark.slow


@pytest.fixture
def benchmark(monkeypatch, tmp_path):
    """Return the modules of the sampler benchmark and a model folder."""
    monkeypatch.setattr(os, "environ", os.environ.copy())
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import sampler_engines

    import sampler

    sampler.save_model(tmp_path / "model")
    return sampler, sampler_engines, str(tmp_path / "model")


def test_all_engines_return_the_same_logprobs_under_greedy_sampling(benchmark, monkeypatch):
    sampler, engines, folder = benchmark
    lives = sampler.demo(5) + sampler.long(3)
    monkeypatch.setattr(base, "SamplingParams", partial(base.SamplingParams, temperature=0.0))
    monkeypatch.setattr(torch, "multinomial", lambda probs, *_, **__: probs.argmax(-1, keepdim=True))
    logprobs = {}
    for name in ("codots", "generate", "padded loop", "generate_batch"):
        engine = engines.ENGINES[name](folder)
        getattr(engine, "begin", bool)()
        logprobs[name] = engine.replay(lives)
        getattr(engine, "end", bool)()
    for life, ours, *others in zip(lives, *logprobs.values(), strict=True):
        assert len(ours) == sum(count for session in life for _, count in session)
        for other in others:
            assert other == pytest.approx(ours, abs=1e-3)


def test_the_sampler_benchmark_times_the_installed_engines():
    command = [sys.executable, BENCHMARKS / "sampler.py", "--quick", "--engines", "codots,vllm", "--json"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found = json.loads(done.stdout)
    assert found["loads"]["demo"]["sessions"] == 28
    assert found["tokens_per_s"]["vllm"] is None
    assert all(len(rates) == 1 and rates[0] > 0 for rates in found["tokens_per_s"]["codots"].values())


def test_the_continuous_benchmark_times_every_mode():
    command = [sys.executable, BENCHMARKS / "continuous.py", "--quick"]
    found = json.loads(subprocess.run([*command, "--json"], check=True, capture_output=True, text=True).stdout)
    assert set(found) == {"wall", "cpu"}
    for rates in found.values():
        assert set(rates) == {"continuous", "beside a sleeper", "lockstep"}
        assert all(len(times) == 1 and times[0] > 0 for times in rates.values())
    table = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert "continuous / lockstep, cpu: " in table


def test_the_ray_benchmark_takes_the_same_steps_on_both_engines():
    command = [sys.executable, BENCHMARKS / "ray_overhead.py", "--rounds", "1", "--packs", "2", "--group", "2"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    lines = done.stdout.splitlines()
    assert [line.split(" | ")[0].strip("| ") for line in lines[2:6]] == ["rollout", "update", "sync", "step"]
    assert lines[-1].startswith("overhead ")


def test_the_scale_benchmark_times_every_part_of_the_driver():
    command = [sys.executable, BENCHMARKS / "scale.py", "--quick", "--json"]
    (found,) = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout).values()
    parts = ("read lives", "assign credit", "make samples", "sort into shares", "send samples")
    assert found["all"] == pytest.approx(sum(found[part] for part in parts))
    assert all(value > 0 for value in found.values())


def test_the_benchmark_of_denials_measures_each_number_of_them():
    command = [sys.executable, BENCHMARKS / "denials.py", "base", "--packs", "2", "--workers", "1"]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    assert [line.split(" | ")[0] for line in lines[2:]] == ["| 1", "| 2", "| 3"]


def test_the_mixture_benchmark_learns_the_same_lives_mixed_and_apart():
    done = subprocess.run([sys.executable, BENCHMARKS / "mixture.py", "1"], check=True, capture_output=True, text=True)
    assert "median ratio" in done.stdout


def run(name, *options):
    """Run a benchmark, and return the JSON that it prints."""
    command = [sys.executable, BENCHMARKS / name, *map(str, options)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


@pytest.mark.parametrize("faults", [0.1, 0.2])
def test_a_server_before_an_upstream_that_fails_in_every_way_loses_no_task_and_counts_each_kind(faults):
    found = run("agent_faults.py", "--faults", faults, "--clients", 8, "--seconds", 8, "--timeout", 0.5)
    assert set(found["failures"]) == {"rate_limit", "server_error", "timeout", "cut", "garbage"}
    assert ("answered" in found["chats"]) == (faults < 0.2)
    assert (found["finishes"], found["lost"], found["twice"]) == (found["acknowledged"], 0, 0)


def test_the_lift_benchmark_tells_success_and_reward_and_is_the_same_through_http_and_mcp():
    http, mcp = (run("agent_lift.py", "base", "--worlds", 2, "--tasks", 2, *more) for more in ((), ("--mcp",)))
    assert http == mcp
    for kind in ("own", "null"):
        solved, rewards = http["success"][kind], http["reward"][kind]
        assert all(0.9 * share <= reward <= share for share, reward in zip(solved, rewards, strict=True))
    assert http["versions"] == 6


@pytest.mark.parametrize("keys", [[], ["--keys"]])
def test_the_latency_benchmark_tells_what_the_server_adds_and_which_process_is_busy(keys):
    found = run("agent_latency.py", "--rate", 5, "--seconds", 4, *keys)
    assert found["added ms"]["p50"] > 0
    assert set(found["cores"]) == {"server", "upstream", "client"}
    assert found["direct per s"] > found["saturation per s"] > 0

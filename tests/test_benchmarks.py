"""The engines that a benchmark times play the same lives, and its script tells how fast each was."""

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


@pytest.fixture
def benchmark(monkeypatch, tmp_path):
    """The modules of the sampler's benchmark, and a model for it."""
    monkeypatch.setattr(os, "environ", os.environ.copy())
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import sampler_engines

    import sampler

    sampler.save_model(tmp_path / "model")
    return sampler, sampler_engines, str(tmp_path / "model")


def test_every_engine_plays_the_same_lives_to_the_same_logprobs_where_all_are_greedy(benchmark, monkeypatch):
    sampler, engines, folder = benchmark
    lives = sampler.demo(5) + sampler.long(3)
    monkeypatch.setattr(base, "SamplingParams", partial(base.SamplingParams, temperature=0.0))
    monkeypatch.setattr(torch, "multinomial", lambda probs, *_, **__: probs.argmax(-1, keepdim=True))
    told = {}
    for name in ("codots", "generate", "padded loop", "generate_batch"):
        engine = engines.ENGINES[name](folder)
        getattr(engine, "begin", bool)()
        told[name] = engine.play(lives)
        getattr(engine, "end", bool)()
    for life, *ways in zip(lives, *told.values(), strict=True):
        assert len(ways[0]) == sum(count for session in life for _, count in session)
        for other in ways[1:]:
            assert other == pytest.approx(ways[0], abs=1e-3)


def test_the_sampler_is_timed_beside_those_of_its_rivals_that_are_here():
    command = [sys.executable, BENCHMARKS / "sampler.py", "--quick", "--engines", "codots,vllm", "--json"]
    said = subprocess.run(command, check=True, capture_output=True, text=True)
    found = json.loads(said.stdout)
    assert found["loads"]["demo"]["sessions"] == 28
    assert found["tokens_per_s"]["vllm"] is None
    assert all(len(rates) == 1 and rates[0] > 0 for rates in found["tokens_per_s"]["codots"].values())


def test_the_continuous_sampler_is_timed_with_and_without_a_sleeper_and_against_lockstep():
    command = [sys.executable, BENCHMARKS / "continuous.py", "--quick"]
    found = json.loads(subprocess.run([*command, "--json"], check=True, capture_output=True, text=True).stdout)
    assert set(found) == {"wall", "cpu"}
    for rates in found.values():
        assert set(rates) == {"continuous", "beside a sleeper", "lockstep"}
        assert all(len(times) == 1 and times[0] > 0 for times in rates.values())
    table = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert "continuous / lockstep, cpu: " in table

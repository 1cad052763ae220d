"""The time on a GPU that is not here is arithmetic that anyone can repeat, and what cannot run there is one line."""

import json
import re

import pytest

from codots.config.schema import TrainConfig
from codots.model.device import Place
from codots.model.kind import read_config
from codots.model.load import load_render
from codots.preflight.estimate import estimate, scripted_lives
from codots.preflight.gpus import BANDWIDTH, COMPUTE, GPUS, KERNELS, LAUNCH_SECONDS, check_count, known_gpu, speed_on
from codots.preflight.model_shape import Shape
from codots.rollout.profile import Profile

PROFILE = Profile(solve_tokens=8, update_tokens=16)


@pytest.fixture
def recipe(qwen, tmp_path):
    def make(**changes):
        keys = {"model": str(qwen), "run": str(tmp_path / "run"), "preset": "tiny", "packs_per_step": 2}
        keys |= {"group_size": 2, "steps": 10, "eval_every": 0, "profile": {"solve_tokens": 8, "update_tokens": 16}}
        return TrainConfig.model_validate(keys | changes)

    return make


def ray(samplers, learners):
    return {"kind": "ray", "samplers": samplers, "learners": learners}


def test_each_speed_is_the_slowest_of_what_a_pass_needs(recipe, qwen):
    shape = Shape(read_config(qwen), Place("cuda", "bfloat16"))
    lives = scripted_lives(recipe(), PROFILE, load_render(qwen), 0.5)
    lengths = [len(sample.ids) for life in lives for sample in life.samples]
    for gpu in GPUS.values():
        for rows in (1, 10_000):
            for recompute in (False, True):
                found = speed_on(gpu, shape, lives, rows, recompute)
                moved = shape.weights * 2 + rows * shape.bytes_per_id * sum(lengths) / len(lengths)
                seconds = (
                    moved / gpu.tb_per_s / 1e12 / BANDWIDTH,
                    2 * shape.weights * rows / gpu.tflops / 1e12 / COMPUTE,
                    shape.layers * KERNELS * LAUNCH_SECONDS,
                )
                assert found.sampled == pytest.approx(max(seconds))
                assert found.read == pytest.approx(2 * shape.weights / gpu.tflops / 1e12 / COMPUTE)
                assert found.learned == pytest.approx(found.read * (4 if recompute else 3))


def test_more_gpus_take_less_time_and_a_run_takes_all_its_steps(recipe):
    few, many = (estimate(recipe(engine=ray(n, n)), gpu=known_gpu("h200")) for n in (1, 4))
    assert many.seconds["learning"] < few.seconds["learning"]
    assert many.seconds["reading"] < few.seconds["reading"]
    assert few.whole == pytest.approx(10 * few.step)
    assert few.sampled > 0
    assert few.there == known_gpu("h200").gib * 2**30


@pytest.mark.parametrize(
    ("engine", "gpus", "line"),
    [
        (ray(8, 16), 8, "engine.samplers=8 and engine.learners=16 need 24 GPUs, and there are 8"),
        (ray(1, 1), 8, "the run uses 2 of 8 GPUs; expected .* or --gpus 2"),
        (ray(2, 1) | {"tensor_parallel": 4}, 8, "engine.samplers=2 of 4 each and engine.learners=1 need 9 GPUs, and"),
        ("local", 2, "the run uses 1 of 2 GPUs; expected engine.kind=ray"),
    ],
)
def test_a_run_that_needs_another_number_of_gpus_is_one_line(recipe, engine, gpus, line):
    with pytest.raises(ValueError, match=line):
        check_count(recipe(engine=engine, sampler="vllm"), gpus)


def test_the_command_estimates_for_a_named_gpu(codots, recipe, tmp_path):
    (tmp_path / "recipe.yaml").write_text(json.dumps(recipe(engine=ray(1, 2)).to_dict()))
    ended = codots("estimate", tmp_path / "recipe.yaml", "--gpu", "h100", "--gpus", 3, "--json")
    assert ended.code == 0, ended.err
    assert json.loads(ended.out)["actors"] == {"sampler": 1, "learner": 2}
    shown = codots("estimate", tmp_path / "recipe.yaml", "--gpu", "h100", "--gpus", 3).out
    assert "on h100, in bfloat16" in shown
    assert "per second" in shown
    for words, line in (
        (["--gpu", "h1000"], "unknown GPU 'h1000'; expected one of .*; the nearest is 'h100'"),
        (["--gpus", 3], "--gpus 3 needs --gpu, such as --gpu h200"),
        (["--gpu", "h100", "--memory", 8], "expected one of them"),
    ):
        ended = codots("estimate", tmp_path / "recipe.yaml", *words)
        assert ended.code == 2
        assert len(ended.err.splitlines()) == 1
        assert re.search(line, ended.err)

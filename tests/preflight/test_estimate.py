"""Estimated memory is between one and two times the real peak, and changes that make a run fit are named."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoConfig

from codots.cli.display import estimate_table
from codots.cli.main import main
from codots.config.schema import TrainConfig
from codots.domains.registry import make_pack, register
from codots.learner.batch import micro_batches
from codots.learner.config import LoraConfig
from codots.learner.lora import adapt, adapters
from codots.model.attention import run, use_row_attention
from codots.model.device import Place, count_weights
from codots.model.load import load_model, load_render
from codots.preflight.estimate import (
    PACKS,
    changes_that_fit,
    estimate,
    ids_of_lives,
    scripted_lives,
    smaller_recipes,
)
from codots.preflight.memory import GIB, memory
from codots.preflight.model_shape import Shape, _saved_bytes
from codots.rollout.fit import dry_run, grouped
from codots.rollout.profile import Profile

ROOT = Path(__file__).parents[2]
PROFILE = Profile(solve_tokens=8, update_tokens=16)
COMMAND = """
import atexit, pathlib, re, sys
import tests.engine.registered
from codots.cli.main import main
status = pathlib.Path("/proc/self/status")
atexit.register(lambda: print(re.search(r"VmHWM:\\s*(\\d+)", status.read_text())[1], file=sys.stderr))
main()
"""
"""The command with a test domain; on exit it prints its peak memory in KiB to stderr."""
RECIPE = {
    "packs_per_step": 1,
    "group_size": 4,
    "pack_size": 2,
    "workers": 1,
    "eval_every": 0,
    "steps": 2,
    "loggers": [],
    "max_logprob_gap": 1,
}
KINDS = {
    "lora": {"dtype": "bfloat16", "learner": {"lora": {"rank": 2, "alpha": 4}, "gradient_checkpointing": True}},
    "full": {"dtype": "float32", "learner": {"max_microbatch_tokens": 1024}},
}


def packs_of(config):
    """The first packs of a recipe, as many as the estimate dry-runs."""
    (world,) = config.worlds
    return [make_pack(world.domain, world.preset, "train", i, world.pack_size) for i in range(PACKS)]


@pytest.fixture(autouse=True)
def registered_talk(registry):
    from tests.engine.registered import RegisteredTalk

    register(RegisteredTalk())


@pytest.fixture(scope="module")
def recipe(qwen):
    """Make recipes whose episodes even an untrained model plays to the end."""

    def make(**changes):
        values = RECIPE | {"model": str(qwen), "domain": "registered-talk-v0", "preset": "few"}
        return TrainConfig.model_validate(values | {"profile": {"solve_tokens": 8, "update_tokens": 16}} | changes)

    return make


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc/self/status of Linux")
@pytest.mark.parametrize("kind", ["full", "lora"])
def test_the_peak_memory_of_a_run_is_between_half_and_all_of_the_estimate(kind, recipe, tmp_path):
    config = recipe(**KINDS[kind])
    changes = [f"{key}={json.dumps(value)}" for key, value in config.model_dump(mode="json").items() if key != "run"]
    (tmp_path / "recipe.yaml").write_text("seed: 0\n")
    command = [sys.executable, "-c", COMMAND, "estimate", str(tmp_path / "recipe.yaml"), *changes, "--json"]
    estimated = json.loads(subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout)
    command[3:] = ["train", str(tmp_path / "recipe.yaml"), *changes, f"run={tmp_path / 'run'}"]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    peak = 1024 * int(run.stderr.split()[-1])
    assert peak <= sum(estimated["parts"].values()) <= 2 * peak
    assert estimated["fits"]
    assert all(seconds > 0 for seconds in estimated["seconds"].values())


@pytest.fixture(scope="module")
def shape(qwen):
    return Shape(AutoConfig.from_pretrained(qwen), Place())


def test_a_shape_counts_weights_without_allocating_them(shape, qwen):
    assert shape.weights == count_weights(qwen)
    model, _ = load_model(qwen)
    lora = LoraConfig(rank=3, alpha=6, targets=("q_proj", "up_proj"))
    assert shape.adapters(lora.rank, lora.targets) == sum(w.numel() for w in adapters(adapt(model, lora)).values())


def test_the_saved_bytes_of_a_layer_cover_what_autograd_saves(shape, recipe, qwen):
    config = recipe()
    lives = dry_run(packs_of(config), PROFILE, load_render(qwen), 1.0)
    part = next(micro_batches(grouped(lives, 2), 700))
    saved, models = {}, [use_row_attention(shape.with_layers(n, "cpu")) for n in (1, 2)]

    def pack(tensor):
        saved[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    counts = []
    for model in models:
        saved.clear()
        positions = [torch.arange(s, len(nodes)) for s, nodes in zip(part.shared, part.nodes, strict=True)]
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            run(model.base_model, torch.tensor(part.ids), torch.cat(positions), part.rows("cpu"))
        weights = {parameter.data_ptr() for parameter in model.parameters()}
        counts.append(sum(t.untyped_storage().nbytes() for pointer, t in saved.items() if pointer not in weights))
    assert counts[1] - counts[0] <= shape.saved_bytes(part) <= 1.25 * (counts[1] - counts[0])
    # Some GPUs also save the attention weights of every pair of tokens.
    pairs = shape.config.num_attention_heads * sum(
        rows.queries_BT.numel() * rows.width for rows in part.rows("cpu").parts
    )
    on_gpu = Shape(shape.config, Place("cuda")).saved_bytes(part)
    assert shape.saved_bytes(part) + 4 * pairs <= on_gpu <= shape.saved_bytes(part) + 3 * 4 * pairs
    assert _saved_bytes(use_row_attention(shape.with_layers(1, "meta")), part, True, "cpu") > 0


def test_lives_of_a_group_share_their_prompts(recipe, shape, qwen):
    config = recipe(group_size=2)
    lives = scripted_lives(config, PROFILE, load_render(qwen), 0.5, copies=2)
    assert len(lives) % 2 == 0
    paths = set()
    for i, life in enumerate(lives):
        paths |= {(i // 2, tuple(s.ids[: n + 1])) for s in life.samples for n in range(len(s.ids) - 1)}
    assert ids_of_lives(config, shape, lives) == pytest.approx(len(paths) / len(lives))
    alone = [ids_of_lives(recipe(group_size=size), shape, lives) for size in (2, 4, 8)]
    assert alone == sorted(alone, reverse=True)


def test_every_change_reduces_memory_and_the_first_that_fits_is_named(recipe, shape, qwen):
    config = recipe(kv_cache_gib=8)
    lives = dry_run(packs_of(config), PROFILE, load_render(qwen), 1.0)
    needed = [sum(memory(config, PROFILE, shape, lives).values())]
    named = []
    for key, value, changed in smaller_recipes(config):
        needed.append(sum(memory(changed, PROFILE, shape, lives).values()))
        named.append(f"{key}={value}")
    assert needed == sorted(needed, reverse=True)
    assert {name.partition("=")[0] for name in named} == {
        "kv_cache_gib",
        "learner.gradient_checkpointing",
        "learner.max_microbatch_tokens",
        "learner.lora",
    }
    assert changes_that_fit(config, PROFILE, shape, lives, needed[0])[-1:] == (named[0],)
    index = named.index("learner.gradient_checkpointing=true")
    assert named[index] in changes_that_fit(config, PROFILE, shape, lives, needed[index + 1])
    assert changes_that_fit(config, PROFILE, shape, lives, needed[-1] - 1) == ()


def test_replies_are_estimated_within_the_length_of_the_model(recipe):
    assert estimate(recipe(profile={"solve_tokens": 5_000_000, "max_model_len": 300}), gib=24).fits


def test_a_length_too_short_for_any_prompt_is_one_line(recipe):
    with pytest.raises(
        ValueError,
        match="the first prompt of registered-talk-v0 has 148 ids, and the model may read 3; raise max_model_len",
    ):
        estimate(recipe(profile={"max_model_len": 3}))


def test_a_run_on_ray_counts_its_actors_and_their_work(recipe):
    """Samplers hold no optimizer, the learner no KV cache, and in mode async both work at once."""
    local, ray = estimate(recipe(workers=1)), estimate(recipe(engine={"kind": "ray", "samplers": 3}))
    assert (local.actors, ray.actors) == ({}, {"sampler": 3, "learner": 1})
    assert ray.parts["optimiser"] == local.parts["optimiser"]
    assert ray.parts["weights"] == pytest.approx(4 * local.parts["weights"])
    assert ray.parts["programs"] == pytest.approx(5 * local.parts["programs"], rel=0.2)  # with the driver
    assert ray.step == pytest.approx(sum(ray.seconds.values()))
    beside = estimate(recipe(engine={"kind": "ray", "samplers": 3, "mode": "async"}))
    assert beside.step < sum(beside.seconds.values())
    assert list(estimate_table(beside).columns[1].cells)[-8] == "3 samplers, 1 learner; each needs a CPU"


def test_vllm_has_weights_and_a_whole_cache_of_its_own(recipe):
    local, vllm = (estimate(recipe(sampler=sampler, kv_cache_gib=1)) for sampler in ("lockstep", "vllm"))
    assert vllm.parts["weights"] == pytest.approx(2 * local.parts["weights"])
    assert vllm.parts["keys and values"] == pytest.approx(GIB)
    assert vllm.parts["optimiser"] == local.parts["optimiser"]
    ray = estimate(recipe(device="cuda", sampler="vllm", engine="ray"), gib=24)
    assert ray.parts["weights"] == pytest.approx(local.parts["weights"] / 2)  # in bfloat16, and none in the actor


def test_tensor_parallelism_splits_the_weights_of_vllm(recipe):
    engine = {"kind": "ray", "samplers": 2, "learners": 64, "tensor_parallel": 4}
    one, four = (
        estimate(recipe(device="cuda", sampler="vllm", engine=engine | {"tensor_parallel": n}), 24) for n in (1, 4)
    )
    assert four.parts["weights"] == pytest.approx(one.parts["weights"] / 4)
    assert list(estimate_table(four).columns[1].cells)[-1] == "2 samplers, 64 learners; each needs a GPU, a sampler 4"
    cpu = estimate(recipe(sampler="vllm", kv_cache_gib=1, engine={"tensor_parallel": 2}))
    assert cpu.parts["keys and values"] == pytest.approx(2 * GIB)


def test_the_gpus_of_a_ray_run_each_hold_one_actor(recipe):
    whole = recipe(device="cuda", engine={"kind": "ray", "samplers": 3})
    found = estimate(whole, gib=24)
    assert "optimiser" in found.parts
    assert "keys and values" not in found.parts
    assert found.needed < estimate(recipe(device="cuda"), gib=24).needed


def test_several_learners_share_the_optimizer_and_the_weights(recipe):
    one, four = (estimate(recipe(device="cuda", engine={"kind": "ray", "learners": n}), gib=24) for n in (1, 4))
    assert four.parts["optimiser"] < one.parts["optimiser"] / 3
    assert four.actors == {"sampler": 1, "learner": 4}


def test_a_larger_device_is_estimated_without_being_present(recipe):
    found = estimate(recipe(), gib=24)
    assert found.fits
    assert found.place == Place("cuda", "bfloat16")
    assert (found.there, found.seconds) == (24 * GIB, {})


def test_a_run_that_does_not_fit_is_one_line_with_changes_that_fit(tmp_path, capsys, qwen, monkeypatch):
    (tmp_path / "recipe.yaml").write_text(f"model: {qwen}\npacks_per_step: 64\ngroup_size: 64\nkv_cache_gib: 30\n")
    monkeypatch.setattr(sys, "argv", ["codots", "estimate", str(tmp_path / "recipe.yaml"), "--memory", "8"])
    with pytest.raises(SystemExit) as end:
        main()
    line = capsys.readouterr().err.strip()
    assert end.value.code == 2
    assert len(line.splitlines()) == 1
    assert "does not fit into 8.0 GiB of cuda; it would fit with kv_cache_gib=" in line
    assert [path.name for path in tmp_path.iterdir()] == ["recipe.yaml"]

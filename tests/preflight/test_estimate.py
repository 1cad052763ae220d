"""A plan says what a run will take, no less and not twice as much, and refuses what cannot fit with what would."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoConfig

from codots.cli.main import main
from codots.config.schema import TrainConfig
from codots.domains.registry import make_pack, register
from codots.learner.batch import micro_batches
from codots.learner.config import LoraConfig
from codots.learner.lora import adapt, adapters
from codots.model.attention import run
from codots.model.device import Place, count_weights
from codots.model.load import load_model, load_render
from codots.preflight.estimate import GIB, PACKS, fitting, forecast, less, memory
from codots.preflight.model_shape import Shape, _kept
from codots.rollout.fit import grouped, rehearse
from codots.rollout.profile import Profile

ROOT = Path(__file__).parents[2]
PROFILE = Profile(solve_tokens=8, update_tokens=16)
DOOR = """
import atexit, pathlib, re, sys
import tests.engine.babble
from codots.cli.main import main
status = pathlib.Path("/proc/self/status")
atexit.register(lambda: print(re.search(r"VmHWM:\\s*(\\d+)", status.read_text())[1], file=sys.stderr))
main()
"""
"""The command, with a domain of the tests, that tells at its end how much memory it had at most, in KiB."""
WHOLE = {
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
    """The first packs of a recipe, as many as a plan rehearses."""
    (world,) = config.worlds
    return [make_pack(world.domain, world.preset, "train", i, world.pack_size) for i in range(PACKS)]


@pytest.fixture(autouse=True)
def babble(registry):
    from tests.engine.babble import Babble

    register(Babble())


@pytest.fixture(scope="module")
def recipe(qwen):
    """A recipe of episodes that even an untrained model plays to their end."""

    def make(**changes):
        said = WHOLE | {"model": str(qwen), "domain": "babble-v0", "preset": "few"}
        return TrainConfig.model_validate(said | {"profile": {"solve_tokens": 8, "update_tokens": 16}} | changes)

    return make


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells what one program had at most")
@pytest.mark.parametrize("kind", KINDS)
def test_a_run_takes_no_more_memory_than_planned_and_half_of_it_at_least(kind, recipe, tmp_path):
    config = recipe(**KINDS[kind])
    changes = [f"{key}={json.dumps(value)}" for key, value in config.model_dump(mode="json").items() if key != "run"]
    (tmp_path / "recipe.yaml").write_text("seed: 0\n")
    words = [sys.executable, "-c", DOOR, "plan", str(tmp_path / "recipe.yaml"), *changes, "--json"]
    planned = json.loads(subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True).stdout)
    words[3:] = ["train", str(tmp_path / "recipe.yaml"), *changes, f"run={tmp_path / 'run'}"]
    run = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    taken = 1024 * int(run.stderr.split()[-1])
    assert taken <= sum(planned["parts"].values()) <= 2 * taken
    assert planned["fits"]
    assert all(seconds > 0 for seconds in planned["seconds"].values())


@pytest.fixture(scope="module")
def shape(qwen):
    return Shape(AutoConfig.from_pretrained(qwen), Place())


def test_a_shape_knows_its_weights_without_having_them(shape, qwen):
    assert shape.weights == count_weights(qwen)
    model, _ = load_model(qwen)
    lora = LoraConfig(rank=3, alpha=6, targets=("q_proj", "up_proj"))
    assert shape.adapters(lora.rank, lora.targets) == sum(w.numel() for w in adapters(adapt(model, lora)).values())


def test_what_a_layer_keeps_is_at_least_what_autograd_holds(shape, recipe, qwen):
    config = recipe()
    lives = rehearse(packs_of(config), PROFILE, load_render(qwen), 1.0)
    part = next(micro_batches(grouped(lives, 2), 700))
    held, own = {}, [shape.with_layers(n, "cpu") for n in (1, 2)]

    def keep(tensor):
        held[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    counts = []
    for model in own:
        held.clear()
        positions = [torch.arange(s, len(nodes)) for s, nodes in zip(part.shared, part.nodes, strict=True)]
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            run(model.base_model, torch.tensor(part.ids), torch.cat(positions), part.rows("cpu"))
        weights = {parameter.data_ptr() for parameter in model.parameters()}
        counts.append(sum(t.untyped_storage().nbytes() for at, t in held.items() if at not in weights))
    # That which is asked without a device keeps what every id took of every other besides, as some devices' does.
    shares = (
        sum(rows.queries_BT.numel() * rows.width for rows in part.rows("cpu").parts) * shape.config.num_attention_heads
    )
    assert counts[1] - counts[0] <= shape.kept(part) <= 1.15 * (counts[1] - counts[0]) + 2 * 4 * shares
    assert _kept(shape.with_layers(1, "meta"), part) > 0


def test_every_change_takes_less_and_the_first_that_fits_is_named(recipe, shape, qwen):
    config = recipe(kv_cache_gib=8)
    lives = rehearse(packs_of(config), PROFILE, load_render(qwen), 1.0)
    taken = [sum(memory(config, PROFILE, shape, lives).values())]
    named = []
    for key, value, changed in less(config):
        taken.append(sum(memory(changed, PROFILE, shape, lives).values()))
        named.append(f"{key}={value}")
    assert taken == sorted(taken, reverse=True)
    assert {name.partition("=")[0] for name in named} == {
        "kv_cache_gib",
        "learner.gradient_checkpointing",
        "learner.max_microbatch_tokens",
        "learner.lora",
    }
    assert fitting(config, PROFILE, shape, lives, taken[0])[-1:] == (named[0],)
    again = named.index("learner.gradient_checkpointing=true")
    assert named[again] in fitting(config, PROFILE, shape, lives, taken[again + 1])
    assert fitting(config, PROFILE, shape, lives, taken[-1] - 1) == ()


def test_replies_that_may_be_longer_than_the_model_can_read_are_planned_within_that(recipe):
    assert forecast(recipe(profile={"solve_tokens": 5_000_000, "max_model_len": 300})).fits


def test_a_length_that_no_prompt_fits_into_is_one_line(recipe):
    with pytest.raises(ValueError, match="no prompt of babble-v0 fits into the 3 ids that the model may read"):
        forecast(recipe(profile={"max_model_len": 3}))


def test_a_larger_device_elsewhere_is_planned_without_being_there(recipe):
    found = forecast(recipe(), gib=24)
    assert found.fits
    assert found.place == Place("cuda", "bfloat16")
    assert (found.there, found.seconds) == (24 * GIB, {})


def test_what_cannot_fit_is_refused_in_one_line_with_what_would_do(tmp_path, capsys, qwen, monkeypatch):
    (tmp_path / "recipe.yaml").write_text(f"model: {qwen}\npacks: 64\ngroup: 64\ncache_gib: 30\n")
    monkeypatch.setattr(sys, "argv", ["codots", "estimate", str(tmp_path / "recipe.yaml"), "--memory", "8"])
    with pytest.raises(SystemExit) as left:
        main()
    said = capsys.readouterr().err.strip()
    assert left.value.code == 2
    assert len(said.splitlines()) == 1
    assert "does not fit into 8.0 GiB of cuda; it would with kv_cache_gib=" in said
    assert [path.name for path in tmp_path.iterdir()] == ["recipe.yaml"]

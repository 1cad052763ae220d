"""Training of a small Qwen model end to end: half precision, LoRA, thinking, resuming, and the saved model."""

import shutil
from itertools import islice

import pytest
import torch
from safetensors.torch import load_file, save_file

from codots import register
from codots.config.schema import TrainConfig
from codots.model.device import Place
from codots.model.load import load_model
from codots.model.renderer import Render, without_thought
from codots.rollout.profile import load_profile
from codots.runs.checkpoint import checkpoints
from codots.training.train import train
from tests.evaluating import measured
from tests.qwen import make_qwen_tokenizer
from tests.toy import Talk

PROFILE = {"solve_tokens": 6, "update_tokens": 8, "max_model_len": 4096, "thinking": True}
LEARNERS = {
    "lora": {"lora": {"rank": 2, "alpha": 4}, "gradient_checkpointing": True, "lr": 1e-2, "warmup_steps": 0},
    "full": {"gradient_checkpointing": True, "lr": 1e-2, "warmup_steps": 0},
}


@pytest.fixture(autouse=True)
def talk(registry):
    """A domain that rewards any reply, so that an untrained model has a gradient."""
    register(Talk())


@pytest.fixture(params=["lora", pytest.param("full", marks=pytest.mark.slow)])
def recipe(request, qwen, tmp_path):
    def make(name, **changes):
        keys = {"model": str(qwen), "run": str(tmp_path / name), "learner": LEARNERS[request.param], "profile": PROFILE}
        size = {"steps": 2, "packs_per_step": 2, "group_size": 2, "pack_size": 2, "workers": 1, "eval_every": 0}
        size |= {"domain": "talk-v0", "preset": "few", "save_every": 1}
        how = {"dtype": "bfloat16", "max_logprob_gap": 1, "loggers": [], "credit": {"preset": "paper"}}
        return TrainConfig.model_validate(keys | size | how | changes)

    make.kind = request.param
    return make


def ends(run):
    return load_file(run / "model" / "model.safetensors")


def test_a_resumed_run_ends_with_the_same_weights(recipe, tmp_path, qwen):
    through, stopped = recipe("through"), recipe("stopped")
    assert len(list(train(through))) == 2
    steps = train(stopped)
    assert len(list(islice(steps, 1))) == 1
    steps.close()
    assert len(list(train(stopped, resume=True))) == 1
    one, other, before = ends(tmp_path / "through"), ends(tmp_path / "stopped"), load_file(qwen / "model.safetensors")
    assert one.keys() == other.keys() == before.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert any(not torch.equal(one[name], before[name]) for name in one)
    assert {weight.dtype for weight in one.values()} == {torch.bfloat16}


def test_the_result_is_a_plain_model_with_its_training_profile(recipe, tmp_path):
    config = recipe("run", steps=1)
    list(train(config))
    model, render = load_model(tmp_path / "run" / "model", Place("cpu", "bfloat16"))
    assert not any("lora" in name for name, _ in model.named_parameters())
    assert render.thinking is False
    profile = load_profile(tmp_path / "run" / "model")
    assert {key: getattr(profile, key) for key in PROFILE} == PROFILE
    (checkpoint,) = checkpoints(tmp_path / "run")
    assert (checkpoint / "adapter.safetensors").is_file() == (recipe.kind == "lora")
    report = measured(tmp_path / "run", domain="frozen-lake-v1", preset="easy", packs=2, pack_size=2, workers=1)
    assert report.tokens > 0


def test_init_from_starts_from_the_trained_weights(recipe, tmp_path):
    list(train(recipe("first", steps=1)))
    list(train(recipe("second", init_from=str(tmp_path / "first"), steps=1)))
    initial = ends(tmp_path / "second" / "checkpoints" / "step-000000")
    for name, weight in ends(tmp_path / "first").items():
        assert torch.equal(weight, initial[name])
    assert any(not torch.equal(weight, initial[name]) for name, weight in ends(tmp_path / "second").items())


def test_init_from_cannot_switch_lora_on_or_off(tmp_path, recipe):
    list(train(recipe("first", steps=1)))
    other, message = {
        "lora": ("full", "is a LoRA checkpoint: set learner.lora, or use model=.*step-000001 instead of --init-from"),
        "full": ("lora", "was not trained with LoRA; use model=.*step-000001 instead of --init-from"),
    }[recipe.kind]
    with pytest.raises(ValueError, match=f"step-000001 {message}"):
        list(train(recipe("second", init_from=str(tmp_path / "first"), learner=LEARNERS[other])))
    assert not (tmp_path / "second").exists()
    list(train(recipe("second", model=str(tmp_path / "first" / "checkpoints" / "step-000001"), steps=1)))


def test_init_from_needs_the_same_base_model_for_lora(tmp_path, recipe, qwen):
    other = shutil.copytree(qwen, tmp_path / "other")
    weights = {name: weight * 1.01 for name, weight in load_file(qwen / "model.safetensors").items()}
    save_file(weights, other / "model.safetensors", {"format": "pt"})
    list(train(recipe("first", steps=1)))
    second = recipe("second", init_from=str(tmp_path / "first"), model=str(other), steps=1)
    if recipe.kind == "full":  # its checkpoint has all weights, so `model` does not matter
        list(train(second))
        return
    with pytest.raises(
        ValueError, match="step-000001 was trained on another base model; expected the same, unchanged `model`"
    ):
        list(train(second))
    assert not (tmp_path / "second").exists()


def test_an_unknown_profile_key_raises_with_the_nearest(recipe):
    with pytest.raises(ValueError, match=r"unknown key of profile 'solve_token'.*nearest is 'solve_tokens'"):
        list(train(recipe("run", profile={"solve_token": 3})))


def test_thinking_is_kept_but_not_parsed_as_an_action():
    tokenizer = make_qwen_tokenizer()
    quick, slow = Render(tokenizer), Render(tokenizer, thinking=True)
    assert tokenizer.decode(quick.opening("a", "b")).endswith("assistant\n<think>\n\n</think>\n\n")
    assert tokenizer.decode(slow.opening("a", "b")).endswith("assistant\n")
    reply = "<think>maybe <action>1</action></think>\n<action>2</action>"
    assert slow.text(slow.reply(reply)) == reply
    assert without_thought(reply) == "\n<action>2</action>"
    assert without_thought("<action>3</action>") == "<action>3</action>"


def test_an_update_is_parsed_after_the_thinking():
    """Environments and updates see only the text after the thinking; the transcript keeps everything."""
    from codots.context.rewrite import Rewrite

    reply = "<think>first <context>no</context></think><context>1=up</context>"
    assert Rewrite().parse(reply, "").failure
    assert Rewrite().parse(without_thought(reply), "").context == "1=up"

"""Models with layers of their own are evaluated and trained end to end, on the slower path."""

import logging

import pytest
import torch
from benchmarks.architectures import make_model
from safetensors.torch import load_file

from codots import register
from codots.config.schema import TrainConfig
from codots.preflight import doctor
from codots.training.train import train
from tests.evaluating import measured
from tests.qwen import VOCABULARY, make_qwen_tokenizer
from tests.toy import Talk

NAMES = {"qwen3_5_text": "layer 0 is linear_attention", "lfm2": "layer 0 is conv"}


@pytest.fixture(autouse=True)
def talk(registry):
    """A domain that rewards any reply, so that an untrained model has a gradient."""
    register(Talk())


@pytest.fixture(params=NAMES)
def recipe(request, tmp_path):
    """Return a recipe of two steps for a model of two layers with the vocabulary of Qwen3."""
    changes = {"vocab_size": VOCABULARY, "hidden_size": 16, "max_position_embeddings": 4096}
    make_model(request.param, **changes).save_pretrained(tmp_path / "model")
    make_qwen_tokenizer().save_pretrained(tmp_path / "model")

    def make(**changes):
        keys = {"model": str(tmp_path / "model"), "run": str(tmp_path / "run"), "steps": 2, "workers": 1}
        size = {"packs_per_step": 2, "group_size": 2, "pack_size": 2, "eval_every": 0, "save_every": 1}
        how = {"domain": "talk-v0", "preset": "few", "loggers": [], "credit": {"preset": "paper"}}
        profile = {"solve_tokens": 4, "update_tokens": 5, "max_model_len": 2048}
        return TrainConfig.model_validate(keys | size | how | {"profile": profile, "max_logprob_gap": 1e-4} | changes)

    make.why = NAMES[request.param]
    return make


@pytest.mark.parametrize("sampler", [pytest.param("lockstep", marks=pytest.mark.slow), "continuous"])
def test_sampler_and_learner_agree_through_training(recipe, tmp_path, caplog, sampler):
    lora = {"lora": {"rank": 2, "alpha": 4, "targets": ["q_proj", "out_proj"]}, "gradient_checkpointing": True}
    learner = {"lr": 1e-2, "warmup_steps": 0} | (lora if sampler == "continuous" else {})
    with caplog.at_level(logging.WARNING):
        reports = list(train(recipe(sampler=sampler, learner=learner)))
    assert len(reports) == 2
    assert all(report.metrics["train/logprob_gap_max"] < 1e-4 for report in reports)
    assert all(report.metrics["train/grad_norm"] > 0 for report in reports)
    assert [record.message for record in caplog.records].count(caplog.records[0].message) == 1
    assert f"slower path, each sequence alone: {recipe.why}" in caplog.records[0].message
    before, after = (load_file(tmp_path / folder / "model.safetensors") for folder in ("model", "run/model"))
    assert before.keys() == after.keys()
    assert any(not torch.equal(before[name], after[name]) for name in before)
    report = measured(tmp_path / "run" / "model", domain="talk-v0", preset="few", packs=2, pack_size=2, workers=1)
    assert report.tokens > 0


def test_doctor_names_the_slower_path_and_its_layer(recipe):
    (found,) = [found for found in doctor.examine(recipe()) if found.what == "model"]
    assert found.found.endswith(f"slower path, each sequence alone: {recipe.why}")
    assert not found.must

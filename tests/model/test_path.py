"""A model reads packed rows only if they give its own logits; otherwise it reads each sequence alone."""

import re
from pathlib import Path

import pytest
import torch
from benchmarks.architectures import ARCHITECTURES, make_model
from transformers import BertConfig, BertLMHeadModel, LlamaConfig, LlamaForCausalLM, MistralForCausalLM

from codots.model import path as paths
from codots.model.attention import NAME
from codots.model.load import load_model
from codots.model.path import ForwardPath, path_of, read_alone
from tests.qwen import make_qwen_tokenizer

ROWS = ("llama", "mistral", "qwen2", "qwen3", "phi3", "gemma3_text", "mixtral", "gemma3", "mistral3", "qwen3_vl")
ALONE = {
    "qwen3_5_text": "layer 0 is linear_attention",
    "lfm2": "layer 0 is conv",
    "llama4_text": "layer 0 is chunked_attention",
    "qwen3_5": "layer 0 is linear_attention",
    "mpt": "MptAttention (layer 0) has an attention of its own",
    "bloom": "BloomAttention does not take packed rows",
    "falcon": "FalconAttention does not take packed rows",
    "gptj": "GPTJAttention (layer 0) has an attention of its own",
    "gemma2": "Gemma2Attention uses softcap, which this attention does not support",
    "phi3, longrope": "its rotary embedding (longrope) changes beyond 16 ids",
}


@pytest.mark.parametrize("name", ROWS)
def test_models_whose_packed_rows_give_their_own_logits_take_them(name):
    model = make_model(name)
    assert path_of(model) == ForwardPath()
    assert model.config._attn_implementation == NAME
    assert str(path_of(model)) == "packed rows"


@pytest.mark.parametrize(("name", "why"), ALONE.items())
def test_other_models_read_each_sequence_alone_with_their_own_attention(name, why):
    model = make_model(name)
    before = model.config._attn_implementation
    path = path_of(model)
    assert not path.rows
    assert path.cached
    assert why in path.why
    assert str(path).startswith("slower path, each sequence alone: ")
    assert model.config._attn_implementation == before


@pytest.mark.parametrize("name", ["qwen3_5_text", "lfm2", "llama4_text"])
def test_the_comparison_alone_finds_models_whose_layers_have_a_state(name, monkeypatch):
    monkeypatch.setattr(paths, "_unfit_config", lambda config, switches: "")
    assert not path_of(make_model(name)).rows


def test_half_precision_decides_as_full_precision():
    for name, rows in (("qwen3", True), ("gemma3_text", True), ("mixtral", True), ("gptj", False), ("lfm2", False)):
        assert path_of(make_model(name).to(torch.bfloat16)).rows == rows


@pytest.fixture
def rough():
    """Return a deep model in bfloat16, whose rounding changes logits as much as a wrong attention would."""
    config = LlamaConfig(
        vocab_size=300,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=24,
        num_attention_heads=4,
        num_key_value_heads=2,
    )
    torch.manual_seed(0)
    model = LlamaForCausalLM(config).eval().requires_grad_(False)
    for weight in model.parameters():
        if weight.ndim > 1:
            weight.mul_(20)
    return model.to(torch.bfloat16)


def test_rounding_does_not_decide_for_a_deep_model_in_half_precision(rough):
    weights = {name: weight.clone() for name, weight in rough.state_dict().items()}
    assert not paths._choose(rough).rows
    assert path_of(rough) == ForwardPath()
    assert all(torch.equal(weight, weights[name]) for name, weight in rough.state_dict().items())
    assert {weight.dtype for weight in rough.parameters()} == {torch.bfloat16}


def test_without_memory_for_float32_the_path_is_chosen_in_half_precision(rough, monkeypatch):
    seen, choose = [], paths._choose

    def full(model):
        seen.append(model.dtype)
        if model.dtype == torch.float32:
            raise torch.OutOfMemoryError
        return choose(model)

    monkeypatch.setattr(paths, "_choose", full)
    assert not path_of(rough).rows
    assert seen == [torch.float32, torch.bfloat16]


def test_a_window_that_short_sequences_do_not_reach_must_be_that_of_the_config(monkeypatch):
    assert path_of(make_model("mistral", sliding_window=64)).rows
    model = make_model("gemma3_text", sliding_window=64)
    for layer in model.model.layers:
        layer.self_attn.sliding_window = None
    assert "(layer 0) has a window of 64, packed rows one of None" in path_of(model).why


def test_a_model_is_as_before_after_the_decision():
    model = make_model("qwen3_5_text").train()
    weights, random = {name: weight.clone() for name, weight in model.state_dict().items()}, torch.get_rng_state()
    path_of(model)
    assert all(module.training for module in model.modules())
    assert all(torch.equal(weight, weights[name]) for name, weight in model.state_dict().items())
    assert torch.equal(random, torch.get_rng_state())


def test_a_model_with_a_wrong_cache_is_read_again_for_each_token(monkeypatch):
    model = make_model("gptj")
    forward = model.forward

    def forgetful(*, past_key_values=None, **inputs):
        return forward(**inputs)

    monkeypatch.setattr(model, "forward", forgetful)
    assert str(path_of(model)).startswith("slower path, each sequence alone, again for each token: GPTJAttention")


def test_a_model_that_is_not_causal_is_refused_at_load_by_its_layer(tmp_path):
    config = BertConfig(
        vocab_size=151_936, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8
    )
    BertLMHeadModel(config).save_pretrained(tmp_path)
    make_qwen_tokenizer().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"is not supported: BertSelfAttention is not causal: the logits of an id"):
        load_model(tmp_path)


def test_a_model_that_cannot_read_a_sequence_is_refused_in_one_line(monkeypatch):
    model = make_model("mistral")

    def broken(self, **inputs):
        raise RuntimeError("no kernel\nfor this machine")

    monkeypatch.setattr(MistralForCausalLM, "forward", broken)
    with pytest.raises(ValueError, match=r"^MistralForCausalLM cannot read a sequence of ids: no kernel$"):
        path_of(model)


@pytest.mark.parametrize("length", [15, 16, 17, 40])
def test_outputs_past_a_switch_are_those_of_each_prefix_alone(length):
    model = make_model("phi3, longrope")
    ids = torch.randint(97, (length,), generator=torch.Generator().manual_seed(length))
    with torch.no_grad():
        found = read_alone(model, ids, path_of(model))
        for end in range(1, length + 1):
            assert torch.allclose(found[end - 1], model(input_ids=ids[None, :end]).logits[0, -1], atol=1e-4)


def test_the_page_on_models_says_which_path_a_model_takes():
    page = (Path(__file__).parents[2] / "docs" / "models.md").read_text()
    paths = dict(re.findall(r"^\| `([^`]+)` \| (rows|alone|refused) \|", page, re.M))
    assert set(ARCHITECTURES) <= set(paths)
    assert {name: paths[name] for name in (*ROWS, *ALONE)} == dict.fromkeys(ROWS, "rows") | dict.fromkeys(
        ALONE, "alone"
    )

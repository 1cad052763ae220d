"""`codots model info` says what a model is, as training would load it."""

import json
from dataclasses import asdict

import pytest
import torch

from codots.model.load import load_model
from codots.model.path import path_of
from codots.preflight.model_info import model_info
from codots.rollout.profile import Profile
from tests.gguf_file import make_source


@pytest.fixture(params=[True, False], ids=["tied", "untied"])
def folder(request, tmp_path):
    model, tokenizer = make_source(tied=request.param)
    model.to(torch.bfloat16).save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def test_the_numbers_are_those_of_the_loaded_model(folder):
    info, (model, render) = model_info(folder), load_model(folder)
    tied = model.config.tie_word_embeddings
    assert info.weights == sum(weight.numel() for weight in model.parameters())
    assert info.embeddings == model.get_input_embeddings().weight.numel() * (1 if tied else 2)
    assert info.memory == {"float32": 4 * info.weights, "bfloat16": 2 * info.weights}
    assert (info.architecture, info.dtype) == ("LlamaForCausalLM", "bfloat16")
    assert (info.vocabulary, info.positions) == (len(render.tokenizer), 512)
    assert info.path == str(path_of(model)) == "packed rows"


def test_the_special_text_and_the_stop_ids_are_those_of_the_template(folder):
    info, (_, render) = model_info(folder), load_model(folder)
    assert info.marks == ("<|im_start|>", "<|im_end|>")
    assert info.stop == {id: render.tokenizer.decode(id) for id in render.stop_ids}
    assert set(info.stop.values()) == {"<|endoftext|>", "<|im_end|>"}


def test_the_profile_is_that_of_the_folder_or_the_defaults(folder):
    assert (model_info(folder).profile, model_info(folder).has_profile) == (asdict(Profile()), False)
    Profile(solve_tokens=7).save(folder)
    assert (model_info(folder).profile, model_info(folder).has_profile) == (asdict(Profile(solve_tokens=7)), True)


def test_a_model_that_cannot_be_loaded_is_one_line(folder, tmp_path):
    with pytest.raises(ValueError, match=r"no model at '.*modl'.*; the nearest is '.*model'$"):
        model_info(tmp_path / "modl")
    (folder / "chat_template.jinja").write_text("{{ 1 }}")
    with pytest.raises(ValueError, match=r"^the tokenizer's chat template"):
        model_info(folder)


def test_the_command_prints_one_screen_or_json(codots, folder):
    shown = codots("model", "info", folder)
    assert (shown.code, shown.err) == (0, "")
    assert 5 < len(shown.out.splitlines()) < 25
    for text in ("LlamaForCausalLM", "stored in bfloat16", "packed rows", "<|im_end|>", "there is no codots.json"):
        assert text in shown.out
    printed = codots("model", "info", folder, "--json")
    assert json.loads(printed.out) == json.loads(json.dumps(asdict(model_info(folder))))

"""The tiny model's tokenizer round-trips, no text encodes to its markers, and transformers loads its folder."""

import json

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, AutoTokenizer

from codots.domains.frozen_lake import CODES, DIRECTIONS
from codots.domains.registry import make_pack
from codots.model import tiny

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=80)
PIECES = st.lists(st.sampled_from([*tiny.SPECIAL, *tiny.WORDS, " ", "\n", "<0x41>", "▁", "é"]), max_size=12).map(
    "".join
)


def encode(tokenizer, text):
    return tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]


def decode(tokenizer, ids):
    return tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)


@example("")
@example(" \t\r\n\x00\x7f  ")
@example("<|end|><0x41>\u2581e\u0301\ufb01\U0001f9ca")
@given(TEXTS | PIECES)
def test_any_text_round_trips(tokenizer, text):
    assert decode(tokenizer, encode(tokenizer, text)) == text


@given(TEXTS | PIECES)
def test_no_text_encodes_to_a_marker(tokenizer, text):
    assert not set(encode(tokenizer, text)) & set(tokenizer.convert_tokens_to_ids(list(tiny.SPECIAL)))


@pytest.mark.parametrize("spread", [0.02, 0.1])
def test_initial_weights_have_the_standard_deviation_that_is_asked_for(tokenizer, spread):
    model = tiny.make_model(tokenizer, width=64, layers=1, heads=2, seed=0, initializer_range=spread)
    matrices = [weight.detach() for weight in model.parameters() if weight.ndim == 2]
    assert len(matrices) == 8
    assert all(0.95 * spread < weight.std().item() < 1.05 * spread for weight in matrices)


def test_there_is_no_unknown_token(tokenizer):
    every = "".join(map(chr, [*range(0xD800), *range(0xE000, 0x3000 + 0xD800), 0x1F9CA, 0x10FFFF]))[:60_000]
    assert decode(tokenizer, encode(tokenizer, every)) == every


@pytest.mark.parametrize("line", ["try n= e a", " q= k k nothing= z a", "got any= a b", "tier 0 u e"])
def test_every_word_of_compact_alchemy_is_one_token(tokenizer, line):
    assert len(encode(tokenizer, line)) == len(line.split())


@pytest.mark.parametrize("word", tiny.WORDS)
def test_a_word_of_the_compact_styles_is_one_token_in_any_position(tokenizer, word):
    assert len(encode(tokenizer, word)) == 1
    assert len(encode(tokenizer, f" {word}")) == 1
    assert encode(tokenizer, f"{word} {word}\n{word}") == [
        *encode(tokenizer, word),
        *encode(tokenizer, f" {word}"),
        *encode(tokenizer, "\n"),
        *encode(tokenizer, word),
    ]


@pytest.mark.parametrize("preset", ["easy", "hard", "tiny"])
def test_a_compact_board_is_one_token_a_cell(tokenizer, preset):
    for task in make_pack("frozen-lake-v1", preset, "train", 1, 4).tasks:
        text = task.env(style="compact").observe()
        assert len(encode(tokenizer, text)) == task.content.side**2 + 2


def test_each_word_of_an_action_or_context_is_one_token(tokenizer):
    for code in CODES:
        for direction in DIRECTIONS:
            assert len(encode(tokenizer, f"{direction} {code}")) == 2
            assert len(encode(tokenizer, f"<context> {code}={direction} </context>")) == 3


def test_equal_seeds_make_equal_models_without_changing_the_global_generator(tokenizer):
    torch.manual_seed(1)
    before = torch.get_rng_state()
    one, same, other = (
        tiny.make_model(tokenizer, width=16, layers=1, heads=2, seed=seed).state_dict() for seed in (3, 3, 4)
    )
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert any(not torch.equal(one[name], other[name]) for name in one)


def test_a_model_has_the_given_shape(tokenizer):
    model = tiny.make_model(tokenizer, width=32, layers=3, heads=4, seed=0, length=99)
    config = model.config
    assert (config.hidden_size, config.num_hidden_layers, config.num_attention_heads) == (32, 3, 4)
    assert (config.vocab_size, config.max_position_embeddings) == (len(tokenizer), 99)
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
    assert not model.training


def test_transformers_loads_a_saved_folder(tokenizer, tmp_path):
    model = tiny.make_model(tokenizer, width=16, layers=1, heads=2, seed=0)
    tiny.save(model, tokenizer, tmp_path)
    loaded, words = AutoModelForCausalLM.from_pretrained(tmp_path), AutoTokenizer.from_pretrained(tmp_path)
    assert all(torch.equal(weight, loaded.state_dict()[name]) for name, weight in model.state_dict().items())
    chat = [{"role": "system", "content": "lake"}, {"role": "user", "content": "_a1\na1"}]
    for one in (tokenizer, words):
        assert one.apply_chat_template(chat, tokenize=False, add_generation_prompt=True) == (
            "<|system|>lake<|user|>_a1\na1<|assistant|>"
        )
    text = "2=up <context> é"
    assert encode(words, text) == encode(tokenizer, text)
    assert words.eos_token == "<|end|>"
    assert json.loads((tmp_path / "config.json").read_text())["model_type"] == "qwen3"


@pytest.fixture(scope="module")
def learned():
    return tiny.learn_tokenizer(["the law is f(u) = -0.82*u + 13.82*u, 82 points\n"] * 100, 400)


@given(TEXTS)
def test_every_text_round_trips_in_a_learned_vocabulary(learned, text):
    assert decode(learned, encode(learned, text)) == text


@pytest.mark.parametrize("number", ["82", "13.82", "2026"])
def test_a_learned_vocabulary_has_a_token_for_each_digit(learned, number):
    assert len(encode(learned, f" {number}")) == 1 + len(number)
    assert encode(learned, f"{number}*u")[: len(number)] == encode(learned, number)
    assert [decode(learned, [id]) for id in encode(learned, number)] == [*number]

"""A language model small enough for one CPU core: tokenizer, chat template, architecture."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from string import ascii_lowercase, digits
from typing import Any

TEMPLATE = (
    "{% for m in messages %}"
    "{% if m.role == 'system' %}<|system|>{{ m.content }}"
    "{% elif m.role == 'user' %}<|user|>{{ m.content }}"
    "{% else %}<|assistant|>{{ m.content }}<|end|>{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
SPECIAL = ("<|pad|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>")
RESPONSE = {
    "defaults": {"role": "assistant"},
    "start_anchor": "<|assistant|>",
    "fields": {"content": {"close": "<|end|>", "content": "text"}},
}
"""Format of a reply, for servers. By default, transformers parses replies as it does for Qwen."""
MARKS = ("", "_", "O", "G")
"""Kinds of cell on a board: the current position, ice, a hole, the goal."""
WORDS = (
    *(f"{mark}{column}{row}" for mark in MARKS for column in "abcdefg" for row in range(1, 8)),
    *(f"{code}={effect}" for code in range(1, 5) for effect in ("up", "down", "left", "right", "stays")),
    *("up", "down", "left", "right", "goal", "hole", "late", "malformed"),
    *("lake", "moves", "notes", "rewrite", "reward", "<context>", "</context>"),
    *("alchemy", "rounds", "tier", "make", "have", "any=", "nothing=", "made", "try", "got", "pick", "paid", "empty"),
)


def make_tokenizer() -> Any:
    """Build a tokenizer of the words of compact styles, printable ASCII and bytes; every string round-trips."""
    from tokenizers import Tokenizer, decoders, models

    ascii_ = [chr(code) for code in range(32, 127)] + ["\n"]
    words = dict.fromkeys(piece for word in WORDS for piece in (word, f" {word}"))
    words |= dict.fromkeys(f" {letter}" for letter in ascii_lowercase + digits)
    words |= dict.fromkeys(f" {letter}=" for letter in ascii_lowercase)  # one token to find, and its inputs follow
    # Scores prefer a whole word to its letters, and letters to bytes. The markers are not in the model, so that no
    # text encodes to one.
    pieces = [(f"<0x{byte:02X}>", -100.0) for byte in range(256)]
    pieces += [(char, -10.0) for char in ascii_ if char not in words]
    pieces += [(word, -1.0) for word in words]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=0, byte_fallback=True))
    tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
    return _with_chat(tokenizer)


def learn_tokenizer(texts: Iterable[str], vocabulary: int) -> Any:
    """Learn a byte-level BPE tokenizer of at most `vocabulary` tokens from texts; every string round-trips.

    A digit is always one token, so that a model can copy a number that it never saw.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    digits, words = pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits, words])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary - len(SPECIAL),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return _with_chat(tokenizer)


def _with_chat(tokenizer: Any) -> Any:
    """Add the special tokens and the chat template to a tokenizer."""
    from tokenizers import AddedToken
    from transformers import PreTrainedTokenizerFast

    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<|pad|>",
        eos_token="<|end|>",
        chat_template=TEMPLATE,
        response_template=RESPONSE,
        clean_up_tokenization_spaces=False,
    )


def make_model(
    tokenizer: Any,
    *,
    width: int,
    layers: int,
    heads: int,
    seed: int,
    length: int = 1024,
    initializer_range: float = 0.02,
) -> Any:
    """Create a Qwen3 of this shape with normally distributed weights. `length` is the maximum number of positions."""
    import torch
    from transformers import Qwen3Config, Qwen3ForCausalLM

    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=8 * (width // 3),
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        head_dim=width // heads,
        max_position_embeddings=length,
        initializer_range=initializer_range,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Qwen3ForCausalLM(config).eval()


def save(model: Any, tokenizer: Any, folder: Path) -> None:
    """Save the model and the tokenizer as a standard Hugging Face folder."""
    from transformers.utils import logging

    logging.disable_progress_bar()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)

"""Small GGUF files, as llama.cpp's converter writes them, and the models that are in them."""

import json
import zipfile

import numpy as np
import pytest
import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from tests.model.foreign import CHATML, CORPUS

SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def make_source(*, template=CHATML, eos="<|endoftext|>", tied=True):
    """Return a random Llama and a byte-level tokenizer; the end of a turn is not the EOS token."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        CORPUS, trainers.BpeTrainer(vocab_size=350, initial_alphabet=alphabet, show_progress=False)
    )
    tokenizer.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in SPECIAL])
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=eos, chat_template=template)
    config = LlamaConfig(
        vocab_size=len(fast),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        tie_word_embeddings=tied,
        bos_token_id=None,
        eos_token_id=fast.eos_token_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = LlamaForCausalLM(config).eval()
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim > 1:
                weight.mul_(10)
    return model, fast


def write_gguf(path, model, tokenizer, *, architecture="llama", quantized=False, without=(), extra=(), keys=()):
    """Write a model and its tokenizer as a GGUF file, and round the model to what it holds; return the path."""
    gguf = pytest.importorskip("gguf")
    writer, config = gguf.GGUFWriter(path, architecture), model.config
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    _write_tokenizer(writer, tokenizer)
    for key, value in keys:
        writer.add_uint32(key, value)
    for name, weight in [*model.named_parameters(), *extra]:
        if name not in without:
            values, kind = weight.detach().numpy(), gguf.GGMLQuantizationType
            if quantized and values.ndim > 1:
                packed = gguf.quantize(_turned(name, values, config), kind.Q8_0)
                writer.add_tensor(_gguf_name(name), packed, raw_dtype=kind.Q8_0)
                weight.data = torch.from_numpy(gguf.dequantize(gguf.quantize(values, kind.Q8_0), kind.Q8_0))
            else:
                writer.add_tensor(_gguf_name(name), np.ascontiguousarray(_turned(name, values, config)))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _write_tokenizer(writer, tokenizer):
    merges = json.loads(tokenizer.backend_tokenizer.to_str())["model"]["merges"]
    tokens = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types([3 if token in SPECIAL else 1 for token in tokens])
    writer.add_token_merges([" ".join(merge) for merge in merges])
    writer.add_eos_token_id(tokenizer.eos_token_id)
    if tokenizer.chat_template:
        writer.add_chat_template(tokenizer.chat_template)


def _gguf_name(name):
    parts = name.removesuffix(".weight").removeprefix("model.layers.")
    layer, _, inner = parts.partition(".")
    return f"blk.{layer}.{NAMES[inner]}.weight" if layer.isdigit() else f"{NAMES.get(parts, parts)}.weight"


def _turned(name, values, config):
    """Return query and key weights with the two halves of each head interleaved, as llama.cpp rotates them."""
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
    count = next((heads[kind] for kind in heads if kind in name), None)
    if count is None:
        return values
    return values.reshape(count, 2, -1, values.shape[1]).swapaxes(1, 2).reshape(values.shape)


def make_wheel(path, **members):
    """Write a wheel with files given by name, as paths or as bytes."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("some_model/__init__.py", "")
        for name, content in members.items():
            archive.writestr(f"some_model/{name}", content if isinstance(content, bytes) else content.read_bytes())
    return path

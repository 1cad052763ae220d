"""Check sampler, learner and LoRA against the model's own forward pass, for many architectures, small and random.

    python benchmarks/architectures.py

Each model samples four sessions of different lengths and two turns in both samplers. The logprobs of the sampled ids,
those of the learner, and the gradient of one step with LoRA are compared with the model as transformers loads it, which
reads the ids before each sampled id alone. The script prints the largest differences as a Markdown table.
"""

from __future__ import annotations

import argparse
import asyncio
import os
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

os.environ |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}

LIMIT = 1e-4
"""Largest difference, in nats, that is rounding."""
SIZES = {
    "vocab_size": 97,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 128,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
EXPERTS = {"num_local_experts": 4, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
GPT2 = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 128}
LATENT = {"q_lora_rank": 8, "kv_lora_rank": 8, "qk_nope_head_dim": 8, "qk_rope_head_dim": 8, "v_head_dim": 8}
DELTA = {
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "layer_types": ["linear_attention", "full_attention"],
}
LLAMA4 = {"attention_chunk_size": 16, "intermediate_size_mlp": 48, "num_local_experts": 2}
MROPE = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 1, 1]}
VISION = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "depth": 1} | {
    "num_heads": 2,
    "image_size": 28,
    "patch_size": 14,
    "out_hidden_size": 32,
}
LONGROPE = {"rope_type": "longrope", "rope_theta": 1e4, "short_factor": [1.0] * 4, "long_factor": [4.0, 8.0, 9.0, 12.0]}
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "llama": {},
    "mistral": {"sliding_window": 5},
    "qwen2": {},
    "qwen3": {},
    "ministral": {"sliding_window": 5},
    "mixtral": EXPERTS,
    "qwen2_moe": EXPERTS | {"shared_expert_intermediate_size": 16},
    "qwen3_moe": EXPERTS,
    "olmoe": EXPERTS,
    "granite": {},
    "granitemoe": EXPERTS,
    "smollm3": {},
    "olmo2": {},
    "olmo3": {"sliding_window": 5},
    "gemma": {},
    "gemma2": {"sliding_window": 5, "query_pre_attn_scalar": 8},
    "gemma3_text": {"sliding_window": 5, "query_pre_attn_scalar": 8},
    "cohere": {},
    "cohere2": {"sliding_window": 5},
    "starcoder2": {"sliding_window": 5},
    "glm4": {},
    "seed_oss": {},
    "hunyuan_v1_dense": {},
    "ernie4_5": {},
    "gpt_oss": EXPERTS | {"sliding_window": 5},
    "phi": {},
    "phi3": {},
    "phi3, longrope": {
        "max_position_embeddings": 128,
        "original_max_position_embeddings": 16,
        "rope_parameters": LONGROPE | {"original_max_position_embeddings": 16},
    },
    "deepseek_v3": LATENT
    | {"num_key_value_heads": 4, "n_routed_experts": 4, "n_group": 1, "topk_group": 1, "num_experts_per_tok": 2},
    "qwen3_5_text": DELTA,
    "qwen3_5": {"text_config": DELTA, "vision_config": VISION},
    "gemma3": {"text_config": {"sliding_window": 5, "query_pre_attn_scalar": 8}, "vision_config": VISION},
    "llama4": {"text_config": LLAMA4, "vision_config": VISION},
    "mistral3": {"text_config": {"model_type": "mistral"}, "vision_config": VISION},
    "qwen3_vl": {
        "text_config": {"rope_parameters": MROPE},
        "vision_config": VISION | {"deepstack_visual_indexes": [0]},
    },
    "qwen3_next": DELTA | EXPERTS | {"shared_expert_intermediate_size": 16},
    "lfm2": {"layer_types": ["conv", "full_attention"]},
    "llama4_text": LLAMA4,
    "mamba": {"state_size": 4},
    "falcon_h1": {"mamba_d_ssm": 32, "mamba_n_heads": 4, "mamba_d_head": 8, "mamba_d_state": 8, "mamba_chunk_size": 8},
    "gpt2": GPT2,
    "gpt_neox": {},
    "gptj": GPT2 | {"rotary_dim": 4},
    "bloom": {"n_head": 4, "n_layer": 2},
    "mpt": {"d_model": 32, "n_heads": 4, "n_layers": 2, "max_seq_len": 128},
    "falcon": {"num_ln_in_parallel_attn": None},
    "falcon, alibi": {"alibi": True, "new_decoder_architecture": False, "multi_query": False},
    "opt": {"ffn_dim": 48, "word_embed_proj_dim": 32},
    "bert": {},
}


@dataclass(frozen=True)
class Row:
    """What was measured for one architecture; differences are in nats, those of the gradient relative to its norm."""

    name: str
    path: str
    sampler: float | None = None
    learner: float | None = None
    lora: float | None = None
    why: str = ""

    def __str__(self) -> str:
        numbers = ("" if x is None else f"{x:.0e}" for x in (self.sampler, self.learner, self.lora))
        return f"| `{self.name}` | {self.path} | {' | '.join(numbers)} | {self.why} |"


def main() -> None:
    """Print the table; exit with 1 if a difference is more than rounding."""
    import warnings

    import torch
    from transformers.utils import logging

    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--only", default="", metavar="NAME+...", help="check only these")
    names = [name for name in parser.parse_args().only.split("+") if name] or list(ARCHITECTURES)
    torch.set_num_threads(1)
    logging.set_verbosity_error()
    warnings.simplefilter("ignore")
    print("| model type | path | sampler | learner | LoRA gradient | why |\n|---|---|---|---|---|---|")
    wrong = 0
    for name in names:
        print(row := measure(name), flush=True)
        wrong += any(not x <= LIMIT for x in (row.sampler, row.learner, row.lora) if x is not None)
    if wrong:
        raise SystemExit(f"{wrong} of {len(names)} architectures are more than {LIMIT:g} off")


def make_model(name: str, **changes: Any) -> Any:
    """Return a small model whose attention matters, since its weights are large; `changes` are keys of its config."""
    import torch

    from codots.model.kind import auto_class

    config = make_config(name, **changes)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = auto_class(config).from_config(config).eval()
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.ndim > 1:
                    parameter.mul_(6)
                elif parameter.ndim == 1:  # norms and biases, which begin as ones and zeros
                    parameter.add_(torch.randn_like(parameter) / 8)
    return model


def make_config(name: str, **changes: Any) -> Any:
    """Return a config with the sizes that its class has; those of a multimodal model are of its text part."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    own = ARCHITECTURES[name]
    if text := own.get("text_config"):
        return CONFIG_MAPPING[name](**own | {"text_config": SIZES | text | changes})
    kind = CONFIG_MAPPING[name.partition(",")[0]]
    known = {*kind().to_dict(), *kind.attribute_map}
    return kind(**{key: value for key, value in SIZES.items() if key in known} | own | changes)


def measure(name: str) -> Row:
    """Check one architecture."""
    from codots.model.path import path_of
    from codots.sampler.continuous import ContinuousSampler
    from codots.sampler.local import LocalSampler

    own = make_model(name)
    try:
        path = path_of(make_model(name))
    except ValueError as error:
        return Row(name, "refused", why=str(error))
    samples = [play(make(deepcopy(own), frozenset())) for make in (LocalSampler, ContinuousSampler)]
    sampler = max(gap(sample.logprobs, own_logprobs(own, sample)) for played in samples for sample in played)
    learner, lora = learned(own, samples[0])
    return Row(name, "rows" if path.rows else "alone", sampler, learner, lora, path.why)


def play(sampler: Any) -> list[Any]:
    """Sample four sessions of two turns at once and return them as training samples."""
    from codots.core.rng import stream
    from codots.core.transcript import Transcript
    from codots.sampler.base import SamplingParams

    async def one(i: int) -> Any:
        transcript, rng = Transcript(), stream("architectures", i % 3)  # two sessions share their first prompt
        async with sampler.session(("life", i)) as session:
            for _ in range(2):
                ids = rng.integers(3, 97, 3 + 7 * (i % 3)).tolist()
                answer = await session.sample(ids, SamplingParams(5 + i))
                transcript.read(ids)
                transcript.wrote(answer)
        return transcript.sample((-1.0) ** i * (i + 1))

    async def together() -> list[Any]:
        return await asyncio.gather(*(one(i) for i in range(4)))

    return asyncio.run(together())


def own_logprobs(model: Any, sample: Any) -> Any:
    """Return the logprob of each sampled id, 0 elsewhere, from the model's pass over the ids before it alone."""
    import torch

    row = []
    for at, (id, sampled) in enumerate(zip(sample.ids, sample.mask, strict=True)):
        if sampled:
            logits = model(input_ids=torch.tensor([sample.ids[:at]]), use_cache=False).logits[0, -1]
            row.append(logits.log_softmax(-1)[id])
        else:
            row.append(torch.tensor(0.0))
    return torch.stack(row)


def gap(some: Sequence[float], others: Any) -> float:
    """Return the largest absolute difference."""
    import torch

    return float((torch.tensor(some) - others.detach()).abs().max())


def learned(own: Any, samples: Sequence[Any]) -> tuple[float, float]:
    """Return the gaps of the learner's logprobs and of its gradient of an adapter."""
    from codots.learner.config import LearnerConfig, LoraConfig
    from codots.learner.local import LocalLearner

    rows = LocalLearner(deepcopy(own), LearnerConfig()).logprobs(samples)
    learner = max(gap(row, own_logprobs(own, sample)) for row, sample in zip(rows, samples, strict=True))
    config = LearnerConfig(lora=LoraConfig(rank=2, alpha=4), gradient_checkpointing=True)
    return learner, gradient_gap(lambda: adapted(deepcopy(own), config), samples, config)


def adapted(model: Any, config: Any) -> Any:
    """Return a model with an adapter that is not zero."""
    import torch

    from codots.learner.lora import adapt, adapters
    from codots.model.path import path_of

    path_of(model)  # as at load, before the adapter is injected
    adapt(model, config.lora)
    generator = torch.Generator().manual_seed(1)
    for weight in adapters(model).values():
        weight.copy_(torch.randn(weight.shape, generator=generator) / 8)
    return model


def gradient_gap(make: Callable[[], Any], samples: Sequence[Any], config: Any) -> float:
    """Compare the learner's gradient with that of the plain policy gradient by autograd, relative to its norm."""
    import torch

    from codots.learner.batch import normalizer
    from codots.learner.local import LocalLearner

    model, count = make(), normalizer(samples, config)
    for sample in samples:  # on policy, the ratio is 1, so that its gradient is that of the logprob
        advantages = torch.tensor(sample.advantages)
        (-(own_logprobs(model, sample) * advantages).sum() / count).backward()
    own = torch.cat(
        [(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in model.parameters() if p.requires_grad]
    )
    learner = LocalLearner(make(), config)
    rows = learner.logprobs(samples)
    fresh = [type(s)(s.ids, s.mask, s.advantages, row, s.versions) for s, row in zip(samples, rows, strict=True)]
    learner.forward_backward(fresh, count)
    return float((learner.take_gradient() - own).norm() / own.norm())


if __name__ == "__main__":
    main()

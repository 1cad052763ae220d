"""Rows that attend in one pass get the results of each row alone, in every supported architecture."""

import numpy as np
import pytest
import torch
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from codots.core.rng import stream
from codots.core.transcript import Sample
from codots.learner.config import LearnerConfig
from codots.learner.local import LocalLearner
from codots.model.attention import Rows, shared_prefix, use_row_attention

SHAPE = {
    "vocab_size": 97,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
}
MODELS = {
    "qwen3, grouped heads": lambda: Qwen3ForCausalLM(Qwen3Config(**SHAPE, head_dim=12)),
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**SHAPE)),
    "mistral, a window of 5": lambda: MistralForCausalLM(MistralConfig(**SHAPE, sliding_window=5)),
    "qwen2, biases": lambda: Qwen2ForCausalLM(Qwen2Config(**SHAPE)),
    "llama, biases, another gate": lambda: LlamaForCausalLM(
        LlamaConfig(**SHAPE, attention_bias=True, mlp_bias=True, hidden_act="gelu")
    ),
    "gpt2": lambda: GPT2LMHeadModel(GPT2Config(vocab_size=97, n_embd=32, n_layer=2, n_head=4, n_positions=128)),
}


def make_model(kind):
    """Return a model whose attention matters, since its weights are large."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = MODELS[kind]().eval()
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.ndim > 1:
                    parameter.mul_(8)
                else:  # norms and biases, which begin as ones and zeros
                    parameter.add_(torch.randn_like(parameter) / 4)
    return model


def samples():
    rng = stream("attention")
    head = rng.integers(0, 97, 20).tolist()
    rows = [[*head[: rng.integers(0, 20)], *rng.integers(0, 97, rng.integers(2, 40)).tolist()] for _ in range(9)]
    return [
        Sample(ids, [False, *[True] * (len(ids) - 1)], [1.0] * len(ids), [0.0] * len(ids), [0] * len(ids))
        for ids in rows
    ]


@pytest.mark.parametrize("kind", MODELS)
def test_logprobs_of_a_tree_equal_those_of_each_sequence_alone(kind):
    model, batch = make_model(kind), samples()
    alone = []
    for sample in batch:
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([sample.ids])).logits[0, :-1].log_softmax(-1)
        alone.append([0.0, *logits.gather(1, torch.tensor(sample.ids[1:])[:, None])[:, 0].tolist()])
    together = LocalLearner(model, LearnerConfig()).logprobs(batch)
    for one, other in zip(together, alone, strict=True):
        assert one == pytest.approx(other, abs=1e-4)


@pytest.mark.parametrize("scores", [2**24, 0], ids=["few scores", "many scores"])
@pytest.mark.parametrize("window", [None, 2])
def test_training_in_half_precision_on_a_cpu_attends_as_in_float32(scores, window, monkeypatch):
    monkeypatch.setattr("codots.model.attention.SCORES", scores)
    generator = torch.manual_seed(0)
    query, key, value, gradient = (torch.randn(7, n, 8, generator=generator).bfloat16() for n in (4, 2, 2, 4))

    def attend(*tensors):
        rows = Rows.of(
            np.array([3, 4]),
            np.array([0, 0]),
            lambda b, width: (torch.tensor([[0, 1, 2, 2], [3, 4, 5, 6]]), np.arange(2)),
            lambda layer, key, value: (key, value),
        )
        leaves = [tensor.clone().requires_grad_() for tensor in tensors]
        output = rows.attend(0, *leaves, sliding_window=window, scaling=0.3)
        output.backward(gradient.to(output.dtype))
        return output.detach(), *(leaf.grad for leaf in leaves)

    for half, exact in zip(attend(query, key, value), attend(query.float(), key.float(), value.float()), strict=True):
        assert half.dtype == torch.bfloat16
        assert (half - exact).norm() < 0.01 * exact.norm()


@pytest.mark.parametrize("kind", MODELS)
def test_calls_without_rows_behave_as_before(kind):
    model = make_model(kind)
    ids, mask = torch.randint(97, (3, 11), generator=torch.Generator().manual_seed(1)), torch.ones(3, 11)
    mask[0, :4] = 0  # padded on the left
    with torch.no_grad():
        before = model(input_ids=ids, attention_mask=mask).logits[:, -1]
        after = use_row_attention(model)(input_ids=ids, attention_mask=mask).logits[:, -1]
    assert torch.allclose(before, after, atol=1e-5)


@pytest.mark.parametrize(
    ("one", "other", "expected"), [([], [1], 0), ([1, 2], [1, 2], 2), ([1, 2, 3], [1, 2, 4], 2), ([1, 2], [1, 2, 3], 2)]
)
def test_the_common_prefix_is_counted(one, other, expected):
    assert shared_prefix(one, other) == shared_prefix(other, one) == expected

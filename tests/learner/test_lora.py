"""LoRA starts as the identity, trains only its adapters, and merges into an equivalent plain model."""

import pytest
import torch
from benchmarks.architectures import make_model as make_architecture
from transformers import GPT2Config, GPT2LMHeadModel

from codots.learner.config import LearnerConfig, LoraConfig
from codots.learner.local import LocalLearner
from codots.learner.lora import adapt, adapters, merged, read_adapter, save_adapter, target_layers
from tests.learner.stepping import gradient_of, step_on
from tests.learner.test_local import flat, make_batch, on_policy, tokens

LORA = LoraConfig(rank=4, alpha=8, targets=("q_proj", "v_proj", "down_proj"))


@pytest.fixture
def learner(make_model):
    return LocalLearner(adapt(make_model(), LORA), LearnerConfig(warmup_steps=0, lr=0.01))


def frozen(model):
    return {name: weight.detach().clone() for name, weight in model.named_parameters() if not weight.requires_grad}


def test_new_adapters_do_not_change_the_output(make_model, learner):
    batch = make_batch()
    assert learner.logprobs(batch) == LocalLearner(make_model(), LearnerConfig()).logprobs(batch)


def test_only_the_adapters_are_trained(learner):
    before, model = frozen(learner.model), learner.model
    start = {name: weight.clone() for name, weight in adapters(model).items()}
    for seed in range(2):
        step_on(learner, on_policy(learner, make_batch(seed=seed)))
    assert all(torch.equal(dict(model.named_parameters())[name], weight) for name, weight in before.items())
    assert all(not torch.equal(adapters(model)[name], weight) for name, weight in start.items())
    assert sum(p.numel() for p in learner.parameters) == sum(weight.numel() for weight in start.values())


def test_the_gradient_is_that_of_the_full_weights_by_the_chain_rule(make_model, learner):
    """d/dA of W + s B A is s B' G, and d/dB is s G A', where G is the gradient of the full weight."""
    with torch.no_grad():
        for name, weight in adapters(learner.model).items():
            if "lora_B" in name:
                weight.normal_(std=0.1, generator=torch.Generator().manual_seed(1))
    batch = make_batch()
    plain = make_model()
    plain.load_state_dict(merged(learner.model))
    whole = LocalLearner(plain, LearnerConfig())
    gradient_of(whole, batch, tokens(batch))
    gradient_of(learner, batch, tokens(batch))
    grads = {name: weight.grad for name, weight in plain.named_parameters()}
    own = dict(learner.model.named_parameters())
    for name in (name for name in own if "lora_A" in name):
        layer, scale = name.partition(".lora_A")[0], LORA.alpha / LORA.rank
        a, b = own[name], own[name.replace("lora_A", "lora_B")]
        g = grads[f"{layer}.weight"]
        for actual, expected in ((a.grad, scale * b.T @ g), (b.grad, scale * g @ a.T)):
            assert (actual - expected).norm() < 1e-3 * expected.norm()


def test_a_merged_model_is_equivalent_without_lora(make_model, learner):
    batch = make_batch()
    step_on(learner, on_policy(learner, batch))
    plain = make_model(seed=3)
    plain.load_state_dict(merged(learner.model))
    for row, other in zip(learner.logprobs(batch), LocalLearner(plain, LearnerConfig()).logprobs(batch), strict=True):
        assert row == pytest.approx(other, abs=1e-4)


def test_saved_adapters_are_loaded_exactly(make_model, learner, tmp_path):
    step_on(learner, on_policy(learner, make_batch()))
    save_adapter(adapters(learner.model), tmp_path)
    again = adapt(make_model(), LORA, seed=5)
    again.load_state_dict(read_adapter(again, tmp_path), strict=False)
    assert torch.equal(flat(again), flat(learner.model))


def test_adapters_of_another_lora_are_rejected(make_model, learner, tmp_path):
    with pytest.raises(ValueError, match="was not trained with LoRA; use model="):
        read_adapter(learner.model, tmp_path)
    save_adapter(adapters(learner.model), tmp_path)
    with pytest.raises(ValueError, match="does not fit this LoRA: its layers or rank differ"):
        read_adapter(adapt(make_model(), LoraConfig(rank=2, alpha=8, targets=LORA.targets)), tmp_path)


def test_an_unknown_layer_is_rejected_with_the_known_ones(make_model):
    with pytest.raises(
        ValueError, match="the model has no layer 'query' for LoRA; expected all-linear or some of down_proj, "
    ):
        adapt(make_model(), LoraConfig(rank=2, alpha=2, targets=("q_proj", "query")))


def test_new_adapters_depend_only_on_the_seed(make_model):
    one, two, other = (flat(adapt(make_model(), LORA, seed)) for seed in (1, 1, 2))
    assert torch.equal(one, two)
    assert not torch.equal(one, other)


def gpt2():
    torch.manual_seed(0)
    return GPT2LMHeadModel(GPT2Config(vocab_size=97, n_embd=32, n_layer=2, n_head=4, n_positions=128)).eval()


def test_every_linear_layer_but_the_output_layer_is_adapted_by_default(make_model):
    for model, expected in (
        (make_model(), {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}),
        (gpt2(), {"c_attn", "c_proj", "c_fc"}),
    ):
        assert {name.rpartition(".")[2] for name in target_layers(model, LoraConfig().targets)} == expected
        adapted = {name.split(".lora_")[0].rpartition(".")[2] for name in adapters(adapt(model, LoraConfig(rank=2)))}
        assert adapted == expected


def test_adapters_of_transposed_layers_merge_into_an_equivalent_model():
    model = adapt(gpt2(), LoraConfig(rank=2, alpha=4))
    generator = torch.Generator().manual_seed(1)
    for weight in adapters(model).values():
        weight.copy_(torch.randn(weight.shape, generator=generator) / 8)
    plain, ids = gpt2(), torch.arange(20)[None]
    untrained = plain(ids).logits
    plain.load_state_dict(merged(model))
    assert torch.allclose(plain(ids).logits, model(ids).logits, atol=1e-5)
    assert not torch.allclose(plain(ids).logits, untrained, atol=1e-2)


def test_routers_of_experts_are_left_alone():
    model = make_architecture("qwen2_moe")
    assert not {name.rpartition(".")[2] for name in target_layers(model, LoraConfig().targets)} & {"gate", "router"}
    assert adapters(adapt(model, LoraConfig(rank=2)))

"""Fast layers have the outputs and gradients of transformers."""

import pytest
import torch

from codots.algorithm.losses import policy_loss
from codots.learner.config import LearnerConfig
from codots.learner.local import LocalLearner
from codots.model.fast_layers import KINDS, SMALL, _Norm, use_fast_layers
from tests.learner.stepping import gradient_of
from tests.model.test_attention import MODELS, make_model, samples

FAST = [kind for kind in MODELS if kind != "gpt2"]


@pytest.mark.parametrize("kind", FAST)
def test_the_gradient_equals_that_of_transformers(kind):
    model, batch = make_model(kind), samples()
    for i, sample in enumerate(batch):
        sample.advantages[:] = [i - 4.0] * len(sample.ids)
    model.zero_grad()
    for sample in batch:
        logits = model(input_ids=torch.tensor([sample.ids])).logits[0, :-1].log_softmax(-1)
        logprobs = logits.gather(1, torch.tensor(sample.ids[1:])[:, None])[:, 0]
        old, advantages = torch.tensor([sample.logprobs[1:], sample.advantages[1:]])
        policy_loss(logprobs, old, advantages, torch.ones_like(old, dtype=torch.bool), normalizer=50)[0].backward()
    expected = torch.cat([parameter.grad.flatten() for parameter in model.parameters()])
    gradient, _ = gradient_of(LocalLearner(model, LearnerConfig()), batch, 50)
    assert all(hasattr(layer, "fast_layer") for layer in model.modules() if type(layer).__name__ in KINDS)
    assert (gradient - expected).norm() < 1e-4 * expected.norm()


def test_the_norm_has_the_gradient_of_torch():
    draw = torch.Generator().manual_seed(0)
    x, weight = (
        torch.randn(*size, generator=draw, dtype=torch.double, requires_grad=True) for size in ((3, 4, 6), (6,))
    )
    expected = torch.nn.functional.rms_norm(x, (6,), weight, 1e-3)
    assert torch.allclose(_Norm.apply(x, weight, 1e-3), expected)
    assert torch.autograd.gradcheck(lambda x, weight: _Norm.apply(x, weight, 1e-3), (x, weight))


@pytest.mark.parametrize("change", ["in place", "through data", "replaced"])
def test_concatenated_weights_follow_those_of_the_model(change):
    model, batch = make_model("qwen3, grouped heads"), samples()
    learner = LocalLearner(model, LearnerConfig())
    before = learner.logprobs(batch)
    other = make_model("qwen3, grouped heads")
    with torch.no_grad():
        for parameter, other_parameter in zip(model.parameters(), other.parameters(), strict=True):
            other_parameter.mul_(1.5)
            if change == "in place":
                parameter.mul_(1.5)
            elif change == "through data":
                parameter.data = parameter * 1.5
    if change == "replaced":
        model.load_state_dict(other.state_dict(), assign=True)
    after = learner.logprobs(batch)
    assert after != before
    assert after == LocalLearner(other, LearnerConfig()).logprobs(batch)


def test_fast_layers_are_installed_once():
    model = make_model("llama")
    once = type(use_fast_layers(model).model.layers[0])
    assert type(use_fast_layers(model).model.layers[0]) is once


def test_weights_of_large_layers_are_not_concatenated():
    model = make_model("llama")
    use_fast_layers(model)
    assert model.model.layers[0].fast_layer.joins
    wide = torch.nn.Linear(SMALL, 1, bias=False)
    model.model.layers[0].mlp.gate_proj = wide
    assert not use_fast_layers(model).model.layers[0].fast_layer.joins

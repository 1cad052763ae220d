"""Models that cannot read packed rows: the learner computes the logprobs and gradient of each sample alone."""

from copy import deepcopy

import pytest
import torch
from benchmarks.architectures import adapted, make_model, own_logprobs

from codots.core.rng import stream
from codots.core.transcript import Sample
from codots.learner.batch import normalizer
from codots.learner.config import LearnerConfig, LoraConfig
from codots.learner.local import LocalLearner
from codots.learner.score import Scorer
from tests.learner.stepping import gradient_of

NAMES = ("qwen3_5_text", "lfm2", "llama4_text", "gptj", "gemma2", "phi3, longrope")
SETTINGS = {
    "defaults": {},
    "checkpointing": {"gradient_checkpointing": True},
    "episode mean, entropy bonus": {"loss": "gspo", "entropy_coef": 0.1},
}


def make_batch(count=5):
    """Draw samples that share their first 6 ids, of 12 to 39 ids."""
    rng, head = stream("alone"), list(range(3, 9))
    batch = []
    for i in range(count):
        ids = head + rng.integers(3, 97, rng.integers(6, 34)).tolist()
        mask = [at > 7 and bool(rng.random() < 0.7) for at in range(len(ids) - 1)] + [True]
        advantages = [(i - 1.5) * sampled for sampled in mask]
        batch.append(Sample(ids, mask, advantages, [0.0] * len(ids), [0] * len(ids)))
    return batch


def on_policy(model, batch):
    """Return the samples with the logprobs of the model's own passes."""
    with torch.no_grad():
        rows = [own_logprobs(model, sample).tolist() for sample in batch]
    return [
        Sample(sample.ids, sample.mask, sample.advantages, row, sample.versions)
        for sample, row in zip(batch, rows, strict=True)
    ]


def plain_loss(model, batch, config):
    """Return the on-policy loss by its definition, from one plain pass per sampled token."""
    total = 0.0
    for sample in batch:
        where = [at for at, sampled in enumerate(sample.mask) if sampled]
        kept = []
        for at in where:
            lines = model(input_ids=torch.tensor([sample.ids[:at]]), use_cache=False).logits[0, -1].log_softmax(-1)
            loss = -sample.advantages[at] * lines[sample.ids[at]]
            kept.append(loss - config.entropy_coef * -(lines.exp() * lines).sum())
        total = total + (torch.stack(kept).mean() if config.by_episode else torch.stack(kept).sum())
    return total / normalizer(batch, config)


@pytest.mark.parametrize("name", NAMES)
def test_logprobs_are_those_of_the_model_alone(name):
    model, batch = make_model(name), make_batch()
    found = Scorer(deepcopy(model), LearnerConfig()).logprobs(batch)
    for row, sample in zip(found, batch, strict=True):
        assert row == pytest.approx(own_logprobs(model, sample).tolist(), abs=1e-4)


@pytest.mark.parametrize("how", SETTINGS)
@pytest.mark.parametrize("name", NAMES)
def test_the_gradient_is_that_of_the_plain_loss(name, how):
    model, config = make_model(name), LearnerConfig(**SETTINGS[how])
    batch = on_policy(model, make_batch())
    learner = LocalLearner(deepcopy(model), config)
    gradient, sums = gradient_of(learner, batch)
    plain_loss(model, batch, config).backward()
    own = [torch.zeros_like(p) if p.grad is None else p.grad for p in model.parameters() if p.requires_grad]
    expected = torch.cat([part.flatten() for part in own])
    assert (gradient - expected).norm() < 1e-4 * expected.norm()
    assert sums["train/logprob_gap_max"] < 1e-4
    assert sums["weight"] == (len(batch) if config.by_episode else sum(sum(sample.mask) for sample in batch))


@pytest.mark.parametrize("name", ["qwen3", *NAMES])
def test_the_adapter_gradient_is_that_of_the_plain_loss(name):
    made = make_model(name)
    lora = LoraConfig(rank=2, alpha=4, targets=("all-linear",))
    config = LearnerConfig(lora=lora, gradient_checkpointing=True)
    plain, model = adapted(deepcopy(made), config), adapted(made, config)
    batch = on_policy(plain, make_batch())
    gradient, _ = gradient_of(LocalLearner(model, config), batch)
    plain_loss(plain, batch, config).backward()
    own = [torch.zeros_like(p) if p.grad is None else p.grad for p in plain.parameters() if p.requires_grad]
    expected = torch.cat([part.flatten() for part in own])
    assert expected.norm() > 0
    assert (gradient - expected).norm() < 1e-4 * expected.norm()


def test_checkpointing_turns_no_dropout_on():
    model = make_model("opt")  # its layers drop out by their own training mode
    batch = on_policy(model, make_batch())
    whole, again = (LocalLearner(deepcopy(model), LearnerConfig(gradient_checkpointing=on)) for on in (False, True))
    expected, _ = gradient_of(whole, batch)
    gradient, sums = gradient_of(again, batch)
    assert sums["train/logprob_gap_max"] < 1e-4
    assert (gradient - expected).norm() < 1e-4 * expected.norm()

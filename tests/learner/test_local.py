"""The local learner takes one optimizer step per batch, for any micro-batches, and none for non-finite numbers."""

from dataclasses import replace

import pytest
import torch

from codots.core.rng import stream
from codots.core.transcript import Sample, Sampled, StopReason, Transcript
from codots.learner.batch import fair_shares, means, micro_batches
from codots.learner.config import LearnerConfig, LoraConfig
from codots.learner.local import LocalLearner
from codots.learner.lora import adapt
from tests.learner.stepping import gradient_of, step_on


def sample_of(rng, advantage, version=0):
    """Draw a sample of one to three turns."""
    transcript = Transcript()
    for _ in range(rng.integers(1, 4)):
        transcript.read(rng.integers(0, 800, rng.integers(1, 12)).tolist())
        ids = rng.integers(0, 800, rng.integers(1, 9)).tolist()
        transcript.wrote(Sampled(ids, (-7 + rng.normal(size=len(ids))).tolist(), StopReason.STOP, [version] * len(ids)))
    return transcript.sample(advantage)


def make_batch(count=9, seed=0):
    rng = stream("batch", seed)
    return [sample_of(rng, float(rng.normal())) for _ in range(count)]


def on_policy(learner, batch):
    """Return the batch with logprobs as if the learner's own weights had sampled it."""
    return [replace(s, logprobs=row) for s, row in zip(batch, learner.logprobs(batch), strict=True)]


def flat(model):
    return torch.cat([parameter.detach().reshape(-1) for parameter in model.parameters()]).clone()


def tokens(batch):
    return sum(sum(sample.mask) for sample in batch)


@pytest.fixture
def learner(model):
    return LocalLearner(model, LearnerConfig(warmup_steps=0))


@pytest.mark.parametrize("budget", [1, 40, 100])
def test_the_micro_batch_budget_does_not_change_the_gradient(make_model, budget):
    batch = make_batch()
    whole, split = (LocalLearner(make_model(), LearnerConfig(max_microbatch_tokens=n)) for n in (10**6, budget))
    expected, sums = gradient_of(whole, batch, tokens(batch))
    gradient, split_sums = gradient_of(split, batch, tokens(batch))
    assert (gradient - expected).norm() < 1e-5 * expected.norm()
    assert split_sums == pytest.approx(sums, rel=1e-4)


def make_prefix_batch(count=12, seed=0):
    """Draw samples of which many share prefixes, some are prefixes of others, and some are equal."""
    rng, batch = stream("family", seed), []
    for sample in make_batch(count, seed):
        other = batch[rng.integers(len(batch))] if batch and rng.random() < 0.7 else sample
        at = int(rng.integers(1, len(other.ids) + 1))
        parts = [getattr(other, name)[:at] + getattr(sample, name)[at:] for name in ("ids", "mask", "logprobs")]
        ids, mask, logprobs = parts
        if not any(mask):
            mask[-1] = True
        advantage = float(rng.normal())
        batch.append(Sample(ids, mask, [advantage * m for m in mask], logprobs, [0] * len(ids)))
    return batch


def distinct_prefixes(batch):
    """Count the ids of the prefix tree by definition: every distinct prefix once, without last ids."""
    return len({tuple(sample.ids[:end]) for sample in batch for end in range(1, len(sample.ids))})


@pytest.mark.parametrize("budget", [1, 40, 100, 10**6])
def test_no_micro_batch_exceeds_the_budget_unless_it_is_one_sample(budget):
    batch = make_prefix_batch(20)
    parts = list(micro_batches(batch, budget))
    for part in parts:
        assert len(part.samples) == 1 or len(part.ids) <= budget
    assert sorted(map(id, batch)) == sorted(id(sample) for part in parts for sample in part.samples)
    assert list(micro_batches([], budget)) == []


@pytest.mark.parametrize("seed", range(5))
def test_shared_prefixes_are_computed_once_without_padding(seed):
    batch = make_prefix_batch(seed=seed)
    (whole,) = micro_batches(batch, 10**6)
    assert len(whole.ids) == distinct_prefixes(batch) < sum(len(sample.ids) - 1 for sample in batch)
    for sample, nodes in zip(whole.samples, whole.nodes, strict=True):
        assert [whole.ids[node] for node in nodes] == sample.ids[:-1]


@pytest.mark.parametrize("n", [1, 2, 3])
def test_shares_are_balanced_and_complete(n):
    batch = make_prefix_batch(30)
    shares = fair_shares(batch, n)
    assert sorted(map(id, batch)) == sorted(id(sample) for share in shares for sample in share)
    ids = [sum(len(part.ids) for part in micro_batches(share, 10**6)) for share in shares]
    assert max(ids) - min(ids) <= 2 * max(len(sample.ids) for sample in batch)


@pytest.mark.parametrize("draw", [make_batch, make_prefix_batch])
def test_the_gradient_equals_the_definition(learner, model, draw):
    """On policy, the loss is the token mean of -A log pi."""
    batch = on_policy(learner, draw())
    gradient = gradient_of(learner, batch, tokens(batch))[0]
    model.zero_grad()
    for sample in batch:
        logprobs = model(input_ids=torch.tensor([sample.ids]), use_cache=False).logits[0, :-1].log_softmax(-1)
        for at in (at for at, sampled in enumerate(sample.mask) if sampled):
            (-sample.advantages[at] * logprobs[at - 1, sample.ids[at]] / tokens(batch)).backward(retain_graph=True)
    slow = torch.cat([parameter.grad.reshape(-1) for parameter in model.parameters()])
    assert (gradient - slow).norm() < 1e-5 * slow.norm()


def test_shares_of_a_batch_add_up_to_its_gradient(learner):
    batch = make_batch()
    whole = gradient_of(learner, batch, tokens(batch))[0]
    shares = sum(gradient_of(learner, batch[i::3], tokens(batch))[0] for i in range(3))
    assert (shares - whole).norm() < 1e-5 * whole.norm()


def test_a_sample_without_advantage_adds_only_its_tokens_to_the_mean(learner):
    batch, idle = make_batch(5), [sample_of(stream("idle", i), 0.0) for i in range(3)]
    alone = gradient_of(learner, batch, tokens(batch))[0]
    among, _ = gradient_of(learner, batch + idle, tokens(batch + idle))
    assert (among * tokens(batch + idle) - alone * tokens(batch)).norm() < 1e-5 * alone.norm() * tokens(batch)


@pytest.mark.parametrize("budget", [1, 10**6])
def test_a_step_is_one_optimizer_step(make_model, budget, monkeypatch):
    learner, calls = LocalLearner(make_model(), LearnerConfig(max_microbatch_tokens=budget)), []
    step = learner.optimizer.step
    monkeypatch.setattr(learner.optimizer, "step", lambda: calls.append(step()))
    before = flat(learner.model)
    step_on(learner, make_batch())
    assert len(calls) == learner.steps == 1
    assert not torch.equal(flat(learner.model), before)


def test_a_step_makes_good_episodes_more_likely_and_bad_ones_less_likely(learner):
    rng = stream("direction")
    good, bad = on_policy(learner, [sample_of(rng, 1.0), sample_of(rng, -1.0)])
    step_on(learner, [good, bad])
    now = learner.logprobs([good, bad])
    assert sum(now[0]) > sum(good.logprobs)
    assert sum(now[1]) < sum(bad.logprobs)


def test_the_learning_rate_warms_up_and_decays(make_model):
    batch = make_batch(1)
    constant = LocalLearner(make_model(), LearnerConfig(lr=0.001, warmup_steps=4))
    assert [step_on(constant, batch)["train/lr"] for _ in range(6)] == pytest.approx(
        [0.00025, 0.0005, 0.00075, 0.001, 0.001, 0.001]
    )
    decaying = LocalLearner(make_model(), LearnerConfig(lr=0.001, warmup_steps=0, min_lr_ratio=0.5), total_steps=4)
    assert [step_on(decaying, batch)["train/lr"] for _ in range(4)] == pytest.approx(
        [0.001, 0.000875, 0.00075, 0.000625]
    )


def test_the_gradient_is_clipped_and_its_unclipped_norm_reported(make_model):
    batch = [replace(sample, advantages=[1000 * a for a in sample.advantages]) for sample in make_batch()]
    learner = LocalLearner(make_model(), LearnerConfig(max_grad_norm=0.5))
    metrics = step_on(learner, batch)
    clipped = torch.cat([parameter.grad.reshape(-1) for parameter in learner.parameters]).norm()
    assert metrics["train/grad_norm"] > 1
    assert clipped == pytest.approx(0.5, rel=1e-4)


@pytest.mark.parametrize("field", ["advantages", "logprobs"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_non_finite_number_raises_before_the_weights_change(learner, model, field, value):
    batch, before = make_batch(), flat(model)
    numbers = list(getattr(batch[4], field))
    numbers[batch[4].mask.index(True)] = value
    with pytest.raises(FloatingPointError):
        step_on(learner, [*batch[:4], replace(batch[4], **{field: numbers}), *batch[5:]])
    assert torch.equal(flat(model), before)
    assert learner.steps == 0
    assert all(value == value and abs(value) < float("inf") for value in step_on(learner, batch).values())


def test_a_non_finite_gradient_raises_before_the_weights_change(learner, model):
    before = flat(model)
    learner.forward_backward([], 1)
    bad = torch.zeros_like(before)
    bad[3] = float("nan")
    learner.add_gradient(bad)
    with pytest.raises(FloatingPointError, match="the gradient of step 1 is not finite; the weights are unchanged"):
        learner.optim_step()
    assert torch.equal(flat(model), before)
    assert learner.steps == 0


def test_every_step_has_the_same_finite_metrics(learner):
    idle = [sample_of(stream("idle", i), 0.0) for i in range(3)]
    names = set(step_on(learner, make_batch()))
    assert {"train/loss", "train/entropy", "train/grad_norm", "train/lr", "train/clip_fraction"} < names
    for batch in (idle, make_batch(1)):
        metrics = step_on(learner, batch)
        assert set(metrics) == names
        assert all(value == value and abs(value) < float("inf") for value in metrics.values())


def test_logprobs_equal_a_plain_forward_pass_in_the_order_of_the_batch(make_model):
    batch = make_batch()
    model = make_model()
    for row, sample in zip(
        LocalLearner(model, LearnerConfig(max_microbatch_tokens=60)).logprobs(batch), batch, strict=True
    ):
        with torch.no_grad():
            full = model(input_ids=torch.tensor([sample.ids]), use_cache=False).logits[0].log_softmax(-1)
        assert len(row) == len(sample.ids)
        for at, sampled in enumerate(sample.mask):
            expected = full[at - 1, sample.ids[at]].item() if sampled else 0.0
            assert row[at] == pytest.approx(expected, abs=1e-4)


def test_the_logprob_gap_to_the_sampler_is_reported(learner):
    batch = on_policy(learner, make_batch())
    assert step_on(learner, batch)["train/logprob_gap_max"] < 1e-4
    drifted = [replace(s, logprobs=[p + 0.25 for p in s.logprobs]) for s in on_policy(learner, batch)]
    metrics = step_on(learner, drifted)
    assert metrics["train/logprob_gap"] == pytest.approx(0.25, abs=1e-3)
    assert metrics["train/logprob_gap_max"] == pytest.approx(0.25, abs=1e-3)


def test_a_loaded_learner_continues_bit_for_bit(make_model, tmp_path):
    settings = LearnerConfig(warmup_steps=3)
    through, first = LocalLearner(make_model(), settings), LocalLearner(make_model(), settings)
    for seed in range(4):
        step_on(through, make_batch(seed=seed))
    for seed in range(2):
        step_on(first, make_batch(seed=seed))
    first.save(tmp_path)
    second = LocalLearner(make_model(seed=7), settings)
    second.model.load_state_dict(first.state())
    second.load(tmp_path)
    for seed in range(2, 4):
        step_on(second, make_batch(seed=seed))
    assert second.steps == through.steps == 4
    assert torch.equal(flat(second.model), flat(through.model))


def test_a_model_that_transforms_its_logits_is_scored_by_its_own_forward(make_model):
    class ScaledLogits(torch.nn.Module):
        """Divides its logits after the output layer, as some model families do."""

        def __init__(self, inner):
            super().__init__()
            self.inner, self.base_model = inner, inner.base_model
            self.config, self.device = inner.config, inner.device
            self.set_attn_implementation = inner.set_attn_implementation

        def get_output_embeddings(self):
            return self.inner.get_output_embeddings()

        def forward(self, *args, **kwargs):
            output = self.inner(*args, **kwargs)
            output.logits = output.logits / 2
            return output

    model, sample = ScaledLogits(make_model()), make_batch(1)[0]
    at = sample.mask.index(True)
    with torch.no_grad():
        full = model(input_ids=torch.tensor([sample.ids]), use_cache=False).logits[0].log_softmax(-1)
    row = LocalLearner(model, LearnerConfig()).logprobs([sample])[0]
    assert row[at] == pytest.approx(full[at - 1, sample.ids[at]].item(), abs=1e-4)


def test_a_step_does_not_modify_its_samples(learner):
    sample = make_batch(1)[0]
    copy = Sample(
        list(sample.ids), list(sample.mask), list(sample.advantages), list(sample.logprobs), list(sample.versions)
    )
    step_on(learner, [sample])
    assert sample == copy


def test_gradients_accumulate_until_the_step(make_model):
    """Two calls are one batch, a step resets the gradient, and a dropped gradient has no effect."""
    batch, (once, twice) = make_batch(), (LocalLearner(make_model(), LearnerConfig(warmup_steps=0)) for _ in range(2))
    n = tokens(batch)
    once.forward_backward(batch, n)
    twice.forward_backward(make_batch(seed=1), n)
    twice.zero_grad()
    for half in (batch[:4], batch[4:]):
        twice.forward_backward(half, n)
    assert twice.optim_step() == pytest.approx(once.optim_step(), rel=1e-5)
    assert (flat(once.model) - flat(twice.model)).abs().max() < 1e-6
    with pytest.raises(RuntimeError, match="there is no gradient: call forward_backward before optim_step"):
        twice.optim_step()
    assert (step_on(twice, batch), twice.steps) == (pytest.approx(step_on(once, batch), rel=1e-4), 2)


def scored(model, sample, temperature=1.0):
    """Return the logprob and entropy of each sampled token by definition, with gradients."""
    logits = model(input_ids=torch.tensor([sample.ids]), use_cache=False).logits[0, :-1]
    logprobs = (logits / temperature).log_softmax(-1)
    at = [i for i, sampled in enumerate(sample.mask) if sampled]
    chosen = torch.stack([logprobs[i - 1, sample.ids[i]] for i in at])
    return chosen, torch.stack([-(logprobs[i - 1].exp() * logprobs[i - 1]).sum() for i in at]), at


@pytest.mark.parametrize("budget", [1, 10**6])
def test_the_kl_penalty_and_the_entropy_bonus_equal_the_definition(make_model, budget):
    """Token means of 0.5 (log pi - log ref)^2 and of the entropy; both apply to samples without advantage, too."""
    config = LearnerConfig(max_microbatch_tokens=budget, loss="reinforce", kl_coef=0.3, entropy_coef=0.2)
    learner = LocalLearner(make_model(), config)
    batch = [*make_batch(6), sample_of(stream("idle"), 0.0)]
    batch = [replace(s, ref_logprobs=[p + 0.1 * i for i, p in enumerate(s.logprobs)]) for s in batch]
    found, sums = gradient_of(learner, batch)
    model, n, kl, entropies = make_model(), tokens(batch), 0.0, 0.0
    for sample in batch:
        logprobs, entropy, at = scored(model, sample)
        ref = torch.tensor([sample.ref_logprobs[i] for i in at])
        k2 = 0.5 * (logprobs - ref) ** 2
        (-(sample.advantages[at[0]] * logprobs - 0.3 * k2 + 0.2 * entropy).sum() / n).backward()
        kl, entropies = kl + k2.sum().item(), entropies + entropy.sum().item()
    slow = torch.cat([parameter.grad.reshape(-1) for parameter in model.parameters()])
    assert (found - slow).norm() < 1e-4 * slow.norm()
    metrics = means([sums])
    assert metrics["train/ref_kl"] == pytest.approx(kl / n, rel=1e-3)
    assert metrics["train/entropy"] == pytest.approx(entropies / n, rel=1e-3)


@pytest.mark.parametrize("budget", [1, 40, 10**6])
def test_gspo_averages_over_episodes_for_any_micro_batches(make_model, budget):
    """The mean over episodes of the mean over tokens of s A log pi, with s the geometric mean of the ratios."""
    config = LearnerConfig(max_microbatch_tokens=budget, loss="gspo", eps_low=0.9, eps_high=9.0)
    learner = LocalLearner(make_model(), config)
    batch = [
        replace(s, logprobs=[p - 0.02 * i for i, p in enumerate(s.logprobs)]) for s in on_policy(learner, make_batch())
    ]
    found, sums = gradient_of(learner, batch)
    model = make_model()
    for sample in batch:
        logprobs, _, at = scored(model, sample)
        old = torch.tensor([sample.logprobs[i] for i in at])
        ratio = (logprobs - old).mean().exp().detach()
        (-ratio * sample.advantages[at[0]] * logprobs.mean() / len(batch)).backward()
    slow = torch.cat([parameter.grad.reshape(-1) for parameter in model.parameters()])
    assert (found - slow).norm() < 1e-4 * slow.norm()
    assert sums["weight"] == len(batch)
    assert means([sums])["train/clip_fraction"] == 0


def test_a_kl_penalty_without_reference_logprobs_raises(make_model):
    learner = LocalLearner(make_model(), LearnerConfig(kl_coef=0.1))
    with pytest.raises(ValueError, match="kl_coef needs ref_logprobs, which 9 of 9 samples lack"):
        learner.forward_backward(make_batch(), 100)


KINDS = {
    "plain": {},
    "checkpointed": {"gradient_checkpointing": True},
    "adapted": {"lora": LoraConfig(rank=2, alpha=4)},
}


@pytest.mark.parametrize("whole_forward", [False, True], ids=["head", "forward"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("temperature", [0.3, 0.7, 1.3])
def test_the_gradient_at_a_temperature_equals_the_definition(make_model, monkeypatch, temperature, kind, whole_forward):
    """Logprobs, their KL penalty and the entropy are those of softmax(logits / temperature)."""
    monkeypatch.setattr("codots.learner.score.PIECE", 7)
    if whole_forward:
        monkeypatch.setattr(LocalLearner, "_plain_head", lambda self: None)
    config = LearnerConfig(max_microbatch_tokens=60, loss="reinforce", kl_coef=0.3, entropy_coef=0.2, **KINDS[kind])
    models = [adapt(make_model(), config.lora) if config.lora else make_model() for _ in range(2)]
    learner, model = LocalLearner(models[0], config, temperature=temperature), models[1]
    batch = on_policy(learner, make_batch(6))
    batch = [replace(s, ref_logprobs=[p + 0.1 * i for i, p in enumerate(s.logprobs)]) for s in batch]
    found, sums = gradient_of(learner, batch)
    n, entropies, gap = tokens(batch), 0.0, 0.0
    for sample in batch:
        logprobs, entropy, at = scored(model, sample, temperature)
        k2 = 0.5 * (logprobs - torch.tensor([sample.ref_logprobs[i] for i in at])) ** 2
        (-(sample.advantages[at[0]] * logprobs - 0.3 * k2 + 0.2 * entropy).sum() / n).backward()
        entropies += entropy.sum().item()
        gap = max(gap, (logprobs.detach() - torch.tensor([sample.logprobs[i] for i in at])).abs().max().item())
    slow = torch.cat([parameter.grad.reshape(-1) for parameter in model.parameters() if parameter.requires_grad])
    assert gap < 1e-3
    assert (found - slow).norm() < 1e-4 * slow.norm()
    assert means([sums])["train/entropy"] == pytest.approx(entropies / n, rel=1e-3)
    assert sums["train/logprob_gap_max"] < 1e-4
    assert sums["train/clip_fraction"] == 0


def test_temperature_one_and_greedy_score_alike_bit_for_bit(make_model):
    """A greedy sampler returns the logprobs of temperature 1."""
    batch = make_batch()
    (one, sums), *others = (
        gradient_of(LocalLearner(make_model(), LearnerConfig(), **how), batch)
        for how in ({}, {"temperature": 1}, {"temperature": 0})
    )
    for gradient, other_sums in others:
        assert torch.equal(gradient, one)
        assert other_sums == sums

"""Updates are in full precision for half-precision models; gradient checkpointing only saves memory."""

import pytest
import torch

from codots.learner import local, score
from codots.learner.config import LearnerConfig
from codots.learner.local import LocalLearner, masters_of
from tests.learner.stepping import gradient_of, step_on
from tests.learner.test_local import flat, make_batch, on_policy, tokens


def half(make_model, **settings):
    return LocalLearner(make_model().to(torch.bfloat16), LearnerConfig(warmup_steps=0, **settings))


def test_steps_too_small_for_half_precision_add_up(make_model):
    learner = half(make_model, lr=1e-5)
    rows = [flat(learner.model)]
    for seed in range(8):
        step_on(learner, on_policy(learner, make_batch(seed=seed)))
        rows.append(flat(learner.model))
    masters = [master.detach() for master in learner.masters]
    assert all(master.dtype == torch.float32 for master in masters)
    assert all(p.dtype == torch.bfloat16 for p in learner.parameters)
    assert all(torch.equal(p, m.to(torch.bfloat16)) for p, m in zip(learner.parameters, masters, strict=True))
    after_one = (rows[1] != rows[0]).float().mean()
    after_eight = (rows[8] != rows[0]).float().mean()
    assert after_eight > 2 * after_one  # most single updates are rounded away and show up later


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_an_update_of_any_size_moves_half_precision_weights_by_its_mean(dtype):
    weight = (0.05 * torch.randn(1_000_000, generator=torch.Generator().manual_seed(7))).to(dtype)
    weight[:6] = torch.tensor([0.0, 0.0625, -0.5, 1.0, 1e-4, -(2.0**-14)])  # also zero and powers of two
    (master,) = masters_of([weight])
    assert torch.equal(master.to(dtype), weight)
    for update in (1e-6, -1e-5, 1e-4):
        moved = (master + update).to(dtype).float() - weight.float()
        assert moved.mean().item() == pytest.approx(update, rel=0.1)
    assert torch.equal(masters_of([weight])[0], master)


def test_full_precision_weights_are_their_own_masters():
    weight = torch.randn(8)
    assert masters_of([weight])[0] is weight


def test_half_precision_gradients_are_accumulated_in_full_precision(make_model):
    batch = make_batch(12)
    learner = half(make_model, max_microbatch_tokens=1)
    gradient = gradient_of(learner, batch, tokens(batch))[0]
    one_by_one = sum(gradient_of(learner, [sample], tokens(batch))[0].double() for sample in batch)
    assert gradient.dtype == torch.float32
    assert (gradient - one_by_one).norm() < 1e-6 * one_by_one.norm()


@pytest.mark.parametrize("fused", [False, True])
def test_a_loaded_half_precision_learner_continues_bit_for_bit(make_model, tmp_path, monkeypatch, fused):
    monkeypatch.setattr(local, "FUSED", 0 if fused else 10**9)
    through, first = half(make_model, lr=1e-4), half(make_model, lr=1e-4)
    batches = [make_batch(seed=seed) for seed in range(4)]
    for batch in batches:
        step_on(through, batch)
    for batch in batches[:2]:
        step_on(first, batch)
    first.save(tmp_path)
    second = LocalLearner(make_model(seed=7).to(torch.bfloat16), first.config)
    second.model.load_state_dict(first.state())
    second.load(tmp_path)
    for batch in batches[2:]:
        step_on(second, batch)
    assert torch.equal(second.flat_weights(), through.flat_weights())
    assert torch.equal(flat(second.model), flat(through.model))


def test_the_fused_optimizer_takes_the_same_step_and_the_model_uses_its_weights(make_model, monkeypatch):
    batch, learners = make_batch(), []
    for least in (10**9, 0):
        monkeypatch.setattr(local, "FUSED", least)
        learner = LocalLearner(make_model(), LearnerConfig(warmup_steps=0))
        before = learner.logprobs(batch)  # layers keep what they computed from their weights
        step_on(learner, batch)
        assert learner.logprobs(batch) != before
        learners.append(learner)
    plain, fused = learners
    assert [learner.optimizer.param_groups[0]["fused"] for learner in learners] == [False, True]
    assert torch.allclose(plain.flat_weights(), fused.flat_weights(), rtol=1e-6, atol=1e-8)
    for one, other in zip(plain.logprobs(batch), fused.logprobs(batch), strict=True):
        assert one == pytest.approx(other, abs=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_gradient_checkpointing_gives_the_same_gradient(make_model, dtype, monkeypatch):
    monkeypatch.setattr(score, "PIECE", 7)
    batch = make_batch()
    plain, checkpointed = (
        LocalLearner(make_model().to(dtype), LearnerConfig(gradient_checkpointing=recompute))
        for recompute in (False, True)
    )
    expected, sums = gradient_of(plain, batch, tokens(batch))
    gradient, same = gradient_of(checkpointed, batch, tokens(batch))
    assert (gradient - expected).norm() <= (1e-6 if dtype == torch.float32 else 2e-2) * expected.norm()
    assert same == pytest.approx(sums, rel=1e-3)


def test_gradient_checkpointing_keeps_less(make_model):
    """Count the tensors that autograd holds between forward and backward."""
    batch, held = make_batch(12), []
    for recompute in (False, True):
        learner, kept = LocalLearner(make_model(), LearnerConfig(gradient_checkpointing=recompute)), {}

        def keep(tensor, kept=kept):
            kept[tensor.data_ptr()] = tensor.numel()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), learner._saving_memory():
            (part,) = score.micro_batches(batch, 10**6)
            learner._score(part)
        held.append(sum(kept.values()))
    assert held[1] < held[0] / 3


def test_layers_are_in_training_mode_only_during_a_pass(make_model):
    learner = LocalLearner(make_model(), LearnerConfig(gradient_checkpointing=True))
    step_on(learner, make_batch())
    assert not any(module.training for module in learner.model.modules())

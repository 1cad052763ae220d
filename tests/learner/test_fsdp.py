"""Learners that each hold a part of a model train it as one learner would, whatever their number and their shares."""

from dataclasses import replace

import pytest
import torch
import torch.distributed as dist

from codots.learner.batch import normalizer
from codots.learner.config import LearnerConfig
from codots.learner.fsdp import ShardedLearner, ShardedScorer, check_layers
from codots.learner.local import LocalLearner
from codots.learner.lora import adapt
from codots.learner.score import Scorer
from tests.learner.sharded import run
from tests.learner.stepping import step_on
from tests.learner.test_local import flat, make_batch, on_policy

SETTINGS = {"warmup_steps": 0, "max_microbatch_tokens": 60}


@pytest.fixture
def group():
    """A process group of this process alone."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def split(batch, n):
    """Return uneven shares of a batch; one of three is empty."""
    return {1: [batch], 2: [batch[:7], batch[7:]], 3: [batch[:4], [], batch[4:]]}[n]


def local(model, batch, **settings):
    """Train a model for three steps in this process; return the learner and the gradients."""
    learner, gradients = LocalLearner(model, LearnerConfig(**SETTINGS | settings)), []
    for _ in range(3):
        learner.forward_backward(batch, normalizer(batch, learner.config))
        gradients.append(learner._gradient.clone())
        learner.optim_step()
    return learner, gradients


def is_near(gradient, expected, bound=1e-6):
    return (gradient - expected).norm() < bound * expected.norm()


@pytest.mark.parametrize("recompute", [False, True])
def test_one_sharded_learner_is_a_local_learner(group, make_model, recompute, tmp_path):
    settings = SETTINGS | {"gradient_checkpointing": recompute}
    learner, batch = ShardedLearner(make_model(), LearnerConfig(**settings)), make_batch()
    expected, _ = local(make_model(), batch, gradient_checkpointing=recompute)
    for _ in range(3):
        step_on(learner, batch)
    torch.testing.assert_close(learner.flat_weights(), flat(expected.model), rtol=0, atol=1e-6)
    for row, other in zip(learner.logprobs(batch), expected.logprobs(batch), strict=True):
        assert row == pytest.approx(other, rel=1e-6, abs=1e-5)


@pytest.mark.parametrize("half", [False, True])
def test_a_checkpoint_continues_on_a_local_learner_and_back(group, make_model, half, tmp_path):
    def make():
        return make_model(seed=1).to(torch.bfloat16) if half else make_model(seed=1)

    config, batch = LearnerConfig(**SETTINGS), make_batch()
    sharded, whole = ShardedLearner(make(), config), LocalLearner(make(), config)
    for name, learner, other in (("a", sharded, whole), ("b", whole, ShardedLearner(make(), config))):
        (tmp_path / name).mkdir()
        step_on(learner, batch)
        learner.save(tmp_path / name)
        other.set_state({key: weight.clone() for key, weight in learner.state().items()})
        other.load(tmp_path / name)
        assert other.steps == learner.steps
        assert torch.equal(other.flat_weights(), learner.flat_weights())
        states = [list(one.optimizer.state.values()) for one in (learner, other)]
        for one, two in zip(*states, strict=True):
            for key in ("step", "exp_avg", "exp_avg_sq"):
                assert torch.equal(*(getattr(x[key], "full_tensor", lambda x=x, k=key: x[k])() for x in (one, two)))


def test_a_checkpoint_of_another_model_is_one_line(group, make_model, tmp_path):
    ShardedLearner(make_model(), LearnerConfig()).save(tmp_path)
    model = adapt(make_model(), LearnerConfig(lora={"rank": 2}).lora)
    for other in (LocalLearner(model, LearnerConfig()), ShardedLearner(model, LearnerConfig())):
        with pytest.raises(ValueError, match=r"optimiser is of another model or precision: .* has the shape \("):
            other.load(tmp_path)


def test_a_step_without_any_advantage_is_taken_as_by_a_local_learner(group, make_model):
    batch = [replace(sample, advantages=[0.0] * len(sample.ids)) for sample in make_batch()]
    for kind in (LocalLearner, ShardedLearner):
        learner = kind(make_model(), LearnerConfig(**SETTINGS))
        assert step_on(learner, batch)["train/grad_norm"] == 0
        assert learner.steps == 1


def test_a_checkpoint_in_full_precision_is_loaded_in_half_precision(group, make_model, tmp_path):
    first = LocalLearner(make_model(), LearnerConfig(**SETTINGS))
    step_on(first, make_batch())
    first.save(tmp_path)
    second = ShardedLearner(make_model().to(torch.bfloat16), LearnerConfig(**SETTINGS))
    second.load(tmp_path)
    assert second.steps == 1


def test_buffers_keep_their_precision_in_a_checkpoint(group, make_model):
    model = make_model().to(torch.bfloat16)
    model.register_buffer("scale", torch.tensor(1.00123))
    state = ShardedLearner(model, LearnerConfig(**SETTINGS)).state()
    assert state["scale"] == torch.tensor(1.00123)
    assert {weight.dtype for name, weight in state.items() if name != "scale"} == {torch.bfloat16}


def test_a_model_without_layers_is_one_line():
    with pytest.raises(ValueError, match=r"^Linear has no layers that FSDP could shard; expected engine.learners=1$"):
        check_layers(torch.nn.Linear(2, 2))


def test_a_non_finite_number_leaves_the_weights_unchanged(group, make_model):
    learner, batch = ShardedLearner(make_model(), LearnerConfig(**SETTINGS)), make_batch()
    before = learner.flat_weights()
    batch[3] = replace(batch[3], advantages=[float("nan")] * len(batch[3].ids))
    with pytest.raises(FloatingPointError, match="the weights are unchanged"):
        step_on(learner, batch)
    learner.zero_grad()
    with pytest.raises(RuntimeError, match="there is no gradient"):
        learner.optim_step()
    assert torch.equal(learner.flat_weights(), before)


def test_a_frozen_model_is_scored_as_a_whole_one(group, make_model):
    batch, config = make_batch(), LearnerConfig(**SETTINGS)
    whole = Scorer(make_model(), config).logprobs(batch)
    for row, other in zip(
        ShardedScorer(make_model().requires_grad_(False), config).logprobs(batch), whole, strict=True
    ):
        assert row == pytest.approx(other, rel=1e-6, abs=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("n", [2, 3])
def test_learners_with_uneven_and_empty_shares_have_the_gradient_of_one(make_model, tmp_path, n):
    batch = make_batch()
    expected, gradients = local(make_model(), batch)
    found = run(tmp_path / "run", make_model(), split(batch, n), SETTINGS)
    assert all(map(is_near, found["gradients"], gradients))
    torch.testing.assert_close(found["weights"], flat(expected.model), rtol=0, atol=1e-6)


@pytest.mark.slow
def test_a_checkpoint_of_two_learners_has_equal_logprobs_on_one_three_and_the_local_learner(make_model, tmp_path):
    batch = make_batch()
    two = run(tmp_path / "two", make_model(), split(batch, 2), SETTINGS)
    for n in (1, 3):
        found = run(tmp_path / str(n), make_model(seed=5), split(batch, n), SETTINGS, load=tmp_path / "two")
        assert torch.equal(found["weights"], two["weights"])
        for row, other in zip(found["logprobs"], two["logprobs"], strict=True):
            assert row == pytest.approx(other, rel=1e-6, abs=1e-6)
    alone = LocalLearner(make_model(seed=5), LearnerConfig(**SETTINGS))
    alone.set_state(two["state"])
    alone.load(tmp_path / "two")
    for row, other in zip(alone.logprobs(batch), two["logprobs"], strict=True):
        assert row == pytest.approx(other, rel=1e-6, abs=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("half", [False, True])
def test_two_learners_train_adapters_as_one(make_model, tmp_path, half):
    settings = SETTINGS | {"lora": {"rank": 2}}
    model = make_model().to(torch.bfloat16) if half else make_model()
    alone = LocalLearner(adapt(model, LearnerConfig(**settings).lora), LearnerConfig(**settings))
    batch = on_policy(alone, make_batch())
    for _ in range(3):
        step_on(alone, batch)
    found = run(tmp_path / "run", make_model(), split(batch, 2), settings, half)
    assert len(found["weights"]) == alone.size
    torch.testing.assert_close(found["weights"], alone.flat_weights(), rtol=0, atol=2e-3 if half else 1e-6)


@pytest.mark.slow
def test_two_learners_in_half_precision_stay_near_one(make_model, tmp_path):
    batch = make_batch()
    _, gradients = local(make_model().to(torch.bfloat16), batch)
    found = run(tmp_path / "run", make_model(), split(batch, 2), SETTINGS, half=True)
    assert is_near(found["gradients"][0], gradients[0], 0.02)

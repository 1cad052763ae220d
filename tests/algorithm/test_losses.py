"""Each policy loss equals a slow reference, and micro-batches add up to the batch."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from codots.algorithm.losses import LOSSES, LossParams, choose, policy_loss

repeatable = settings(derandomize=True, max_examples=30, deadline=None, database=None)
seeds = st.integers(0, 10_000)
every_kind = pytest.mark.parametrize("kind", LOSSES)
both_aggregations = pytest.mark.parametrize("aggregation", ["token-mean", "episode-mean"])


def batch(seed, episodes=6, drift=1.0):
    """Draw a packed batch in float64 whose ratios are on all sides of every clip."""
    rng = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, 8, (episodes,), generator=rng)
    segments = torch.repeat_interleave(torch.randperm(50, generator=rng)[:episodes], lengths)

    def normal():
        return torch.randn(len(segments), generator=rng, dtype=torch.float64)

    old = -normal().abs() - 0.1
    return {
        "logprobs": (old + drift * normal() * torch.rand(len(segments), generator=rng)).requires_grad_(),
        "old_logprobs": old,
        "advantages": normal().sign() * torch.randint(0, 3, (len(segments),), generator=rng),
        "mask": torch.rand(len(segments), generator=rng) < 0.7,
        "segments": segments,
        "ref_logprobs": old + 0.3 * normal(),
    }


def gradient(tensors, kind, **choices):
    """Return the gradient of the loss with respect to the log-probabilities."""
    loss, _ = policy_loss(**tensors, kind=kind, **choices)
    return torch.autograd.grad(loss, tensors["logprobs"])[0]


def part(tensors, rows):
    return {name: tensor[rows] for name, tensor in tensors.items()}


def count(tensors, aggregation):
    """Return the number of trained tokens of a batch, or of episodes with any; at least 1."""
    trained = tensors["segments"][tensors["mask"]]
    return max(len(trained if aggregation == "token-mean" else trained.unique()), 1)


def slow_push(kind, rho, A, c):
    """Return w * A * M of one token by definition, and whether it is kept."""
    inside = 1 - c.eps_low <= rho <= 1 + c.eps_high
    one_side = (A >= 0 and rho <= 1 + c.eps_high) or (A <= 0 and rho >= 1 - c.eps_low)
    ring = inside or (A >= 0 and rho <= 1 - c.eps_low_ring) or (A <= 0 and rho >= 1 + c.eps_high_ring)
    keep, weight = {
        "rec-oneside-nois": (one_side, 1),
        "rec-twoside-nois": (inside, 1),
        "rec-ring-nois": (ring, 1),
        "rec-oneside-is": (one_side, rho),
        "rec-oneside-tis": (one_side, min(max(rho, c.tis_floor), c.tis_cap)),
        "reinforce": (True, 1),
        "tis": (True, min(max(rho, c.tis_floor), c.tis_cap)),
        "cispo": (True, min(max(rho, 1 - c.eps_low), 1 + c.eps_high)),
        "grpo": (one_side, rho),
        "ppo": (one_side, rho),
        "gspo": (one_side, rho),
    }[kind]
    return (weight * A if keep else 0.0), keep


def slow_loss(tensors, kind, c):
    """Return loss, gradient by token and metrics, token by token in plain Python."""
    rows = {name: tensor.tolist() for name, tensor in tensors.items()}
    trained = [t for t, on in enumerate(rows["mask"]) if on]
    mates = {t: [u for u in trained if rows["segments"][u] == rows["segments"][t]] for t in trained}
    share = {t: 1 / len(mates[t]) if c.aggregation == "episode-mean" else 1.0 for t in trained}
    N = max(sum(share.values()), 1)
    drift = {t: rows["logprobs"][t] - rows["old_logprobs"][t] for t in trained}
    loss, slope = 0.0, [0.0] * len(rows["mask"])
    names = ("clip_fraction", "gated_fraction", "ratio_mean", "ratio_max", "kl", "ref_kl")
    metrics = dict.fromkeys([f"loss/{name}" for name in names], 0.0)
    for t in trained:
        A, logp, beyond = rows["advantages"][t], rows["logprobs"][t], rows["logprobs"][t] - rows["ref_logprobs"][t]
        rho = math.exp(sum(drift[u] for u in mates[t]) / len(mates[t]) if kind == "gspo" else drift[t])
        push, keep = slow_push(kind, rho, A, c)
        gain = push * logp
        if kind in ("grpo", "ppo"):
            gain = min(rho * A, min(max(rho, 1 - c.eps_low), 1 + c.eps_high) * A)
        if gated := not 1 / c.max_ratio <= rho <= c.max_ratio:
            gain = push = 0.0
        loss += share[t] / N * (-gain + c.kl_coef * 0.5 * beyond**2)
        slope[t] = share[t] / N * (-push + c.kl_coef * beyond)
        metrics["loss/clip_fraction"] += share[t] / N * (gated or not keep)
        metrics["loss/gated_fraction"] += share[t] / N * gated
        metrics["loss/ratio_mean"] += share[t] / N * rho
        metrics["loss/ratio_max"] = max(metrics["loss/ratio_max"], rho)
        metrics["loss/kl"] += share[t] / N * (math.exp(drift[t]) - 1 - drift[t])
        metrics["loss/ref_kl"] += share[t] / N * 0.5 * beyond**2
    return loss, slope, metrics


@every_kind
@both_aggregations
@repeatable
@given(seed=seeds, kl_coef=st.sampled_from([0.0, 0.3]), tight=st.booleans())
def test_every_loss_equals_a_slow_reference(kind, aggregation, seed, kl_coef, tight):
    tensors = batch(seed)
    choices = {"aggregation": aggregation, "kl_coef": kl_coef}
    choices |= {"eps_low": 0.1, "tis_cap": 1.5, "max_ratio": 1.2} if tight else {}
    loss, metrics = policy_loss(**tensors, kind=kind, **choices)
    slow, slope, slow_metrics = slow_loss(tensors, kind, replace(LOSSES[kind].defaults, **choices))
    assert loss.item() == pytest.approx(slow, rel=1e-9, abs=1e-12)
    assert gradient(tensors, kind, **choices).tolist() == pytest.approx(slope, rel=1e-9, abs=1e-12)
    assert {name: value.item() for name, value in metrics.items()} == pytest.approx(slow_metrics, rel=1e-9, abs=1e-12)


@every_kind
@both_aggregations
@repeatable
@given(seed=seeds, cuts=st.integers(1, 4))
def test_micro_batches_add_up_to_the_batch(kind, aggregation, seed, cuts):
    tensors = batch(seed)
    choices = {"aggregation": aggregation, "kl_coef": 0.1, "normalizer": count(tensors, aggregation)}
    whole, whole_metrics = policy_loss(**tensors, kind=kind, **choices)
    expected = torch.autograd.grad(whole, tensors["logprobs"])[0]

    by_token = aggregation == "token-mean" and not LOSSES[kind].by_episode
    unit = torch.arange(len(tensors["mask"])) if by_token else tensors["segments"].unique(return_inverse=True)[1]
    part_of = torch.randint(0, cuts, (len(unit),), generator=torch.Generator().manual_seed(seed))[unit]
    parts = [part(tensors, part_of == m) for m in range(cuts) if (part_of == m).any()]
    outputs = [policy_loss(**rows, kind=kind, **choices) for rows in parts]
    total = sum(loss for loss, _ in outputs)
    got = torch.autograd.grad(total, tensors["logprobs"])[0]
    assert (got - expected).norm() <= 1e-6 * expected.norm()
    assert total.item() == pytest.approx(whole.item(), rel=1e-6, abs=1e-12)
    for name, value in whole_metrics.items():
        values = [metrics[name].item() for _, metrics in outputs]
        joined = max(values) if name == "loss/ratio_max" else sum(values)
        assert joined == pytest.approx(value.item(), rel=1e-6, abs=1e-12)


@every_kind
@both_aggregations
def test_the_default_normalizer_is_the_number_of_tokens_or_episodes(kind, aggregation):
    tensors = batch(3)
    own, _ = policy_loss(**tensors, kind=kind, aggregation=aggregation)
    given, _ = policy_loss(**tensors, kind=kind, aggregation=aggregation, normalizer=count(tensors, aggregation))
    torch.testing.assert_close(own, given)


@pytest.mark.parametrize("kind", ["grpo", "ppo"])
@repeatable
@given(seed=seeds)
def test_the_classical_clip_has_the_gradient_of_rec_oneside_is(kind, seed):
    tensors = batch(seed)
    torch.testing.assert_close(gradient(tensors, kind), gradient(tensors, "rec-oneside-is"))


@every_kind
@repeatable
@given(seed=seeds)
def test_on_policy_every_loss_has_the_gradient_of_reinforce(kind, seed):
    tensors = batch(seed, drift=0.0)
    choices = {"aggregation": LOSSES[kind].defaults.aggregation}
    torch.testing.assert_close(gradient(tensors, kind), gradient(tensors, "reinforce", **choices))
    metrics = policy_loss(**tensors, kind=kind)[1]
    assert metrics["loss/clip_fraction"] == 0
    assert metrics["loss/kl"] == pytest.approx(0, abs=1e-12)


def test_reinforce_is_minus_the_mean_of_advantage_times_log_probability():
    tensors = batch(1)
    on = tensors["mask"]
    loss, _ = policy_loss(**tensors, kind="reinforce")
    torch.testing.assert_close(loss, -(tensors["advantages"] * tensors["logprobs"])[on].mean())


@every_kind
@both_aggregations
@pytest.mark.parametrize("garbage", [math.nan, math.inf, -math.inf])
def test_values_outside_the_mask_do_not_reach_loss_or_gradient(kind, aggregation, garbage):
    clean = batch(5)
    dirty = {name: tensor.detach().clone() for name, tensor in clean.items()}
    for name in ("logprobs", "old_logprobs", "advantages", "ref_logprobs"):
        dirty[name][~dirty["mask"]] = garbage
    dirty["logprobs"].requires_grad_()
    choices = {"aggregation": aggregation, "kl_coef": 0.1}
    assert policy_loss(**dirty, kind=kind, **choices) == policy_loss(**clean, kind=kind, **choices)
    slope = gradient(dirty, kind, **choices)
    torch.testing.assert_close(slope, gradient(clean, kind, **choices))
    assert (slope[~dirty["mask"]] == 0).all()


@every_kind
def test_a_call_without_a_trained_token_is_zero(kind):
    tensors = batch(0) | {"mask": torch.zeros(len(batch(0)["mask"]), dtype=torch.bool)}
    loss, metrics = policy_loss(**tensors, kind=kind, kl_coef=0.1)
    assert loss == 0
    assert all(value == 0 for value in metrics.values())
    assert (gradient(tensors, kind, kl_coef=0.1) == 0).all()


def test_a_dropped_token_whose_ratio_overflows_stays_dropped():
    logprobs = torch.tensor([0.0, 0.0], requires_grad=True)
    old, on = torch.tensor([-200.0, 0.0]), torch.tensor([True, True])
    loss, _ = policy_loss(logprobs, old, torch.tensor([1.0, 1.0]), on, "rec-oneside-is")
    assert torch.autograd.grad(loss, logprobs)[0].tolist() == [0.0, -0.5]


@every_kind
def test_only_the_log_probabilities_receive_a_gradient_and_metrics_carry_none(kind):
    tensors = batch(2)
    others = ("old_logprobs", "advantages", "ref_logprobs")
    for name in others:
        tensors[name].requires_grad_()
    loss, metrics = policy_loss(**tensors, kind=kind, kl_coef=0.1)
    loss.backward()
    assert all(tensors[name].grad is None for name in others)
    assert not any(value.requires_grad or value.ndim for value in metrics.values())


@every_kind
def test_any_shape_gives_the_loss_of_the_packed_tokens(kind):
    tensors = part(batch(4), slice(0, 12))
    folded = {name: tensor.reshape(3, 4) for name, tensor in tensors.items()}
    torch.testing.assert_close(policy_loss(**folded, kind=kind), policy_loss(**tensors, kind=kind))


def test_gspo_follows_the_mean_drift_of_an_episode_not_that_of_a_token():
    old, on = torch.zeros(4), torch.ones(4, dtype=torch.bool)
    logprobs = torch.tensor([0.5, -0.5, 0.5, 0.5], requires_grad=True)  # the mean drift of the first episode is 0
    loss, metrics = policy_loss(logprobs, old, torch.ones(4), on, "gspo", segments=torch.tensor([7, 7, 3, 3]))
    assert torch.autograd.grad(loss, logprobs)[0].tolist() == [-0.25, -0.25, 0.0, 0.0]
    assert metrics["loss/clip_fraction"] == 0.5


def test_the_reference_penalty_pulls_back_to_the_reference():
    tensors = batch(6) | {"advantages": torch.zeros_like(batch(6)["advantages"])}
    gap = (tensors["logprobs"] - tensors["ref_logprobs"]).detach()
    expected = 0.2 * torch.where(tensors["mask"], gap, 0.0) / tensors["mask"].sum()
    torch.testing.assert_close(gradient(tensors, "rec-oneside-nois", kl_coef=0.2), expected)


def test_missing_inputs_are_one_line_errors():
    tensors = batch(0)
    without = {name: tensor for name, tensor in tensors.items() if name not in ("segments", "ref_logprobs")}
    for choices in ({"kind": "gspo"}, {"aggregation": "episode-mean"}):
        with pytest.raises(ValueError, match="need segments: the episode index of each token"):
            policy_loss(**without, **choices)
    with pytest.raises(ValueError, match="kl_coef needs ref_logprobs"):
        policy_loss(**without, kl_coef=0.1)
    with pytest.raises(ValueError, match="mask must be bool"):
        policy_loss(**without | {"mask": without["mask"].float()})
    with pytest.raises(ValueError, match=r"advantages has shape \(1,\), but logprobs \(\d+,\)"):
        policy_loss(**without | {"advantages": torch.ones(1)})


@pytest.mark.parametrize(
    ("choices", "line"),
    [
        ({"kind": "rec-one-side-nois"}, "unknown loss 'rec-one-side-nois'; .* the nearest is 'rec-oneside-nois'"),
        ({"epsilon_low": 0.1}, "unknown loss parameter 'epsilon_low'; .* the nearest is 'eps_low'"),
        ({"aggregation": "tokens"}, "unknown aggregation 'tokens'; .* the nearest is 'token-mean'"),
    ],
)
def test_an_unknown_name_is_a_one_line_error_with_the_nearest(choices, line):
    with pytest.raises(ValueError, match=line) as error:
        policy_loss(**batch(0), **choices)
    assert "\n" not in str(error.value)


def test_defaults_are_those_of_the_papers():
    assert choose("rec-oneside-nois")[1] == LossParams(eps_low=0.2, eps_high=0.2, kl_coef=0.0, aggregation="token-mean")
    assert choose("rec-ring-nois")[1] == LossParams(eps_low_ring=0.6, eps_high_ring=2.0)
    assert choose("gspo")[1] == LossParams(eps_low=3e-4, eps_high=4e-4, aggregation="episode-mean")
    tensors = batch(7)
    assert policy_loss(**tensors) == policy_loss(**tensors, kind="rec-oneside-nois")

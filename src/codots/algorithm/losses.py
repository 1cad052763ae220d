"""Policy-gradient losses with clipping and importance weights.

With the ratio rho = pi / pi_old, a clip mask M and a weight w, all detached, the loss is -(1/N) sum w A M log pi over
the trained tokens. A kind of loss combines a clip and a weight. "grpo" and "ppo" name the same loss, which has the
classical clipped form and the gradient of "rec-oneside-is".
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from codots.core.suggest import check_known

AGGREGATIONS = ("token-mean", "episode-mean")


@dataclass(frozen=True)
class LossParams:
    """Parameters of a loss. Keyword arguments of `policy_loss` override fields by name."""

    aggregation: str = "token-mean"  # equal weight per token, or ("episode-mean") per episode
    eps_low: float = 0.2  # lower end of the trusted range of rho, 1 - eps_low
    eps_high: float = 0.2  # upper end, 1 + eps_high
    eps_low_ring: float = 0.6  # the ring also keeps tokens with positive advantage below 1 - eps_low_ring
    eps_high_ring: float = 2.0  # and tokens with negative advantage above 1 + eps_high_ring
    tis_floor: float = 0.4  # lower bound of a truncated weight
    tis_cap: float = 3.0  # upper bound of a truncated weight
    max_ratio: float = math.inf  # the gate drops tokens with a ratio above this, or below its inverse
    kl_coef: float = 0.0  # weight of the KL penalty to the reference policy
    entropy_coef: float = 0.0  # weight of the entropy bonus


@dataclass(frozen=True)
class PolicyLoss:
    """A kind of loss: a clip, a weight and default parameters."""

    clip: Callable[[Tensor, Tensor, LossParams], Tensor]
    weight: Callable[[Tensor, LossParams], Tensor]
    by_episode: bool = False
    """Whether all tokens of an episode share one ratio."""
    classical: bool = False
    """Whether the loss has the classical clipped form, which ignores the weight."""
    defaults: LossParams = LossParams()


def policy_loss(
    logprobs: Tensor,
    old_logprobs: Tensor,
    advantages: Tensor,
    mask: Tensor,
    kind: str = "rec-oneside-nois",
    *,
    normalizer: float | Tensor | None = None,
    segments: Tensor | None = None,
    ref_logprobs: Tensor | None = None,
    entropy: Tensor | None = None,
    **overrides: Any,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the loss to minimize and its metrics; only `logprobs` and `entropy` receive a gradient.

    All tensors have shape (N,) for N packed tokens, or any other common shape, and are float32 or wider. `mask` is bool
    and True where a token is trained; values of other tokens are ignored. `segments` holds the episode index of each
    token. "gspo" and "episode-mean" need `segments`, and all tokens of an episode in one call. `entropy` holds the
    entropy of the policy at each token, in nats; `entropy_coef` times its mean is subtracted from the loss.

    The sum over tokens is divided by `normalizer`: the number of trained tokens (with "episode-mean", of episodes) in
    the WHOLE batch, or any other constant. None uses the number in this call. With the same normalizer for all
    micro-batches, their losses, gradients and metrics add up to those of the batch. The exception is `loss/ratio_max`:
    take the maximum over the micro-batches.

    Metrics, detached scalars: `loss/clip_fraction` (tokens that the clip or the gate dropped), `loss/gated_fraction`
    (tokens that the gate `max_ratio` dropped), `loss/ratio_mean`, `loss/ratio_max`, `loss/kl` (k3 estimate of the KL
    divergence of the old policy from the new one), `loss/ref_kl` (K2, if `ref_logprobs` is given) and `loss/entropy`
    (if `entropy` is given). Raises ValueError for unknown names, missing inputs or mismatched shapes. Source: REC,
    arXiv 2509.24203; GRPO, arXiv 2402.03300; GSPO, arXiv 2507.18071; CISPO, arXiv 2506.13585.
    """
    rule, params = choose(kind, **overrides)
    given = {"old_logprobs": old_logprobs, "advantages": advantages, "ref_logprobs": ref_logprobs, "segments": segments}
    _check(logprobs.shape, mask, **given, entropy=entropy)
    if params.entropy_coef and entropy is None:
        raise ValueError("entropy_coef needs entropy: the policy's entropy at each token")
    if params.kl_coef and ref_logprobs is None:
        raise ValueError("kl_coef needs ref_logprobs: the reference policy's log-probability of each token")

    # Fill with zeros instead of multiplying by the mask: NaN or inf outside it must not reach loss or gradient.
    logprobs = logprobs.masked_fill(~mask, 0.0)
    old_logprobs = old_logprobs.detach().masked_fill(~mask, 0.0)
    advantages = advantages.detach().masked_fill(~mask, 0.0)
    trained = mask.to(logprobs.dtype)
    share = trained if params.aggregation == "token-mean" else trained / episode_sum(trained, segments).clamp(min=1)
    normalizer = share.sum().clamp(min=1) if normalizer is None else normalizer

    def total(values: Tensor) -> Tensor:
        return (share * values).sum() / normalizer

    log_ratio = logprobs - old_logprobs
    ratio = (episode_mean(log_ratio, trained, segments) if rule.by_episode else log_ratio).exp()
    gain, kept = surrogate(rule, params, logprobs, ratio, advantages)
    trusted = gate(ratio.detach(), params)
    loss = -total(gain.where(trusted, 0.0))
    metrics = {
        "loss/clip_fraction": total(~(kept & trusted)),
        "loss/gated_fraction": total(~trusted),
        "loss/ratio_mean": total(ratio),
        "loss/ratio_max": ratio.masked_fill(~mask, 0.0).max(),
        "loss/kl": total(log_ratio.exp() - 1 - log_ratio),
    }
    if ref_logprobs is not None:
        metrics["loss/ref_kl"] = total(k2(logprobs, ref_logprobs.detach().masked_fill(~mask, 0.0)))
        loss = loss + params.kl_coef * metrics["loss/ref_kl"]
    if entropy is not None:
        metrics["loss/entropy"] = total(entropy.masked_fill(~mask, 0.0))
        loss = loss - params.entropy_coef * metrics["loss/entropy"]
    return loss, {name: value.detach() for name, value in metrics.items()}


def surrogate(
    rule: PolicyLoss, c: LossParams, logprobs: Tensor, ratio: Tensor, advantages: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the objective of each token, to be maximized, and whether the clip kept the token.

    Inputs have any common shape; the results have the same shape.
    """
    kept = rule.clip(ratio.detach(), advantages, c)
    if rule.classical:
        clipped = ratio.clamp(1 - c.eps_low, 1 + c.eps_high)
        return torch.minimum(ratio * advantages, clipped * advantages), kept
    push = rule.weight(ratio.detach(), c) * advantages
    return push.where(kept, 0.0) * logprobs, kept  # `where`, since the weight of a dropped token may overflow


def gate(ratio: Tensor, c: LossParams) -> Tensor:
    """Return whether each ratio is in [1 / max_ratio, max_ratio], in the shape of the ratio.

    Tokens outside are dropped whatever their advantage: sampler and learner disagree too much for the ratio to correct.
    Source: IcePop (masked importance sampling), which drops tokens by the ratio of training and inference.
    """
    return (ratio <= c.max_ratio) & (ratio >= 1 / c.max_ratio)


def choose(kind: str, /, **overrides: Any) -> tuple[PolicyLoss, LossParams]:
    """Return the loss and its parameters with these overrides. Raises ValueError for unknown names."""
    check_known(kind, LOSSES, "loss")
    for name in overrides:
        check_known(name, (field.name for field in fields(LossParams)), "loss parameter")
    params = replace(LOSSES[kind].defaults, **overrides)
    check_known(params.aggregation, AGGREGATIONS, "aggregation")
    return LOSSES[kind], params


def _check(shape: torch.Size, mask: Tensor, **others: Tensor | None) -> None:
    if mask.dtype != torch.bool:
        raise ValueError(f"mask must be bool, got {mask.dtype}")
    for name, tensor in {"mask": mask, **others}.items():
        if tensor is not None and tensor.shape != shape:
            raise ValueError(f"{name} has shape {tuple(tensor.shape)}, but logprobs {tuple(shape)}")


# Clips select the tokens to keep: (ratio, advantages, params) -> bool, all of one shape. Source: REC, arXiv 2509.24203.


def keep_all(ratio: Tensor, advantages: Tensor, c: LossParams) -> Tensor:
    """Keep every token."""
    return torch.ones_like(ratio, dtype=torch.bool)


def one_side(ratio: Tensor, advantages: Tensor, c: LossParams) -> Tensor:
    """Drop tokens whose ratio has moved too far in the direction of their advantage.

    These are tokens with a positive advantage and a ratio above 1 + eps_high, and tokens with a negative advantage and
    a ratio below 1 - eps_low.
    """
    return ((advantages >= 0) & (ratio <= 1 + c.eps_high)) | ((advantages <= 0) & (ratio >= 1 - c.eps_low))


def two_side(ratio: Tensor, advantages: Tensor, c: LossParams) -> Tensor:
    """Drop every token whose ratio is outside [1 - eps_low, 1 + eps_high]."""
    return (ratio >= 1 - c.eps_low) & (ratio <= 1 + c.eps_high)


def ring(ratio: Tensor, advantages: Tensor, c: LossParams) -> Tensor:
    """Keep the tokens that `two_side` keeps, and some tokens with ratios further from 1.

    These are tokens with a positive advantage and a ratio of at most 1 - eps_low_ring, and tokens with a negative
    advantage and a ratio of at least 1 + eps_high_ring.
    """
    fell, rose = ratio <= 1 - c.eps_low_ring, ratio >= 1 + c.eps_high_ring
    return two_side(ratio, advantages, c) | ((advantages >= 0) & fell) | ((advantages <= 0) & rose)


# Weights of the kept tokens: (ratio, params) -> weight, both of one shape.


def no_is(ratio: Tensor, c: LossParams) -> Tensor:
    """Weight every token by 1: no importance sampling."""
    return torch.ones_like(ratio)


def full_is(ratio: Tensor, c: LossParams) -> Tensor:
    """Weight each token by its ratio."""
    return ratio


def truncated_is(ratio: Tensor, c: LossParams) -> Tensor:
    """Weight each token by its ratio, clamped to [tis_floor, tis_cap]."""
    return ratio.clamp(c.tis_floor, c.tis_cap)


def clipped_is(ratio: Tensor, c: LossParams) -> Tensor:
    """Weight each token by its ratio, clamped to [1 - eps_low, 1 + eps_high]. Source: CISPO, arXiv 2506.13585."""
    return ratio.clamp(1 - c.eps_low, 1 + c.eps_high)


GSPO = LossParams("episode-mean", eps_low=3e-4, eps_high=4e-4)
TIS = LossParams(tis_floor=0.0, tis_cap=2.0)
CISPO = LossParams(eps_low=1.0, eps_high=4.0)  # no lower bound, and at most 5 as in ScaleRL, arXiv 2510.13786
LOSSES = {
    "rec-oneside-nois": PolicyLoss(one_side, no_is),  # the loss of the paper
    "rec-twoside-nois": PolicyLoss(two_side, no_is),
    "rec-ring-nois": PolicyLoss(ring, no_is),
    "rec-oneside-is": PolicyLoss(one_side, full_is),
    "rec-oneside-tis": PolicyLoss(one_side, truncated_is),
    "reinforce": PolicyLoss(keep_all, no_is),
    "tis": PolicyLoss(keep_all, truncated_is, defaults=TIS),  # truncated importance sampling
    "cispo": PolicyLoss(keep_all, clipped_is, defaults=CISPO),
    "grpo": PolicyLoss(one_side, full_is, classical=True),
    "ppo": PolicyLoss(one_side, full_is, classical=True),
    "gspo": PolicyLoss(one_side, full_is, by_episode=True, defaults=GSPO),
}


def episode_mean(values: Tensor, trained: Tensor, segments: Tensor | None) -> Tensor:
    """Return for each token the mean of `values` over the trained tokens of the token's episode.

    `values` and `trained` must be 0 for tokens that are not trained.
    """
    return episode_sum(values, segments) / episode_sum(trained, segments).clamp(min=1)


def episode_sum(values: Tensor, segments: Tensor | None) -> Tensor:
    """Return for each token the sum of `values` over the token's episode.

    Any shape; the result has the shape of the input.
    """
    if segments is None:
        raise ValueError("gspo and episode-mean need segments: the episode index of each token")
    index = torch.unique(segments, return_inverse=True)[1]
    return values.new_zeros(values.numel()).index_add(0, index.flatten(), values.flatten())[index]


def k2(logprobs: Tensor, ref_logprobs: Tensor) -> Tensor:
    """Return the K2 estimate of the KL divergence of each token: 0.5 (log pi - log pi_ref)^2, in any shape."""
    return 0.5 * (logprobs - ref_logprobs) ** 2

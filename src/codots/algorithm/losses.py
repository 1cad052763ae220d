"""Policy losses: how far to follow each sampled token, given its advantage and how the policy has moved since.

With the ratio rho = pi / pi_old, a clip mask M and a weight w, all free of gradient, the loss is
-(1/N) sum w A M log pi over the trained tokens. A kind is a clip and a weight; "grpo" and "ppo" are one loss, which
writes the clip the classical way and has the gradient of "rec-oneside-is".
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from codots.core.suggest import check_known

AGGREGATIONS = ("token-mean", "episode-mean")


@dataclass(frozen=True)
class LossParams:
    """What a kind leaves open; `policy_loss` overrides any field by its name."""

    aggregation: str = "token-mean"  # every token weighs the same, or ("episode-mean") every episode
    eps_low: float = 0.2  # rho is trusted from 1 - eps_low
    eps_high: float = 0.2  # to 1 + eps_high
    eps_low_ring: float = 0.6  # the ring also keeps good tokens up to 1 - eps_low_ring
    eps_high_ring: float = 2.0  # and bad ones from 1 + eps_high_ring
    tis_floor: float = 0.4  # a truncated weight is max(rho, tis_floor)
    tis_cap: float = 3.0  # and min(rho, tis_cap)
    kl_coef: float = 0.0  # the penalty on leaving the reference policy
    entropy_coef: float = 0.0  # the bonus on the policy's own entropy


@dataclass(frozen=True)
class PolicyLoss:
    """One loss: which tokens it keeps, how it weighs them, whether an episode shares one ratio, its own defaults."""

    clip: Callable[[Tensor, Tensor, LossParams], Tensor]
    weight: Callable[[Tensor, LossParams], Tensor]
    by_episode: bool = False
    classical: bool = False
    defaults: LossParams = LossParams()


def policy_loss(
    logprobs: Tensor,
    old_logprobs: Tensor,
    advantages: Tensor,
    mask: Tensor,
    kind: str = "rec-oneside-nois",
    *,
    normaliser: float | Tensor | None = None,
    segments: Tensor | None = None,
    ref_logprobs: Tensor | None = None,
    entropy: Tensor | None = None,
    **choices: Any,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the loss to minimise and its metrics; only `logprobs` and `entropy` receive a gradient.

    Shapes: all tensors (N,) of packed tokens, or any one shape, float32 or wider; mask is bool, True where a token is
    trained, and what lies outside it may be anything. `segments` holds the episode index of each token: "gspo" and
    "episode-mean" need it, and need all tokens of an episode in one call. `entropy` is the policy's at each token, in
    nats: `entropy_coef` times its mean is subtracted from the loss.

    `normaliser` is what the sum is divided by: the trained tokens (under "episode-mean", the episodes) of the WHOLE
    batch, or any other constant; None counts those of this call. With one normaliser for all its micro-batches, their
    losses, gradients and metrics add up to the batch's; of `loss/ratio_max` alone one takes the maximum.

    Metrics, detached and without dimension: `loss/clip_fraction`, `loss/ratio_mean`, `loss/ratio_max`, `loss/kl` (of
    the old policy from the new, k3), given a reference `loss/ref_kl` (K2) and given an entropy `loss/entropy`. Raises
    ValueError for what is unknown, missing or of another shape. Source: REC, arXiv 2509.24203; GRPO, arXiv 2402.03300;
    GSPO, arXiv 2507.18071.
    """
    rule, chosen = choose(kind, **choices)
    given = {"old_logprobs": old_logprobs, "advantages": advantages, "ref_logprobs": ref_logprobs, "segments": segments}
    _check(logprobs.shape, mask, **given, entropy=entropy)
    if chosen.entropy_coef and entropy is None:
        raise ValueError("entropy_coef needs entropy: the policy's entropy at each token")
    if chosen.kl_coef and ref_logprobs is None:
        raise ValueError("kl_coef needs ref_logprobs: the reference policy's log-probability of each token")

    # Zeros, not a product with the mask, outside it: garbage there must reach neither the loss nor a gradient.
    logprobs = logprobs.masked_fill(~mask, 0.0)
    old_logprobs = old_logprobs.detach().masked_fill(~mask, 0.0)
    advantages = advantages.detach().masked_fill(~mask, 0.0)
    trained = mask.to(logprobs.dtype)
    share = trained if chosen.aggregation == "token-mean" else trained / episode_sum(trained, segments).clamp(min=1)
    normaliser = share.sum().clamp(min=1) if normaliser is None else normaliser

    def total(values: Tensor) -> Tensor:
        return (share * values).sum() / normaliser

    log_ratio = logprobs - old_logprobs
    ratio = (episode_mean(log_ratio, trained, segments) if rule.by_episode else log_ratio).exp()
    gain, kept = surrogate(rule, chosen, logprobs, ratio, advantages)
    loss = -total(gain)
    metrics = {
        "loss/clip_fraction": total(~kept),
        "loss/ratio_mean": total(ratio),
        "loss/ratio_max": ratio.masked_fill(~mask, 0.0).max(),
        "loss/kl": total(log_ratio.exp() - 1 - log_ratio),
    }
    if ref_logprobs is not None:
        metrics["loss/ref_kl"] = total(k2(logprobs, ref_logprobs.detach().masked_fill(~mask, 0.0)))
        loss = loss + chosen.kl_coef * metrics["loss/ref_kl"]
    if entropy is not None:
        metrics["loss/entropy"] = total(entropy.masked_fill(~mask, 0.0))
        loss = loss - chosen.entropy_coef * metrics["loss/entropy"]
    return loss, {name: value.detach() for name, value in metrics.items()}


def surrogate(
    rule: PolicyLoss, c: LossParams, logprobs: Tensor, ratio: Tensor, advantages: Tensor
) -> tuple[Tensor, Tensor]:
    """Return what each token gains, to be maximised, and whether the clip kept it, any shape."""
    kept = rule.clip(ratio.detach(), advantages, c)
    if rule.classical:
        clipped = ratio.clamp(1 - c.eps_low, 1 + c.eps_high)
        return torch.minimum(ratio * advantages, clipped * advantages), kept
    push = rule.weight(ratio.detach(), c) * advantages
    return push.where(kept, 0.0) * logprobs, kept  # `where`: the weight of a dropped token may have overflowed


def choose(kind: str, /, **choices: Any) -> tuple[PolicyLoss, LossParams]:
    """Return the kind and its defaults with these choices in their place; ValueError names what is unknown."""
    check_known(kind, LOSSES, "kind")
    for name in choices:
        check_known(name, (field.name for field in fields(LossParams)), "choice")
    chosen = replace(LOSSES[kind].defaults, **choices)
    check_known(chosen.aggregation, AGGREGATIONS, "aggregation")
    return LOSSES[kind], chosen


def _check(shape: torch.Size, mask: Tensor, **others: Tensor | None) -> None:
    if mask.dtype != torch.bool:
        raise ValueError(f"mask must be bool, got {mask.dtype}")
    for name, tensor in {"mask": mask, **others}.items():
        if tensor is not None and tensor.shape != shape:
            raise ValueError(f"{name} has shape {tuple(tensor.shape)}, but logprobs {tuple(shape)}")


# Which tokens a kind keeps: (ratio, advantage, choices) -> bool, any shape. Source: REC, arXiv 2509.24203.


def keep_all(ratio: Tensor, advantages: Tensor, c: LossParams) -> Tensor:
    """Keep every token."""
    return torch.ones_like(ratio, dtype=torch.bool)


def one_side(ratio: Tensor, advantages: Tensor, c: LossParams) -> Tensor:
    """Drop good tokens that have already risen enough and bad ones that have already fallen enough."""
    return ((advantages >= 0) & (ratio <= 1 + c.eps_high)) | ((advantages <= 0) & (ratio >= 1 - c.eps_low))


def two_side(ratio: Tensor, advantages: Tensor, c: LossParams) -> Tensor:
    """Drop every token whose ratio left the trusted region, on either side."""
    return (ratio >= 1 - c.eps_low) & (ratio <= 1 + c.eps_high)


def ring(ratio: Tensor, advantages: Tensor, c: LossParams) -> Tensor:
    """Keep the two-side region, and far outside it good tokens that fell and bad tokens that rose."""
    fell, rose = ratio <= 1 - c.eps_low_ring, ratio >= 1 + c.eps_high_ring
    return two_side(ratio, advantages, c) | ((advantages >= 0) & fell) | ((advantages <= 0) & rose)


# How a kind weighs the tokens it keeps: (ratio, choices) -> weight, any shape.


def no_is(ratio: Tensor, c: LossParams) -> Tensor:
    """Weigh every token 1, importance sampling left out."""
    return torch.ones_like(ratio)


def full_is(ratio: Tensor, c: LossParams) -> Tensor:
    """Weigh each token by its ratio."""
    return ratio


def truncated_is(ratio: Tensor, c: LossParams) -> Tensor:
    """Weigh each token by its ratio, held between tis_floor and tis_cap."""
    return ratio.clamp(c.tis_floor, c.tis_cap)


GSPO = LossParams("episode-mean", eps_low=3e-4, eps_high=4e-4)
LOSSES = {
    "rec-oneside-nois": PolicyLoss(one_side, no_is),  # the paper's
    "rec-twoside-nois": PolicyLoss(two_side, no_is),
    "rec-ring-nois": PolicyLoss(ring, no_is),
    "rec-oneside-is": PolicyLoss(one_side, full_is),
    "rec-oneside-tis": PolicyLoss(one_side, truncated_is),
    "reinforce": PolicyLoss(keep_all, no_is),
    "grpo": PolicyLoss(one_side, full_is, classical=True),
    "ppo": PolicyLoss(one_side, full_is, classical=True),
    "gspo": PolicyLoss(one_side, full_is, by_episode=True, defaults=GSPO),
}


def episode_mean(values: Tensor, trained: Tensor, segments: Tensor | None) -> Tensor:
    """Give each token the mean over the trained tokens of its episode, any shape; both are 0 where not trained."""
    return episode_sum(values, segments) / episode_sum(trained, segments).clamp(min=1)


def episode_sum(values: Tensor, segments: Tensor | None) -> Tensor:
    """Give each token the sum of the values over its episode, any shape."""
    if segments is None:
        raise ValueError("gspo and episode-mean need segments: the episode index of each token")
    index = torch.unique(segments, return_inverse=True)[1]
    return values.new_zeros(values.numel()).index_add(0, index.flatten(), values.flatten())[index]


def k2(logprobs: Tensor, ref_logprobs: Tensor) -> Tensor:
    """Estimate the divergence from the reference by 0.5 (log pi - log pi_ref)^2 per token, any shape (K2)."""
    return 0.5 * (logprobs - ref_logprobs) ** 2

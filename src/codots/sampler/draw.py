"""Sampling of token ids by the inverse of the cumulative distribution."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import pad

BLOCK = 256
"""Number of ids that are searched at once."""
ONE_SEARCH = 4096
"""Largest vocabulary that is searched without blocks."""


def inverse_cdf(probabilities_BV: Tensor, draws_B: Sequence[float]) -> Tensor:
    """Return for each row the first id whose cumulative probability exceeds the row's draw from [0, 1), (B,).

    Rows need not add up to 1. A large vocabulary is searched in blocks, since a cumulative sum over all of it takes
    longer than a pass of a small model.
    """
    device = probabilities_BV.device
    fine = torch.float32 if device.type == "mps" else torch.float64  # MPS has no float64
    draws_B1 = torch.tensor(draws_B, dtype=fine, device=device)[:, None]
    if probabilities_BV.shape[1] <= ONE_SEARCH:
        cumulative_BV = probabilities_BV.cumsum(-1, dtype=fine)
        return _first_above(cumulative_BV, draws_B1 * cumulative_BV[:, -1:])[:, 0]
    blocks = pad(probabilities_BV, (0, -probabilities_BV.shape[1] % BLOCK)).view(len(draws_B), -1, BLOCK)
    sums = blocks.sum(-1).to(fine)
    ends = sums.cumsum(-1)
    targets_B1 = draws_B1 * ends[:, -1:]
    at_B1 = _first_above(ends, targets_B1)
    inside = blocks.gather(1, at_B1[:, :, None].expand(-1, -1, BLOCK))[:, 0].cumsum(-1, dtype=fine)
    return (at_B1 * BLOCK + _first_above(inside, targets_B1 - (ends - sums).gather(1, at_B1)))[:, 0]


def _first_above(cumulative: Tensor, targets: Tensor) -> Tensor:
    """Return the index of the first number above the target, or of the first maximum if rounding has left none."""
    below = torch.nextafter(cumulative[:, -1:], torch.zeros_like(targets))
    found = torch.searchsorted(cumulative, torch.minimum(targets, below), right=True)
    return found.clamp_(max=cumulative.shape[1] - 1)  # for numbers that are not finite

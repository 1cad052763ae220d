"""An id is drawn with its probability, in vocabularies of any size."""

import math

import numpy as np
import pytest
import torch

from codots.core.rng import stream
from codots.sampler.draw import ONE_SEARCH, inverse_cdf


@pytest.mark.parametrize("vocabulary", [1, 7, 300, ONE_SEARCH, ONE_SEARCH + 1, 49152])
def test_the_drawn_id_is_that_of_a_plain_search(vocabulary):
    rng = stream("draw", vocabulary)
    probabilities = rng.exponential(size=(20, vocabulary)) ** 4 * rng.integers(0, 2, (20, vocabulary))
    probabilities[:, rng.integers(vocabulary)] += 1e-3  # at least one id can be drawn
    draws = [0.0, *rng.random(18).tolist(), math.nextafter(1.0, 0.0)]
    single = torch.tensor(probabilities, dtype=torch.float32)
    found = inverse_cdf(single, draws).tolist()
    for row, draw, id in zip(single.double().numpy(), draws, found, strict=True):
        assert row[id] > 0
        ends = np.cumsum(row) / row.sum()
        assert ends[id] - row[id] / row.sum() - 1e-6 <= draw < ends[id] + 1e-6


def test_an_id_without_probability_is_never_drawn():
    probabilities = torch.zeros(3, 49152)
    probabilities[0, 0] = probabilities[1, 49151] = probabilities[2, 30000] = 1e-30
    for draw in (0.0, 0.5, math.nextafter(1.0, 0.0)):
        assert inverse_cdf(probabilities, [draw] * 3).tolist() == [0, 49151, 30000]


def test_ids_are_drawn_as_often_as_they_are_probable():
    probabilities = torch.zeros(1, 49152)
    probabilities[0, [5, 300, 40000]] = torch.tensor([0.2, 0.3, 0.5])
    draws = stream("frequencies").random(4000).tolist()
    ids = inverse_cdf(probabilities.expand(4000, -1), draws)
    shares = [float((ids == id).double().mean()) for id in (5, 300, 40000)]
    assert shares == pytest.approx([0.2, 0.3, 0.5], abs=0.03)

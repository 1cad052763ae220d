"""Random streams depend on their names alone."""

import os
import subprocess
import sys

import pytest

from codots.core.rng import digest, stream

SHOW = """
from codots.domains.registry import make_pack
from codots.core.rng import digest, stream
print(digest("pack", 3, "x"), stream("pack", 3).integers(0, 2**62, 3).tolist())
for id in ("frozen-lake-v0", "frozen-lake-v1"):
    pack = make_pack(id, "easy", "dev", 11, 3)
    print(pack.world.hidden, [(t.content.side, sorted(t.content.holes), t.content.goal) for t in pack.tasks])
"""


def output_with_hash_seed(seed):
    """Return what SHOW prints in a process with another hash seed."""
    environment = os.environ | {"PYTHONHASHSEED": seed}
    return subprocess.run([sys.executable, "-c", SHOW], env=environment, capture_output=True, check=True).stdout


def test_names_give_the_same_draws_in_every_process():
    first = output_with_hash_seed("1")
    assert first
    assert first == output_with_hash_seed("2")


def test_the_draws_of_a_name_never_change():
    """Published numbers depend on these: changing them changes every world."""
    assert digest("pack", 3) == 174684848485289942312644035952744410692
    assert stream("pack", 3).integers(0, 1000, 4).tolist() == [970, 527, 85, 195]


def test_a_stream_does_not_depend_on_earlier_draws():
    alone = stream("a").random(4).tolist()
    stream("b").random(100)
    half = stream("a")
    half.random(2)
    assert stream("a").random(4).tolist() == alone


@pytest.mark.parametrize("other", [("a", 2), ("a", "1"), ("1", "a"), ("a",), ("a", 1, 1), ("a1",)])
def test_other_names_give_other_draws(other):
    assert stream("a", 1).random(4).tolist() != stream(*other).random(4).tolist()

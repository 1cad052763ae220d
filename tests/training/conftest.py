"""A trainable model, an uninterrupted run, and a recipe for another run like it."""

from types import SimpleNamespace

import pytest

from codots.training.train import train
from tests.random_model import make_random_model
from tests.training.small import recipe


@pytest.fixture(scope="session")
def base(tmp_path_factory):
    return make_random_model(tmp_path_factory.mktemp("base"), seed=1)


@pytest.fixture(scope="session")
def whole(tmp_path_factory, base):
    """An uninterrupted run."""
    run = tmp_path_factory.mktemp("whole") / "run"
    return SimpleNamespace(run=run, reports=list(train(recipe(base, run))))


@pytest.fixture
def config(base, tmp_path):
    return recipe(base, tmp_path / "run")

"""A run folder, for every test of this room."""

import pytest

from codots.config.schema import TrainConfig
from tests.runs.folders import opened


@pytest.fixture
def config(tmp_path):
    return TrainConfig(run=str(tmp_path / "run"), seed=3)


@pytest.fixture
def run(tmp_path, config):
    return opened(tmp_path / "run", config)

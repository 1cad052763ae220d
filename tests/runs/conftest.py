"""Fixtures of run folders."""

import pytest

from codots.config.schema import TrainConfig
from tests.runs.folders import open_and_close


@pytest.fixture
def config(tmp_path):
    return TrainConfig(run=str(tmp_path / "run"), seed=3)


@pytest.fixture
def run(tmp_path, config):
    return open_and_close(tmp_path / "run", config)

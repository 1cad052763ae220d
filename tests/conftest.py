"""Shared fixtures: one thread, no network, reproducible examples, and tiny models."""

import io
import os
import sys
from types import SimpleNamespace

os.environ |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}

import pytest
import torch
from hypothesis import settings

from codots.cli.main import main
from codots.domains import registry as domain
from codots.model import tiny
from codots.model.renderer import Render
from tests.browser import browser, tab  # noqa: F401  # fixtures
from tests.qwen import make_qwen

torch.set_num_threads(1)
settings.register_profile("repeatable", derandomize=True, deadline=None, database=None, max_examples=60)
settings.load_profile("repeatable")


def pytest_collection_modifyitems(items):
    """Start the longest test first, so that it does not run alone at the end."""
    items.sort(key=lambda item: item.path.name != "test_learning.py")


@pytest.fixture(scope="session")
def tokenizer():
    return tiny.make_tokenizer()


@pytest.fixture(scope="session")
def render(tokenizer):
    return Render(tokenizer)


@pytest.fixture(scope="session")
def qwen(tmp_path_factory):
    """Return the folder of a small Qwen3 with a full-size vocabulary."""
    return make_qwen(tmp_path_factory.mktemp("qwen"))


@pytest.fixture
def make_model(tokenizer):
    """Make random models with peaked distributions, so that wrong attention changes logprobs."""

    def make(seed=0, length=256):
        model = tiny.make_model(tokenizer, width=24, layers=2, heads=2, seed=seed, length=length)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.ndim > 1:
                    parameter.mul_(30)
        return model

    return make


@pytest.fixture
def model(make_model):
    return make_model()


@pytest.fixture
def registry():
    """Restore the registry after a test that registers domains."""
    before = dict(domain._registry)
    yield domain._registry
    # Keep families that were imported meanwhile: a module registers its domains only on first import.
    families = {id: found for id, found in domain._registry.items() if type(found).__module__.startswith("codots.")}
    domain._registry.clear()
    domain._registry.update(families | before)


@pytest.fixture
def codots(monkeypatch, capsys):
    """Run the command in this process; return its exit code, stdout and stderr."""

    def run(*args, typed=""):
        monkeypatch.setattr(sys, "argv", ["codots", *map(str, args)])
        monkeypatch.setattr(sys, "stdin", io.StringIO(typed))
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            main()
        out, err = capsys.readouterr()
        return SimpleNamespace(code=end.value.code or 0, out=out, err=err)

    return run

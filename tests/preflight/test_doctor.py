"""The doctor finds what to change on a machine, and which changes are required."""

import json
import shutil
from pathlib import Path

import pytest

from codots.config.schema import TrainConfig
from codots.preflight import doctor
from tests.random_model import make_random_model


@pytest.fixture
def config(tmp_path):
    return TrainConfig(model=str(make_random_model(tmp_path / "model")), run=str(tmp_path / "run"), workers=1)


@pytest.fixture(autouse=True)
def machine(monkeypatch):
    """Pretend that the machine has four cores."""
    monkeypatch.setattr(doctor, "cores", lambda: 4)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


def finding_of(config, what):
    """Return the finding with this name."""
    (found,) = [found for found in doctor.examine(config) if found.what == what]
    return found


def test_a_fit_machine_needs_no_change(config):
    findings = doctor.examine(config)
    names = [found.what for found in findings]
    assert names == ["python", "torch", "device", "cores", "threads", "disk", "model", "loggers"]
    assert not any(found.change or found.must for found in findings)
    assert json.loads(doctor.as_json(findings))["fit"] is True


def test_vllm_is_needed_only_if_it_samples_and_must_be_installed(config, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    found = finding_of(config.model_copy(update={"sampler": "vllm"}), "vLLM")
    assert (found.change, found.must) == ("sampler=vllm needs vLLM: pip install 'codots[vllm]'", True)


def test_a_model_that_does_not_load_must_be_changed(config):
    (Path(config.model) / "model.safetensors").unlink()
    found = finding_of(config, "model")
    assert found.must
    assert "has no weights" in found.change
    assert json.loads(doctor.as_json([found]))["fit"] is False


def test_a_missing_model_is_reported_once(config):
    findings = doctor.examine(config.model_copy(update={"model": "bse"}))
    assert ["nearest is 'base'" in found.change for found in findings if found.must] == [True]


def test_more_workers_than_cores_and_unset_threads_should_be_changed(config, monkeypatch):
    assert finding_of(config.model_copy(update={"workers": 5}), "cores").change == "set workers=4, the number of cores"
    monkeypatch.delenv("OMP_NUM_THREADS")
    found = finding_of(config, "threads")
    assert (found.found, found.must) == ("OMP_NUM_THREADS is not set", False)
    assert found.change.startswith("export OMP_NUM_THREADS=1")


@pytest.mark.parametrize("value", ["0", "many", "5", "-1"])
def test_an_invalid_number_of_threads_must_be_changed(config, monkeypatch, value):
    monkeypatch.setenv("OMP_NUM_THREADS", value)
    assert finding_of(config, "threads").must


def test_a_disk_too_small_for_the_run_must_be_changed(config, monkeypatch):
    usage = shutil.disk_usage("/")
    monkeypatch.setattr("shutil.disk_usage", lambda place: usage._replace(free=1000))
    found = finding_of(config, "disk")
    assert found.must
    assert found.change == "free 0.1 GiB, or lower keep_checkpoints"


def test_a_read_only_folder_must_be_changed(config, monkeypatch):
    monkeypatch.setattr("os.access", lambda place, mode: False)
    found = finding_of(config, "disk")
    assert (found.must, found.change) == (True, "give run=ANOTHER")


def test_a_missing_logger_must_be_changed(config, monkeypatch):
    monkeypatch.setattr("codots.runs.loggers.find_spec", lambda name: None)
    found = finding_of(config.model_copy(update={"loggers": ["wandb"]}), "loggers")
    assert found.must
    assert "pip install 'codots[wandb]'" in found.change

"""Whoever asks whether a machine is fit is told what to change, in a table, in JSON and by the exit code."""

import json
import shutil
from pathlib import Path

import pytest

from codots.config.schema import TrainConfig
from codots.preflight import doctor
from tests.lively import make_lively


@pytest.fixture
def config(tmp_path):
    return TrainConfig(model=str(make_lively(tmp_path / "model")), run=str(tmp_path / "run"), workers=1)


@pytest.fixture(autouse=True)
def machine(monkeypatch):
    """A machine of four cores."""
    monkeypatch.setattr(doctor, "cores", lambda: 4)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


def looked(config, what):
    (found,) = [found for found in doctor.examine(config) if found.what == what]
    return found


def test_a_machine_that_is_fit_has_nothing_to_change(config):
    findings = doctor.examine(config)
    seen = [found.what for found in findings]
    assert seen == ["python", "torch", "device", "cores", "threads", "disk", "model", "loggers"]
    assert not any(found.change or found.must for found in findings)
    assert json.loads(doctor.as_json(findings))["fit"] is True


def test_a_model_that_does_not_load_must_be_changed(config):
    (Path(config.model) / "model.safetensors").unlink()
    found = looked(config, "model")
    assert found.must
    assert "has no weights" in found.change
    assert json.loads(doctor.as_json([found]))["fit"] is False


def test_a_model_that_is_nowhere_is_said_once(config):
    findings = doctor.examine(config.model_copy(update={"model": "bse"}))
    assert ["nearest is 'base'" in found.change for found in findings if found.must] == [True]


def test_more_workers_than_cores_and_many_threads_are_advised_against(config, monkeypatch):
    assert looked(config.model_copy(update={"workers": 5}), "cores").change == "set workers=4: more only wait"
    monkeypatch.delenv("OMP_NUM_THREADS")
    found = looked(config, "threads")
    assert (found.found, found.must) == ("OMP_NUM_THREADS is not set", False)
    assert found.change.startswith("export OMP_NUM_THREADS=1")


@pytest.mark.parametrize("value", ["0", "many", "5", "-1"])
def test_a_number_of_threads_that_cannot_be_must_be_changed(config, monkeypatch, value):
    monkeypatch.setenv("OMP_NUM_THREADS", value)
    assert looked(config, "threads").must


def test_a_disk_too_small_for_the_run_must_be_changed(config, monkeypatch):
    usage = shutil.disk_usage("/")
    monkeypatch.setattr("shutil.disk_usage", lambda place: usage._replace(free=1000))
    found = looked(config, "disk")
    assert found.must
    assert found.change == "free 0.1 GiB, or set keep lower"


def test_a_folder_that_cannot_be_written_to_must_be_changed(config, monkeypatch):
    monkeypatch.setattr("os.access", lambda place, mode: False)
    found = looked(config, "disk")
    assert (found.must, found.change) == (True, "give run=ANOTHER")


def test_a_logger_that_is_not_installed_must_be_changed(config, monkeypatch):
    monkeypatch.setattr("codots.runs.loggers.find_spec", lambda name: None)
    found = looked(config.model_copy(update={"loggers": ["wandb"]}), "loggers")
    assert found.must
    assert "pip install 'codots[wandb]'" in found.change


def test_a_quota_counts_as_fewer_cores(monkeypatch, tmp_path):
    monkeypatch.undo()
    quota = tmp_path / "cpu.max"
    monkeypatch.setattr(doctor, "QUOTA", quota)
    bound = doctor.cores()
    assert bound >= 1
    for text, expected in (("max 100000", None), ("100000 100000", 1), ("50000 100000", 1)):
        quota.write_text(text + "\n")
        assert doctor.cores() == (expected or bound)

"""Ray on several nodes: a lost node costs no more than a process, and what does not fit is one error with its cause."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SECONDS = 600
"""Timeout of a scenario, which starts up to five nodes."""
pytestmark = [pytest.mark.slow, pytest.mark.timeout(SECONDS + 60)]
ROOT = Path(__file__).parents[2]


@pytest.fixture
def run(tmp_path):
    """Run a scenario and return what it found."""

    def run(name):
        command = [sys.executable, "-m", "tests.engine.nodes", name, tmp_path / "model"]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=SECONDS)
        assert done.returncode == 0, done.stderr
        return json.loads(next(line for line in done.stdout.splitlines() if line.startswith("{")))  # Ray prints, too

    return run


def test_a_sampler_whose_node_is_removed_goes_on_on_another_one_with_the_same_results(run):
    found = run("sampler_moves")
    assert found["restarts"] >= 1  # more, if a new actor was placed there before the cluster noticed the loss
    assert (found["equal"], found["version"]) == (True, 1)


def test_a_sampler_whose_node_is_removed_is_one_error_if_there_is_no_other_room(run):
    found = run("no_room")
    assert found["error"].startswith("RuntimeError: sampler 1 died (")
    assert found["error"].endswith(
        "and for 20 s the cluster has had no room for another one; add machines, then resume the run to continue from "
        "its last checkpoint"
    )
    assert found["seconds"] < 60


def test_a_learner_whose_node_is_removed_is_one_error_that_says_how_to_go_on(run):
    found = run("learner")
    assert found["error"].startswith("DeadError: learner 0 died (")
    assert found["error"].endswith("; resume the run to continue from its last checkpoint")
    assert found["seconds"] < 60


def test_weights_that_fit_neither_into_the_object_store_nor_on_the_disk_are_one_error_until_there_is_room(run):
    found = run("no_disk")
    assert found["error"].startswith("RuntimeError: receive failed: Local disk is full The object cannot be created")
    assert found["seconds"] < 60
    assert found["version"] == 1


def test_weights_that_do_not_fit_into_the_object_store_are_served_from_the_disk(run):
    assert run("spilled") == {"larger": True, "version": 1}

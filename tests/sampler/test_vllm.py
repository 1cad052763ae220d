"""The vLLM sampler keeps the contract of a sampler, also on Ray, and refuses what it cannot serve in one line."""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from importlib import metadata, util
from pathlib import Path

import pytest

from codots.sampler.vllm_engine import check_vllm
from tests.random_model import make_random_model

ROOT = Path(__file__).parents[2]
PYTHON = Path(os.environ.get("CODOTS_VLLM_PYTHON", ROOT / ".vllm" / "bin" / "python"))
needs_vllm = pytest.mark.skipif(not PYTHON.is_file(), reason="needs `make vllm`")
SECONDS = 1200
"""Timeout of a check. The processes of vLLM import for half a minute and more."""


def begin(check):
    environment = os.environ | {
        "RAY_worker_niceness": "0",
        "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)]),
    }
    command = [PYTHON, "-m", "tests.sampler.vllm_checks", check]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, cwd=ROOT, env=environment, text=True, **pipes)


def found_by(check):
    """Run a check in the environment with vLLM and return what it prints."""
    with begin(check) as process:
        out, err = process.communicate(timeout=SECONDS)
    assert process.returncode == 0, err
    return json.loads(out.splitlines()[-1])


@needs_vllm
@pytest.mark.slow
@pytest.mark.timeout(SECONDS)
def test_it_keeps_the_contract_of_a_sampler():
    found = found_by("contract")
    assert max(found["gaps"].values()) < 1e-4
    assert found["same_again"]  # in another order of the sessions
    assert found["greedy_as_local"]
    assert found["verbatim"]
    drawn, likely = found["share"]
    assert abs(drawn - likely) < 4 * (likely * (1 - likely) / 1000) ** 0.5
    for length, stops in found["long"]:
        assert length <= 256 + 1  # with an id that found no room
        assert stops[-1] == "full" or "stop" in stops
    assert any(stops == ["full", "full"] for _, stops in found["long"])
    assert max(found["gap_after_load"], found["gap_after_flight"]) < 1e-4
    assert found["versions"] == [1]
    (*lives,), before = found["in_flight"]
    assert all(answers in ([[before], [before + 1]], [[before]]) for answers in lives)  # an answer has one version
    message, running = found["cancelled"]
    assert message.startswith("this session is closed, was cancelled")
    assert running == 0
    assert [error.partition(";")[0] for error in found["errors"]] == [
        "ValueError: max_tokens is 1, with 0 new token ids",
        "ValueError: max_tokens is 0, with 1 new token ids",
        "ValueError: the temperature is 0.005",
    ]


@needs_vllm
@pytest.mark.slow
@pytest.mark.timeout(SECONDS)
def test_weights_that_did_not_arrive_are_refused():
    found = found_by("stale")
    assert found["error"].startswith("RuntimeError: vLLM does not sample by the weights of version 1: its logprobs")
    assert found["error"].removeprefix("RuntimeError: ") in found["later"]
    kind, cannot, packed = found["packed"].split(": ", 2)
    assert (kind, cannot) == ("ValueError", "vLLM cannot run this model")
    assert packed.startswith("vLLM does not sample by the weights of version 0: its logprobs")


@needs_vllm
@pytest.mark.slow
@pytest.mark.timeout(SECONDS)
def test_the_death_of_vllm_is_an_error_and_no_wait():
    (during, later, load), left = found_by("dead")
    assert during.startswith("FinalError: vLLM has ended: ")
    assert later == during
    assert load.startswith("RuntimeError: vLLM did not take version 1: ")
    assert left <= 1


@needs_vllm
@pytest.mark.slow
@pytest.mark.timeout(SECONDS)
def test_fifty_syncs_of_an_adapter_keep_logprobs_and_memory():
    found = found_by("syncs")
    assert found["gap"] < 1e-4
    first, last = found["megabytes"]
    assert last - first < 10


@needs_vllm
@pytest.mark.slow
@pytest.mark.timeout(SECONDS)
def test_a_model_split_over_two_processes_samples_by_the_same_weights():
    gaps, workers, left = found_by("parallel")
    assert max(gaps) < 1e-4
    assert workers == 2
    assert left <= 1


@needs_vllm
@pytest.mark.slow
@pytest.mark.timeout(SECONDS)
def test_what_vllm_cannot_run_is_refused_in_one_line():
    shape, device, version = found_by("refused")
    assert shape.startswith("ValueError: vLLM cannot run this model: RuntimeError: Unsupported CPU attention")
    assert "\n" not in shape
    assert device == "ValueError: vLLM cannot run this model: it is built for cpu, and the device of the run is cuda"
    assert version.startswith("ValueError: vLLM is 0.")
    assert version.endswith("; expected 9.1, the tested versions")


@needs_vllm
@pytest.mark.slow
@pytest.mark.timeout(SECONDS)
def test_no_process_of_vllm_outlives_a_killed_one():
    with begin("orphans") as process:
        names = json.loads(process.stdout.readline())
        os.kill(names[0], signal.SIGKILL)
        process.communicate(timeout=60)
    assert len(names) >= 3
    until = time.monotonic() + 60
    while any(map(lives, names)) and time.monotonic() < until:
        time.sleep(0.1)  # nothing tells that a process of another parent has ended
    assert [name for name in names if lives(name)] == []


def lives(process):
    with suppress(OSError):
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


@needs_vllm
@pytest.mark.slow
@pytest.mark.timeout(SECONDS)
@pytest.mark.parametrize("check", ["local", "ray", "ray_async", "ray_parallel"])
def test_a_run_trains_on_what_it_samples(check):
    """Three steps in one process, resumed after the second; on Ray with two learners, with lives in flight, and with a
    model that vLLM splits."""
    metrics, left = found_by(check)
    assert [line["step"] for line in metrics] == [1, 2, 3]
    gaps = [line["train/logprob_gap_max"] for line in metrics]
    assert max(gaps[:1] if check == "ray_async" else gaps) < 1e-4  # later, older weights have sampled
    assert any(line["train/grad_norm"] for line in metrics)
    assert left <= 1  # the resource tracker of multiprocessing


@pytest.mark.skipif(util.find_spec("vllm") is not None, reason="vLLM is installed")
def test_a_run_without_vllm_is_refused_in_one_line(codots, tmp_path):
    recipe, base = tmp_path / "recipe.yaml", make_random_model(tmp_path / "base")
    recipe.write_text("preset: tiny\nprofile: {style: compact}\n")
    done = codots("train", recipe, f"model={base}", f"run={tmp_path / 'run'}", "sampler=vllm")
    assert done.code == 2
    assert done.err.splitlines()[-1].endswith("sampler=vllm needs vLLM: pip install 'codots[vllm]'")


@pytest.mark.parametrize("version", ["0.31.0", "0.33.1", "1.0"])
def test_a_version_that_was_not_tested_is_refused(version, monkeypatch):
    monkeypatch.setattr(util, "find_spec", lambda name: sys)
    monkeypatch.setattr(metadata, "version", lambda name: version)
    with pytest.raises(ValueError, match=rf"^vLLM is {version}; expected 0\.32, the tested versions$"):
        check_vllm()


def test_a_tested_version_is_accepted_under_both_names(monkeypatch):
    def version(name):
        if name == "vllm":
            raise metadata.PackageNotFoundError(name)
        return "0.32.0+cpu"

    monkeypatch.setattr(util, "find_spec", lambda name: sys)
    monkeypatch.setattr(metadata, "version", version)
    check_vllm()

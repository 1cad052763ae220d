"""A run that was stopped, killed or out of disk space resumes to the result of an uninterrupted one."""

import errno
import json
import multiprocessing
import os
import pkgutil
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from codots.core.yaml_text import write_yaml
from codots.runs.checkpoint import checkpoints
from codots.runs.folder import saved_recipe
from codots.training.train import train
from tests.disk import mounted
from tests.training.small import changed, last_step, metrics, recipe, same_run, weights


def test_closing_the_iterator_saves_and_resume_continues(whole, config):
    config = changed(config, save_every=4)
    steps = train(config)
    next(steps), next(steps)
    assert checkpoints(Path(config.run)) == []
    steps.close()
    assert last_step(config) == 2
    assert [report.step for report in train(config, resume=True)] == [3, 4]
    same_run(config.run, whole.run)


def test_closing_before_the_first_step_writes_nothing(config):
    train(config).close()
    assert not Path(config.run).exists()


def test_an_open_run_does_not_block_interpreter_exit(config):
    script = (
        "import json, sys, codots\n"
        "steps = codots.train(codots.TrainConfig(**json.loads(sys.argv[1])))\n"
        "print(next(steps).step)\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", script, json.dumps(config.to_dict())], capture_output=True, timeout=120
    )
    assert (ended.returncode, ended.stdout) == (0, b"1\n")


def test_resuming_a_finished_run_changes_nothing(whole, config):
    shutil.copytree(whole.run, config.run)
    assert list(train(config, resume=True)) == []
    same_run(config.run, whole.run)


def test_a_resumed_run_counts_all_tokens(whole):
    lines = metrics(whole.run)
    assert lines[0]["tokens/total"] == lines[0]["tokens/sampled"] > 0
    for before, after in pairwise(lines):
        assert after["tokens/total"] == before["tokens/total"] + after["tokens/sampled"]


def die(config, what, nth):
    """Train, and kill this process at the nth call of a function."""
    owner, _, name = what.rpartition(".")
    owner, calls = pkgutil.resolve_name(owner), []
    original = getattr(owner, name)

    def deadly(*args, **kwargs):
        calls.append(0)
        if len(calls) == nth:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(*args, **kwargs)

    setattr(owner, name, deadly)
    list(train(config))


@pytest.fixture(scope="module")
def processes():
    """Fork children from a process that has imported everything and not run anything."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        ["codots.training.train"]
        + [
            f"transformers.models.{name}"
            for name in ("qwen3.modeling_qwen3", "auto.modeling_auto", "auto.tokenization_auto")
        ]
    )
    return context


def killed(processes, *args):
    child = processes.Process(target=die, args=args)
    child.start()
    child.join(60)
    assert child.exitcode == -signal.SIGKILL


MOMENTS = [
    ("codots.runs.loggers:Metrics.__init__", 1, 1),
    ("codots.engine.local:LocalEngine.rollout", 1, 1),
    ("codots.engine.local:LocalEngine.rollout", 4, 3),
    ("codots.rollout.steps:UpdateSteps.reply", 22, 3),
    ("codots.learner.local:LocalLearner.optim_step", 2, 2),
    ("codots.engine.local:LocalEngine.sync", 2, 2),
    ("codots.training.train.record", 3, 3),
    ("codots.runs.loggers:Metrics.add", 3, 3),
    ("codots.runs.loggers:TensorBoard.add", 3, 3),
    ("codots.learner.local:LocalLearner.save", 3, 3),
    ("codots.runs.checkpoint.write_atomically", 2, 2),
    ("pathlib:Path.rename", 9, 3),
    ("codots.runs.checkpoint.checkpoints", 4, 3),
    ("codots.engine.worker:Worker.save_model", 5, 5),
]


@pytest.mark.parametrize(("what", "nth", "first"), MOMENTS, ids=lambda part: str(part).rpartition(".")[2])
def test_a_killed_run_resumes_to_the_same_result(processes, whole, config, what, nth, first):
    """`first` is the first step after resuming."""
    killed(processes, config, what, nth)
    assert [report.step for report in train(config, resume=True)] == list(range(first, 5))
    same_run(config.run, whole.run)


def test_a_run_killed_several_times_finishes_with_the_same_result(processes, whole, config):
    """The parent kills it after a line of metrics, at an arbitrary point."""
    for step in (1, 2, 4):
        child = processes.Process(target=resumed, args=(config, step > 1))
        child.start()
        while child.is_alive() and written(config.run) < step:
            child.join(0.001)
        child.kill()
        child.join()
    list(train(config, resume=True))
    same_run(config.run, whole.run)


def resumed(config, resume):
    list(train(config, resume=resume))


def written(run):
    with suppress(OSError):
        return (Path(run) / "metrics.jsonl").read_bytes().count(b"\n")
    return 0


def test_a_killed_run_of_two_workers_resumes_to_the_same_result(processes, base, tmp_path):
    two = recipe(base, tmp_path / "two", workers=2, steps=2, eval_every=0)
    other = changed(two, run=str(tmp_path / "other"))
    killed(processes, other, "codots.learner.local:LocalLearner.optim_step", 2)
    list(train(two))
    list(train(other, resume=True))
    same_run(two.run, other.run)


def test_a_corrupt_checkpoint_costs_the_steps_since_the_one_before(whole, config, caplog):
    shutil.copytree(whole.run, config.run)
    file = checkpoints(Path(config.run))[-1] / "optimiser.pt"
    content = bytearray(file.read_bytes())
    content[100] ^= 1
    file.write_bytes(content)
    assert [report.step for report in train(config, resume=True)] == [4]
    (message,) = caplog.messages
    assert "optimiser.pt does not match its hash; it is renamed" in message
    same_run(config.run, whole.run)


@pytest.fixture
def small_disk(tmp_path):
    with mounted(tmp_path / "disk", "4m") as disk:
        yield disk


def test_a_full_disk_costs_only_the_steps_since_the_last_checkpoint(whole, config, small_disk, monkeypatch):
    def full(self, folder):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    if small_disk is not None:
        config = changed(config, run=str(small_disk / "run"))
    steps = train(config)
    next(steps), next(steps)
    if small_disk is None:
        monkeypatch.setattr("codots.engine.local.LocalEngine.save", full)
    else:
        with (small_disk / "filler").open("wb", buffering=0) as file:
            with suppress(OSError):
                while True:
                    file.write(bytes(4096))
            file.truncate(file.tell() - 2**16)
    with pytest.raises(OSError, match=r"checkpoint 2 could not be written to .*; earlier checkpoints are intact"):
        next(steps)
    assert [folder.name for folder in checkpoints(Path(config.run))] == ["step-000001"]
    assert last_step(config) == 1
    monkeypatch.undo()
    if small_disk is not None:
        (small_disk / "filler").unlink()
    assert [report.step for report in train(config, resume=True)] == [2, 3, 4]
    same_run(config.run, whole.run)


def test_a_run_stores_its_precision_and_resumes_in_it_on_another_machine(config, monkeypatch):
    config = changed(config, eval_every=0)
    monkeypatch.setattr("codots.model.device.LARGE_ON_CPU", 1)
    monkeypatch.setattr("codots.model.device.has_bfloat16", lambda: True)
    steps = train(config)
    next(steps)
    steps.close()
    assert saved_recipe(Path(config.run))["dtype"] == "bfloat16"
    monkeypatch.setattr("codots.model.device.has_bfloat16", lambda: False)
    assert [report.step for report in train(config, resume=True)] == [2, 3, 4]
    assert {weight.dtype for weight in weights(config.run).values()} == {torch.bfloat16}


@pytest.mark.parametrize("dtype", ["bfloat61", 16, ["float32"], None])
def test_a_run_with_an_unknown_precision_is_not_resumed(config, dtype):
    steps = train(config)
    next(steps)
    steps.close()
    file = Path(config.run, "config.yaml")
    file.write_text(write_yaml(saved_recipe(file.parent) | {"dtype": dtype}))
    with pytest.raises(
        ValueError, match=r"unknown dtype in .*config\.yaml: .*; expected one of auto, bfloat16, float16"
    ):
        next(train(config, resume=True))

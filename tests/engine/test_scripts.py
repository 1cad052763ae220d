"""Scripts and notebooks of users: a missing guard, a running event loop, a temporary folder with a long name."""

import os
import subprocess
import sys

import pytest

EVALUATE = """
from codots import EvalConfig, evaluate
print(len(evaluate(EvalConfig(model="base", packs=2, pack_size=2, workers=2, preset="tiny")).arms))
"""
TRAIN = """
from codots import TrainConfig, train
recipe = {"steps": 1, "packs_per_step": 2, "group_size": 2, "workers": WORKERS, "eval_every": 0, "preset": "tiny"}
print(len(list(train(TrainConfig.model_validate(recipe)))))
"""
CHECK = """
from codots.domains.check import check_domains
print(len(check_domains(["terminal-v0"], workers=2)))
"""


def run(folder, text, **environment):
    (folder / "script.py").write_text(text)
    env = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "OMP_NUM_THREADS": "1"} | environment
    command = [sys.executable, "script.py"]
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.slow
@pytest.mark.parametrize("script", [EVALUATE, TRAIN.replace("WORKERS", "2"), CHECK])
def test_a_script_without_a_main_guard_is_told_to_add_one(tmp_path, script):
    ended = run(tmp_path, script)
    assert ended.returncode == 1
    assert "put calls under `if __name__ == '__main__':`" in ended.stderr.splitlines()[-1]
    assert ended.stderr.count("Traceback") <= 2  # of the script, and of its cause
    assert "bootstrapping phase" not in ended.stderr


def test_a_running_event_loop_is_no_obstacle(tmp_path):
    calls = EVALUATE.replace("workers=2", "workers=1") + TRAIN.replace("WORKERS", "1")
    calls += "from codots.preflight.estimate import estimate\nprint(estimate(TrainConfig.model_validate(recipe)).fits)"
    lines = "".join(f"    {line}\n" for line in calls.splitlines())
    ended = run(tmp_path, f"import asyncio\nasync def cell():\n{lines}asyncio.run(cell())")
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.split() == ["2", "1", "True"]


@pytest.mark.slow
def test_a_temporary_folder_with_a_long_name_is_no_obstacle(tmp_path):
    (tmp_path / ("a" * 90)).mkdir()
    script = "if __name__ == '__main__':\n" + "".join(f"    {line}\n" for line in EVALUATE.splitlines())
    ended = run(tmp_path, script, TMPDIR=str(tmp_path / ("a" * 90)))
    assert (ended.returncode, ended.stdout) == (0, "2\n"), ended.stderr

"""The commands of the README and the recipes run, at a small scale."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", README, re.S)
COMMANDS = [
    line.partition("#")[0].strip()
    for language, block in BLOCKS
    if language == "sh"
    for line in block.splitlines()
    if line.startswith("codots")
]
SMALL = "steps=2 packs_per_step=2 group_size=2 workers=1 eval_packs=2 save_every=1"


def quick(command: str, run: Path) -> list[str]:
    """Return the arguments of a command, scaled down to run in seconds."""
    words = shlex.split(command.replace("runs/mine", str(run)).replace("lake.parquet", f"{run}.parquet"))[1:]
    if words[0] == "train":
        changes = SMALL.split() + ([] if any(w.startswith("run=") for w in words) else [f"run={run}-other"])
        return words[:2] + changes + words[2:]
    words = [re.sub(r"^(packs=)?(100|500)$", r"\g<1>4", word) for word in words]
    return words + (["workers=1"] if words[0] == "eval" else [])


def test_the_commands_of_the_readme_run_in_order(codots, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(ROOT)
    assert len(COMMANDS) >= 6
    for command in COMMANDS:
        words = quick(command, tmp_path / "mine")
        done = codots(*words, typed="1\n\n" * 80 if words[0] == "play" else "")
        assert done.code == 0, f"{shlex.join(words)}\n{done.err}"


def test_the_command_is_installed() -> None:
    command = Path(sys.executable).with_name("codots")
    done = subprocess.run([command, "domains"], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert "frozen-lake-v1" in done.stdout


def test_the_python_code_of_the_readme_runs(tmp_path: Path) -> None:
    code = "\n".join(block for language, block in BLOCKS if language == "python")
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("recipe", sorted((ROOT / "recipes").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_recipe_runs_for_two_steps(codots, recipe: Path, tmp_path: Path, qwen: Path, monkeypatch) -> None:
    monkeypatch.chdir(ROOT)
    text = recipe.read_text()
    command = "pretrain" if "stages:" in text else "train"
    changes = SMALL.split() if command == "train" else ["stages=[{steps: 2, packs_per_step: 2}]", "workers=1"]
    if "model: models/" in text:  # tests are offline: use a small untrained model of the same architecture
        changes += [f"model={qwen}", "profile.solve_tokens=12", "profile.update_tokens=16"]
    done = codots(command, recipe, f"run={tmp_path / 'run'}", *changes)
    assert done.code == 0, done.err
    assert (tmp_path / "run" / "model" / "model.safetensors").is_file()


def test_the_readme_lists_every_recipe() -> None:
    for recipe in (ROOT / "recipes").glob("*.yaml"):
        assert f"recipes/{recipe.name}" in README


def test_every_file_linked_in_the_readme_exists() -> None:
    for target in re.findall(r"\]\((?!http)([^)#]+)", README):
        assert (ROOT / target).exists(), target

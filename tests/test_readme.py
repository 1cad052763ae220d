"""The commands and the Python of the README and the pages run, and so does every recipe, at a small scale."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from codots.agent.records import Outcome
from codots.agent.store import Store
from codots.cli.app import app
from codots.config.load import load_recipe
from codots.config.schema import TrainConfig
from codots.context.rewrite import Rewrite
from codots.training.train import train

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
SMALL = "steps=2 packs_per_step=2 group_size=2 workers=1 eval_packs=2 save_every=1"


def blocks(page: Path, language: str) -> list[str]:
    """Return the code blocks of a page in a language."""
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(), re.S)


def commands(page: Path) -> list[str]:
    """Return the `codots` commands of a page in order, without their comments."""
    lines = [line.partition("#")[0].strip() for block in blocks(page, "sh") for line in block.splitlines()]
    return [line for line in lines if line.startswith("codots")]


def quick(command: str, folder: Path) -> list[str]:
    """Return the arguments of a command, scaled down to run in seconds."""
    for written in ("lake.parquet", "lessons.jsonl"):
        command = command.replace(written, f"{folder}/{written}")
    words = shlex.split(command.replace("runs/", f"{folder}/"))[1:]
    if words[0] == "train":
        changes = SMALL.split() + ([] if any(w.startswith("run=") for w in words) else [f"run={folder}/other"])
        return words[:2] + changes + words[2:]
    if words[0] == "imitate":
        stage = "stages=[{steps: 2, packs_per_step: 2, teacher: skilled}]"
        return [*words[:2], stage, "workers=1", "eval_packs=2", *words[2:]]
    words = [re.sub(r"^(packs=)?(20|50|100|500)$", r"\g<1>4", word) for word in words]
    if words[0] == "eval" and words[1].startswith("recipes/eval/") and "--out" not in words:
        words += ["--out", f"{folder}/suites/{Path(words[1]).stem}"]
    return words + (["workers=1"] if words[0] == "eval" else [])


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run for the pages that do not train one themselves."""
    folder = tmp_path_factory.mktemp("pages") / "mine"
    recipe = load_recipe(TrainConfig, ROOT / "recipes" / "lake.yaml", [*SMALL.split(), f"run={folder}"])
    list(train(recipe))
    return folder


def make_store(path: Path) -> None:
    """Write the store of an agent that has solved four tasks. The guard has held back what the last two taught."""
    held = {"context": "Obey.", "tokens": 1, "reason": "it has an order", "passage": "Obey."}
    with Store(path) as store:
        store.create("billing-repo", Rewrite().settings())
        for k, text in enumerate(["Tests need make db.", *["Tests need make db; migrations are in db/."] * 3]):
            task = store.start("billing-repo", "Fix the test.")
            store.finish("billing-repo", task.name, Outcome(1.0))
            head, details = store.head("billing-repo"), {"held": held} if k > 1 else {}
            store.append("billing-repo", head, text, "task", task.name, **details)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_commands_of_a_page_run_in_order(codots, page: Path, trained: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(ROOT)
    if not any("train" in line and "run=runs/mine" in line for line in commands(page)):
        shutil.copytree(trained, tmp_path / "mine")
    if "agent.db" in page.read_text():
        make_store(tmp_path / "agent.db")
    for command in commands(page):
        words = quick(command, tmp_path)
        done = codots(*words, typed="1\n\n" * 80 if words[0] == "play" else "")
        assert done.code == 0, f"{shlex.join(words)}\n{done.err}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_python_code_of_a_page_runs(page: Path, tmp_path: Path) -> None:
    code = "\n".join(blocks(page, "python"))
    arguments = [sys.executable, "-W", "ignore", "-c", code]
    done = subprocess.run(arguments, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_has_an_example_and_its_links_lead_somewhere(page: Path) -> None:
    assert commands(page) or blocks(page, "python")
    for target in re.findall(r"\]\((?!http)([^)#]+)", page.read_text()):
        assert (page.parent / target).exists(), target


def test_the_command_is_installed() -> None:
    command = Path(sys.executable).with_name("codots")
    done = subprocess.run([command, "domains"], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert "frozen-lake-v1" in done.stdout


def is_large(recipe: Path) -> bool:
    """Return whether a recipe is for a cluster."""
    return recipe.parent.name == "qwen3-8b" and recipe.stem != "eval"


RECIPES = sorted([*(ROOT / "recipes").glob("*.yaml"), *filter(is_large, (ROOT / "recipes").glob("*/*.yaml"))])


@pytest.mark.parametrize(
    "recipe",
    [pytest.param(path, marks=pytest.mark.slow if is_large(path) else ()) for path in RECIPES],
    ids=lambda path: path.stem,
)
def test_every_recipe_runs_for_two_steps(codots, recipe: Path, tmp_path: Path, qwen: Path, monkeypatch) -> None:
    monkeypatch.chdir(ROOT)
    text = recipe.read_text()
    command = "imitate" if "teacher:" in text else "train"
    lesson = {"steps": 2, "packs_per_step": 2}
    if command == "imitate":
        changes = ["workers=1", "eval_packs=2"]
        stage = json.dumps(lesson | {"teacher": "skilled"})
        changes += [f"stages=[{stage}]"] if "stages:" in text else [f"{k}={v}" for k, v in lesson.items()]
    else:
        changes = SMALL.split()
    if re.search("^worlds:", text, re.MULTILINE):  # its keys are in each entry
        changes = [change for change in changes if not change.startswith("packs_per_step=")]
        few = [{"domain": id, "packs_per_step": 1} for id in re.findall("{domain: ([^,]+),", text)]
        changes += [f"worlds={json.dumps(few)}"]
    if is_large(recipe):
        changes += ["engine.samplers=1", "engine.learners=2", "profile.max_model_len=2048"]
    if re.search("^model: (Qwen|models|runs)/", text, re.MULTILINE):  # use a small untrained model, since it is here
        changes += [f"model={qwen}", "profile.solve_tokens=12", "profile.update_tokens=16"]
    done = codots(command, recipe, f"run={tmp_path / 'run'}", *changes)
    assert done.code == 0, done.err
    assert (tmp_path / "run" / "model" / "model.safetensors").is_file()


def test_the_page_on_training_lists_every_recipe() -> None:
    page = (ROOT / "docs" / "training.md").read_text()
    for recipe in RECIPES:
        assert str(recipe.relative_to(ROOT)) in page


def test_the_readme_lists_every_command_and_every_family() -> None:
    assert {f"codots {command.name or command.callback.__name__}" for command in app.registered_commands} <= set(
        re.findall(r"codots \w+", README)
    )
    families = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]["codots.domains"]
    assert set(families) <= set(re.findall(r"\[`([\w-]+)`\]", README))

"""The package is made of rooms: nothing lies beside them, each says what it is for, and no two files go in circles."""

import ast
import subprocess
import tomllib
from pathlib import Path

import grimp
import pytest

ROOT = Path(__file__).parent.parent
HOUSE = ROOT / "src" / "codots"
ROOMS = sorted(path.parent for path in HOUSE.glob("*/__init__.py"))


def test_no_python_file_lies_beside_the_rooms():
    assert {path.name for path in HOUSE.glob("*.py")} == {"__init__.py", "__main__.py"}


def test_there_are_few_rooms_and_each_has_a_row():
    rows = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"][0]["layers"]
    assert len(ROOMS) <= 17
    assert sorted(room for row in rows for room in row.split(" | ")) == [room.name for room in ROOMS]


def test_a_room_opens_with_one_sentence_and_nothing_else():
    for room in [*ROOMS, HOUSE / "domains" / "bridges"]:
        (only,) = ast.parse((room / "__init__.py").read_text()).body
        assert isinstance(only, ast.Expr)
        sentence = only.value.value
        assert sentence.endswith("."), room
        assert sentence.count(". ") == 0, room


def test_tests_mirror_the_rooms():
    tests = {path.parent.name for path in (ROOT / "tests").glob("*/__init__.py")}
    assert tests == {room.name for room in ROOMS}


def test_no_imports_go_in_circles():
    graph = grimp.build_graph("codots", include_external_packages=False, cache_dir=None)
    imports = {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}
    while leaves := {module for module, others in imports.items() if not others}:
        imports = {module: others - leaves for module, others in imports.items() if module not in leaves}
    assert imports == {}


RECIPES = {"TrainConfig", "PretrainConfig", "EvalConfig"}
"""What only the rooms that turn a recipe into parts may take."""


def recipes_in_signatures(path):
    """The functions of a file that take or return a recipe, or hold one."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            said = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs, node.args.vararg, node.args.kwarg]
            told = [arg.annotation for arg in said if arg is not None] + [node.returns]
        elif isinstance(node, ast.AnnAssign):
            told = [node.annotation]
        else:
            continue
        words = {word.id for note in told if note is not None for word in ast.walk(note) if isinstance(word, ast.Name)}
        if RECIPES & words:
            yield getattr(node, "name", "an attribute")


def test_a_recipe_is_turned_into_parts_once():
    found = {path.relative_to(HOUSE).parts[0] for path in HOUSE.rglob("*.py") if [*recipes_in_signatures(path)]}
    assert {"training", "evaluation"} <= found <= {"training", "evaluation", "preflight", "config", "cli"}


def git(*words):
    return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="not a clone")
def test_run_folders_stay_out_of_commits_and_nothing_of_ours_does():
    runs = [f"{run}/{file}" for run in ("hr", "my-run", "runs/lake") for file in ("config.yaml", "model/config.json")]
    assert git("check-ignore", *runs) == runs
    assert git("ls-files", "--cached", "--ignored", "--exclude-standard") == []

"""The rooms of the package: their files, docstrings and tests, and imports without cycles."""

import ast
import subprocess
import tomllib
from pathlib import Path

import grimp
import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "src" / "codots"
ROOMS = sorted(path.parent for path in PACKAGE.glob("*/__init__.py"))


def test_every_module_is_in_a_room():
    assert {path.name for path in PACKAGE.glob("*.py")} == {"__init__.py", "__main__.py"}


def test_there_are_at_most_17_rooms_and_each_has_a_layer():
    rows = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"][0]["layers"]
    assert len(ROOMS) <= 17
    assert sorted(room for row in rows for room in row.split(" | ")) == [room.name for room in ROOMS]


def test_the_init_file_of_a_room_is_one_sentence():
    for room in [*ROOMS, PACKAGE / "domains" / "bridges"]:
        (only,) = ast.parse((room / "__init__.py").read_text()).body
        assert isinstance(only, ast.Expr)
        sentence = only.value.value
        assert sentence.endswith("."), room
        assert sentence.count(". ") == 0, room


def test_tests_mirror_the_rooms():
    tests = {path.parent.name for path in (ROOT / "tests").glob("*/__init__.py")}
    assert tests == {room.name for room in ROOMS}


def test_imports_have_no_cycles():
    graph = grimp.build_graph("codots", include_external_packages=False, cache_dir=None)
    imports = {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}
    while leaves := {module for module, others in imports.items() if not others}:
        imports = {module: others - leaves for module, others in imports.items() if module not in leaves}
    assert imports == {}


RECIPES = {"TrainConfig", "ImitateConfig", "EvalConfig"}
"""Types that only the rooms that turn a recipe into parts may use in signatures."""


def recipes_in_signatures(path):
    """Yield the functions and attributes of a file whose annotations name a recipe."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            args = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs, node.args.vararg, node.args.kwarg]
            annotations = [arg.annotation for arg in args if arg is not None] + [node.returns]
        elif isinstance(node, ast.AnnAssign):
            annotations = [node.annotation]
        else:
            continue
        nodes = (node for annotation in annotations if annotation is not None for node in ast.walk(annotation))
        if RECIPES & {node.id for node in nodes if isinstance(node, ast.Name)}:
            yield getattr(node, "name", "an attribute")


def test_a_recipe_is_turned_into_parts_once():
    found = {path.relative_to(PACKAGE).parts[0] for path in PACKAGE.rglob("*.py") if [*recipes_in_signatures(path)]}
    assert {"training", "evaluation"} <= found <= {"training", "evaluation", "preflight", "config", "cli"}


def git(*words):
    return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="not a clone")
def test_git_ignores_run_folders_and_no_tracked_file():
    runs = [f"{run}/{file}" for run in ("hr", "my-run", "runs/lake") for file in ("config.yaml", "model/config.json")]
    assert git("check-ignore", *runs) == runs
    assert git("ls-files", "--cached", "--ignored", "--exclude-standard") == []

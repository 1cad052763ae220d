"""The example domain of CONTRIBUTING.md is short, passes the contract, and can be installed as a package."""

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

TEXT = (Path(__file__).parent.parent / "CONTRIBUTING.md").read_text()
DOORS = next(block for block in re.findall(r"```python\n(.*?)```", TEXT, re.S) if "class Doors(Domain)" in block)
PROJECT = tomllib.loads(re.search(r"```toml\n(.*?)```", TEXT, re.S)[1])["project"]


def codots(folder, *args, paths=()):
    """Run `codots` in a folder with extra import paths; return exit code, stdout and stderr."""
    path = os.pathsep.join(map(str, [*paths, *sys.path]))
    environment = os.environ | {"PYTHONPATH": path, "COLUMNS": "200"}
    done = subprocess.run(
        [sys.executable, "-m", "codots", *args],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=200,
    )
    return done.returncode, done.stdout, done.stderr


@pytest.fixture
def installed(tmp_path):
    """Write a package with the example domain as `pip install` would: its module, metadata and entry point."""
    (tmp_path / "codots_doors.py").write_text(DOORS)
    info = tmp_path / f"codots_doors-{PROJECT['version']}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {PROJECT['name']}\nVersion: {PROJECT['version']}\n")
    points = [
        f"[{group}]\n" + "".join(f"{name} = {module}\n" for name, module in points.items())
        for group, points in PROJECT["entry-points"].items()
    ]
    (info / "entry_points.txt").write_text("".join(points))
    return tmp_path


def test_the_example_domain_has_fewer_than_sixty_lines():
    assert len(DOORS.splitlines()) < 60
    assert max(map(len, DOORS.splitlines())) <= 120


def test_every_command_finds_a_domain_of_another_package(installed, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    code, out, err = codots(elsewhere, "check", "doors-v1", "--workers", "1", paths=[installed])
    assert (code, out.partition(": 1 preset, ")[0]) == (0, "doors-v1 passes the check"), err
    code, out, err = codots(elsewhere, "baselines", "doors-v1", "--packs", "200", "--json", paths=[installed])
    assert code == 0, err
    found = json.loads(out)
    assert (found["preset"], found["informed"]) == ("four", [1.0] * 4)
    assert found["bayes"][0] == pytest.approx(0.25, abs=0.1)
    assert found["bayes"] == sorted(found["bayes"])
    code, out, _ = codots(elsewhere, "domains", "--json", paths=[installed])
    assert {"doors-v1", "frozen-lake-v1"} <= {entry["id"] for entry in json.loads(out)}
    assert codots(elsewhere, "check", "doors-v1")[::2] == (2, codots(elsewhere, "play", "doors-v1")[2])


def test_a_domain_in_the_current_folder_needs_no_package(tmp_path):
    (tmp_path / "codots_doors.py").write_text(DOORS.replace("register(Doors())\n", ""))
    code, out, err = codots(tmp_path, "check", "codots_doors:Doors", "--packs", "8")
    assert (code, out.partition(":")[0]) == (0, "doors-v1 passes the check"), err
    code, out, err = codots(tmp_path, "play", "codots_doors:Doors", "--policy", "informed")
    assert (code, out.splitlines()[-1]) == (0, "rewards: 1.00 1.00 1.00 1.00"), err
    assert codots(tmp_path, "check", "codots_doors:Dors") == (
        2,
        "",
        "codots: unknown domain of codots_doors 'Dors'; expected one of Doors; the nearest is 'Doors'\n",
    )


def test_a_violated_contract_is_one_line_on_stderr(tmp_path):
    (tmp_path / "codots_doors.py").write_text(DOORS.replace('Step("The prize!", 1.0', 'Step("The prize!", 1.5'))
    code, out, err = codots(tmp_path, "check", "codots_doors:Doors", "--packs", "8", "--workers", "1")
    assert (code, out) == (2, "")
    assert re.fullmatch(r"codots: doors-v1 four.*: got 1\.5, expected a reward within .*", err.splitlines()[-1])


def test_the_map_lists_every_package_and_its_modules():
    root = Path(__file__).parent.parent / "src" / "codots"
    package_map = re.search(r"## The map.*?```\n(.*?)```", TEXT, re.S)[1]
    blocks = dict(re.findall(r"^  (\w+)/(.*?)(?=^  \w)", package_map, re.M | re.S))
    assert set(blocks) == {path.parent.name for path in root.glob("*/__init__.py")}
    for package, block in blocks.items():
        files = {path.stem for path in (root / package).glob("*.py") if path.stem != "__init__"}
        folders = {path.parent.name for path in (root / package).glob("*/**/__init__.py")}
        assert {name for name in files | folders if not re.search(rf"\b{name}\b", block)} == set(), package

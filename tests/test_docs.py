"""The pages in docs/ agree with the code on recipes, defaults, metrics and rows."""

from __future__ import annotations

import json
import re
from dataclasses import astuple, fields
from pathlib import Path

import numpy as np
import pytest
import yaml

import codots
from codots.algorithm.credit import OPTIONS, PRESETS
from codots.algorithm.losses import LOSSES
from codots.config.load import keys_of, validate
from codots.config.schema import TrainConfig, WorldConfig
from codots.rollout.records import Row
from codots.training.train import train

DOCS = Path(__file__).parent.parent / "docs"
TRAINING = (DOCS / "training.md").read_text()


def section(name: str) -> str:
    """Return a section of the training page."""
    return re.split(r"^## ", TRAINING, flags=re.M)[[*re.findall(r"^## (.*)", TRAINING, re.M)].index(name) + 1]


def table(name: str) -> list[list[str]]:
    """Return the cells of the tables in a section, without headers."""
    lines = [line.strip("| ").split(" | ") for line in section(name).splitlines() if line.startswith("| ")]
    return [cells for cells in lines if "`" in cells[0] or cells[0] in ("not here", "a domain")]


def code_spans(text: str) -> set[str]:
    """Return the contents of all code spans."""
    return set(re.findall(r"`([^`]+)`", text))


def test_the_page_explains_exactly_the_metrics_of_a_run(tmp_path: Path) -> None:
    config = TrainConfig.model_validate(
        {"run": str(tmp_path / "run"), "steps": 2, "packs_per_step": 2, "group_size": 2, "pack_size": 2, "workers": 1}
        | {"credit": {"balance": "red"}, "learner": {"kl_coef": 0.01, "warmup_steps": 0}}
        | {"engine": {"mode": "async", "max_staleness": 1}, "max_logprob_gap": 9, "eval_packs": 2}
    )
    list(train(config))
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    written = {re.sub(r"\d+$", "J", name) for line in lines for name in json.loads(line)} - {"step"}
    explained = set().union(*(code_spans(cells[0]) for cells in table("Metrics")))
    assert explained - {"credit/red_temperature"} == written - {"credit/red_temperature"}


def test_the_page_explains_every_estimator_and_loss() -> None:
    cells = {row[0].partition(",")[0].strip("`"): row for row in table("Advantages")}
    assert {name: tuple(cells[name][1:]) for name in PRESETS} == {k: astuple(v)[:4] for k, v in PRESETS.items()}
    for option, choices in OPTIONS.items():
        assert set(choices) <= code_spans(cells[option][1])
    losses = set().union(*(code_spans(row[0]) for row in table("Losses")))
    assert losses - {"learner.loss"} == set(LOSSES)


def test_the_page_explains_every_field_of_a_row() -> None:
    explained = [name for cells in table("Rows") for name in re.findall(r"`(\w+)`", cells[0])]
    assert explained == [field.name for field in fields(Row)]


def test_the_page_explains_every_key_of_worlds_with_its_default() -> None:
    explained = dict(pair for row in table("Worlds") for pair in zip(*cells_of(row), strict=True))
    fields_ = {name: info.get_default(call_default_factory=True) for name, info in WorldConfig.model_fields.items()}
    assert explained == fields_


def cells_of(row: list[str]) -> tuple[list[str], list[object]]:
    """Return the keys of a row and their defaults."""
    return re.findall(r"`(\w+)`", row[0]), [yaml.safe_load(text.strip("` ")) for text in row[1].split(",")]


def test_the_keys_in_the_comparison_table_exist() -> None:
    keys = {key.name for key in keys_of(TrainConfig)}
    names = [name for cells in table("GRPO, and names in TRL and verl") for name in code_spans(cells[0])]
    for name in names:
        key = re.sub(r"(profile)\..*", r"\1", name.partition(":")[0])
        assert key in keys | {"--resume", "none"}, name


@pytest.mark.parametrize("text", re.findall(r"```yaml\n(.*?)```", TRAINING, re.S))
def test_every_recipe_on_the_page_is_valid(text: str) -> None:
    config = validate(TrainConfig, yaml.safe_load(text), "page")
    assert len(config.worlds) > 1 or config.credit.scale == "std"


def test_the_api_page_lists_exactly_the_public_names() -> None:
    page = (DOCS / "api.md").read_text()
    assert set(re.findall(r"`codots\.(\w+)", page)) == set(codots.__all__)


def test_the_example_on_the_api_page_runs() -> None:
    (example,) = re.findall(r"```python\n(.*?)```", (DOCS / "api.md").read_text(), re.S)
    scope: dict[str, object] = {}
    exec(example, scope)
    assert np.asarray(scope["advantages"].solve_PGS).shape == (1, 2, 2)  # type: ignore[attr-defined]

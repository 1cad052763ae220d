"""A model card says what a model can do and how it was made, from the files of its run."""

import json

import pytest

from codots.core.yaml_text import read_yaml
from codots.report.card import model_card
from tests.report.runs import full_run


def test_a_card_has_every_arm_with_intervals_and_the_recipe(tmp_path):
    run = full_run(tmp_path / "run")
    text = model_card(run)
    assert "| before | own |" in text
    assert "| after | **lift** |" in text
    assert text.count("*bayes*") == len([line for line in text.splitlines() if line.startswith("### ")])
    recipe = text.partition("```yaml\n")[2].partition("```")[0]
    saved = read_yaml((run / "config.yaml").read_text())
    assert read_yaml(recipe) == {key: value for key, value in saved.items() if key not in ("run", "loggers")}
    assert str(tmp_path) not in text


def test_the_figures_of_a_card_are_those_of_the_report(tmp_path):
    run = full_run(tmp_path / "run")
    after = json.loads((run / "summary.json").read_text())["after"]["arms"]["own"]
    low, high = after["ci95"][-1]
    assert f"{after['reward'][-1]:.2f} [{low:.2f}, {high:.2f}]" in model_card(run)


def test_a_run_without_an_evaluation_says_how_to_make_one(tmp_path, codots):
    run = full_run(tmp_path / "run")
    (run / "summary.json").unlink()
    for file in run.glob("*.json"):
        file.unlink()
    with pytest.raises(ValueError, match="has no evaluation to put on a card; first: codots eval"):
        model_card(run)
    result = codots("card", run, "--out", tmp_path / "card.md")
    assert (result.code, (tmp_path / "card.md").exists()) == (2, False)


def test_the_command_writes_the_card(tmp_path, codots):
    run = full_run(tmp_path / "run")
    assert codots("card", run).out.strip() == model_card(run).strip()
    assert codots("card", run, "--out", tmp_path / "card.md").code == 0
    assert (tmp_path / "card.md").read_text() == model_card(run)

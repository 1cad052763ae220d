"""Pretraining imitates a scripted policy stage by stage, and equal recipes give equal models."""

import pytest
from safetensors.torch import load_file

from codots.config.schema import PretrainConfig, Stage
from codots.domains.registry import make_pack
from codots.model.load import load_model
from codots.rollout.profile import load_profile
from codots.rollout.steps import Given, Own
from codots.training.pretrain import PROFILE, contexts, pretrain

FEW = {
    "width": 16,
    "layers": 1,
    "heads": 2,
    "pack_size": 2,
    "workers": 1,
    "stages": [
        {"steps": 16, "packs_per_step": 2, "lr": 0.2, "presets": ["tiny", "easy"], "given": 0.5},
        {"steps": 2, "packs_per_step": 1, "lr": 0.01, "presets": ["tiny"], "noise": {"thought": 0.3, "wrong": 0.5}},
    ],
}


def run_pretraining(run, **changes):
    config = PretrainConfig.model_validate(FEW | {"run": str(run)} | changes)
    return list(pretrain(config))


def same_weights(one, other):
    one, other = (load_file(folder / "model.safetensors") for folder in (one, other))
    return all((one[name] == other[name]).all() for name in one)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return tmp_path_factory.mktemp("pretrain") / "run"


@pytest.fixture(scope="module")
def reports(run):
    return run_pretraining(run)


def test_every_step_is_reported(reports):
    assert [(report.stage, report.step, report.steps) for report in reports] == [
        *((0, step, 16) for step in range(1, 17)),
        *((1, step, 2) for step in range(1, 3)),
    ]


def test_the_scripted_policy_is_imitated(reports):
    assert reports[15].metrics["train/loss"] < 0.8 * reports[0].metrics["train/loss"]


def test_the_result_is_a_model_folder(run, reports):
    assert load_profile(run / "model") == PROFILE
    model, _ = load_model(run / "model")
    assert model.config.hidden_size == 16


def test_a_stage_starts_from_the_one_before(run, reports):
    assert reports[16].metrics["train/loss"] < reports[0].metrics["train/loss"]
    assert not same_weights(run / "start", run / "stage-0")
    assert not same_weights(run / "stage-0", run / "model")


def test_equal_recipes_give_equal_models(run, reports, tmp_path):
    again = run_pretraining(tmp_path / "again")
    assert [report.metrics for report in again] == [report.metrics for report in reports]
    assert same_weights(tmp_path / "again" / "model", run / "model")


def test_another_seed_gives_another_model(run, reports, tmp_path):
    run_pretraining(tmp_path / "other", seed=1, stages=[{"steps": 1, "packs_per_step": 1, "presets": ["tiny"]}])
    assert not same_weights(tmp_path / "other" / "start", run / "start")


def test_some_lives_have_the_oracle_context():
    stage = Stage(steps=1, packs_per_step=4, presets=["tiny"], given=0.5)
    packs = [make_pack("frozen-lake-v1", "tiny", "train", i, 2) for i in range(4)]
    lives = [contexts(pack, stage, i) for i, pack in enumerate(packs)]
    assert [type(life) for life in lives] == [Given, Given, Own, Own]
    for i in (0, 1):
        facts = [packs[i].domain.facts(packs[i].world, text) for text in lives[i].contexts]
        assert facts == [(4, 0, 4)] * 2


def test_an_existing_run_is_not_overwritten(run, reports):
    before = {path: path.read_bytes() for path in run.rglob("*.safetensors")}
    with pytest.raises(ValueError, match="already contains a run"):
        run_pretraining(run)
    assert {path: path.read_bytes() for path in run.rglob("*.safetensors")} == before


def test_a_failing_policy_is_reported(monkeypatch, tmp_path):
    def lost(text):
        raise KeyError("lost")

    monkeypatch.setattr("codots.training.pretrain.Teacher", lambda noise, names: lost)
    with pytest.raises(RuntimeError, match="the scripted policy failed: KeyError: 'lost'"):
        run_pretraining(tmp_path / "run")

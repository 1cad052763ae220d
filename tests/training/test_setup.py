"""A run starts new, resumes, or initializes from another run; a run that cannot start writes nothing."""

import json
import shutil
from pathlib import Path

import pytest

from codots.cli.watch import step_line
from codots.core.transcript import Sampled, StopReason
from codots.domains.registry import register
from codots.rollout.records import load_rollouts
from codots.runs.checkpoint import checkpoints
from codots.runs.folder import open_run, saved_recipe
from codots.training.train import train
from tests.toy import Guess
from tests.training.small import changed, equal, optimizer, same_run, tree, weights


def test_two_processes_never_train_in_one_folder(whole, config):
    shutil.copytree(whole.run, config.run)
    before = tree(config.run)
    with (
        open_run(Path(config.run), saved_recipe(Path(config.run)), resume=True),
        pytest.raises(ValueError, match="is in use by process"),
    ):
        next(train(config, resume=True))
    assert tree(config.run) == before


@pytest.mark.parametrize("point", ["", "checkpoints/step-000003"])
def test_init_from_loads_weights_and_optimizer_and_counts_from_zero(whole, config, point):
    origin = whole.run / point if point else whole.run
    source = origin if point else checkpoints(whole.run)[-1]
    config = changed(config, init_from=str(origin), seed=5, learner={"lr": 3e-3, "warmup_steps": 2}, steps=3)
    steps = train(config)
    first = next(steps)
    start = checkpoints(Path(config.run))[0]
    assert start.name == "step-000000"
    assert equal(weights(start), weights(source))
    assert equal(optimizer(start), optimizer(source))
    assert first.metrics["train/lr"] == pytest.approx(3e-3 / 2)
    saved = json.loads((Path(config.run) / "origin.json").read_text())
    assert (saved["checkpoint"], saved["step"]) == (str(source.resolve()), int(source.name[-1]))
    assert [report.step for report in steps] == [2, 3]
    moments = optimizer(checkpoints(Path(config.run))[-1])
    assert moments["0 step"] == optimizer(source)["0 step"] + 3


def test_init_from_uses_the_weight_decay_of_its_own_recipe(whole, config):
    ends = []
    for i, decay in enumerate((0.0, 0.5)):
        forked = changed(config, run=f"{config.run}-{i}", init_from=str(whole.run), steps=1, eval_every=0)
        list(train(changed(forked, learner={"weight_decay": decay})))
        ends.append(checkpoints(Path(forked.run))[-1])
    assert not equal(weights(ends[0]), weights(ends[1]))


def test_an_initialized_run_resumes_without_its_origin(whole, config, tmp_path):
    origin = shutil.copytree(whole.run, tmp_path / "origin")
    forked = changed(config, init_from=str(origin), seed=5, steps=3)
    list(train(forked))
    again = changed(forked, run=str(tmp_path / "again"))
    steps = train(again)
    next(steps)
    steps.close()
    shutil.rmtree(origin)
    assert [report.step for report in train(again, resume=True)] == [2, 3]
    same_run(forked.run, again.run)


def test_init_from_without_a_checkpoint_writes_no_run(config, tmp_path):
    with pytest.raises(ValueError, match="no checkpoint at"):
        next(train(changed(config, init_from=str(tmp_path / "nowhere"))))
    assert not Path(config.run).exists()


def test_an_existing_run_is_not_overwritten(whole, config):
    before = {path: path.read_bytes() for path in whole.run.rglob("*") if path.is_file()}
    with pytest.raises(ValueError, match="already contains a run; add --resume"):
        next(train(changed(config, run=str(whole.run))))
    with pytest.raises(ValueError, match="is another run: there seed is 0, here 1"):
        next(train(changed(config, run=str(whole.run), seed=1), resume=True))
    assert {path: path.read_bytes() for path in whole.run.rglob("*") if path.is_file()} == before


def test_an_invalid_model_writes_no_run(config, base, tmp_path):
    broken = shutil.copytree(base, tmp_path / "broken")
    (broken / "model.safetensors").unlink()
    with pytest.raises(ValueError, match="has no weights"):
        next(train(changed(config, model=str(broken))))
    assert not Path(config.run).exists()


def test_a_style_that_the_domain_lacks_writes_no_run(config, registry):
    register(Guess())
    with pytest.raises(ValueError, match="style 'compact'; guess-v0 has natural"):
        next(train(changed(config, domain="guess-v0", preset="few")))
    assert not Path(config.run).exists()


@pytest.mark.parametrize(
    ("sampler", "hint", "metric"),
    [("cut", "most were cut at 1 ids: raise solve_tokens", "cut/solve"), ("full", "most had no room", "no_room/solve")],
)
def test_the_hint_about_malformed_replies_follows_their_cause(config, caplog, monkeypatch, sampler, hint, metric):
    ended = StopReason.LENGTH if sampler == "cut" else StopReason.FULL

    async def sample(self, ids, params):
        return Sampled([5], [-1.0], ended, [self.sampler.version])

    monkeypatch.setattr("codots.sampler.local.LocalSession.sample", sample)
    config = changed(
        config, profile={"solve_tokens": 1}, rollout_log_every=1, steps=1, max_logprob_gap=99, eval_every=0
    )
    (report,) = train(config)
    assert caplog.messages[0].startswith(f"no reply of step 1 could be parsed; {hint}")
    assert report.metrics[metric] == report.metrics["malformed/solve"] == 1
    assert {row.ended for row in load_rollouts(config.run)} == {ended}
    assert metric.partition("/")[0].replace("_", " ").split()[-1] in step_line(report)


def test_a_first_step_of_only_malformed_replies_is_logged(config, caplog):
    report = next(train(changed(config, domain="alchemy-v1", preset="limited", model="base")))
    assert report.metrics["malformed/solve"] == 1
    assert caplog.messages == ["no reply of step 1 could be parsed; does base support alchemy-v1?"]

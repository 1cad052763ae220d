"""Imitation trains on lives of teachers or on recorded lives, stage by stage, and resumes bit for bit."""

import json
from pathlib import Path

import pytest

from codots.config.imitate import ImitateConfig
from codots.model.load import load_model
from codots.rollout.profile import load_profile
from codots.rollout.records import load_rollouts
from codots.rollout.steps import Given, Own
from codots.runs.checkpoint import checkpoints
from codots.training.imitate import imitate, prepare
from codots.training.lessons import samples_of
from codots.training.train import train
from tests.training.small import equal, metrics, recipe, weights

PROFILE = {"style": "compact", "solve_tokens": 4, "update_tokens": 14, "max_context_chars": 200}
TINY = {"domain": "frozen-lake-v1", "preset": "tiny", "pack_size": 2, "packs_per_step": 2}
FEW = {
    "new": {"width": 16, "layers": 1, "heads": 2},
    "profile": PROFILE,
    "workers": 1,
    "save_every": 1,
    "eval_every": 8,
    "eval_packs": 2,
    "rollout_log_every": 4,
    "learner": {"lr": 0.1, "warmup_steps": 2},
    "stages": [
        {"steps": 8, "worlds": [TINY | {"teacher": "skilled", "given": 0.5}]},
        {"steps": 2, "lr": 0.01, "worlds": [TINY | {"teacher": "literate"}, TINY | {"preset": "easy"}]},
    ],
}


def config_of(run, **changes):
    return ImitateConfig.model_validate(FEW | {"run": str(run)} | changes)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return tmp_path_factory.mktemp("imitate") / "run"


@pytest.fixture(scope="module")
def reports(run):
    return list(imitate(config_of(run)))


def test_steps_count_over_all_stages(reports):
    assert [(report.step, report.steps) for report in reports] == [(step, 10) for step in range(1, 11)]


def test_the_teacher_is_imitated(reports):
    assert reports[7].metrics["train/loss"] < 0.9 * reports[0].metrics["train/loss"]


def test_the_result_is_a_model_folder(run, reports):
    profile = load_profile(run / "model")
    assert {key: getattr(profile, key) for key in PROFILE} == PROFILE
    model, _ = load_model(run / "model")
    assert model.config.hidden_size == 16


def test_a_stage_starts_from_the_one_before_with_a_schedule_of_its_own(run, reports):
    assert reports[8].metrics["train/loss"] < reports[0].metrics["train/loss"]
    assert [report.metrics["train/lr"] for report in reports[6:]] == pytest.approx([0.1, 0.1, 0.005, 0.01])
    folders = [load_model(run / name)[0].state_dict() for name in ("start", "stage-1", "model")]
    assert not equal(folders[0], folders[1])
    assert not equal(folders[1], folders[2])


def test_dev_shows_what_the_model_reads_and_whether_it_keeps_to_the_form(reports):
    last = reports[-1].metrics
    assert {"eval/malformed/solve", "eval/malformed/update"} <= last.keys()
    for arm in ("own", "null", "oracle"):
        assert f"eval/frozen-lake-v1:tiny/{arm}_1" in last
    assert "eval/score" not in last
    assert "eval/malformed/solve" not in reports[5].metrics


def test_lessons_are_recorded(run, reports):
    rows = load_rollouts(run)
    assert {row.step for row in rows} == {1, 4, 8}
    assert {row.arm for row in rows} == {"teacher"}


def test_equal_recipes_give_equal_models(run, reports, tmp_path):
    list(imitate(config_of(tmp_path / "again")))
    assert metrics(tmp_path / "again") == metrics(run)
    assert equal(weights(tmp_path / "again"), weights(run))


def test_another_seed_gives_another_model(run, reports, tmp_path):
    list(imitate(config_of(tmp_path / "other", seed=1)))
    assert not equal(weights(tmp_path / "other"), weights(run))


@pytest.mark.parametrize("stop", [1, 7, 8, 9])
def test_a_stopped_run_resumes_bit_for_bit(run, reports, tmp_path, stop):
    config = config_of(tmp_path / "run", save_every=3)
    steps = imitate(config)
    for report in steps:
        if report.step == stop:
            break
    steps.close()
    rest = list(imitate(config, resume=True))
    assert [report.step for report in rest] == list(range(stop + 1, 11))
    assert metrics(tmp_path / "run") == metrics(run)
    assert equal(weights(tmp_path / "run"), weights(run))


def test_a_run_that_was_killed_between_a_stage_and_its_checkpoint_resumes(run, reports, tmp_path):
    config = config_of(tmp_path / "run", save_every=5)
    steps = imitate(config)
    assert next(report.step for report in steps if report.step == 8) == 8
    assert (tmp_path / "run" / "stage-1").is_dir()
    assert [folder.name for folder in checkpoints(tmp_path / "run")] == ["step-000005"]
    steps.close()  # this saves step 8, so remove that checkpoint as if the run had been killed
    for folder in checkpoints(tmp_path / "run")[1:]:
        folder.rename(tmp_path / folder.name)
    list(imitate(config, resume=True))
    assert equal(weights(tmp_path / "run"), weights(run))


def test_a_finished_run_can_be_resumed_without_steps(run, reports):
    before = weights(run)
    assert list(imitate(config_of(run), resume=True)) == []
    assert equal(weights(run), before)


def test_an_existing_run_is_not_overwritten(run, reports):
    before = {path: path.read_bytes() for path in run.rglob("*.safetensors")}
    with pytest.raises(ValueError, match="already contains a run; add --resume"):
        list(imitate(config_of(run)))
    assert {path: path.read_bytes() for path in run.rglob("*.safetensors")} == before


def test_an_existing_model_is_trained_with_all_weights_or_lora(qwen, tmp_path):
    stages = [{"steps": 2, "worlds": [TINY | {"profile": {"style": "natural"}, "teacher": "format"}]}]
    common = {"model": str(qwen), "new": None, "stages": stages, "profile": {}, "eval_every": 0}
    raw = load_model(qwen)[0].state_dict()
    for name, learner in {"all": {"lr": 0.01}, "lora": {"lr": 0.01, "lora": {"rank": 2}}}.items():
        first, last = imitate(config_of(tmp_path / name, learner=learner | {"warmup_steps": 0}, **common))
        assert last.metrics["train/loss"] < first.metrics["train/loss"] + 0.1
        assert not equal(load_model(tmp_path / name / "model")[0].state_dict(), raw)
        assert any(checkpoints(tmp_path / name)[-1].glob("*adapter*")) == (name == "lora")


def test_a_new_model_starts_with_the_weights_of_the_recipe(tmp_path):
    list(imitate(config_of(tmp_path / "run", new=FEW["new"] | {"initializer_range": 0.3})))
    model, _ = load_model(tmp_path / "run" / "start")
    assert 0.28 < model.model.embed_tokens.weight.detach().std().item() < 0.32


def test_a_vocabulary_is_learned_from_lessons(tmp_path):
    stages = [{"steps": 1, "worlds": [TINY | {"profile": {"style": "natural"}}]}]
    new = FEW["new"] | {"vocabulary": 400, "positions": 2048}
    profile = {"solve_tokens": 64, "update_tokens": 256}
    for name in ("one", "again"):
        list(imitate(config_of(tmp_path / name, new=new, stages=stages, profile=profile, eval_every=0)))
    model, render = load_model(tmp_path / "one" / "model")
    assert model.config.vocab_size <= 400
    text = "I want to go up. \u2603 <action>1</action>\n"
    assert render.text(render.reply(text)) == text
    assert len(render.reply("I want to go left. <action>4</action>")) < 20
    assert equal(weights(tmp_path / "one"), weights(tmp_path / "again"))


def test_given_is_the_fraction_of_lives_with_the_true_context(tmp_path):
    stages = [{"worlds": [TINY | {"packs_per_step": 200, "given": 0.3}]}]
    (lessons,) = prepare(config_of(tmp_path / "run", stages=stages)).lessons
    jobs = lessons.jobs(1)
    given = [job for job in jobs if isinstance(job.contexts, Given)]
    assert 40 < len(given) < 80
    assert all(isinstance(job.contexts, Own) for job in jobs if job not in given)
    for job in given:
        facts = [job.pack.domain.facts(job.pack.world, text) for text in job.contexts.contexts]
        assert facts == [(4, 0, 4)] * 2


def test_partial_is_the_fraction_of_given_contexts_that_say_a_part(tmp_path):
    stages = [{"worlds": [TINY | {"packs_per_step": 200, "given": 1, "partial": 0.3}]}]
    (lessons,) = prepare(config_of(tmp_path / "run", stages=stages)).lessons
    facts = [[job.pack.domain.facts(job.pack.world, text) for text in job.contexts.contexts] for job in lessons.jobs(1)]
    whole = [found for found in facts if found == [(4, 0, 4)] * 2]
    assert 120 < len(whole) < 160
    assert all(wrong == 0 for found in facts for _, wrong, _ in found)
    assert {right for found in facts for right, _, _ in found} == {0, 1, 2, 3, 4}


def test_no_pack_is_repeated_by_a_later_step(tmp_path):
    lessons = prepare(config_of(tmp_path / "run")).lessons
    packs = [job.pack.names for step in range(1, 9) for job in lessons[0].jobs(step)]
    packs += [job.pack.names for step in (9, 10) for job in lessons[1].jobs(step)]
    assert len(set(packs)) == len(packs)


def test_a_failing_teacher_is_reported(monkeypatch, tmp_path):
    def lost(self, view):
        raise KeyError("lost")

    monkeypatch.setattr("codots.domains.teacher.ScriptedPlayer.act", lost)
    with pytest.raises(RuntimeError, match="the teacher failed: KeyError: 'lost'"):
        list(imitate(config_of(tmp_path / "run")))


def test_a_lesson_that_the_model_cannot_read_is_one_line(tmp_path):
    with pytest.raises(ValueError, match=r"the first prompt of frozen-lake-v1 has \d+ ids, and the model may read 16;"):
        list(imitate(config_of(tmp_path / "run", new=FEW["new"] | {"positions": 16})))
    assert not (tmp_path / "run").exists()
    config = config_of(tmp_path / "run", new=FEW["new"] | {"positions": 60})
    with pytest.raises(ValueError, match=r"a lesson has \d+ ids, and the model reads 60; raise"):
        list(imitate(config))


def test_recorded_lives_of_training_are_lessons(tmp_path):
    list(train(recipe("base", tmp_path / "rl", steps=2)))
    rows = load_rollouts(tmp_path / "rl")
    lives = {(row.step, *row.pack, row.life) for row in rows}
    bad = {(row.step, *row.pack, row.life) for row in rows if row.stop == "malformed"}
    stages = [{"steps": 3, "recorded": str(tmp_path / "rl"), "min_reward": -1, "lives_per_step": 2}]
    config = config_of(tmp_path / "run", model="base", new=None, profile={}, stages=stages)
    (lessons,) = prepare(config).lessons
    assert len(lessons.recorded) == len(lives - bad) > 0
    reports = list(imitate(config))
    said = {tuple(map(tuple, row.turns)) for row in rows if row.kind == "solve"}
    taught = [episode for report in reports for life in report.lives for episode in life.of("solve")]
    assert {tuple((turn.observation, turn.reply) for turn in episode.turns) for episode in taught} <= said
    assert {row.reward for row in rows} >= {episode.reward for episode in taught}


def test_recorded_lives_are_filtered_by_reward_and_split(tmp_path):
    list(train(recipe("base", tmp_path / "rl", steps=1)))
    stages = [{"recorded": str(tmp_path / "rl"), "min_reward": 5}]
    config = config_of(tmp_path / "run", model="base", new=None, profile={}, stages=stages)
    with pytest.raises(ValueError, match=r"none with a mean reward of 5; the best has"):
        prepare(config)
    held_out = tmp_path / "dev.jsonl"
    lines = [
        json.loads(line)
        for path in Path(tmp_path / "rl").rglob("step-*.jsonl")
        for line in path.read_text().splitlines()
    ]
    held_out.write_text("".join(json.dumps(line | {"pack": [*line["pack"][:2], "dev", 0]}) + "\n" for line in lines))
    with pytest.raises(ValueError, match=r"dev.jsonl has 0 complete well-formed lives of the split train"):
        prepare(config_of(tmp_path / "run", stages=[{"recorded": str(held_out), "min_reward": -1}]))


def test_only_sampled_words_of_the_teacher_are_trained(reports):
    samples = samples_of(reports[0].lives, 1024)
    assert all(set(sample.advantages) <= {0.0, 1.0} for sample in samples)
    assert all([a == 1.0 for a in sample.advantages] == sample.mask for sample in samples)

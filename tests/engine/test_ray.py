"""Ray: the results of a local engine, checked syncs of the weights, and errors of one line before anything starts."""

from dataclasses import replace

import pytest
import torch

from codots.config.schema import TrainConfig
from codots.domains.registry import register
from codots.engine.cluster import check_room
from codots.engine.local import LocalEngine
from codots.engine.ray import RayEngine
from codots.learner.config import LearnerConfig
from codots.preflight.doctor import check_cluster, examine
from codots.rollout.records import read_lives, write_lives
from codots.training.train import train
from tests.engine.small import batch_of, jobs, make_plan, moments, step_on, weights
from tests.processes import gone
from tests.random_model import make_random_model
from tests.training.small import recipe, same_run

pytestmark = pytest.mark.usefixtures("cluster", "registered_talk")


@pytest.fixture
def registered_talk(registry):
    """Return the module of a user's domain and samplers. Its import registers the domain, for this test only."""
    from tests.engine import registered

    register(registered.RegisteredTalk())
    return registered


@pytest.fixture(scope="module")
def plan(tmp_path_factory, tokenizer):
    return make_plan(tmp_path_factory.mktemp("model"), tokenizer)


@pytest.fixture
def start():
    """Start engines that are closed after the test."""
    engines = []

    def start(kind, plan, *args, **options):
        engines.append(kind(plan, *args, **options))
        return engines[-1]

    yield start
    for engine in engines:
        engine.close()


def test_a_run_on_one_sampler_equals_a_local_run_with_one_worker_bit_for_bit(tmp_path):
    """Ids, metrics, weights and optimizer state, also after it is resumed."""
    base = make_random_model(tmp_path / "base")
    list(train(recipe(base, tmp_path / "local")))
    config = recipe(base, tmp_path / "ray", engine={"kind": "ray"})
    steps = train(config)
    next(steps), next(steps)
    steps.close()
    assert [report.step for report in train(config, resume=True)] == [3, 4]
    same_run(tmp_path / "ray", tmp_path / "local")


@pytest.mark.slow
def test_an_asynchronous_run_on_one_sampler_equals_the_local_twin_bit_for_bit(tmp_path):
    """Lives of two later steps are in flight when the run is stopped, and are in its checkpoint."""
    base, engine = make_random_model(tmp_path / "base"), {"mode": "async", "max_staleness": 2}
    list(train(recipe(base, tmp_path / "local", engine=engine)))
    config = recipe(base, tmp_path / "ray", engine=engine | {"kind": "ray"})
    steps = train(config)
    next(steps)
    steps.close()
    assert [report.step for report in train(config, resume=True)] == [2, 3, 4]
    same_run(tmp_path / "ray", tmp_path / "local")


@pytest.mark.slow
def test_with_lives_that_run_on_every_pack_is_trained_on_once_and_within_the_bound(tmp_path):
    engine = {"kind": "ray", "samplers": 2, "mode": "async", "max_staleness": 2}
    base = make_random_model(tmp_path / "base")
    config = recipe(base, tmp_path / "run", steps=6, engine=engine, sampler="continuous")
    steps = train(config)
    reports = [next(steps), next(steps), next(steps)]
    steps.close()
    reports += list(train(config, resume=True))
    lives = [life for report in reports for life in report.lives]
    assert [life.names for life in lives] == [
        ("train", 0, step, pack, g) for step in range(1, 7) for pack in range(2) for g in range(2)
    ]
    assert all(life.failure is None for life in lives)
    assert all(report.metrics.get("rollout/staleness_max", 0) <= 2 for report in reports)
    assert reports[0].metrics["time/samplers_busy"] > 0


def test_recorded_lives_have_the_gradients_of_a_local_engine(start, plan, tmp_path):
    local, ray = start(LocalEngine, plan), start(RayEngine, plan)
    write_lives(tmp_path / "lives.json", [local.rollout(jobs(), 60)])
    (lives,) = read_lives(tmp_path / "lives.json")
    for name, engine in (("local", local), ("ray", ray)):
        step_on(engine, batch_of(lives))
        engine.save(tmp_path / name)
    for one, other in zip(moments(tmp_path / "local"), moments(tmp_path / "ray"), strict=True):
        for mine, theirs in zip(one, other, strict=True):
            torch.testing.assert_close(mine, theirs, rtol=1e-6, atol=0)


@pytest.mark.slow
def test_with_lora_a_sync_ships_the_adapter_alone(start, plan, tmp_path):
    plan = replace(plan, learner=LearnerConfig(warmup_steps=0, lr=1e-2, lora={"rank": 2}))
    local, ray = start(LocalEngine, plan), start(RayEngine, plan)
    for engine in (local, ray):
        step_on(engine, batch_of(engine.rollout(jobs(), 60)))
    assert ray.rollout(jobs(), 60) == local.rollout(jobs(), 60)
    assert len(ray._first("flat_weights")) == local.first.learner.size < len(weights(local, tmp_path)) / 2


@pytest.mark.slow
@pytest.mark.parametrize("lora", [None, {"rank": 2}])
def test_two_learners_train_as_one(start, plan, tmp_path, lora):
    """With a KL penalty, whose reference they share too."""
    learner = LearnerConfig(warmup_steps=0, lr=1e-4, lora=lora, kl_coef=0.1)
    plan = replace(plan, learner=learner, reference=plan.model)
    one, two = start(RayEngine, plan), start(RayEngine, plan, 1, 2)
    for _ in range(3):
        batch = batch_of(one.rollout(jobs(), 60))
        refs = one.logprobs(batch, 60, reference=True)
        assert all(map(same_row, two.logprobs(batch, 60, reference=True), refs))
        batch = [replace(sample, ref_logprobs=row) for sample, row in zip(batch, refs, strict=True)]
        norms = [step_on(engine, batch)["train/grad_norm"] for engine in (one, two)]
        assert norms[1] == pytest.approx(norms[0], rel=1e-3)
    torch.testing.assert_close(weights(two, tmp_path / "two"), weights(one, tmp_path / "one"), rtol=0, atol=1e-4)


def same_row(row, other):
    return row == pytest.approx(other, rel=1e-5, abs=1e-5)


@pytest.mark.slow
def test_a_checkpoint_of_two_learners_is_loaded_by_one_and_by_three_and_back(start, plan, tmp_path):
    two, local = start(RayEngine, plan, 1, 2), start(LocalEngine, plan)
    batch = batch_of(two.rollout(jobs(), 60))
    step_on(two, batch)
    two.save(tmp_path / "of two")
    local.load(tmp_path / "of two", 1)
    local.save(tmp_path / "of one")
    two.close()
    three = start(RayEngine, plan, 1, 3)
    for name in ("of one", "of two"):
        three.load(tmp_path / name, 1)
        assert torch.equal(weights(three, tmp_path / "a"), weights(local, tmp_path / "b"))
        assert three.steps == 1
    assert step_on(three, batch)["train/grad_norm"] == pytest.approx(step_on(local, batch)["train/grad_norm"], rel=1e-5)


@pytest.mark.slow
def test_a_learner_that_fails_alone_stops_the_run_with_its_error(start, plan, tmp_path):
    """The first one cannot write, while the second one waits for it."""
    two = start(RayEngine, plan, 1, 2)
    (tmp_path / "run" / "model" / "model.safetensors").mkdir(parents=True)
    with pytest.raises((ValueError, OSError, RuntimeError), match=r"model\.safetensors"):
        two.save(tmp_path / "run")
    with pytest.raises(RuntimeError, match="a learner has failed, and the others wait for it"):
        two.optim_step(60)


@pytest.mark.slow
def test_a_run_of_two_learners_repeats_itself_when_it_is_resumed(tmp_path):
    base, engine = make_random_model(tmp_path / "base"), {"kind": "ray", "learners": 2}
    whole = list(train(recipe(base, tmp_path / "whole", engine=engine)))
    config = recipe(base, tmp_path / "run", engine=engine)
    steps = train(config)
    reports = [next(steps), next(steps)]
    steps.close()
    reports += list(train(config, resume=True))
    assert [report.metrics["train/grad_norm"] for report in reports] == [
        report.metrics["train/grad_norm"] for report in whole
    ]


def test_a_sampler_that_does_not_serve_the_new_weights_is_an_error(start, plan, registered_talk):
    learner = LearnerConfig(warmup_steps=0, lr=0.1)
    engine = start(RayEngine, replace(plan, make_sampler=registered_talk.forgetful, learner=learner))
    lives = engine.rollout(jobs(), 60)
    with pytest.raises(
        RuntimeError,
        match=r"sampler 0 does not serve the weights of version 1: its logprobs differ from the learner's by \d",
    ):
        step_on(engine, batch_of(lives))
    assert engine.version == 0


@pytest.mark.slow
def test_a_sampler_with_another_tokenizer_is_refused_before_it_samples(start, plan, registered_talk):
    with pytest.raises(ValueError, match="sampler 0 has another tokenizer than the learner; expected"):
        start(RayEngine, replace(plan, make_sampler=registered_talk.foreign))


@pytest.mark.slow
def test_actors_have_the_code_and_the_environment_of_the_driver(start, plan, registered_talk, monkeypatch):
    """The domain and the sampler are in modules of the current folder."""
    monkeypatch.setenv("CODOTS_TEST_WORD", "shipped")
    engine = start(RayEngine, replace(plan, make_sampler=registered_talk.lockstep_on_threads))
    assert [life.failure for life in engine.rollout(jobs(2), 60)] == [None, None]


@pytest.mark.slow
def test_environments_of_blocking_domains_are_in_processes_which_end_with_their_actor(start, plan, registry):
    from tests.rollout import slow_domains

    register(slow_domains.Process())
    engine = start(RayEngine, plan)
    lives = engine.rollout(jobs(3, domain="process-v0"), 60)
    pids = {episode.turns[0].observation for life in lives for episode in life.of("solve")}
    assert len(pids) == 3
    engine.close()
    assert all(gone(pid) for pid in pids)


def test_more_actors_than_the_cluster_has_are_one_line_with_what_would_fit(codots, tmp_path):
    ended = codots("train", "recipes/demo.yaml", f"run={tmp_path / 'run'}", "engine.kind=ray", "engine.samplers=9")
    assert (ended.code, ended.out) == (2, "")
    assert ended.err.splitlines()[-1] == (
        "codots: engine.samplers=9 and engine.learners=1 ask for 10 CPUs; the Ray cluster has 8; "
        "engine.samplers=7 would fit"
    )
    assert not (tmp_path / "run").exists()


def test_a_sampler_of_several_devices_has_them_on_one_machine(cluster):
    check_room(2, 2, "cpu", parts=3)
    for actors, line in (
        ((3, 1, "cpu", 3), "engine.samplers=3 of 3 each and engine.learners=1 ask for 10 CPUs; the Ray cluster has 8; "
         "engine.samplers=2 would fit"),
        ((1, 6, "cpu", 3), "ask for 9 CPUs; the Ray cluster has 8; engine.samplers=1 engine.learners=5 would fit"),
        ((1, 1, "cpu", 9), "ask for 10 CPUs; the Ray cluster has 8; no recipe of kind ray fits"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=line):
            check_room(*actors)


def test_the_doctor_looks_at_the_cluster(tmp_path):
    base = str(make_random_model(tmp_path / "base"))
    few, many = (
        TrainConfig(model=base, run=str(tmp_path / "run"), engine={"kind": "ray", "samplers": samplers})
        for samplers in (7, 8)
    )
    (found,) = check_cluster(few)
    assert (found.found, found.must) == ("started here: 8 CPUs, 0 GPUs on 1 machine", False)
    (found,) = [found for found in examine(many) if found.must]
    assert (found.what, found.found) == ("cluster", "check failed")
    assert found.change.endswith("the Ray cluster has 8; engine.samplers=7 would fit")

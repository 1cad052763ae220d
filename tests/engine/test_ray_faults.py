"""Ray: a sampler that dies or hangs is replaced, and everything else that fails ends with one error and its cause."""

import re
from dataclasses import replace

import pytest
import ray

from codots.domains.registry import register
from codots.engine import crew
from codots.engine.plan import continuous
from codots.engine.ray import RayEngine
from codots.training.train import train
from tests.engine.small import batch_of, jobs, make_plan, sampled_by, step_on
from tests.random_model import make_random_model
from tests.training.small import recipe

SECONDS = 250
"""Timeout of calls that may start a process."""
pytestmark = pytest.mark.usefixtures("cluster", "once")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Return a folder whose name the actors know, for the file that says that a fault has struck."""
    folder = tmp_path_factory.mktemp("faults")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CODOTS_TEST_ONCE", str(folder / "once"))
        yield folder


@pytest.fixture
def once(registry, folder):
    """Register the deadly domains, and let them strike once."""
    from tests.engine import registered  # registers its domains, for this test only

    for domain in (registered.DeadlyTalk, registered.DeadlyGuess, registered.RegisteredTalk):
        register(domain())
    (folder / "once").unlink(missing_ok=True)
    return folder / "once"


@pytest.fixture(scope="module")
def engine(cluster, folder, tmp_path_factory, tokenizer):
    """Return an engine that the last of its tests makes useless."""
    engine = RayEngine(make_plan(tmp_path_factory.mktemp("model"), tokenizer), 2)
    yield engine
    engine.close()


@pytest.mark.parametrize("fault", ["kill", pytest.param("stop", marks=pytest.mark.slow)])
def test_a_sampler_that_dies_or_hangs_in_the_middle_of_lives_is_replaced_and_the_lives_stay(
    engine, once, fault, monkeypatch, caplog
):
    """The new one serves the same version, and repeats its whole share, so that even the rounding is the same."""
    monkeypatch.setattr(crew, "HEARTBEAT_SECONDS", 3.0)
    batch = jobs(5, domain="deadly-talk-v0", preset=fault)
    once.touch()
    before = step_on(engine, batch_of(engine.rollout(batch, SECONDS)))["ray/restarts"]
    whole = engine.rollout(batch, SECONDS)
    once.unlink()
    assert engine.rollout(batch, SECONDS) == whole
    assert once.exists()
    assert re.search(r"sampler [01] died \(.+\); it is started again and repeats its calls", caplog.text)
    assert step_on(engine, batch_of(whole))["ray/restarts"] == before + 1


@pytest.mark.slow
def test_a_hanging_environment_is_a_timeout_that_names_the_stage(engine, once):
    with pytest.raises(TimeoutError, match="gave up after 2 s of rolling out 2 lives"):
        engine.rollout(jobs(2, domain="deadly-talk-v0", preset="hang"), 2)


def test_three_steps_with_a_killed_sampler_have_every_life_once(tmp_path, once):
    base = make_random_model(tmp_path / "base")
    engine = {"kind": "ray", "samplers": 2}
    config = recipe(
        base, tmp_path / "run", domain="deadly-guess-v0", preset="few", steps=3, eval_every=0, engine=engine
    )
    reports = list(train(config))
    assert once.exists()
    assert [report.metrics["ray/restarts"] for report in reports] == [0, 1, 1]
    names = [life.names for report in reports for life in report.lives]
    assert len(set(names)) == len(names) == 3 * 2 * 2
    for report in reports:
        assert [life.failure for life in report.lives] == [None] * 4
        assert report.metrics["tokens/sampled"] == sum(
            e.transcript.tokens for life in report.lives for e in life.episodes
        )


@pytest.mark.slow
def test_lives_in_flight_of_a_dead_sampler_are_lived_again(once, tmp_path, tokenizer):
    """It dies while two batches are in flight, and before or while new weights are served."""
    engine = RayEngine(replace(make_plan(tmp_path, tokenizer), make_sampler=continuous, in_flight=3), 2)
    for first in (0, 5):
        engine.submit(jobs(5, first, domain="deadly-talk-v0", preset="kill"), SECONDS)
    engine.sync(SECONDS)
    for first in (0, 5):
        lives = engine.collect(SECONDS)
        assert [(life.names, life.failure) for life in lives] == [(("test", first + i), None) for i in range(5)]
        assert all(sampled_by(life) <= {0, 1} for life in lives)
    assert once.exists()
    engine.close()


@pytest.mark.slow
def test_a_call_that_kills_every_sampler_is_one_error_with_its_cause(once, tmp_path, tokenizer):
    engine = RayEngine(make_plan(tmp_path, tokenizer))
    with pytest.raises(RuntimeError, match=r"sampler 0 died 3 times during the same call \(Worker .+\)"):
        engine.rollout(jobs(1, domain="deadly-talk-v0", preset="always"), SECONDS)
    engine.close()


def test_a_dead_learner_is_one_error_that_says_how_to_go_on(once, tmp_path, tokenizer):
    engine = RayEngine(make_plan(tmp_path, tokenizer))
    batch = batch_of(engine.rollout(jobs(), SECONDS))
    ray.kill(engine._learner.actors[0])
    with pytest.raises(
        RuntimeError, match=r"learner 0 died \(.+\); resume the run to continue from its last checkpoint"
    ):
        step_on(engine, batch)
    engine.close()

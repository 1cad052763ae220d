"""Worker processes: lives end one after another, a dead process is noticed, and close ends all of them."""

from dataclasses import replace

import pytest

from codots.domains.registry import register
from codots.engine.local import LocalEngine
from tests.engine.small import jobs, make_plan


@pytest.fixture(scope="module")
def plan(tmp_path_factory, tokenizer):
    return make_plan(tmp_path_factory.mktemp("model"), tokenizer)


@pytest.fixture(autouse=True)
def registered_talk(registry):
    from tests.engine.registered import RegisteredTalk

    register(RegisteredTalk())


def test_lives_end_all_along_if_the_sampler_cannot_serve_all_at_once(plan):
    """Otherwise every life waits for a place before each of its episodes, and all end last."""
    engine = LocalEngine(replace(plan, cache_bytes=1))
    ended, sampled = [], []
    engine.rollout(jobs(4), 60, lambda i, life: ended.append((i, engine.first.sampler.sampled_tokens)))
    assert engine.first.sampler.places == 1
    assert [i for i, _ in ended] == [0, 1, 2, 3]
    sampled = [count for _, count in ended]
    assert sampled[0] <= sampled[-1] / 2
    engine.close()


def test_a_dead_worker_raises_and_does_not_hang(plan):
    engine = LocalEngine(plan, workers=2)
    process, _ = engine._others[0]
    process.kill()
    process.join()
    for _ in range(2):
        with pytest.raises(RuntimeError, match="a worker process ended with exit code -9"):
            engine.rollout(jobs(2), 60)
    engine.close()


def test_close_stops_the_other_processes_and_may_be_repeated(plan):
    engine = LocalEngine(plan, workers=2)
    process, _ = engine._others[0]
    assert process.is_alive()
    engine.close()
    assert process.exitcode == 0
    engine.close()

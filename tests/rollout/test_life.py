"""Rollouts alternate solves and updates, record exact transcripts, and fail one life at a time."""

import asyncio
import re
import threading

import pytest

from codots.context.rewrite import Rewrite
from codots.core.rng import stream
from codots.domains.registry import make_pack, register
from codots.model.path import path_of
from codots.rollout.life import TRIES, Job, rollouts
from codots.rollout.profile import EpisodeParams
from codots.rollout.steps import FORMAT_PENALTY, Given, Own
from codots.sampler.base import SamplingParams
from codots.sampler.local import LocalSampler
from codots.sampler.scripted import ScriptedSampler
from tests.toy import Guess, GuessEnv, Talk

PARAMS = EpisodeParams("natural", SamplingParams(6), SamplingParams(9))
TIMEOUT = 60
"""Seconds after which a test fails as hanging."""


def adaptive_policy(names):
    """Return a policy that guesses by its context, else at random, and writes a hit into the context."""
    rng, update = stream(*names, "player"), names[-1] == "update"

    def solve(text):
        known = re.findall(r"It is (\d)\.", text)
        return known[-1] if known else str(rng.integers(4))

    def rewrite(text):
        hit = re.findall(r"## Reply \d+\n(\d)\n+## Outcome of the last reply\nyes", text)
        known = re.findall(r"It is (\d)\.", text)
        found = (hit or known)[-1:]
        return f"<context>{f'It is {found[0]}.' if found else ''}</context>"

    return rewrite if update else solve


def constant(solve, update="<context></context>"):
    """Return a policy factory with constant replies."""
    return lambda names: lambda text: update if names[-1] == "update" else solve


@pytest.fixture
def guess(registry):
    return register(Guess())


@pytest.fixture
def talk(registry):
    return register(Talk())


def jobs(id="guess-v0", lives=1, size=4, contexts=None, strategy=None):
    strategy = strategy or Rewrite()
    contexts = Own(strategy) if contexts is None else Given(strategy, tuple(contexts))
    return [Job(make_pack(id, "few", "dev", i, size), contexts, PARAMS, ("test", i)) for i in range(lives)]


def roll_out(jobs, sampler, render, **kwargs):
    async def bounded():
        return await asyncio.wait_for(rollouts(jobs, sampler, render, **kwargs), TIMEOUT)

    return asyncio.run(bounded())


# Lives.


@pytest.mark.parametrize("size", [1, 2, 5])
def test_a_life_of_s_tasks_has_s_solves_with_updates_between_them(guess, render, size):
    (life,) = roll_out(jobs(size=size), ScriptedSampler(render, adaptive_policy), render)
    expected = [(kind, j) for j in range(size) for kind in ("solve", "update")][:-1]
    assert [(episode.kind, episode.position) for episode in life.episodes] == expected
    assert life.failure is None
    assert (len(life.of("solve")), len(life.of("update"))) == (size, size - 1)


def test_each_solve_has_the_context_of_the_update_before_it(guess, render):
    (life,) = roll_out(jobs(size=6), ScriptedSampler(render, adaptive_policy), render)
    assert life.contexts[0] == ""
    assert list(life.contexts[1:]) == [update.written for update in life.of("update")]
    for solve, update in zip(life.of("solve"), life.of("update"), strict=False):
        assert update.context == solve.context


def test_a_life_keeps_using_what_it_found_out(guess, render):
    lives = roll_out(jobs(lives=8, size=8), ScriptedSampler(render, adaptive_policy), render)
    for life in lives:
        rewards = [episode.reward for episode in life.of("solve")]
        assert rewards == sorted(rewards)
        assert rewards[-1] == 1.0
    assert any(life.of("solve")[0].reward == 0.0 for life in lives)


def test_a_life_with_given_contexts_has_no_updates(guess, render):
    given = ("", "It is 1.", "It is 2.", "It is 1.")
    (life,) = roll_out(jobs(contexts=given), ScriptedSampler(render, adaptive_policy), render)
    assert life.of("update") == []
    assert life.contexts == given
    assert [episode.turns[0].reply for episode in life.of("solve")][1:] == ["1", "2", "1"]


def test_too_few_given_contexts_raise(guess, render):
    with pytest.raises(ValueError, match="3 contexts given for 4 tasks"):
        roll_out(jobs(contexts=("", "", "")), ScriptedSampler(render, adaptive_policy), render)


def record_of(episode):
    t = episode.transcript
    return (t.ids, t.mask, t.logprobs, t.versions, episode.reward, episode.turns, episode.stop)


def test_the_first_solve_equals_that_of_a_life_with_empty_contexts_bit_for_bit(talk, render, model):
    """The control arm must differ only where a context was written."""
    own, null = (
        roll_out(jobs("talk-v0", contexts=contexts), LocalSampler(model, render.stop_ids), render)[0]
        for contexts in (None, ("",) * 4)
    )
    assert record_of(own.of("solve")[0]) == record_of(null.of("solve")[0])
    assert len(own.of("solve")[0].turns) == 3


def test_the_first_solves_of_a_group_agree_in_every_id(talk, render, model):
    own, null = (
        roll_out(jobs("talk-v0", lives=5, contexts=contexts), LocalSampler(model, render.stop_ids), render)
        for contexts in (None, ("",) * 4)
    )
    for life, other in zip(own, null, strict=True):
        first, second = life.of("solve")[0].transcript, other.of("solve")[0].transcript
        assert first.ids == second.ids
        assert first.logprobs == pytest.approx(second.logprobs, abs=1e-4)


def test_lives_with_equal_names_are_equal_bit_for_bit(talk, render, model):
    first, again = (roll_out(jobs("talk-v0", lives=4), LocalSampler(model, render.stop_ids), render) for _ in range(2))
    assert first == again
    assert len({tuple(life.episodes[0].transcript.ids) for life in first}) == 4


# Transcripts.


class Tapped:
    """A sampler that records the inputs and outputs of every session."""

    def __init__(self, sampler):
        self.sampler, self.tapes = sampler, {}

    def session(self, names):
        return TappedSession(self.sampler.session(names), self.tapes.setdefault(names, []))


class TappedSession:
    def __init__(self, session, tape):
        self.session, self.tape = session, tape

    async def __aenter__(self):
        await self.session.__aenter__()
        return self

    async def __aexit__(self, *error):
        await self.session.__aexit__(*error)

    async def sample(self, ids, params):
        sampled = await self.session.sample(ids, params)
        self.tape.append((list(ids), params, sampled))
        return sampled


def test_a_transcript_is_exactly_the_prompt_ids_and_the_sampled_ids(talk, render, make_model):
    sampler = Tapped(LocalSampler(make_model(length=2048), render.stop_ids | set(range(0, 800, 7))))
    for life in roll_out(jobs("talk-v0", lives=3), sampler, render):
        for episode in life.episodes:
            tape = sampler.tapes[(*life.names, episode.position, episode.kind)]
            transcript = episode.transcript
            assert transcript.ids == [id for ids, _, sampled in tape for id in [*ids, *sampled.ids]]
            assert transcript.mask == [
                m for ids, _, sampled in tape for m in [False] * len(ids) + [True] * len(sampled.ids)
            ]
            assert [p for p, m in zip(transcript.logprobs, transcript.mask, strict=True) if m] == [
                p for _, _, sampled in tape for p in sampled.logprobs
            ]
            assert [turn.reply for turn in episode.turns] == [render.text(sampled.ids) for _, _, sampled in tape]
            assert {params for _, params, _ in tape} == {PARAMS.solve if episode.kind == "solve" else PARAMS.update}


def test_a_later_turn_reads_only_the_new_ids(talk, render, model):
    sampler = Tapped(LocalSampler(model, render.stop_ids))
    (life,) = roll_out(jobs("talk-v0", size=1), sampler, render)
    tape = sampler.tapes[("test", 0, 0, "solve")]
    turns = life.episodes[0].turns
    assert len(tape) == len(turns) == 3
    for before, (ids, _, _), turn in zip(tape, tape[1:], turns[1:], strict=False):
        assert ids == render.turn(turn.observation, before[2].stop)


def test_an_update_prompt_has_the_rules_the_turns_and_the_outcome(guess, render):
    sampler = Tapped(ScriptedSampler(render, constant("3")))
    (life,) = roll_out(jobs(size=2), sampler, render)
    solve, update = life.episodes[:2]
    prompt = update.turns[0].observation
    for part in (
        "Find the hidden number.",
        "Guess a number below 4.",
        solve.outcome,
        solve.stop,
        f"{solve.reward:.3f}",
    ):
        assert part in prompt


def test_a_hidden_reward_is_not_in_the_update_prompt(guess, render, monkeypatch):
    monkeypatch.setattr(Guess, "reveals_reward", False)
    (life,) = roll_out(jobs(size=2), ScriptedSampler(render, constant("3")), render)
    assert "Reward" not in life.of("update")[0].turns[0].observation


# Failures of the policy, which have rewards and are trained on.


def test_a_malformed_reply_has_the_domains_reward_and_is_trained_on(guess, render):
    (life,) = roll_out(jobs(size=2), ScriptedSampler(render, constant("one, I think")), render)
    for episode in life.of("solve"):
        assert (episode.stop, episode.reward, life.failure) == ("malformed", 0.0, None)
        assert render.text([i for i, m in zip(episode.transcript.ids, episode.transcript.mask, strict=True) if m]) == (
            "one, I think"
        )
        assert episode.transcript.sample(-1.0).advantages.count(-1.0) == episode.transcript.tokens > 0


@pytest.mark.parametrize(("choice", "left"), [("keep", "It is 2."), ("wipe", "")])
def test_a_malformed_update_is_penalized_and_keeps_or_wipes_the_context(guess, render, choice, left):
    def policies(names):
        if names[-2:] == (0, "update"):
            return lambda text: "<context>It is 2.</context>"
        return lambda text: "no tags" if names[-1] == "update" else "2"

    (life,) = roll_out(jobs(size=3, strategy=Rewrite(choice)), ScriptedSampler(render, policies), render)
    good, bad = life.of("update")
    assert (good.stop, good.reward, good.written) == ("ok", 0.0, "It is 2.")
    assert (bad.stop, bad.reward, bad.written) == ("malformed", -FORMAT_PENALTY, left)
    assert life.contexts == ("", "It is 2.", left)
    assert bad.transcript.tokens > 0
    assert "expected exactly one <context>" in bad.outcome


def test_a_prompt_longer_than_the_maximum_length_is_malformed(guess, render, make_model):
    lives = roll_out(jobs(lives=3, size=2), LocalSampler(make_model(length=32), render.stop_ids), render)
    for life in lives:
        assert life.failure is None
        for episode in life.episodes:
            assert episode.stop == "malformed"
            assert episode.transcript.tokens == 0


def test_an_episode_at_the_maximum_length_is_truncated_and_trained_on(talk, render, make_model):
    sizes = set()
    (life,) = roll_out(jobs("talk-v0", size=1), LocalSampler(make_model(length=256), render.stop_ids), render)
    enough = len(life.episodes[0].transcript.ids)
    for length in range(enough - 30, enough, 7):
        model = make_model(length=length)
        (life,) = roll_out(jobs("talk-v0", size=1), LocalSampler(model, render.stop_ids), render)
        assert life.failure is None
        sizes.add(len(life.episodes[0].transcript.ids))
        assert len(life.episodes[0].transcript.ids) <= length
        assert life.episodes[0].transcript.tokens > 0
    assert len(sizes) > 1


# Failures of the infrastructure, which are retried; then the life is missing.


class Flaky(Guess):
    """Its environments fail at chosen openings or steps, counted over the whole test."""

    id = "flaky-v0"

    def __init__(self, bad_openings=(), bad_steps=(), bad_world=None):
        self.bad_openings, self.bad_steps, self.bad_world = bad_openings, bad_steps, bad_world
        self.openings = self.steps = 0

    def make_env(self, task, *, style="natural", memory=None, rng):
        self.openings += 1
        if self.openings in self.bad_openings:
            raise ConnectionError("no answer")
        env = super().make_env(task, style=style, memory=memory, rng=rng)
        return FlakyEnv(env.hidden, env.view, self, task.world.names[-1] == self.bad_world)


class FlakyEnv(GuessEnv):
    def __init__(self, hidden, view, domain, bad):
        super().__init__(hidden, view)
        self.domain, self.bad = domain, bad

    def step(self, text):
        self.domain.steps += 1
        if self.bad or self.domain.steps in self.domain.bad_steps:
            raise TimeoutError("too slow")
        return super().step(text)


@pytest.mark.parametrize("faults", [{"bad_openings": (1,)}, {"bad_steps": (1, 3)}, {"bad_openings": (2, 4)}])
def test_a_life_is_retried_from_the_start_after_one_or_two_failures(registry, render, faults):
    register(Flaky())
    (expected,) = roll_out(jobs("flaky-v0"), ScriptedSampler(render, adaptive_policy), render)
    register(Flaky(**faults))
    (life,) = roll_out(jobs("flaky-v0"), ScriptedSampler(render, adaptive_policy), render)
    assert life == expected


def test_a_life_that_always_fails_is_missing_with_the_reason(registry, render):
    domain = register(Flaky(bad_openings=(2, 4, 6, 8)))
    (life,) = roll_out(jobs("flaky-v0"), ScriptedSampler(render, constant("0")), render)
    assert life.episodes == ()
    assert life.failure == "ConnectionError: no answer"
    assert domain.openings == 2 * TRIES


def test_one_failing_life_does_not_stop_the_others(registry, render, model):
    register(Flaky(bad_world=2))
    for sampler in (
        ScriptedSampler(render, adaptive_policy),
        LocalSampler(model, frozenset(range(0, 900, 3)), max_sessions=3),
    ):
        ended = []
        lives = roll_out(jobs("flaky-v0", lives=5), sampler, render, on_life=lambda *life: ended.append(life))  # noqa: B023
        assert [life.failure for life in lives] == [None, None, "TimeoutError: too slow", None, None]
        assert [len(life.episodes) for life in lives] == [7, 7, 0, 7, 7]
        assert sorted(index for index, _ in ended) == list(range(5))
        assert all(lives[index] == life for index, life in ended)
        assert [life.names for life in lives] == [("test", i) for i in range(5)]


def test_a_failing_sampler_leaves_the_lives_missing_and_does_not_hang(guess, render, model):
    class Broken:
        config, calls, dtype, device, forward_path = model.config, 0, model.dtype, model.device, path_of(model)
        set_attn_implementation = model.set_attn_implementation
        modules = model.modules

        def __call__(self, **inputs):
            self.calls += 1
            raise MemoryError("no room")

    lives = roll_out(jobs(lives=3), LocalSampler(Broken(), render.stop_ids, max_sessions=2), render)
    assert [life.failure for life in lives] == ["MemoryError: no room"] * 3


def test_an_exception_in_on_life_is_raised(guess, render):
    def on_life(index, life):
        raise KeyError("a bug")

    with pytest.raises(KeyError, match="a bug"):
        roll_out(jobs(), ScriptedSampler(render, adaptive_policy), render, on_life=on_life)


def test_a_blocking_domain_steps_in_a_thread(guess, render, monkeypatch):
    threads, step = [], GuessEnv.step

    def spy(self, text):
        threads.append(threading.current_thread() is threading.main_thread())
        return step(self, text)

    monkeypatch.setattr(GuessEnv, "step", spy)
    (direct,) = roll_out(jobs(size=2), ScriptedSampler(render, adaptive_policy), render)
    assert set(threads) == {True}
    threads.clear()
    monkeypatch.setattr(Guess, "blocking", True)
    (threaded,) = roll_out(jobs(size=2), ScriptedSampler(render, adaptive_policy), render)
    assert set(threads) == {False}
    assert direct == threaded


def test_a_life_is_missing_after_a_step_timeout(guess, render, monkeypatch):
    """The abandoned thread must delay neither the other lives nor the end of the process."""
    release, step = threading.Event(), GuessEnv.step

    def slow(self, text):
        if self.hidden == lost:
            release.wait()
        return step(self, text)

    monkeypatch.setattr(Guess, "blocking", True)
    monkeypatch.setattr(Guess, "step_timeout", 0.05)
    monkeypatch.setattr(GuessEnv, "step", slow)
    batch = jobs(lives=6, size=2)
    lost = batch[0].pack.world.hidden
    lives = roll_out(batch, ScriptedSampler(render, adaptive_policy), render)
    for job, life in zip(batch, lives, strict=True):
        failure = "TimeoutError: the environment did not answer within 0.05 s"
        assert life.failure == (failure if job.pack.world.hidden == lost else None)
    assert any(life.failure is None for life in lives)
    release.set()


def test_a_timeout_raised_by_the_environment_keeps_its_message(guess, render, monkeypatch):
    def refuse(self, text):
        raise TimeoutError("the shop is closed")

    monkeypatch.setattr(Guess, "blocking", True)
    monkeypatch.setattr(GuessEnv, "step", refuse)
    (life,) = roll_out(jobs(), ScriptedSampler(render, adaptive_policy), render)
    assert life.failure == "TimeoutError: the shop is closed"

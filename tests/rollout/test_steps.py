"""A life stepped one call at a time, with pickling in between, equals the life of a rollout."""

import asyncio
import pickle
from dataclasses import replace
from itertools import cycle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codots.context.rewrite import Rewrite, Trajectory, Turn
from codots.core.transcript import Sampled, StopReason, Transcript
from codots.domains.base import Step
from codots.domains.registry import make_pack
from codots.model.alphabet import END, make_render
from codots.rollout.life import Job, rollouts
from codots.rollout.profile import EpisodeParams
from codots.rollout.steps import FORMAT_PENALTY, Episode, Given, LifeSteps, Own, SolveSteps, UpdateSteps, prompt_record
from codots.sampler.base import SamplingParams
from codots.sampler.local import LocalSampler
from codots.sampler.scripted import scripted
from tests.rollout.test_life import Tapped
from tests.toy import Guess, Talk

PARAMS = EpisodeParams("natural", SamplingParams(6), SamplingParams(9))
LETTERS = make_render()


@pytest.fixture(autouse=True)
def domains(registry):
    registry |= {domain.id: domain for domain in (Guess(), Talk())}


def stepped_life(job, answer, render):
    """Step a life call by call, pickling its state before each; yield None per call, and each finished episode."""
    state = pickle.dumps(LifeSteps(job.contexts, job.params, len(job.pack.tasks)))
    for task in job.pack.tasks:
        env = task.env(style=job.params.style)
        life = pickle.loads(state)
        life.solve(task.position, task.domain.rules_text(task, job.params.style), env.observe())
        while True:
            state = pickle.dumps(life)
            yield None
            life = pickle.loads(state)
            if life.due == "next_ids":
                ids = life.episode.next_ids(render)
            elif life.due == "reply":
                sampled = answer(life.episode, ids)
                action = life.episode.reply(sampled, render.text(sampled.ids))
            elif life.due == "observe":
                life.episode.observe(env.step(action))
            elif life.due == "update":
                yield life.episode.finish()
                if life.update(task.domain.reveals_reward) is None:
                    break
            else:
                yield life.episode.finish()
                break
        state = pickle.dumps(life)


def interleaved(lives):
    """Interleave lives call by call until all are over; return the episodes of each."""
    episodes, left = [[] for _ in lives], dict(enumerate(lives))
    while left:
        for i in list(left):
            try:
                if (episode := next(left[i])) is not None:
                    episodes[i].append(episode)
            except StopIteration:
                del left[i]
    return [tuple(found) for found in episodes]


def from_tape(tapes, job):
    """Return the recorded samples, and check that the same ids are read."""
    left = {names: iter(tape) for names, tape in tapes.items()}

    def answer(episode, ids):
        kind = "solve" if isinstance(episode, SolveSteps) else "update"
        read, params, sampled = next(left[(*job.names, episode.position, kind)])
        assert (ids, episode.sampling) == (read, params)
        return sampled

    return answer


@pytest.mark.parametrize("id", ["talk-v0", "guess-v0"])
@pytest.mark.parametrize("contexts", [Own(Rewrite()), Given(Rewrite(), ("", "It is 1.", "", "up"))])
def test_stepped_lives_equal_those_of_a_rollout(render, make_model, id, contexts):
    sampler = Tapped(LocalSampler(make_model(length=2048), render.stop_ids | set(range(0, 800, 7))))
    jobs = [Job(make_pack(id, "few", "dev", i, 4), contexts, PARAMS, ("test", i)) for i in range(3)]
    lives = asyncio.run(rollouts(jobs, sampler, render))
    assert len(lives[0].episodes) == (7 if isinstance(contexts, Own) else 4)
    assert interleaved([stepped_life(job, from_tape(sampler.tapes, job), render) for job in jobs]) == [
        life.episodes for life in lives
    ]


def plain_life(job, answer, render):
    """Roll out a life in one plain loop, as a reference."""
    strategy, params, z, episodes = job.contexts.strategy, job.params, "", []

    def ask(transcript, ids):
        sampled = answer(None, ids)
        if sampled.ids or sampled.stop is not StopReason.FULL:
            transcript.read(ids)
            transcript.wrote(sampled)
        return render.text(sampled.ids), sampled.stop

    for j, task in enumerate(job.pack.tasks):
        if isinstance(job.contexts, Given):
            z = job.contexts.contexts[j]
        env, rules = task.env(), task.domain.rules_text(task, "natural")
        seen, turns, transcript = env.observe(), [], Transcript()
        prompt = strategy.solve(rules, z, seen, "natural")
        ids = render.opening(prompt.system, prompt.user)
        while True:
            text, stop = ask(transcript, ids)
            turns.append(Turn(seen, text))
            step = env.step(text.rpartition("</think>")[2])
            seen = step.observation
            if step.done:
                break
            ids = render.turn(seen, stop)
        episodes.append(
            Episode("solve", j, step.reward, z, None, step.stop or "done", tuple(turns), seen, transcript, stop.value)
        )
        episodes[-1] = replace(episodes[-1], prompt=prompt_record(prompt, "natural", strategy))
        if isinstance(job.contexts, Given) or j + 1 == len(job.pack.tasks):
            continue
        trajectory = Trajectory(rules, tuple(turns), seen, step.reward, step.feedback)
        prompt, transcript = strategy.prompt(trajectory, z, params.style), Transcript()
        text, end = ask(transcript, render.opening(prompt.system, prompt.user))
        parsed = strategy.parse(text.rpartition("</think>")[2], z)
        reward, stop = (-FORMAT_PENALTY, "malformed") if parsed.failure else (0.0, "ok")
        turns, outcome = (Turn(prompt.user, text),), parsed.failure or ""
        episodes.append(Episode("update", j, reward, z, parsed.context, stop, turns, outcome, transcript, end.value))
        episodes[-1] = replace(episodes[-1], prompt=prompt_record(prompt, params.style, strategy))
        z = parsed.context
    return tuple(episodes)


WORDS = st.sampled_from(["1", "2", "", "one", "</think>1", "<think>0</think>2", "<context>It is 1.</context>"])
ANSWERS = st.lists(st.tuples(WORDS, st.sampled_from(StopReason)), min_size=1, max_size=9)


@given(
    answers=ANSWERS,
    id=st.sampled_from(["talk-v0", "guess-v0"]),
    contexts=st.sampled_from([Own(Rewrite()), Own(Rewrite("wipe", 9)), Given(Rewrite(), ("", "a", "b"))]),
)
def test_a_stepped_life_equals_that_of_a_plain_loop_for_any_replies(answers, id, contexts):
    def answering():
        script = cycle(answers)

        def answer(episode, prompt_ids):
            text, stop = next(script)
            ids = [*map(ord, text), *([END] if stop is StopReason.STOP else [])]
            return Sampled(ids, [-1.0] * len(ids), stop, [3] * len(ids))

        return answer

    job = Job(make_pack(id, "few", "dev", 0, 3), contexts, PARAMS, ("test",))
    (stepped,) = interleaved([stepped_life(job, answering(), LETTERS)])
    assert stepped == plain_life(job, answering(), LETTERS)


# Single episodes and lives.


def solving(observation="Guess.", context="", strategy=None):
    return SolveSteps(0, "Find it.", observation, context, strategy or Rewrite(), PARAMS)


def updating(context="old", strategy=None):
    trajectory = Trajectory("Find it.", (Turn("Guess.", "1"),), "no", 0.0, "late")
    return UpdateSteps(0, trajectory, context, strategy or Rewrite(), PARAMS)


def reply(steps, text, render=LETTERS):
    steps.next_ids(render)
    return steps.reply(scripted(text, render), text)


OVER = Step("yes", 1.0, True, "You found it.", "hit")
NO_ROOM = Sampled([], [], StopReason.FULL, [])


def read_by(steps):
    """Return the text of the next ids."""
    return LETTERS.text(steps.next_ids(LETTERS))


def test_a_life_without_end_keeps_updating_its_context():
    life = LifeSteps(Own(Rewrite()), PARAMS)
    for day in range(3):
        solve = life.solve(day, "Find it.", "Guess.")
        assert solve.context == ("" if day == 0 else f"day {day - 1}")
        assert reply(solve, f"<think>2?</think>{day}") == str(day)
        solve.observe(OVER)
        assert reply(life.update(reveals_reward=True), f"<context>day {day}</context>")
        assert life.due == "solve"


def test_there_is_no_update_after_the_last_task_or_with_given_contexts():
    for contexts, context in ((Own(Rewrite()), ""), (Given(Rewrite(), ("a", "b")), "b")):
        life = LifeSteps(contexts, PARAMS, tasks=2)
        solve = life.solve(1, "Find it.", "Guess.")
        reply(solve, "1")
        solve.observe(OVER)
        assert (solve.context, life.update(reveals_reward=True), life.due) == (context, None, "solve")


def test_a_trajectory_has_the_reward_only_if_revealed():
    solve = solving()
    reply(solve, "1")
    solve.observe(OVER)
    turns = (Turn("Guess.", "1"),)
    assert solve.trajectory(reveals_reward=True) == Trajectory("Find it.", turns, "yes", 1.0, "You found it.")
    assert solve.trajectory(reveals_reward=False) == Trajectory("Find it.", turns, "yes", None, "You found it.")


def test_solves_and_updates_have_their_own_sampling_params():
    assert (solving().sampling, updating().sampling) == (PARAMS.solve, PARAMS.update)


def test_an_episode_without_a_stop_word_is_done():
    solve = solving()
    reply(solve, "1")
    solve.observe(Step("", 0.5, done=True))
    assert (solve.finish().stop, solve.finish().reward) == ("done", 0.5)


def test_an_opening_that_does_not_fit_leaves_an_empty_transcript():
    solve = solving()
    solve.next_ids(LETTERS)
    assert solve.reply(NO_ROOM, "") == ""
    solve.observe(Step("", 0.0, True, "not a number", "malformed"))
    episode = solve.finish()
    assert (episode.transcript, episode.stop, episode.turns) == (Transcript(), "malformed", (Turn("Guess.", ""),))


def test_a_turn_that_does_not_fit_is_left_out_and_the_next_one_ends_the_reply():
    solve = solving()
    reply(solve, "1")
    solve.observe(Step("no", 0.0, done=False))
    before = list(solve.transcript.ids)
    lost = solve.next_ids(LETTERS)
    solve.reply(NO_ROOM, "")
    assert solve.transcript.ids == before
    solve.observe(Step("no", 0.0, done=False))
    assert solve.next_ids(LETTERS) == [END, *lost]


def test_a_truncated_reply_is_recorded():
    solve = solving()
    ids = solve.next_ids(LETTERS)
    solve.reply(Sampled([ord("1")], [-2.0], StopReason.FULL, [7]), "1")
    n = len(ids)
    expected = Transcript([*ids, ord("1")], [False] * n + [True], [0.0] * n + [-2.0], [0] * n + [7])
    assert solve.transcript == expected


@pytest.mark.parametrize(("choice", "left"), [("keep", "old"), ("wipe", "")])
@pytest.mark.parametrize("text", ["no tags", "<context>thought</context></think>", ""])
def test_a_malformed_update_is_penalized_and_keeps_or_wipes_the_context(choice, left, text):
    update = updating(strategy=Rewrite(choice))
    reply(update, text)
    episode = update.finish()
    assert (episode.stop, episode.reward, episode.context, episode.written) == (
        "malformed",
        -FORMAT_PENALTY,
        "old",
        left,
    )
    assert "expected exactly one <context>" in episode.outcome
    assert episode.turns[0].reply == text
    assert episode.transcript.tokens == len(text) + 1


def test_the_first_ids_are_the_strategys_prompt_and_later_ones_only_the_new_turn():
    solve, prompt = solving(context="It is 2."), Rewrite().solve("Find it.", "It is 2.", "Guess.", "natural")
    assert read_by(solve) == LETTERS.text(LETTERS.opening(prompt.system, prompt.user))
    solve.reply(scripted("1", LETTERS), "1")
    solve.observe(Step("no", 0.0, done=False))
    assert solve.next_ids(LETTERS) == LETTERS.turn("no", StopReason.STOP)


CALLS = {
    "next_ids": lambda steps: steps.next_ids(LETTERS),
    "reply": lambda steps: steps.reply(scripted("1", LETTERS), "1"),
    "observe": lambda steps: steps.observe(OVER),
    "finish": lambda steps: steps.finish(),
}


@pytest.mark.parametrize("make", [solving, updating])
def test_a_call_out_of_order_raises_and_changes_nothing(make):
    steps, due = make(), [call for call in CALLS if hasattr(make(), call)]
    for now in due:
        assert (steps.due, steps.done) == (now, now == "finish")
        before = pickle.dumps(steps)
        for call in due:
            if call != now:
                with pytest.raises(RuntimeError, match=f"^{call} was called out of order; expected {now}$"):
                    CALLS[call](steps)
        assert pickle.dumps(steps) == before
        CALLS[now](steps)
    assert steps.finish() == steps.finish()


def test_the_trajectory_of_an_unfinished_episode_raises():
    with pytest.raises(RuntimeError, match=r"^trajectory was called out of order; expected next_ids$"):
        solving().trajectory(reveals_reward=True)


def test_a_life_opens_no_episode_before_the_last_one_is_finished():
    life = LifeSteps(Own(Rewrite()), PARAMS)

    def refused(call, due):
        assert life.due == due
        with pytest.raises(RuntimeError, match=f"^{call} was called out of order; expected {due}$"):
            life.update(reveals_reward=True) if call == "update" else life.solve(1, "Find it.", "Guess.")

    refused("update", "solve")
    solve = life.solve(0, "Find it.", "Guess.")
    refused("solve", "next_ids")
    refused("update", "next_ids")
    reply(solve, "1")
    refused("update", "observe")
    solve.observe(OVER)
    refused("solve", "update")
    update = life.update(reveals_reward=True)
    refused("update", "next_ids")
    reply(update, "<context></context>")
    refused("update", "solve")


def test_an_episode_can_be_pickled_even_if_the_view_cannot():
    solve = solving()
    for done in (False, True):
        reply(solve, "1")
        solve.observe(Step("no", 0.0, done, view=lambda: None))
        assert pickle.loads(pickle.dumps(solve)).due == solve.due

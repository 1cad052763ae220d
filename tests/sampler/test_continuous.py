"""The continuous sampler answers like lockstep, waits for no idle session, and takes other weights at any time."""

import asyncio

import pytest
import torch

from codots.core.rng import stream
from codots.core.transcript import Sampled, StopReason, Transcript
from codots.sampler.base import SamplingParams
from codots.sampler.cache import bytes_per_id, shares
from codots.sampler.continuous import ContinuousSampler
from codots.sampler.local import LocalSampler
from tests.sampler.talks import (
    STOPS,
    Counting,
    Faulty,
    assert_scored_by,
    live,
    not_finite,
    numbers,
    out_of_memory,
    plan,
    run,
    serves,
    talk,
)

NEVER = frozenset()
"""Stop ids of a model that always goes on to its limit."""


def prompts(name, count, length):
    """Draw prompts that begin unlike each other."""
    return stream("continuous", name).integers(0, 800, (count, length)).tolist()


async def say(session, transcript, ids, max_tokens):
    """Take one turn."""
    answer = await session.sample(ids, SamplingParams(max_tokens))
    transcript.read(ids)
    transcript.wrote(answer)
    return answer


async def until(holds):
    """Let the others run until something holds."""
    while not holds():
        await asyncio.sleep(0)


@pytest.mark.parametrize("temperature", [1.0, 0.7, 0.0])
@pytest.mark.parametrize("prefill_budget", [3, 40, 2048])
@pytest.mark.parametrize("max_sessions", [1, 3, 12])
def test_sessions_sample_the_ids_of_lockstep(model, max_sessions, prefill_budget, temperature):
    sessions = plan(12, temperature)
    expected = live(LocalSampler(model, STOPS), sessions)
    sampler = ContinuousSampler(model, STOPS, max_sessions=max_sessions, prefill_budget=prefill_budget)
    for name, (transcript, answers) in live(sampler, sessions).items():
        there = expected[name][0]
        assert (transcript.ids, transcript.mask, transcript.versions) == (there.ids, there.mask, there.versions)
        assert transcript.logprobs == pytest.approx(there.logprobs, abs=1e-4)
        assert [answer.stop for answer in answers] == [answer.stop for answer in expected[name][1]]
        assert_scored_by(model, transcript, temperature or 1.0)


def test_equal_seeds_give_equal_numbers_bit_for_bit(model):
    first = numbers(live(ContinuousSampler(model, STOPS, max_sessions=5), plan(10)))
    used = ContinuousSampler(model, STOPS, max_sessions=5)
    live(used, plan(7))
    for sampler in (ContinuousSampler(model, STOPS, max_sessions=5), used):
        assert numbers(live(sampler, plan(10))) == first


@pytest.mark.parametrize("max_sessions", [1, 2, 12])
def test_a_session_that_sleeps_holds_nobody_up(model, max_sessions):
    sampler, others = ContinuousSampler(model, STOPS, max_sessions=max_sessions), plan(6)
    sleeping = Transcript()

    async def sleeper(all_done):
        async with sampler.session(("sleeper",)) as session:
            await say(session, sleeping, [1, 2, 3], 4)
            await all_done.wait()
            await say(session, sleeping, [4, 5], 4)

    async def all_at_once():
        all_done = asyncio.Event()
        task = asyncio.create_task(sleeper(all_done))
        held = await asyncio.gather(*(talk(sampler, name, turns) for name, turns in others.items()))
        assert not task.done()
        all_done.set()
        await task
        return dict(zip(others, held, strict=True))

    expected = live(LocalSampler(model, STOPS), others)
    assert {name: t.ids for name, (t, _) in run(all_at_once()).items()} == {n: t.ids for n, (t, _) in expected.items()}
    assert_scored_by(model, sleeping)


def test_a_session_that_sleeps_costs_the_others_no_forward_pass(model):
    def passes(sleepers):
        counting = Counting(model)
        sampler = ContinuousSampler(counting, NEVER)

        async def all_at_once():
            done = asyncio.Event()

            async def sleeper(i):
                async with sampler.session(("sleeper", i)) as session:
                    await session.sample([i + 1], SamplingParams(1))
                    await done.wait()

            tasks = [asyncio.create_task(sleeper(i)) for i in range(sleepers)]
            await asyncio.gather(*(talk(sampler, ("life", i), [([9], SamplingParams(7))] * 3) for i in range(4)))
            done.set()
            await asyncio.gather(*tasks)

        run(all_at_once())
        return len(counting.passes)

    assert passes(sleepers=3) == passes(sleepers=0) == 21


def test_the_session_idle_longest_is_evicted_and_comes_back_with_its_ids(model):
    counting = Counting(model)
    sampler = ContinuousSampler(counting, NEVER, max_sessions=2)
    transcripts = [Transcript() for _ in range(3)]
    prompt = prompts("evicted", 3, 20)

    async def in_turn():
        async with (
            sampler.session(("life", 0)) as one,
            sampler.session(("life", 1)) as two,
            sampler.session(("life", 2)) as three,
        ):
            for session, transcript, ids in zip((one, two), transcripts, prompt, strict=False):
                await say(session, transcript, ids, 3)
            await say(one, transcripts[0], [7], 3)
            counting.passes.clear()
            await say(three, transcripts[2], prompt[2], 3)
            await say(one, transcripts[0], [8], 3)
            await say(two, transcripts[1], [9], 3)
        return counting.passes

    # The first reads its last id and one more; the second, which was evicted, all of its 20 + 3 + 1.
    assert run(in_turn()) == [20, 1, 1, 2, 1, 1, 24, 1, 1]
    for transcript in transcripts:
        assert_scored_by(model, transcript)


def test_idle_sessions_without_end_block_no_new_one(model):
    sampler = ContinuousSampler(model, NEVER, max_sessions=2)
    transcripts = [Transcript() for _ in range(9)]

    async def all_open():
        sessions = [sampler.session(("life", i)) for i in range(9)]
        for session in sessions:
            await session.__aenter__()
        for _ in range(2):
            for i, session in enumerate(sessions):
                await say(session, transcripts[i], [i + 1] * (i + 1), 3)
        for session in sessions:
            await session.__aexit__()

    run(all_open())
    for transcript in transcripts:
        assert_scored_by(model, transcript)


@pytest.mark.parametrize("places", [0, 1, 3])
def test_the_cache_stays_within_its_bytes(model, places):
    whole = model.config.max_position_embeddings * bytes_per_id(model)
    sampler = ContinuousSampler(model, STOPS, cache_bytes=places * whole + whole // 2)
    assert len(live(sampler, plan(8))) == 8
    stores = [store for layer in sampler._cache.layers for store in layer]
    assert sum(store.nbytes for store in stores) <= max(1, places) * whole


def test_requests_without_a_slot_are_served_in_the_order_in_which_they_came(model):
    sampler, order = ContinuousSampler(model, NEVER, max_sessions=1), []

    async def one(i):
        async with sampler.session(("life", i)) as session:
            for turn in range(3):  # asks again at once: who holds the slot has no right to it
                await session.sample([i + 1] * 4, SamplingParams(3))
                order.append((turn, i))

    async def all_at_once():
        await asyncio.gather(*map(one, range(4)))

    run(all_at_once())
    assert order == [(turn, i) for turn in range(3) for i in range(4)]


@pytest.mark.parametrize("company", [0, 1], ids=["alone", "beside a long prompt"])
@pytest.mark.parametrize(("max_sessions", "prefill_budget"), [(2, 2048), (3, 24), (8, 24), (8, 2048)])
def test_no_session_waits_more_than_twice_as_long_as_another_of_the_same_work(
    model, max_sessions, prefill_budget, company
):
    counting = Counting(model)
    sampler = ContinuousSampler(counting, NEVER, max_sessions=max_sessions, prefill_budget=prefill_budget)
    waits = dict.fromkeys(range(6), 0)
    prompt = prompts("fair", 6, 30)

    async def one(i):
        async with sampler.session(("life", i)) as session:
            for _ in range(4):
                asked = len(counting.passes)
                await session.sample(prompt[i], SamplingParams(5))
                waits[i] += len(counting.passes) - asked

    async def all_at_once():
        long = [([5, *range(200)], SamplingParams(40))]
        await asyncio.gather(*map(one, waits), *(talk(sampler, ("long", i), long) for i in range(company)))

    run(all_at_once())
    assert min(waits.values()) >= 4 * 5
    assert max(waits.values()) <= 2 * min(waits.values())


def test_a_long_prompt_is_read_beside_the_answers_of_others_and_stalls_none(model):
    counting = Counting(model)
    sampler = ContinuousSampler(counting, NEVER, prefill_budget=16)
    (prompt,) = prompts("long", 1, 160)

    async def both():
        async def short():
            held = await talk(sampler, ("short",), [([1], SamplingParams(30))])
            return held[0], len(counting.passes)

        return await asyncio.gather(short(), talk(sampler, ("long",), [(prompt, SamplingParams(5))]))

    (short, passes), (long, _) = run(both())
    assert passes == 30  # one for each id, as if it were alone
    assert counting.passes == [16] + [16 + 1] * 9 + [2] * 5 + [1] * 15
    for transcript in (short, long):
        assert_scored_by(model, transcript)


def test_a_budget_is_shared_out_evenly_and_gives_everybody_something():
    assert shares([5, 100, 1, 100], 46) == [5, 20, 1, 20]
    assert shares([5, 100, 1], 2048) == [5, 100, 1]
    assert shares([9, 9, 9], 1) == [1, 1, 1]
    assert shares([], 7) == []


@pytest.mark.parametrize("prefill_budget", [16, 2048])
def test_what_openings_share_is_read_once_even_when_it_takes_several_passes(model, prefill_budget):
    counting = Counting(model)
    sampler = ContinuousSampler(counting, NEVER, prefill_budget=prefill_budget)
    (prompt,) = prompts("shared", 1, 120)
    held = live(sampler, {("life", i): [([*prompt, i], SamplingParams(3))] for i in range(4)})
    for transcript, _ in held.values():
        assert_scored_by(model, transcript)
    extra = counting.ids - (120 + 4 + 4 * 2)  # beyond the prompt once, and what each reads alone
    assert extra == 0 if prefill_budget == 2048 else extra <= 4 * 120 / 16


def test_a_branch_goes_on_from_where_its_session_stood(model):
    counting = Counting(model)
    sampler = ContinuousSampler(counting, NEVER)
    here, there = Transcript(), Transcript()

    async def branching():
        async with sampler.session(("trunk",)) as trunk:
            await say(trunk, here, [5, 6, 7] * 10, 4)
            there.read(here.ids)
            async with trunk.fork(("branch",)) as branch:
                await asyncio.gather(say(trunk, here, [8, 9], 4), say(branch, there, [8, 9], 4))

    run(branching())
    assert here.ids[-4:] != there.ids[-4:]
    for transcript in (here, there):
        assert_scored_by(model, transcript)
    assert counting.ids == 30 + 3 + 2 * (1 + 2) + 2 * 3  # nothing was read twice


def continued(old, new, ids, cached):
    """Score ids by weights that go on from keys and values of others."""
    with torch.no_grad():
        cache = old(input_ids=torch.tensor([ids[:cached]]), use_cache=True).past_key_values
        logits = new(input_ids=torch.tensor([ids[cached:-1]]), past_key_values=cache, use_cache=True).logits[0]
    return logits.log_softmax(-1)


def off(model, transcript):
    """Whether a model's plain forward pass differs from what the new weights told."""
    try:
        assert_scored_by(model, transcript, version=1)
    except AssertionError:
        return True
    return False


@pytest.mark.parametrize("prefill_budget", [8, 2048])
def test_weights_that_come_between_turns_read_dropped_sessions_again_and_go_on_from_kept_caches(
    model, make_model, prefill_budget
):
    old, new = make_model(), make_model(seed=1)
    sampler = ContinuousSampler(model, NEVER, prefill_budget=prefill_budget)
    dropped, kept = Transcript(), Transcript()
    (prompt,) = prompts("weights", 1, 25)

    async def both():
        async with sampler.session(("dropped",)) as one, sampler.session(("kept",), keep_cache=True) as other:
            await asyncio.gather(say(one, dropped, prompt, 6), say(other, kept, prompt, 6))
            await sampler.load(new.state_dict(), 1)
            await asyncio.gather(say(one, dropped, [3, 4], 6), say(other, kept, [3, 4], 6))

    run(both())
    for transcript in (dropped, kept):
        assert transcript.versions == [0] * 31 + [0] * 2 + [1] * 6
        assert_scored_by(old, transcript, version=0)
    assert_scored_by(new, dropped, version=1)
    logprobs = continued(old, new, kept.ids, cached=30)
    expected = [logprobs[at - 30, kept.ids[at + 1]].item() for at in range(32, 38)]
    assert kept.logprobs[-6:] == pytest.approx(expected, abs=1e-4)
    assert off(new, kept)
    assert off(old, kept)


@pytest.mark.parametrize("keep_cache", [False, True], ids=["dropped", "kept"])
def test_weights_that_come_in_the_middle_of_an_answer_sample_the_rest_of_it(model, make_model, keep_cache):
    old, new = make_model(), make_model(seed=1)
    counting = Counting(model)
    sampler, transcript = ContinuousSampler(counting, NEVER), Transcript()
    (prompt,) = prompts("middle", 1, 25)

    async def load():
        await until(lambda: len(counting.passes) == 4)
        await sampler.load(new.state_dict(), 1)

    async def talks():
        async with sampler.session(("life",), keep_cache=keep_cache) as session:
            await say(session, transcript, prompt, 10)

    async def both():
        await asyncio.gather(talks(), load())

    run(both())
    assert transcript.versions == [0] * (25 + 4) + [1] * 6
    assert_scored_by(old, transcript, version=0)
    if keep_cache:
        assert counting.passes == [25] + [1] * 9
        logprobs = continued(old, new, transcript.ids, cached=28)
        expected = [logprobs[at - 28, transcript.ids[at + 1]].item() for at in range(28, 34)]
        assert transcript.logprobs[-6:] == pytest.approx(expected, abs=1e-4)
        assert off(new, transcript)
    else:
        assert counting.passes == [25, 1, 1, 1, 29, 1, 1, 1, 1, 1]
        assert_scored_by(new, transcript, version=1)


@pytest.mark.parametrize("keep_cache", [False, True], ids=["dropped", "kept"])
def test_weights_that_come_while_a_prompt_is_read_or_waits_sample_all_of_the_answer(model, make_model, keep_cache):
    new, counting = make_model(seed=1), Counting(model)
    sampler = ContinuousSampler(counting, NEVER, prefill_budget=8, max_sessions=2)
    transcripts = [Transcript() for _ in range(4)]
    (prompt,) = prompts("reading", 1, 40)

    async def load():
        await until(lambda: len(counting.passes) == 2)
        await sampler.load(new.state_dict(), 1)

    async def talks(i):
        async with sampler.session(("life", i), keep_cache=keep_cache and i == 0) as session:
            await say(session, transcripts[i], prompt, 5)

    async def all_at_once():
        await asyncio.gather(*map(talks, range(4)), load())

    run(all_at_once())
    for transcript in transcripts:
        assert transcript.versions == [0] * 40 + [1] * 5
    assert off(new, transcripts[0]) == keep_cache
    for transcript in transcripts[1:]:
        assert_scored_by(new, transcript, version=1)


@pytest.mark.parametrize("max_sessions", [1, 2, 8])
def test_a_cache_of_other_weights_is_shared_with_nobody(model, make_model, max_sessions):
    new = make_model(seed=1)
    sampler = ContinuousSampler(model, NEVER, max_sessions=max_sessions)
    late = [Transcript() for _ in range(3)]
    (prompt,) = prompts("unshared", 1, 32)

    async def talks(transcript, session):
        async with session:
            await say(session, transcript, prompt, 3)

    async def all_at_once():
        before = Transcript()
        async with sampler.session(("kept",), keep_cache=True) as kept:
            await say(kept, before, prompt, 3)
            await sampler.load(new.state_dict(), 1)
            branch = kept.fork(("branch",))
            await say(kept, before, [5], 3)
            await talks(late[0], sampler.session(("beside",)))
            late[1].read(before.ids[:35])
            await talks(late[1], branch)
        await talks(late[2], sampler.session(("after",)))  # takes the slot that the kept session left
        return before

    kept = run(all_at_once())
    assert off(new, kept)  # else there would be nothing to tell them apart by
    for transcript in late:
        assert transcript.versions[-3:] == [1, 1, 1]
        assert_scored_by(new, transcript, version=1)


@pytest.mark.parametrize("keep_cache", [False, True], ids=["dropped", "kept"])
def test_sessions_move_to_slots_that_others_left_but_take_no_cache_of_other_weights_there(
    model, make_model, keep_cache
):
    new, counting = make_model(seed=1), Counting(model)
    sampler = ContinuousSampler(counting, NEVER)
    moved, late = Transcript(), Transcript()
    (prompt,) = prompts("moved", 1, 32)

    async def all_at_once():
        async with sampler.session(("left",)) as left, sampler.session(("stays",), keep_cache=keep_cache) as stays:
            await left.sample([1], SamplingParams(1))
            await say(stays, moved, prompt, 3)
            assert (left.slot, stays.slot) == (0, 1)
            await sampler.load(new.state_dict(), 1)
            await say(stays, moved, [2], 3)
            await left.__aexit__()
            await say(stays, moved, [3], 3)
            assert stays.slot == (1 if keep_cache else 0)
            async with sampler.session(("late",)) as session:
                await say(session, late, prompt, 3)

    run(all_at_once())
    assert off(new, moved) == keep_cache
    assert_scored_by(new, late, version=1)
    assert counting.passes[-3:] == [32 if keep_cache else 1, 1, 1]


def test_a_kept_session_that_lost_its_slot_is_read_by_the_new_weights(model, make_model):
    new, transcript = make_model(seed=1), Transcript()
    sampler = ContinuousSampler(model, NEVER, max_sessions=1)

    async def evicted():
        async with sampler.session(("kept",), keep_cache=True) as kept, sampler.session(("other",)) as other:
            await say(kept, transcript, [1, 2, 3], 3)
            await sampler.load(new.state_dict(), 1)
            await other.sample([4], SamplingParams(2))
            await say(kept, transcript, [5], 3)

    run(evicted())
    assert_scored_by(new, transcript, version=1)


@pytest.mark.parametrize("max_sessions", [1, 3])
@pytest.mark.parametrize("when", range(4))
def test_a_cancelled_session_frees_its_slot_and_the_others_go_on(model, when, max_sessions):
    sessions = {("life", i): [([i + 1] * 4, SamplingParams(8)), ([9], SamplingParams(8))] for i in range(3)}
    expected = numbers(live(LocalSampler(model, NEVER), sessions))
    sampler = ContinuousSampler(model, NEVER, max_sessions=max_sessions)

    async def some():
        tasks = [asyncio.create_task(talk(sampler, name, turns)) for name, turns in sessions.items()]
        for _ in range(3 * when):
            await asyncio.sleep(0)
        tasks[1].cancel()
        held = await asyncio.gather(*tasks, return_exceptions=True)
        assert isinstance(held[1], asyncio.CancelledError)
        assert len(sampler._free) == max_sessions
        return {("life", i): held[i] for i in (0, 2)}

    for name, (ids, *_) in numbers(run(some())).items():
        assert ids == expected[name][0]
    assert serves(sampler, 3)


def test_a_request_that_was_given_up_frees_its_slot_and_ends_its_session(model):
    counting = Counting(model)
    sampler = ContinuousSampler(counting, NEVER, max_sessions=1)

    async def gives_up():
        async with sampler.session(("bad",)) as session:
            request = asyncio.create_task(session.sample([1, 2], SamplingParams(200)))
            await until(lambda: len(counting.passes) == 3)
            request.cancel()
            await asyncio.wait([request])
            _, (answer,) = await talk(sampler, ("good",), [([3, 4], SamplingParams(5))])
            assert len(answer.ids) == 5
            await session.sample([5], SamplingParams(3))

    with pytest.raises(RuntimeError, match="was cancelled"):
        run(gives_up())
    assert len(counting.passes) <= 3 + 1 + 5


def test_a_session_left_while_it_samples_tells_who_waits_for_the_answer(model):
    counting = Counting(model)
    sampler = ContinuousSampler(counting, NEVER, max_sessions=1)

    async def leaves():
        async with sampler.session(("left",)) as session:
            request = asyncio.create_task(session.sample([1, 2], SamplingParams(200)))
            await until(lambda: counting.passes)
        await request

    with pytest.raises(RuntimeError, match="closed before it had its answer"):
        run(leaves())
    assert serves(sampler, 2)


def test_a_session_answers_one_request_at_a_time_and_is_not_harmed_by_a_second(model):
    sampler, transcript = ContinuousSampler(model, NEVER), Transcript()

    async def twice():
        async with sampler.session(("life",)) as session:
            first = asyncio.create_task(say(session, transcript, [1, 2], 6))
            await asyncio.sleep(0)
            with pytest.raises(RuntimeError, match="one request at a time"):
                await session.sample([3], SamplingParams(2))
            await first
            await say(session, transcript, [4], 6)

    run(twice())
    assert_scored_by(model, transcript)


def test_closed_and_unopened_sessions_do_not_answer(model):
    sampler = ContinuousSampler(model, NEVER)

    async def closed():
        async with sampler.session(("life",)) as session:
            await session.sample([1], SamplingParams(2))
        return session

    for session in (run(closed()), sampler.session(("unopened",))):
        with pytest.raises(RuntimeError, match="this session is closed"):
            run(session.sample([1], SamplingParams(2)))
        with pytest.raises(RuntimeError, match="this session is closed"):
            session.fork(("branch",))


@pytest.mark.parametrize(
    ("fault", "error"), [(out_of_memory, MemoryError), (not_finite, FloatingPointError)], ids=["raises", "nan"]
)
@pytest.mark.parametrize("call", [3, 4, 6])
def test_a_failing_pass_fails_the_requests_in_it_and_no_others(model, fault, error, call):
    sampler = ContinuousSampler(Faulty(model, {call}, fault), NEVER, max_sessions=4)
    idle, queued = Transcript(), [([7], SamplingParams(3)), ([8], SamplingParams(3))]

    async def all_at_once():
        async with sampler.session(("idle",)) as session:
            await say(session, idle, [1, 2, 3], 2)
            lives = [talk(sampler, ("life", i), [([i + 1] * (i + 1), SamplingParams(6))]) for i in range(4)]
            held = await asyncio.gather(*lives, talk(sampler, ("queued",), queued), return_exceptions=True)
            await say(session, idle, [4], 2)
        return held

    *failed, (transcript, _) = run(all_at_once())
    assert [type(answer) for answer in failed] == [error] * 4
    assert_scored_by(model, transcript)
    assert_scored_by(model, idle)
    assert serves(sampler, 4)


def test_a_failing_pass_leaves_no_number_in_the_cache_that_could_spread(model):
    def poison(output):
        for store in (store for layer in sampler._cache.layers for store in layer):
            store[1] = float("nan")
        raise MemoryError("no room")

    sampler = ContinuousSampler(Faulty(model, {2}, poison), NEVER)
    long, short = Transcript(), Transcript()

    async def in_turn():
        async with sampler.session(("long",)) as first:
            await say(first, long, [1] * 30, 1)
            with pytest.raises(MemoryError):
                await talk(sampler, ("bad",), [([2] * 20, SamplingParams(3))])
            async with sampler.session(("short",)) as second:
                await asyncio.gather(say(first, long, [3], 4), say(second, short, [4], 4))
                assert (first.slot, second.slot) == (0, 1)

    run(in_turn())
    for transcript in (long, short):
        assert_scored_by(model, transcript)


def test_an_answer_ends_with_its_stop_or_at_its_limit(model):
    sampler, seen = ContinuousSampler(model, STOPS, max_sessions=4), set()
    for name, (_, answers) in live(sampler, plan(12)).items():
        for (_, params), answer in zip(plan(12)[name], answers, strict=True):
            seen.add(answer.stop)
            assert not STOPS & set(answer.ids[:-1])
            assert (answer.ids[-1] in STOPS) == (answer.stop is StopReason.STOP)
            assert answer.stop is StopReason.STOP or len(answer.ids) == params.max_tokens
            assert len(answer.logprobs) == len(answer.versions) == len(answer.ids) <= params.max_tokens
    assert seen == {StopReason.STOP, StopReason.LENGTH}


@pytest.mark.parametrize("max_sessions", [1, 3])
@pytest.mark.parametrize("size", [1, 30, 46, 47])
def test_a_session_that_holds_all_the_model_can_read_says_full(make_model, size, max_sessions):
    model, turns = make_model(length=48), [(list(range(20, 20 + size)), SamplingParams(40))] * 3
    sampler = ContinuousSampler(model, NEVER, max_sessions=max_sessions)
    for transcript, answers in live(sampler, {("life", i): turns for i in range(2)}).values():
        assert answers[-1] == Sampled([], [], StopReason.FULL, [])
        assert max(at for at, sampled in enumerate(transcript.mask) if sampled) == 47
        full = Transcript(*(row[:48] for row in (transcript.ids, transcript.mask, transcript.logprobs)), [0] * 48)
        assert_scored_by(model, full)


@pytest.mark.parametrize(("ids", "params"), [([], SamplingParams(2)), ([1], SamplingParams(0))])
def test_a_request_that_asks_for_nothing_is_an_error_for_its_caller_alone(model, ids, params):
    sampler = ContinuousSampler(model, STOPS)

    async def both():
        bad, good = talk(sampler, ("bad",), [(ids, params)]), talk(sampler, ("good",), [([1], SamplingParams(2))])
        return await asyncio.gather(bad, good, return_exceptions=True)

    bad, good = run(both())
    assert isinstance(bad, ValueError)
    assert good[1][0].ids


def test_a_sampler_outlives_event_loops_that_were_broken_off(model):
    sampler = ContinuousSampler(model, NEVER, max_sessions=2)

    async def broken_off():
        tasks = [asyncio.create_task(talk(sampler, ("life", i), [([1], SamplingParams(9))])) for i in range(3)]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        raise KeyError(len(tasks))

    for _ in range(3):
        with pytest.raises(KeyError):
            run(broken_off())
        assert serves(sampler, 2)


def test_a_session_goes_on_in_another_event_loop(model):
    sampler, transcript = ContinuousSampler(model, NEVER, max_sessions=1), Transcript()
    session = sampler.session(("life",))

    async def opens():
        await session.__aenter__()
        await say(session, transcript, [1, 2, 3], 4)

    run(opens())
    assert serves(sampler, 2)
    run(say(session, transcript, [5], 4))
    assert_scored_by(model, transcript)

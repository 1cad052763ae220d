"""The continuous sampler answers like lockstep, never waits for idle sessions, and loads weights at any time."""

import asyncio

import pytest
import torch

from codots.core.rng import stream
from codots.core.transcript import Sampled, StopReason, Transcript
from codots.sampler.base import SamplingParams
from codots.sampler.cache import bytes_per_id, shares
from codots.sampler.continuous import ContinuousSampler
from codots.sampler.local import LocalSampler
from tests.sampler.sessions import (
    STOPS,
    CountingModel,
    FaultyModel,
    assert_scored_by,
    draw_sessions,
    not_finite,
    numbers,
    out_of_memory,
    run,
    run_session,
    run_sessions,
    serves,
)

NO_STOPS = frozenset()
"""Stop ids for answers that always end at their limit."""


def prompts(name, count, length):
    """Draw prompts without common prefixes."""
    return stream("continuous", name).integers(0, 800, (count, length)).tolist()


async def take_turn(session, transcript, ids, max_tokens):
    """Take one turn."""
    answer = await session.sample(ids, SamplingParams(max_tokens))
    transcript.read(ids)
    transcript.wrote(answer)
    return answer


async def until(holds):
    """Let other tasks run until a condition holds."""
    while not holds():
        await asyncio.sleep(0)


@pytest.mark.parametrize("temperature", [1.0, 0.7, 0.0])
@pytest.mark.parametrize("prefill_budget", [3, 40, 2048])
@pytest.mark.parametrize("max_sessions", [1, 3, 12])
def test_sessions_sample_the_ids_of_lockstep(model, max_sessions, prefill_budget, temperature):
    sessions = draw_sessions(12, temperature)
    expected = run_sessions(LocalSampler(model, STOPS), sessions)
    sampler = ContinuousSampler(model, STOPS, max_sessions=max_sessions, prefill_budget=prefill_budget)
    for name, (transcript, answers) in run_sessions(sampler, sessions).items():
        lockstep = expected[name][0]
        assert (transcript.ids, transcript.mask) == (lockstep.ids, lockstep.mask)
        assert transcript.versions == lockstep.versions
        assert transcript.logprobs == pytest.approx(lockstep.logprobs, abs=1e-4)
        assert [answer.stop for answer in answers] == [answer.stop for answer in expected[name][1]]
        assert_scored_by(model, transcript, temperature or 1.0)


def test_equal_seeds_give_equal_numbers_bit_for_bit(model):
    first = numbers(run_sessions(ContinuousSampler(model, STOPS, max_sessions=5), draw_sessions(10)))
    used = ContinuousSampler(model, STOPS, max_sessions=5)
    run_sessions(used, draw_sessions(7))
    for sampler in (ContinuousSampler(model, STOPS, max_sessions=5), used):
        assert numbers(run_sessions(sampler, draw_sessions(10))) == first


@pytest.mark.parametrize("max_sessions", [1, 2, 12])
def test_an_idle_session_does_not_block_others(model, max_sessions):
    sampler, others = ContinuousSampler(model, STOPS, max_sessions=max_sessions), draw_sessions(6)
    sleeping = Transcript()

    async def sleeper(all_done):
        async with sampler.session(("sleeper",)) as session:
            await take_turn(session, sleeping, [1, 2, 3], 4)
            await all_done.wait()
            await take_turn(session, sleeping, [4, 5], 4)

    async def all_at_once():
        all_done = asyncio.Event()
        task = asyncio.create_task(sleeper(all_done))
        held = await asyncio.gather(*(run_session(sampler, name, turns) for name, turns in others.items()))
        assert not task.done()
        all_done.set()
        await task
        return dict(zip(others, held, strict=True))

    expected = run_sessions(LocalSampler(model, STOPS), others)
    assert {name: t.ids for name, (t, _) in run(all_at_once()).items()} == {n: t.ids for n, (t, _) in expected.items()}
    assert_scored_by(model, sleeping)


def test_an_idle_session_costs_no_forward_pass(model):
    def passes(sleepers):
        counting = CountingModel(model)
        sampler = ContinuousSampler(counting, NO_STOPS)

        async def all_at_once():
            done = asyncio.Event()

            async def sleeper(i):
                async with sampler.session(("sleeper", i)) as session:
                    await session.sample([i + 1], SamplingParams(1))
                    await done.wait()

            tasks = [asyncio.create_task(sleeper(i)) for i in range(sleepers)]
            await asyncio.gather(*(run_session(sampler, ("life", i), [([9], SamplingParams(7))] * 3) for i in range(4)))
            done.set()
            await asyncio.gather(*tasks)

        run(all_at_once())
        return len(counting.passes)

    assert passes(sleepers=3) == passes(sleepers=0) == 21


def test_the_session_idle_longest_is_evicted_and_computes_its_ids_again(model):
    counting = CountingModel(model)
    sampler = ContinuousSampler(counting, NO_STOPS, max_sessions=2)
    transcripts = [Transcript() for _ in range(3)]
    prompt = prompts("evicted", 3, 20)

    async def in_turn():
        async with (
            sampler.session(("life", 0)) as one,
            sampler.session(("life", 1)) as two,
            sampler.session(("life", 2)) as three,
        ):
            for session, transcript, ids in zip((one, two), transcripts, prompt, strict=False):
                await take_turn(session, transcript, ids, 3)
            await take_turn(one, transcripts[0], [7], 3)
            counting.passes.clear()
            await take_turn(three, transcripts[2], prompt[2], 3)
            await take_turn(one, transcripts[0], [8], 3)
            await take_turn(two, transcripts[1], [9], 3)
        return counting.passes

    # The first computes its last id and one more; the second, which was evicted, all of its 20 + 3 + 1.
    assert run(in_turn()) == [20, 1, 1, 2, 1, 1, 24, 1, 1]
    for transcript in transcripts:
        assert_scored_by(model, transcript)


def test_any_number_of_idle_sessions_blocks_no_new_one(model):
    sampler = ContinuousSampler(model, NO_STOPS, max_sessions=2)
    transcripts = [Transcript() for _ in range(9)]

    async def all_open():
        sessions = [sampler.session(("life", i)) for i in range(9)]
        for session in sessions:
            await session.__aenter__()
        for _ in range(2):
            for i, session in enumerate(sessions):
                await take_turn(session, transcripts[i], [i + 1] * (i + 1), 3)
        for session in sessions:
            await session.__aexit__()

    run(all_open())
    for transcript in transcripts:
        assert_scored_by(model, transcript)


@pytest.mark.parametrize("places", [0, 1, 3])
def test_the_cache_stays_within_its_bytes(model, places):
    whole = model.config.max_position_embeddings * bytes_per_id(model)
    sampler = ContinuousSampler(model, STOPS, cache_bytes=places * whole + whole // 2)
    assert len(run_sessions(sampler, draw_sessions(8))) == 8
    stores = [store for layer in sampler._cache.layers for store in layer]
    assert sum(store.nbytes for store in stores) <= max(1, places) * whole


def test_requests_without_a_slot_are_served_in_order_of_arrival(model):
    sampler, order = ContinuousSampler(model, NO_STOPS, max_sessions=1), []

    async def one(i):
        async with sampler.session(("life", i)) as session:
            for turn in range(3):  # the next request follows at once, but the slot goes to the next session
                await session.sample([i + 1] * 4, SamplingParams(3))
                order.append((turn, i))

    async def all_at_once():
        await asyncio.gather(*map(one, range(4)))

    run(all_at_once())
    assert order == [(turn, i) for turn in range(3) for i in range(4)]


@pytest.mark.parametrize("company", [0, 1], ids=["alone", "beside a long prompt"])
@pytest.mark.parametrize(("max_sessions", "prefill_budget"), [(2, 2048), (3, 24), (8, 24), (8, 2048)])
def test_no_session_waits_more_than_twice_as_long_as_another_with_equal_work(
    model, max_sessions, prefill_budget, company
):
    counting = CountingModel(model)
    sampler = ContinuousSampler(counting, NO_STOPS, max_sessions=max_sessions, prefill_budget=prefill_budget)
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
        await asyncio.gather(*map(one, waits), *(run_session(sampler, ("long", i), long) for i in range(company)))

    run(all_at_once())
    assert min(waits.values()) >= 4 * 5
    assert max(waits.values()) <= 2 * min(waits.values())


def test_a_long_prompt_is_prefilled_in_chunks_and_stalls_no_other_session(model):
    counting = CountingModel(model)
    sampler = ContinuousSampler(counting, NO_STOPS, prefill_budget=16)
    (prompt,) = prompts("long", 1, 160)

    async def both():
        async def short():
            held = await run_session(sampler, ("short",), [([1], SamplingParams(30))])
            return held[0], len(counting.passes)

        return await asyncio.gather(short(), run_session(sampler, ("long",), [(prompt, SamplingParams(5))]))

    (short, passes), (long, _) = run(both())
    assert passes == 30  # one for each id, as without the long prompt
    assert counting.passes == [16] + [16 + 1] * 9 + [2] * 5 + [1] * 15
    for transcript in (short, long):
        assert_scored_by(model, transcript)


def test_a_budget_is_split_evenly_with_at_least_one_each():
    assert shares([5, 100, 1, 100], 46) == [5, 20, 1, 20]
    assert shares([5, 100, 1], 2048) == [5, 100, 1]
    assert shares([9, 9, 9], 1) == [1, 1, 1]
    assert shares([], 7) == []


@pytest.mark.parametrize("prefill_budget", [16, 2048])
def test_shared_prefixes_are_computed_once_even_over_several_passes(model, prefill_budget):
    counting = CountingModel(model)
    sampler = ContinuousSampler(counting, NO_STOPS, prefill_budget=prefill_budget)
    (prompt,) = prompts("shared", 1, 120)
    held = run_sessions(sampler, {("life", i): [([*prompt, i], SamplingParams(3))] for i in range(4)})
    for transcript, _ in held.values():
        assert_scored_by(model, transcript)
    extra = counting.ids - (120 + 4 + 4 * 2)  # beyond the prompt once, and the ids of each session
    assert extra == 0 if prefill_budget == 2048 else extra <= 4 * 120 / 16


def test_a_branch_continues_its_session(model):
    counting = CountingModel(model)
    sampler = ContinuousSampler(counting, NO_STOPS)
    trunk_transcript, branch_transcript = Transcript(), Transcript()

    async def branching():
        async with sampler.session(("trunk",)) as trunk:
            await take_turn(trunk, trunk_transcript, [5, 6, 7] * 10, 4)
            branch_transcript.read(trunk_transcript.ids)
            async with trunk.fork(("branch",)) as branch:
                await asyncio.gather(
                    take_turn(trunk, trunk_transcript, [8, 9], 4), take_turn(branch, branch_transcript, [8, 9], 4)
                )

    run(branching())
    assert trunk_transcript.ids[-4:] != branch_transcript.ids[-4:]
    for transcript in (trunk_transcript, branch_transcript):
        assert_scored_by(model, transcript)
    assert counting.ids == 30 + 3 + 2 * (1 + 2) + 2 * 3  # nothing was computed twice


def continued(old, new, ids, cached):
    """Return log-probabilities under new weights that continue from the KV cache of old ones."""
    with torch.no_grad():
        cache = old(input_ids=torch.tensor([ids[:cached]]), use_cache=True).past_key_values
        logits = new(input_ids=torch.tensor([ids[cached:-1]]), past_key_values=cache, use_cache=True).logits[0]
    return logits.log_softmax(-1)


def scored_otherwise(model, transcript):
    """Whether a plain forward pass of this model differs from the recorded logprobs of version 1."""
    try:
        assert_scored_by(model, transcript, version=1)
    except AssertionError:
        return True
    return False


@pytest.mark.parametrize("prefill_budget", [8, 2048])
def test_weights_loaded_between_turns_recompute_dropped_caches_and_continue_kept_ones(
    model, make_model, prefill_budget
):
    old, new = make_model(), make_model(seed=1)
    sampler = ContinuousSampler(model, NO_STOPS, prefill_budget=prefill_budget)
    dropped, kept = Transcript(), Transcript()
    (prompt,) = prompts("weights", 1, 25)

    async def both():
        async with sampler.session(("dropped",)) as one, sampler.session(("kept",), keep_cache=True) as other:
            await asyncio.gather(take_turn(one, dropped, prompt, 6), take_turn(other, kept, prompt, 6))
            await sampler.load(new.state_dict(), 1)
            await asyncio.gather(take_turn(one, dropped, [3, 4], 6), take_turn(other, kept, [3, 4], 6))

    run(both())
    for transcript in (dropped, kept):
        assert transcript.versions == [0] * 31 + [0] * 2 + [1] * 6
        assert_scored_by(old, transcript, version=0)
    assert_scored_by(new, dropped, version=1)
    logprobs = continued(old, new, kept.ids, cached=30)
    expected = [logprobs[at - 30, kept.ids[at + 1]].item() for at in range(32, 38)]
    assert kept.logprobs[-6:] == pytest.approx(expected, abs=1e-4)
    assert scored_otherwise(new, kept)
    assert scored_otherwise(old, kept)


@pytest.mark.parametrize("keep_cache", [False, True], ids=["dropped", "kept"])
def test_weights_loaded_during_an_answer_sample_the_rest_of_it(model, make_model, keep_cache):
    old, new = make_model(), make_model(seed=1)
    counting = CountingModel(model)
    sampler, transcript = ContinuousSampler(counting, NO_STOPS), Transcript()
    (prompt,) = prompts("middle", 1, 25)

    async def load():
        await until(lambda: len(counting.passes) == 4)
        await sampler.load(new.state_dict(), 1)

    async def one_turn():
        async with sampler.session(("life",), keep_cache=keep_cache) as session:
            await take_turn(session, transcript, prompt, 10)

    async def both():
        await asyncio.gather(one_turn(), load())

    run(both())
    assert transcript.versions == [0] * (25 + 4) + [1] * 6
    assert_scored_by(old, transcript, version=0)
    if keep_cache:
        assert counting.passes == [25] + [1] * 9
        logprobs = continued(old, new, transcript.ids, cached=28)
        expected = [logprobs[at - 28, transcript.ids[at + 1]].item() for at in range(28, 34)]
        assert transcript.logprobs[-6:] == pytest.approx(expected, abs=1e-4)
        assert scored_otherwise(new, transcript)
    else:
        assert counting.passes == [25, 1, 1, 1, 29, 1, 1, 1, 1, 1]
        assert_scored_by(new, transcript, version=1)


@pytest.mark.parametrize("keep_cache", [False, True], ids=["dropped", "kept"])
def test_weights_loaded_during_prefill_or_in_the_queue_sample_the_whole_answer(model, make_model, keep_cache):
    new, counting = make_model(seed=1), CountingModel(model)
    sampler = ContinuousSampler(counting, NO_STOPS, prefill_budget=8, max_sessions=2)
    transcripts = [Transcript() for _ in range(4)]
    (prompt,) = prompts("reading", 1, 40)

    async def load():
        await until(lambda: len(counting.passes) == 2)
        await sampler.load(new.state_dict(), 1)

    async def one_turn(i):
        async with sampler.session(("life", i), keep_cache=keep_cache and i == 0) as session:
            await take_turn(session, transcripts[i], prompt, 5)

    async def all_at_once():
        await asyncio.gather(*map(one_turn, range(4)), load())

    run(all_at_once())
    for transcript in transcripts:
        assert transcript.versions == [0] * 40 + [1] * 5
    assert scored_otherwise(new, transcripts[0]) == keep_cache
    for transcript in transcripts[1:]:
        assert_scored_by(new, transcript, version=1)


@pytest.mark.parametrize("max_sessions", [1, 2, 8])
def test_a_cache_of_older_weights_is_never_shared(model, make_model, max_sessions):
    new = make_model(seed=1)
    sampler = ContinuousSampler(model, NO_STOPS, max_sessions=max_sessions)
    late = [Transcript() for _ in range(3)]
    (prompt,) = prompts("unshared", 1, 32)

    async def one_turn(transcript, session):
        async with session:
            await take_turn(session, transcript, prompt, 3)

    async def all_at_once():
        before = Transcript()
        async with sampler.session(("kept",), keep_cache=True) as kept:
            await take_turn(kept, before, prompt, 3)
            await sampler.load(new.state_dict(), 1)
            branch = kept.fork(("branch",))
            await take_turn(kept, before, [5], 3)
            await one_turn(late[0], sampler.session(("beside",)))
            late[1].read(before.ids[:35])
            await one_turn(late[1], branch)
        await one_turn(late[2], sampler.session(("after",)))  # takes the slot that the kept session left
        return before

    kept = run(all_at_once())
    assert scored_otherwise(new, kept)  # otherwise the two caches could not be distinguished
    for transcript in late:
        assert transcript.versions[-3:] == [1, 1, 1]
        assert_scored_by(new, transcript, version=1)


@pytest.mark.parametrize("keep_cache", [False, True], ids=["dropped", "kept"])
def test_sessions_move_to_free_slots_unless_their_cache_is_of_older_weights(model, make_model, keep_cache):
    new, counting = make_model(seed=1), CountingModel(model)
    sampler = ContinuousSampler(counting, NO_STOPS)
    moved, late = Transcript(), Transcript()
    (prompt,) = prompts("moved", 1, 32)

    async def all_at_once():
        async with sampler.session(("left",)) as left, sampler.session(("stays",), keep_cache=keep_cache) as stays:
            await left.sample([1], SamplingParams(1))
            await take_turn(stays, moved, prompt, 3)
            assert (left.slot, stays.slot) == (0, 1)
            await sampler.load(new.state_dict(), 1)
            await take_turn(stays, moved, [2], 3)
            await left.__aexit__()
            await take_turn(stays, moved, [3], 3)
            assert stays.slot == (1 if keep_cache else 0)
            async with sampler.session(("late",)) as session:
                await take_turn(session, late, prompt, 3)

    run(all_at_once())
    assert scored_otherwise(new, moved) == keep_cache
    assert_scored_by(new, late, version=1)
    assert counting.passes[-3:] == [32 if keep_cache else 1, 1, 1]


def test_a_kept_session_that_lost_its_slot_is_computed_by_the_new_weights(model, make_model):
    new, transcript = make_model(seed=1), Transcript()
    sampler = ContinuousSampler(model, NO_STOPS, max_sessions=1)

    async def evicted():
        async with sampler.session(("kept",), keep_cache=True) as kept, sampler.session(("other",)) as other:
            await take_turn(kept, transcript, [1, 2, 3], 3)
            await sampler.load(new.state_dict(), 1)
            await other.sample([4], SamplingParams(2))
            await take_turn(kept, transcript, [5], 3)

    run(evicted())
    assert_scored_by(new, transcript, version=1)


@pytest.mark.parametrize("max_sessions", [1, 3])
@pytest.mark.parametrize("when", range(4))
def test_a_cancelled_session_frees_its_slot_and_the_others_continue(model, when, max_sessions):
    sessions = {("life", i): [([i + 1] * 4, SamplingParams(8)), ([9], SamplingParams(8))] for i in range(3)}
    expected = numbers(run_sessions(LocalSampler(model, NO_STOPS), sessions))
    sampler = ContinuousSampler(model, NO_STOPS, max_sessions=max_sessions)

    async def some():
        tasks = [asyncio.create_task(run_session(sampler, name, turns)) for name, turns in sessions.items()]
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


def test_a_cancelled_request_frees_its_slot_and_ends_its_session(model):
    counting = CountingModel(model)
    sampler = ContinuousSampler(counting, NO_STOPS, max_sessions=1)

    async def cancels():
        async with sampler.session(("bad",)) as session:
            request = asyncio.create_task(session.sample([1, 2], SamplingParams(200)))
            await until(lambda: len(counting.passes) == 3)
            request.cancel()
            await asyncio.wait([request])
            _, (answer,) = await run_session(sampler, ("good",), [([3, 4], SamplingParams(5))])
            assert len(answer.ids) == 5
            await session.sample([5], SamplingParams(3))

    with pytest.raises(RuntimeError, match="was cancelled"):
        run(cancels())
    assert len(counting.passes) <= 3 + 1 + 5


def test_closing_a_session_fails_its_pending_request(model):
    counting = CountingModel(model)
    sampler = ContinuousSampler(counting, NO_STOPS, max_sessions=1)

    async def leaves():
        async with sampler.session(("left",)) as session:
            request = asyncio.create_task(session.sample([1, 2], SamplingParams(200)))
            await until(lambda: counting.passes)
        await request

    with pytest.raises(RuntimeError, match="closed before it had its answer"):
        run(leaves())
    assert serves(sampler, 2)


def test_a_session_refuses_a_concurrent_request_and_continues(model):
    sampler, transcript = ContinuousSampler(model, NO_STOPS), Transcript()

    async def twice():
        async with sampler.session(("life",)) as session:
            first = asyncio.create_task(take_turn(session, transcript, [1, 2], 6))
            await asyncio.sleep(0)
            with pytest.raises(RuntimeError, match="one request at a time"):
                await session.sample([3], SamplingParams(2))
            await first
            await take_turn(session, transcript, [4], 6)

    run(twice())
    assert_scored_by(model, transcript)


def test_closed_and_unopened_sessions_refuse_requests(model):
    sampler = ContinuousSampler(model, NO_STOPS)

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
def test_a_failing_pass_fails_only_its_own_requests(model, fault, error, call):
    sampler = ContinuousSampler(FaultyModel(model, {call}, fault), NO_STOPS, max_sessions=4)
    idle, queued = Transcript(), [([7], SamplingParams(3)), ([8], SamplingParams(3))]

    async def all_at_once():
        async with sampler.session(("idle",)) as session:
            await take_turn(session, idle, [1, 2, 3], 2)
            lives = [run_session(sampler, ("life", i), [([i + 1] * (i + 1), SamplingParams(6))]) for i in range(4)]
            held = await asyncio.gather(*lives, run_session(sampler, ("queued",), queued), return_exceptions=True)
            await take_turn(session, idle, [4], 2)
        return held

    *failed, (transcript, _) = run(all_at_once())
    assert [type(answer) for answer in failed] == [error] * 4
    assert_scored_by(model, transcript)
    assert_scored_by(model, idle)
    assert serves(sampler, 4)


def test_a_failing_pass_leaves_no_nan_in_the_cache(model):
    def poison(output):
        for store in (store for layer in sampler._cache.layers for store in layer):
            store[1] = float("nan")
        raise MemoryError("no room")

    sampler = ContinuousSampler(FaultyModel(model, {2}, poison), NO_STOPS)
    long, short = Transcript(), Transcript()

    async def in_turn():
        async with sampler.session(("long",)) as first:
            await take_turn(first, long, [1] * 30, 1)
            with pytest.raises(MemoryError):
                await run_session(sampler, ("bad",), [([2] * 20, SamplingParams(3))])
            async with sampler.session(("short",)) as second:
                await asyncio.gather(take_turn(first, long, [3], 4), take_turn(second, short, [4], 4))
                assert (first.slot, second.slot) == (0, 1)

    run(in_turn())
    for transcript in (long, short):
        assert_scored_by(model, transcript)


def test_an_answer_ends_with_a_stop_id_or_at_max_tokens(model):
    sampler, seen = ContinuousSampler(model, STOPS, max_sessions=4), set()
    for name, (_, answers) in run_sessions(sampler, draw_sessions(12)).items():
        for (_, params), answer in zip(draw_sessions(12)[name], answers, strict=True):
            seen.add(answer.stop)
            assert not STOPS & set(answer.ids[:-1])
            assert (answer.ids[-1] in STOPS) == (answer.stop is StopReason.STOP)
            assert answer.stop is StopReason.STOP or len(answer.ids) == params.max_tokens
            assert len(answer.logprobs) == len(answer.versions) == len(answer.ids) <= params.max_tokens
    assert seen == {StopReason.STOP, StopReason.LENGTH}


@pytest.mark.parametrize("max_sessions", [1, 3])
@pytest.mark.parametrize("size", [1, 30, 46, 47])
def test_a_session_at_the_maximum_length_stops_as_full(make_model, size, max_sessions):
    model, turns = make_model(length=48), [(list(range(20, 20 + size)), SamplingParams(40))] * 3
    sampler = ContinuousSampler(model, NO_STOPS, max_sessions=max_sessions)
    for transcript, answers in run_sessions(sampler, {("life", i): turns for i in range(2)}).values():
        assert answers[-1] == Sampled([], [], StopReason.FULL, [])
        assert max(at for at, sampled in enumerate(transcript.mask) if sampled) == 47
        full = Transcript(*(row[:48] for row in (transcript.ids, transcript.mask, transcript.logprobs)), [0] * 48)
        assert_scored_by(model, full)


@pytest.mark.parametrize(("ids", "params"), [([], SamplingParams(2)), ([1], SamplingParams(0))])
def test_an_invalid_request_fails_only_for_its_caller(model, ids, params):
    sampler = ContinuousSampler(model, STOPS)

    async def both():
        bad, good = (
            run_session(sampler, ("bad",), [(ids, params)]),
            run_session(sampler, ("good",), [([1], SamplingParams(2))]),
        )
        return await asyncio.gather(bad, good, return_exceptions=True)

    bad, good = run(both())
    assert isinstance(bad, ValueError)
    assert good[1][0].ids


def test_a_sampler_outlives_event_loops_that_failed(model):
    sampler = ContinuousSampler(model, NO_STOPS, max_sessions=2)

    async def fails():
        tasks = [asyncio.create_task(run_session(sampler, ("life", i), [([1], SamplingParams(9))])) for i in range(3)]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        raise KeyError(len(tasks))

    for _ in range(3):
        with pytest.raises(KeyError):
            run(fails())
        assert serves(sampler, 2)


def test_a_session_continues_in_another_event_loop(model):
    sampler, transcript = ContinuousSampler(model, NO_STOPS, max_sessions=1), Transcript()
    session = sampler.session(("life",))

    async def opens():
        await session.__aenter__()
        await take_turn(session, transcript, [1, 2, 3], 4)

    run(opens())
    assert serves(sampler, 2)
    run(take_turn(session, transcript, [5], 4))
    assert_scored_by(model, transcript)

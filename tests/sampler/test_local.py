"""The local sampler samples from its model, serves ragged sessions at once, and never hangs."""

import asyncio
import math

import pytest
import torch

from codots.core.rng import stream
from codots.core.transcript import Sampled, StopReason, Transcript
from codots.sampler.base import SamplingParams
from codots.sampler.cache import bytes_per_id
from codots.sampler.local import LocalSampler
from tests.sampler.sessions import (
    STOPS,
    CountingModel,
    FaultyModel,
    draw_sessions,
    full_pass,
    not_finite,
    numbers,
    out_of_memory,
    run,
    run_session,
    run_sessions,
    serves,
)


@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("max_sessions", [3, 12])
def test_logprobs_are_those_of_a_full_forward_pass(model, temperature, max_sessions):
    sampler = LocalSampler(model, STOPS, max_sessions=max_sessions)
    for transcript, _ in run_sessions(sampler, draw_sessions(12, temperature)).values():
        logprobs = full_pass(model, transcript.ids, temperature)
        for at in range(1, len(transcript.ids)):
            if transcript.mask[at]:
                assert logprobs[at - 1, transcript.ids[at]].item() == pytest.approx(transcript.logprobs[at], abs=1e-4)


def test_logprobs_of_this_model_depend_on_positions_and_order(model):
    """The tolerance above is meaningful: a wrong position or row changes the logprobs by more."""
    ids = stream("sensitive").integers(0, 800, 40).tolist()
    swapped = [ids[1], ids[0], *ids[2:]]
    original, changed = full_pass(model, ids), full_pass(model, swapped)
    assert (original[-1] - changed[-1]).abs().max() > 0.01
    assert original.exp().mul(-original).sum(-1).mean() < 5.5  # nats; a uniform distribution over all ids has 6.7


def test_ids_are_sampled_in_proportion_to_their_probability(model):
    sampler = LocalSampler(model, STOPS)
    prompt = [5, 6, 7]
    held = run_sessions(sampler, {("draw", i): [(prompt, SamplingParams(1))] for i in range(250)})
    probabilities = full_pass(model, [*prompt, 0])[-1].exp()
    drawn = torch.tensor([transcript.ids[-1] for transcript, _ in held.values()])
    for id in probabilities.topk(5).indices:
        expected = probabilities[id].item()
        assert abs((drawn == id).double().mean().item() - expected) < 4 * math.sqrt(expected / 250)


def test_every_id_inverts_the_cumulative_distribution_at_its_own_draw(model):
    sessions = draw_sessions(6)
    for name, (transcript, answers) in run_sessions(LocalSampler(model, STOPS), sessions).items():
        cumulative, read = full_pass(model, transcript.ids).double().exp().cumsum(-1), 0
        for turn, (answer, (prompt, params)) in enumerate(zip(answers, sessions[name], strict=True)):
            read += len(prompt)
            draws = stream(*name, turn).random(params.max_tokens)
            for id, draw in zip(answer.ids, draws, strict=False):
                below = cumulative[read - 1, id - 1].item() if id else 0.0
                assert below - 1e-5 <= draw <= cumulative[read - 1, id].item() + 1e-5
                read += 1


def test_shared_prefixes_are_computed_once_and_change_no_logprob(model):
    rng = stream("alike")
    head, tails = rng.integers(0, 800, 40).tolist(), rng.integers(0, 800, (6, 9)).tolist()
    turns = [[(head, SamplingParams(3))], *([([*head, *tail], SamplingParams(3))] for tail in tails)]
    turns += [[([*head[:20], *tail], SamplingParams(3))] for tail in tails] + [
        [([*head, *tails[0]], SamplingParams(3))]
    ]
    counting = CountingModel(model)
    held = run_sessions(LocalSampler(counting, frozenset()), {("life", i): turn for i, turn in enumerate(turns)})
    read = sum(len(ids) for turn in turns for ids, _ in turn)
    sampled = 2 * len(turns)  # the last sampled id of each is never computed
    assert counting.ids == 40 + 6 * 9 + 6 * 9 + 1 + sampled < read
    for transcript, _ in held.values():
        logprobs = full_pass(model, transcript.ids)
        for at in range(len(transcript.ids) - 3, len(transcript.ids)):
            assert logprobs[at - 1, transcript.ids[at]].item() == pytest.approx(transcript.logprobs[at], abs=1e-4)


def test_the_cache_of_an_earlier_session_is_reused_unless_overwritten(model):
    rng = stream("left")
    one, two = rng.integers(0, 800, (2, 33)).tolist()
    counting = CountingModel(model)
    sampler = LocalSampler(counting, frozenset(), max_sessions=1)

    async def in_turn():
        return [
            (await run_session(sampler, ("life", i), [(ids, SamplingParams(2))]))[0]
            for i, ids in enumerate((one, one, two, one))
        ]

    for transcript in run(in_turn()):
        logprobs = full_pass(model, transcript.ids)
        for at in (33, 34):
            assert logprobs[at - 1, transcript.ids[at]].item() == pytest.approx(transcript.logprobs[at], abs=1e-4)
    assert counting.ids == 33 + 1 + 33 + 33 + 4  # the second computes only its last id


def test_a_branch_continues_its_session_independently(model):
    prompt, more = [5, 6, 7] * 10, [8, 9]
    counting = CountingModel(model)
    sampler = LocalSampler(counting, frozenset())

    async def branching():
        async with sampler.session(("trunk",)) as trunk:
            first = await trunk.sample(prompt, SamplingParams(4))
            async with trunk.fork(("branch",)) as branch:
                answers = await asyncio.gather(
                    trunk.sample(more, SamplingParams(4)), branch.sample(more, SamplingParams(4))
                )
        return first, answers

    first, (trunk_answer, branch_answer) = run(branching())
    assert trunk_answer.ids != branch_answer.ids
    for answer in (trunk_answer, branch_answer):
        ids = [*prompt, *first.ids, *more, *answer.ids]
        logprobs = full_pass(model, ids)
        expected = [logprobs[at - 1, ids[at]].item() for at in range(len(ids) - 4, len(ids))]
        assert answer.logprobs == pytest.approx(expected, abs=1e-4)
    assert counting.ids == 30 + 3 + 2 * (1 + 2) + 2 * 3


def test_sessions_move_to_free_slots_and_keep_their_cache(model):
    rng, slots, counting = stream("close up"), {}, CountingModel(model)
    sampler = LocalSampler(counting, frozenset())
    turns = {i: rng.integers(0, 800, (1 + i % 2 * 2, 9)).tolist() for i in range(6)}

    async def one(i):
        transcript = Transcript()
        async with sampler.session(("life", i)) as session:
            for ids in turns[i]:
                transcript.read(ids)
                transcript.wrote(await session.sample(ids, SamplingParams(3)))
                slots.setdefault(len(transcript.ids), {})[i] = session.slot
        return transcript

    async def all_at_once():
        return await asyncio.gather(*map(one, turns))

    transcripts = run(all_at_once())
    assert slots[12] == {i: i for i in range(6)}
    assert sorted(slots[24].values()) == sorted(slots[36].values()) == [0, 1, 2]
    assert counting.ids == sum(len(transcript.ids) - 1 for transcript in transcripts)  # nothing was computed again
    for transcript in transcripts:
        logprobs = full_pass(model, transcript.ids)
        for at in (at for at, sampled in enumerate(transcript.mask) if sampled):
            assert logprobs[at - 1, transcript.ids[at]].item() == pytest.approx(transcript.logprobs[at], abs=1e-4)


def test_a_closed_session_cannot_be_forked(model):
    async def closed():
        async with LocalSampler(model, STOPS).session(("a",)) as session:
            pass
        session.fork(("b",))

    with pytest.raises(RuntimeError, match="closed"):
        run(closed())


def test_equal_seeds_give_equal_numbers_bit_for_bit(model):
    first = numbers(run_sessions(LocalSampler(model, STOPS, max_sessions=5), draw_sessions(10)))
    used = LocalSampler(model, STOPS, max_sessions=5)
    run_sessions(used, draw_sessions(7))
    for sampler in (LocalSampler(model, STOPS, max_sessions=5), used):
        assert numbers(run_sessions(sampler, draw_sessions(10))) == first


def test_ids_do_not_depend_on_order_or_other_sessions(model):
    sessions = draw_sessions(10)
    first = run_sessions(LocalSampler(model, STOPS), sessions)
    reverse = run_sessions(LocalSampler(model, STOPS), sessions, list(reversed(sessions)))
    alone = {name: run_sessions(LocalSampler(model, STOPS), {name: turns})[name] for name, turns in sessions.items()}
    for other in (reverse, alone):
        for name in sessions:
            assert other[name][0].ids == first[name][0].ids
            assert other[name][0].logprobs == pytest.approx(first[name][0].logprobs, abs=1e-4)


def test_other_names_draw_other_ids(model):
    turns = [([5, 6, 7], SamplingParams(9))]
    held = run_sessions(LocalSampler(model, frozenset()), {("a", 1): turns, ("a", 2): turns, ("b", 1): turns})
    assert len({tuple(transcript.ids) for transcript, _ in held.values()}) == 3


def test_temperature_zero_samples_the_likeliest_id_with_its_logprob_at_one(model):
    for transcript, _ in run_sessions(LocalSampler(model, STOPS), draw_sessions(5, temperature=0.0)).values():
        logprobs = full_pass(model, transcript.ids)
        for at in (at for at, sampled in enumerate(transcript.mask) if sampled):
            assert transcript.ids[at] == logprobs[at - 1].argmax()
            assert transcript.logprobs[at] == pytest.approx(logprobs[at - 1].max().item(), abs=1e-4)


def test_an_answer_ends_with_a_stop_id_or_at_max_tokens(model):
    sampler, seen = LocalSampler(model, STOPS), set()
    for name, (_, answers) in run_sessions(sampler, draw_sessions(12)).items():
        for (_, params), answer in zip(draw_sessions(12)[name], answers, strict=True):
            seen.add(answer.stop)
            assert not STOPS & set(answer.ids[:-1])
            assert (answer.ids[-1] in STOPS) == (answer.stop is StopReason.STOP)
            assert len(answer.ids) <= params.max_tokens
            assert answer.stop is StopReason.STOP or len(answer.ids) == params.max_tokens
            assert len(answer.logprobs) == len(answer.ids)
    assert seen == {StopReason.STOP, StopReason.LENGTH}


@pytest.mark.parametrize("size", [1, 30, 46, 47])
def test_a_session_at_the_maximum_length_stops_as_full(make_model, size):
    model, turn = make_model(length=48), (list(range(20, 20 + size)), SamplingParams(40))
    transcript, answers = run_sessions(LocalSampler(model, frozenset()), {("life",): [turn] * 3})["life",]
    assert [answer.stop for answer in answers][-1] is StopReason.FULL
    assert answers[-1].ids == []
    last = max(at for at, sampled in enumerate(transcript.mask) if sampled)
    assert last == 47
    logprobs = full_pass(model, transcript.ids[:48])
    for at in (at for at, sampled in enumerate(transcript.mask) if sampled):
        assert logprobs[at - 1, transcript.ids[at]].item() == pytest.approx(transcript.logprobs[at], abs=1e-4)


@pytest.mark.parametrize("size", [48, 49, 300])
def test_a_prompt_beyond_the_maximum_length_gives_an_empty_full_answer(make_model, size):
    sampler = LocalSampler(make_model(length=48), frozenset())
    _, answers = run_sessions(
        sampler, {("long",): [([7] * size, SamplingParams(3))], ("short",): [([7], SamplingParams(3))]}
    )[("long",)]
    assert answers[0] == Sampled([], [], StopReason.FULL, [])


def test_sessions_beyond_the_limit_queue_and_finish(model):
    sampler, inside, most = LocalSampler(model, STOPS, max_sessions=2), 0, 0

    async def one(i):
        nonlocal inside, most
        async with sampler.session(("life", i)) as session:
            inside += 1
            most = max(most, inside)
            await session.sample([i + 1], SamplingParams(3))
            inside -= 1

    async def many():
        await asyncio.gather(*map(one, range(9)))

    run(many())
    assert most == 2


@pytest.mark.parametrize("places", [0, 1, 3])
def test_the_cache_stays_within_its_bytes_and_further_sessions_queue(model, places):
    whole = model.config.max_position_embeddings * bytes_per_id(model)
    sampler = LocalSampler(model, STOPS, cache_bytes=places * whole + whole // 2)
    sessions = draw_sessions(8)
    held = run_sessions(sampler, sessions)
    assert [len(held[name][1]) for name in sessions] == [len(turns) for turns in sessions.values()]
    stores = [store for layer in sampler._cache.layers for store in layer]
    assert sum(store.nbytes for store in stores) <= max(1, places) * whole
    assert stores[0].shape[0] == max(1, places)


@pytest.mark.parametrize("when", range(4))
def test_a_cancelled_session_frees_its_slot_and_the_others_continue(model, when):
    sampler, sessions = LocalSampler(model, frozenset(), max_sessions=3), {}
    for i in range(3):
        sessions["life", i] = [([i + 1] * 4, SamplingParams(8)), ([9], SamplingParams(8))]
    expected = numbers(run_sessions(LocalSampler(model, frozenset(), max_sessions=3), sessions))

    async def some():
        tasks = [asyncio.create_task(run_session(sampler, name, turns)) for name, turns in sessions.items()]
        for _ in range(3 * when):
            await asyncio.sleep(0)
        tasks[1].cancel()
        held = await asyncio.gather(*tasks, return_exceptions=True)
        assert isinstance(held[1], asyncio.CancelledError)
        return {("life", i): held[i] for i in (0, 2)}

    for name, (ids, *_) in numbers(run(some())).items():
        assert ids == expected[name][0]
    assert serves(sampler, 3)


def test_a_session_cancelled_in_the_queue_takes_no_slot(model):
    sampler = LocalSampler(model, frozenset(), max_sessions=1)

    async def queue():
        first = asyncio.create_task(run_session(sampler, ("first",), [([1], SamplingParams(6))]))
        await asyncio.sleep(0)
        second = asyncio.create_task(run_session(sampler, ("second",), [([1], SamplingParams(6))]))
        await asyncio.sleep(0)
        second.cancel()
        await asyncio.gather(first, second, return_exceptions=True)

    run(queue())
    assert serves(sampler, 1)


def test_a_cancelled_request_ends_only_its_session(model):
    sampler = LocalSampler(model, frozenset(), max_sessions=2)
    turns = [([3, 4], SamplingParams(8)), ([9], SamplingParams(8))]
    expected = run_sessions(sampler, {("good",): turns})["good",][0]

    async def cancels():
        async with sampler.session(("bad",)) as session:
            request = asyncio.create_task(session.sample([1, 2], SamplingParams(200)))
            for _ in range(6):
                await asyncio.sleep(0)
            request.cancel()
            await asyncio.wait([request])
            await session.sample([5], SamplingParams(3))

    async def both():
        return await asyncio.gather(cancels(), run_session(sampler, ("good",), turns), return_exceptions=True)

    bad, good = run(both())
    assert isinstance(bad, RuntimeError)
    assert "was cancelled" in str(bad)
    assert good[0].ids == expected.ids
    assert serves(sampler, 2)


def test_a_session_left_by_an_exception_frees_its_slot(model):
    sampler = LocalSampler(model, frozenset(), max_sessions=2)

    async def raises():
        async with sampler.session(("bad",)) as session:
            await session.sample([1, 2], SamplingParams(3))
            raise KeyError("in the middle")

    async def both():
        return await asyncio.gather(
            raises(),
            run_session(sampler, ("good",), [([1], SamplingParams(9)), ([2], SamplingParams(9))]),
            return_exceptions=True,
        )

    bad, good = run(both())
    assert isinstance(bad, KeyError)
    assert len(good[1]) == 2
    assert serves(sampler, 2)


@pytest.mark.parametrize(
    ("fault", "error"), [(out_of_memory, MemoryError), (not_finite, FloatingPointError)], ids=["raises", "nan"]
)
@pytest.mark.parametrize("call", [1, 2, 5])
def test_a_model_failure_reaches_every_caller_and_later_sessions_are_served(model, fault, error, call):
    sampler = LocalSampler(FaultyModel(model, {call}, fault), frozenset(), max_sessions=4)

    async def all_at_once():
        lives = [run_session(sampler, ("life", i), [([i + 1] * (i + 1), SamplingParams(6))]) for i in range(4)]
        return await asyncio.gather(*lives, return_exceptions=True)

    assert [type(answer) for answer in run(all_at_once())] == [error] * 4
    assert serves(sampler, 4)


def test_a_model_failure_reaches_the_others_if_one_caller_was_just_cancelled(model):
    def cancel_and_raise(output):
        tasks[0].cancel()
        raise MemoryError("no room")

    sampler = LocalSampler(FaultyModel(model, {3}, cancel_and_raise), frozenset(), max_sessions=3)
    tasks = []

    async def all_at_once():
        tasks.extend(
            asyncio.create_task(run_session(sampler, ("life", i), [([i + 1], SamplingParams(6))])) for i in range(3)
        )
        return await asyncio.gather(*tasks, return_exceptions=True)

    assert [type(answer) for answer in run(all_at_once())] == [asyncio.CancelledError, MemoryError, MemoryError]
    assert serves(sampler, 3)


def test_new_weights_are_served_under_their_version_without_an_old_cache(model, make_model):
    sampler, other = LocalSampler(model, STOPS), make_model(seed=1)
    old = run_sessions(sampler, draw_sessions(3))
    run(sampler.load(other.state_dict(), 5))
    new = run_sessions(sampler, draw_sessions(3))
    for name in old:
        transcript, answers = new[name]
        assert all(answer.versions == [5] * len(answer.ids) for answer in answers)
        assert transcript.ids != old[name][0].ids
        logprobs = full_pass(other, transcript.ids)
        for at in (at for at, sampled in enumerate(transcript.mask) if sampled):
            assert logprobs[at - 1, transcript.ids[at]].item() == pytest.approx(transcript.logprobs[at], abs=1e-4)


def test_weights_cannot_change_under_an_open_session(model):
    sampler = LocalSampler(model, STOPS)

    async def load_inside():
        async with sampler.session(("open",)):
            await sampler.load(None, 1)

    with pytest.raises(RuntimeError, match="cannot load weights while 1 sessions are open; close them first"):
        run(load_inside())
    assert sampler.version == 0
    run(sampler.load(None, 1))
    assert sampler.version == 1


def test_a_closed_session_refuses_requests(model):
    sampler = LocalSampler(model, STOPS)

    async def late():
        async with sampler.session(("closed",)) as session:
            await session.sample([1], SamplingParams(2))
        await session.sample([1], SamplingParams(2))

    with pytest.raises(RuntimeError, match="this session is closed"):
        run(late())


def test_a_request_without_ids_fails_only_for_its_caller(model):
    sampler = LocalSampler(model, STOPS)

    async def both():
        empty, good = (
            run_session(sampler, ("empty",), [([], SamplingParams(2))]),
            run_session(sampler, ("good",), [([1], SamplingParams(2))]),
        )
        return await asyncio.gather(empty, good, return_exceptions=True)

    empty, good = run(both())
    assert isinstance(empty, ValueError)
    assert good[1][0].ids


def test_a_huge_max_tokens_is_limited_by_the_maximum_length(model):
    answers = []
    for most in (90, 10**12):
        sampler = LocalSampler(model, frozenset(), max_length=100)
        _, (answer,) = run(run_session(sampler, ("long",), [([5] * 10, SamplingParams(most))]))
        answers.append(answer)
    assert answers[0].ids == answers[1].ids
    assert (len(answers[1].ids), answers[1].stop) == (90, StopReason.FULL)


@pytest.mark.parametrize("max_tokens", [0, -3])
def test_max_tokens_below_one_fails_only_for_its_caller(model, max_tokens):
    sampler = LocalSampler(model, STOPS)

    async def both():
        none, good = (
            run_session(sampler, ("none",), [([1], SamplingParams(max_tokens))]),
            run_session(sampler, ("good",), [([1], SamplingParams(2))]),
        )
        return await asyncio.gather(none, good, return_exceptions=True)

    none, good = run(both())
    assert isinstance(none, ValueError)
    assert good[1][0].ids


def test_a_sampler_outlives_event_loops_that_failed(model):
    sampler = LocalSampler(model, frozenset(), max_sessions=2)

    async def fails():
        tasks = [asyncio.create_task(run_session(sampler, ("life", i), [([1], SamplingParams(9))])) for i in range(3)]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        raise KeyError(len(tasks))

    for _ in range(3):
        with pytest.raises(KeyError):
            run(fails())
        assert serves(sampler, 2)


def test_sampled_tokens_are_counted(model):
    sampler = LocalSampler(model, STOPS)
    held = run_sessions(sampler, draw_sessions(6))
    assert sampler.sampled_tokens == sum(transcript.tokens for transcript, _ in held.values())

"""Models that cannot read packed rows: both samplers return the logprobs of the model's own forward pass."""

from copy import deepcopy

import pytest
import torch
from benchmarks.architectures import make_model, own_logprobs

from codots.sampler.base import SamplingParams
from codots.sampler.continuous import ContinuousSampler
from codots.sampler.local import LocalSampler
from tests.sampler.sessions import STOPS, FaultyModel, draw_sessions, numbers, out_of_memory, run, run_sessions

NAMES = ("qwen3_5_text", "lfm2", "llama4_text", "gptj", "gemma2", "phi3, longrope")
SAMPLERS = {"lockstep": LocalSampler, "continuous": ContinuousSampler}
VOCABULARY = 900


def assert_scored_alone(model, transcripts):
    """Compare all logprobs with passes of the model over the ids before each sampled id."""
    with torch.no_grad():
        for transcript in transcripts:
            own = own_logprobs(model, transcript).tolist()
            assert own == pytest.approx(transcript.logprobs, abs=1e-4)


@pytest.mark.parametrize("kind", SAMPLERS)
@pytest.mark.parametrize("name", NAMES)
def test_logprobs_are_those_of_the_model_alone(name, kind):
    model, sessions = make_model(name, vocab_size=VOCABULARY), draw_sessions(7)
    held = run_sessions(SAMPLERS[kind](deepcopy(model), STOPS, max_sessions=4), sessions)
    assert_scored_alone(model, [transcript for transcript, _ in held.values()])
    assert any(len(answers) > 2 for _, answers in held.values())


@pytest.mark.parametrize("name", NAMES)
def test_both_samplers_return_the_same_ids_as_one_session_at_a_time(name):
    model, sessions = make_model(name, vocab_size=VOCABULARY), draw_sessions(5)
    lockstep, continuous = (numbers(run_sessions(make(model, STOPS), sessions)) for make in SAMPLERS.values())
    alone = LocalSampler(model, STOPS)
    for key, session in sessions.items():
        expected = numbers(run_sessions(alone, {key: session}))[key]
        assert lockstep[key] == expected
        assert continuous[key] == expected


@pytest.mark.parametrize("kind", SAMPLERS)
@pytest.mark.parametrize("name", ["qwen3_5_text", "phi3, longrope"])
def test_a_branch_continues_its_session(name, kind):
    model = make_model(name)
    sampler = SAMPLERS[kind](model, frozenset())

    async def branched():
        async with sampler.session(("trunk",)) as trunk:
            first = await trunk.sample([5, 6, 7, 8], SamplingParams(6))
        async with sampler.session(("trunk",)) as trunk:
            await trunk.sample([5, 6, 7, 8], SamplingParams(6))
            branch = trunk.fork(("branch",))
        async with branch:
            return first, await branch.sample([9, 10], SamplingParams(7))

    first, second = run(branched())
    ids = [5, 6, 7, 8, *first.ids, 9, 10]
    with torch.no_grad():
        for id, logprob in zip(second.ids, second.logprobs, strict=True):
            logits = model(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1]
            assert logprob == pytest.approx(logits.log_softmax(-1)[id].item(), abs=1e-4)
            ids.append(id)


@pytest.mark.parametrize("keep_cache", [False, True])
def test_weights_loaded_between_turns_sample_the_next_answer(keep_cache):
    model, other = make_model("qwen3_5_text"), make_model("qwen3_5_text")
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.mul_(0.9)
    sampler = ContinuousSampler(deepcopy(model), frozenset())

    async def turns():
        async with sampler.session(("life",), keep_cache=keep_cache) as session:
            first = await session.sample([5, 6, 7], SamplingParams(5))
            await sampler.load(other.state_dict(), 1)
            return first, await session.sample([8, 9], SamplingParams(5))

    first, second = run(turns())
    assert second.versions == [1] * 5
    ids = [5, 6, 7, *first.ids, 8, 9]
    with torch.no_grad():
        logprobs = other(input_ids=torch.tensor([ids + second.ids])).logits[0, len(ids) - 1 : -1].log_softmax(-1)
    assert logprobs[range(5), second.ids].tolist() == pytest.approx(second.logprobs, abs=1e-4)


@pytest.mark.parametrize("kind", SAMPLERS)
def test_sessions_after_a_failed_pass_are_right(kind):
    model = make_model("lfm2", vocab_size=VOCABULARY)
    sampler = SAMPLERS[kind](FaultyModel(model, {5}, out_of_memory), STOPS)
    with pytest.raises(MemoryError):
        run_sessions(sampler, draw_sessions(3))
    held = run_sessions(sampler, draw_sessions(3))
    assert_scored_alone(model, [transcript for transcript, _ in held.values()])

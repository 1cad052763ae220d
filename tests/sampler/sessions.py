"""Shared by the tests of samplers: sessions to run, reference forward passes, models that count or fail."""

import asyncio

import pytest
import torch

from codots.core.rng import stream
from codots.core.transcript import Transcript
from codots.model.path import path_of
from codots.sampler.base import SamplingParams

STOPS = frozenset(range(0, 900, 9))
"""Enough stop ids that a random model samples one now and then."""
TIMEOUT = 60
"""Seconds after which a test counts as hanging."""


def run(awaitable):
    """Run to the end, with a timeout."""

    async def bounded():
        return await asyncio.wait_for(awaitable, TIMEOUT)

    return asyncio.run(bounded())


async def run_session(sampler, names, turns):
    """Run one session; return its transcript and answers."""
    transcript, answers = Transcript(), []
    async with sampler.session(names) as session:
        for ids, params in turns:
            answers.append(await session.sample(ids, params))
            transcript.read(ids)
            transcript.wrote(answers[-1])
    return transcript, answers


def draw_sessions(count, temperature=1.0, turns=4, max_tokens=9):
    """Draw ragged sessions: 1 to 4 turns, with prompts of 1 to 30 ids and answers of 1 to 9."""
    rng, sessions = stream("ragged"), {}
    for i in range(count):
        sessions["life", i] = [
            (
                rng.integers(0, 800, rng.integers(1, 31)).tolist(),
                SamplingParams(int(rng.integers(1, max_tokens + 1)), temperature),
            )
            for _ in range(rng.integers(1, turns + 1))
        ]
    return sessions


def run_sessions(sampler, sessions, order=None):
    """Run all sessions at once; return transcripts and answers by name."""

    async def all_at_once():
        names = order or list(sessions)
        held = await asyncio.gather(*(run_session(sampler, name, sessions[name]) for name in names))
        return dict(zip(names, held, strict=True))

    return run(all_at_once())


def full_pass(model, ids, temperature=1.0):
    """Return log-probabilities of the next id at each position, from one plain forward pass."""
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([ids]), use_cache=False).logits[0, :-1]
    return (logits / temperature).log_softmax(-1)


def assert_scored_by(model, transcript, temperature=1.0, version=0):
    """Compare the logprobs of the ids that a version sampled with one plain forward pass of its model."""
    logprobs = full_pass(model, transcript.ids, temperature)
    for at in (at for at, sampled in enumerate(transcript.mask) if sampled and transcript.versions[at] == version):
        assert logprobs[at - 1, transcript.ids[at]].item() == pytest.approx(transcript.logprobs[at], abs=1e-4)


def numbers(held):
    return {name: (t.ids, t.mask, t.logprobs, [a.stop for a in answers]) for name, (t, answers) in held.items()}


def serves(sampler, sessions):
    """Whether this many sessions can still run at once."""
    held = run_sessions(sampler, {("after", i): [([i + 1], SamplingParams(2))] for i in range(sessions)})
    return len(held) == sessions


class CountingModel:
    """A model that counts the ids of each forward pass."""

    def __init__(self, model):
        self.model, self.config, self.forward_path, self.passes = model, model.config, path_of(model), []
        self.set_attn_implementation, self.dtype = model.set_attn_implementation, model.dtype
        self.device, self.modules, self.load_state_dict = model.device, model.modules, model.load_state_dict

    def __call__(self, **inputs):
        self.passes.append(inputs["input_ids"].numel())
        return self.model(**inputs)

    @property
    def ids(self):
        return sum(self.passes)


class FaultyModel:
    """A model that fails at given calls."""

    def __init__(self, model, bad, fault):
        self.model, self.bad, self.fault, self.calls, self.config = model, bad, fault, 0, model.config
        self.forward, self.forward_path = model.forward, path_of(model)
        self.set_attn_implementation, self.dtype = model.set_attn_implementation, model.dtype
        self.device, self.modules = model.device, model.modules

    def __call__(self, **inputs):
        self.calls += 1
        output = self.model(**inputs)
        return self.fault(output) if self.calls in self.bad else output


def out_of_memory(output):
    raise MemoryError("no room")


def not_finite(output):
    output.logits[:] = float("nan")
    return output

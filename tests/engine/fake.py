"""A minimal engine: a table of logits over a few words, trained by REINFORCE."""

from collections import deque

import numpy as np

from codots.core.deadline import run_loop
from codots.core.rng import stream
from codots.core.transcript import Sampled, StopReason
from codots.rollout.life import rollouts


class FakeEngine:
    """Its policy ignores the context and learns which word is best on average."""

    def __init__(self, render, words, rate=8.0):
        self.render, self.rate = render, rate
        self.words = [render.reply(word)[0] for word in words]
        self.logits, self.served = np.zeros(len(words)), np.zeros(len(words))
        self.gradient, self.version, self.steps, self.lives = 0.0, 0, 0, deque()

    pending = property(lambda self: len(self.lives))

    def session(self, names):
        return FakeSession(self, names)

    def rollout(self, jobs, timeout, on_life=lambda index, life: None):
        return run_loop(rollouts(jobs, self, self.render, on_life))

    def submit(self, jobs, timeout):
        self.lives.append(self.rollout(jobs, timeout))

    def collect(self, timeout):
        return self.lives.popleft()

    def forward_backward(self, samples, normalizer, timeout):
        logprobs = self.logits - np.logaddexp.reduce(self.logits)
        for sample in samples:
            at = sample.mask.index(True)
            chosen = np.array(self.words) == sample.ids[at]
            self.gradient += sample.advantages[at] / normalizer * (chosen - np.exp(logprobs))
        return {"train/logprob_gap": 0.0}

    def optim_step(self, timeout):
        self.logits = self.logits + self.rate * self.gradient
        self.gradient, self.steps = 0.0, self.steps + 1
        return {}

    def sync(self, timeout):
        self.served, self.version = self.logits, self.version + 1
        return {}

    def save(self, folder):
        np.save(folder / "logits.npy", self.logits)

    def save_model(self, folder):
        self.save(folder)

    def close(self):
        pass


class FakeSession:
    def __init__(self, engine, names):
        self.engine, self.rng = engine, stream(*names)

    async def __aenter__(self):
        return self

    async def __aexit__(self, *error):
        pass

    async def sample(self, ids, params):
        logprobs = self.engine.served - np.logaddexp.reduce(self.engine.served)
        word = int(self.rng.choice(len(logprobs), p=np.exp(logprobs)))
        return Sampled([self.engine.words[word]], [float(logprobs[word])], StopReason.STOP, [self.engine.version])

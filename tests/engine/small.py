"""A plan, jobs, batches and comparisons for the tests of engines."""

import torch
from safetensors.torch import load_file

from codots.context.rewrite import Rewrite
from codots.domains.registry import make_pack
from codots.engine.plan import Plan
from codots.learner.batch import normalizer
from codots.learner.config import LearnerConfig
from codots.model import tiny
from codots.rollout.life import Job
from codots.rollout.profile import Profile
from codots.rollout.steps import Own

PROFILE = Profile("natural", solve_tokens=5, update_tokens=8)


def make_plan(folder, tokenizer, **learner):
    model = tiny.make_model(tokenizer, width=24, layers=2, heads=2, seed=0, length=2048)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(6)
    tiny.save(model, tokenizer, folder)
    return Plan(folder, PROFILE, LearnerConfig(warmup_steps=0, max_microbatch_tokens=2000, **learner))


def jobs(lives=5, first=0, domain="registered-talk-v0", preset="few"):
    packs = [make_pack(domain, preset, "dev", first + i, 2) for i in range(lives)]
    return [Job(pack, Own(Rewrite()), PROFILE.episode_params(), ("test", first + i)) for i, pack in enumerate(packs)]


def batch_of(lives):
    """Return the episodes of lives as samples with arbitrary advantages."""
    transcripts = [episode.transcript for life in lives for episode in life.episodes]
    return [transcript.sample((-1.0) ** i * (1 + i % 3)) for i, transcript in enumerate(transcripts)]


def sampled_by(life):
    """Return the weight versions that sampled tokens of a life."""
    transcripts = [episode.transcript for episode in life.episodes]
    return {version for t in transcripts for version, sampled in zip(t.versions, t.mask, strict=True) if sampled}


def step_on(engine, batch):
    """Take one optimizer step on a batch and serve the weights, as training does."""
    metrics = engine.forward_backward(batch, normalizer(batch, engine.plan.learner), 60)
    metrics |= engine.optim_step(60)
    engine.sync(60)
    return metrics


def weights(engine, folder):
    """Return the weights of an engine as one tensor, by way of a new folder."""
    engine.save_model(folder)
    saved = load_file(folder / "model.safetensors")
    return torch.cat([saved[name].reshape(-1) for name in sorted(saved)])


def moments(folder):
    """Return the moments of a saved optimizer."""
    state = torch.load(folder / "optimiser.pt", weights_only=True)["optimiser"]["state"]
    return [(values["exp_avg"], values["exp_avg_sq"]) for _, values in sorted(state.items())]

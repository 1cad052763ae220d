"""Fixtures for tests of whole runs: a tiny trainable model with few words, fake lives, and a failing environment."""

from pathlib import Path

import numpy as np
import torch

from codots.core.transcript import Sampled, StopReason, Transcript
from codots.model import tiny
from codots.rollout.life import Life
from codots.rollout.profile import Profile
from codots.rollout.steps import Episode
from tests.toy import Guess

PROFILE = Profile("compact", 4, 14, 200)
KINDS = (
    ("<|assistant|>",),
    ("<|end|>",),
    (" <context>",),
    (" </context>",),
    (" 1", " 2", " 3", " 4"),
    (" 1=up", " 2=down", " 3=left", " 4=right"),
)
BIGRAM_LOGITS = torch.tensor(
    [  # logits of a word of one kind after a word of another
        [0.0, 5.0, 8.5, 6.0, 9.0, 4.0],
        [5.0, 0.0, 7.0, 13.0, 9.5, 6.0],
        [8.5, 7.0, 3.0, 9.0, 6.5, 8.0],
        [6.0, 13.0, 9.0, 3.0, 6.0, 9.0],
        [9.0, 9.5, 6.5, 6.0, 6.0, 4.0],
        [4.0, 6.0, 8.0, 9.0, 4.0, 6.5],
    ]
)


def make_random_model(folder: Path, *, seed: int = 0, length: int = 256, width: int = 24) -> Path:
    """Write a model folder; the embedding is tied to the output layer, so the table is symmetric and factorized."""
    tokenizer = tiny.make_tokenizer()
    model = tiny.make_model(tokenizer, width=width, layers=2, heads=2, seed=seed, length=length)
    values, vectors = torch.linalg.eigh(BIGRAM_LOGITS)
    with torch.no_grad():
        rows, scale = model.get_input_embeddings().weight, model.model.norm.weight
        for parameter in model.model.layers.parameters():
            if parameter.ndim > 1:
                parameter.mul_(5 * 24 / width)  # so that earlier tokens have an effect
        rows[:, :6] = 0.0
        for kind, row in zip(KINDS, vectors * values.abs().sqrt(), strict=True):
            ids = tokenizer.convert_tokens_to_ids(list(kind))
            rows[ids, :6] = row
        scale[:6] = values.sign() * rows[:, :6].norm(dim=1).max() / width**0.5
    tiny.save(model, tokenizer, folder)
    PROFILE.save(folder)
    return folder


def fake_lives(count, size, missing=(), given=False, seed=0):
    """Return fake lives; the ids of each episode are unique."""
    rng = np.random.default_rng(seed)
    return [
        Life(("life", i), (), "gone") if i in missing else _fake_life(rng, size, given, first_id=100 * i)
        for i in range(count)
    ]


def _fake_life(rng, size, given, first_id):
    episodes = []
    for j in range(size):
        for kind in ("solve",) if given or j + 1 == size else ("solve", "update"):
            transcript, tokens = Transcript(), int(rng.integers(1, 6))
            transcript.read([0, 0])
            transcript.wrote(
                Sampled([first_id + len(episodes)] * tokens, [-1.0] * tokens, StopReason.STOP, [0] * tokens)
            )
            reward, stop = max(0.0, float(rng.normal(0.5, 0.4))), str(rng.choice(["goal", "hole", "malformed"]))
            episodes.append(Episode(kind, j, reward, "", None, stop, (), "", transcript))
    return Life(("life", first_id), tuple(episodes))


class Flaky(Guess):
    """Its environments are down for some packs when a model plays them, not for scripted policies."""

    id = "flaky-v0"
    styles = ("natural", "compact")
    down = ()

    def make_env(self, task, *, style="natural", memory=None, rng):
        if style == "compact" and task.names[3] in self.down:
            raise ConnectionError("the environment is down")
        return super().make_env(task, style=style, memory=memory, rng=rng)

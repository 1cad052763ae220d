"""Compare the learner with plain ways to train on the same episodes.

    python benchmarks/learner.py [--quick] [--json]

The episodes are those of the first step of `recipes/demo.yaml`, rolled out by the shipped base and credited as in
training. Every contestant computes the gradient of the same loss over all episodes whose credit is not 0, since the
others add nothing. Micro-batches have at most the recipe's `max_microbatch_tokens` ids, padding included:

- trees: the learner. It runs a shared prefix of samples once and pads nothing.
- padded: one sample per episode, shuffled and padded to the longest of its micro-batch, through plain transformers.
- padded, lean head: the same, but only the positions of sampled ids go through the output layer.
- a sample a turn: every turn of an episode is a sample, with everything before it as its prompt; then as padded.

Real tokens are the ids of the merged samples, one per episode, without padding: the same count for every contestant.
Ids run are the ids that pass forward and backward through the model, padding included.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from contest import ROUNDS, Figures, RunOnce, contest, in_process, median, options, show, timed
from one_step import DEMO, demo, step_samples

from codots.config.schema import TrainConfig
from codots.core.transcript import Sample
from codots.model.load import load_model, model_folder

PADDED = {"padded": (False, False), "padded, lean head": (False, True), "a sample a turn": (True, False)}
"""For each plain contestant, whether every turn is a sample, and whether its head is lean."""
COLUMNS = {
    "seconds": "seconds",
    "real_tokens_per_s": "real tokens/s",
    "samples": "samples",
    "ids": "ids run",
    "ids_unpadded": "without padding",
    "difference": "gradient off by",
}


def by_turn(batch: Sequence[Sample]) -> list[Sample]:
    """Make a sample of every turn, with everything before it as its prompt."""
    turns = []
    for sample in batch:
        sampled = np.array([False, *sample.mask, False])
        starts, ends = np.flatnonzero(sampled[1:] & ~sampled[:-1]), np.flatnonzero(sampled[:-1] & ~sampled[1:])
        for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
            mask, zeros = [False] * start + [True] * (end - start), [0.0] * start
            values = (zeros + row[start:end] for row in (sample.advantages, sample.logprobs))
            turns.append(Sample(sample.ids[:end], mask, *values, [0] * start + sample.versions[start:end]))
    return turns


def padded_parts(batch: Sequence[Sample], budget: int) -> Iterator[list[Sample]]:
    """Split a shuffled batch into parts of at most `budget` ids each, padding included."""
    shuffled, part, longest = random.Random(0).sample(batch, len(batch)), [], 0
    for sample in shuffled:
        longest = max(longest, len(sample.ids))
        if part and (len(part) + 1) * longest > budget:
            yield part
            part, longest = [], len(sample.ids)
        part.append(sample)
    yield part


def padded(rows: Sequence[Sequence[Any]]) -> Any:
    """Pad rows into one tensor, (B, T)."""
    import torch
    from torch.nn.utils.rnn import pad_sequence

    return pad_sequence([torch.tensor(row) for row in rows], batch_first=True)


def plain_gradient(model: Any, batch: Sequence[Sample], budget: int, normaliser: int, lean: bool) -> np.ndarray:
    """Return the flat gradient of the learner's loss, computed with plain transformers."""
    import torch

    from codots.algorithm.losses import policy_loss

    model.zero_grad(set_to_none=True)
    for part in padded_parts(batch, budget):
        ids_BT, attended_BT = padded([s.ids for s in part]), padded([[1] * len(s.ids) for s in part])
        old_BT, advantages_BT, mask_BT = (
            padded([getattr(s, name) for s in part])[:, 1:] for name in ("logprobs", "advantages", "mask")
        )
        inputs = {"input_ids": ids_BT, "attention_mask": attended_BT, "use_cache": False}
        if lean:
            logits_MV = model.get_output_embeddings()(model.base_model(**inputs)[0][:, :-1][mask_BT])
        else:
            logits_MV = model(**inputs).logits[:, :-1][mask_BT]
        logprobs_M = logits_MV.log_softmax(-1).gather(1, ids_BT[:, 1:][mask_BT][:, None])[:, 0]
        old_M, advantages_M = old_BT[mask_BT], advantages_BT[mask_BT]
        trained = torch.ones_like(old_M, dtype=torch.bool)
        policy_loss(logprobs_M, old_M, advantages_M, trained, normalizer=normaliser)[0].backward()
    return torch.cat([parameter.grad.reshape(-1) for parameter in model.parameters()]).numpy()


def tree_gradient(learner: Any, batch: Sequence[Sample], normaliser: int) -> np.ndarray:
    """Return the flat gradient of the learner."""
    learner.forward_backward(batch, normaliser)
    return learner.take_gradient().numpy()


def contestant(name: str, folder: Path, config: TrainConfig) -> RunOnce:
    """Prepare a contestant and save its gradient in the folder."""
    from codots.learner.batch import micro_batches, normalizer
    from codots.learner.local import LocalLearner

    batch = [Sample(**json.loads(line)) for line in (folder / "batch.jsonl").read_text().splitlines()]
    model, _ = load_model(model_folder(config.model))
    budget, normaliser = config.learner.max_microbatch_tokens, normalizer(batch, config.learner)
    if name in PADDED:
        by_turns, lean = PADDED[name]
        batch = by_turn(batch) if by_turns else batch
        gradient = partial(plain_gradient, model, batch, budget, normaliser, lean)
        ids = sum(len(part) * max(len(s.ids) for s in part) for part in padded_parts(batch, budget))
        unpadded = sum(len(sample.ids) for sample in batch)
    else:
        learner = LocalLearner(model, config.learner, config.steps)
        gradient = partial(tree_gradient, learner, batch, normaliser)
        ids = unpadded = sum(len(part.ids) for part in micro_batches(batch, budget))
    np.save(folder / f"{name}.npy", gradient())
    return lambda: {"seconds": timed(gradient), "samples": len(batch), "ids": ids, "ids_unpadded": unpadded}


def measure(config: TrainConfig, folder: Path, rounds: int) -> dict[str, Any]:
    """Run all contestants on the same episodes."""
    everything = step_samples(config)
    batch = [sample for sample in everything if any(sample.advantages)]
    (folder / "batch.jsonl").write_text("".join(json.dumps(asdict(sample)) + "\n" for sample in batch))
    contestants = {name: in_process(contestant, name, folder, config) for name in ("trees", *PADDED)}
    found = {name: median(rows) for name, rows in contest(contestants, rounds).items()}
    real = sum(len(sample.ids) for sample in batch)
    plain = np.load(folder / "padded.npy")
    for name, row in found.items():
        off = np.linalg.norm(np.load(folder / f"{name}.npy") - plain) / np.linalg.norm(plain)
        row |= {"real_tokens_per_s": real / row["seconds"], "difference": float(off)}
    trees, turns = found["trees"], found["a sample a turn"]
    return {
        "what": f"One gradient over {len(batch)} episodes of {DEMO.name}, {real:,} real tokens",
        "contestants": found,
        "notes": [f"{len(everything) - len(batch)} more episodes have a credit of 0; no contestant runs them."],
        "bars": speedups(found)
        | {"ids run, a sample a turn over trees": (turns["ids"] / trees["ids"], "at least 4")}
        | {"the same without padding": (turns["ids_unpadded"] / trees["ids"], "none")}
        | {"gradients of trees and padded differ by": (trees["difference"], "below 1e-4")},
    }


def speedups(found: dict[str, Figures]) -> dict[str, tuple[float, str]]:
    """Return the real tokens per second of trees over those of each plain contestant, with targets."""
    targets = {"padded": "at least 1.5"}
    return {
        f"real tokens/s, trees over {name}": (
            found["trees"]["real_tokens_per_s"] / found[name]["real_tokens_per_s"],
            targets.get(name, "none"),
        )
        for name in PADDED
    }


def main() -> None:
    """Run the contest."""
    args = options(__doc__).parse_args()
    with TemporaryDirectory() as folder:
        config = demo(*(["packs_per_step=2", "group_size=4", "workers=1"] if args.quick else []))
        show(measure(config, Path(folder), 1 if args.quick else ROUNDS), COLUMNS, args.json)


if __name__ == "__main__":
    main()

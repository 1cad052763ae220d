"""A recipe of four small steps, and comparisons of runs."""

import json
from pathlib import Path

import torch
from safetensors.torch import load_file

from codots.config.schema import TrainConfig, fingerprint
from codots.runs.checkpoint import checkpoints, last_checkpoint
from codots.runs.folder import MUTABLE_KEYS, saved_recipe

SMALL = {
    "preset": "tiny",
    "pack_size": 3,
    "steps": 4,
    "packs_per_step": 2,
    "group_size": 2,
    "workers": 1,
    "save_every": 1,
    "eval_every": 2,
    "eval_packs": 2,
    "rollout_log_every": 1,
    "learner": {"lr": 3e-3, "warmup_steps": 0},
}


def recipe(base, run, **changes):
    return TrainConfig.model_validate(SMALL | {"model": str(base), "run": str(run)} | changes)


def changed(config, **changes):
    keys = config.to_dict() | changes
    if "worlds" in changes:
        keys = {key: value for key, value in keys.items() if key not in TrainConfig.SHORT}
    return TrainConfig.model_validate(keys)


def last_step(config):
    """Return the step of the newest complete checkpoint."""
    run = Path(config.run)
    return last_checkpoint(run, fingerprint(saved_recipe(run), without=MUTABLE_KEYS))[1]["step"]


def metrics(run, clock=False):
    lines = [json.loads(line) for line in (Path(run) / "metrics.jsonl").read_text().splitlines()]
    left_out = ("ray/",) if clock else ("time/", "ray/")
    return [{key: value for key, value in line.items() if not key.startswith(left_out)} for line in lines]


def weights(folder):
    return load_file(Path(folder) / "model" / "model.safetensors")


def equal(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def optimizer(folder):
    state = torch.load(folder / "optimiser.pt", weights_only=True)["optimiser"]["state"]
    return {f"{i} {name}": value for i, moments in state.items() for name, value in moments.items()}


def same_run(run, other):
    """Assert that metrics, rollouts, weights and optimizer state are equal bit for bit."""
    run, other = Path(run), Path(other)
    assert metrics(run) == metrics(other)
    assert equal(weights(run), weights(other))
    ends = checkpoints(run)[-1], checkpoints(other)[-1]
    assert ends[0].name == ends[1].name
    assert equal(optimizer(ends[0]), optimizer(ends[1]))
    assert equal(weights(ends[0]), weights(ends[1]))
    rollouts = [{file.name: file.read_bytes() for file in (folder / "rollouts").iterdir()} for folder in (run, other)]
    assert rollouts[0] == rollouts[1]


def tree(folder):
    return {path: path.read_bytes() for path in Path(folder).rglob("*") if path.is_file() and path.name != ".lock"}

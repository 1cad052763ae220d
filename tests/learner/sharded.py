"""Learners of a process group on this machine, each in a process of its own, for the tests of sharded learners."""

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from codots.learner.batch import normalizer
from codots.learner.config import LearnerConfig
from codots.learner.fsdp import ShardedLearner
from codots.learner.lora import adapt


def run(folder, model, shares, settings, half=False, load=None):
    """Train a model for three steps on a learner for each share, and save it in a new folder.

    Returns what rank 0 has: the gradients of the steps and the weights, as flat tensors, the last step's metrics and
    the logprobs of every share. With `load`, all learners first load that checkpoint, and take no step.
    """
    folder.mkdir()
    mp.spawn(_rank, (folder, model, shares, settings, half, load), len(shares))
    return torch.load(folder / "found.pt", weights_only=True)


def _rank(rank, folder, model, shares, settings, half, load):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=len(shares))
    config = LearnerConfig(**settings)
    model = model.to(torch.bfloat16) if half else model
    if config.lora:
        adapt(model, config.lora)
    learner = ShardedLearner(model, config)
    total = normalizer([sample for share in shares for sample in share], config)
    gradients, metrics = [], {}
    if load:
        learner.set_state(torch.load(load / "found.pt", weights_only=True)["state"])
        learner.load(load)
    for _ in range(0 if load else 3):
        learner.forward_backward(shares[rank], total)
        gradients.append(torch.cat([weight.grad.full_tensor().reshape(-1) for weight in learner.parameters]))
        metrics = learner.optim_step()
    found = {"gradients": gradients, "metrics": metrics, "weights": learner.flat_weights(), "state": learner.state()}
    rows = [None] * len(shares)
    dist.all_gather_object(rows, learner.logprobs(shares[rank]))
    learner.save(folder)
    if rank == 0:
        torch.save(found | {"logprobs": [row for share in rows for row in share]}, folder / "found.pt")
    dist.destroy_process_group()

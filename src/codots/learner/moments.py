"""State of the optimizer on disk: in one file, or as shards that any number of learners can read (DCP)."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

FILE, SHARDS = "optimiser.pt", "optimiser"
"""File of one learner, and folder of the shards of several ones."""


def state_of(optimizer: Any, weights: Sequence[Tensor], steps: int, masters: bool) -> dict[str, Any]:
    """Return what a checkpoint has of an optimizer: its moments, and its weights if `masters`.

    Before the first step the moments are zeros, so that the state has the same shape at every step.
    """
    known = optimizer.state_dict()["state"]
    moments = {i: known.get(i) or zeros(weight) for i, weight in enumerate(weights)}
    state = {"optimiser": {"state": moments}, "steps": steps}
    return state | ({"masters": [weight.detach() for weight in weights]} if masters else {})


def zeros(weight: Tensor) -> dict[str, Tensor]:
    """Return AdamW's state of a weight before the first step."""
    nothing = torch.zeros_like(weight.detach())
    return {"step": torch.zeros(()), "exp_avg": nothing, "exp_avg_sq": nothing.clone()}


def set_state(optimizer: Any, state: dict[str, Any]) -> None:
    """Load the moments of a state into an optimizer, whose settings stay."""
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": state["optimiser"]["state"], "param_groups": groups})


def write_shards(state: dict[str, Any], folder: Path) -> None:
    """Write the part of a state that each rank has. All ranks must call it."""
    from torch.distributed.checkpoint.state_dict_saver import save

    with _quiet():
        save(state, checkpoint_id=folder / SHARDS)


def read_shards(state: dict[str, Any], folder: Path) -> None:
    """Fill a state, whole or a part on each rank, from the shards of any number of ranks.

    Raises ValueError if they are of another model.
    """
    import torch.distributed as dist
    from torch.distributed.checkpoint.filesystem import FileSystemReader
    from torch.distributed.checkpoint.metadata import TensorStorageMetadata
    from torch.distributed.checkpoint.state_dict_loader import load

    reader = FileSystemReader(folder / SHARDS)
    found = reader.read_metadata().state_dict_metadata
    there = {name: tuple(one.size) for name, one in found.items() if isinstance(one, TensorStorageMetadata)}
    if there != (wanted := {name: tuple(one.shape) for name, one in _tensors(state)}):
        one = next(name for name in sorted({*there, *wanted}) if there.get(name) != wanted.get(name))
        raise ValueError(
            f"{folder / SHARDS} is of another model or precision: {one} has the shape {there.get(one)}, and "
            f"{wanted.get(one)} here"
        )
    with _quiet():
        load(state, storage_reader=reader, no_dist=not dist.is_initialized())


def _tensors(state: Any, name: str = "") -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors of a nested state with their names in a checkpoint."""
    if isinstance(state, Tensor):
        yield name, state
    elif isinstance(state, dict | list):
        for key, value in state.items() if isinstance(state, dict) else enumerate(state):
            yield from _tensors(value, f"{name}.{key}" if name else str(key))


@contextmanager
def _quiet() -> Iterator[None]:
    """Hide the warnings of torch about its own parts, and that a process alone needs no process group."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield

"""Known GPUs, and the speed of a model on one of them by arithmetic, without running it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from codots.config.schema import TrainConfig
from codots.core.suggest import check_known
from codots.preflight.model_shape import Shape
from codots.preflight.timing import Speed
from codots.rollout.fit import DryRun


@dataclass(frozen=True)
class Gpu:
    """Figures of a GPU, from its data sheet."""

    name: str
    gib: float
    """Memory in GiB."""
    tflops: float
    """Peak rate of dense matrix products in bfloat16, in 10^12 operations per second."""
    tb_per_s: float
    """Peak rate of memory, in 10^12 bytes per second."""


GPUS = {
    gpu.name: gpu
    for gpu in (
        Gpu("a100-40", 39.5, 312, 1.56),
        Gpu("a100-80", 79.1, 312, 2.04),
        Gpu("h100", 79.1, 989, 3.35),
        Gpu("h200", 139.8, 989, 4.8),
        Gpu("l40s", 44.5, 362, 0.86),
        Gpu("rtx-4090", 23.5, 165, 1.01),
    )
}
COMPUTE, BANDWIDTH = 0.35, 0.5
"""Fractions of the peak rates that large products and decoding are assumed to reach. Not measured."""
KERNELS, LAUNCH_SECONDS = 12, 5e-6
"""Assumed number of kernels of a layer in a decoding pass, and the time to start one. Not measured."""


def known_gpu(name: str) -> Gpu:
    """Return a GPU by its name. Raises ValueError, with the nearest name, for an unknown one."""
    check_known(name, GPUS, "GPU")
    return GPUS[name]


def check_count(config: TrainConfig, gpus: int) -> None:
    """Raise ValueError if a run needs another number of GPUs than there are."""
    engine = config.engine
    parts = engine.tensor_parallel
    wanted = parts * engine.samplers + engine.learners if engine.kind == "ray" else parts
    if wanted > gpus:
        each = f" of {parts} each" if parts > 1 else ""
        raise ValueError(
            f"engine.samplers={engine.samplers}{each} and engine.learners={engine.learners} need {wanted} GPUs, and "
            f"there are {gpus}; a run on one GPU needs engine=local"
        )
    if wanted < gpus:
        raise ValueError(
            f"the run uses {wanted} of {gpus} GPUs; expected engine.kind=ray with as many samplers and learners, or "
            f"--gpus {wanted}"
        )


def speed_on(gpu: Gpu, shape: Shape, lives: Sequence[DryRun], rows: int, recompute: bool, parts: int = 1) -> Speed:
    """Return the seconds of a worker's passes, if it rolls out `rows` lives at once, on `parts` GPUs.

    These are assumed to share sampling without loss. A decoding pass reads all weights, and the keys and values of all
    rows. A weight takes two operations for an id that is read, and six for one that is trained on, or eight if
    activations are recomputed.
    """
    lengths = [len(sample.ids) for life in lives for sample in life.samples]
    kept = rows * sum(lengths) / max(1, len(lengths)) * shape.bytes_per_id
    moved = (shape.weights * shape.itemsize + kept) / (gpu.tb_per_s * 1e12 * BANDWIDTH)
    operation = 1 / (gpu.tflops * 1e12 * COMPUTE)
    shared = max(moved, 2 * shape.weights * rows * operation) / parts
    decoding = max(shared, shape.layers * KERNELS * LAUNCH_SECONDS)
    learned = (8 if recompute else 6) * shape.weights * operation
    return Speed(decoding, 2 * shape.weights * operation / parts, learned)

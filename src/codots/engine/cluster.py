"""A Ray cluster: join it, or start one on this machine, and reserve room for actors."""

from __future__ import annotations

import ctypes
import importlib.util
import logging
import os
import signal
import socket
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from codots.core.processes import cores

ADDRESS = "RAY_ADDRESS"
"""Environment variable with the address of a running cluster."""
ANSWER_SECONDS = 10.0
"""Timeout of the first connection to a cluster, in seconds."""
ROOM_SECONDS = 30.0
"""Time that other work on a cluster has to free the room for the actors, in seconds."""


def check_ray() -> None:
    """Raise ValueError if Ray is missing."""
    if importlib.util.find_spec("ray") is None:
        raise ValueError("engine.kind=ray needs Ray: pip install 'codots[ray]'")


def connect() -> bool:
    """Join the cluster of RAY_ADDRESS, or start one on this machine. A process that is connected already stays so.

    Returns whether this call connected the process. Raises ValueError if the address does not answer.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray

    if ray.is_initialized():
        return False
    address = os.environ.get(ADDRESS) or "local"
    if address == "local":
        # One more than there are cores, because the learner and the samplers take turns.
        _init("a Ray cluster cannot be started", "local", num_cpus=cores() + 1, include_dashboard=False)
    else:
        check_answers(address)
        _init(f"the Ray cluster at {ADDRESS}={address} cannot be joined", address)
    return True


def disconnect() -> None:
    """Leave the cluster, which ends with this if this process started it."""
    import ray

    ray.shutdown()


def _init(failure: str, address: str, **options: Any) -> None:
    import ray

    try:
        with sigterm_handler_kept():
            ray.init(address, log_to_driver=False, logging_level=logging.ERROR, **options)
    except Exception as error:  # Ray raises ConnectionError, RuntimeError, ValueError and plain Exception
        raise ValueError(f"{failure}: {' '.join(str(error).split())}") from error


@contextmanager
def sigterm_handler_kept() -> Iterator[None]:
    """Keep the SIGTERM handler of the process, in any thread.

    Ray installs one that aborts the process three seconds after the signal, in which no step is finished and saved.
    """
    if os.name != "posix":
        yield
        return
    libc, handler = ctypes.CDLL(None), ctypes.create_string_buffer(1024)  # larger than a struct sigaction
    libc.sigaction(signal.SIGTERM, None, handler)
    try:
        yield
    finally:
        libc.sigaction(signal.SIGTERM, handler, None)


def check_answers(address: str) -> None:
    """Raise ValueError if no process listens at the address of a cluster."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if address == "auto":
        return
    if not host or not port.isdigit():
        raise ValueError(f"{ADDRESS} is {address!r}; expected HOST:PORT, such as 10.0.0.1:6379, or auto")
    try:
        socket.create_connection((host, int(port)), ANSWER_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise ValueError(
            f"no Ray cluster answers at {ADDRESS}={address} ({error}); expected the address that `ray start --head` "
            f"prints, or unset {ADDRESS} to start a cluster on this machine"
        ) from error


def size() -> str:
    """Return how many CPUs, GPUs and machines the cluster has."""
    import ray

    machines, there = sum(node["Alive"] for node in ray.nodes()), ray.cluster_resources()
    return f"{there.get('CPU', 0):g} CPUs, {there.get('GPU', 0):g} GPUs on {machines} machine{'s' * (machines > 1)}"


def needs(device: str, devices: int = 1) -> dict[str, float]:
    """Return the resources of an actor on a number of devices."""
    return dict.fromkeys(("CPU", "GPU") if device.startswith("cuda") else ("CPU",), float(devices))


def check_room(samplers: int, learners: int, device: str, parts: int = 1) -> None:
    """Raise ValueError if the machines of the cluster cannot hold this many actors, even when they are idle.

    Every sampler needs `parts` devices of one machine.
    """
    import ray

    machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    there = [min(int(machine.get(name, 0) // n) for name, n in needs(device).items()) for machine in machines]
    asked, fit = parts * samplers + learners, sum(there)
    room = sum(free // parts for free in there)
    """Number of samplers that the machines can hold without learners."""
    if asked <= fit and samplers <= room:
        return
    most = min(room, (fit - learners) // parts)
    best = f"engine.samplers={most} would fit" if most > 0 else "no recipe of kind ray fits"
    if most < 1 <= room and fit > parts:
        best = f"engine.samplers=1 engine.learners={fit - parts} would fit"
    each = f" of {parts} each" if parts > 1 else ""
    raise ValueError(
        f"engine.samplers={samplers}{each} and engine.learners={learners} ask for {asked} {unit(device)}; "
        f"the Ray cluster has {fit}; {best}"
    )


def unit(device: str) -> str:
    """Return the name of what every actor needs one of."""
    return "CPUs with a GPU each" if device.startswith("cuda") else "CPUs"


def reserve(actors: Sequence[int], device: str) -> Any:
    """Return a placement group with one bundle for each actor, which has the actor's number of devices.

    Raises ValueError if other work keeps the room.
    """
    from ray.util import placement_group, remove_placement_group

    group = placement_group([needs(device, devices) for devices in actors], strategy="PACK")
    if group.wait(ROOM_SECONDS):
        return group
    remove_placement_group(group)
    raise ValueError(
        f"the Ray cluster is busy: {sum(actors)} {unit(device)} are asked for, and {_free()} are free after "
        f"{ROOM_SECONDS:g} s; expected fewer samplers, or wait for the other work"
    )


def _free() -> str:
    import ray

    free = Counter(ray.available_resources())
    return ", ".join(f"{free[name]:g} {name}s" for name in ("CPU", "GPU"))

"""Scenarios on a Ray cluster of several nodes on this machine, each in a process of its own.

python -m tests.engine.nodes SCENARIO FOLDER
"""

import json
import os
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import ray
from ray.cluster_utils import Cluster
from ray.exceptions import OutOfDiskError

from codots.engine import crew
from codots.engine.plan import Plan
from codots.engine.ray import RayEngine
from codots.learner.config import LearnerConfig
from codots.model import tiny
from tests.engine.registered import RegisteredTalk  # noqa: F401, registers its domain
from tests.engine.small import PROFILE, batch_of, jobs, make_plan, step_on

SECONDS = 200
STORE = 80 * 2**20
"""Size of a small object store, in bytes."""
KILL_ABOVE = "RAY_memory_monitor_refresh_ms"
os.environ[KILL_ABOVE] = "0"  # other programs may fill the memory of the machine, and Ray would kill actors


def cluster_of(nodes):
    """Start a cluster whose head has no room for actors and whose other nodes have room for one each, and join it."""
    cluster = Cluster(
        initialize_head=True,
        head_node_args={"num_cpus": 0, "include_dashboard": False},
    )
    for _ in range(nodes):
        cluster.add_node(num_cpus=1)
    ray.init(cluster.address, log_to_driver=False)
    return cluster


def remove(cluster, actor):
    """Kill all processes of the node of an actor at once, as when a machine fails."""
    found = ray._private.state.actors(actor._actor_id.hex())
    node = next(node for node in cluster.worker_nodes if node.node_id == found["Address"]["NodeID"])
    cluster.remove_node(node, allow_graceful=False)
    with suppress(ProcessLookupError):
        os.kill(found["Pid"], signal.SIGKILL)  # it would end by itself, but might answer a call before


def sampler_moves(folder):
    """Remove the node of a sampler while there is room on another one."""
    cluster, engine = started(folder, nodes=4)
    whole = engine.rollout(jobs(), SECONDS)
    remove(cluster, engine._sampler.actors[1])
    again = engine.rollout(jobs(), SECONDS)
    metrics = step_on(engine, batch_of(again))
    return {"equal": again == whole, "restarts": metrics["ray/restarts"], "version": engine.version}


def no_room(folder):
    """Remove the node of a sampler while there is no other room."""
    crew.PLACE_SECONDS = 20.0
    cluster, engine = started(folder, nodes=3)
    remove(cluster, engine._sampler.actors[1])
    return error_of(lambda: engine.rollout(jobs(), SECONDS))


def learner(folder):
    """Remove the node of the learner."""
    cluster, engine = started(folder, nodes=3)
    batch = batch_of(engine.rollout(jobs(), SECONDS))
    remove(cluster, engine._learner.actors[0])
    return error_of(lambda: step_on(engine, batch))


def spilled(folder):
    """Fill the object store while there is room on the disk, and serve weights that do not fit."""
    # By default, Ray spills nothing to a disk that is 95% full.
    engine, batch = started_here(folder, local_fs_capacity_threshold=0.999)
    held = filled()
    step_on(engine, batch)
    return {"larger": sum(map(len, ray.get(held))) > STORE, "version": engine.version}


def no_disk(folder):
    """Fill the object store while the disk counts as full, and serve weights that do not fit until there is room."""
    engine, batch = started_here(folder, local_fs_capacity_threshold=0.0, automatic_object_spilling_enabled=False)
    held = filled()
    found = error_of(lambda: engine.sync(SECONDS))
    held.clear()
    step_on(engine, batch)
    return found | {"version": engine.version}


def started_here(folder, **settings):
    """Start an engine with 7 MB of weights on a cluster of one machine with a small object store."""
    ray.init(
        "local",
        num_cpus=2,
        object_store_memory=STORE,
        include_dashboard=False,
        log_to_driver=False,
        _system_config=settings,
    )
    tokenizer = tiny.make_tokenizer()
    tiny.save(tiny.make_model(tokenizer, width=256, layers=2, heads=2, seed=0, length=2048), tokenizer, folder)
    engine = RayEngine(Plan(folder, PROFILE, LearnerConfig(max_microbatch_tokens=2000)))
    return engine, batch_of(engine.rollout(jobs(2), SECONDS))


def filled():
    """Put arrays of 4 MB into the object store until it is full, or twice as full on the disk."""
    held = []
    with suppress(OutOfDiskError):
        while len(held) * 2**22 < 2 * STORE:
            held.append(ray.put(np.random.default_rng(len(held)).bytes(2**22)))
    return held


def started(folder, nodes):
    cluster = cluster_of(nodes)
    return cluster, RayEngine(make_plan(folder, tiny.make_tokenizer()), 2)


def error_of(call):
    """Return the error of a call, and the seconds until it came."""
    start = time.monotonic()
    try:
        call()
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}", "seconds": time.monotonic() - start}
    return {"error": None, "seconds": time.monotonic() - start}


if __name__ == "__main__":
    found = globals()[sys.argv[1]](Path(sys.argv[2]))
    print(json.dumps(found), flush=True)
    ray.shutdown()  # before the nodes end with this process: a driver that loses its node ends with code 1

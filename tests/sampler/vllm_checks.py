"""Checks of the vLLM sampler, which print what they find as JSON: `python -m tests.sampler.vllm_checks NAME`.

The tests run them in another environment, because vLLM pins other versions of some packages than the other tests have.
"""

import asyncio
import gc
import json
import os
import signal
import sys
import tempfile
import time
from pathlib import Path

import torch

from codots.learner.config import LoraConfig
from codots.learner.lora import adapt, adapters, merged
from codots.model import tiny
from codots.model.load import quiet
from codots.sampler import vllm_engine
from codots.sampler.base import SamplingParams
from codots.sampler.local import LocalSampler
from codots.sampler.vllm import VllmSampler
from tests.sampler.sessions import STOPS, draw_sessions, full_pass, run, run_session, run_sessions

PROBE = list(range(5, 25))
CACHE = 2**26
LENGTH = 256


def make_model(peak=4):
    """Make a random model of a shape that vLLM has kernels for. The larger `peak`, the more its weights matter."""
    model = tiny.make_model(tiny.make_tokenizer(), width=64, layers=2, heads=2, seed=0, length=LENGTH).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(peak)
    return model


def change(model, scale=0.02):
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * scale)


def start(model, **options):
    return VllmSampler(model, STOPS, PROBE, max_length=LENGTH, cache_bytes=CACHE, **options)


def gap(model, held, temperature=1.0):
    """Return the largest difference between the logprobs of transcripts and those of a plain forward pass."""
    found = 0.0
    for transcript, _ in held.values():
        logprobs = full_pass(model, transcript.ids, temperature)
        for at in (at for at, sampled in enumerate(transcript.mask) if sampled):
            found = max(found, abs(logprobs[at - 1, transcript.ids[at]].item() - transcript.logprobs[at]))
    return found


def processes():
    """Return the ids of the processes that this one has started, and of those that these have started."""
    parents = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            name, parent = int(path.parent.name), int(path.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
        parents[name] = parent
    found = {os.getpid()}
    while more := {name for name, parent in parents.items() if parent in found} - found:
        found |= more
    return found - {os.getpid()}


def memory():
    """Return the memory in MB that this process and all that it has started have allocated.

    Pages of files are left out, because the system drops and reads them again as it likes.
    """
    gc.collect()
    total = 0
    for name in (os.getpid(), *processes()):
        rollup = dict(line.split(":") for line in Path(f"/proc/{name}/smaps_rollup").read_text().splitlines()[1:])
        total += int(rollup["Private_Dirty"].split()[0])
    return total / 1024


async def turns_in_flight(sampler, model):
    """Load weights while answers are in progress; return the versions of each answer, of sessions with two turns."""

    async def session(i):
        transcript, answers = await run_session(
            sampler, ("flight", i), [([i + 5, 7], SamplingParams(60)), ([8, 9], SamplingParams(5))]
        )
        return [sorted(set(answer.versions)) for answer in answers if answer.ids], transcript

    lives = [asyncio.create_task(session(i)) for i in range(8)]
    while not sampler._answers:
        await asyncio.sleep(0)
    before = sampler.version
    change(model)
    await sampler.load(None, before + 1)
    return [versions for versions, _ in await asyncio.gather(*lives)], before


async def cancelled(sampler):
    """Cancel an answer; return the error of its session afterwards and whether the sampler forgets the answer."""
    async with sampler.session(("cancelled",)) as session:
        answer = asyncio.create_task(session.sample([5, 6], SamplingParams(200)))
        while not sampler._answers:
            await asyncio.sleep(0)
        answer.cancel()
        await asyncio.gather(answer, return_exceptions=True)
        until = time.monotonic() + 30
        while sampler._answers and time.monotonic() < until:
            await asyncio.sleep(0.01)
        try:
            await session.sample([7], SamplingParams(2))
        except RuntimeError as error:
            return str(error), sampler._answers
    return "", sampler._answers


def error_of(work):
    try:
        work()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return ""


def contract():
    """Check one sampler from start to end."""
    model, found = make_model(), {}
    started = time.monotonic()
    sampler = start(model)
    found["start_seconds"] = time.monotonic() - started
    sessions = {t: draw_sessions(12, t) for t in (1.0, 0.7, 0.0)}
    found["gaps"] = {t: gap(model, run_sessions(sampler, sessions[t]), t or 1.0) for t in sessions}
    held = run_sessions(sampler, sessions[1.0])
    ids = {name: transcript.ids for name, (transcript, _) in held.items()}
    reverse = run_sessions(sampler, sessions[1.0], order=[*sessions[1.0]][::-1])
    found["same_again"] = ids == {name: reverse[name][0].ids for name in ids}
    greedy = run_sessions(LocalSampler(model, STOPS, max_length=LENGTH), sessions[0.0])
    vllm = run_sessions(sampler, sessions[0.0])
    found["greedy_as_local"] = all(
        (vllm[n][0].ids, [a.stop for a in vllm[n][1]]) == (greedy[n][0].ids, [a.stop for a in greedy[n][1]])
        for n in greedy
    )
    found["verbatim"] = all(
        transcript.ids == [id for (new, _), a in zip(sessions[1.0][n], answers, strict=True) for id in (*new, *a.ids)]
        for n, (transcript, answers) in held.items()
    )
    draws = run_sessions(sampler, {("draw", i): [([5, 6, 7], SamplingParams(1))] for i in range(1000)})
    likely = full_pass(model, [5, 6, 7, 0])[-1].exp()
    top = int(likely.argmax())
    found["share"] = sum(t.ids[-1] == top for t, _ in draws.values()) / 1000, float(likely[top])
    long = {("long", i): [([i + 5] * (LENGTH - 4), SamplingParams(9)), ([8], SamplingParams(9))] for i in range(8)}
    found["long"] = [(len(t.ids), [a.stop for a in answers]) for t, answers in run_sessions(sampler, long).values()]
    change(model)
    run(sampler.load(None, 1))
    found["gap_after_load"] = gap(model, run_sessions(sampler, sessions[1.0]))
    found["versions"] = sorted(
        {
            v
            for t, _ in run_sessions(sampler, sessions[1.0]).values()
            for v, m in zip(t.versions, t.mask, strict=True)
            if m
        }
    )
    found["in_flight"] = run(turns_in_flight(sampler, model))
    found["gap_after_flight"] = gap(model, run_sessions(sampler, sessions[1.0]))
    found["cancelled"] = run(cancelled(sampler))
    found["errors"] = [
        error_of(lambda: run(run_session(sampler, ("a",), [([], SamplingParams(1))]))),
        error_of(lambda: run(run_session(sampler, ("a",), [([1], SamplingParams(0))]))),
        error_of(lambda: run(run_session(sampler, ("a",), [([1], SamplingParams(1, 0.005))]))),
    ]
    begin = time.monotonic()
    sampler.close()
    sampler.close()
    found["close_seconds"], found["left"] = time.monotonic() - begin, len(processes())
    return found


def stale():
    """Serve weights that did not arrive, and start with the layers that vLLM makes on a CPU."""
    model = make_model()
    sampler, old = start(model), {name: weight.clone() for name, weight in model.state_dict().items()}
    sampler.state = lambda: old
    change(model, 0.005)
    found = {"error": error_of(lambda: run(sampler.load(None, 1)))}
    found["later"] = error_of(lambda: run(run_session(sampler, ("later",), [([1], SamplingParams(1))])))
    sampler.close()
    vllm_engine.EXTENSION = "tests.sampler.vllm_packed.Reloading"
    return found | {"packed": error_of(lambda: start(model))}


def syncs():
    """Load new weights 50 times; the memory after the first ten and after all, and the largest gap."""
    model, found = make_model(peak=2), {}  # larger weights amplify rounding, the more so with adapters
    adapt(model, LoraConfig(rank=4))
    sampler = start(model, state=lambda: merged(model))
    sessions, gaps, megabytes, seconds = draw_sessions(12), [], [], []
    for version in range(1, 51):
        with torch.no_grad():
            for weight in adapters(model).values():
                weight.normal_(0, 0.02)
        begin = time.monotonic()
        run(sampler.load(None, version))
        seconds.append(time.monotonic() - begin)
        gaps.append(gap(model, run_sessions(sampler, sessions)))
        megabytes.append(memory())
    found |= {"gap": max(gaps), "megabytes": [megabytes[9], megabytes[-1]], "load_seconds": sorted(seconds)[25]}
    sampler.close()
    return found


def dead():
    """Kill the process that has the model; return the errors of an answer in progress, a later one, and a load."""
    sampler = start(make_model())
    (worker,) = (name for name in processes() if "Worker" in Path(f"/proc/{name}/comm").read_text())

    async def killed():
        async with sampler.session(("killed",)) as session:
            answer = asyncio.create_task(session.sample([5, 6], SamplingParams(200)))
            while not sampler._answers:
                await asyncio.sleep(0)
            os.kill(worker, signal.SIGKILL)
            await answer

    errors = [error_of(lambda: run(killed()))]
    errors.append(error_of(lambda: run(run_session(sampler, ("later",), [([1], SamplingParams(1))]))))
    errors.append(error_of(lambda: run(sampler.load(None, 1))))
    sampler.close()
    return errors, len(processes())


def refused():
    """Start with a model that vLLM cannot run, on a device that it is not built for, and in an untested version."""
    model = tiny.make_model(tiny.make_tokenizer(), width=24, layers=2, heads=2, seed=0, length=LENGTH).eval()
    errors = [error_of(lambda: start(model)), error_of(lambda: start(make_model(), device="cuda"))]
    vllm_engine.TESTED = ("9.1",)
    return [*errors, error_of(lambda: start(make_model()))]


def parallel():
    """Split a model over two processes; the largest gaps of logprobs before and after a load."""
    model = make_model()
    sampler, sessions = start(model, tensor_parallel=2), draw_sessions(12)
    gaps = [gap(model, run_sessions(sampler, sessions))]
    change(model)
    run(sampler.load(None, 1))
    gaps.append(gap(model, run_sessions(sampler, sessions)))
    workers = [name for name in processes() if "Worker" in Path(f"/proc/{name}/comm").read_text()]
    sampler.close()
    return gaps, len(workers), len(processes())


def orphans():
    """Start, print the ids of all processes, and be killed."""
    sampler = start(make_model())
    print(json.dumps([os.getpid(), *processes()]), flush=True)
    sys.stdin.read()
    sampler.close()


def trained(stopped=False, **changes):
    """Train three small steps, and return the metrics of each and how many processes are left."""
    import codots.domains.frozen_lake  # noqa: F401  # registers it where codots is not installed
    from codots.training.train import train
    from tests.random_model import make_random_model
    from tests.training.small import metrics, recipe

    with tempfile.TemporaryDirectory() as folder:
        base, run = make_random_model(Path(folder) / "base", width=64), Path(folder) / "run"
        changes = {"sampler": "vllm", "kv_cache_gib": CACHE / 2**30, "steps": 3, "max_logprob_gap": 1e-4} | changes
        config = recipe(base, run, **changes)
        steps = train(config)
        if stopped:
            next(steps), next(steps)
            steps.close()
        list(train(config, resume=True) if stopped else steps)
        names = ("step", "tokens/sampled", "train/logprob_gap_max", "train/grad_norm", "time/sync")
        return [{name: line.get(name) for name in names} for line in metrics(run, clock=True)], len(processes())


def local():
    """Train in this process, stop after two steps, and resume."""
    return trained(stopped=True)


def ray():
    """Train on Ray with two learners."""
    return trained(engine={"kind": "ray", "learners": 2})


def ray_async():
    """Train on Ray while lives of the next step are in flight."""
    return trained(engine={"kind": "ray", "mode": "async", "max_staleness": 1})


def ray_parallel():
    """Train on Ray with a sampler that splits the model over two processes."""
    return trained(engine={"kind": "ray", "tensor_parallel": 2})


CHECKS = {
    check.__name__: check
    for check in (contract, stale, dead, syncs, parallel, refused, orphans, local, ray, ray_async, ray_parallel)
}

if __name__ == "__main__":
    quiet()
    torch.manual_seed(0)
    torch.set_num_threads(1)
    print(json.dumps(CHECKS[sys.argv[1]]()))

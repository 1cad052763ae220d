"""Check domains against their contract, and report the first broken promise in one line."""

from __future__ import annotations

import os
import pickle
import random
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib import import_module
from itertools import product
from time import perf_counter

import numpy as np

from codots.core.deadline import STAGE_TIMEOUT, within
from codots.core.processes import worker_map
from codots.core.progress import OnProgress, no_progress
from codots.domains.base import POLICIES, Domain, Pack
from codots.domains.contract import (
    PACK_CHECKS,
    STYLE_CHECKS,
    DomainError,
    expect,
    expect_same_life,
    knowledge_pays,
    prompts_fit,
    rollout,
    splits_stay_apart,
)
from codots.domains.contract_claims import CLAIM_CHECKS, reading_pays
from codots.domains.registry import find_domain, get_domain, make_pack, register
from codots.domains.scripted import Played

__all__ = ["Checked", "DomainError", "check_domain", "check_domains"]

PACKS, SIZE = 32, 4


@dataclass(frozen=True)
class Checked:
    """A preset that keeps the contract or was skipped."""

    id: str
    preset: str
    seconds: float = 0.0
    longest: int = 0
    """Characters of the longest prompt, with all turns of an episode and a full context."""
    lacks: str | None = None
    """Why the preset was skipped, or None if it was checked."""


def check_domain(domain: str | Domain, packs: int = PACKS, size: int = SIZE) -> list[Checked]:
    """Check every preset and style of a domain on its first packs, every second of which is from `dev`.

    A domain object is registered first. A preset that cannot be drawn yet is skipped, with the reason in `lacks`.
    Comparisons of average rewards allow for sampling noise, so more packs make a stricter check. Raises DomainError at
    the first broken promise. Raises ValueError if `packs` is less than 2.
    """
    domain = register(domain) if isinstance(domain, Domain) else get_domain(domain)
    return [check_preset(domain, preset, packs, size) for preset in domain.presets]


def check_domains(
    names: Sequence[str],
    packs: int = PACKS,
    size: int = SIZE,
    workers: int = 1,
    on_progress: OnProgress = no_progress,
) -> list[Checked]:
    """Check domains, named by id or as `module:Class`, and `workers` presets in parallel.

    Raises what `check_domain` raises, and TimeoutError if a preset takes longer than an hour.
    """
    jobs = [(name, preset, packs, size) for name in names for preset in find_domain(name).presets]
    done: list[Checked] = []
    with worker_map(workers) as map_jobs:
        results = map_jobs(_check, jobs)
        for name, preset, *_ in jobs:
            on_progress(f"{name} {preset}", len(done), len(jobs))
            done.append(within(STAGE_TIMEOUT, f"checking {name} {preset}", lambda: next(results)))
    on_progress("all", len(done), len(jobs))
    return done


def _check(job: tuple[str, str, int, int]) -> Checked:
    name, preset, packs, size = job
    return check_preset(find_domain(name), preset, packs, size)


def check_preset(domain: Domain, preset: str, packs: int, size: int) -> Checked:
    """Check one preset. The first preset of the domain that can be drawn is also played in another process."""
    if packs < 2:
        raise ValueError(f"{packs} packs; expected at least 2, to estimate the noise of an average")
    if lacks := domain.lacks(preset):
        return Checked(domain.id, preset, lacks=lacks)
    start, where = perf_counter(), f"{domain.id} {preset}"
    with failures_named(where):
        drawn = [make_pack(domain.id, preset, ("train", "dev")[i % 2], i, size) for i in range(packs)]
    for check, pack in product(PACK_CHECKS, drawn[:2]):
        with failures_named(f"{where}, {check.__name__}"):
            check(pack)
    for style_check, pack, style in product((*STYLE_CHECKS, *CLAIM_CHECKS), drawn[:2], domain.styles):
        with failures_named(f"{where} {style}, {style_check.__name__}"):
            style_check(pack, style)
    longest = 0
    for style in domain.styles:
        with failures_named(f"{where} {style}, {prompts_fit.__name__}"):
            longest = max(longest, prompts_fit(drawn[1], style))
    for check_all in (splits_stay_apart, knowledge_pays, reading_pays):
        with failures_named(f"{where}, {check_all.__name__}"):
            check_all(drawn)
    with failures_named(f"{where}, another_process_agrees"):
        if preset == next(preset for preset in domain.presets if domain.lacks(preset) is None):
            another_process_agrees(drawn[:2])
    return Checked(domain.id, preset, perf_counter() - start, longest)


@contextmanager
def failures_named(what: str) -> Iterator[None]:
    """Raise DomainError, prefixed with `what`, if the block fails.

    The block fails if it breaks a promise, raises an exception or draws from a global random generator.
    """
    before = pickle.dumps((random.getstate(), np.random.get_state()))
    try:
        yield
    except DomainError as error:
        raise DomainError(f"{what}: {error}") from None
    except Exception as error:
        line = " ".join(str(error).split())
        raise DomainError(f"{what}: got {type(error).__name__}: {line:.300}, expected no exception") from error
    if pickle.dumps((random.getstate(), np.random.get_state())) != before:
        raise DomainError(f"{what}: got a draw from a global random generator, expected the given `rng` alone")


def another_process_agrees(packs: Sequence[Pack]) -> None:
    """Packs and lives do not depend on the process: its hash seed, its memory or its earlier calls.

    A domain that another process cannot import passes, such as a domain defined in a script.
    """
    kind, (style, *_) = type(packs[0].domain), packs[0].domain.styles
    seed = "1" if os.environ.get("PYTHONHASHSEED") == "2" else "2"
    done = subprocess.run(
        [sys.executable, "-c", "from codots.domains.check import _play_from_stdin; _play_from_stdin()"],
        input=pickle.dumps((kind.__module__, kind.__name__, [(*pack.names, len(pack.tasks)) for pack in packs])),
        env=os.environ | {"PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        timeout=STAGE_TIMEOUT,
    )
    error = done.stderr.decode(errors="replace").strip().splitlines() or [f"exit code {done.returncode}"]
    expect(done.returncode == 0, error[-1], "another process to play these packs too")
    for pack, (drawn, lives) in zip(packs, pickle.loads(done.stdout), strict=False):
        expect(drawn == pack, drawn, f"the pack that this process draws, {pack!r:.300}")
        for policy, life in lives.items():
            expect_same_life(rollout(pack, policy, style), life)


def _play_from_stdin() -> None:
    """Read the names of packs from stdin, and write the packs and their lives to stdout, both pickled.

    Writes an empty list if the domain is not found.
    """
    module, kind, asked = pickle.load(sys.stdin.buffer)
    out, sys.stdout = sys.stdout, sys.stderr  # a module may print while it is imported
    found: list[tuple[Pack, dict[str, list[Played]]]] = []
    if _importable(module, kind, asked[0][0]):
        packs = [make_pack(*names) for names in asked]
        found = [(pack, {name: rollout(pack, name, pack.domain.styles[0]) for name in POLICIES}) for pack in packs]
    out.buffer.write(pickle.dumps(found))


def _importable(module: str, kind: str, id: str) -> bool:
    """Return whether importing the module, or creating the class without arguments, registers a domain with this id."""
    if module == "__main__":
        return False
    import_module(module)
    for name in (id, f"{module}:{kind}"):
        with suppress(ValueError, TypeError):
            return find_domain(name).id == id
    return False

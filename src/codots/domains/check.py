"""Hold domains to their contract; the first broken promise is one line: what came, and what was expected."""

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
from codots.core.processes import mapped
from codots.core.progress import OnProgress, no_progress
from codots.domains.base import POLICIES, Domain, Pack
from codots.domains.contract import (
    IN_STYLE,
    OF_A_PACK,
    DomainError,
    expect,
    knowledge_pays,
    lived,
    prompts_fit,
    same_life,
    splits_stay_apart,
)
from codots.domains.registry import find_domain, get_domain, make_pack, register
from codots.domains.scripted import Played

__all__ = ["Checked", "DomainError", "check_domain", "check_domains"]

PACKS, SIZE = 32, 4


@dataclass(frozen=True)
class Checked:
    """A preset that keeps the contract, or that was left out."""

    id: str
    preset: str
    seconds: float = 0.0
    longest: int = 0
    """Characters of the longest prompt, all turns of an episode and a full context with it."""
    lacks: str | None = None
    """Why it was left out."""


def check_domain(domain: str | Domain, packs: int = PACKS, size: int = SIZE) -> list[Checked]:
    """Check every preset and style of a domain on its first packs, of which half are held out.

    A domain that is given as an object is registered. A preset that lacks something is left out, and says why. Averages
    over policies allow for the noise of so few tasks: more packs make a stricter check. Raises DomainError at the first
    broken promise, ValueError for fewer than two packs.
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
    """Check domains, by id or as `module:Class`, preset by preset and several at once; raises as `check_domain` does.

    TimeoutError if a preset takes longer than an hour.
    """
    jobs = [(name, preset, packs, size) for name in names for preset in find_domain(name).presets]
    done: list[Checked] = []
    with mapped(workers) as each:
        results = each(_check, jobs)
        for name, preset, *_ in jobs:
            on_progress(f"{name} {preset}", len(done), len(jobs))
            done.append(within(STAGE_TIMEOUT, f"checking {name} {preset}", lambda: next(results)))
    on_progress("all", len(done), len(jobs))
    return done


def _check(job: tuple[str, str, int, int]) -> Checked:
    name, preset, packs, size = job
    return check_preset(find_domain(name), preset, packs, size)


def check_preset(domain: Domain, preset: str, packs: int, size: int) -> Checked:
    """Check one preset; the first of a domain that lacks nothing is also played in another process."""
    if packs < 2:
        raise ValueError(f"{packs} packs; expected at least 2, to know the noise of an average")
    if lacks := domain.lacks(preset):
        return Checked(domain.id, preset, lacks=lacks)
    start, where = perf_counter(), f"{domain.id} {preset}"
    with promised(where):
        drawn = [make_pack(domain.id, preset, ("train", "dev")[i % 2], i, size) for i in range(packs)]
    for check, pack in product(OF_A_PACK, drawn[:2]):
        with promised(f"{where}, {check.__name__}"):
            check(pack)
    for in_style, pack, style in product(IN_STYLE, drawn[:2], domain.styles):
        with promised(f"{where} {style}, {in_style.__name__}"):
            in_style(pack, style)
    longest = 0
    for style in domain.styles:
        with promised(f"{where} {style}, {prompts_fit.__name__}"):
            longest = max(longest, prompts_fit(drawn[1], style))
    for of_all in (splits_stay_apart, knowledge_pays):
        with promised(f"{where}, {of_all.__name__}"):
            of_all(drawn)
    with promised(f"{where}, another_process_agrees"):
        if preset == next(preset for preset in domain.presets if domain.lacks(preset) is None):
            another_process_agrees(drawn[:2])
    return Checked(domain.id, preset, perf_counter() - start, longest)


@contextmanager
def promised(what: str) -> Iterator[None]:
    """Name the promise that breaks inside, by a failed expectation, an exception or a draw from a global generator."""
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
    """Nothing hangs on the process: its hashes, its memory, what it did before.

    A domain that no other process can find, as it is made in a script, is taken at its word.
    """
    kind, (style, *_) = type(packs[0].domain), packs[0].domain.styles
    seed = "1" if os.environ.get("PYTHONHASHSEED") == "2" else "2"
    done = subprocess.run(
        [sys.executable, "-c", "from codots.domains.check import _answer; _answer()"],
        input=pickle.dumps((kind.__module__, kind.__name__, [(*pack.names, len(pack.tasks)) for pack in packs])),
        env=os.environ | {"PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        timeout=STAGE_TIMEOUT,
    )
    said = done.stderr.decode(errors="replace").strip().splitlines() or [f"exit code {done.returncode}"]
    expect(done.returncode == 0, said[-1], "another process to play these packs too")
    for pack, (there, lives) in zip(packs, pickle.loads(done.stdout), strict=False):
        expect(there == pack, there, f"the pack that this process draws, {pack!r:.300}")
        for policy, life in lives.items():
            same_life(lived(pack, policy, style), life)


def _answer() -> None:
    """Play the packs that stdin asks for, and give stdout what came of it: nothing if there is no such domain."""
    module, kind, asked = pickle.load(sys.stdin.buffer)
    out, sys.stdout = sys.stdout, sys.stderr  # a module may print while it is imported
    found: list[tuple[Pack, dict[str, list[Played]]]] = []
    if _known(module, kind, asked[0][0]):
        packs = [make_pack(*names) for names in asked]
        found = [(pack, {who: lived(pack, who, pack.domain.styles[0]) for who in POLICIES}) for pack in packs]
    out.buffer.write(pickle.dumps(found))


def _known(module: str, kind: str, id: str) -> bool:
    """Whether there is a domain of this id once its module is imported, or its class made without arguments."""
    if module == "__main__":
        return False
    import_module(module)
    for name in (id, f"{module}:{kind}"):
        with suppress(ValueError, TypeError):
            return find_domain(name).id == id
    return False

"""Count how many ordinary updates the guard of a deployed agent would hold back, and time it.

    python benchmarks/agent_guard.py --lives 100

The lives are those of scripted teachers in every family of domains: `skilled`, which writes what it knows, and
`literate`, whose notes are drawn anew after each task, so that it often forgets on purpose. With `base` they are those
of the bundled model. Updates that cannot be read are left out: they are rejected with or without a guard.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

from codots.agent.guard import GUARD
from codots.context.trajectory import Trajectory
from codots.core.deadline import run_loop
from codots.domains.base import Pack
from codots.domains.registry import first_preset, get_domain, make_pack
from codots.domains.teacher import make_teacher
from codots.engine.plan import Plan
from codots.engine.worker import Worker
from codots.model.alphabet import make_render
from codots.model.load import model_folder
from codots.rollout.life import Job, Life, rollouts
from codots.rollout.profile import Profile, load_profile
from codots.rollout.steps import Own
from codots.sampler.scripted import ScriptedSampler

DOMAINS = {
    "skilled": (
        *("alchemy-v1", "frozen-lake-v1", "grid-navigation-v1", "learn2ask-v1", "optimal-control-v1"),
        *("pde-discovery-v1", "terminal-v1"),
    ),
    "literate": ("alchemy-v1", "frozen-lake-v1", "grid-navigation-v1", "learn2ask-v1", "terminal-v1"),
    "base": ("alchemy-v1", "frozen-lake-v1", "grid-navigation-v1"),
}
"""Domains by who lives in them."""
TASKS = 8


def lives_of(who: str, id: str, number: int) -> Iterator[tuple[Pack, Life, str]]:
    """Yield packs with a life in each, and the prompt style."""
    packs = [make_pack(id, first_preset(id), "train", i, TASKS) for i in range(number)]
    if who == "base":
        folder = model_folder("base")
        profile, teacher = load_profile(folder), None
        worker = Worker(Plan(folder, profile, None))
        sampler, render = worker.sampler, worker.render
    else:
        profile, teacher, render = replace(Profile(), style="natural"), make_teacher(who, get_domain(id)), make_render()
        sampler = ScriptedSampler(render, lambda names: str)
    own, params = Own(profile.strategy()), profile.episode_params()
    jobs = [Job(pack, own, params, ("guard", who, id, i), teacher) for i, pack in enumerate(packs)]
    for pack, life in zip(packs, run_loop(rollouts(jobs, sampler, render)), strict=True):
        yield pack, life, profile.style


def measure(who: str, id: str, number: int) -> dict[str, object]:
    """Return the number of updates, those that are held back by reason, and the CPU time of a check."""
    held, updates, seconds = Counter[str](), 0, 0.0
    for pack, life, style in lives_of(who, id, number):
        solves = {solve.position: solve for solve in life.of("solve")}
        for update in life.of("update"):
            if update.outcome or update.written is None:
                continue
            solve, task = solves[update.position], pack.tasks[update.position]
            said = Trajectory(pack.domain.rules_text(task, style), solve.turns, solve.outcome, solve.reward, "")
            began = time.process_time()
            found = GUARD.check(update.context, update.written, said)
            seconds += time.process_time() - began
            updates += 1
            held.update([" ".join(w for w in found.reason.split() if not w[0].isdigit())] if found else [])
    mean = round(1000 * seconds / max(updates, 1), 2)
    return {"who": who, "domain": id, "updates": updates, "held": held.total(), "reasons": held, "ms": mean}


def main() -> None:
    """Print one line of JSON for each domain, and one for each kind of lives."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("--lives", type=int, default=100)
    options = parser.parse_args()
    for who, ids in DOMAINS.items():
        rows = [measure(who, id, options.lives) for id in ids]
        for row in rows:
            print(json.dumps(row), flush=True)
        updates, held = (sum(int(str(row[name])) for row in rows) for name in ("updates", "held"))
        print(json.dumps({"who": who, "updates": updates, "held": held, "share": round(held / updates, 4)}), flush=True)


if __name__ == "__main__":
    main()

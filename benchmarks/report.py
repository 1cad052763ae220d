"""Time how long a report takes to build and to open: `python benchmarks/report.py [EPISODES] [STYLE] [FOLDER]`.

The script plays EPISODES (default 10,000) episodes with scripted policies on packs of frozen-lake-v1. Half of them are
evaluation rows with own contexts and with none, half are training rollouts. In style `natural` the policy also writes a
thought of 40 words at every move. Then the script builds the page and opens it in Chromium, five times each, in a new
process each time. It prints medians as JSON: seconds to build (wall and CPU time), megabytes, and seconds to the first
paint and until a life is readable. If FOLDER exists, the script uses the run in it.
"""

from __future__ import annotations

import json
import shutil
import statistics
import subprocess
import sys
import time
from itertools import count
from pathlib import Path
from tempfile import mkdtemp

import numpy as np

from codots.config.schema import TrainConfig
from codots.core.rng import stream
from codots.core.yaml_text import write_yaml
from codots.domains.base import Pack, Policy
from codots.domains.registry import make_pack
from codots.domains.scripted import turns
from codots.rollout.records import Row, dump

ROUNDS = 5
WORDS = [
    "first",
    "look",
    "where",
    "every",
    "hole",
    "lies",
    "then",
    "choose",
    "what",
    "moves",
    "me",
    "closer",
    "to",
    "G",
]
STEPS = 400
BUILD = """
import sys, time
from pathlib import Path
start = time.perf_counter()
from codots.report.page import write_report
write_report([Path(sys.argv[1])], Path(sys.argv[1]) / "report.html")
print(time.perf_counter() - start, time.process_time())
"""


def scripted_life(pack: Pack, arm: str, life: int, style: str, step: int | None) -> list[Row]:
    """Play a life whose policy is `informed` or `random`, drawn for each task."""
    draws = stream("report", *pack.names, arm, life)
    rows: list[Row] = []
    context = ""
    for task in pack.tasks:
        skilled = draws.random() < (0.3 + 0.2 * task.position if arm == "own" else 0.3)
        policy = pack.domain.policy("informed" if skilled else "random", pack.world)
        env = task.env(style=style)
        observation, line = env.observe(), []

        def act(view: object, policy: Policy = policy) -> str:
            thought = " ".join(draws.choice(WORDS, 40)) + "\n" if style == "natural" else ""
            return thought + policy.act(view)

        for text, step_taken in turns(env, act):
            line.append([observation, text])
            observation = step_taken.observation
        common: dict = {"pack": list(pack.names), "arm": arm, "life": life, "position": task.position, "step": step}
        credit = None if step is None else float(draws.normal())
        rows.append(
            Row(
                **common,
                kind="solve",
                reward=step_taken.reward,
                stop=step_taken.stop or "done",
                context=context,
                written=None,
                turns=line,
                outcome=observation,
                tokens=3 * len(line),
                advantage=credit,
            )
        )
        if arm == "own" and task is not pack.tasks[-1]:
            lines = pack.domain.oracle_context(pack.world, style).split("\n" if style == "natural" else " ")
            written = "\n".join(draws.permutation(lines)[: draws.integers(len(lines) + 1)])
            prompt = "\n".join(part for turn in line for part in turn)
            rows.append(
                Row(
                    **common,
                    kind="update",
                    reward=0.0,
                    stop="ok",
                    context=context,
                    written=written,
                    turns=[[prompt, f"<context>{written}</context>"]],
                    outcome="",
                    tokens=20,
                    advantage=credit,
                )
            )
            context = written
    return rows


def make_run(folder: Path, episodes: int, style: str) -> None:
    """Write a run folder with scripted lives."""
    folder.mkdir(parents=True)
    config = TrainConfig(run=str(folder), steps=STEPS)
    (folder / "config.yaml").write_text(write_yaml(config.to_dict()))
    remaining = episodes // 2
    with (folder / "after.jsonl").open("w", encoding="utf-8") as file:
        for i in count():
            rows = [
                row
                for arm in ("own", "null")
                for row in scripted_life(make_pack("frozen-lake-v1", "easy", "bench", i, 4), arm, 0, style, None)
            ]
            file.write(dump(rows))
            if (remaining := remaining - len(rows)) <= 0:
                break
    (folder / "rollouts").mkdir()
    remaining = episodes - episodes // 2
    for step in count(1):
        packs = [make_pack("frozen-lake-v1", "easy", "train", 2 * step + k, 4) for k in range(2)]
        rows = [row for pack in packs for g in range(8) for row in scripted_life(pack, "own", g, style, step)]
        (folder / "rollouts" / f"step-{step:06d}.jsonl").write_text(dump(rows), encoding="utf-8")
        if (remaining := remaining - len(rows)) <= 0:
            break
    rng = np.random.default_rng(0)
    names = [f"reward/{j}" for j in range(4)] + [
        "facts/right",
        "facts/wrong",
        "time/step",
        "time/rollout",
        "tokens/sampled",
    ]
    lines = [{"step": t, **dict(zip(names, rng.random(len(names)).tolist(), strict=True))} for t in range(1, STEPS + 1)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def show(page: Path) -> tuple[float, float]:
    """Open a page in a new browser and return the seconds to the first paint and until a life is readable."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as p:
        browser = p.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        tab = browser.new_context(bypass_csp=True).new_page()  # the page's content security policy forbids `evaluate`
        start = time.perf_counter()
        tab.goto(page.resolve().as_uri(), wait_until="commit")
        tab.wait_for_selector("html[data-ready]", state="attached")
        ready = time.perf_counter() - start
        tab.wait_for_function("performance.getEntriesByName('first-contentful-paint').length")
        paint = tab.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime")
        browser.close()
    return paint / 1000, ready


def main() -> None:
    """Make the run if there is none, then measure."""
    episodes, style = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000, sys.argv[2] if len(sys.argv) > 2 else "compact"
    folder = Path(sys.argv[3]) if len(sys.argv) > 3 else Path(mkdtemp()) / "run"
    if not folder.exists():
        make_run(folder, episodes, style)
    command = [sys.executable, "-c", BUILD, str(folder)]
    built = [
        tuple(map(float, subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout.split()))
        for _ in range(ROUNDS)
    ]
    shown = [show(folder / "report.html") for _ in range(ROUNDS)]
    found = {
        "episodes": sum(path.read_text().count("\n") for path in folder.rglob("*.jsonl")) - STEPS,
        "recorded_mb": sum(path.stat().st_size for path in folder.rglob("*.jsonl")) / 1e6,
        "build_s": statistics.median(wall for wall, _ in built),
        "build_cpu_s": statistics.median(cpu for _, cpu in built),
        "page_mb": (folder / "report.html").stat().st_size / 1e6,
        "first_paint_s": statistics.median(paint for paint, _ in shown),
        "life_shown_s": statistics.median(ready for _, ready in shown),
    }
    print(json.dumps({name: round(value, 2) for name, value in found.items()}))


if __name__ == "__main__":
    main()

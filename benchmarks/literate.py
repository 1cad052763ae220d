"""Teach a new tiny model to read contexts, one family at a time: `python benchmarks/literate.py [DOMAIN ...]`.

Every model imitates the teacher `literate` and is then evaluated on `dev`. A good one keeps to the form, earns far more
with the true context than with an empty one, and no more with its own contexts than with empty ones. Runs are in
`runs/literate/`; a run that was stopped is resumed.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

from codots.config.evaluate import EvalConfig
from codots.config.imitate import ImitateConfig
from codots.evaluation.evaluate import Report, evaluate
from codots.training.imitate import imitate

PACKS = 200
LETTERS = {"style": "compact", "vocabulary": None}
NARROW = {"initializer_range": 0.02}
SETTINGS: dict[str, dict[str, Any]] = {
    # Without a vocabulary, a model reads names by their letters, and so it can copy one that it never saw.
    "bandit-v1": {"steps": 6000, "packs_per_step": 8, "given": 0.3, "solve_tokens": 4, "update_tokens": 16}
    | LETTERS
    | NARROW,
    "frozen-lake-v1": {"steps": 1200, "packs_per_step": 16, "solve_tokens": 6, "update_tokens": 24} | LETTERS,
    "alchemy-v1": {"steps": 4500, "lr": 4e-3, "packs_per_step": 6, "given": 0.8, "solve_tokens": 12}
    | LETTERS
    | {"update_tokens": 160},
    "grid-navigation-v1": {"steps": 2000, "packs_per_step": 8, "preset": "tiny", "solve_tokens": 12}
    | LETTERS
    | {"update_tokens": 300},
    "learn2ask-v1": {"steps": 1200, "packs_per_step": 8, "solve_tokens": 32, "update_tokens": 96} | NARROW,
    "optimal-control-v1": {"steps": 1200, "packs_per_step": 8, "preset": "tiny", "solve_tokens": 96},
    "pde-discovery-v1": {"steps": 1500, "lr": 4e-3, "packs_per_step": 4, "solve_tokens": 256, "update_tokens": 96},
    "terminal-v1": {"steps": 1500, "lr": 4e-3, "packs_per_step": 6, "preset": "tiny", "solve_tokens": 256}
    | {"update_tokens": 192},
}
"""Steps and sizes of each family, and the preset if it is not `easy`."""
SHAPE = {"width": 64, "layers": 3, "heads": 4, "positions": 4096}
LESSON = {"preset": "easy", "teacher": "literate", "given": 0.6}


def recipe(
    domain: str,
    style: str = "natural",
    solve_tokens: int = 64,
    update_tokens: int = 64,
    vocabulary: int | None = 1500,
    initializer_range: float = 0.1,
    **stage: Any,
) -> ImitateConfig:
    """Return the recipe of one family."""
    profile = {"style": style, "solve_tokens": solve_tokens, "update_tokens": update_tokens, "max_model_len": 4096}
    return ImitateConfig.model_validate(
        {
            "new": SHAPE | {"vocabulary": vocabulary, "initializer_range": initializer_range},
            "run": f"runs/literate/{domain}",
            "profile": profile,
            "learner": {"lr": 2e-3, "warmup_steps": 50, "min_lr_ratio": 0.02, "weight_decay": 0.1},
            "workers": 1,
            "save_every": 100,
            "eval_every": 0,
            "loggers": [],
            "domain": domain,
            **LESSON,
            **stage,
        }
    )


def row(domain: str, report: Report, seconds: float) -> str:
    """Return a row of the table."""
    arms = [" ".join(f"{value:.2f}" for value in report.arms[arm].reward) for arm in ("own", "null", "oracle")]
    low, high = report.lift_ci95[-1] if report.lift_ci95 else (float("nan"), float("nan"))
    shares = [share for curves in report.arms.values() for share in curves.malformed]
    malformed = f"{sum(shares) / len(shares):.3f} | {max(shares):.3f}"
    updates = report.arms["own"].malformed_updates
    lift = f"{report.lift[-1]:+.2f} [{low:+.2f}, {high:+.2f}]" if report.lift else ""
    return f"| {domain} | {' | '.join(arms)} | {lift} | {malformed} | {updates:.3f} | {seconds / 60:.0f} |"


def main(domains: list[str]) -> None:
    """Train and evaluate one model of each family, and print a row for it."""
    print("| domain | own | null | oracle | lift at the last position | malformed solves | worst | updates | minutes |")
    print("|---|---|---|---|---|---|---|---|---|")
    for domain in domains or SETTINGS:
        start, config = time.perf_counter(), recipe(domain, **SETTINGS[domain])
        run = Path(config.run)
        for report in imitate(config, resume=(run / "config.yaml").exists()):
            if report.step % 50 == 0:
                loss, seconds = report.metrics["train/loss"], time.perf_counter() - start
                print(f"{domain} {report.step}/{report.steps} loss {loss:.3f} {seconds:.0f} s", file=sys.stderr)
        found = evaluate(
            EvalConfig(
                model=str(run),
                domain=domain,
                preset=config.stages[0].worlds[0].preset,
                split="dev",
                packs=PACKS,
                arms=["own", "null", "oracle"],
            )
        )
        print(row(domain, found, time.perf_counter() - start), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])

"""Print the tables of the base model's card as Markdown: `python benchmarks/base_card.py [MODEL] [PACKS]`."""

from __future__ import annotations

import sys

import numpy as np

from codots.config.evaluate import EvalConfig
from codots.core.deadline import STAGE_TIMEOUT
from codots.domains.base import Pack
from codots.domains.registry import make_pack
from codots.engine.local import LocalEngine
from codots.engine.plan import Plan
from codots.evaluation.evaluate import ARMS, evaluate
from codots.model.load import model_folder
from codots.rollout.life import Job, Life
from codots.rollout.profile import load_profile
from codots.rollout.steps import Own

LAKE = {"domain": "frozen-lake-v1", "preset": "easy"}


def curves(model: str, packs: int) -> None:
    """Print the reward by position of every arm, at temperature 1 and greedy."""
    print("| temperature | arm | position 0 | 1 | 2 | 3 | success at 3 |\n|---|---|---|---|---|---|---|")
    for temperature in (1.0, 0.0):
        config = EvalConfig(model=model, **LAKE, split="final", packs=packs, arms=list(ARMS), temperature=temperature)
        report = evaluate(config)
        for arm, result in report.arms.items():
            cells = " | ".join(f"{reward:.3f}" for reward in result.reward)
            print(f"| {temperature:g} | {arm} | {cells} | {result.success[3]:.3f} |")


def groups(model: str, packs: int, size: int = 8) -> tuple[list[Pack], list[list[Life]]]:
    """Return packs and a group of lives of each."""
    folder = model_folder(model)
    profile = load_profile(folder)
    drawn = [make_pack(LAKE["domain"], LAKE["preset"], "final", i, 4) for i in range(packs)]
    engine = LocalEngine(Plan(folder, profile), 2)
    lives = [
        engine.rollout(
            [Job(p, Own(profile.strategy()), profile.episode_params(), ("card", i, g)) for g in range(size)],
            STAGE_TIMEOUT,
        )
        for i, p in enumerate(drawn)
    ]
    engine.close()
    return drawn, lives


def histogram(packs: list[Pack], lives: list[list[Life]]) -> None:
    """Print the distribution of right facts in the last context, and that of independent facts with equal rates."""
    right_NC = np.array(
        [
            [f"{c}={d}" in life.contexts[-1] for c, d in zip("1234", p.world.hidden, strict=True)]
            for p, group in zip(packs, lives, strict=True)
            for life in group
        ]
    )
    seen = np.bincount(right_NC.sum(1), minlength=5) / len(right_NC)
    expected = np.ones(1)
    for rate in right_NC.mean(0):
        expected = np.convolve(expected, [1 - rate, rate])
    print("\n| right facts in the last context | 0 | 1 | 2 | 3 | 4 |\n|---|---|---|---|---|---|")
    print("| seen | " + " | ".join(f"{value:.3f}" for value in seen) + " |")
    print("| if facts were independent | " + " | ".join(f"{value:.3f}" for value in expected) + " |")


def best(lives: list[list[Life]]) -> None:
    """Print rewards of the mean life and of the best of each group."""

    rewards_PGS = np.array([[[e.reward for e in life.of("solve")] for life in group] for group in lives])
    chosen = rewards_PGS.sum(2).argmax(1)
    best_PS = rewards_PGS[np.arange(len(lives)), chosen]
    print("\n| of eight lives | position 0 | 1 | 2 | 3 |\n|---|---|---|---|---|")
    print("| mean | " + " | ".join(f"{value:.3f}" for value in rewards_PGS.mean((0, 1))) + " |")
    print("| best by the life's reward | " + " | ".join(f"{value:.3f}" for value in best_PS.mean(0)) + " |")


def main() -> None:
    """Print every table."""
    model, packs = (sys.argv[1:] + ["base", "500"][len(sys.argv) - 1 :])[:2]
    curves(model, int(packs))
    drawn, lives = groups(model, min(int(packs), 200))
    histogram(drawn, lives)
    best(lives)


if __name__ == "__main__":
    main()

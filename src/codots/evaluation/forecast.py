"""What an evaluation will ask for: requests and tokens, counted with scripted policies."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any

from codots.config.evaluate import EvalConfig
from codots.core.transcript import Sample
from codots.domains.registry import make_pack
from codots.engine.open import OpenModel
from codots.model.alphabet import make_render
from codots.rollout.arms import needed_own
from codots.rollout.fit import DryRun, dry_run
from codots.rollout.profile import Profile
from codots.rollout.records import Row, load_rollouts
from codots.runs.resume import is_complete
from codots.sampler.budget import CHARS_PER_TOKEN, Budget

PLAYED = 8
"""Maximum number of packs that scripted policies play."""


@dataclass(frozen=True)
class ArmForecast:
    """Estimated work of an arm. Pairs are for the replies of scripted policies, and for replies of maximum length."""

    arm: str
    model: str
    lives: int
    """Number of lives that are not finished yet."""
    requests: int
    prompt_tokens: tuple[int, int]
    completion_tokens: tuple[int, int]


def budget_of(config: EvalConfig) -> Budget:
    """Return the limits of an evaluation, with nothing used yet."""
    return Budget(config.max_tokens_total, config.max_cost, config.price_in or 0.0, config.price_out or 0.0)


def forecast(config: EvalConfig) -> list[ArmForecast]:
    """Estimate the requests and tokens that an evaluation has ahead, without sending anything.

    Scripted policies play some of the packs. CHARS_PER_TOKEN characters count as a token, and no row of another arm is
    reused. Raises ValueError as `evaluate` does if a model cannot be opened.
    """
    count, drawn = min(config.packs, PLAYED), (config.domain, config.preset, config.split)
    packs = [make_pack(*drawn, i, config.pack_size) for i in range(count)]
    finished = _finished(config)
    found: list[ArmForecast] = []
    for arm, model in _arms(config):
        options: dict[str, Any] = config.model_dump(include={"profile", "workers", "device"})
        profile, left = OpenModel(model, config.domain, **options).profile, config.packs - finished.get(arm, 0)
        sums = []
        for share in (0.0, 1.0):
            lives = dry_run(packs, _in_characters(profile), make_render(), share, rewrites=arm != "null")
            only_solves = arm != "writer" and (arm != "own" or config.writer is not None)
            asked = [request for life in lives for request in _requests(life, arm != "null" and only_solves)]
            sums.append([len(asked), *(sum(column) for column in zip(*asked, strict=True))])
        (n, *low), (_, *high) = ([round(value * left / count) for value in row] for row in sums)
        prompt, reply = ((a // CHARS_PER_TOKEN, b // CHARS_PER_TOKEN) for a, b in zip(low, high, strict=True))
        found.append(ArmForecast(arm, model, left, n, prompt, reply))
    return found


def total(arms: Iterable[ArmForecast], budget: Budget) -> dict[str, Any]:
    """Return the sums over all arms as plain data, with the least and the greatest cost."""
    rows = list(arms)
    low, high = (
        replace(
            budget,
            prompt_tokens=sum(row.prompt_tokens[k] for row in rows),
            completion_tokens=sum(row.completion_tokens[k] for row in rows),
        )
        for k in (0, 1)
    )
    return {
        "arms": [asdict(row) for row in rows],
        "requests": sum(row.requests for row in rows),
        "prompt_tokens": [low.prompt_tokens, high.prompt_tokens],
        "completion_tokens": [low.completion_tokens, high.completion_tokens],
        "cost": [low.cost, high.cost],
    }


def _arms(config: EvalConfig) -> list[tuple[str, str]]:
    """Return the arms that are rolled out, in order, each with the model that it asks."""
    own = [("own", config.model)] if needed_own(config.arms) else []
    writer = [("writer", config.writer)] if own and config.writer is not None else []
    return writer + own + [(arm, config.model) for arm in config.arms if arm != "own"]


def _in_characters(profile: Profile) -> Profile:
    lengths = {name: getattr(profile, name) * CHARS_PER_TOKEN for name in ("solve_tokens", "update_tokens")}
    return replace(profile, **lengths, max_model_len=2**31)


def _requests(life: DryRun, only_solves: bool) -> Iterable[tuple[int, int]]:
    """Yield the length of the chat and of the reply of every request; a chat is sent as a whole each time."""
    for sample in life.samples[::2] if only_solves else life.samples:  # solve, update, solve, ...
        yield from _replies(sample)


def _replies(sample: Sample) -> Iterable[tuple[int, int]]:
    at = 0
    for sampled, group in groupby(sample.mask):
        length = sum(1 for _ in group)
        if sampled:
            yield at, length
        at += length


def _finished(config: EvalConfig) -> dict[str, int]:
    """Return the number of finished lives of each arm in the file of rows, if it exists."""
    if config.rows is None or not Path(config.rows).is_file():
        return {}
    lives: dict[tuple[str, int], list[Row]] = {}
    for row in load_rollouts(config.rows):
        lives.setdefault((row.arm, int(row.pack[-1])), []).append(row)
    done = [arm for (arm, _), rows in lives.items() if is_complete(rows, config.pack_size)]
    return {arm: done.count(arm) for arm in done}

"""The only table of names that earlier versions used, and what they are called now."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

OLD_VERSION = "0.1.0"
"""The last version with these names."""

KEYS = {
    "cache_gib": "kv_cache_gib",
    "credit.choices": "credit",
    "engine.delay": "engine.max_staleness",
    "fork": "init_from",
    "gap_limit": "max_logprob_gap",
    "group": "group_size",
    "keep": "keep_checkpoints",
    "learner.checkpointing": "learner.gradient_checkpointing",
    "learner.clip": "learner.max_grad_norm",
    "learner.decay_to": "learner.min_lr_ratio",
    "learner.loss_choices": "learner",
    "learner.micro_tokens": "learner.max_microbatch_tokens",
    "learner.warmup": "learner.warmup_steps",
    "look_every": "eval_every",
    "look_packs": "eval_packs",
    "packs": "packs_per_step",
    "patience": "stage_timeout",
    "profile.cap": "profile.max_context_chars",
    "profile.length": "profile.max_model_len",
    "record_every": "rollout_log_every",
    "size": "pack_size",
    "stages.decay_to": "stages.min_lr_ratio",
    "stages.packs": "stages.packs_per_step",
    "worlds.packs": "worlds.packs_per_step",
    "worlds.profile.cap": "worlds.profile.max_context_chars",
}
"""Keys of recipes and evaluations; a section as the new name takes over all keys of the old section."""
COMMANDS = {"plan": "estimate", "pretrain": "imitate", "reference": "baselines", "tasks": "export"}
"""Commands."""
METRICS = {
    r"clock/live": "time/rollout",
    r"clock/(.*)": r"time/\1",
    r"learner/(.*)": r"train/\1",
    r"lives/missing": "rollout/failed",
    r"lives/(.*)": r"rollout/\1",
    r"look/dev": "eval/score",
    r"look/(.*)": r"eval/\1",
}
"""Metrics, as regular expressions; the first that matches counts."""
SYNC_ENGINES = {"kind": "local", "delay": 0}, {"kind": "local", "mode": "sync"}
"""Engine of a synchronous run on one machine, as earlier versions stored it and as it is stored now."""


def new_key(old: str) -> str | None:
    """Return the present name of a recipe key, or None if it was never renamed."""
    return KEYS.get(old)


def new_metric(old: str) -> str:
    """Return the present name of a metric."""
    for pattern, new in METRICS.items():
        if found := re.fullmatch(pattern, old):
            return found.expand(new)
    return old


def old_keys(recipe: Mapping[Any, Any], prefix: str = "") -> Iterator[str]:
    """Find the keys of a recipe that have another name now."""
    for key, value in recipe.items():
        name = f"{prefix}{key}"
        if name in KEYS:
            yield name
        elif _is_section(name):
            for inner in value if isinstance(value, list) else [value]:
                if isinstance(inner, Mapping):
                    yield from old_keys(inner, f"{name}.")


def with_new_keys(recipe: Mapping[Any, Any], prefix: str = "") -> dict[Any, Any]:
    """Return a recipe of an earlier version under the present names."""
    found: dict[Any, Any] = {}
    for key, value in recipe.items():
        name = f"{prefix}{key}"
        if KEYS.get(name) == prefix.rstrip(".") and isinstance(value, Mapping):  # a section whose keys moved up
            found |= value
        elif name in KEYS:
            found[KEYS[name].removeprefix(prefix)] = value
        elif _is_section(name) and isinstance(value, Mapping):
            found[key] = with_new_keys(value, f"{name}.")
        elif _is_section(name) and isinstance(value, list):
            found[key] = [with_new_keys(one, f"{name}.") if isinstance(one, Mapping) else one for one in value]
        else:
            found[key] = value
    return found


def with_new_engine(recipe: dict[Any, Any]) -> dict[Any, Any]:
    """Return a recipe with its synchronous engine in the present form, so that earlier runs can be resumed."""
    old, new = SYNC_ENGINES
    return recipe | {"engine": new} if recipe.get("engine") == old else recipe


def with_old_engine(recipe: dict[Any, Any]) -> dict[Any, Any]:
    """Return a recipe with its synchronous engine in the earlier form, so that it keeps its fingerprint."""
    old, new = SYNC_ENGINES
    return recipe | {"engine": old} if recipe.get("engine") == new else recipe


def _is_section(name: str) -> bool:
    return any(key.startswith(f"{name}.") for key in KEYS)

"""Measuring a model: position curves of every arm on the same packs, with floors, optima and intervals."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from codots.checkpoint import write_atomically
from codots.domain import Domain, make_pack, nearest
from codots.engine.local import LocalEngine, Plan
from codots.model import load_profile, model_folder
from codots.pack import Pack, stream
from codots.records import dump, life_rows
from codots.rollout import Given, Job, Life, Own
from codots.stats import mean_ci, ratio_ci

ARMS = ("own", "null", "shuffled", "frozen", "oracle")
POLICIES = ("random", "bayes", "informed")
RANDOM_LIVES = 8
"""Lives of the random policy on each pack: luck is most of what it has."""
CHUNK = 100
"""Packs lived at once."""


@dataclass(frozen=True)
class ArmReport:
    """One arm's curves; every list is by position."""

    reward: list[float]
    ci95: list[list[float]]
    """Of the reward, over packs."""
    success: list[float]
    malformed: list[float]
    malformed_updates: float
    """Share of rewrites that could not be read."""
    missing: int
    """Lives lost to the infrastructure."""
    right: list[float] | None
    """Right claims of the context, as a fraction of what can be known; None where the domain cannot tell."""
    wrong: list[float] | None
    """Wrong claims, likewise."""


@dataclass(frozen=True)
class Report:
    """An evaluation; differences are by position and paired by pack."""

    model: str
    writer: str | None
    domain: str
    preset: str
    split: str
    n_packs: int
    size: int
    seed: int
    temperature: float
    arms: dict[str, ArmReport]
    floor: list[float]
    bayes: list[float]
    ceiling: list[float]
    lift: list[float] | None
    """own - null."""
    lift_ci95: list[list[float]] | None
    share: list[float] | None
    """(own_j - bayes_0) / (ceiling_j - bayes_0): the part of what only a context can give."""
    share_ci95: list[list[float]] | None
    shuffled_lift: list[float] | None
    """shuffled - null."""
    shuffled_lift_ci95: list[list[float]] | None
    tokens: int
    """Sampled ids."""


def evaluate(
    model: str | Path,
    *,
    domain: str,
    preset: str,
    split: str = "dev",
    packs: int = 100,
    size: int = 4,
    arms: Sequence[str] = ("own", "null"),
    writer: str | Path | None = None,
    seed: int = 0,
    temperature: float = 1.0,
    workers: int = 2,
    rows: Path | None = None,
    told: Callable[[str, int, int], None] = lambda arm, done, total: None,
) -> Report:
    """Measure a model on held-out packs, every arm on the same ones.

    With `writer`, the contexts of `own` and of the arms made from them are another model's, lived by that model and
    only read here. `rows` takes one JSON line per episode. Raises ValueError for an unknown arm, model, domain or
    preset.
    """
    for arm in arms:
        if arm not in ARMS:
            raise ValueError(nearest(arm, list(ARMS), "arm"))
    if not arms:
        raise ValueError(f"no arms; expected some of {', '.join(ARMS)}")
    if rows is not None and not rows.parent.is_dir():
        raise ValueError(f"cannot write {rows}: there is no folder {rows.parent}")
    drawn = [make_pack(domain, preset, split, i, size) for i in range(packs)]
    reader = _Player(model, domain, seed, temperature, workers, told)
    lives: dict[str, list[Life]] = {}
    try:
        own = needed_own(arms)
        if own and writer is not None:
            other = _Player(writer, domain, seed, temperature, workers, told)
            try:
                written = other.live("writer", drawn, [Own(other.strategy)] * packs)
            finally:
                other.close()
            contexts = [Given(reader.strategy, fitted(life.contexts, size)) for life in written]
            lives["own"] = reader.live("own", drawn, contexts)
        elif own:
            lives["own"] = reader.live("own", drawn, [Own(reader.strategy)] * packs)
        for arm in arms:
            if arm != "own":
                given = [
                    Given(reader.strategy, contexts_of(arm, i, drawn, lives.get("own", []), reader.style))
                    for i in range(packs)
                ]
                lives[arm] = reader.live(arm, drawn, given)
        lives = {arm: lives[arm] for arm in arms}
        if rows is not None:
            found = [life_rows(p, life, arm=arm) for arm in arms for p, life in zip(drawn, lives[arm], strict=True)]
            write_atomically(rows, "".join(map(dump, found)))
        tokens = sum(e.transcript.tokens for of in lives.values() for life in of for e in life.episodes)
    finally:
        reader.close()
    head = {
        "model": str(model),
        "writer": None if writer is None else str(writer),
        "domain": domain,
        "preset": preset,
        "split": split,
        "n_packs": packs,
        "size": size,
        "seed": seed,
        "temperature": temperature,
    }
    return Report(**head, **compare(drawn, lives), tokens=tokens)  # type: ignore[arg-type]


class _Player:
    """A model at work on packs."""

    def __init__(
        self,
        model: str | Path,
        domain: str,
        seed: int,
        temperature: float,
        workers: int,
        told: Callable[[str, int, int], None],
    ) -> None:
        folder = model_folder(model)
        profile = load_profile(folder).fits(domain).at(temperature)
        self.style, self.strategy = profile.style, profile.strategy()
        self.engine = LocalEngine(Plan(folder, profile), workers)
        self.seed, self.told = seed, told

    def live(self, arm: str, packs: Sequence[Pack], contexts: Sequence[Own | Given]) -> list[Life]:
        """Live every pack once; all arms draw their words under the same names."""
        lives: list[Life] = []
        for first in range(0, len(packs), CHUNK):
            part = range(first, min(first + CHUNK, len(packs)))
            lives += self.engine.live([Job(packs[i], contexts[i], ("eval", self.seed, i)) for i in part])
            self.told(arm, len(lives), len(packs))
        return lives

    def close(self) -> None:
        self.engine.close()


def needed_own(arms: Sequence[str]) -> bool:
    """Whether any arm is made from the model's own contexts."""
    return any(arm in ("own", "shuffled", "frozen") for arm in arms)


def fitted(contexts: tuple[str, ...], size: int) -> tuple[str, ...]:
    """The contexts of a life, empty ones if it is missing."""
    return contexts or ("",) * size


def contexts_of(arm: str, i: int, packs: Sequence[Pack], own: Sequence[Life], style: str) -> tuple[str, ...]:
    """The contexts that an arm gives to pack i."""
    pack, size = packs[i], len(packs[i].tasks)
    if arm == "null":
        return ("",) * size
    if arm == "oracle":
        return (pack.domain.oracle_context(pack.world, style),) * size
    if arm == "frozen":
        first, *rest = fitted(own[i].contexts, size)
        return (first, *(rest[:1] * (size - 1)))
    return fitted(own[stranger(i, packs)].contexts, size)


def stranger(i: int, packs: Sequence[Pack]) -> int:
    """Another pack, with another hidden rule, by a fixed draw."""
    others = [k for k, pack in enumerate(packs) if pack.world.hidden != packs[i].world.hidden]
    if not others:
        raise ValueError("shuffled contexts need packs of at least two different worlds; give more packs")
    return others[int(stream("stranger", *packs[i].names).integers(len(others)))]


def rewards(lives: Sequence[Life], size: int) -> np.ndarray:
    """Rewards of solves, (P, S); NaN where a life is missing."""
    return np.array([[e.reward for e in life.of("solve")] or [np.nan] * size for life in lives], dtype=float)


def compare(packs: Sequence[Pack], lives: dict[str, list[Life]]) -> dict[str, Any]:
    """Everything a report says about these lives."""
    size = len(packs[0].tasks)
    domain = packs[0].domain
    floor_PS = np.array([[domain.floor(task) for task in pack.tasks] for pack in packs])
    ceiling_PS = np.array([[domain.ceiling(task) for task in pack.tasks] for pack in packs])
    bayes_PS = play("bayes", packs)
    by_arm = {arm: rewards(of, size) for arm, of in lives.items()}
    report: dict[str, Any] = {
        "arms": {arm: arm_report(packs, of, domain) for arm, of in lives.items()},
        "floor": rounded(floor_PS.mean(0)),
        "bayes": rounded(bayes_PS.mean(0)),
        "ceiling": rounded(ceiling_PS.mean(0)),
    }
    span = 2 * (domain.bounds[1] - domain.bounds[0])
    for name, a, b in (("lift", "own", "null"), ("shuffled_lift", "shuffled", "null")):
        both = a in by_arm and b in by_arm
        cis = [mean_ci(d, span) for d in (by_arm[a] - by_arm[b]).T] if both else None
        report[name] = None if cis is None else [round(ci.mean, 4) for ci in cis]
        report[f"{name}_ci95"] = None if cis is None else [ci.interval for ci in cis]
    shares = None
    if "own" in by_arm and domain.exact:
        gained, possible = by_arm["own"] - bayes_PS[:, :1], ceiling_PS - bayes_PS[:, :1]
        shares = [ratio_ci(gained[:, j], possible[:, j]) for j in range(size)]
    report["share"] = None if shares is None else [round(ci.mean, 4) for ci in shares]
    report["share_ci95"] = None if shares is None else [ci.interval for ci in shares]
    return report


def arm_report(packs: Sequence[Pack], lives: Sequence[Life], domain: Domain) -> ArmReport:
    """Curves of one arm."""
    size, there = len(packs[0].tasks), [life for life in lives if life.failure is None]
    reward_PS = rewards(lives, size)
    cis = [mean_ci(column, domain.bounds[1] - domain.bounds[0]) for column in reward_PS.T]
    malformed = [[e.stop == "malformed" for e in life.of("solve")] for life in there]
    updates = [e.stop == "malformed" for life in there for e in life.of("update")]
    facts = [
        [domain.facts(pack.world, z) for z in life.contexts]
        for pack, life in zip(packs, lives, strict=True)
        if life in there
    ]
    told = np.array(facts, dtype=float) if facts and facts[0][0] is not None else None
    return ArmReport(
        reward=[round(ci.mean, 4) for ci in cis],
        ci95=[ci.interval for ci in cis],
        success=rounded((reward_PS[~np.isnan(reward_PS[:, 0])] > 0).mean(0)) if there else [],
        malformed=rounded(np.mean(malformed, axis=0)) if there else [],
        malformed_updates=round(sum(updates) / max(len(updates), 1), 4),
        missing=len(lives) - len(there),
        right=None if told is None else rounded((told[..., 0] / told[..., 2]).mean(0)),
        wrong=None if told is None else rounded((told[..., 1] / told[..., 2]).mean(0)),
    )


def rounded(values: np.ndarray) -> list[float]:
    """Four digits, as plain floats."""
    return [round(float(value), 4) for value in values]


def play(name: str, packs: Sequence[Pack]) -> np.ndarray:
    """Rewards of a scripted policy, (P, S); one player for a whole life."""
    return np.array([list(played(name, pack)) for pack in packs])


def played(name: str, pack: Pack) -> Iterator[float]:
    """Play a pack to its end, task by task."""
    domain, memory = pack.domain, pack.domain.make_memory(pack.world)
    policy = domain.policy(name, pack.world)
    for task in pack.tasks:
        env = task.env(style=domain.styles[0], memory=memory)
        env.observe()
        while True:
            step = env.step(policy.act(env.view))
            if step.done:
                break
        policy.end(step)
        yield step.reward


def reference(domain: str, *, preset: str, packs: int, size: int, split: str = "dev") -> dict[str, Any]:
    """What scripted policies reach by position on these packs, and whether `bayes` is exact."""
    drawn = [make_pack(domain, preset, split, i, size) for i in range(packs)]
    curves = {name: rounded(play(name, drawn).mean(0)) for name in POLICIES[1:]}
    chance = np.mean([play("random", [reseeded(pack, k) for pack in drawn]) for k in range(RANDOM_LIVES)], axis=0)
    head = {"domain": domain, "preset": preset, "split": split, "n_packs": packs, "size": size}
    return {**head, "random": rounded(chance.mean(0)), **curves, "exact": drawn[0].domain.exact}


def reseeded(pack: Pack, k: int) -> Pack:
    """The same pack, for a policy that draws other numbers."""
    return replace(pack, world=replace(pack.world, names=(*pack.world.names, k)))


def as_json(report: Report) -> dict[str, Any]:
    """A report as plain data; JSON has no NaN, so what could not be computed is None."""
    plain: dict[str, Any] = _without_nan(asdict(report))
    return plain


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(inner) for inner in value]
    return None if isinstance(value, float) and value != value else value

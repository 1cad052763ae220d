"""The figures of a run, for the page or as files. A figure is left out if there is no data for it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from codots.core.files import write_atomically
from codots.report.curves import Curve, position_curves, step_curves
from codots.report.evaluation import REFERENCES, Evaluation
from codots.report.run import RunRecord, by_setting, references_of, unique_names
from codots.report.svg import STYLE

SHOWN = (("before", "before", "own", 1), ("after, null", "after", "null", 0), ("after", "after", "own", 0))
"""Curves of the first figure, each as name, time of the evaluation (`before` or `after`), arm and colour."""
FIRST = ("positions", "arms", "training", "facts")
"""Captions of the figures that the page shows expanded."""
FIRST_TAUGHT = ("loss", "evaluations", "malformed")
"""Captions of the further figures that the page shows expanded for a run of imitation."""
COLOUR_OF = (5, 3, 2, 0, 1, 4)
"""Colour of each position. The first position is grey, and the fourth has the main colour."""
ARM_COLOUR = {"own": 0, "null": 5, "shuffled": 1, "frozen": 3, "oracle": 2, "transcript": 4, "notes": 6}


@dataclass(frozen=True)
class Number:
    """A figure of metrics other than reward."""

    title: str
    unit: str
    least_top: float
    curves: Mapping[str, tuple[str, int]]
    """Metric and colour of each curve, by the name of the curve."""
    scale: float = 1.0
    """Factor that the metrics are multiplied by."""


NUMBERS = {
    "loss": Number("Loss", "nats per token of the teacher", 0.1, {"loss": ("train/loss", 0)}),
    "malformed": Number(
        "Replies that could not be parsed",
        "share of replies",
        0.05,
        {"answers": ("malformed/solve", 0), "rewrites": ("malformed/update", 1)},
    ),
    "signal": Number("Tasks without a learning signal", "share", 1.0, {"equal": ("credit/zero_signal_groups", 0)}),
    "distinct": Number(
        "Distinct replies in a group", "share of its lives", 1.0, {"distinct": ("rollout/distinct_replies", 0)}
    ),
    "entropy": Number("Entropy per sampled token", "nats", 0.1, {"entropy": ("train/entropy", 0)}),
    "gradient": Number("Gradient norm", "before clipping", 0.1, {"norm": ("train/grad_norm", 0)}),
    "gap": Number(
        "Logprob gap of learner and sampler",
        "millionths of a nat, mean",
        0.1,
        {"gap": ("train/logprob_gap", 0)},
        scale=1e6,
    ),
    "tokens": Number("Sampled tokens per step", "tokens", 1.0, {"sampled": ("tokens/sampled", 0)}),
    "seconds": Number("Time per step", "seconds", 1e-9, {"all": ("time/step", 0), "rollout": ("time/rollout", 2)}),
}


@dataclass(frozen=True)
class Figure:
    """A drawing, with a file name and the name of a caption."""

    name: str
    svg: str
    caption: str = ""


def figures(run: RunRecord) -> list[Figure]:
    """Return all figures of a run. The figures that the page shows expanded come first."""
    groups = list(by_setting(run))
    found = [overview(groups[0], run)] if groups else []
    for i, group in enumerate(groups):
        found += [
            arms(evaluation, run, f"-{i}" * bool(i)) for evaluation in group if len(evaluation.report["arms"]) > 2
        ]
    found += [*training(run), *malformed_on_dev(run), *numbers(run)]
    return sorted(found, key=lambda figure: FIRST.index(figure.caption) if figure.caption in FIRST else len(FIRST))


def floats(values: Sequence[Any] | None) -> list[Any]:
    """Return numbers from JSON with NaN in place of None, also inside intervals. Returns [] if there are no numbers."""
    return [
        floats(value) if isinstance(value, list) else math.nan if value is None else value for value in values or []
    ]


def references(evaluation: Evaluation) -> dict[str, list[float]]:
    """Return the dashed reference lines of an evaluation."""
    return {name: floats(evaluation.report[name]) for name in REFERENCES}


def curve(name: str, evaluation: Evaluation, arm: str, colour: int, dotted: bool = False) -> Curve:
    """Return the curve of one arm of an evaluation."""
    values = evaluation.report["arms"][arm]
    return Curve(name, floats(values["reward"]), floats(values["ci95"]), colour, dotted)


def overview(group: Sequence[Evaluation], run: RunRecord) -> Figure:
    """Draw reward with own contexts before and after training, and with empty contexts after training.

    If none of these curves was evaluated, draw every arm of the first evaluation instead.
    """
    own = [e for e in group if e.report["writer"] is None]
    by_when = {e.when: e for e in reversed(own)} or {group[0].when: group[0]}
    shown = [
        curve(name, by_when[when], arm, colour, dotted=arm == "null")
        for name, when, arm, colour in SHOWN
        if when in by_when and arm in by_when[when].report["arms"]
    ]
    if not shown:
        first = next(iter(by_when.values()))
        shown = [curve(f"{first.name}, {arm}", first, arm, ARM_COLOUR[arm]) for arm in first.report["arms"]]
    both = {"before", "after"} <= by_when.keys()
    title = "Reward by position" + ", before and after training" * both + setting_suffix(group[0], run)
    return Figure("positions", position_curves(shown, title=title, references=references(group[0])), "positions")


def setting_suffix(evaluation: Evaluation, run: RunRecord) -> str:
    """Return the end of a title: how the evaluation differs from the training lives, or '' if it does not differ."""
    mismatch = evaluation.mismatch(run.config)
    return f": {mismatch}" if mismatch else ""


def arms(evaluation: Evaluation, run: RunRecord, suffix: str) -> Figure:
    """Draw every arm of an evaluation."""
    shown = [curve(arm, evaluation, arm, ARM_COLOUR[arm]) for arm in reversed(evaluation.report["arms"])]
    named = f"{evaluation.name} training" if evaluation.name == evaluation.when else evaluation.name
    drawn = position_curves(
        shown, title=f"All arms, {named}{setting_suffix(evaluation, run)}", references=references(evaluation)
    )
    return Figure(f"arms-{evaluation.name}{suffix}", drawn, "arms")


def training(run: RunRecord) -> Iterator[Figure]:
    """Draw reward over training steps for each entry of the recipe, on training lives and in evaluations on `dev`."""
    for i, label in enumerate(run.labels):
        yield from training_of(run, label, f"-{i}" * bool(i))


def levels_of(run: RunRecord, label: str) -> dict[str, float]:
    """Return the reference lines of figures over training steps."""
    bounds = references_of(run, label)
    return {
        name: values[at]
        for name, values, at in (
            ("floor", bounds.get("floor"), -1),
            ("bayes at 0", bounds.get("bayes"), 0),
            ("ceiling", bounds.get("ceiling"), -1),
        )
        if values
    }


def training_curves(run: RunRecord, label: str) -> list[Curve]:
    """Return the rewards of the training lives of one entry, a curve for each position."""
    return [
        Curve(f"position {j}", run.column(f"reward/{label}{j}"), colour=COLOUR_OF[j % len(COLOUR_OF)])
        for j in range(positions(run, f"reward/{label}"))
    ]


def training_of(run: RunRecord, label: str, suffix: str) -> Iterator[Figure]:
    """Draw the rewards of one entry: those of its training lives, and those of its evaluations on `dev`."""
    last, where = levels_of(run, label), f", {label.rstrip('/')}" * bool(label)
    if curves := training_curves(run, label):
        drawn = step_curves(run.steps, curves, title=f"Reward while training{where}", references=last)
        yield Figure(f"training{suffix}", drawn, "training")
    evaluated = positions(run, f"eval/{label}own_")
    if evaluated:
        at = [i for i, value in enumerate(run.column(f"eval/{label}own_{evaluated - 1}")) if math.isfinite(value)]
        own, null, oracle = (
            [run.column(f"eval/{label}{arm}_{evaluated - 1}")[i] for i in at] for arm in ("own", "null", "oracle")
        )
        curves = [Curve("null", null, colour=5, dotted=True), Curve("own", own)]
        curves += [Curve("oracle", oracle, colour=2)] if run.taught else []
        title = f"Evaluations on dev, position {evaluated - 1}{where}"
        drawn = step_curves([run.steps[i] for i in at], curves, title=title, references=last)
        yield Figure(f"evaluations{suffix}", drawn, "evaluations")


def malformed_on_dev(run: RunRecord) -> Iterator[Figure]:
    """Draw the malformed replies in evaluations on `dev`, for a run of imitation."""
    kinds = {"answers": run.column("eval/malformed/solve"), "rewrites": run.column("eval/malformed/update")}
    at = [i for i, value in enumerate(kinds["answers"]) if math.isfinite(value)]
    if run.taught and at:
        curves = [Curve(name, [values[i] for i in at], colour=k) for k, (name, values) in enumerate(kinds.items())]
        title = "Replies on dev that could not be parsed"
        drawn = step_curves([run.steps[i] for i in at], curves, title=title, unit="share of replies", least_top=0.05)
        yield Figure("malformed-dev", drawn, "malformed")


def positions(run: RunRecord, prefix: str) -> int:
    """Return the number of positions of a metric, or 0 if the run does not have the metric."""
    found = [name.removeprefix(prefix) for name in run.metrics if name.startswith(prefix)]
    return 1 + max((int(rest) for rest in found if rest.isdecimal()), default=-1)


def numbers(run: RunRecord) -> Iterator[Figure]:
    """Draw facts, parse failures, training metrics, tokens and seconds over training steps."""
    shown: dict[str, tuple[list[Curve], str, str, float]] = {}
    for i, label in enumerate(run.labels):
        title = "Facts in the last context" + f", {label.rstrip('/')}" * bool(label)
        shown["facts" + f"-{i}" * bool(i)] = facts(run, label), title, "share of all facts", 1.0
    for name, number in NUMBERS.items():
        if name == "loss" and not run.taught:  # the loss of RL says little
            continue
        curves = [
            Curve(curve, [number.scale * value for value in run.column(metric)], colour=colour)
            for curve, (metric, colour) in number.curves.items()
        ]
        shown[name] = curves, number.title, number.unit, number.least_top
    for name, (curves, title, unit, least_top) in shown.items():
        if any(math.isfinite(value) for one in curves for value in one.values):
            drawn = step_curves(run.steps, curves, title=title, unit=unit, least_top=least_top)
            yield Figure(name, drawn, name.partition("-")[0])


def facts(run: RunRecord, label: str = "") -> list[Curve]:
    """Return curves of the facts in the last contexts: the shares that are right, wrong, and not stated."""
    right, wrong = run.column(f"facts/{label}right"), run.column(f"facts/{label}wrong")
    missing = [rest if (rest := 1 - r - w) > 0 or math.isnan(rest) else 0.0 for r, w in zip(right, wrong, strict=True)]
    return [Curve("right", right, colour=2), Curve("wrong", wrong, colour=1), Curve("missing", missing, colour=5)]


def side_by_side(runs: Sequence[RunRecord]) -> list[Figure]:
    """Draw several runs together: reward by position after training, one figure per setting, and reward over steps."""
    names = unique_names(runs)
    groups: dict[tuple[Any, ...], list[Curve]] = {}
    bounds: dict[tuple[Any, ...], Evaluation] = {}
    for i, run in enumerate(runs):
        after = run.after
        if after is not None and "own" in after.report["arms"]:
            bounds[after.setting] = after
            groups.setdefault(after.setting, []).append(curve(names[i], after, "own", i))
    found = []
    for i, (setting, curves) in enumerate(groups.items()):
        title = "{domain} {preset} after training, {n_packs} packs of {split}".format(**bounds[setting].report)
        found.append(Figure(f"runs-{i}", position_curves(curves, title=title, references=references(bounds[setting]))))
    steps = sorted({step for run in runs for step in run.steps})
    curves = [
        Curve(f"{names[i]} {label.rstrip('/')}".rstrip(), [at.get(step, math.nan) for step in steps], colour=i)
        for i, run in enumerate(runs)
        for label in run.labels
        if (at := dict(zip(run.steps, run.column(last_reward(run, label)), strict=True)))
    ]
    if curves:
        found.append(Figure("runs-training", step_curves(steps, curves, title="Training, last position")))
    return found


def last_reward(run: RunRecord, label: str) -> str:
    """Return the name of the metric that is the reward at the last position."""
    prefix = f"reward/{label}"
    return f"{prefix}{positions(run, prefix) - 1}"


def write_figures(folder: Path, shown: Sequence[Figure]) -> list[Path]:
    """Write each figure as an SVG file and as a PNG file of twice the size. Return the paths of the files.

    Raises ValueError if the extra `figures` is not installed or no font is found.
    """
    try:
        import resvg_py
    except ImportError as error:
        raise ValueError("PNG files need the extra 'figures'; pip install 'codots[figures]'") from error
    probe = f'<svg xmlns="http://www.w3.org/2000/svg" class="codots" viewBox="0 0 9 9"><style>{STYLE}</style>%s</svg>'
    if resvg_py.svg_to_bytes(svg_string=probe % '<text y="9">x</text>') == resvg_py.svg_to_bytes(svg_string=probe % ""):
        raise ValueError("PNG files need a font, but none was found; install DejaVu, Liberation or Noto Sans")
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for figure in shown:
        svg, png = folder / f"{figure.name}.svg", folder / f"{figure.name}.png"
        write_atomically(svg, figure.svg)
        write_atomically(png, bytes(resvg_py.svg_to_bytes(svg_string=figure.svg, zoom=2)))
        written += [svg, png]
    return written

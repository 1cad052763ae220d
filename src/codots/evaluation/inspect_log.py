"""Write finished evaluations as logs of Inspect (`inspect_ai`): a log per arm, a sample per task of each life."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from codots.context.strategies import strategy_of
from codots.core.files import check_new, write_folder
from codots.core.rng import digest
from codots.core.transcript import StopReason
from codots.domains.base import Task
from codots.domains.registry import make_pack
from codots.evaluation.export import STEP, Evaluation
from codots.rollout.records import Row, solves
from codots.rollout.steps import prompt_record

STOPS = {
    StopReason.STOP: "stop",
    StopReason.LENGTH: "max_tokens",
    StopReason.FULL: "model_length",
    StopReason.THOUGHT: "max_tokens",
    StopReason.FILTERED: "content_filter",
    StopReason.TOOLS: "tool_calls",
}
"""Inspect's words for how a reply ended."""
SCORE = "reward"
"""Name of the score of a sample."""
log = logging.getLogger("codots")


def check_out(out: Path) -> None:
    """Raise ValueError if logs cannot be written to this new folder. Call this before reading evaluations."""
    check_new(out)
    try:
        import inspect_ai.log  # noqa: F401
    except ImportError as error:
        raise ValueError("logs of Inspect need inspect_ai: pip install 'codots[inspect]'") from error


def write_logs(evaluations: list[Evaluation], out: Path) -> int:
    """Write the logs of all arms into a new folder, and return their number.

    A warning is logged if prompts are no longer those that the model read, because the domain has changed since.
    """
    from inspect_ai.log import write_eval_log

    logs = {}
    for one in evaluations:
        folder = "" if one.step is None else f"{STEP}{one.step:06d}/"
        for arm in one.head["arms"]:
            logs[f"{folder}{one.name}-{arm}.eval"] = _log_of(one, arm)

    def fill(folder: Path) -> None:
        for name, found in logs.items():
            (folder / name).parent.mkdir(exist_ok=True)
            write_eval_log(found, folder / name)

    write_folder(out, fill)
    return len(logs)


def _log_of(one: Evaluation, arm: str) -> Any:
    from inspect_ai.log import EvalConfig, EvalDataset, EvalLog, EvalResults, EvalSpec, EvalStats
    from inspect_ai.model import GenerateConfig, ModelUsage

    head, lives = one.head, one.lives[arm]
    names = (head["domain"], head["preset"], head["split"])
    packs = [make_pack(*names, index, head["pack_size"]) for index in range(head["packs"])]
    samples = [_sample(one.model, task, life) for pack, life in zip(packs, lives, strict=True) for task in pack.tasks]
    if foreign := sum("prompt" in sample.metadata for sample in samples):
        log.warning(
            f"{one.path}, {arm}: {foreign} of {len(samples)} chats lack the system message, because {head['domain']} "
            "words it differently now"
        )
    usage = sum((used for sample in samples for used in sample.model_usage.values()), ModelUsage())
    scored = sum(sample.error is None for sample in samples)
    id = f"{digest(str(one.path.absolute()), arm):032x}"[:22]
    when = datetime.fromtimestamp(one.path.stat().st_mtime, UTC).isoformat(timespec="seconds")
    settings = {"arm": arm} | {key: head[key] for key in ("domain", "preset", "split", "packs", "pack_size", "seed")}
    return EvalLog(
        status="success" if scored else "error",
        eval=EvalSpec(
            eval_id=id,
            run_id=id,
            task_id=id,
            created=when,
            task=f"{head['domain']}/{head['preset']}",
            task_display_name=f"{one.name} {arm}",
            task_args=settings,
            tags=[arm],
            dataset=EvalDataset(name="/".join(names), samples=len(samples), sample_ids=[s.id for s in samples]),
            model=one.model,
            model_generate_config=GenerateConfig(temperature=head["temperature"], seed=head["seed"]),
            config=EvalConfig(epochs=1),
            packages={"codots": version("codots")},
            metadata={"step": one.step, "writer": one.writer, "context_tokens": head.get("context_tokens")},
        ),
        results=EvalResults(
            total_samples=len(samples), completed_samples=scored, scores=[_summary(samples)] if scored else []
        ),
        stats=EvalStats(started_at=when, completed_at=when, model_usage={one.model: usage}),
        samples=samples,
    )


def _sample(model: str, task: Task, life: list[Row]) -> Any:
    """Return the sample of a task, with the tokens of the task and of the update after it."""
    from inspect_ai.log import EvalError, EvalSample
    from inspect_ai.model import ModelOutput, ModelUsage
    from inspect_ai.scorer import Score

    index, position = int(life[0].pack[-1]), task.position
    metadata: dict[str, Any] = {"pack": index, "position": position, "ceiling": float(task.domain.ceiling(task))}
    whole: dict[str, Any] = {"id": f"{index}-{position}", "epoch": 1, "target": "", "input": "", "metadata": metadata}
    row = next((row for row in solves(life) if row.position == position), None)
    if row is None:
        message = life[0].outcome
        return EvalSample(**whole, error=EvalError(message=message, traceback="", traceback_ansi=""))
    messages = list(_messages(model, task, row))
    if row.turns and messages[0].role != "system":
        metadata["prompt"] = "not reproducible"
    rows = [other for other in life if other.position == position]
    read, said = (sum(map(count, rows)) for count in (_read, _said))
    opening = next((k for k, message in enumerate(messages) if message.role == "assistant"), 0)
    about = {"position": position, "malformed": row.stop == "malformed", "stop": row.stop, "ended": row.ended}
    score = Score(
        value=float(row.reward),
        answer=row.turns[-1][1] if row.turns else None,
        explanation=row.outcome or None,
        metadata=about | {"context": row.context},
    )
    ended = STOPS.get(StopReason(row.ended), "unknown") if row.ended else "unknown"
    output = ModelOutput.from_content(model, row.turns[-1][1], stop_reason=ended) if row.turns else ModelOutput()
    return EvalSample(
        **whole | {"input": messages[:opening] or ""},
        messages=messages,
        output=output,
        scores={SCORE: score},
        model_usage={model: ModelUsage(input_tokens=read, output_tokens=said, total_tokens=read + said)},
    )


def _messages(model: str, task: Task, row: Row) -> Iterator[Any]:
    """Yield the chat of a task. The system message is left out if its present words are not those that were read."""
    from inspect_ai.model import ChatMessageAssistant, ChatMessageSystem, ChatMessageUser

    said = [[observation, reply] for observation, reply in row.turns]
    if row.prompt is not None and said:
        settings = {key: value for key, value in row.prompt.items() if key not in ("style", "hash")}
        style, strategy = row.prompt["style"], strategy_of(settings)
        prompt = strategy.solve(task.domain.rules_text(task, style), row.context, said[0][0], style)
        if prompt_record(prompt, style, strategy) == row.prompt:
            yield ChatMessageSystem(content=prompt.system)
            said[0][0] = prompt.user
    for observation, reply in said:
        yield ChatMessageUser(content=observation)
        yield ChatMessageAssistant(content=reply, model=model, source="generate")


def _read(row: Row) -> int:
    return row.read or 0 if row.prompt_tokens is None else row.prompt_tokens


def _said(row: Row) -> int:
    return row.tokens if row.completion_tokens is None else row.completion_tokens


def _summary(samples: list[Any]) -> Any:
    """Return the mean reward and its standard error over packs, of all tasks and by position."""
    from inspect_ai.log import EvalMetric, EvalScore
    from inspect_ai.scorer import SampleScore, mean, stderr

    scores = [
        SampleScore(score=sample.scores[SCORE], sample_id=sample.id, sample_metadata=sample.metadata)
        for sample in samples
        if sample.scores
    ]
    metrics = {}
    for name, metric in (("mean", mean()), ("stderr", stderr(cluster="pack"))):
        metrics[name] = EvalMetric(name=name, value=metric(scores))
        for position in sorted({score.sample_metadata["position"] for score in scores}):
            there = [score for score in scores if score.sample_metadata["position"] == position]
            key = f"position {position}"
            metrics[f"{name} at {key}"] = EvalMetric(name=key, group=f"{name} by position", value=metric(there))
    return EvalScore(
        name=SCORE,
        scorer=SCORE,
        scored_samples=len(scores),
        unscored_samples=len(samples) - len(scores),
        metrics=metrics,
    )

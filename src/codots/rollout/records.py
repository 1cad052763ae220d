"""Recorded rollouts: one JSONL row per episode, and whole lives for exact reloading."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from codots.context.rewrite import Turn
from codots.core.files import write_atomically
from codots.core.rng import Names
from codots.core.transcript import StopReason, Transcript
from codots.domains.base import Pack
from codots.rollout.life import Life
from codots.rollout.steps import STOPPED, Episode

HEAD = "evaluation"
"""Key in the first line of an evaluation's file. The value identifies the evaluation."""
UNANSWERED: dict[str | None, tuple[str, str]] = {
    StopReason.THOUGHT: ("spent on hidden thoughts alone", "raise solve_tokens, or turn thinking off"),
    StopReason.FILTERED: ("withheld by the server's content filter", "see the server's settings"),
    StopReason.TOOLS: ("tool calls without a text", "turn off the server's tools"),
}
"""What became of replies without an answer, by how they ended, and what to do."""
MISSING = "missing"
"""Kind of the single row of a life that was lost to an infrastructure failure, and its stop word."""
DIVERGED = "diverged"
"""Stop word of a row of kind MISSING that `codots rescore` writes for an episode that must be sampled again."""


@dataclass(frozen=True)
class Row:
    """One episode of a life, as stored in JSON."""

    pack: list[str | int]
    """Name of the pack: domain, preset, split, index."""
    arm: str
    life: int
    position: int
    kind: str
    reward: float
    stop: str
    context: str
    """Context in the prompt."""
    written: str | None
    """New context of an update, or None for other episodes."""
    turns: list[list[str]]
    """Pairs of observation and reply, one per turn."""
    outcome: str
    tokens: int
    """Number of sampled tokens."""
    advantage: float | None = None
    step: int | None = None
    ended: str | None = None
    """How the last reply ended: a StopReason. None in files of earlier versions."""
    prompt_tokens: int | None = None
    """Number of prompt tokens that a server counted, over all requests. None for a local model or a reused episode."""
    completion_tokens: int | None = None
    """Number of generated tokens that a server counted, hidden thoughts included. None as for `prompt_tokens`."""
    prompt: dict[str, Any] | None = None
    """Prompt style, settings of the strategy, and hash of the prompt. None in files of earlier versions."""
    read: int | None = None
    """Number of tokens that the model was given, each counted once. None in files of earlier versions."""


def life_rows(
    pack: Pack, life: Life, *, arm: str = "own", index: int = 0, step: int | None = None, credit: Any = None
) -> list[Row]:
    """Return one row per episode of a life. `credit` is a function from (kind, position) to the advantage."""
    return [
        Row(
            list(pack.names),
            arm,
            index,
            e.position,
            e.kind,
            e.reward,
            e.stop,
            e.context,
            e.written,
            [[turn.observation, turn.reply] for turn in e.turns],
            e.outcome,
            e.transcript.tokens,
            None if credit is None else float(credit(e.kind, e.position)),
            step,
            e.ended,
            e.transcript.prompt_tokens,
            e.transcript.completion_tokens,
            e.prompt,
            len(e.transcript.ids) - e.transcript.tokens,
        )
        for e in life.episodes
    ]


def missing_row(pack: Pack, life: Life, *, arm: str) -> Row:
    """Return the row of a missing life, with its error as the outcome."""
    return Row(list(pack.names), arm, 0, 0, MISSING, 0.0, MISSING, "", None, [], life.failure or "", 0)


def lost(rows: Sequence[Row]) -> Row | None:
    """Return the first row of kind MISSING of a life, or None if the life is complete."""
    return next((row for row in rows if row.kind == MISSING), None)


def why_unreadable(ends: Iterable[str | None], solve_tokens: int, otherwise: str) -> str:
    """Return the hint for replies of which none could be parsed, by how most of them ended."""
    ((end, _),) = Counter(ends).most_common(1)
    if end == StopReason.LENGTH:
        return f"most were cut at {solve_tokens} ids: raise solve_tokens"
    if end == StopReason.FULL:
        return "most had no room in the context window: raise max_model_len"
    if end in UNANSWERED:
        return "most were {}: {}".format(*UNANSWERED[end])
    return otherwise


def solves(rows: Iterable[Row]) -> list[Row]:
    """Return the solve episodes of a life, ordered by position. Returns an empty list if the life is missing."""
    return sorted((row for row in rows if row.kind == "solve"), key=lambda row: row.position)


def has_all_updates(rows: Sequence[Row]) -> bool:
    """Return whether a complete life has the update after every attempted task but the last, or has no updates."""
    attempted = [row.position for row in solves(rows) if row.stop != STOPPED]
    return sorted(row.position for row in rows if row.kind == "update") in ([], attempted[:-1])


def contexts(rows: Iterable[Row]) -> tuple[str, ...]:
    """Return the context that each solve episode of a life was given."""
    return tuple(row.context for row in solves(rows))


def dump(rows: Iterable[Row]) -> str:
    """Return rows as JSON lines."""
    return "".join(json.dumps(asdict(row), ensure_ascii=False) + "\n" for row in rows)


def read_rows(path: Path) -> Iterator[Row]:
    """Yield the rows of a file, ignoring a cut-off last line. Raises ValueError for any other invalid line."""
    known = {field.name for field in fields(Row)}
    with path.open("rb") as lines:  # bytes, because a cut may split a character
        for number, line in enumerate(lines, start=1):
            try:
                values = json.loads(line)
                if HEAD not in values:
                    yield Row(**{key: value for key, value in values.items() if key in known})
            except (TypeError, ValueError, AttributeError) as error:
                if not line.endswith(b"\n"):
                    return
                raise ValueError(f"{path}, line {number}: not a row of a rollout ({error})") from error


def load_rollouts(path: str | Path) -> list[Row]:
    """Read the recorded episodes of a run folder, of its `rollouts` folder, or of one JSONL file.

    Raises ValueError if there is no such file.
    """
    path = Path(path)
    folder = path / "rollouts" if (path / "rollouts").is_dir() else path
    found = sorted(folder.glob("*.jsonl")) if folder.is_dir() else [folder]
    if not found or not all(file.is_file() for file in found):
        raise ValueError(f"no rollouts at {path}; expected a run folder or a .jsonl file")
    return [row for file in found for row in read_rows(file)]


def names_of(row: Row) -> Names:
    """Return the name of a row's pack."""
    return tuple(row.pack)


def write_lives(path: Path, batches: Iterable[Iterable[Life]]) -> None:
    """Write batches of lives losslessly, for `read_lives`."""
    write_atomically(path, json.dumps([[asdict(life) for life in batch] for batch in batches]))


def read_lives(path: Path) -> list[list[Life]]:
    """Read the batches of lives that `write_lives` wrote."""
    return [[_life(values) for values in batch] for batch in json.loads(path.read_text())]


def _life(values: dict[str, Any]) -> Life:
    return Life(tuple(values["names"]), tuple(map(episode_of, values["episodes"])), values["failure"])


def episode_of(values: dict[str, Any]) -> Episode:
    """Return the episode that `asdict` made these values of."""
    parts = {"turns": tuple(Turn(**turn) for turn in values["turns"]), "transcript": Transcript(**values["transcript"])}
    return Episode(**values | parts)

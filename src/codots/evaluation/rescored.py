"""Re-scored files: new rows next to the recorded ones, and the folder of a re-scored run."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from codots.core.files import writable, write_atomically, write_folder
from codots.core.progress import OnProgress, no_progress
from codots.evaluation.evaluate import Report, as_json, without_nan
from codots.evaluation.rescore import Change, Rescored, change_of, head_of, report_of, rescore

SUFFIX, FOLDER = ".rescored.jsonl", "rescored"
log = logging.getLogger("codots")


def rescore_file(
    rows: Path, out: Path | None = None, *, on_progress: OnProgress = no_progress
) -> tuple[Rescored, Path]:
    """Re-score a file of rows, and write the new rows to `out`. The default is the name of the file with SUFFIX.

    Raises ValueError, before anything is re-scored, if `out` exists or cannot be written.
    """
    out = out or rows.with_name(f"{rows.stem}{SUFFIX}")
    head_of(rows)  # raises if these are no rows
    check_new(out)
    writable(out)
    found = rescore(rows, on_progress=on_progress)
    write_atomically(out, found.content())
    return found, out


def rescore_run(
    run: Path, out: Path | None = None, *, on_progress: OnProgress = no_progress
) -> tuple[list[Rescored], Path]:
    """Re-score the evaluations and the recorded training lives of a run, and write them to a new folder.

    The folder, `rescored` in the run by default, holds the recipe, the new rows under the old names, and a JSON report
    of each evaluation; `codots report` reads it. The run itself is not changed. Files that cannot be re-scored are
    logged as warnings. Raises ValueError if there is none that can.
    """
    out = out or run / FOLDER
    check_new(out)
    evaluations = [path for path in sorted(run.glob("*.jsonl")) if not path.name.endswith(SUFFIX) and is_rows(path)]
    files = [*evaluations, *sorted((run / "rollouts").glob("step-*.jsonl"))]
    found, errors = [], []
    for path in files:
        try:
            found.append(rescore(path, on_progress=on_progress))
        except ValueError as error:
            errors.append(str(error))
    if not found:
        raise ValueError(errors[0] if errors else f"no rows in {run}; expected rollouts, or the file of an evaluation")
    for line in errors:
        log.warning(line)
    write_folder(out, lambda folder: _fill(folder, run, found))
    return found, out


def check_new(out: Path) -> None:
    """Raise ValueError if a file or folder exists, which may hold lives that were sampled again."""
    if out.exists():
        raise ValueError(f"{out} exists; remove it, or give --out ANOTHER")


def is_rows(path: Path) -> bool:
    """Return whether a file holds the rows of an evaluation."""
    try:
        return head_of(path) is not None
    except ValueError:
        return False


def _fill(folder: Path, run: Path, found: Sequence[Rescored]) -> None:
    for one in found:
        target = folder / one.path.relative_to(run)
        target.parent.mkdir(exist_ok=True)
        target.write_text(one.content(), encoding="utf-8")
        if one.head is not None:
            target.with_suffix(".json").write_text(json.dumps(plain(one, run), indent=2), encoding="utf-8")
    if (run / "config.yaml").is_file():
        shutil.copyfile(run / "config.yaml", folder / "config.yaml")


def named_report(found: Rescored, folder: Path) -> Report:
    """Return the report of a re-scored evaluation, with the models' names from its earlier JSON report."""
    return report_of(found, *(model_names(found.path.stem, folder) or ()))


def model_names(stem: str, folder: Path) -> tuple[str, str | None] | None:
    """Return the names of an evaluation's model and writer from its JSON report, or None if there is no such report.

    The report is the JSON file with the name of the rows, or a part of `summary.json`, as of `codots demo`.
    """
    for path, part in ((folder / f"{stem}.json", None), (folder / "summary.json", stem)):
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            report = content if part is None else content[part]
            return report["model"], report["writer"]
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return None


def plain(found: Rescored, folder: Path) -> dict[str, Any]:
    """Return the report, if the rows are those of an evaluation, and what changed, as plain data for JSON."""
    changes = {"rescored": {arm: without_nan(asdict(change)) for arm, change in found.changes.items()}}
    return changes if found.head is None else as_json(named_report(found, folder)) | changes


def changes_of_steps(found: Sequence[Rescored]) -> dict[str, Change]:
    """Return what changed in all files of training steps together, by arm."""
    steps = [one for one in found if one.head is None]
    pairs = [(rows, one.lives[key]) for one in steps for key, rows in one.before.items()]
    arms = dict.fromkeys(rows[0].arm for rows, _ in pairs)
    return {arm: change_of([pair for pair in pairs if pair[0][0].arm == arm]) for arm in arms}

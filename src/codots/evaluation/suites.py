"""Run a suite of evaluations on one model, or on every checkpoint of a run, and resume where it was stopped."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from codots.config.evaluate import EvalConfig
from codots.config.schema import ENTRY_PROFILE_KEYS
from codots.config.suite import SUITE, Suite
from codots.core.files import write_atomically
from codots.core.progress import OnProgress
from codots.domains.registry import make_pack
from codots.engine.open import OpenModel
from codots.evaluation.evaluate import Report, as_json, evaluate
from codots.model.adapter import holder
from codots.model.load import model_folder
from codots.rollout.profile import PROFILE, Profile, load_profile
from codots.runs.checkpoint import checkpoints
from codots.runs.folder import saved_recipe

SUMMARY = "suite.json"


@dataclass(frozen=True)
class Subject:
    """A model that a suite measures."""

    model: str
    step: int | None = None
    """Training step of a checkpoint, 0 for the model that the run started from; None for any other model."""
    profile: Profile | None = None
    """Profile that replaces the one of the model's folder."""

    @property
    def folder(self) -> str:
        """Name of the subfolder of the results, or '' for a single model."""
        return "" if self.step is None else f"step-{self.step:06d}"


@dataclass(frozen=True)
class SuiteReport:
    """The reports of a suite, by step (None for a single model) and by name of the evaluation."""

    name: str
    model: str
    reports: dict[int | None, dict[str, Report]]


def every_checkpoint(run: Path) -> list[Subject]:
    """Return the model that a run started from, as step 0, and all its checkpoints.

    All have the profile of the run. Raises ValueError if there is no run, or if it has no checkpoint.
    """
    recipe, found = saved_recipe(run), checkpoints(run)
    if not found:
        raise ValueError(
            f"{run} has no checkpoint; train with save_every and keep_checkpoints: all to measure them all"
        )
    start = str(recipe.get("init_from") or recipe.get("model") or "base")
    subjects = [Subject(start, 0, load_profile(holder(model_folder(found[0]), PROFILE)))]
    return subjects + [Subject(str(folder), int(folder.name.removeprefix("step-"))) for folder in found]


def run_suite(
    suite: Suite, model: str, subjects: list[Subject], out: Path, progress: Callable[[str], OnProgress]
) -> SuiteReport:
    """Evaluate every subject with every evaluation, and write rows, reports and a summary into `out`.

    Finished lives are not rolled out again. `progress` returns the callback for an evaluation, given its name. Raises
    ValueError, before anything is written, if a domain lacks the prompt style of a model, or a prompt does not fit.
    """
    planned = [(one, name, asked(config, one)) for one in subjects for name, config in suite.evaluations.items()]
    for _, name, config in planned:
        check_opens(config, f"{suite.name}: {SUITE}.{name}")
    reports: dict[int | None, dict[str, Report]] = {}
    for subject, name, config in planned:
        folder = out / subject.folder
        folder.mkdir(parents=True, exist_ok=True)
        rows = {"rows": str(folder / f"{name}.jsonl")}
        report = evaluate(
            config.model_copy(update=rows), on_progress=progress(" ".join(filter(None, [subject.folder, name])))
        )
        write_atomically(folder / f"{name}.json", json.dumps(as_json(report), indent=2) + "\n")
        reports.setdefault(subject.step, {})[name] = report
    found = SuiteReport(suite.name, model, reports)
    write_atomically(out / SUMMARY, json.dumps(plain(found), indent=2) + "\n")
    return found


def asked(config: EvalConfig, subject: Subject) -> EvalConfig:
    """Return the settings of an evaluation of a subject, whose profile holds as far as they leave it open."""
    config = config.model_copy(update={"model": subject.model})
    if (profile := subject.profile) is None:
        return config
    values = {key: getattr(profile, key) for key in ENTRY_PROFILE_KEYS} | config.profile
    temperature = profile.temperature if config.temperature is None else config.temperature
    return config.model_copy(update={"profile": values, "temperature": temperature})


def check_opens(config: EvalConfig, where: str) -> None:
    """Raise ValueError, with its place in the suite, if the model lacks the domain's style or room for its prompt."""
    options = config.model_dump(include={"temperature", "profile", "device", "extra_body", "base"})
    pack = make_pack(config.domain, config.preset, config.split, 0, config.pack_size)
    try:
        OpenModel(config.model, config.domain, **options).check_fits(pack)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None


def plain(found: SuiteReport) -> dict[str, object]:
    """Return the reports as plain data: a list of steps, each with its evaluations by name."""
    steps = [
        {"step": step, "evaluations": {name: as_json(report) for name, report in reports.items()}}
        for step, reports in found.reports.items()
    ]
    return {"suite": found.name, "model": found.model, "steps": steps}

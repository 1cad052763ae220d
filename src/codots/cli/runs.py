"""Commands that train and evaluate models: train, config, imitate, eval, rescore, demo."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from codots.cli.app import AsJson, Base, Changes, Packs, Recipe, Settings, app, show

if TYPE_CHECKING:
    from codots.cli.watch import Stopped
    from codots.config.evaluate import EvalConfig
    from codots.config.imitate import ImitateConfig
    from codots.config.schema import RunKeys, TrainConfig
    from codots.evaluation.rescore import Change


Resume = Annotated[bool, typer.Option("--resume", help="Resume from the last checkpoint of the run.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Validate the recipe and print it in full without running it.")]


@app.command()
def train(
    recipe: Recipe,
    changes: Changes = None,
    resume: Resume = False,
    origin: Annotated[
        str | None,
        typer.Option("--init-from", help="Start from a run or a checkpoint; same as init_from=..."),
    ] = None,
    base: Base = None,
    dry_run: DryRun = False,
) -> None:
    """Train a model with a recipe."""
    from codots.cli.watch import run_training
    from codots.config.load import load_recipe
    from codots.config.schema import TrainConfig

    options = _as_changes(init_from=origin, base=base)
    config = load_recipe(TrainConfig, recipe, [*(changes or []), *options])
    if dry_run:
        return _dry_run(config)
    _say_the_end(config, run_training(config, resume=resume))


def _say_the_end(config: RunKeys, stopped: Stopped | None) -> None:
    """Print where the model is. If the run was stopped, exit with the code of the signal."""
    if stopped is not None:
        typer.echo(
            f"stopped after step {stopped.step}, saved; run the same command with --resume to continue", err=True
        )
        raise typer.Exit(stopped.exit_code)
    typer.echo(f"final model: {config.run}/model; run folder: {config.run}{_best(config)}")


def _as_changes(**options: str | None) -> list[str]:
    return [f"{key}={json.dumps(value)}" for key, value in options.items() if value is not None]


def _best(config: RunKeys) -> str:
    from codots.runs.checkpoint import best_checkpoint, score_of

    best = best_checkpoint(Path(config.run))
    return f"; best checkpoint (dev score {score_of(best):.3f}): {best}" if best else ""


def _dry_run(config: TrainConfig) -> None:
    from codots.core.yaml_text import write_yaml
    from codots.engine.cluster import check_ray
    from codots.runs.checkpoint import start_folder
    from codots.runs.loggers import check_loggers
    from codots.training.setup import check_prompts, engine_plan, profile_of

    check_loggers(config.loggers)
    if config.engine.kind == "ray":
        check_ray()
    folder = start_folder(config.model, config.init_from, config.base)
    profile = profile_of(config, folder)
    engine_plan(config, folder, profile)  # raises if the reference model is missing
    check_prompts(config.worlds, folder, profile)
    typer.echo(write_yaml(config.to_dict()).rstrip())
    for world in config.worlds:
        name = f"{world.domain} {world.preset}: " if len(config.worlds) > 1 else ""
        lives = world.packs_per_step * config.group_size
        episodes = lives * (2 * world.pack_size - 1 if config.contexts == "own" else world.pack_size)
        typer.echo(
            f"# a step: {name}{world.packs_per_step} packs x {config.group_size} lives = {lives} lives, "
            f"{episodes} episodes"
        )
    typer.echo(f"# {config.steps} steps from {folder.name!r} in style {profile.style!r}; nothing was run")


@app.command("config")
def show_config(
    imitation: Annotated[bool, typer.Option("--imitate", help="List the keys of recipes of `codots imitate`.")] = False,
    evaluation: Annotated[bool, typer.Option("--eval", help="List the settings of `codots eval`.")] = False,
    as_json: AsJson = False,
) -> None:
    """List every key of a recipe with its default and its meaning."""
    from dataclasses import asdict

    from codots.cli.display import keys_table
    from codots.config.evaluate import EvalConfig
    from codots.config.imitate import ImitateConfig
    from codots.config.load import keys_of
    from codots.config.schema import TrainConfig

    if imitation and evaluation:
        raise typer.BadParameter("expected --imitate or --eval, not both")
    keys = list(keys_of(ImitateConfig if imitation else EvalConfig if evaluation else TrainConfig))
    if as_json:
        typer.echo(json.dumps([asdict(key) for key in keys], indent=2))
    else:
        show(keys_table(keys))


@app.command("imitate")
def run_imitation(
    recipe: Recipe,
    changes: Changes = None,
    resume: Resume = False,
    base: Base = None,
    dry_run: DryRun = False,
) -> None:
    """Train a model, new or existing, on the lives of scripted teachers or on recorded lives."""
    from codots.cli.watch import run_training
    from codots.config.imitate import ImitateConfig
    from codots.config.load import load_recipe

    config = load_recipe(ImitateConfig, recipe, [*(changes or []), *_as_changes(base=base)])
    if dry_run:
        return _imitation_dry_run(config)
    _say_the_end(config, run_training(config, resume=resume))


def _imitation_dry_run(config: ImitateConfig) -> None:
    from codots.core.yaml_text import write_yaml
    from codots.runs.loggers import check_loggers
    from codots.training.imitate import prepare

    check_loggers(config.loggers)
    prepared = prepare(config)
    typer.echo(write_yaml(config.to_dict()).rstrip())
    for number, (stage, lessons) in enumerate(zip(config.stages, prepared.lessons, strict=True), start=1):
        what = f"of {len(lessons.recorded)} recorded" if stage.recorded else "of teachers"
        typer.echo(f"# stage {number}: {stage.steps} steps of {len(lessons.jobs(1))} lives {what}")
    typer.echo(f"# {config.steps} steps from {config.model or 'a new model'}; nothing was run")


@app.command("eval")
def run_evaluation(
    model: Annotated[
        str,
        typer.Argument(
            help="Model folder, run folder, LoRA adapter, org/name on the Hugging Face hub, base (the bundled tiny "
            "model) or openai:NAME; or a file of settings, such as eval.yaml; or a suite."
        ),
    ],
    changes: Settings = None,
    base: Base = None,
    of: Annotated[str | None, typer.Option("--model", help="Model that a suite measures.", show_default=False)] = None,
    every: Annotated[
        bool, typer.Option("--every-checkpoint", help="Measure the start and every checkpoint of a run with a suite.")
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder of a suite's results; the default is MODEL/suites/NAME.", show_default=False),
    ] = None,
    as_json: AsJson = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print how many requests and tokens are ahead, without sending anything.")
    ] = False,
) -> None:
    """Evaluate a model: mean reward by position for every arm, all on the same packs."""
    from codots.cli.display import counting, report_table
    from codots.config.evaluate import EvalConfig
    from codots.config.load import load_recipe, settings
    from codots.config.suite import is_suite
    from codots.evaluation.evaluate import as_json as plain
    from codots.evaluation.evaluate import evaluate

    changes = [*(changes or []), *_as_changes(base=base)]
    if model.endswith((".yaml", ".yml")) and is_suite(Path(model)):
        return run_a_suite(Path(model), of, changes, every, out, as_json)
    if of or every or out:
        raise typer.BadParameter(f"--model, --every-checkpoint and --out are for suites; {model} is none")
    if model.endswith((".yaml", ".yml")):
        config = load_recipe(EvalConfig, Path(model), changes)
    else:
        config = settings(EvalConfig, {"model": model}, changes, "eval")
    if dry_run:
        return _forecast(config, as_json)
    with counting("rolling out") as on_progress:
        report = evaluate(config, on_progress=on_progress)
    if as_json:
        typer.echo(json.dumps(plain(report), indent=2))
    else:
        show(report_table(report))
    if any(arm.missing == config.packs for arm in report.arms.values()):
        raise typer.Exit(1)


def run_a_suite(
    path: Path, model: str | None, changes: list[str], every: bool, out: Path | None, as_json: bool
) -> None:
    """Run a suite, and print and write its tables."""
    from codots.cli.display import counting, suite_tables
    from codots.config.suite import load_suite
    from codots.evaluation.suites import Subject, every_checkpoint, plain, run_suite
    from codots.report.suite import write_suite_page

    if model is None:
        raise typer.BadParameter(f"{path} is a suite; expected --model MODEL")
    suite, folder = load_suite(path, model, changes), Path(model)
    subjects = every_checkpoint(folder) if every else [Subject(model)]
    out = out or (folder if folder.is_dir() else Path("runs")) / "suites" / path.stem
    with counting("rolling out") as on_progress:
        found = run_suite(
            suite, model, subjects, out, lambda name: lambda arm, *done: on_progress(f"{name} {arm}", *done)
        )
    page = write_suite_page(found, out / "report.html")
    if as_json:
        return typer.echo(json.dumps(plain(found), indent=2))
    for table in suite_tables(found):
        show(table)
    typer.echo(f"rows, reports and {page.name} are in {out}")


def _forecast(config: EvalConfig, as_json: bool) -> None:
    from codots.evaluation.forecast import budget_of, forecast, total

    sums = total(forecast(config), budget_of(config))
    if as_json:
        return typer.echo(json.dumps(sums, indent=2))
    for row in (*sums["arms"], {"arm": "total", **sums}):
        lives = f"{row['lives']} lives, " if "lives" in row else ""
        prompt, reply = ("{:,} to {:,}".format(*row[name]) for name in ("prompt_tokens", "completion_tokens"))
        typer.echo(f"{row['arm']}: {lives}{row['requests']:,} requests, {prompt} prompt tokens, {reply} reply tokens")
    if config.price_in is not None or config.price_out is not None:
        typer.echo("cost: {:.4g} to {:.4g}".format(*sums["cost"]))
    typer.echo(
        "# estimated with scripted policies: with their replies, and with replies of maximum length; nothing was sent"
    )


@app.command("rescore")
def run_rescoring(
    path: Annotated[
        Path, typer.Argument(metavar="RUN|ROWS", help="Run folder, or file of recorded rows, such as of `codots eval`.")
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            help="New file or folder; the default is ROWS with the suffix .rescored.jsonl, or RUN/rescored.",
            show_default=False,
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Compute rewards and arms anew from recorded rows, after a domain or a parser has changed, without sampling."""
    from codots.cli.display import changes_table, counting, report_table
    from codots.evaluation.rescored import changes_of_steps, named_report, plain, rescore_file, rescore_run

    with counting("re-scoring", together=True) as on_progress:
        if path.is_dir():
            found, written = rescore_run(path, out, on_progress=on_progress)
        else:
            one, written = rescore_file(path, out, on_progress=on_progress)
            found = [one]
    folder = path if path.is_dir() else path.parent
    evaluations, steps = [one for one in found if one.head is not None], changes_of_steps(found)
    reports = [named_report(one, folder) for one in evaluations]
    if as_json:
        values = {one.path.name: plain(one, folder) for one in found}
        typer.echo(json.dumps(values if path.is_dir() else values[path.name], indent=2))
    else:
        for one, report in zip(evaluations, reports, strict=True):
            show(report_table(report))
            show(changes_table(f"{one.path.name}: tasks re-scored, mean reward recorded -> now", one.changes))
        if steps:
            show(changes_table("training: tasks re-scored, mean reward recorded -> now", steps))
        typer.echo(f"the new rows are in {written}")
    for one in found:
        _say_what_is_left(one.path.name, one.changes)
    if any(arm.missing == report.n_packs for report in reports for arm in report.arms.values()):
        raise typer.Exit(1)


def _say_what_is_left(name: str, changes: dict[str, Change]) -> None:
    """Print how many tasks of a file diverged or are missing, and why the first one is."""
    words = {"diverged": "diverged; sample again", "missing": "could not be re-scored"}
    for arm, change in changes.items():
        for stop, why in change.why.items():
            line = f"{name}, {arm}: {getattr(change, stop)} tasks {words[stop]}; the first at {why}"
            typer.echo(line, err=True)
    if any(change.why for change in changes.values()):
        typer.echo(f"{name}: all means are over the other tasks, which are not a random sample", err=True)


@app.command("demo")
def run_demo(
    recipe: Recipe,
    changes: Changes = None,
    packs: Packs = 500,
    resume: Resume = False,
) -> None:
    """Run the demo: train a model, evaluate it before and after, and write a report."""
    from codots.config.load import load_recipe
    from codots.config.schema import TrainConfig
    from codots.engine.forkserver import model_processes

    config = load_recipe(TrainConfig, recipe, changes)
    if config.workers > 1:
        model_processes()  # worker processes import in parallel with this one
    from codots.cli.demo import demo
    from codots.cli.display import report_table

    result = demo(config, packs=packs, resume=resume)
    if result is None:
        typer.echo("stopped in training, saved; run the same command with --resume to continue", err=True)
        raise typer.Exit(130)
    for report in (result.before, result.after):
        show(report_table(report))
    typer.echo(f"took {sum(result.seconds.values()):.0f} s; open {result.page}")

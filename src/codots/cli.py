"""The command line: every command is a thin door to a function of the package."""

from __future__ import annotations

import json
import sys
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from codots.completion import arms, checked_split, completing, domains, keys, presets

if TYPE_CHECKING:
    from codots.config import TrainConfig

app = typer.Typer(
    name="codots",
    help="Connect the Dots: agents that get better the longer they live in a world.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)

Recipe = Annotated[Path, typer.Argument(help="A recipe, such as recipes/lake.yaml.")]
Changes = Annotated[
    list[str] | None,
    typer.Argument(help="Changes to it: key=value ...", show_default=False, autocompletion=completing(keys)),
]
Id = Annotated[str, typer.Argument(metavar="ID", help="Versioned id of a domain.", autocompletion=completing(domains))]
DomainId = Annotated[
    str, typer.Option("--domain", help="Versioned id of a domain.", autocompletion=completing(domains))
]
Preset = Annotated[str, typer.Option(help="Preset of the domain.", autocompletion=completing(presets))]
Packs = Annotated[int, typer.Option(min=2, help="Number of packs; 500 for a claim.")]
Size = Annotated[int, typer.Option(min=1, help="Tasks in a pack.")]
Split = Annotated[
    str,
    typer.Option(
        help="Which packs: train, dev, test, or any held-out name.",
        callback=checked_split,
        autocompletion=completing(lambda: ("train", "dev", "test")),
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON alone on stdout.")]
Workers = Annotated[int, typer.Option(min=1, help="Processes, one a core.")]


@app.command()
def train(
    recipe: Recipe,
    changes: Changes = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the run's last checkpoint.")] = False,
    origin: Annotated[
        str | None, typer.Option("--from", help="Start from a run or one of its checkpoints: the same as fork=...")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check the recipe, print it in full, run nothing.")
    ] = False,
) -> None:
    """Train a model by a recipe."""
    from codots.config import TrainConfig, load_recipe
    from codots.display import run_training

    forked = [] if origin is None else [f"fork={json.dumps(origin)}"]
    config = load_recipe(TrainConfig, recipe, [*(changes or []), *forked])
    if dry_run:
        return _dry_run(config)
    stopped = run_training(config, resume=resume)
    if stopped is not None:
        typer.echo(f"stopped after step {stopped}, saved; the same command with --resume goes on", err=True)
        raise typer.Exit(130)
    typer.echo(f"the model is in {config.run}/model, the run in {config.run}{_best(config)}")


def _best(config: TrainConfig) -> str:
    from codots.checkpoint import best_checkpoint, dev_of

    best = best_checkpoint(Path(config.run))
    return f", the best on dev, {dev_of(best):.3f}, in {best}" if best else ""


def _dry_run(config: TrainConfig) -> None:
    import yaml

    from codots.checkpoint import fork_point
    from codots.metrics import check_loggers
    from codots.model import load_profile, model_folder

    check_loggers(config.loggers)
    folder = model_folder(fork_point(config.fork)[0] if config.fork else config.model)
    profile = load_profile(folder).fits(config.domain)
    typer.echo(yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False).rstrip())
    lives = config.packs * config.group
    episodes = lives * (2 * config.size - 1 if config.contexts == "own" else config.size)
    typer.echo(f"# a step: {config.packs} packs x {config.group} lives = {lives} lives, {episodes} episodes")
    typer.echo(f"# {config.steps} steps from {folder.name!r} in style {profile.style!r}; nothing was run")


@app.command()
def pretrain(recipe: Recipe, changes: Changes = None) -> None:
    """Make a tiny base model from nothing by imitation."""
    from codots.config import PretrainConfig, load_recipe
    from codots.display import counting
    from codots.pretrain import pretrain

    config = load_recipe(PretrainConfig, recipe, changes)
    with counting("imitating, stage") as told:
        for report in pretrain(config):
            told(f"{report.stage}", report.step, report.steps)
    typer.echo(f"the model is in {config.run}/model")


@app.command("eval")
def evaluate(
    model: Annotated[str, typer.Argument(help="A model folder, a run, or base.")],
    domain: DomainId = "frozen-lake-v1",
    preset: Preset = "easy",
    split: Split = "dev",
    packs: Packs = 100,
    size: Size = 4,
    arms: Annotated[
        str, typer.Option(help="Whose contexts: own,null,shuffled,frozen,oracle.", autocompletion=completing(arms))
    ] = "own,null",
    writer: Annotated[str | None, typer.Option(help="A model whose contexts this one reads.")] = None,
    seed: Annotated[int, typer.Option(help="Of the sampling.")] = 0,
    temperature: Annotated[float, typer.Option(min=0, help="Of the sampling; 0 is greedy.")] = 1.0,
    workers: Workers = 2,
    patience: Annotated[float, typer.Option(min=1, help="Seconds that 100 packs may take.")] = 3600.0,
    rows: Annotated[
        Path | None, typer.Option(help="One JSON line per episode; a stopped evaluation goes on from it.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Measure a model: position curves of every arm on the same packs."""
    from codots.display import counting, report_table
    from codots.evaluate import as_json as plain
    from codots.evaluate import evaluate

    with counting("living") as told:
        report = evaluate(
            model,
            domain=domain,
            preset=preset,
            split=split,
            packs=packs,
            size=size,
            arms=tuple(filter(None, arms.split(","))),
            writer=writer,
            seed=seed,
            temperature=temperature,
            workers=workers,
            rows=rows,
            patience=patience,
            told=told,
        )
    if as_json:
        typer.echo(json.dumps(plain(report), indent=2))
    else:
        _show(report_table(report))


@app.command()
def reference(
    id: Id,
    preset: Preset = "easy",
    packs: Packs = 500,
    size: Size = 4,
    split: Split = "dev",
    as_json: AsJson = False,
) -> None:
    """Play scripted policies: what chance, the best honest player and one who knows the world reach."""
    from codots.display import plain_table
    from codots.evaluate import POLICIES, reference

    found = reference(id, preset=preset, packs=packs, size=size, split=split)
    if as_json:
        typer.echo(json.dumps(found, indent=2))
    else:
        exact = "exact" if found["exact"] else "a scripted learner"
        _show(plain_table(f"{id} {preset} {split}, {packs} packs; bayes is {exact}", {n: found[n] for n in POLICIES}))


@app.command()
def play(
    id: Id,
    preset: Preset = "easy",
    split: Split = "dev",
    index: Annotated[int, typer.Option(min=0, help="Which pack.")] = 0,
    size: Size = 4,
) -> None:
    """Live a life yourself: solve the tasks, and write your own notes between them."""
    from codots.domain import make_pack

    pack = make_pack(id, preset, split, index, size)
    memory, rewards, notes = pack.domain.make_memory(pack.world), [], ""
    for task in pack.tasks:
        typer.echo(f"\n=== task {task.position + 1} of {size}\n{pack.domain.rules_text(task, 'natural')}\n")
        typer.echo(f"your notes: {notes or 'none'}\n")
        env = task.env(style="natural", memory=memory)
        typer.echo(env.observe())
        while True:
            step = env.step(_reply())
            if step.done:
                break
            typer.echo(step.observation)
        rewards.append(step.reward)
        typer.echo(f"{step.observation}\n{step.feedback} reward {step.reward:.2f}")
        if task.position + 1 < size:
            notes = typer.prompt("notes for the next task", default=notes, show_default=False)
    typer.echo("\nrewards: " + " ".join(f"{reward:.2f}" for reward in rewards))


def _reply() -> str:
    """A bare word is taken for an action."""
    text = str(typer.prompt(">", prompt_suffix=" "))
    return text if "<" in text else f"<action>{text}</action>"


@app.command()
def demo(
    recipe: Recipe,
    changes: Changes = None,
    packs: Packs = 500,
) -> None:
    """Watch a tiny model learn to learn: measure, train, measure again, and write a report."""
    from codots.config import TrainConfig, load_recipe
    from codots.demo import demo
    from codots.display import report_table

    shown = demo(load_recipe(TrainConfig, recipe, changes), packs=packs)
    if shown is None:
        typer.echo("stopped before the end; the demo starts again from the beginning", err=True)
        raise typer.Exit(130)
    for report in (shown.before, shown.after):
        _show(report_table(report))
    typer.echo(f"took {sum(shown.seconds.values()):.0f} s; look at {shown.page}")


@app.command()
def report(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN [RUN...]", help="Run folders.")],
    out: Annotated[
        Path | None,
        typer.Option(help="The page; RUN/report.html by default, of several runs report.html.", show_default=False),
    ] = None,
    figures: Annotated[
        bool, typer.Option("--figures", help="Also write each figure as SVG and PNG, into figures/ beside the page.")
    ] = False,
) -> None:
    """Write one page about runs that opens anywhere: the curves, and every recorded life to read."""
    from codots.report.page import REPORT, write_report

    page = out or (runs[0] / REPORT if len(runs) == 1 else Path(REPORT))
    written = write_report(runs, page, with_figures=figures)
    typer.echo(
        f"look at {page}" + (f", and {len(written) - 1} figures in {page.parent / 'figures'}" if figures else "")
    )


@app.command()
def view(
    runs: Annotated[Path, typer.Argument(metavar="RUNS", help="A folder of runs, or one run.")],
    port: Annotated[int, typer.Option(min=0, max=65535, help="Of 127.0.0.1; 0 takes a free one.")] = 8642,
) -> None:
    """Serve the reports of many runs to this machine's browser, fresh while a training goes on; Ctrl-C ends it."""
    from codots.report.view import serve

    with serve(runs, port) as server:
        typer.echo(f"look at http://127.0.0.1:{server.server_port}/ ; Ctrl-C ends it")
        server.serve_forever()


@app.command()
def doctor(
    recipe: Annotated[Path | None, typer.Argument(help="A recipe, to check this machine for it.")] = None,
    changes: Changes = None,
    as_json: AsJson = False,
) -> None:
    """Check this machine: threads, torch, device, disk, model; says what to change, and ends with 1 if it must be."""
    from codots import doctor
    from codots.config import TrainConfig, load_recipe
    from codots.display import findings_table

    findings = doctor.examine(load_recipe(TrainConfig, recipe, changes) if recipe else TrainConfig.model_validate({}))
    if as_json:
        typer.echo(doctor.as_json(findings))
    else:
        _show(findings_table(findings))
    if any(found.must for found in findings):
        raise typer.Exit(1)


def _show(what: Any) -> None:
    from rich.console import Console

    Console(width=None if sys.stdout.isatty() else 140).print(what)


@app.callback(invoke_without_command=True)
def _options(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        from codots import __version__

        typer.echo(f"codots {__version__}")
        raise typer.Exit


def main() -> None:
    """Run a command; what goes wrong is one line on stderr.

    The exit code is 2 for what cannot be done, 1 for a run that stopped itself or input that ended early, 130 for
    Ctrl-C.
    """
    try:
        code = app(prog_name="codots", standalone_mode=False)
    except KeyboardInterrupt:
        _fail("stopped", 130)
    except typer.Abort:
        _fail("stopped: the input ended", 1)
    except (ArithmeticError, TimeoutError) as error:
        _fail(str(error), 1)
    except Exception as error:
        if type(error).__name__ == "NoArgsIsHelpError":
            error.show()  # type: ignore[attr-defined]
            sys.exit(2)
        _fail(_usage(error) or str(error) or type(error).__name__, 2)
    sys.exit(code if isinstance(code, int) else 0)


def _usage(error: Exception) -> str:
    """Word wrong usage, which typer would draw a box around; nothing for any other error."""
    if not hasattr(error, "format_message"):
        return ""
    where = getattr(getattr(error, "ctx", None), "command_path", "codots")
    return f"{str(error.format_message()).rstrip('.')}{_given(error)}; see {where} --help"


def _given(error: Exception) -> str:
    """What a wrong option was given, which typer does not say."""
    options = getattr(getattr(error, "param", None), "opts", ())
    said = [word.partition("=")[::2] if "=" in word else (word, after) for word, after in pairwise([*sys.argv, ""])]
    return next((f", got {value!r}" for option, value in said if option in options), "")


def _fail(line: str, code: int) -> NoReturn:
    from codots.redact import without_secrets

    typer.echo(f"codots: {without_secrets(' '.join(line.split()))}", err=True)
    sys.exit(code)

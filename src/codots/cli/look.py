"""Commands for reports of runs and checks of the machine: report, card, view, estimate, doctor."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from codots.cli.app import AsJson, Changes, Recipe, app, expanded, show


@app.command()
def report(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN [RUN...]", help="Run folders, or folders of one suite.")],
    out: Annotated[
        Path | None,
        typer.Option(
            help="File to write; the default is RUN/report.html for one run, report.html for several, matrix.html for "
            "suites.",
            callback=expanded,
            show_default=False,
        ),
    ] = None,
    figures: Annotated[
        bool, typer.Option("--figures", help="Also write each figure as SVG and PNG to figures/ next to the report.")
    ] = False,
) -> None:
    """Write a self-contained HTML report: the curves and the recorded lives (a sample of them for a long run).

    For several folders with results of a suite, write the transfer matrix: the lift of each model in each evaluation.
    """
    from codots.report.matrix import MATRIX, is_suite_result, write_matrix
    from codots.report.page import REPORT, write_report

    if len(runs) > 1 and any(map(is_suite_result, runs)):
        if figures:
            raise typer.BadParameter("--figures is for runs; a matrix of suites has none")
        return typer.echo(f"open {write_matrix(runs, out or Path(MATRIX))}")
    page = out or (runs[0] / REPORT if len(runs) == 1 else Path(REPORT))
    written = write_report(runs, page, with_figures=figures)
    typer.echo(f"open {page}" + (f", and {len(written) - 1} figures in {page.parent / 'figures'}" if figures else ""))


@app.command()
def card(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Run folder with evaluations.")],
    out: Annotated[
        Path | None, typer.Option(help="File to write; the default is to print.", callback=expanded, show_default=False)
    ] = None,
) -> None:
    """Write the section of a model card: what a run's model can do, with intervals, and how it was made."""
    from codots.core.files import writable, write_atomically
    from codots.report.card import model_card

    text = model_card(run)
    if out is None:
        return typer.echo(text.rstrip())
    writable(out)
    write_atomically(out, text)
    typer.echo(f"wrote {out}")


@app.command()
def view(
    runs: Annotated[Path, typer.Argument(metavar="RUNS", help="Folder of runs, or one run.")],
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port on 127.0.0.1; 0 uses any free port.")] = 8642,
) -> None:
    """Serve the reports of many runs to a browser on this machine, updated during training; stop with Ctrl-C."""
    from codots.report.view import serve

    with serve(runs, port) as server:
        typer.echo(f"open http://127.0.0.1:{server.server_port}/ ; stop with Ctrl-C")
        server.serve_forever()


@app.command("estimate")
def run_estimate(
    recipe: Recipe,
    changes: Changes = None,
    gib: Annotated[
        float | None,
        typer.Option("--memory", min=1, help="Estimate only the memory, for another GPU with this many GiB."),
    ] = None,
    gpu: Annotated[
        str | None, typer.Option("--gpu", help="Estimate for GPUs of this kind, such as h200, by arithmetic.")
    ] = None,
    gpus: Annotated[int, typer.Option("--gpus", min=1, help="Number of GPUs there, with --gpu.")] = 1,
    as_json: AsJson = False,
) -> None:
    """Estimate the memory and time of a recipe on this machine or on GPUs; exit with code 2 if it does not fit."""
    from dataclasses import asdict

    from codots.cli.display import estimate_table
    from codots.config.load import load_recipe
    from codots.config.schema import TrainConfig
    from codots.preflight.estimate import estimate
    from codots.preflight.gpus import check_count, known_gpu
    from codots.preflight.memory import GIB

    if gpu is None and gpus != 1:
        raise ValueError(f"--gpus {gpus} needs --gpu, such as --gpu h200")
    if gpu is not None and gib is not None:
        raise ValueError("--memory is for a device that --gpu does not know; expected one of them")
    config, known = load_recipe(TrainConfig, recipe, changes), known_gpu(gpu) if gpu else None
    if known:
        check_count(config, gpus)
    found = estimate(config, gib, known)
    if as_json:
        typer.echo(json.dumps(asdict(found) | {"fits": found.fits}, indent=2))
    else:
        show(estimate_table(found, gpu))
    if not found.fits:
        hint = f"it would fit with {' '.join(found.changes)}" if found.changes else "no known change makes it fit"
        available = f"{found.there / GIB:.1f} GiB of {gpu or found.place.device}"
        raise ValueError(f"{recipe} needs {found.needed / GIB:.1f} GiB and does not fit into {available}; {hint}")


@app.command("doctor")
def run_doctor(
    recipe: Annotated[Path | None, typer.Argument(help="Recipe file that the machine is checked for.")] = None,
    changes: Changes = None,
    as_json: AsJson = False,
) -> None:
    """Check threads, torch, device, disk and model; exit with code 1 if something must be changed."""
    from codots.cli.display import findings_table
    from codots.config.load import load_recipe
    from codots.config.schema import TrainConfig
    from codots.preflight import doctor

    findings = doctor.examine(load_recipe(TrainConfig, recipe, changes) if recipe else TrainConfig.model_validate({}))
    if as_json:
        typer.echo(doctor.as_json(findings))
    else:
        show(findings_table(findings))
    if any(found.must for found in findings):
        raise typer.Exit(1)

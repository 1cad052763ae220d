"""Commands that look at runs, and at the machine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from codots.cli.app import AsJson, Changes, Recipe, app, show


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


@app.command("estimate")
def run_estimate(
    recipe: Recipe,
    changes: Changes = None,
    gib: Annotated[
        float | None, typer.Option("--memory", min=1, help="Memory alone, of a GPU elsewhere that has so many GiB.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Forecast what a recipe takes of this machine, memory and time; ends with 2 if it cannot fit."""
    from dataclasses import asdict

    from codots.cli.display import forecast_table
    from codots.config.load import load_recipe
    from codots.config.schema import TrainConfig
    from codots.preflight.estimate import GIB, forecast

    found = forecast(load_recipe(TrainConfig, recipe, changes), gib)
    if as_json:
        typer.echo(json.dumps(asdict(found) | {"fits": found.fits}, indent=2))
    else:
        show(forecast_table(found))
    if not found.fits:
        would = f"it would with {' '.join(found.changes)}" if found.changes else "no change that is known here helps"
        there = f"{found.there / GIB:.1f} GiB of {found.place.device}"
        raise ValueError(f"{recipe} takes {found.needed / GIB:.1f} GiB and does not fit into {there}; {would}")


@app.command("doctor")
def run_doctor(
    recipe: Annotated[Path | None, typer.Argument(help="A recipe, to check this machine for it.")] = None,
    changes: Changes = None,
    as_json: AsJson = False,
) -> None:
    """Check this machine: threads, torch, device, disk, model; says what to change, and ends with 1 if it must be."""
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

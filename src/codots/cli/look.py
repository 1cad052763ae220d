"""Commands that look at runs, and at the machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from codots.cli.app import AsJson, Changes, app, show


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
        show(findings_table(findings))
    if any(found.must for found in findings):
        raise typer.Exit(1)

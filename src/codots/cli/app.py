"""The Typer application, the arguments and options that commands share, and table output."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from codots.cli.shell_completion import (
    changing,
    checked_split,
    completing,
    domains,
    found_domain,
    keys,
    presets,
    settings,
    splits,
)
from codots.core.processes import StopSignal
from codots.core.renamed import COMMANDS


class StoppedError(Exception):
    """The command was stopped by Ctrl-C or another stop signal."""

    def __init__(self, exit_code: int) -> None:
        super().__init__("stopped")
        self.exit_code = exit_code


class Commands(TyperGroup):
    """Command group that distinguishes Ctrl-C from the end of input, and reports the new name of a renamed command."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Return the command. If it has been renamed since an earlier version, fail with its new name."""
        if args and args[0] in COMMANDS:
            ctx.fail(f"{args[0]} is now called {COMMANDS[args[0]]}")
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        """Run the command. Raises StoppedError on a stop signal and Abort if the input ends."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as error:
            raise StoppedError(error.exit_code if isinstance(error, StopSignal) else 130) from None
        except EOFError:
            raise typer.Abort from None


app = typer.Typer(
    cls=Commands,
    name="codots",
    help="Connect the Dots: train and evaluate agents that learn across the tasks of one world.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


def expanded(path: Path | None) -> Path | None:
    """Expand `~` in the value of an option; shells do so only at the start of a word, so not in `--out=~/mine`."""
    return path and path.expanduser()


Recipe = Annotated[Path, typer.Argument(help="Recipe file, such as recipes/lake.yaml.")]
Changes = Annotated[
    list[str] | None,
    typer.Argument(help="Changes to the recipe: key=value ...", show_default=False, autocompletion=changing(keys)),
]
Settings = Annotated[
    list[str] | None,
    typer.Argument(
        help="Settings that differ from the defaults (codots config --eval): key=value ...",
        show_default=False,
        autocompletion=changing(settings),
    ),
]
Id = Annotated[
    str,
    typer.Argument(
        metavar="ID",
        help="Versioned id of a domain, or module:Class.",
        autocompletion=completing(domains),
        callback=found_domain,
    ),
]
SomePreset = Annotated[
    str | None,
    typer.Option(
        "--preset",
        help="Preset of the domain; the default is `easy` if the domain has it, otherwise its first preset.",
        autocompletion=completing(presets),
    ),
]
Packs = Annotated[int, typer.Option(min=2, help="Number of packs; use 500 for reported results.")]
Size = Annotated[int, typer.Option("--pack-size", min=1, help="Number of tasks in a pack.")]
Split = Annotated[
    str,
    typer.Option(
        help="Split of the packs: train, dev, test, or any other held-out name.",
        callback=checked_split,
        autocompletion=completing(splits),
    ),
]
Base = Annotated[
    str | None,
    typer.Option(
        "--base", help="Base of a LoRA adapter, instead of the one that the adapter names.", show_default=False
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print only JSON to stdout.")]
Workers = Annotated[int, typer.Option(min=1, help="Number of processes, one per core.")]


@app.callback(invoke_without_command=True)
def _options(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        from codots import __version__

        typer.echo(f"codots {__version__}")
        raise typer.Exit


def show(table: Any) -> None:
    """Print a table. If stdout is not a terminal, the width is 140 columns, so that the output is equal everywhere."""
    from rich.console import Console

    Console(width=None if sys.stdout.isatty() else 140).print(table)

"""Commands for contexts that the guard holds back: list, show, adopt, drop."""

from __future__ import annotations

import json
import unicodedata
from typing import Annotated

import typer

from codots.cli.app import AsJson, show
from codots.cli.contexts import STORE, Number, Where, World, context, opened

quarantine = typer.Typer(no_args_is_help=True, help="Decide on contexts that the guard holds back.")
context.add_typer(quarantine, name="quarantine")


@quarantine.command("list")
def run_list(
    world: Annotated[str | None, typer.Argument(help="One world, instead of all.")] = None,
    decided: Annotated[bool, typer.Option("--decided", help="List those that were adopted or dropped, too.")] = False,
    store: Where = STORE,
    as_json: AsJson = False,
) -> None:
    """List the contexts that wait for a decision, with the reasons."""
    from rich.markup import escape
    from rich.table import Table

    from codots.agent.quarantine import list_held
    from codots.agent.records import as_json as plain

    with opened(store) as found:
        names = [world] if world is not None else [one.name for one in found.worlds()]
        rows = [{"world": name} | plain(held) for name in names for held in list_held(found, name, decided)]
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
        return
    if not rows:
        typer.echo("nothing is held back")
        return
    table = Table("world", "version", "task", "reason", "passage", "held back", "decision")
    for row in rows:
        texts = (row["source"], row["reason"], visible(row["passage"])[:200], row["created"], row["decision"] or "")
        table.add_row(row["world"], str(row["number"]), *map(escape, texts))
    show(table)


@quarantine.command("show")
def run_show(world: World, version: Number, store: Where = STORE) -> None:
    """Print what would change, line by line, with invisible characters as their codes."""
    from codots.agent.quarantine import read_held
    from codots.agent.records import diff_texts

    with opened(store) as found:
        held, head = read_held(found, world, version), found.head(world)
    typer.echo(f"{held.source}: {held.reason}")
    names = (f"version {head.number}", f"held back in version {version}")
    typer.echo(visible(diff_texts(head.context, held.context, *names)))


@quarantine.command("adopt")
def run_adopt(
    world: World,
    version: Number,
    replace: Annotated[
        bool, typer.Option("--replace", help="Adopt it even if the context has changed since it was held back.")
    ] = False,
    store: Where = STORE,
) -> None:
    """Make a context that was held back the newest version."""
    from codots.agent.quarantine import adopt

    with opened(store) as found:
        new = adopt(found, world, version, replace)
    typer.echo(f"{world}: version {new.number} has the context that was held back in version {version}")


@quarantine.command("drop")
def run_drop(world: World, version: Number, store: Where = STORE) -> None:
    """Decide that a context which was held back stays out."""
    from codots.agent.quarantine import drop

    with opened(store) as found:
        drop(found, world, version)
    typer.echo(f"{world}: the context that was held back in version {version} is dropped")


def visible(text: str) -> str:
    """Return a text for a terminal: characters that control it, or that cannot be seen, as their codes."""
    return "".join(
        c if c in "\n\t" or unicodedata.category(c) not in ("Cc", "Cf", "Co", "Cs", "Zl", "Zp") else f"\\u{ord(c):04x}"
        for c in text
    )

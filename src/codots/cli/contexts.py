"""Commands for contexts in a store: list, show, diff, blame, rollback, lift, export, import, prune, forget, backup."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from codots.cli.app import AsJson, app, expanded, show

if TYPE_CHECKING:
    from rich.table import Table

    from codots.agent.store import Store

context = typer.Typer(no_args_is_help=True, help="Read and change the contexts in the store of an agent.")
app.add_typer(context, name="context")

Where = Annotated[str, typer.Option("--store", help="File of the store, or postgresql://user@host/database.")]
World = Annotated[str, typer.Argument(help="Name of a world in the store.")]
Number = Annotated[int, typer.Argument(min=0, help="Number of a version.")]
STORE = "agent.db"


@contextmanager
def opened(where: str) -> Iterator[Store]:
    """Open a store that exists."""
    from codots.agent.store import Store

    with Store(where, create=False) as store:
        yield store


@context.command("list")
def run_list(
    world: Annotated[str | None, typer.Argument(help="World whose versions are listed, instead of all worlds.")] = None,
    store: Where = STORE,
    as_json: AsJson = False,
) -> None:
    """List the worlds of a store, or the versions of one world."""
    from codots.agent.records import as_json as plain

    with opened(store) as found:
        if world is None:
            rows = [plain(w) | {"head": plain(found.head(w.name))} for w in found.worlds()]
            table = _worlds_table
        else:
            rows = [plain(version) for version in found.history(world)]
            table = _versions_table
    if as_json:
        typer.echo(json.dumps(rows, indent=2, ensure_ascii=False))
    else:
        show(table(rows))


@context.command("show")
def run_show(
    world: World,
    version: Annotated[int | None, typer.Option(min=0, help="Version; the default is the newest.")] = None,
    store: Where = STORE,
    as_json: AsJson = False,
) -> None:
    """Print a context."""
    from codots.agent.records import as_json as plain

    with opened(store) as found:
        chosen = found.head(world) if version is None else found.version(world, version)
    typer.echo(json.dumps(plain(chosen), indent=2, ensure_ascii=False) if as_json else chosen.context)


@context.command("diff")
def run_diff(world: World, a: Number, b: Number, store: Where = STORE) -> None:
    """Print the differences between two versions of a context, line by line."""
    from codots.agent.records import diff

    with opened(store) as found:
        typer.echo(diff(found.version(world, a), found.version(world, b)))


@context.command("blame")
def run_blame(
    world: World,
    version: Annotated[int | None, typer.Option(min=0, help="Version; the default is the newest.")] = None,
    store: Where = STORE,
    as_json: AsJson = False,
) -> None:
    """Print a context, each line with the version and the task that taught it."""
    from dataclasses import asdict

    from rich.markup import escape
    from rich.table import Table

    from codots.agent.blame import blame

    with opened(store) as found:
        lines = blame(found, world, version)
    if as_json:
        typer.echo(json.dumps(list(map(asdict, lines)), indent=2, ensure_ascii=False))
        return
    table = Table("version", "cause", "from", "line")
    for line in lines:
        number = str(line.version) if line.certain else f"{line.version} or before"
        table.add_row(number, line.cause, *map(escape, (line.source, line.text)))
    show(table)


@context.command("rollback")
def run_rollback(world: World, version: Number, store: Where = STORE) -> None:
    """Go back to an earlier version; it is added as the newest one, and no version is lost."""
    with opened(store) as found:
        new = found.rollback(world, version)
    typer.echo(f"{world}: version {new.number} has the context of version {version}")


@context.command("lift")
def run_lift(
    world: World,
    last: Annotated[int, typer.Option(min=1, help="Number of newest tasks that are compared.")] = 1000,
    store: Where = STORE,
    as_json: AsJson = False,
) -> None:
    """Say whether a context helps: rewards of tasks with it and without it (serve --null-share)."""
    from codots.agent.lift import lift_of

    with opened(store) as found:
        lift = lift_of(found, world, last)
    if as_json:
        typer.echo(json.dumps(lift.as_json(), indent=2))
        return
    if lift.blocks:
        show(_lift_table(lift.as_json()))
    typer.echo(lift.sentence)


@context.command("export")
def run_export(
    folder: Annotated[Path, typer.Argument(help="Folder to write to.", callback=expanded)], store: Where = STORE
) -> None:
    """Write the newest contexts to a folder of Markdown, one file a world."""
    from codots.agent.markdown import export_worlds

    with opened(store) as found:
        written = export_worlds(found, folder)
    typer.echo(f"wrote {len(written)} files to {folder}")
    for path in sorted(set(folder.glob("*.md")).difference(written)):
        typer.echo(f"{path.name} stays, and is of no world in this store")


@context.command("import")
def run_import(
    folder: Annotated[Path, typer.Argument(help="Folder of an export, edited or not.", callback=expanded)],
    store: Where = STORE,
) -> None:
    """Read a folder that export wrote; every context that differs becomes the newest version of its world."""
    from codots.agent.markdown import import_pages, read_pages
    from codots.agent.store import Store

    pages = read_pages(folder)
    with Store(store) as found:
        for world, version in import_pages(found, pages):
            typer.echo(f"{world}: {'unchanged' if version is None else f'version {version.number}'}")


@context.command("prune")
def run_prune(
    world: World,
    keep: Annotated[int, typer.Option(min=1, help="Number of newest versions that stay.")],
    store: Where = STORE,
) -> None:
    """Delete old versions, and the turns and transcripts of the tasks that they have learned from."""
    from codots.agent.retention import prune

    with opened(store) as found:
        versions, tasks, left = prune(found, world, keep)
    why = "; those that open tasks were given and those in quarantine stay" if left > keep else ""
    typer.echo(f"{world}: deleted {versions} versions and the turns of {tasks} tasks, {left} versions are left{why}")


@context.command("forget")
def run_forget(
    world: World,
    store: Where = STORE,
    yes: Annotated[
        bool, typer.Option("--yes", help="Delete it; without this, only say what would be deleted.")
    ] = False,
) -> None:
    """Delete a world for good: its contexts, tasks, rewards and transcripts."""
    from codots.agent.retention import forget

    with opened(store) as found:
        of = found.world(world)
        if not yes:
            versions = len(found.history(world))
            raise ValueError(f"this deletes {world} for good: {versions} versions and {of.tasks} tasks; give --yes")
        forget(found, world)
    typer.echo(f"{world} is forgotten")


@context.command("backup")
def run_backup(out: Annotated[Path, typer.Argument(help="New file.", callback=expanded)], store: Where = STORE) -> None:
    """Copy a store of SQLite while agents use it."""
    with opened(store) as found:
        found.backup(out)
    typer.echo(f"wrote {out}")


def _worlds_table(rows: list[dict[str, Any]]) -> Table:
    from rich.markup import escape
    from rich.table import Table

    table = Table("world", "version", "strategy", "characters", "tasks", "finished", "learned", "written")
    for row in rows:
        head = row["head"]
        counts = (len(head["context"]), row["tasks"], row["finished"], head["learned"])
        table.add_row(escape(row["name"]), str(head["number"]), head["strategy"], *map(str, counts), head["created"])
    return table


def _versions_table(rows: list[dict[str, Any]]) -> Table:
    """Return the table of versions. A version is marked if another model wrote it than that of the last update."""
    from rich.markup import escape
    from rich.table import Table

    newest = next((row["model"] for row in reversed(rows) if row["cause"] == "task"), "")
    table = Table("version", "cause", "from", "characters", "tokens", "model", "rejected or held back", "written")
    for row in rows:
        older = " (older)" if row["model"] and newest not in ("", row["model"]) else ""
        size = (len(row["context"]), "" if row["tokens"] is None else row["tokens"])
        texts = (row["cause"], row["source"], *map(str, size), row["model"] + older, row["failure"], row["created"])
        table.add_row(str(row["number"]), *map(escape, texts))
    return table


def _lift_table(lift: dict[str, Any]) -> Table:
    """Return the table of lift over time, with the mean of all tasks in the last row."""
    from rich.table import Table

    table = Table("tasks", "since", "with context", "mean", "without", "mean", "lift", "95% interval")
    for row in (*lift["blocks"], lift | {"began": ""}):
        arms = [row[arm] for arm in ("own", "null")]
        counts = [text for arm in arms for text in (str(arm["tasks"]), _figure(arm["mean"]))]
        interval = "" if row["interval"] is None else "{:+.3f} to {:+.3f}".format(*row["interval"])
        which = f"{row['first']}-{row['last']}" if "first" in row else "all"
        table.add_row(which, row["began"], *counts, _figure(row["lift"], "+"), interval)
    return table


def _figure(value: float | None, sign: str = "") -> str:
    return "" if value is None else f"{value:{sign}.3f}"

"""Commands for the API keys of a store: create, list, revoke."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from codots.cli.app import AsJson, app, show
from codots.cli.contexts import STORE, Where, opened

keys = typer.Typer(no_args_is_help=True, help="Make, list and revoke the API keys of `codots serve` and `codots mcp`.")
app.add_typer(keys, name="keys")

Name = Annotated[str, typer.Argument(help="Name of the key, as the audit log shows it.")]


@keys.command("create")
def run_create(
    name: Name,
    world: Annotated[
        list[str] | None, typer.Option("--world", help="World that the key may use; repeat it for more.")
    ] = None,
    read_only: Annotated[bool, typer.Option("--read-only", help="Refuse chats, tasks and rollbacks.")] = False,
    per_minute: Annotated[int | None, typer.Option(min=1, help="Maximum number of requests a minute.")] = None,
    store: Where = STORE,
) -> None:
    """Make a key for all worlds, or some, and print it; only its hash is stored, so it is shown once."""
    from codots.agent.keys import create_key
    from codots.agent.store import Store

    with Store(store) as found:
        text = create_key(found, name, world or (), not read_only, per_minute)
    typer.echo(text)
    typer.echo("keep it: it is not shown again; clients send it as Authorization: Bearer KEY", err=True)


@keys.command("list")
def run_list(store: Where = STORE, as_json: AsJson = False) -> None:
    """List the keys of a store with what they may do."""
    from rich.markup import escape
    from rich.table import Table

    from codots.agent.keys import list_keys
    from codots.agent.records import as_json as plain
    from codots.agent.records import when

    with opened(store) as found:
        known = list_keys(found)
    if as_json:
        rows = [plain(key) | {"revoked": key.revoked and when(key.revoked)} for key in known]
        typer.echo(json.dumps(rows, indent=2))
        return
    table = Table("key", "worlds", "may", "a minute", "created", "revoked")
    for key in known:
        worlds = "all" if key.worlds is None else ", ".join(key.worlds)
        times = (when(key.created), "" if key.revoked is None else when(key.revoked))
        table.add_row(key.name, escape(worlds), "write" if key.writes else "read", str(key.per_minute or ""), *times)
    show(table)


@keys.command("revoke")
def run_revoke(name: Name, store: Where = STORE) -> None:
    """Revoke a key; servers refuse it within 5 seconds."""
    from codots.agent.keys import revoke_key

    with opened(store) as found:
        revoke_key(found, name)
    typer.echo(f"{name} is revoked; servers refuse it within 5 seconds")

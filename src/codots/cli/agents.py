"""Commands of a deployed agent: serve, mcp."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from socket import socket
from typing import TYPE_CHECKING, Annotated

import typer

from codots.cli.app import Base, app, expanded
from codots.cli.contexts import STORE, Where

if TYPE_CHECKING:
    from codots.agent.model import ServedModel
    from codots.agent.serving import Terms

Served = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="Model folder, run folder, LoRA adapter, org/name on the Hugging Face hub, base (the bundled model) or "
        "openai:NAME, served at OPENAI_BASE_URL.",
    ),
]
DefaultWorld = Annotated[str, typer.Option("--world", help="World of requests that name none; made if it is new.")]
Host = Annotated[str, typer.Option(help="Address to listen at.")]
NullShare = Annotated[
    float, typer.Option(help="Fraction of tasks that get no context, to measure what contexts are worth.")
]
Guarded = Annotated[
    bool, typer.Option("--guard/--no-guard", help="Hold back contexts that look poisoned or broken, for a person.")
]
CertFile = Annotated[
    Path | None, typer.Option("--certfile", help="Certificate of TLS, with its chain.", callback=expanded)
]
KeyFile = Annotated[Path | None, typer.Option("--keyfile", help="Private key of --certfile.", callback=expanded)]
AuditFile = Annotated[
    Path | None,
    typer.Option("--audit-log", help="Audit log; by default STORE.audit.jsonl, if keys are used.", callback=expanded),
]
Heat = Annotated[float | None, typer.Option(min=0, help="Sampling temperature, instead of the profile's.")]


@app.command("serve")
def run_serve(
    model: Served,
    store: Where = STORE,
    world: DefaultWorld = "default",
    host: Host = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 uses any free port.")] = 8000,
    certfile: CertFile = None,
    keyfile: KeyFile = None,
    audit_log: AuditFile = None,
    null_share: NullShare = 0.0,
    guard: Guarded = True,
    temperature: Heat = None,
    base: Base = None,
) -> None:
    """Serve a model like OpenAI's API, with a context that outlives the chats; stop with Ctrl-C."""
    with needing("serve"):
        from codots.agent.guard import GUARD
        from codots.agent.server import make_app
        from codots.agent.serving import Terms, gateway, listening, serve

    options, terms = {"temperature": temperature, "base": base}, Terms(host, certfile, keyfile, audit_log)
    terms.check(store)
    opened = gateway(store, model, world, null_share, GUARD if guard else None, **options)
    with listening(host, port) as at, opened as service:
        typer.echo(f"serving {title(service.updater.model)} at {address(terms, at)}/v1 ; stop with Ctrl-C")
        serve(service, make_app(service), at, terms)


@app.command("mcp")
def run_mcp(
    model: Served,
    store: Where = STORE,
    world: DefaultWorld = "default",
    http: Annotated[bool, typer.Option("--http", help="Serve over HTTP instead of stdin and stdout.")] = False,
    host: Host = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port for --http; 0 uses any free port.")] = 8001,
    certfile: CertFile = None,
    keyfile: KeyFile = None,
    audit_log: AuditFile = None,
    null_share: NullShare = 0.0,
    guard: Guarded = True,
    temperature: Heat = None,
    base: Base = None,
) -> None:
    """Serve contexts as tools of the Model Context Protocol; MODEL only rewrites them after each task."""
    with needing("mcp"):
        from codots.agent.guard import GUARD
        from codots.agent.serving import Terms, gateway, listening, serve
        from codots.agent.tools import make_app, serve_stdio

    options, terms = {"temperature": temperature, "base": base}, Terms(host, certfile, keyfile, audit_log)
    opened = gateway(store, model, world, null_share, GUARD if guard else None, **options)
    if not http:
        with opened as service:
            return serve_stdio(service)
    terms.check(store)
    with listening(host, port) as at, opened as service:
        typer.echo(f"serving {title(service.updater.model)} at {address(terms, at)}/mcp ; stop with Ctrl-C")
        serve(service, make_app(service, host), at, terms)


@contextmanager
def needing(extra: str) -> Iterator[None]:
    """Raise ValueError, with what to install, if a package is missing."""
    try:
        yield
    except ModuleNotFoundError as error:
        package = str(error.name).partition(".")[0]
        raise ValueError(f"codots {extra} needs {package}: pip install 'codots[{extra}]'") from error


def title(model: ServedModel) -> str:
    """Return the name of a model with its address, or with a hash of its files."""
    endpoint = model.opened.endpoint
    return f"openai:{endpoint.name} ({endpoint.url})" if endpoint else model.name


def address(terms: Terms, at: socket) -> str:
    """Return the URL of a socket that listens."""
    host = f"[{terms.host}]" if ":" in terms.host else terms.host
    return f"{'https' if terms.certfile else 'http'}://{host}:{at.getsockname()[1]}"

"""Serve the reports of many runs on the loopback interface, rebuilt whenever a run changes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Lock
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlsplit

from codots.core.suggest import nearest
from codots.report.page import asset, build, hashed, headline, render, section
from codots.report.run import RunRecord, find_runs, read_run

HOST = "127.0.0.1"
CACHED_PAGES = 8
"""Maximum number of pages kept in memory."""
NEWS = "/news"
"""URL path of the stamp of runs, which pages poll to detect changes."""
Answer = tuple[HTTPStatus, str, str]
"""Status, content type and content."""


class Viewer:
    """Content of the report pages of all runs in a folder.

    A run is looked up by name among the runs that were found, so that no request can reach files outside of the folder.
    """

    def __init__(self, root: Path) -> None:
        if not root.is_dir():
            raise ValueError(f"no folder {root}; expected a folder with runs, such as runs")
        self.root, self.lock = root, Lock()
        self.pages: dict[tuple[str, ...], tuple[str, str]] = {}

    def answer(self, target: str) -> Answer:
        """Return the list of runs, the report page of runs, or the stamp of runs; for an invalid request, an error."""
        path, query = urlsplit(target).path, parse_qs(urlsplit(target).query)
        names = tuple(query.get("run", ()))
        routes: dict[str, Callable[[dict[str, Path]], Answer]] = {
            "/": self._overview,
            "/report": lambda found: self._page(names, [found[name] for name in names]),
            NEWS: lambda found: (HTTPStatus.OK, "text/plain", stamp([found[name] for name in names])),
        }
        if unquote(path) not in routes:
            return HTTPStatus.NOT_FOUND, "text/plain", "no such page; the runs are listed at /"
        found = find_runs(self.root)
        for name in names:
            if name not in found:
                return HTTPStatus.NOT_FOUND, "text/plain", nearest(name, list(found), "run")
        if path != "/" and not names:
            return HTTPStatus.BAD_REQUEST, "text/plain", "no run given; expected ?run=NAME"
        return routes[path](found)

    def _overview(self, found: dict[str, Path]) -> Answer:
        lines = [overview_line(name, folder) for name, folder in found.items()]
        parts = {"style": asset("page.css"), "script": asset("runs.js")}
        hashes = {f"{kind}_hash": hashed(text) for kind, text in parts.items()}
        text = render("runs.html.jinja", root=self.root.resolve().name, lines=lines, **parts, **hashes)
        return HTTPStatus.OK, "text/html", text

    def _page(self, names: tuple[str, ...], folders: Sequence[Path]) -> Answer:
        with self.lock:  # concurrent requests for a run build its page once
            now = stamp(folders)
            built, page = self.pages.pop(names, ("", ""))
            if built != now:
                page = build([section(read_run(folder)) for folder in folders], live=address(NEWS, names))
            self.pages[names] = now, page
            for oldest in list(self.pages)[:-CACHED_PAGES]:
                del self.pages[oldest]
        return HTTPStatus.OK, "text/html", page


def address(path: str, names: Sequence[str]) -> str:
    """Return a URL path with the names of runs as its query."""
    return f"{path}?{'&'.join(f'run={quote(name)}' for name in names)}"


def overview_line(name: str, folder: Path) -> dict[str, Any]:
    """Return one line of the list of runs. If the run cannot be read, `wrong` is the error message."""
    line: dict[str, Any] = {"name": name, "link": address("/report", [name]), "run": None, "head": None, "wrong": ""}
    try:
        run: RunRecord = read_run(folder)
        return line | {"run": run, "head": headline(run)}
    except Exception as error:
        return line | {"wrong": str(error)}


def stamp(folders: Sequence[Path]) -> str:
    """Return a hash that changes whenever a file changes that the report of these runs is built from."""
    files = [
        file for folder in folders for kind in ("*.json*", "*.yaml", "rollouts/*.jsonl") for file in folder.glob(kind)
    ]
    found = []
    for file in sorted(files):
        try:
            state = file.stat()
        except FileNotFoundError:  # deleted in the meantime
            continue
        found.append(f"{file.name} {state.st_size} {state.st_mtime_ns}")
    return hashed("\n".join(found))


class Handler(BaseHTTPRequestHandler):
    """Handler of GET and HEAD requests. Requests are refused unless their Host is this machine."""

    viewer: Viewer
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Answer a request. An exception is returned as a one-line error."""
        try:
            if (self.headers.get("Host") or "").partition(":")[0] not in (HOST, "localhost"):
                status, kind, text = HTTPStatus.FORBIDDEN, "text/plain", "only requests to localhost are answered"
            else:
                status, kind, text = self.viewer.answer(self.path)
        except Exception as error:
            status, kind, text = HTTPStatus.INTERNAL_SERVER_ERROR, "text/plain", " ".join(str(error).split())
        body = text.encode("utf-8", "replace")
        self.send_response(status)
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    do_HEAD = do_GET

    def log_message(self, format: str, *args: Any) -> None:
        """Do not log requests."""


class Server(ThreadingHTTPServer):
    """HTTP server on the loopback interface."""

    daemon_threads = True


def serve(root: Path, port: int) -> Server:
    """Return a server of the runs in a folder. Raises ValueError if the folder or the port is not available."""
    handler = type("BoundHandler", (Handler,), {"viewer": Viewer(root)})
    try:
        return Server((HOST, port), handler)
    except OSError as error:
        raise ValueError(
            f"port {port} of {HOST} is not available ({error.strerror}); give --port 0 for a free one"
        ) from error

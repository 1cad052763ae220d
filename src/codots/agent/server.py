"""The HTTP application: an OpenAI-compatible server that gives every chat the context of its world."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from time import perf_counter
from typing import Annotated, Any

from fastapi import FastAPI, Header, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response, StreamingResponse
from starlette.exceptions import HTTPException

from codots import __version__
from codots.agent import worlds
from codots.agent.access import caller, check_all, explained, told
from codots.agent.gateway import Gateway
from codots.agent.metrics import Metrics
from codots.agent.page import show_page
from codots.agent.records import ConflictError, ForbiddenError, UnknownError
from codots.agent.sql import reason, sa
from codots.agent.upstream import UpstreamError
from codots.core.redact import without_secrets

WORLD, TASK = "x-codots-world", "x-codots-task"
"""Headers of a chat that name its world and its task, and of the answer."""
MAX_BODY = 32 * 2**20
"""Maximum size of a chat request, in bytes."""
TEXT = {"type": "string"}
MESSAGE = {
    "type": "object",
    "required": ["role"],
    "properties": {
        "role": {"enum": ["system", "developer", "user", "assistant", "tool"]},
        "content": {"anyOf": [TEXT, {"type": "array", "items": {"type": "object"}}, {"type": "null"}]},
    },
}
CHAT = {
    "type": "object",
    "required": ["messages"],
    "properties": {
        "model": TEXT,
        "messages": {"type": "array", "minItems": 1, "items": MESSAGE},
        "metadata": {"type": "object", "properties": {"world": TEXT, "task": TEXT}},
        "stream": {"type": "boolean"},
    },
}
"""Schema of a chat, of which other keys are passed on to the upstream."""
STATUS = {ForbiddenError: 403, UnknownError: 404, ConflictError: 409}
"""Status of an error of the store; any other ValueError is 400."""


def make_app(gateway: Gateway) -> FastAPI:
    """Return the application. `app.state.draining` makes it say that it is not ready."""
    app = FastAPI(title="codots", version=__version__, docs_url=None, redoc_url=None)
    app.state.gateway, app.state.metrics, app.state.draining = gateway, Metrics(gateway), False
    app.include_router(worlds.routes)
    chat = {"requestBody": {"required": True, "content": {"application/json": {"schema": CHAT}}}}
    how: dict[str, Any] = {"methods": ["POST"], "tags": ["chat"], "response_model": None, "openapi_extra": chat}
    app.add_api_route("/v1/chat/completions", complete_chat, **how)
    app.add_api_route("/v1/models", list_models, tags=["chat"])
    app.add_api_route("/", show_page, include_in_schema=False, response_model=None)
    for path, route in (("/health", health), ("/ready", ready), ("/metrics", metrics)):
        app.add_api_route(path, route, tags=["server"], response_model=None)
    for kind, handler in _HANDLERS.items():
        app.add_exception_handler(kind, handler)
    return app


async def complete_chat(
    request: Request,
    service: worlds.Service,
    x_codots_world: Annotated[str | None, Header(description="World of the task.")] = None,
    x_codots_task: Annotated[str | None, Header(description="Name of the task; by default, one for each chat.")] = None,
) -> Response:
    """Answer a chat of a task, in the form of OpenAI's chat completions.

    The world and the task are named by headers or by `metadata`. The context of the world goes into the system prompt.
    """
    began, body = perf_counter(), await read_body(request)
    asked = await service.ask(body, x_codots_world, x_codots_task, began)
    named = {WORLD: asked.task.world, TASK: asked.task.name}
    if not body.get("stream"):
        return JSONResponse(await service.complete(asked), headers=named)
    events = service.stream(asked)
    first = await anext(events)
    return StreamingResponse(_chain(first, events), media_type="text/event-stream", headers=named)


async def _chain(first: bytes, events: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for event in events:
        yield event


async def read_body(request: Request) -> dict[str, Any]:
    """Return the JSON object of a request. Raises ValueError for any other body."""
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > MAX_BODY:
            raise HTTPException(413, f"the request has more than {MAX_BODY:,} bytes")
        parts.append(part)
    try:
        body = json.loads(b"".join(parts))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"the body is not JSON: {error}") from None
    if not isinstance(body, dict):
        raise ValueError("the body is no JSON object; expected one with messages")
    return body


async def list_models(service: worlds.Service) -> dict[str, Any]:
    """List the models of the upstream."""
    return await service.upstream.models()


def health() -> dict[str, str]:
    """Return 200 as long as the process answers."""
    return {"status": "ok"}


def ready(request: Request, service: worlds.Service) -> Response:
    """Return 200 if chats are taken: the store can be read, and the server is not stopping."""
    if request.app.state.draining:
        return JSONResponse({"status": "draining"}, 503)
    known = {"worlds": len(service.store.worlds()), "failed_updates": service.updater.failed}
    return JSONResponse({"status": "ready", **(known if caller.get().sees_all else {})})


def metrics(request: Request) -> Response:
    """Return metrics in the format of Prometheus. They name worlds, so they need a key for all of them."""
    check_all()
    return Response(request.app.state.metrics.text(), media_type="text/plain; version=0.0.4")


def _error(status: int, message: str, kind: str, headers: Any = None) -> JSONResponse:
    return JSONResponse({"error": told(message, kind)}, status, headers)


async def _refused(request: Request, error: Exception) -> Response:
    status = next((status for kind, status in STATUS.items() if isinstance(error, kind)), 400)
    return _error(status, explained(error), "invalid_request_error")


async def _invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    found = error.errors()[0]
    message = f"{'.'.join(map(str, found['loc'][1:])) or 'the body'}: {found['msg']}"
    if found["type"] == "json_invalid":
        message = f"the body is not JSON: {found['ctx']['error']}"
    if found["loc"] == ("body",) and "json" not in request.headers.get("content-type", ""):
        message = "the body is not read; expected JSON with the header content-type: application/json"
    return _error(400, message, "invalid_request_error")


async def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return _error(error.status_code, str(error.detail), "invalid_request_error", error.headers)


async def _failed(request: Request, error: Exception) -> Response:
    """Pass on a refusal of the upstream as it is; report any other failure."""
    assert isinstance(error, UpstreamError)
    if error.kind == "refused" and error.body:
        return Response(error.body, error.status, media_type="application/json")
    headers = {"retry-after": f"{error.retry_after:g}"} if error.retry_after else None
    return _error(error.status, str(error), error.kind, headers)


async def _unstored(request: Request, error: Exception) -> Response:
    assert isinstance(error, sa.exc.SQLAlchemyError)
    return _error(503, without_secrets(reason(error)), "server_error")


_HANDLERS = {
    sa.exc.SQLAlchemyError: _unstored,
    ValueError: _refused,
    RequestValidationError: _invalid,
    HTTPException: _http,
    UpstreamError: _failed,
}

"""Requests to an upstream share connections, pass through the proxy of the environment, and keep the key to it."""

import asyncio
import socket
from contextlib import closing

import pytest

from codots.agent.upstream import Upstream, UpstreamError
from codots.sampler.endpoint import Endpoint
from tests.sampler.server import good

ASK = {"messages": [{"role": "user", "content": "Which door?"}]}
FAR = "http://models.example/v1"


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch):
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


def ask(url, times=1, at_once=1):
    """Ask an upstream several times, and return the texts of the answers."""

    async def run():
        upstream = Upstream(Endpoint("m", url, key="the-key", tries=1, timeout=10))
        try:
            answers = []
            for _ in range(times):
                answers += await asyncio.gather(*(upstream.complete(ASK) for _ in range(at_once)))
            return [answer["choices"][0]["message"]["content"] for answer in answers]
        finally:
            await upstream.close()

    return asyncio.run(run())


def test_requests_one_after_another_use_one_connection_and_those_at_once_one_each(serve, monkeypatch):
    server, opened = serve(good()), []
    process = server.process_request
    monkeypatch.setattr(server, "process_request", lambda *request: opened.append(1) or process(*request))
    monkeypatch.setattr(server.RequestHandlerClass, "protocol_version", "HTTP/1.1")
    assert ask(server.url, times=5) == ["hello"] * 5
    assert len(opened) == 1
    assert ask(server.url, times=3, at_once=20) == ["hello"] * 60
    assert len(opened) == 21


@pytest.mark.parametrize("name", ["HTTP_PROXY", "http_proxy", "ALL_PROXY"])
def test_a_far_upstream_is_asked_through_the_proxy_of_the_environment(serve, monkeypatch, name):
    proxy = serve(good())
    monkeypatch.setenv(name, proxy.url.removesuffix("/v1"))
    assert ask(FAR) == ["hello"]
    assert proxy.headers[0]["host"] == "models.example"


def test_an_upstream_on_this_machine_is_asked_past_the_proxy(serve, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    assert ask(serve(good()).url) == ["hello"]


def test_a_proxy_that_cannot_be_used_is_named_without_its_login(monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "socks5://me:hush-hush@host:1")
    with pytest.raises(ValueError, match=r"the proxy socks5://\*\*\*@host:1 \(HTTP_PROXY\) cannot be used") as raised:
        ask(FAR)
    assert "hush" not in str(raised.value)


def test_a_proxy_that_cannot_be_reached_is_named_without_its_login(monkeypatch):
    with closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        monkeypatch.setenv("HTTP_PROXY", f"http://me:hush-hush@127.0.0.1:{free.getsockname()[1]}")
        with pytest.raises(UpstreamError, match=r"through the proxy http://\*\*\*@127.0.0.1:\d+ .* reached") as raised:
            ask(FAR)
    assert raised.value.kind == "connection"
    assert "hush" not in str(raised.value)


def test_the_key_does_not_follow_a_redirect(serve):
    other = serve(good())
    with pytest.raises(UpstreamError) as raised:
        ask(serve((302, b"", {"location": f"{other.url}/chat/completions"})).url)
    assert (raised.value.kind, other.requests) == ("refused", [])


def test_a_line_of_any_length_is_an_answer_or_an_error(serve):
    server = serve((200, b"data: " + b"x" * 2**25, {"content-type": "text/event-stream"}))

    async def run():
        upstream = Upstream(Endpoint("m", server.url, tries=1, timeout=10))
        try:
            return [chunk async for chunk in upstream.stream(ASK | {"stream": True})]
        finally:
            await upstream.close()

    with pytest.raises(UpstreamError) as raised:
        asyncio.run(run())
    assert raised.value.kind == "garbage"

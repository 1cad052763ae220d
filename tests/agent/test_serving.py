"""A server that is stopped finishes what it has begun, and one that is killed loses and repeats nothing."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import httpx

from codots.agent import serving as serving_module
from codots.agent.records import Outcome
from codots.agent.server import make_app
from codots.agent.serving import DRAIN_SECONDS, gateway, listening
from codots.agent.serving import serve as serve_until_stopped
from codots.agent.store import Store
from tests.agent.lives import learner

TIMEOUT = 60
MESSAGES = [{"role": "user", "content": "Which door?"}]


@contextmanager
def serving(folder):
    """Run `codots serve` in a folder; yield the process and its URL."""
    command = [sys.executable, "-m", "codots", "serve", "openai:m", "--store", "agent.db", "--port", "0"]
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True) as server:
        try:
            yield server, server.stdout.readline().split(" at ")[-1].split("/v1")[0]
        finally:
            server.kill()


def client_of(url):
    return httpx.Client(base_url=url, timeout=TIMEOUT)


def test_a_stopped_server_answers_what_it_was_asked_and_learns_what_it_was_told(serve, tmp_path):
    asked, over = threading.Event(), threading.Event()

    def slow(request):
        if "rewrite them" not in request["messages"][0]["content"]:
            asked.set()
            over.wait(TIMEOUT)
        return learner(request)

    serve(slow)
    with serving(tmp_path) as (server, url), ThreadPoolExecutor() as pool, client_of(url) as http:
        assert http.get("/ready").status_code == 200
        answer = pool.submit(http.post, "/v1/chat/completions", json={"model": "m", "messages": MESSAGES})
        assert asked.wait(TIMEOUT)
        task = http.post("/v1/worlds/default/tasks", json={"description": "Which door?"}).json()["name"]
        assert http.post(f"/v1/worlds/default/tasks/{task}/finish", json={"reward": 1}).status_code == 200
        server.send_signal(signal.SIGTERM)
        over.set()
        assert answer.result(TIMEOUT).json()["choices"][0]["message"]["content"] == "an answer"
        assert server.wait(TIMEOUT) == 0
    with Store(tmp_path / "agent.db") as store:
        assert (store.head("default").context, len(store.turns("default", "task-0"))) == ("1", 1)


@contextmanager
def hanging(serve, tmp_path):
    """Yield a gateway whose upstream has been asked for an update and does not answer."""
    asked, over = threading.Event(), threading.Event()

    def hang(request):
        if "rewrite them" in request["messages"][0]["content"]:
            asked.set()
        over.wait(TIMEOUT)
        return learner(request)

    serve(hang)
    with gateway(str(tmp_path / "agent.db"), "openai:m", "default") as service:
        service.finish("default", service.store.start("default", "Which door?").name, Outcome(1.0))
        assert asked.wait(TIMEOUT)
        try:
            yield service
        finally:
            over.set()


def test_chats_and_updates_that_hang_share_one_deadline_and_end_without_a_traceback(
    serve, tmp_path, monkeypatch, capfd
):
    monkeypatch.setattr(serving_module, "DRAIN_SECONDS", 5)
    with (
        hanging(serve, tmp_path) as service,
        listening("127.0.0.1", 0) as at,
        ThreadPoolExecutor() as pool,
        client_of(f"http://127.0.0.1:{at.getsockname()[1]}") as http,
    ):
        ask = service.upstream.complete

        async def asking(*args):
            os.kill(os.getpid(), signal.SIGTERM)
            return await ask(*args)

        service.upstream.complete = asking
        answer = pool.submit(http.post, "/v1/chat/completions", json={"model": "m", "messages": MESSAGES})
        began = time.monotonic()
        serve_until_stopped(service, make_app(service), at)
        assert 5 <= time.monotonic() - began < 10
        assert answer.result(TIMEOUT).status_code == 500
    assert "Traceback" not in capfd.readouterr().err


def test_a_second_signal_ends_the_wait_for_updates(serve, tmp_path):
    with (
        hanging(serve, tmp_path) as service,
        listening("127.0.0.1", 0) as at,
        ThreadPoolExecutor() as pool,
        client_of(f"http://127.0.0.1:{at.getsockname()[1]}") as http,
    ):
        idle = service.updater.idle

        async def draining():
            os.kill(os.getpid(), signal.SIGINT)
            await idle()

        def stop():
            assert http.get("/health").status_code == 200
            os.kill(os.getpid(), signal.SIGTERM)

        service.updater.idle = draining
        stopped, began = pool.submit(stop), time.monotonic()
        serve_until_stopped(service, make_app(service), at)
        stopped.result(TIMEOUT)
        assert time.monotonic() - began < DRAIN_SECONDS
        assert service.store.worlds_due() == ["default"]


def test_a_killed_server_has_every_acknowledged_finish_and_learns_once_from_each(serve, tmp_path):
    serve(learner)
    acknowledged, enough = [], threading.Event()

    def client(url, life, number):
        with client_of(url) as http:
            for i in range(1000):
                name = f"client-{life}-{number}-{i}"
                body = {"model": "m", "messages": MESSAGES, "metadata": {"task": name}}
                try:
                    http.post("/v1/chat/completions", json=body).raise_for_status()
                    http.post(f"/v1/worlds/default/tasks/{name}/finish", json={"reward": 1}).raise_for_status()
                except httpx.HTTPError:
                    return
                acknowledged.append(name)
                if len(acknowledged) % 20 == 0:
                    enough.set()

    for life in range(2):
        enough.clear()
        with serving(tmp_path) as (server, url), ThreadPoolExecutor(4) as pool:
            clients = [pool.submit(client, url, life, number) for number in range(4)]
            assert enough.wait(TIMEOUT)
            server.send_signal(signal.SIGKILL)
            for one in clients:
                one.result(TIMEOUT)
    with serving(tmp_path) as (server, url), client_of(url) as http:
        last = http.post("/v1/worlds/default/tasks", json={"description": "The last."}).json()["name"]
        told = {"json": {"reward": 1}, "params": {"wait": TIMEOUT}}
        assert http.post(f"/v1/worlds/default/tasks/{last}/finish", **told).json()["version"]
    with Store(tmp_path / "agent.db") as store:
        finished = {task.name for task in store.tasks("default", 10**6) if task.finish}
        versions = store.history("default")
        assert set(acknowledged) <= finished
        assert sorted(v.source for v in versions[1:]) == sorted(finished)
        assert [(v.number, v.context) for v in versions[1:]] == [(i, str(i)) for i in range(1, len(finished) + 1)]


def test_a_server_that_cannot_start_says_why(codots, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert codots("serve", "nowhere").err.startswith("codots: no model at 'nowhere'")
    missing = codots("serve", "base", "--store", "nowhere/agent.db")
    assert (missing.code, missing.err) == (2, "codots: cannot write nowhere/agent.db: there is no folder nowhere\n")
    with listening("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        ended = codots("serve", "base", "--port", port)
    assert (ended.code, list(tmp_path.iterdir())) == (2, [])
    assert ended.err.startswith(f"codots: cannot listen at 127.0.0.1:{port}: Address already in use; give --port")


def test_answers_do_not_wait_for_an_acknowledgment_of_their_first_packet():
    with listening("127.0.0.1", 0) as at, socket.create_connection(at.getsockname()):
        connection, _ = at.accept()
        with connection:
            assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)

"""Only who has a key uses a server that others reach, and only its worlds; the audit log says who did what."""

import json
import os
import ssl
import stat
import subprocess
import sys
from contextlib import closing, contextmanager
from dataclasses import replace

import httpx
import pytest

from codots.agent import audit as audit_module
from codots.agent.access import CACHE_SECONDS, Access, is_loopback
from codots.agent.audit import AuditLog
from codots.agent.keys import create_key, has_keys, list_keys, revoke_key
from codots.agent.records import ConflictError, Outcome, UnknownError
from codots.agent.schema import keys
from codots.agent.server import make_app
from codots.agent.serving import gateway
from codots.agent.sql import sa
from codots.agent.store import Store
from codots.agent.tools import make_app as make_tools
from tests.agent.conftest import REWRITE
from tests.agent.lives import learner
from tests.agent.test_server import ASK, Running

TIMEOUT = 60
SECRET = "swordfish"
"""Text that is in every part of the world `secret`."""


@contextmanager
def guarded(serve, folder, make=make_app, default="secret", required=True):
    """Run a server that asks for keys, before a store with a world `secret` and a world `mine`."""
    serve(learner)
    with gateway(str(folder / "agent.db"), "openai:m", default) as service:
        service.upstream.endpoint = replace(service.upstream.endpoint, tries=1)  # it lists no models
        for world in ("secret", "mine"):
            service.store.create(world, REWRITE)
            service.store.put(world, SECRET, "import", "a file")
            task = service.store.start(world, SECRET, SECRET, "door")
            service.store.start(world, SECRET, SECRET, "open")
            service.store.finish(world, task.name, Outcome(1.0, SECRET))
        with closing(AuditLog(folder / "audit.jsonl")) as log:
            door = Access(make(service), service.store, required, log)
            with Running(service, door) as running:
                running.door = door
                yield running


HOSTS = (
    *(("localhost", True), ("127.0.0.1:8000", True), ("127.9.9.9", True), ("[::1]:8000", True)),
    *(("evil.example", False), ("127.0.0.1.evil.example", False), ("localhost@evil.example", False), ("[::", False)),
)


@pytest.mark.parametrize(("host", "ours"), HOSTS)
def test_without_keys_a_name_that_a_page_of_the_web_chose_is_refused(serve, tmp_path, host, ours):
    with guarded(serve, tmp_path, required=False) as running:
        answer = running.http.get("/v1/worlds", headers={"host": host})
        assert answer.status_code == (200 if ours else 403)
        assert ours or "without keys, expected localhost" in answer.json()["error"]["message"]


def test_without_keys_a_page_of_another_origin_is_refused_also_without_a_preflight(serve, tmp_path):
    with guarded(serve, tmp_path, required=False) as running:
        plain = {"content-type": "text/plain", "host": "localhost:8000"}  # what a browser sends without asking
        body = json.dumps({"model": "m", "messages": ASK, "metadata": {"world": "mine", "task": "open"}})
        for origin, status in (("https://evil.example", 403), ("null", 403), ("http://localhost:8000", 200)):
            sent = running.http.post("/v1/chat/completions", content=body, headers=plain | {"origin": origin})
            assert sent.status_code == status
        assert len(running.http.get("/v1/worlds/mine/tasks/open").json()["turns"]) == 1


def bearer(key):
    return {"authorization": f"Bearer {key}"}


def audited(folder):
    """Return the lines of the audit log."""
    return [json.loads(line) for line in (folder / "audit.jsonl").read_text().splitlines()]


def everything(store):
    """Return all that a store holds of a world, but for counters."""
    tasks = [(task, store.turns("secret", task.name)) for task in store.tasks("secret")]
    return store.world("secret"), store.history("secret"), tasks


W = "/v1/worlds/{world}"
BODIES = {
    ("post", f"{W}/rollback"): {"version": 0},
    ("post", f"{W}/tasks"): {"description": "Which door?"},
    ("post", f"{W}/tasks/{{task}}/finish"): {"reward": 1.0},
    ("post", "/v1/chat/completions"): {"model": "m", "messages": ASK},
}
"""Bodies of the routes that need one."""
OTHERS = {
    ("get", "/v1/worlds"): 200,
    ("get", "/v1/models"): 502,
    ("get", "/health"): 200,
    ("get", "/ready"): 200,
    ("get", "/metrics"): 403,
    ("post", "/v1/chat/completions"): 403,
}
"""Status, with a key of another world, of the routes without a world in their path. The upstream lists no models."""


def every_route(http, key):
    """Yield each route of the API, and how to send it to the world `secret` with a key."""
    paths = http.get("/openapi.json", headers=bearer(key)).raise_for_status().json()["paths"]
    for path, methods in paths.items():
        at = path.format(world="secret", task="open", number=1)
        for method in methods:
            named = {"params": {"a": 0, "b": 1}, "json": BODIES.get((method, path))}
            yield (
                (method, path),
                lambda headers, m=method, at=at, named=named: http.request(m.upper(), at, headers=headers, **named),
            )


def test_no_route_reads_or_changes_a_world_with_a_key_of_another_one(serve, tmp_path):
    with guarded(serve, tmp_path) as running:
        store = running.service.store
        key = create_key(store, "other", ["mine"])
        before, met = everything(store), set()
        for route, send in every_route(running.http, key):
            answer = send(bearer(key))
            assert answer.status_code == OTHERS.get(route, 403), (route, answer.text)
            assert SECRET not in answer.text
            assert ("secret" in answer.text) == (answer.status_code == 403 and route[1] != "/metrics")
            met.add(route)
        for named in ({"headers": {"x-codots-world": "secret"}}, {"metadata": {"world": "secret"}}):
            body = {"model": "m", "messages": ASK, "metadata": named.get("metadata", {})}
            chat = running.http.post("/v1/chat/completions", json=body, headers=bearer(key) | named.get("headers", {}))
            assert (chat.status_code, SECRET in chat.text) == (403, False)
        assert everything(store) == before
        assert set(OTHERS) | set(BODIES) <= met
        assert sum(W in path for _, path in met) >= 11
        assert running.http.get("/v1/worlds/mine", headers=bearer(key)).json()["head"]["context"] == SECRET


def test_without_a_valid_key_every_route_is_refused_but_those_of_health(serve, tmp_path):
    with guarded(serve, tmp_path) as running:
        store = running.service.store
        key = create_key(store, "all")
        before = everything(store)
        for (_, path), send in every_route(running.http, key):
            for headers in ({}, bearer("codots_wrong"), {"authorization": f"Basic {key}"}, bearer(key[:-1])):
                answer = send(headers)
                assert answer.status_code == (200 if path in ("/health", "/ready") else 401), path
                assert SECRET not in answer.text
                assert "mine" not in answer.text
        assert everything(store) == before
        assert running.http.get("/v1/worlds").headers["www-authenticate"] == "Bearer"
        assert running.http.get("/ready", headers=bearer(key)).json()["worlds"] == 2
        assert running.http.get("/metrics", headers=bearer(key)).status_code == 200


def test_a_key_that_may_only_read_changes_nothing(serve, tmp_path):
    with guarded(serve, tmp_path) as running:
        store = running.service.store
        key = create_key(store, "reader", writes=False)
        before = everything(store)
        for (method, path), send in every_route(running.http, key):
            answer = send(bearer(key))
            reads, fine = method == "get", 502 if path == "/v1/models" else 200
            assert answer.status_code == (fine if reads else 403), (path, answer.text)
            assert reads or "the key 'reader' may only read" in answer.text
        assert everything(store) == before


def test_an_unknown_world_is_told_without_the_names_of_others(serve, tmp_path):
    with guarded(serve, tmp_path) as running:
        key, wide = create_key(running.service.store, "other", ["sekret"]), create_key(running.service.store, "all")
        answer = running.http.get("/v1/worlds/sekret", headers=bearer(key))
        assert (answer.status_code, answer.json()["error"]["message"]) == (404, "unknown world 'sekret'")
        assert "'secret'" in running.http.get("/v1/worlds/sekret", headers=bearer(wide)).text
        assert running.http.put("/v1/worlds/sekret", headers=bearer(key)).status_code == 200


def test_openai_clients_send_the_key_as_their_own(serve, tmp_path):
    with guarded(serve, tmp_path) as running:
        running.openai.api_key = create_key(running.service.store, "ci", ["mine"])
        _, headers = running.ask(metadata={"world": "mine"})
        assert headers["x-codots-world"] == "mine"


def test_a_revoked_key_is_refused_once_the_cache_is_old_and_a_rate_is_kept(serve, tmp_path):
    with guarded(serve, tmp_path) as running:
        store, get, now = running.service.store, running.http.get, [0.0]
        running.door.clock = lambda: now[0]
        key, slow = create_key(store, "ci"), create_key(store, "slow", per_minute=2)
        assert get("/v1/worlds", headers=bearer(key)).status_code == 200
        revoke_key(store, "ci")
        now[0] = CACHE_SECONDS - 0.1
        assert get("/v1/worlds", headers=bearer(key)).status_code == 200
        now[0] = CACHE_SECONDS
        assert get("/v1/worlds", headers=bearer(key)).status_code == 401
        answers = [get("/v1/worlds", headers=bearer(slow)) for _ in range(3)]
        assert [answer.status_code for answer in answers] == [200, 200, 429]
        assert answers[-1].headers["retry-after"] == "31"
        assert "may send 2 requests a minute" in answers[-1].text
        now[0] += 30
        assert [get("/v1/worlds", headers=bearer(slow)).status_code for _ in range(2)] == [200, 429]


def test_a_store_without_keys_is_open_until_the_first_one_is_made(serve, tmp_path):
    with guarded(serve, tmp_path, required=False) as running:
        running.door.clock = lambda: now[0]
        now = [0.0]
        assert running.http.get("/v1/worlds/secret").status_code == 200
        assert not (tmp_path / "audit.jsonl").exists()
        create_key(running.service.store, "ci")
        revoke_key(running.service.store, "ci")
        now[0] = CACHE_SECONDS
        assert running.http.get("/v1/worlds/secret").status_code == 401


def test_the_audit_log_says_who_did_what_and_holds_no_key_and_no_text(serve, tmp_path):
    with guarded(serve, tmp_path) as running:
        key = create_key(running.service.store, "ci", ["mine"])
        for world in ("mine", "secret"):
            running.http.get(f"/v1/worlds/{world}/tasks/door?{SECRET}", headers=bearer(key))
        body = {"model": "m", "messages": [{"role": "user", "content": SECRET}], "metadata": {"world": "mine"}}
        running.http.post("/v1/chat/completions", json=body, headers=bearer(key))
        running.http.get(f"/{SECRET}", headers=bearer(key))
        running.http.get("/v1/worlds/mine", headers=bearer(f"codots_{SECRET}"))
        running.http.get("/health")
    lines, task = audited(tmp_path), f"{W}/tasks/{{task}}"
    assert [(line["key"], line["method"], line["route"], line["world"], line["status"]) for line in lines] == [
        ("ci", "GET", task, "mine", 200),
        ("ci", "GET", task, "secret", 403),
        ("ci", "POST", "/v1/chat/completions", "mine", 200),
        ("ci", "GET", None, None, 404),
        (None, "GET", None, None, 401),
    ]
    assert {line["client"] for line in lines} == {"127.0.0.1"}
    text = (tmp_path / "audit.jsonl").read_text()
    assert (SECRET in text, key in text, "codots_" in text) == (False, False, False)
    assert stat.S_IMODE(os.stat(tmp_path / "audit.jsonl").st_mode) == 0o600


def test_the_audit_log_keeps_a_bounded_number_of_private_files(tmp_path, monkeypatch):
    monkeypatch.setattr(audit_module, "MAX_BYTES", 200)
    log = AuditLog(tmp_path / "audit.jsonl")
    for i in range(100):
        log.write(0.0, {"key": f"key-{i}"})
    log.close()
    files = list(tmp_path.iterdir())
    assert len(files) == 1 + audit_module.FILES
    assert {stat.S_IMODE(os.stat(path).st_mode) for path in files} == {0o600}
    assert audited(tmp_path)[-1]["key"] == "key-99"


INITIALIZE = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}}
CALLS = {
    "list_worlds": {},
    "read_context": {"world": "secret"},
    "start_task": {"world": "secret", "description": "Which door?"},
    "finish_task": {"world": "secret", "task": "open", "reward": 1.0},
}
"""A call of each tool that concerns the world `secret`."""


class Mcp:
    """A client of MCP over HTTP with a session."""

    def __init__(self, http, key):
        self.http, self.headers = http, bearer(key) | {"accept": "application/json, text/event-stream"}
        answer = self.post("initialize", INITIALIZE)
        self.headers["mcp-session-id"] = answer.headers["mcp-session-id"]
        self.http.post("/mcp", json={"jsonrpc": "2.0", "method": "notifications/initialized"}, headers=self.headers)

    def post(self, method, params, **headers):
        ask = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
        return self.http.post("/mcp", json=ask, headers=self.headers | headers)

    def call(self, name, arguments):
        """Return the text of a result, and whether it is an error."""
        answer = self.post("tools/call", {"name": name, "arguments": arguments})
        data = next(line[5:] for line in answer.text.splitlines() if line.startswith("data:") and '"result"' in line)
        result = json.loads(data)["result"]
        return json.dumps(result), result.get("isError", False)


def test_no_tool_over_http_reads_or_changes_a_world_with_a_key_of_another_one(serve, tmp_path):
    def make(service):
        return make_tools(service, "127.0.0.1")

    with guarded(serve, tmp_path, make) as running:
        store = running.service.store
        key, owner = create_key(store, "other", ["mine"]), create_key(store, "owner")
        before, client = everything(store), Mcp(running.http, key)
        tools = client.post("tools/list", {}).text
        assert all(f'"{name}"' in tools for name in CALLS)
        assert tools.count('"inputSchema"') == len(CALLS)
        for name, arguments in CALLS.items():
            default = {key: value for key, value in arguments.items() if key != "world"}
            for given in (arguments, default):
                text, refused = client.call(name, given)
                assert (refused, SECRET in text) == (name != "list_worlds", False), text
            assert ("mine" in text) == (name in ("list_worlds",))
        assert everything(store) == before
        assert SECRET in client.call("read_context", {"world": "mine"})[0]
        assert running.http.post("/mcp", json={}).status_code == 401
        other = Mcp(running.http, owner)
        assert SECRET in other.call("read_context", {})[0]
        # A session is not taken over, and a key counts for each request, also in a session of another key.
        assert client.post("tools/list", {}, **bearer(owner)).status_code == 404
        assert other.post("tools/list", {}, **bearer(key)).status_code == 404
    said = [(line["key"], line["route"], line["world"], line["status"]) for line in audited(tmp_path)]
    assert ("other", "tool read_context", "secret", 403) in said
    assert ("owner", "tool read_context", "secret", 200) in said


def test_a_key_is_stored_as_a_hash_and_its_name_is_used_once(store):
    text = create_key(store, "ci", ["b", "a"], per_minute=7)
    with store.read() as c:
        (row,) = c.execute(sa.select(keys)).all()
    assert text not in str(row)
    assert len(text) > 40
    assert has_keys(store)
    (key,) = list_keys(store)
    assert (key.name, key.worlds, key.writes, key.per_minute, key.revoked) == ("ci", ("a", "b"), True, 7, None)
    revoke_key(store, "ci")
    for call, error, line in (
        (lambda: create_key(store, "ci"), ConflictError, "the key 'ci' exists or was revoked"),
        (lambda: revoke_key(store, "ci"), ConflictError, "was revoked before"),
        (lambda: revoke_key(store, "cj"), UnknownError, "unknown key 'cj'.*the nearest is 'ci'"),
        (lambda: create_key(store, "a b"), ValueError, "the key 'a b'; expected a name"),
        (lambda: create_key(store, "x", ["a b"]), ValueError, "the world 'a b'; expected a name"),
    ):
        with pytest.raises(error, match=line):
            call()


def test_keys_are_made_listed_and_revoked_by_commands(codots, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made = codots("keys", "create", "ci", "--world", "repo", "--read-only", "--per-minute", "60")
    assert made.out.startswith("codots_")
    assert len(made.out.splitlines()) == len(made.err.splitlines()) == 1
    codots("keys", "create", "all")
    rows = json.loads(codots("keys", "list", "--json").out)
    assert [(row["name"], row["worlds"], row["writes"], row["per_minute"]) for row in rows] == [
        ("all", None, True, None),
        ("ci", ["repo"], False, 60),
    ]
    assert made.out.strip() not in json.dumps(rows)
    assert codots("keys", "revoke", "ci").out == "ci is revoked; servers refuse it within 5 seconds\n"
    shown = codots("keys", "list").out
    assert ("read" in shown, made.out.strip() in shown) == (True, False)
    assert codots("keys", "revoke", "cj").err.startswith("codots: unknown key 'cj'")


def test_an_address_that_others_reach_needs_a_key(codots, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for command in (["serve"], ["mcp", "--http"]):
        ended = codots(*command, "base", "--host", "0.0.0.0")
        line = "0.0.0.0 is reached by other machines; make a key first: codots keys create NAME --store agent.db"
        assert (ended.code, ended.err) == (2, f"codots: {line}\n")
    assert list(tmp_path.iterdir()) == []
    assert [is_loopback(host) for host in ("127.0.0.1", "127.1.2.3", "::1", "localhost")] == [True] * 4
    assert not any(map(is_loopback, ("0.0.0.0", "::", "10.0.0.1", "example.com", "")))


def test_what_cannot_be_a_certificate_is_refused_in_one_line(codots, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "cert.pem").write_text("no certificate")
    for args, line in (
        (["--certfile", "cert.pem"], "TLS needs a certificate and its key"),
        (["--certfile", "cert.pem", "--keyfile", "cert.pem"], "TLS cannot use the certificate cert.pem with the key"),
        (["--certfile", "none.pem", "--keyfile", "cert.pem"], "No such file"),
    ):
        ended = codots("serve", "base", *args)
        assert (ended.code, len(ended.err.splitlines()), line in ended.err) == (2, 1, True)


def certificate(folder):
    """Write a certificate for 127.0.0.1 and its key."""
    made = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
        "-days",
        "2",
    ]
    names = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    files = ["-keyout", "key.pem", "-out", "cert.pem"]
    subprocess.run([*made, *names, *files], cwd=folder, check=True, capture_output=True, timeout=TIMEOUT)


def test_the_command_serves_others_over_tls_with_a_key(serve, codots, tmp_path, monkeypatch):
    serve(learner)
    certificate(tmp_path)
    with Store(tmp_path / "agent.db") as store:
        key = create_key(store, "ci")
    command = [
        "serve",
        "openai:m",
        "--port",
        "0",
        "--host",
        "0.0.0.0",
        "--certfile",
        "cert.pem",
        "--keyfile",
        "key.pem",
    ]
    options = {"cwd": tmp_path, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-m", "codots", *command], **options) as server:
        try:
            url = server.stdout.readline().split(" at ")[-1].split("/v1")[0].replace("0.0.0.0", "127.0.0.1")
            assert url.startswith("https://")
            trusted = ssl.create_default_context(cafile=tmp_path / "cert.pem")
            with httpx.Client(base_url=url, verify=trusted, timeout=TIMEOUT) as http:
                assert http.get("/v1/worlds").status_code == 401
                assert http.get("/v1/worlds", headers=bearer(key)).json()["worlds"][0]["name"] == "default"
        finally:
            server.terminate()
            server.wait(TIMEOUT)
    lines = (tmp_path / "agent.db.audit.jsonl").read_text().splitlines()
    assert [json.loads(line)["status"] for line in lines] == [401, 200]

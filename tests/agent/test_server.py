"""A chat through the server is a task with a context, whatever the client, and whatever fails behind it."""

import asyncio
import json
import re
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace

import httpx
import openai
import pytest
import uvicorn

from codots.agent.chat import read_chat
from codots.agent.gateway import DONE, event
from codots.agent.quotes import QUOTED
from codots.agent.records import Outcome
from codots.agent.server import make_app
from codots.agent.serving import Stop, gateway, listening, run
from codots.agent.sql import sa
from codots.agent.upstream import Upstream
from tests.agent.lives import learner, trained_life
from tests.sampler.server import good

TIMEOUT = 60
CHAT, FINISH = "/v1/chat/completions", "/v1/worlds/default/tasks/task-1/finish"
ASK = [{"role": "system", "content": "Open a door."}, {"role": "user", "content": "Which door?"}]
CALL = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": '{"at": 1}'}}
TOOL = {"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}}


class Running:
    """A server with its gateway, on a real socket."""

    def __init__(self, service, app=None):
        self.service, self.socket = service, listening("127.0.0.1", 0)
        self.app = app or make_app(service)
        self.server = uvicorn.Server(uvicorn.Config(self.app, log_level="warning"))
        self.thread = threading.Thread(target=lambda: asyncio.run(run(self.server, self.socket, service, Stop())))
        self.url = f"http://127.0.0.1:{self.socket.getsockname()[1]}"
        self.http = httpx.Client(base_url=self.url, timeout=TIMEOUT)
        self.openai = openai.OpenAI(api_key="none", base_url=f"{self.url}/v1", max_retries=0, timeout=TIMEOUT)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *error):
        self.http.close()
        self.openai.close()
        self.server.should_exit = True
        self.thread.join()
        self.socket.close()

    def ask(self, messages=ASK, **options):
        """Ask with OpenAI's client; return the answer with its headers."""
        answer = self.openai.chat.completions.with_raw_response.create(model="m", messages=messages, **options)
        return answer.parse(), answer.headers

    def finish(self, task, world="default", **told):
        return self.http.post(f"/v1/worlds/{world}/tasks/{task}/finish?wait={TIMEOUT}", json=told)


@pytest.fixture
def start(serve, tmp_path):
    """Start a scripted upstream and a server before it."""
    with ExitStack() as exits:

        def begin(*script, tries=3, timeout=5.0):
            upstream = serve(*script)
            service = exits.enter_context(gateway(str(tmp_path / "agent.db"), "openai:m", "default"))
            endpoint = replace(service.upstream.endpoint, tries=tries, timeout=timeout, pause=0.001)
            service.upstream = Upstream(endpoint)
            running = exits.enter_context(Running(service))
            running.upstream = upstream
            return running

        yield begin


def sse(*chunks, done=True):
    """Return a stream of chunks as the answer of an upstream."""
    body = b"".join(map(event, chunks)) + (DONE if done else b"")
    return 200, body, {"content-type": "text/event-stream"}


def piece(content=None, reason=None, **delta):
    choice = {"index": 0, "delta": {"content": content, **delta}, "finish_reason": reason}
    return {"id": "1", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]}


SHAPES = [
    {"choices": []},
    {"choices": ["x"]},
    {"choices": [{"message": {"content": 5}}]},
    {"choices": [{"message": {"tool_calls": ["x"]}}]},
]
"""Answers without a message that can be read."""
CHUNKS = [{"choices": [None]}, {"choices": [{"delta": {"content": ["a"]}}]}]
"""Chunks without a part of a message that can be read."""


def test_a_second_chat_has_the_context_that_the_first_one_taught(start):
    running = start(learner)
    answer, headers = running.ask()
    assert answer.choices[0].message.content == "an answer"
    assert (headers["x-codots-world"], headers["x-codots-task"]) == ("default", "task-0")
    assert "You have no notes yet." in running.upstream.requests[0]["messages"][0]["content"]
    done = running.finish("task-0", reward=0.5, feedback="The red one.").json()
    assert (done["number"], done["version"]["number"], done["version"]["context"]) == (1, 1, "1")
    _, headers = running.ask()
    assert headers["x-codots-task"] == "task-1"
    system, user = running.upstream.requests[-1]["messages"]
    assert (system["content"].startswith("Open a door."), system["content"].endswith("\n\n1")) == (True, True)
    assert user == ASK[1]
    task = running.http.get("/v1/worlds/default/tasks/task-0").json()
    assert (task["learned_by"], task["rules"], task["finish"]["feedback"]) == (1, "Open a door.", "The red one.")
    assert task["turns"] == [{"observation": "Which door?", "reply": "an answer"}]


def test_calls_of_tools_pass_untouched_and_become_turns(start):
    called = {"role": "assistant", "content": None, "tool_calls": [CALL]}
    status, body = good()
    body["choices"][0] |= {"message": called, "finish_reason": "tool_calls"}
    running = start((status, body), good("done"))
    named = {"world": "default", "task": "door"}
    answer, _ = running.ask(tools=[TOOL], metadata={**named, "mine": "kept"})
    assert answer.choices[0].message.tool_calls[0].model_dump() == CALL
    sent = running.upstream.requests[0]
    assert (sent["tools"], sent["metadata"]) == ([TOOL], {"mine": "kept"})
    result = {"role": "tool", "tool_call_id": "c1", "content": "a red door"}
    running.ask([*ASK, called, result], tools=[TOOL], extra_headers={"X-Codots-Task": "door"}, metadata=named)
    assert running.upstream.requests[1]["messages"][1:] == [ASK[1], called, result]
    assert "metadata" not in running.upstream.requests[1]
    assert running.http.get("/v1/worlds/default/tasks/door").json()["turns"] == [
        {"observation": "Which door?", "reply": 'call look({"at": 1})'},
        {"observation": "a red door", "reply": "done"},
    ]


def test_a_stream_passes_chunk_by_chunk_and_is_recorded_at_its_end(start):
    call = [{"index": 0, **CALL}]
    chunks = [piece("an "), piece("answer"), piece(tool_calls=call), piece(reason="tool_calls")]
    running = start(sse(*chunks))
    stream, headers = running.ask(stream=True)
    got = [chunk.model_dump(exclude_unset=True) for chunk in stream]
    assert got == chunks
    task = running.http.get(f"/v1/worlds/default/tasks/{headers['x-codots-task']}").json()
    assert task["turns"][0]["reply"] == 'an answer\ncall look({"at": 1})'


@pytest.mark.parametrize(
    ("answer", "kind", "status", "stream"),
    [
        *(((429, {"error": "slow"}, {"retry-after": "0.01"}), "rate_limit", 429, stream) for stream in (False, True)),
        *(((500, {"error": {"message": "boom"}}), "server_error", 502, stream) for stream in (False, True)),
        *(((200, b"<html>"), "garbage", 502, stream) for stream in (False, True)),
        *(((200, shape), "garbage", 502, False) for shape in SHAPES),
        *((sse(chunk), "garbage", 502, True) for chunk in CHUNKS),
        (sse(), "garbage", 502, True),
    ],
)
def test_a_failing_upstream_is_tried_again_then_reported_and_its_task_can_be_finished(
    start, answer, kind, status, stream, caplog
):
    good_one = sse(piece("yes"), piece(reason="stop")) if stream else good("yes")
    running = start(answer, answer, good_one, answer)
    answered, _ = running.ask(stream=stream)
    texts = [chunk.choices[0].delta.content or "" for chunk in answered] if stream else []
    assert "yes" in (["".join(texts)] if stream else [answered.choices[0].message.content])
    with pytest.raises(openai.APIStatusError) as error:
        running.ask([*ASK, {"role": "assistant", "content": "yes"}, {"role": "user", "content": "and?"}], stream=stream)
    assert (error.value.status_code, error.value.body["type"]) == (status, kind)
    assert f'codots_upstream_failures_total{{kind="{kind}"}} 5.0' in running.http.get("/metrics").text
    (line,) = [record.getMessage() for record in caplog.records if "failed" in record.getMessage()]
    assert line.startswith("a chat of default, task task-0, failed: ")
    assert "\n" not in line
    running.upstream.script[:] = [learner]
    assert running.finish("task-0", reward=1.0).json()["version"]["context"] == "1"


def test_a_stream_that_is_cut_ends_with_an_error_and_its_turn_can_be_asked_again(start):
    running = start(sse(piece("an ans"), done=False), sse(piece("an answer"), piece(reason="stop")))
    stream, _ = running.ask(stream=True)
    with pytest.raises(openai.APIError, match=r"ended a stream before \[DONE\]"):
        list(stream)
    assert running.http.get("/v1/worlds/default/tasks/task-0").json()["turns"] == []
    list(running.ask(stream=True)[0])
    task = running.http.get("/v1/worlds/default/tasks/task-0").json()
    assert task["turns"] == [{"observation": "Which door?", "reply": "an answer"}]


@pytest.mark.parametrize("chunk", CHUNKS)
def test_a_stream_that_becomes_unreadable_ends_with_an_error(start, chunk):
    stream, _ = start(sse(piece("an ans"), chunk)).ask(stream=True)
    with pytest.raises(openai.APIError, match="did not answer in JSON"):
        list(stream)


def test_an_answer_that_comes_after_the_next_turn_does_not_delete_it(start):
    asked, over = threading.Event(), threading.Event()

    def late_first(request):
        if asked.is_set():
            return good(f"answer {len(request['messages'])}")
        asked.set()
        over.wait(TIMEOUT)
        return good("late")

    running = start(late_first, timeout=TIMEOUT)
    with ThreadPoolExecutor() as pool:
        late = pool.submit(running.ask)
        assert asked.wait(TIMEOUT)
        said = running.ask()[0].choices[0].message.content
        running.ask([*ASK, {"role": "assistant", "content": said}, {"role": "user", "content": "and?"}])
        over.set()
        assert late.result(TIMEOUT)[0].choices[0].message.content == "late"
    turns = running.http.get("/v1/worlds/default/tasks/task-0").json()["turns"]
    assert [turn["reply"] for turn in turns] == ["answer 2", "answer 4"]


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_of_any_length_reaches_the_client_and_is_recorded(start, stream):
    long = "x" * 300_000
    running = start(sse(piece(long), piece(reason="stop")) if stream else good(long))
    answer, _ = running.ask(stream=stream)
    texts = [c.choices[0].delta.content or "" for c in answer] if stream else [answer.choices[0].message.content]
    (turn,) = running.http.get("/v1/worlds/default/tasks/task-0").json()["turns"]
    assert ("".join(texts), turn["reply"].count("characters left out")) == (long, 1)


def test_a_stream_of_a_task_that_is_finished_meanwhile_ends_with_an_error(start):
    def finishing(request):
        running.service.store.finish("default", "task-0", Outcome(1.0))
        return sse(piece("an answer"), piece(reason="stop"))

    running = start(finishing)
    stream, _ = running.ask(stream=True)
    with pytest.raises(openai.APIError, match="'task-0' of default is finished"):
        list(stream)


def test_a_context_in_the_messages_of_a_chat_is_not_learned_again(start):
    notes = "The red door hides the prize."
    running = start(good("an answer"))
    running.service.store.put("default", notes, "import", "a test")
    running.ask([ASK[0], {"role": "user", "content": f"Which door? I know: {notes}"}])
    running.finish("task-0", reward=1.0)
    user = running.upstream.requests[-1]["messages"][1]["content"]
    assert (user.count(notes), user.count(QUOTED)) == (1, 1)


def test_an_upstream_that_hangs_is_reported(start):
    over = threading.Event()
    running = start(lambda request: over.wait(TIMEOUT) and good(), tries=2, timeout=0.2)
    try:
        with pytest.raises(openai.APIStatusError) as error:
            running.ask()
    finally:
        over.set()
    assert (error.value.status_code, error.value.body["type"]) == (504, "timeout")


def test_a_refusal_of_the_upstream_passes_as_it_is(start):
    said = {"error": {"message": "no such model", "type": "invalid_request_error", "code": "model_not_found"}}
    running = start((404, said))
    with pytest.raises(openai.NotFoundError) as error:
        running.ask()
    assert (error.value.body, len(running.upstream.requests)) == (said["error"], 1)


@pytest.mark.parametrize(
    ("status", "line", "method", "path", "body"),
    [
        (404, "unknown world 'defalt'.*nearest is 'default'", "GET", "/v1/worlds/defalt", None),
        (404, "unknown world 'mine'", "POST", CHAT, {"messages": ASK, "metadata": {"world": "mine"}}),
        (404, "unknown task of default 'task-9'", "POST", FINISH.replace("task-1", "task-9"), {"reward": 1}),
        (404, "unknown task 'task-9'", "POST", CHAT, {"messages": ASK, "metadata": {"task": "task-9"}}),
        (404, "has no version 7", "POST", "/v1/worlds/default/rollback", {"version": 7}),
        (400, "version: Input should be less than", "POST", "/v1/worlds/default/rollback", {"version": 2**70}),
        (400, "number: Input should be less than", "GET", f"/v1/worlds/default/versions/{2**70}", None),
        (400, "b: Input should be less than", "GET", f"/v1/worlds/default/diff?a=0&b={2**70}", None),
        (400, "given by the store", "POST", "/v1/worlds/default/tasks", {"description": "x", "name": "task-7"}),
        (404, "Not Found", "GET", "/v1/nothing", None),
        (405, "Method Not Allowed", "GET", CHAT, None),
        (409, "'done' of default is finished", "POST", FINISH.replace("task-1", "done"), {"reward": 1}),
        (409, "'done' of default is finished", "POST", CHAT, {"messages": ASK, "metadata": {"task": "done"}}),
        (409, "'done' of default exists", "POST", "/v1/worlds/default/tasks", {"description": "x", "name": "done"}),
        (400, "reward is nan", "POST", FINISH, b'{"reward": NaN}'),
        (400, "reward is 7.0; expected a number from 0 to 1", "POST", FINISH, {"reward": 7}),
        (400, "reward: Input should be a valid number", "POST", FINISH, {"reward": "good"}),
        (400, "feedbak: Extra inputs", "POST", FINISH, {"feedbak": "x"}),
        (400, "feedback has 10,000,000", "POST", FINISH, {"feedback": "x" * 10_000_000}),
        (400, "the body is not JSON: Expecting value", "POST", FINISH, b'{"reward": '),
        (400, "the bounds of rewards are .0.0, inf.", "PUT", "/v1/worlds/new", b'{"bounds": [0, 1e999]}'),
        (400, "the body is not JSON", "POST", CHAT, b'{"messages": '),
        (400, "the body is no JSON object", "POST", CHAT, b"[]"),
        (400, "expected a list of messages", "POST", CHAT, {"messages": "hi"}),
        (400, "expected a message of the user", "POST", CHAT, {"messages": ASK[:1]}),
        (400, "not in the form of chat", "POST", CHAT, {"messages": [{"role": "user", "content": 5}]}),
        (400, "metadata: expected an object", "POST", CHAT, {"messages": ASK, "metadata": 5}),
        (400, "the world 'a b'", "PUT", "/v1/worlds/a b", {}),
        (400, "unknown update of the context 'wipe'", "PUT", "/v1/worlds/new", {"strategy": "wipe"}),
        (409, "of default are of rewrite; expected strategy", "PUT", "/v1/worlds/default", {"strategy": "delta"}),
        (409, "rewards of default are from 0 to 1; expected", "PUT", "/v1/worlds/default", {"bounds": [-1, 1]}),
        (400, "reward: Input should be a valid number", "POST", FINISH, {"reward": "1"}),
        (413, "more than", "POST", CHAT, {"messages": [{"role": "user", "content": "x" * 34_000_000}]}),
    ],
)
def test_bad_input_is_a_clear_4xx_and_loses_nothing(start, status, line, method, path, body):
    running = start(learner)
    for name in ("done", None):
        assert running.http.post("/v1/worlds/default/tasks", json={"description": "x", "name": name}).status_code == 201
    assert running.finish("done", reward=1.0).status_code == 200
    store = running.service.store
    before = store.worlds(), store.tasks("default"), store.history("default")
    content = None if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
    answer = running.http.request(method, path, content=content, headers={"content-type": "application/json"})
    assert (answer.status_code, answer.json()["error"]["type"]) == (status, "invalid_request_error")
    assert re.search(line, answer.json()["error"]["message"])
    assert (store.worlds(), store.tasks("default"), store.history("default")) == before


def test_a_body_of_another_content_type_is_told_the_right_one(start):
    answer = start(learner).http.post(FINISH, content=b'{"reward": 1}', headers={"content-type": "text/plain"})
    assert answer.status_code == 400
    assert answer.json()["error"]["message"].endswith("expected JSON with the header content-type: application/json")


def test_a_first_message_of_any_length_reaches_the_model_and_its_middle_is_not_recorded(start):
    running, long = start(learner), "x" * 300_000
    _, headers = running.ask([{"role": "system", "content": long}, {"role": "user", "content": long}])
    system, user = running.upstream.requests[0]["messages"]
    assert (system["content"].startswith(long), user["content"]) == (True, long)
    task = running.http.get(f"/v1/worlds/default/tasks/{headers['x-codots-task']}").json()
    assert all(task[key].count("characters left out") == 1 for key in ("rules", "description"))


def test_the_turns_of_a_chat_that_began_elsewhere_are_learned(start):
    """Its first request has replies of another server."""
    running = start(good("the fourth"))
    said = [{"role": "assistant", "content": "the second"}, {"role": "user", "content": "No."}]
    running.ask([*ASK, *said, {"role": "assistant", "content": "the third"}, {"role": "user", "content": "Closed."}])
    turns = running.http.get("/v1/worlds/default/tasks/task-0").json()["turns"]
    assert [(turn["observation"], turn["reply"]) for turn in turns] == [
        ("Which door?", "the second"),
        ("No.", "the third"),
        ("Closed.", "the fourth"),
    ]


def test_a_chat_that_goes_on_after_its_task_is_finished_is_a_new_task_without_the_old_turns(start):
    running = start(learner)
    running.ask()
    running.finish("task-0", reward=1.0)
    running.ask([*ASK, {"role": "assistant", "content": "an answer"}, {"role": "user", "content": "And now?"}])
    (turn,) = running.http.get("/v1/worlds/default/tasks/task-1").json()["turns"]
    assert turn["observation"] == "And now?"


def test_worlds_are_made_read_compared_and_rolled_back(start):
    running = start(learner)
    http = running.http
    made = http.put("/v1/worlds/repo", json={"strategy": "delta", "bounds": [-1, 1]}).json()
    assert (made["strategy"]["strategy"], made["low"]) == ("delta", -1)
    assert http.put("/v1/worlds/default").json()["strategy"]["strategy"] == "rewrite"
    assert [w["name"] for w in http.get("/v1/worlds").json()["worlds"]] == ["default", "repo"]
    for _ in range(2):
        task = http.post("/v1/worlds/default/tasks", json={"description": "Which door?"}).json()
        running.finish(task["name"], reward=1.0)
    assert http.get("/v1/worlds/default").json()["head"]["context"] == "2"
    assert http.get("/v1/worlds/default/diff?a=1&b=2").json()["diff"].endswith("-1\n+2")
    assert http.post("/v1/worlds/default/rollback", json={"version": 1}).json()["number"] == 3
    versions = http.get("/v1/worlds/default/versions?limit=2").json()["versions"]
    assert [(v["number"], v["cause"]) for v in versions] == [(2, "task"), (3, "rollback")]
    assert http.get("/v1/worlds/default/versions/1").json()["context"] == "1"
    assert len(http.get("/v1/worlds/default/tasks").json()["tasks"]) == 2


def test_health_readiness_metrics_and_the_schema_are_served(start):
    running = start(learner)
    running.ask()
    running.finish("task-0", reward=1.0)
    assert running.http.get("/health").json() == {"status": "ok"}
    assert running.http.get("/ready").status_code == 200
    metrics = running.http.get("/metrics").text
    for name in ('chats_total{outcome="answered"}', 'updates_total{outcome="accepted"}', "added_seconds_count"):
        assert f"codots_{name} 1.0" in metrics
    assert "codots_worlds_due 0.0" in metrics
    paths = running.http.get("/openapi.json").json()["paths"]
    assert {CHAT, "/v1/worlds/{world}/tasks/{task}/finish", "/ready"} <= set(paths)
    running.app.state.draining = True
    assert running.http.get("/ready").status_code == 503


def test_a_store_that_cannot_be_used_is_told_in_one_line_without_what_is_stored(start, caplog):
    running = start(learner)
    store = running.service.store
    with store.write() as c:
        c.execute(sa.text("ALTER TABLE tasks RENAME TO gone"))
    answers = [running.http.post("/v1/worlds/default/tasks", json={"description": "swordfish"})]
    with store.write() as c:
        c.execute(sa.text("ALTER TABLE worlds RENAME TO away"))
    answers += [running.http.get("/ready"), running.http.post(CHAT, json={"messages": ASK})]
    assert [answer.status_code for answer in answers] == [503] * 3
    said = [answer.json()["error"]["message"] for answer in answers]
    assert said[0] == "the store cannot be used: no such table: tasks"
    assert not any("swordfish" in text or "\n" in text for text in [*said, *caplog.messages])


def test_why_an_update_failed_is_told_without_secrets_and_without_what_was_said(start, monkeypatch):
    running = start((401, {"error": {"message": "the key sesame-sesame is wrong"}}))
    monkeypatch.setenv("DOOR_KEY", "sesame-sesame")
    task = running.http.post("/v1/worlds/default/tasks", json={"description": "swordfish"}).json()["name"]
    running.finish(task, reward=1.0)
    assert "<DOOR_KEY> is wrong" in running.http.get("/ready").json()["failed_updates"]["default"]
    with running.service.store.write() as c:
        c.execute(sa.text("ALTER TABLE transcripts RENAME TO gone"))
    running.upstream.script[:] = [good("<context>swordfish</context>")]
    done = running.finish(running.http.post("/v1/worlds/default/tasks", json={"description": "x"}).json()["name"])
    failed = running.http.get("/ready").json()["failed_updates"]["default"]
    assert done.json()["error"] == failed == "the store cannot be used: no such table: transcripts"


def test_a_pack_through_http_gives_the_rewards_and_contexts_of_training(tmp_path):
    pack, life = trained_life()
    with gateway(str(tmp_path / "agent.db"), "base", "lake") as service, Running(service) as running:
        assert [model.id for model in running.openai.models.list()] == ["base"]
        rewards = [play(running, own, service.style) for own in pack.tasks]
        contexts = [version.context for version in service.store.history("lake")]
        with pytest.raises(openai.BadRequestError, match="tools: a model folder does not take it"):
            running.openai.chat.completions.create(model="base", messages=ASK, tools=[TOOL])
        with pytest.raises(openai.BadRequestError, match="seed is 'a'; expected a whole number"):
            running.openai.chat.completions.create(model="base", messages=ASK, seed="a")
        image = {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:"}}]}
        with pytest.raises(openai.BadRequestError, match="messages: image_url: a model folder reads only text"):
            running.openai.chat.completions.create(model="base", messages=[image])
        chunks = running.openai.chat.completions.create(model="base", messages=ASK, stream=True)
        assert [chunk.choices[0].finish_reason in ("stop", "length") for chunk in chunks] == [True]
    assert rewards == [solve.reward for solve in life.of("solve")]
    assert contexts[:-1] == list(life.contexts)


def play(running, own, style):
    """Play a task of a domain with OpenAI's client, and return its reward."""
    env, name = own.env(style=style), f"own-{own.position}"
    rules = {"role": "system", "content": own.domain.rules_text(own, style)}
    messages = [rules, {"role": "user", "content": env.observe()}]
    while True:
        answer = running.openai.chat.completions.create(model="base", messages=messages, metadata={"task": name})
        text = answer.choices[0].message.content
        step = env.step(text)
        if step.done:
            told = {"reward": step.reward, "feedback": step.feedback, "outcome": step.observation}
            assert running.finish(name, "lake", **told).json()["version"]
            return step.reward
        messages += [{"role": "assistant", "content": text}, {"role": "user", "content": step.observation}]


def test_parts_of_a_message_become_text():
    parts = [{"type": "text", "text": "What is"}, {"type": "image_url", "image_url": {"url": "data:"}}]
    chat = read_chat([{"role": "developer", "content": "See."}, {"role": "user", "content": parts}])
    assert (chat.rules, chat.description, chat.position) == ("See.", "What is\n[image_url]", 0)

"""The endpoint sampler sends the chats that a local model reads; failures are retried and named, never scored."""

import asyncio
import json
import os
import socket
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from urllib.request import urlopen

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from codots.cli.main import main
from codots.core.deadline import STAGE_TIMEOUT
from codots.core.transcript import StopReason
from codots.domains.registry import make_pack
from codots.engine.endpoint import EndpointEngine
from codots.engine.local import LocalEngine
from codots.engine.plan import Plan
from codots.model.alphabet import END, LETTERS, make_render
from codots.model.load import model_folder
from codots.rollout.life import Job
from codots.rollout.profile import Profile, load_profile
from codots.rollout.steps import Given, Own
from codots.sampler.base import SamplingParams
from codots.sampler.endpoint import Endpoint
from codots.sampler.openai import EndpointError, EndpointSampler, RefusedError, messages
from codots.sampler.refusals import words
from tests.sampler.server import good

SECRET = "sk-secret-0123456789"
TEXT = st.text(st.characters(exclude_categories=["Cs"]) | st.sampled_from("\uf8fc\uf8fd\uf8fe\uf8ff"), max_size=30)
PARAMS = SamplingParams(7, 0.5)


def endpoint(server, **changes):
    return Endpoint("m", server.url, **({"key": SECRET, "tries": 3, "pause": 0.001, "timeout": 5.0} | changes))


def ask(end, *, chats=1, turns=("hi",)):
    """Run the same chat several times at once; return the last sampled answer of the first."""

    async def chat(sampler, i):
        render, stop = make_render(), None
        async with sampler.session(("chat", i)) as session:
            for turn in turns:
                ids = render.opening("rules", turn) if stop is None else render.turn(turn, stop)
                sampled = await session.sample(ids, PARAMS)
                stop = sampled.stop
        return sampled

    async def all_chats():
        async with EndpointSampler(end) as sampler:
            return await asyncio.gather(*(chat(sampler, i) for i in range(chats)))

    return asyncio.run(all_chats())[0]


@example(["\uf8fc\uf8fd", "", "\uf8ff\U0010ffff\x00"], [True])
@given(st.lists(TEXT, min_size=3, max_size=3), st.lists(st.booleans(), max_size=3))
def test_any_chat_is_recovered_from_its_ids(texts, stops):
    render, (system, user, reply) = make_render(), texts
    ids, chat = render.opening(system, user), [("system", system), ("user", user)]
    for stopped in stops:
        ids += render.reply(reply) if stopped else render.encode(reply)
        ids += render.turn(user, StopReason.STOP if stopped else StopReason.LENGTH)
        chat += [("assistant", reply), ("user", user)]
    assert [(m["role"], m["content"]) for m in messages(ids)] == chat
    assert render.text(render.reply(reply)) == reply
    assert not {id for id in render.encode("".join(texts)) if id >= LETTERS}


def test_every_request_has_all_options_that_shape_the_answer(serve):
    server = serve(good("one"), good("two"))
    ask(endpoint(server), turns=("hi", "more"))
    first, second = server.requests
    assert {key: first[key] for key in ("model", "temperature", "top_p", "max_tokens")} == {
        "model": "m",
        "temperature": 0.5,
        "top_p": 1.0,
        "max_tokens": 7,
    }
    assert [m["content"] for m in second["messages"]] == ["rules", "hi", "one", "more"]
    assert [m["role"] for m in second["messages"]] == ["system", "user", "assistant", "user"]
    assert first["seed"] != second["seed"]
    assert server.headers[0]["Authorization"] == f"Bearer {SECRET}"


@pytest.mark.parametrize(
    ("answer", "text", "stop"),
    [
        (good("\u00e9\U0001f9ca"), "\u00e9\U0001f9ca", StopReason.STOP),
        (good("half an ans", "length"), "half an ans", StopReason.LENGTH),
        (good(None, "length"), "", StopReason.LENGTH),
        (good(None, "content_filter"), "", StopReason.FILTERED),
        ((200, json.dumps(good("a\ud800b")[1]).encode()), "a?b", StopReason.STOP),
        (
            (400, {"error": {"message": "This model's maximum context length is 8 tokens", "code": "x"}}),
            "",
            StopReason.FULL,
        ),
    ],
)
def test_truncated_filtered_or_too_long_answers_are_not_errors(serve, answer, text, stop):
    server = serve(answer)
    sampled = ask(endpoint(server))
    assert (make_render().text(sampled.ids), sampled.stop) == (text, stop)
    assert (END in sampled.ids) == (stop is StopReason.STOP)
    assert all(logprob != logprob for logprob in sampled.logprobs)
    assert len(server.requests) == 1


def hang(_):
    time.sleep(2)
    return good()


BROKEN = {
    "too many requests": (429, {"error": {"message": f"slow down, {SECRET}"}}),
    "server error": (500, {"error": {"message": "boom"}}),
    "bad gateway": (502, b"<html>", {"content-type": "text/html"}),
    "half of JSON": (200, b'{"choices": [{"mess'),
    "JSON of another kind": (200, {"error": "none"}),
    "no choice": (200, good()[1] | {"choices": []}),
    "a number": (200, b"3"),
    "an HTML page": (200, b"<html>", {"content-type": "text/html"}),
    "neither text nor finish reason": good(None, None),
    "a reply that broke off": good("half", "error"),
    "no answer": hang,
}


@pytest.mark.parametrize("what", BROKEN)
def test_failures_are_retried_then_raised_in_one_line_without_the_key(serve, what, monkeypatch, caplog):
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    server = serve(BROKEN[what], good("at last"))
    end = endpoint(server, timeout=1.0 if what == "no answer" else 5.0)
    assert make_render().text(ask(end).ids) == "at last"
    server = serve(BROKEN[what])
    end = endpoint(server, timeout=0.5 if what == "no answer" else 5.0)
    with pytest.raises(EndpointError, match=f"openai:m at {server.url} gave no answer in 3 tries: ") as error:
        ask(end)
    assert not isinstance(error.value, RefusedError)
    assert len(server.requests) == 3
    assert len(str(error.value).splitlines()) == 1
    assert f"waiting for openai:m at {server.url}, which did not answer: " in caplog.text
    assert SECRET not in f"{error.value}{error.value.__cause__}{caplog.text}{end!r}"


def test_a_refused_connection_is_a_failure():
    with closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
        with pytest.raises(EndpointError, match=r"in 2 tries: it cannot be reached \(.*onnect"):
            ask(Endpoint("m", url, tries=2, pause=0.001))


@pytest.mark.parametrize(("retry_after", "least"), [("0.3", 0.3), ("never", 0), ("-5", 0)])
def test_the_retry_after_header_is_respected(serve, retry_after, least):
    server = serve(good(), (429, {}, {"retry-after": retry_after}), good())
    ask(endpoint(server))  # the first request of a process imports the client
    start = time.monotonic()
    ask(endpoint(server))
    assert least <= time.monotonic() - start < least + 2


def test_the_number_of_concurrent_requests_is_bounded(serve):
    def slow(_):
        time.sleep(0.02)
        return good()

    server = serve(slow)
    ask(endpoint(server, at_once=3), chats=12)
    assert (len(server.requests), server.most_active) == (12, 3)


SPENT = {"message": "You exceeded your current quota", "code": "insufficient_quota"}
FOR_ALL = {
    "no such model": (404, {"error": {"message": "no such model"}}),
    "a model of a server with other statuses": (400, {"message": "Model Not Exist"}),
    "a wrong key": (401, {"error": {"message": "Incorrect API key"}}),
    "a wrong key, elsewhere": (400, [{"error": {"message": "API key not valid."}}]),
    "forbidden": (403, {"detail": "Not authenticated"}),
    "an empty account": (402, {"error": "Insufficient balance"}),
    "an empty account, as if for now": (429, {"error": SPENT}),
}


@pytest.mark.parametrize("what", FOR_ALL)
def test_no_request_is_sent_after_a_refusal_that_concerns_all(serve, what):
    status, body = FOR_ALL[what]
    server = serve((status, body))
    with pytest.raises(RefusedError, match=f"refuses: status {status}, {words(json.dumps(body))}"):
        ask(endpoint(server, at_once=1), chats=5)
    assert len(server.requests) == 1


def test_a_life_whose_endpoint_fails_is_missing_and_the_others_are_complete(serve):
    packs = [make_pack("frozen-lake-v1", "tiny", "dev", i, 2) for i in range(3)]
    failing = packs[1].tasks[0].env().observe()

    def answer(request):
        return (500, {}) if request["messages"][1]["content"] == failing else good("<action>1</action>")

    server = serve(answer)
    engine = EndpointEngine(endpoint(server, at_once=1))
    jobs = [Job(pack, NONE, Profile(solve_tokens=5).episode_params(), ("t", i)) for i, pack in enumerate(packs)]
    finished = []
    lives = engine.rollout(jobs, STAGE_TIMEOUT, lambda index, life: finished.append(life))
    assert [life.failure is None for life in lives] == [True, False, True]
    assert lives[1].failure.startswith(f"EndpointError: openai:m at {server.url} gave no answer in 3 tries")
    assert len(finished) == 3
    with pytest.raises(EndpointError, match=r"every life failed; the first error: .*status 500"):
        EndpointEngine(endpoint(serve((500, {})), at_once=1)).rollout(jobs[:1], STAGE_TIMEOUT)


@pytest.mark.parametrize("status", [400, 413, 422])
def test_a_refused_request_ends_its_own_life_at_once_and_no_other(serve, status):
    packs = [make_pack("frozen-lake-v1", "tiny", "dev", i, 2) for i in range(3)]
    refused = packs[1].tasks[0].env().observe()

    def answer(request):
        return (
            (status, {"error": "odd"}) if refused == request["messages"][1]["content"] else good("<action>1</action>")
        )

    server = serve(answer)
    jobs = [Job(pack, NONE, Profile(solve_tokens=5).episode_params(), ("t", i)) for i, pack in enumerate(packs)]
    lives = EndpointEngine(endpoint(server, at_once=1)).rollout(jobs, STAGE_TIMEOUT)
    line = f"RefusedError: openai:m at {server.url} refuses this request: status {status}, odd"
    assert [life.failure for life in lives] == [None, line, None]
    assert [request["messages"][1]["content"] for request in server.requests].count(refused) == 1


NONE = Given(Profile().strategy(), ("", ""))


def test_an_endpoint_refuses_new_weights(serve):
    async def load():
        async with EndpointSampler(endpoint(serve(good()))) as sampler:
            await sampler.load(None, 1)

    with pytest.raises(ValueError, match="only answers; training needs a model folder"):
        asyncio.run(load())


@pytest.mark.parametrize(
    ("url", "key", "line"),
    [
        ("", "", "openai:m needs OPENAI_API_KEY, or OPENAI_BASE_URL for your own server"),
        ("host:8000", "", "OPENAI_BASE_URL must look like https://host:port/v1"),
        ("http://me:hush-hush@host/v1", "", "OPENAI_BASE_URL must look like https://host:port/v1"),
        ("http://host:port/v1", "", "OPENAI_BASE_URL must look like https://host:port/v1"),
        ("", "sk-with a gap", "OPENAI_API_KEY has characters"),
    ],
)
def test_invalid_environment_variables_are_a_one_line_error(monkeypatch, url, key, line):
    monkeypatch.setenv("OPENAI_BASE_URL", url)
    monkeypatch.setenv("OPENAI_API_KEY", key)
    with pytest.raises(ValueError, match=line) as error:
        Endpoint.from_environment("m", 1)
    assert "hush-hush" not in str(error.value)
    assert "gap" not in str(error.value)


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """Serve the tiny base model with `transformers serve` on localhost; yield its URL."""
    home = tmp_path_factory.mktemp("home")
    (home / "hub").mkdir()
    with closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    args = ["serve", str(model_folder("base")), "--host", "127.0.0.1", "--port", str(port), "--device", "cpu"]
    command = [sys.executable, "-m", "transformers.cli.transformers", *args]
    with (home / "log").open("w") as log:
        process = subprocess.Popen(command, env=os.environ | {"HF_HOME": str(home)}, stdout=log, stderr=log)
    try:
        until = time.monotonic() + 200
        while not _healthy(port):
            assert process.poll() is None, (home / "log").read_text()
            assert time.monotonic() < until, (home / "log").read_text()
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.terminate()
        process.wait(20)


def _healthy(port):
    try:
        return urlopen(f"http://127.0.0.1:{port}/health", timeout=1).status == 200
    except OSError:
        return False


def replies(lives):
    return [[turn.reply for turn in episode.turns] for life in lives for episode in life.episodes]


def test_greedy_replies_are_equal_from_an_endpoint_and_a_local_engine(served):
    folder = model_folder("base")
    profile = load_profile(folder).at(0)
    packs = [make_pack("frozen-lake-v1", "easy", "dev", i, 3) for i in range(3)]
    jobs = [Job(pack, Own(profile.strategy()), profile.episode_params(), ("greedy", i)) for i, pack in enumerate(packs)]
    remote = EndpointEngine(Endpoint(str(folder), served)).rollout(jobs, STAGE_TIMEOUT)
    local = LocalEngine(Plan(folder, profile)).rollout(jobs, STAGE_TIMEOUT)
    assert [life.failure for life in remote] == [None] * 3
    assert replies(remote) == replies(local)
    for one, other in zip(remote, local, strict=True):
        assert [(e.reward, e.stop, e.written) for e in one.episodes] == [
            (e.reward, e.stop, e.written) for e in other.episodes
        ]


def test_the_served_base_model_samples_and_is_not_greedy(served):
    """`transformers serve` reads from the folder, not from the request, whether to sample."""
    folder = model_folder("base")
    profile = load_profile(folder)
    pack, given = make_pack("frozen-lake-v1", "easy", "dev", 0, 1), Given(profile.strategy(), ("",))
    jobs = [Job(pack, given, profile.episode_params(), ("t", i)) for i in range(6)]
    lives = EndpointEngine(Endpoint(str(folder), served)).rollout(jobs, STAGE_TIMEOUT)
    assert len({str(replies([life])) for life in lives}) > 1


def test_a_truncated_answer_has_no_end(served):
    folder = model_folder("base")
    pack = make_pack("frozen-lake-v1", "easy", "dev", 0, 1)
    profile = Profile("compact", 1, 1, 200, 0.0)
    job = Job(pack, Given(profile.strategy(), ("",)), profile.episode_params(), ("t",))
    (life,) = EndpointEngine(Endpoint(str(folder), served)).rollout([job], STAGE_TIMEOUT)
    transcript = life.episodes[0].transcript
    assert END not in [id for id, sampled in zip(transcript.ids, transcript.mask, strict=True) if sampled]
    assert len(life.episodes[0].turns[0].reply.split()) == 1


def test_the_commands_accept_an_endpoint_as_model(served, tmp_path, monkeypatch, capsys):
    name = f"openai:{model_folder('base')}"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OPENAI_BASE_URL", served)
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)

    def codots(*args):
        monkeypatch.setattr(sys, "argv", ["codots", *args])
        with pytest.raises(SystemExit) as end:
            main()
        return end.value.code or 0, *capsys.readouterr()

    options = ["packs=2", "pack_size=2", "temperature=0", "workers=1", "arms=own"]
    code, remote, errors = codots("eval", name, *options, "--json", "rows=rows.jsonl")
    assert code == 0, errors
    _, local, _ = codots("eval", "base", *options, "--json")
    [there], [here] = json.loads(remote)["arms"].values(), json.loads(local)["arms"].values()
    counted = {"tokens_in", "tokens_out"}  # in characters, of an endpoint
    assert {key: there[key] for key in there.keys() - counted} == {key: here[key] for key in here.keys() - counted}
    assert SECRET not in remote + errors + Path("rows.jsonl").read_text()
    code, played, _ = codots("play", "frozen-lake-v1", "--model", name, "--pack-size", "1")
    assert "=== task 1 of 1" in played
    assert played.splitlines()[-1].startswith("rewards: ")
    recipe = Path(__file__).parents[2] / "recipes" / "demo.yaml"
    code, _, errors = codots("train", str(recipe), f"model={name}", "run=r")
    assert code == 2
    assert "is an endpoint, which only answers; expected a model folder" in errors
    assert not Path("r").exists()

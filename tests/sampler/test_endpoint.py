"""An endpoint is asked again in the way that its refusals ask for, and the next requests are sent like that at once."""

import asyncio
import io
import threading
from dataclasses import replace

import pytest
from rich.console import Console

from codots.cli.display import report_table
from codots.core.deadline import STAGE_TIMEOUT
from codots.core.transcript import StopReason
from codots.domains.registry import make_pack
from codots.engine.endpoint import EndpointEngine
from codots.engine.local import LocalEngine
from codots.engine.plan import Plan
from codots.model.alphabet import make_render
from codots.model.device import Place
from codots.model.load import load_model, model_folder
from codots.rollout.life import Job
from codots.rollout.profile import load_profile
from codots.rollout.records import load_rollouts
from codots.rollout.steps import Own
from codots.sampler.base import SamplingParams
from codots.sampler.endpoint import Terms
from codots.sampler.local import LocalSampler
from codots.sampler.openai import EndpointSampler, RefusedError
from tests.evaluating import measured
from tests.sampler.server import good
from tests.sampler.test_openai import SECRET, ask, endpoint, replies


class Window:
    """The tiny base model behind a window that counts prompt and new tokens, as that of vLLM does."""

    def __init__(self, window):
        self.model, self.render = load_model(model_folder("base"), Place())
        self.window, self.lock, self.refusals = window, threading.Lock(), 0

    def __call__(self, request):
        system, user, *later = [message["content"] for message in request["messages"]]
        ids = self.render.opening(system, user)
        for reply, turn in zip(later[::2], later[1::2], strict=True):
            ids += [*self.render.encode(reply), *self.render.turn(turn, StopReason.LENGTH)]
        asked = request["max_tokens"]
        if len(ids) + asked > self.window:
            self.refusals += 1
            return 400, {
                "error": {
                    "message": f"This model's maximum context length is {self.window} tokens. However, you requested "
                    f"{len(ids) + asked} tokens ({len(ids)} in the messages, {asked} in the completion)."
                }
            }
        with self.lock:
            sampled = asyncio.run(self.sample(ids, SamplingParams(asked, request["temperature"])))
        status, body = good(self.render.text(sampled.ids), "stop" if sampled.stop is StopReason.STOP else "length")
        return status, body | {"usage": {"prompt_tokens": len(ids), "completion_tokens": 1, "total_tokens": 2}}

    async def sample(self, ids, params):
        async with LocalSampler(self.model, self.render.stop_ids).session(("s",)) as session:
            return await session.sample(ids, params)


def prompts(profile, packs):
    return [Job(pack, Own(profile.strategy()), profile.episode_params(), ("w", i)) for i, pack in enumerate(packs)]


@pytest.mark.parametrize("window", [40, 70, 90, 2000])
def test_a_window_that_counts_prompt_and_new_tokens_gives_the_lives_of_a_local_model(serve, window):
    folder = model_folder("base")
    profile = load_profile(folder).at(0)
    packs = [make_pack("frozen-lake-v1", "easy", "dev", i, 3) for i in range(4)]
    local = Plan(folder, replace(profile, max_model_len=window))
    server = Window(window)
    remote = EndpointEngine(endpoint(serve(server))).rollout(prompts(profile, packs), STAGE_TIMEOUT)
    expected = LocalEngine(local).rollout(prompts(profile, packs), STAGE_TIMEOUT)
    assert replies(remote) == replies(expected)
    for one, other in zip(remote, expected, strict=True):
        assert [(e.reward, e.stop, e.written) for e in one.episodes] == [
            (e.reward, e.stop, e.written) for e in other.episodes
        ]
    assert bool(server.refusals) == (window < 2000)


def overlong(window, prompt=10):
    def answer(request):
        if prompt + request["max_tokens"] > window:
            return 400, {"error": f"maximum context length is {window}, your request has {prompt} input tokens"}
        return good("half", "length")

    return answer


def test_a_reply_that_fills_the_window_is_full_and_one_of_the_length_asked_for_is_not(serve):
    server = serve(overlong(14))
    assert ask(endpoint(server)).stop is StopReason.FULL
    assert [request["max_tokens"] for request in server.requests] == [7, 4]
    assert ask(endpoint(serve(overlong(17)))).stop is StopReason.LENGTH
    server = serve(overlong(14, prompt=14))
    assert (ask(endpoint(server)).ids, len(server.requests)) == ([], 1)


def test_a_server_that_tells_no_number_is_asked_for_half_and_half_again(serve):
    def answer(request):
        if request["max_tokens"] > 1:
            return 400, {"error": "context_length_exceeded: reduce the length of the messages or completion"}
        return good("h", "length")

    server = serve(answer)
    assert ask(endpoint(server)).stop is StopReason.FULL
    assert [request["max_tokens"] for request in server.requests] == [7, 3, 1]
    server = serve(
        (400, {"error": "maximum context length is 99. You passed 5 input tokens, requested 4 output tokens"})
    )
    assert ask(endpoint(server)).stop is StopReason.FULL
    assert [request["max_tokens"] for request in server.requests] == [7, 3, 1]


def test_the_window_and_a_maximum_length_are_remembered():
    terms = Terms(window=100)
    assert [terms.most(50, used) for used in (0, 60, 99, 200)] == [50, 39, 1, 1]
    assert Terms(cap=20).most(50, 0) == 20


def test_a_maximum_length_of_replies_is_not_a_window(serve):
    def answer(request):
        if request["max_tokens"] > 4:
            return 400, {"error": "max_tokens is too large: 7. This model supports at most 4 completion tokens."}
        return good("half", "length")

    server = serve(answer)
    assert ask(endpoint(server), turns=("hi", "more")).stop is StopReason.LENGTH
    assert [request["max_tokens"] for request in server.requests] == [7, 4, 4]


def picky(refused, said="{} is not supported"):
    """A server that does not take these options, one after another."""

    def answer(request):
        found = next((name for name in refused if name in request), None)
        return good("fine") if found is None else (400, {"error": {"message": said.format(found), "param": None}})

    return answer


@pytest.mark.parametrize(
    ("refused", "sent"),
    [
        (["seed"], {"temperature", "top_p", "max_tokens"}),
        (["seed", "top_p"], {"temperature", "max_tokens"}),
        (["max_tokens"], {"temperature", "top_p", "seed", "max_completion_tokens"}),
        (["max_tokens", "max_completion_tokens", "temperature"], {"top_p", "seed"}),
    ],
)
def test_a_refused_option_is_dropped_or_renamed_and_told_once(serve, caplog, refused, sent):
    server, terms = serve(picky(refused)), Terms()
    for _ in range(2):  # two chunks of an evaluation
        sampler = EndpointSampler(endpoint(server), terms)
        assert asyncio.run(one(sampler)) == "fine"
    assert len(server.requests) == 2 + len(refused)
    assert set(server.requests[-1]) - {"model", "messages"} == sent
    assert [f" does not take {name}; " in line for name, line in zip(refused, caplog.messages, strict=True)] == [
        True
    ] * len(refused)
    assert all(f"{name} is not supported)" in line for name, line in zip(refused, caplog.messages, strict=True))


async def one(sampler):
    async with sampler, sampler.session(("a",)) as session:
        sampled = await session.sample(make_render().opening("rules", "hi"), SamplingParams(7, 0.5))
        return make_render().text(sampled.ids)


def test_many_requests_at_once_are_told_once(serve, caplog):
    server = serve(picky(["seed"]))
    ask(endpoint(server), chats=12)
    assert len(caplog.messages) == 1
    assert len(server.requests) <= 24


def test_top_p_is_dropped_if_it_is_refused_with_temperature(serve):
    def answer(request):
        both = {"temperature", "top_p"} <= set(request)
        return (400, {"error": "`temperature` and `top_p` cannot both be specified"}) if both else good()

    server = serve(answer)
    ask(endpoint(server))
    assert server.requests[-1]["temperature"] == 0.5
    assert "top_p" not in server.requests[-1]


def test_extra_body_chooses_what_is_sent_and_is_never_dropped(serve):
    server = serve(good())
    extra = {"seed": None, "top_p": 0.9, "top_k": 20, "chat_template_kwargs": {"enable_thinking": False}}
    ask(endpoint(server, extra_body=extra))
    sent = {key: value for key, value in server.requests[0].items() if key not in ("model", "messages")}
    assert sent == {"temperature": 0.5, "max_tokens": 7} | {key: extra[key] for key in list(extra)[1:]}
    server = serve(good())
    ask(endpoint(server, extra_body={"max_tokens": None}))
    ask(endpoint(server, extra_body={"max_completion_tokens": 3}))
    assert [server.requests[0].get(name) for name in ("max_tokens", "max_completion_tokens")] == [None, 7]
    assert [server.requests[1].get(name) for name in ("max_tokens", "max_completion_tokens")] == [None, 3]
    server = serve(picky(["top_k"]))
    with pytest.raises(RefusedError, match="refuses this request: status 400, top_k is not supported"):
        ask(endpoint(server, extra_body={"top_k": 20}))


def test_a_prompt_that_a_filter_rejects_is_a_filtered_reply(serve):
    server = serve((400, {"error": {"message": "The prompt was rejected", "code": "content_filter"}}))
    assert ask(endpoint(server)).stop is StopReason.FILTERED


def test_the_words_of_an_error_contain_no_secret(serve):
    server = serve((401, {"error": f"Incorrect API key: {SECRET} {'x' * 999}"}))
    with pytest.raises(RefusedError, match=r"Incorrect API key: <OPENAI_API_KEY> x+$") as error:
        ask(endpoint(server))
    assert len(str(error.value)) < 300


def test_the_settings_of_an_evaluation_choose_what_is_sent(serve, monkeypatch, tmp_path):
    server = serve(good("<action>1</action>"))
    monkeypatch.setenv("OPENAI_BASE_URL", server.url)
    options = {
        "domain": "frozen-lake-v1",
        "packs": 2,
        "pack_size": 1,
        "arms": ["null"],
        "rows": tmp_path / "rows.jsonl",
    }
    measured("openai:m", **options, extra_body={"seed": None, "top_k": 20})
    assert {(request.get("seed"), request["top_k"]) for request in server.requests} == {(None, 20)}
    with pytest.raises(ValueError, match="belongs to another evaluation: there extra_body is"):
        measured("openai:m", **options)
    with pytest.raises(ValueError, match="extra_body is for a model behind an API; expected openai:NAME"):
        measured("base", **options, extra_body={"seed": None})


@pytest.mark.parametrize(
    ("message", "ended", "line"),
    [
        ({"content": None, "reasoning_content": "hm"}, "length", "spent on hidden thoughts alone: raise solve_tokens"),
        ({"content": None}, "content_filter", "withheld by the server's content filter: "),
        (
            {"content": None, "tool_calls": [{"id": "1", "type": "function"}]},
            "tool_calls",
            "tool calls without a text: ",
        ),
    ],
)
def test_replies_without_an_answer_are_counted_and_told_with_what_to_do(
    serve, monkeypatch, tmp_path, caplog, message, ended, line
):
    choice = {"index": 0, "message": {"role": "assistant"} | message, "finish_reason": ended}
    server = serve((200, {"id": "1", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice]}))
    monkeypatch.setenv("OPENAI_BASE_URL", server.url)
    report = measured("openai:m", packs=2, pack_size=2, arms=["own"], workers=1, rows=tmp_path / "rows.jsonl")
    (end,) = {row.ended for row in load_rollouts(tmp_path / "rows.jsonl")}
    assert report.arms["own"].unanswered == {end: 6}
    assert len(server.requests) == 6
    assert f"6 replies of openai:m were {line}" in caplog.text
    assert "was it trained on" not in caplog.text
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(report_table(report))
    assert f"own: 6 replies {line.partition(':')[0]}" in console.export_text()

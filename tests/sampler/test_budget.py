"""An evaluation stops asking at its limit, keeps what it paid for, and goes on with a higher limit."""

import json

import pytest

from codots.rollout.records import load_rollouts
from codots.sampler.budget import Budget, SpentError
from tests.evaluating import measured
from tests.sampler.server import good

LAKE = {
    "domain": "frozen-lake-v1",
    "preset": "tiny",
    "packs": 24,
    "pack_size": 2,
    "workers": 1,
    "arms": ["own", "null"],
}


def counted(request):
    """Answer at random but reproducibly, and count 100 tokens for each request."""
    text = "".join(message["content"] for message in request["messages"])
    status, body = good(f"<context>{len(text) % 7}</context><action>{len(text) % 4}</action>")
    return status, body | {"usage": {"prompt_tokens": 90, "completion_tokens": 10, "total_tokens": 100}}


@pytest.mark.parametrize(
    ("budget", "line"),
    [
        (Budget(100, prompt_tokens=90, completion_tokens=9), None),
        (
            Budget(100, prompt_tokens=90, completion_tokens=10),
            "max_tokens_total=100 is reached with 90 prompt tokens and",
        ),
        (Budget(None, 1.0, 2.0, 10.0, 300_000, 39_999), None),
        (Budget(None, 1.0, 2.0, 10.0, 300_000, 40_000), "max_cost=1 is reached with 1 for 300,000 prompt tokens and"),
        (Budget(prompt_tokens=10**12), None),
    ],
)
def test_a_budget_ends_at_its_limit(budget, line):
    if line is None:
        return budget.check()
    with pytest.raises(SpentError, match=line):
        budget.check()


@pytest.mark.parametrize("limit", ["max_tokens_total", "max_cost"])
def test_an_evaluation_stops_at_its_limit_and_goes_on_with_a_higher_one(serve, monkeypatch, tmp_path, limit):
    server = serve(counted)
    monkeypatch.setenv("OPENAI_BASE_URL", server.url)
    prices = {"price_in": 1e6 / 180, "price_out": 1e6 / 20}  # half of a request each: 1 for a request
    expected = measured("openai:m", **LAKE, rows=tmp_path / "whole.jsonl")
    once, rows, unit = len(server.requests), tmp_path / "rows.jsonl", 100 if limit == "max_tokens_total" else 1
    server.requests.clear()
    for requests in (once // 3, 2 * once // 3):
        with pytest.raises(SpentError) as stop:
            measured("openai:m", **LAKE, **prices, rows=rows, **{limit: requests * unit})
        kept = {(row.arm, row.pack[-1]) for row in load_rollouts(rows)}
        assert str(stop.value).startswith(f"{limit}={requests * unit:g} is reached with ")
        assert f"{len(kept)} finished lives are in {rows}; raise the limit and run the same command" in str(stop.value)
        assert 0 < len(kept) < 48
    assert len(server.requests) <= once + 2 * 8 * 4  # of the lives that a stop ended
    assert measured("openai:m", **LAKE, **prices, rows=rows, **{limit: 2 * once * unit}) == expected
    assert rows.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()


def test_what_was_paid_before_counts(serve, monkeypatch, tmp_path):
    server = serve(counted)
    monkeypatch.setenv("OPENAI_BASE_URL", server.url)
    measured("openai:m", **LAKE, rows=tmp_path / "rows.jsonl")
    rows = [row for row in load_rollouts(tmp_path / "rows.jsonl") if row.prompt_tokens]
    assert sum(row.prompt_tokens + row.completion_tokens for row in rows) == 100 * len(server.requests)
    assert all(row.prompt_tokens == 90 * len(row.turns) for row in rows)
    lines = (tmp_path / "rows.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "rows.jsonl").write_text("".join(lines[:-1]))
    server.requests.clear()
    with pytest.raises(SpentError, match=r"47 finished lives are in"):
        measured("openai:m", **LAKE, max_tokens_total=1, rows=tmp_path / "rows.jsonl")
    assert server.requests == []


def test_a_server_that_counts_nothing_is_counted_in_characters(serve, monkeypatch, tmp_path):
    server = serve(good("x" * 30))
    monkeypatch.setenv("OPENAI_BASE_URL", server.url)
    measured("openai:m", **(LAKE | {"arms": ["null"]}), rows=tmp_path / "rows.jsonl")
    for row, request in zip(load_rollouts(tmp_path / "rows.jsonl")[:1], server.requests[:1], strict=True):
        letters = sum(len(message["content"]) for message in request["messages"])
        assert abs(row.prompt_tokens - letters / 3 * len(row.turns)) < 40
        assert row.completion_tokens == 10 * len(row.turns)


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        (
            {"model": "base", "max_tokens_total": 5},
            "max_tokens_total and max_cost are for openai:NAME as model or writer",
        ),
        ({"max_tokens_total": 5}, "need rows=FILE, which keeps what was paid for"),
        ({"max_cost": 5, "rows": "r", "price_in": 1}, "max_cost needs price_in and price_out"),
        ({"max_tokens_total": 0}, "max_tokens_total: Input should be greater than or equal to 1, got 0"),
    ],
)
def test_a_limit_that_cannot_be_kept_is_refused(changes, line):
    with pytest.raises(ValueError, match=line):
        measured(**({"model": "openai:m"} | LAKE | changes))


def test_a_dry_run_counts_the_requests_of_scripted_policies_and_sends_nothing(serve, monkeypatch, tmp_path, codots):
    server = serve(counted)
    monkeypatch.setenv("OPENAI_BASE_URL", server.url)
    options = [
        "preset=tiny",
        "packs=9",
        "pack_size=3",
        "arms=own,null,oracle",
        f"rows={tmp_path / 'rows.jsonl'}",
        "workers=1",
    ]
    ended = codots("eval", "openai:m", *options, "price_in=2", "price_out=8", "--dry-run", "--json")
    sums = json.loads(ended.out)
    assert (ended.code, server.requests, list(tmp_path.iterdir())) == (0, [], [])
    assert [(row["arm"], row["lives"]) for row in sums["arms"]] == [("own", 9), ("null", 9), ("oracle", 9)]
    own, null, oracle = sums["arms"]
    assert own["requests"] > oracle["requests"] >= 27
    assert oracle["prompt_tokens"][0] > null["prompt_tokens"][0]
    for row in sums["arms"]:
        assert row["prompt_tokens"][0] < row["prompt_tokens"][1]
        assert row["completion_tokens"][1] == pytest.approx(row["requests"] * 1024, rel=0.01)
    cost = [(2 * sums["prompt_tokens"][k] + 8 * sums["completion_tokens"][k]) / 1e6 for k in (0, 1)]
    assert sums["cost"] == pytest.approx(cost)
    out = codots("eval", "openai:m", *options, "price_in=2", "price_out=8", "--dry-run").out
    assert out.splitlines()[3] == "total: {:,} requests, {:,} to {:,} prompt tokens, {:,} to {:,} reply tokens".format(
        sums["requests"], *sums["prompt_tokens"], *sums["completion_tokens"]
    )
    assert out.splitlines()[4].startswith("cost: ")
    codots("eval", "openai:m", *options)
    assert "total: 0 requests" in codots("eval", "openai:m", *options, "--dry-run").out

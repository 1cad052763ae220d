"""Updates by edits: what is not mentioned stays, what is wrong is refused whole, and a task is given what fits it."""

import asyncio
import math
import re
from collections import Counter

import pytest

from codots.config.schema import TrainConfig
from codots.context.bank import Bank, ranked
from codots.context.bank import read_items as read_bank
from codots.context.delta import Delta, read_items
from codots.context.rewrite import CLOSE, OPEN
from codots.context.strategies import UPDATES, strategy_of
from codots.core.rng import stream
from codots.domains.registry import make_pack, register
from codots.evaluation.rescore import rescore
from codots.rollout.life import Job, rollout
from codots.rollout.profile import Profile
from codots.rollout.records import load_rollouts
from codots.rollout.steps import Own
from codots.sampler.scripted import ScriptedSampler
from codots.training.train import train
from tests.evaluating import measured
from tests.toy import Guess

EDITS = [Delta, Bank]


def update(strategy, context, *lines):
    return strategy.parse("\n".join(["I think.", OPEN, *lines, CLOSE]), context)


def context_of(strategy, *updates):
    """Return the context after updates of one line or several, which must all be accepted."""
    context = ""
    for lines in updates:
        parsed = update(strategy, context, *lines.split("\n"))
        assert parsed.failure is None, (lines, parsed)
        context = parsed.context
    return context


def test_edits_of_items_change_these_items_and_no_others():
    three = context_of(Delta(), "add one\n- Add: two words", "add three")
    assert three == "[1 +0 -0] one\n[2 +0 -0] two words\n[3 +0 -0] three"
    assert context_of(Delta(), "add one\nadd two", "helpful 1, [2]\nharmful 2") == "[1 +1 -0] one\n[2 +1 -1] two"
    assert context_of(Delta(), "add one\nadd two", "helpful 2\namend 2: other", "delete 1") == "[2 +1 -0] other"
    assert context_of(Delta(), "add one", "") == "[1 +0 -0] one"


@pytest.mark.parametrize(
    ("lines", "why"),
    [
        ("note this", "'note this' is not an edit; expected add, amend, delete, helpful or harmful"),
        ("add", "'add' has no text"),
        ("amend 1", "'amend 1' has no text"),
        ("delete 9", "'delete 9' names no item; expected one of 1, 2, 3, 4"),
        ("helpful", "'helpful' names no item; expected one of 1, 2, 3, 4"),
        ("amend x y", "'amend x y' names no item; expected one of 1, 2, 3, 4"),
        ("delete 1, 2, 3", "3 of 3 items would be deleted; at most half may be"),
        ("add " + "z" * 200, "the context has 258 characters, the cap is 60"),
    ],
)
def test_a_wrong_edit_is_refused_and_changes_nothing(lines, why):
    before = context_of(Delta(), "add a\nadd b\nadd c")
    parsed = update(Delta(cap=60), before, "add d", lines)
    assert parsed.context == before
    assert parsed.failure == why


def test_a_bank_adds_replaces_and_deletes_items_by_their_titles():
    bank = context_of(Bank(), "## ice\nis cold\n## red  door\nis locked\nkey is blue")
    assert read_bank(bank) == {"ice": "is cold", "red door": "is locked\nkey is blue"}
    assert read_bank(context_of(Bank(), bank, "# ice\nis thin\ndelete red door")) == {"ice": "is thin"}
    assert context_of(Bank(), bank, "") == bank


@pytest.mark.parametrize(
    ("lines", "why"),
    [
        ("is cold", "'is cold' stands before the first title; expected ## TITLE"),
        ("## empty", "the item 'empty' has no text"),
        ("delete fire", "'delete fire' names no item; expected one of ice, door"),
        ("delete ice\ndelete door", "2 of 2 items would be deleted; at most half may be"),
    ],
)
def test_a_wrong_edit_of_a_bank_is_refused_and_changes_nothing(lines, why):
    before = context_of(Bank(), "## ice\ncold\n## door\nred")
    assert update(Bank(), before, *lines.split("\n")) == type(update(Bank(), before))(before, why)


@pytest.mark.parametrize("kind", EDITS)
def test_no_reply_breaks_an_update(kind):
    rng, strategy, context = stream("updates", kind.name), kind(cap=300), ""
    words = [
        "add",
        "amend",
        "delete",
        "helpful",
        "harmful",
        "## a",
        "## b",
        "a",
        "b",
        "1",
        "2",
        "[3]",
        "-4",
        "9" * 30,
        ":",
    ]
    words += ["\n"] * 15 + [OPEN, CLOSE, "\x00", "\u00b2", "[1 +0 -0] x", "[1 +999 -0]"]
    accepted = 0
    for i in range(6000):
        context = context if i % 15 else ""
        inside = " ".join(rng.choice(words, rng.integers(0, 9)))
        parsed = strategy.parse(f"{OPEN}{inside}{CLOSE}", context)
        assert len(parsed.context) <= 300
        assert parsed.failure is None or (parsed.context == context and "\n" not in parsed.failure)
        accepted += parsed.failure is None and parsed.context != context
        context = parsed.context
        items = read_items(context) if kind is Delta else read_bank(context)
        assert update(strategy, context).context == context, "reading and writing a context changes nothing"
        assert bool(items) == bool(context)
    assert accepted > 50


def slow_scores(texts, query, k1=1.5, b=0.75):
    """Score texts by BM25 in plain loops."""
    documents = [re.findall(r"\w+", text.lower()) for text in texts]
    mean = sum(map(len, documents)) / len(documents)
    scores = []
    for words in documents:
        counts, score = Counter(words), 0.0
        for word in set(re.findall(r"\w+", query.lower())):
            having = sum(word in other for other in documents)
            idf = math.log(1 + (len(documents) - having + 0.5) / (having + 0.5))
            score += idf * counts[word] / (counts[word] + k1 * (1 - b + b * len(words) / mean))
        scores.append(score)
    return scores


def test_items_are_ranked_as_by_a_slow_loop_of_bm25():
    rng, vocabulary = stream("bm25"), [f"w{i}" for i in range(12)]
    for _ in range(30):
        texts = [" ".join(rng.choice(vocabulary, rng.integers(1, 12))) for _ in range(rng.integers(1, 9))]
        query = " ".join(rng.choice([*vocabulary, "unknown"], rng.integers(0, 6)))
        scores = [round(score, 4) for score in slow_scores(texts, query)]
        found = [scores[k] for k in ranked(texts, query)]
        assert found == sorted(scores, reverse=True), (texts, query)


def test_a_task_is_given_the_items_that_fit_it_within_their_length():
    bank, context = Bank(shown=60), ""
    for word in ("fire", "water", "earth", "wind"):
        context = context_of(bank, *([context] if context else []), f"## about {word}\n{word} is {word}ish and more")
    shown = bank.solve("rules of water", context, "the wind blows", "natural").system
    assert "waterish" in shown or "windish" in shown
    assert "fireish" not in shown
    assert "earthish" not in shown
    for query in ("", "water", "fire wind"):
        assert len(bank.found(context, query)) <= 60
    assert Bank(shown=1000).found(context, "water") == context


@pytest.mark.parametrize("kind", UPDATES.values())
def test_a_strategy_is_made_again_from_its_settings(kind):
    strategy = kind(cap=77)
    assert strategy_of(strategy.settings()) == strategy
    assert Profile(update=kind.name, max_context_chars=77).strategy() == strategy


@pytest.mark.usefixtures("registry")
@pytest.mark.parametrize(
    ("kind", "wrote"), [("delta", ("add It is {}.", "helpful 1")), ("bank", ("## number\nIt is {}.", ""))]
)
def test_what_an_edit_wrote_is_read_by_the_next_task(kind, wrote, render):
    register(Guess())
    pack = make_pack("guess-v0", "few", "dev", 0, 3)
    number, strategy = pack.world.hidden, Profile(update=kind).strategy()

    def player(names):
        position, act = names[-2:]
        if act == "update":
            return lambda text: f"{OPEN}{wrote[position].format(number)}{CLOSE}"
        return lambda text: str(number) if f"It is {number}." in text else str((number + 1) % 4)

    job = Job(pack, Own(strategy), Profile().episode_params(), ("edits",))
    life = asyncio.run(rollout(job, ScriptedSampler(render, player), render))
    assert [episode.reward for episode in life.of("solve")] == [0, 1, 1]
    assert [episode.stop for episode in life.of("update")] == ["ok", "ok"]


@pytest.mark.parametrize("kind", EDITS)
def test_a_model_is_measured_trained_and_re_scored_with_edits(kind, tmp_path):
    world = {
        "domain": "bandit-v1",
        "preset": "tiny",
        "pack_size": 2,
        "packs_per_step": 2,
        "profile": {"update": kind.name},
    }
    config = TrainConfig(worlds=[world], run=str(tmp_path / "run"), steps=1, group_size=2, workers=1, eval_every=0)
    assert [report.step for report in train(config)] == [1]
    rows = tmp_path / "eval.jsonl"
    domain = {"domain": "bandit-v1", "preset": "tiny", "packs": 3, "pack_size": 3, "workers": 1, "rows": rows}
    measured("base", profile={"update": kind.name}, **domain)
    assert {row.prompt["strategy"] for row in load_rollouts(rows)} == {kind.name}
    assert all(change.changed == change.diverged == change.missing == 0 for change in rescore(rows).changes.values())


def test_an_unknown_update_names_the_nearest():
    with pytest.raises(ValueError, match=r"unknown update of the context 'detla'; .*the nearest is 'delta'"):
        Profile(update="detla")

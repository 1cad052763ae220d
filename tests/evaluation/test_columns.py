"""Columns beside the reward are those of slow loops over the rows."""

import math
from dataclasses import replace

import numpy as np
import pytest

from codots.core.rng import stream
from codots.domains.bandit.notes import SURE, write_claim
from codots.domains.registry import make_pack
from codots.evaluation.columns import repeats
from codots.evaluation.curves import compare
from codots.rollout.records import MISSING, Row
from tests.evaluating import measured

SIZE = 4


def lives_of(packs, arm):
    """Return lives of random rewards, lengths and claims, of which one is missing."""
    rng, lives = stream("columns", arm), []
    for i, pack in enumerate(packs):
        rows, options = [], pack.world.hidden.options
        for j in range(SIZE):
            claims = [write_claim([option], SURE, "natural") for option in options if rng.random() < 0.4]
            for kind in ("solve", "update")[: 2 - (j == SIZE - 1 or arm == "null")]:
                reward = float(rng.integers(2)) if kind == "solve" else 0.0
                sizes = map(int, rng.integers(1, 50, 2))
                row = Row(list(pack.names), arm, 0, j, kind, reward, "", "\n".join(claims), None, [], "", next(sizes))
                rows.append(replace(row, read=next(sizes)))
        gone = Row(list(pack.names), arm, 0, 0, MISSING, 0.0, MISSING, "", None, [], "", 0)
        lives.append([gone] if i == 2 and arm == "own" else rows)
    return lives


@pytest.fixture(scope="module")
def packs():
    return [make_pack("bandit-v1", "easy", "dev", i, SIZE) for i in range(7)]


@pytest.fixture(scope="module")
def lives(packs):
    return {arm: lives_of(packs, arm) for arm in ("own", "null")}


def slow_mean(values):
    return round(sum(values) / len(values), 4)


def test_tokens_lengths_and_regret_are_those_of_slow_loops(packs, lives):
    report = compare(packs, lives)
    for arm, curves in report["arms"].items():
        there = [rows for rows in lives[arm] if rows[0].kind != MISSING]
        for j in range(SIZE):
            at = [[row for row in rows if row.position == j] for rows in there]
            assert curves.tokens_in[j] == slow_mean([sum(row.read for row in rows) for rows in at])
            assert curves.tokens_out[j] == slow_mean([sum(row.tokens for row in rows) for rows in at])
            assert curves.context_chars[j] == slow_mean([len(rows[0].context) for rows in at])
            assert curves.regret[j] == slow_mean([1.0 - rows[0].reward for rows in at])


def test_facts_are_counted_kept_and_lost_as_in_slow_loops(packs, lives):
    curves = compare(packs, lives)["arms"]["own"]
    facts = [
        [pack.domain.facts(pack.world, row.context)[:2] for row in rows if row.kind == "solve"]
        for pack, rows in zip(packs, lives["own"], strict=True)
        if rows[0].kind != MISSING
    ]
    assert curves.right == [slow_mean([life[j][0] for life in facts]) for j in range(SIZE)]
    assert curves.wrong == [slow_mean([life[j][1] for life in facts]) for j in range(SIZE)]
    pairs = [[(life[j][0], life[j + 1][0]) for life in facts] for j in range(SIZE - 1)]
    assert curves.kept == [slow_mean([min(one, two) for one, two in at]) for at in pairs]
    assert curves.lost == [slow_mean([max(one - two, 0) for one, two in at]) for at in pairs]
    assert max(curves.lost) > 0


def test_tasks_that_the_context_hurt_are_paired_by_pack(packs, lives):
    hurt = compare(packs, lives)["hurt"]
    for j in range(SIZE):
        pairs = [
            (own[2 * j].reward, null[j].reward)
            for own, null in zip(lives["own"], lives["null"], strict=True)
            if own[0].kind != MISSING
        ]
        assert hurt[j] == slow_mean([one < two for one, two in pairs])
    assert compare(packs, {"own": lives["own"]})["hurt"] is None


def test_tasks_with_the_content_of_an_earlier_one_are_told_apart():
    packs = [make_pack("alchemy-v0", "easy", "dev", i, 6) for i in range(20)]
    seen = [repeats(pack) for pack in packs]
    assert any(map(any, seen))
    assert not any(again[0] for again in seen)
    for pack, again in zip(packs, seen, strict=True):
        texts = [pack.domain.rules_text(task, "natural") + task.env().observe() for task in pack.tasks]
        assert again == [text in texts[:j] for j, text in enumerate(texts)]

    def row(pack, j, again):
        return Row(list(pack.names), "own", 0, j, "solve", 0.9 if again else 0.2, "", "", None, [], "", 1)

    lives = [[row(pack, j, a) for j, a in enumerate(again)] for pack, again in zip(packs, seen, strict=True)]
    curves = compare(packs, {"own": lives})["arms"]["own"]
    assert (curves.first_seen, curves.repeated) == (0.2, 0.9)
    assert curves.tokens_in == [], "rows of earlier versions do not have them"


def test_an_evaluation_counts_every_token_once():
    report = measured("base", domain="frozen-lake-v1", preset="tiny", packs=4, pack_size=3, workers=1)
    own = report.arms["own"]
    assert sum(map(sum, (arm.tokens_out for arm in report.arms.values()))) * 4 == pytest.approx(report.tokens, abs=0.01)
    assert all(value > 0 for value in own.tokens_in)
    assert not math.isnan(np.sum(own.regret))

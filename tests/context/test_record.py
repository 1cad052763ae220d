"""Records of a life are written without a model, keep their budget, and lose the oldest side first."""

import asyncio
import string

import numpy as np
import pytest

from codots.context.record import RECORDS, Facts, Transcript, newest
from codots.context.rewrite import Trajectory, Turn
from codots.core.rng import stream
from codots.domains.registry import make_pack
from codots.domains.teacher import make_teacher
from codots.evaluation.curves import scripted_rewards
from codots.evaluation.rescore import rescore
from codots.model.alphabet import make_render
from codots.rollout.life import Job, rollout
from codots.rollout.profile import Profile
from codots.rollout.records import load_rollouts
from codots.rollout.steps import Own
from codots.sampler.scripted import ScriptedSampler
from tests.evaluating import measured


def words(text):
    return len(text.split())


def trajectory(k, reward=1.0):
    turns = (Turn(f"observation {k}\nof two lines", f"first {k}"), Turn("more", f"last\n{k}"))
    return Trajectory("rules", turns, f"outcome {k}\nof two lines", reward, f"feedback {k}")


def slowly(text, budget, count):
    """Try every end of a text, from the longest to the shortest, first those that start with a line."""
    lines = [at for at in range(len(text)) if at == 0 or text[at - 1] == "\n" if text[at] != "\n"]
    starts = [at for at in range(len(text)) if not text[at].isspace() and (at == 0 or text[at - 1].isspace())]
    return next((text[at:] for at in (*lines, *starts) if count(text[at:]) <= budget), "")


def test_the_newest_end_of_a_text_is_that_of_a_slow_search():
    rng = stream("newest")
    for _ in range(300):
        letters = rng.choice(list(string.ascii_lowercase[:3] + "  \n"), rng.integers(0, 40))
        text, budget = "".join(letters).strip(), int(rng.integers(0, 12))
        for count in (len, words):
            assert newest(text, budget, count) == slowly(text, budget, count), (text, budget)


@pytest.mark.parametrize("style", ["natural", "compact"])
@pytest.mark.parametrize("kind", RECORDS.values())
def test_a_record_keeps_its_budget_and_loses_the_oldest_task_first(kind, style):
    whole = short = ""
    for k in range(30):
        whole = kind(10**6).record(trajectory(k), whole, style, words)
        short = kind(40).record(trajectory(k), short, style, words)
        assert words(short) <= 40
        assert whole.endswith(short)
        assert f"feedback {k}" in short
    assert all(f"outcome {k}" in whole for k in range(30))
    assert "feedback 0" not in short


def test_a_transcript_holds_every_turn_and_notes_hold_one_line_for_each_task():
    text = Transcript(10**6).record(trajectory(1), "", "natural", words)
    for part in ("observation 1\nof two lines", "first 1", "last\n1", "outcome 1\nof two lines", "1.000", "feedback 1"):
        assert part in text
    assert "rules" not in text
    notes = Facts(10**6).record(
        trajectory(2, None), Facts(10**6).record(trajectory(1), "", "natural", words), "natural", words
    )
    assert notes.splitlines() == [
        "- After the reply last 1: outcome 1 of two lines Reward 1.000. feedback 1",
        "- After the reply last 2: outcome 2 of two lines feedback 2",
    ]


@pytest.mark.parametrize("kind", RECORDS.values())
def test_a_scripted_reader_of_a_record_plays_as_bayes_which_remembers_everything(kind):
    packs = [make_pack("bandit-v1", "easy", "dev", i, 4) for i in range(300)]
    teacher, render, params = make_teacher("skilled", packs[0].domain), make_render(), Profile().episode_params()

    async def lives():
        nobody = ScriptedSampler(render, lambda names: lambda text: "")
        jobs = [Job(pack, Own(kind(10**6)), params, ("read", i), teacher) for i, pack in enumerate(packs)]
        return [await rollout(job, nobody, render) for job in jobs]

    reward_PS = np.array([[episode.reward for episode in life.of("solve")] for life in asyncio.run(lives())])
    assert (reward_PS == scripted_rewards("bayes", packs)).all()
    assert np.abs(reward_PS.mean(0) - [0.25, 0.5, 0.75, 1.0]).max() < 0.08


def test_records_are_measured_within_their_budget_and_re_scored(tmp_path):
    rows = tmp_path / "eval.jsonl"
    settings = {"packs": 4, "pack_size": 4, "workers": 1, "arms": ["own", "transcript", "notes"], "rows": rows}
    report = measured("base", domain="frozen-lake-v1", context_tokens=60, **settings)
    assert report.context_tokens == 60
    found = load_rollouts(rows)
    assert {row.kind for row in found if row.arm != "own"} == {"solve"}
    assert all(row.context for row in found if row.arm != "own" and row.position)
    assert all(change.changed == change.diverged == change.missing == 0 for change in rescore(rows).changes.values())


def test_a_budget_below_one_token_is_refused():
    with pytest.raises(ValueError, match="context_tokens"):
        measured("base", context_tokens=0)

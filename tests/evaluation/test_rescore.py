"""Tests of re-scoring: unchanged code changes nothing, and a mended parser gives the numbers of a new evaluation."""

import asyncio
import json
import math
from dataclasses import replace

import pytest

from codots.config.schema import TrainConfig
from codots.context.rewrite import Parsed, Rewrite
from codots.domains.frozen_lake import env as lake
from codots.domains.registry import domain_ids, first_preset, get_domain, make_pack
from codots.domains.scripted import play_pack
from codots.evaluation.curves import arm_report
from codots.evaluation.evaluate import ARMS, as_json
from codots.evaluation.replay import missing_at, replay_lives
from codots.evaluation.rescore import change_of, report_of, rescore
from codots.evaluation.rescored import rescore_file, rescore_run
from codots.model.alphabet import make_render
from codots.report.lives import LOST, life_view
from codots.report.page import write_report
from codots.report.run import read_run
from codots.rollout.life import Job, rollout
from codots.rollout.profile import Profile
from codots.rollout.records import DIVERGED, MISSING, Row, dump, life_rows, load_rollouts, lost
from codots.rollout.steps import Given, Own
from codots.sampler.scripted import ScriptedSampler
from codots.training.train import train
from tests.evaluating import measured
from tests.random_model import make_random_model
from tests.toy import Guess, Talk, TalkEnv

PACKS, SIZE = 12, 3
LAKE = {
    "domain": "frozen-lake-v1",
    "preset": "tiny",
    "pack_size": SIZE,
    "packs": PACKS,
    "workers": 1,
    "arms": list(ARMS),
}


@pytest.fixture(autouse=True)
def domains(registry):
    registry |= {domain.id: domain for domain in (Guess(), Talk())}


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return make_random_model(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def right(base, tmp_path_factory):
    """The report and the rows of an evaluation with the right parsers."""
    path = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    return measured(base, **LAKE, rows=path), path


def scripted_life(pack, contexts, policy, style="natural"):
    """Roll out a life in which a scripted policy acts, and every update writes a note."""
    said = [[text for text, _ in played.turns] for played in play_pack(pack, policy, style)]

    def script(names):
        position, kind = names[-2:]
        replies = iter(said[position] if kind == "solve" else [f"<context>note {position}</context>"])
        return lambda text: next(replies)

    render = make_render()
    params = Profile(style=style).episode_params()
    return asyncio.run(rollout(Job(pack, contexts, params, ("life",)), ScriptedSampler(render, script), render))


def numbers(report):
    """Return a report as JSON without the names of the models."""
    return json.dumps({**as_json(report), "model": None, "writer": None})


def break_actions(monkeypatch):
    """Let the lake's parser refuse the replies that end with the code 2."""
    read = lake.read_code
    monkeypatch.setattr(lake, "read_code", lambda *reply: None if (code := read(*reply)) == "2" else code)


def break_contexts(monkeypatch):
    """Let the parser of contexts refuse those with a rule, such as `1=up`."""
    parse = Rewrite.parse

    def refuse(self, text, context):
        parsed = parse(self, text, context)
        return Parsed(context, "a rule") if "=" in parsed.context else parsed

    monkeypatch.setattr(Rewrite, "parse", refuse)


def test_unchanged_code_gives_the_same_rows_and_the_same_report(right):
    report, path = right
    found = rescore(path)
    assert found.content().encode() == path.read_bytes()
    assert numbers(report_of(found)) == numbers(report)
    assert {(c.changed, c.updates, c.diverged, c.missing) for c in found.changes.values()} == {(0, 0, 0, 0)}
    assert {c.rescored for c in found.changes.values()} == {PACKS * SIZE}


@pytest.mark.parametrize("breaking", [break_actions, break_contexts])
def test_mending_a_parser_and_sampling_again_what_diverged_gives_the_evaluation_of_the_right_parser(
    breaking, right, base, tmp_path
):
    report, path = right
    broken = tmp_path / "rows.jsonl"
    with pytest.MonkeyPatch.context() as patch:
        breaking(patch)
        wrong = measured(base, **LAKE, rows=broken)
    assert numbers(wrong) != numbers(report)
    recorded = broken.read_bytes()
    found, out = rescore_file(broken)
    assert broken.read_bytes() == recorded
    assert sum(change.diverged for change in found.changes.values())
    expected = {(row.arm, *row.pack, row.kind, row.position): row for row in load_rollouts(path)}
    scored = [row for row in load_rollouts(out) if row.stop != DIVERGED]
    assert len(scored) > PACKS * SIZE
    assert all(row == expected[row.arm, *row.pack, row.kind, row.position] for row in scored)
    with pytest.raises(ValueError, match=r"was re-scored, and tasks diverged"):
        rescore(out)
    again = measured(base, **LAKE, rows=out)
    both = (sorted(file.read_text().splitlines()) for file in (out, path))  # rows are in the order in which lives end
    assert next(both) == next(both)
    assert numbers(again) == numbers(report)


def test_mending_the_parser_of_single_replies_gives_the_numbers_of_the_right_one(tmp_path):
    """With empty contexts and one reply for each task, nothing can diverge."""
    packs = [make_pack("guess-v0", "few", "dev", i, SIZE) for i in range(PACKS)]
    packs = [replace(pack, tasks=tuple(replace(task, content=1) for task in pack.tasks)) for pack in packs]

    def rows(step):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Guess, "make_env", step)
            lives = [scripted_life(pack, Given(Rewrite(), ("",) * SIZE), "random") for pack in packs]
        return [life_rows(pack, life) for pack, life in zip(packs, lives, strict=True)]

    make_env = Guess.make_env

    def one_guess(self, task, **how):
        return make_env(self, replace(task, content=1), **how)

    def deaf(self, task, **how):
        env = one_guess(self, task, **how)
        hear = env.step
        env.step = lambda text: hear("" if text == "2" else text)
        return env

    expected, broken = rows(one_guess), rows(deaf)
    assert broken != expected
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Guess, "make_env", one_guess)
        mended = replay_lives([(life, None) for life in broken])
    assert mended == expected
    change = change_of(list(zip(broken, mended, strict=True)))
    assert (change.rescored, change.diverged, change.missing) == (PACKS * SIZE, 0, 0)
    assert change.changed == sum(
        a.reward != b.reward for x, y in zip(broken, expected, strict=True) for a, b in zip(x, y, strict=True)
    )
    for j in range(SIZE):
        assert change.before[j] == pytest.approx(sum(life[j].reward for life in broken) / PACKS, abs=1e-4)
        assert change.after[j] == pytest.approx(sum(life[j].reward for life in expected) / PACKS, abs=1e-4)


@pytest.mark.parametrize("id", domain_ids())
def test_unchanged_domains_give_the_same_rows(id):
    domain, preset = get_domain(id), first_preset(id)
    if lacks := domain.lacks(preset):
        pytest.skip(lacks)
    pack, lives = make_pack(id, preset, "dev", 0, 2), []
    for style in domain.styles:
        for contexts in (Own(Rewrite("wipe", 99)), Given(Rewrite(), ("", "given"))):
            for policy in ("random", "informed"):
                life = scripted_life(pack, contexts, policy, style)
                lives.append(json.loads(json.dumps([vars(row) for row in life_rows(pack, life)])))
    lives = [[Row(**values) for values in rows] for rows in lives]
    assert all(rows for rows in lives)
    assert replay_lives([(rows, None) for rows in lives]) == lives


def diverged(rows, arm="own", pack=0):
    """Return the first missing row of a life."""
    return lost([row for row in rows if (row.arm, row.pack[-1]) == (arm, pack)])


def edited(path, target, edit):
    """Copy a file of rows, with another first row of kind `solve` that `edit` returns."""
    lines = path.read_text().splitlines()
    values = json.loads(lines[1])
    lines[1] = json.dumps(edit(values) or values, ensure_ascii=False)
    target.write_text("\n".join(lines) + "\n")
    return target


def drop_turn(values):
    values["turns"] = values["turns"][:-1]


def other_observation(values):
    values["turns"][-1][0] = "another board"


def other_hash(values):
    values["prompt"]["hash"] = "0"


def other_context(values):
    values["context"] = "another"


@pytest.mark.parametrize(
    ("edit", "why"),
    [
        (drop_turn, "asks for reply 1, the record ends after reply 0"),
        (other_observation, "the observation of turn 1 was another one"),
        (other_hash, "the prompt of this solve was another one"),
        (other_context, "the context of this solve was another one"),
    ],
)
def test_what_the_model_was_never_asked_diverges_and_is_counted_as_missing(edit, why, base, tmp_path):
    path = tmp_path / "rows.jsonl"
    measured(base, **LAKE | {"packs": 3, "arms": ["own", "frozen"]}, rows=path)
    first = next(k for k, row in enumerate(load_rollouts(path)) if len(row.turns) == 1)
    assert first == 0
    found = rescore(edited(path, tmp_path / "edited.jsonl", edit))
    rows = [row for life in found.lives.values() for row in life]
    marked = diverged(rows)
    assert (marked.position, marked.stop, marked.reward) == (0, DIVERGED, 0.0)
    assert why in marked.outcome
    assert "no longer complete" in diverged(rows, "frozen").outcome
    report = report_of(found)
    assert {(arm.missing, tuple(arm.diverged)) for arm in report.arms.values()} == {(1, (1, 1, 1))}
    assert {(c.diverged, c.rescored) for c in found.changes.values()} == {(SIZE, 2 * SIZE)}


def test_the_tasks_before_an_episode_that_diverged_keep_their_rewards(right, tmp_path):
    _, path = right
    lives = [row for row in load_rollouts(path) if row.arm == "own" and row.pack[-1] == 0]
    at = next(k for k, row in enumerate(lives) if (row.kind, row.position) == ("solve", 1))
    lives[at] = replace(lives[at], prompt=lives[at].prompt | {"hash": "0"})
    [now] = replay_lives([(lives, None)])
    assert now[:-1] == lives[:at]
    assert (now[-1].kind, now[-1].position, now[-1].stop) == (MISSING, 1, DIVERGED)
    packs = [make_pack("frozen-lake-v1", "tiny", "dev", 0, SIZE)]
    arm = arm_report(packs, [now])
    assert (arm.missing, arm.diverged) == (1, [0, 1, 1])
    assert arm.reward[0] == round(lives[0].reward, 4)
    assert [math.isnan(value) for value in (*arm.reward, *arm.success, *arm.malformed)] == [False, True, True] * 3


def test_tasks_without_a_common_context_diverge_one_by_one(right):
    _, path = right
    life = [row for row in load_rollouts(path) if row.arm == "null" and row.pack[-1] == 0]
    changed = [life[0], replace(life[1], prompt=life[1].prompt | {"hash": "0"}), life[2]]
    [now] = replay_lives([(changed, None)])
    assert [now[0], now[2]] == [life[0], life[2]]
    assert (now[1].stop, now[1].position) == (DIVERGED, 1)


def test_lost_lives_and_rows_of_earlier_versions_stay_missing(right, tmp_path):
    _, path = right
    life = [row for row in load_rollouts(path) if row.arm == "null" and row.pack[-1] == 0]
    gone = Row(life[0].pack, "null", 0, 0, MISSING, 0.0, MISSING, "", None, [], "the endpoint is gone", 0)
    old = [replace(row, prompt=None) for row in life]
    now = replay_lives([([gone], None), (old, None), (life[1:], None), (life, None)])
    assert now[0] == [gone]
    assert [(rows[0].kind, rows[0].stop) for rows in now[1:3]] == [(MISSING, MISSING)] * 2
    assert "earlier version" in now[1][0].outcome
    assert now[3] == life
    file = tmp_path / "old.jsonl"
    file.write_text(dump(old))
    with pytest.raises(ValueError, match=r"old\.jsonl cannot be re-scored: .*earlier version.*; sample again"):
        rescore(file)
    assert load_rollouts(file) == old


def test_a_reply_that_ends_the_task_earlier_leaves_the_later_replies_out(monkeypatch):
    pack = make_pack("talk-v0", "few", "dev", 0, 1)
    rows = life_rows(pack, scripted_life(pack, Given(Rewrite(), ("",)), "random"))
    step = TalkEnv.step

    def short(self, text):
        return replace(step(self, text), done=True, reward=0.5, stop="end")

    monkeypatch.setattr(TalkEnv, "step", short)
    [[row]] = replay_lives([(rows, None)])
    assert (row.reward, row.turns, row.ended, row.tokens) == (0.5, rows[0].turns[:1], None, rows[0].tokens)


def test_a_lost_writer_and_a_stopped_evaluation_count_as_in_the_evaluation(base, right, tmp_path):
    path = tmp_path / "rows.jsonl"
    report = measured(base, writer=str(base), **LAKE | {"packs": 4, "arms": ["own", "null"]}, rows=path)
    found = rescore(path)
    assert found.content().encode() == path.read_bytes()
    assert numbers(report_of(found)) == numbers(report)
    lines = path.read_text().splitlines(keepends=True)
    kept = [line for line in lines if '"arm": "null"' not in line]
    path.write_text("".join(kept))
    assert {arm: report.missing for arm, report in report_of(rescore(path)).arms.items()} == {"own": 0, "null": 4}


def test_a_run_is_re_scored_into_a_new_folder_that_the_report_reads(base, tmp_path):
    run = tmp_path / "run"
    settings = {"preset": "tiny", "pack_size": 2, "steps": 2, "packs_per_step": 2, "group_size": 2, "workers": 1}
    config = TrainConfig.model_validate(
        settings | {"run": str(run), "model": str(base), "rollout_log_every": 1, "max_logprob_gap": 9}
    )
    list(train(config))
    report = measured(run, **LAKE | {"packs": 3, "arms": ["own", "null"]}, rows=run / "eval.jsonl")
    (run / "eval.json").write_text(json.dumps(as_json(report)))
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    found, out = rescore_run(run)
    assert {path: path.read_bytes() for path in before} == before
    assert out == run / "rescored"
    for one in found:
        name = one.path.relative_to(run)
        assert (out / name).read_bytes() == (run / name).read_bytes()
    values = json.loads((out / "eval.json").read_text())
    assert values.pop("rescored")["own"]["changed"] == 0
    assert values == as_json(report)
    page = tmp_path / "page.html"
    write_report([out], page)
    assert read_run(out).evaluations[0].when == read_run(run).evaluations[0].when == "after"
    with pytest.raises(ValueError, match="rescored exists; remove it"):
        rescore_run(run)


def test_a_page_shows_a_life_that_diverged_as_missing(right):
    _, path = right
    rows = [row for row in load_rollouts(path) if row.arm == "own" and row.pack[-1] == 0]
    view = life_view("eval", [*rows[:2], missing_at(rows[0], 1, DIVERGED, "sample again")], None)
    assert (view.rewards, view.flags, view.story.gone) == ([], LOST, "sample again")

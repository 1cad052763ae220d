"""Tests of `evaluate`: the contexts of each arm, and every number against a plain loop over the rows."""

import asyncio
import io
import json
import math
import shutil
import sys
from dataclasses import replace

import numpy as np
import pytest
from rich.console import Console
from scipy import stats

from codots.cli.display import report_table
from codots.config.evaluate import EvalConfig
from codots.context.rewrite import Rewrite
from codots.core.deadline import STAGE_TIMEOUT
from codots.domains.registry import make_pack, register
from codots.engine.open import OpenModel
from codots.evaluation import curves
from codots.evaluation.curves import scripted_rewards
from codots.evaluation.evaluate import (
    ARMS,
    POLICIES,
    RANDOM_LIVES,
    as_json,
    baselines,
    evaluate,
    reseeded,
    split_known,
)
from codots.evaluation.stats import mean_ci
from codots.rollout.arms import CONTROLS, contexts_of, stranger
from codots.rollout.life import Job
from codots.rollout.profile import load_profile
from codots.rollout.records import life_rows, load_rollouts, missing_row
from codots.rollout.steps import Given, Own
from tests.evaluating import measured
from tests.random_model import Flaky, fake_lives, make_random_model
from tests.toy import Guess

LAKE = {"domain": "frozen-lake-v1", "preset": "tiny", "pack_size": 3, "workers": 1}
PACKS = 20


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return make_random_model(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    return make_random_model(tmp_path_factory.mktemp("other"), seed=1)


@pytest.fixture(scope="module")
def all_arms(base, tmp_path_factory):
    """A report on every arm, and its rows."""
    path = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    return measured(base, **LAKE, packs=PACKS, arms=ARMS, rows=path), load_rollouts(path), path


@pytest.fixture(scope="module")
def packs():
    return [make_pack("frozen-lake-v1", "tiny", "dev", i, 3) for i in range(PACKS)]


def compare(packs, lives):
    """Return the computed fields of a report on these lives."""
    rows = {
        arm: [
            life_rows(p, life, arm=arm) or [missing_row(p, life, arm=arm)]
            for p, life in zip(packs, of_arm, strict=True)
        ]
        for arm, of_arm in lives.items()
    }
    return curves.compare(packs, rows)


def contexts(rows, arm):
    """Return the contexts that an arm gave, by pack and position."""
    found = {}
    for row in rows:
        if row.arm == arm and row.kind == "solve":
            found.setdefault(row.pack[3], []).append(row.context)
    return [tuple(found[i]) for i in range(len(found))]


def solves(rows, arm):
    """Return the rewards by pack and position."""
    found = np.full((PACKS, 3), np.nan)
    for row in rows:
        if row.arm == arm and row.kind == "solve":
            found[row.pack[3], row.position] = row.reward
    return found


def test_own_and_null_share_their_first_rows(all_arms):
    _, rows, _ = all_arms
    first = {
        arm: [replace(row, arm="") for row in rows if (row.arm, row.position, row.kind) == (arm, 0, "solve")]
        for arm in ARMS
    }
    assert len(first["own"]) == PACKS
    assert first["own"] == first["null"] == first["frozen"] == first["shuffled"]
    assert first["own"] != first["oracle"]


def test_pieces_and_reused_rows_equal_whole_lives(all_arms, packs, base):
    _, rows, _ = all_arms
    model = OpenModel(base, LAKE["domain"], temperature=1.0)
    for arm in CONTROLS[1:]:
        jobs = [
            Job(pack, Given(model.profile.strategy(), given), model.profile.episode_params(), ("eval", 0, i))
            for i, (pack, given) in enumerate(zip(packs, contexts(rows, arm), strict=True))
        ]
        lives = model.rollout(jobs, STAGE_TIMEOUT)
        expected = [row for pack, life in zip(packs, lives, strict=True) for row in life_rows(pack, life, arm=arm)]
        assert [row for row in rows if row.arm == arm] == expected
    model.close()


def test_only_unknown_tasks_are_rolled_out_and_a_world_with_memory_is_not_split(all_arms, packs):
    _, rows, _ = all_arms
    own = [row for row in rows if row.arm == "own" and row.pack[3] == 0]
    shown = [row.context for row in own if row.kind == "solve"]
    given = Given(Rewrite(), (shown[0], "something else", shown[2]))
    known, pieces = split_known(packs[0], given, own)
    assert [row.position for row in known] == [0, 2]
    assert [[task.position for task in piece.tasks] for piece in pieces] == [[1]]
    assert split_known(packs[0], Own(Rewrite()), own) == ([], [packs[0]])

    class WithMemory(Guess):
        def make_memory(self, world):
            return []

    whole = replace(packs[0], domain=WithMemory())
    assert split_known(whole, given, own) == ([], [whole])


def test_an_arm_whose_rows_are_all_known_is_not_rolled_out(base):
    """With one task, every control is given the same empty context as `own`."""
    report = measured(base, **LAKE | {"pack_size": 1}, packs=5, arms=("own", "null", "frozen"))
    assert report.arms["own"] == report.arms["null"] == report.arms["frozen"]


def test_every_arm_is_given_its_contexts(all_arms, packs):
    _, rows, _ = all_arms
    own = contexts(rows, "own")
    assert any(z[2] for z in own)
    for i, pack in enumerate(packs):
        assert own[i][0] == ""
        assert contexts(rows, "null")[i] == ("", "", "")
        assert contexts(rows, "frozen")[i] == ("", own[i][1], own[i][1])
        assert contexts(rows, "oracle")[i] == (pack.domain.oracle_context(pack.world, "compact"),) * 3
        strangers = [k for k, p in enumerate(packs) if p.world.hidden != pack.world.hidden]
        assert contexts(rows, "shuffled")[i] in [own[k] for k in strangers]


def test_own_contexts_are_the_written_ones(all_arms):
    _, rows, _ = all_arms
    own = contexts(rows, "own")
    written = [(row.pack[3], row.position, row.written) for row in rows if row.arm == "own" and row.kind == "update"]
    assert len(written) == PACKS * 2
    for i, j, text in written:
        assert own[i][j + 1] == text


def test_shuffled_contexts_come_from_another_world_and_are_deterministic(packs):
    own = [(f"{i} 0", f"{i} 1", f"{i} 2") for i in range(PACKS)]
    for i, pack in enumerate(packs):
        k = stranger(i, packs)
        assert packs[k].world.hidden != pack.world.hidden
        assert contexts_of("shuffled", i, packs, own, "compact") == own[k]
        assert stranger(i, packs) == k
    assert len({stranger(i, packs) for i in range(PACKS)}) > PACKS / 3


def test_shuffling_needs_two_worlds(packs):
    with pytest.raises(ValueError, match="shuffled contexts need packs of at least two different worlds"):
        stranger(0, [packs[0]] * 5)


def test_the_contexts_of_a_missing_life_are_empty(packs):
    for arm in ("frozen", "shuffled"):
        assert contexts_of(arm, 0, packs, [()] * PACKS, "compact") == ("", "", "")


def test_only_own_has_updates(all_arms):
    _, rows, _ = all_arms
    assert {row.arm for row in rows if row.kind == "update"} == {"own"}


def test_rows_are_one_json_line_per_episode_after_a_header(all_arms):
    report, rows, path = all_arms
    head, *lines = path.read_text(encoding="utf-8").split("\n")
    assert json.loads(head)["evaluation"]["arms"] == list(ARMS)
    assert lines.pop() == ""
    assert len(lines) == len(rows) == PACKS * (5 + (len(ARMS) - 1) * 3)
    assert [json.loads(line)["arm"] for line in lines] == [row.arm for row in rows]
    assert [row.arm for row in rows[:: PACKS * 3]] == sorted((row.arm for row in rows[:: PACKS * 3]), key=ARMS.index)
    assert sum(row.tokens for row in rows) == report.tokens


def test_the_report_matches_the_rows(all_arms, packs):
    report, rows, _ = all_arms
    assert (report.n_packs, report.size, report.split, report.seed) == (PACKS, 3, "dev", 0)
    assert tuple(report.arms) == ARMS
    for arm, found in report.arms.items():
        own = [row for row in rows if row.arm == arm]
        for j in range(3):
            here = [row for row in own if row.kind == "solve" and row.position == j]
            rewards = np.array([row.reward for row in here])
            assert found.reward[j] == pytest.approx(rewards.mean(), abs=1e-4)
            assert found.ci95[j] == mean_ci(rewards, 0.0, 1.0).interval
            assert found.success[j] == pytest.approx(np.mean(rewards > 0), abs=1e-4)
            wilson = stats.binomtest(int(sum(rewards > 0)), PACKS).proportion_ci(method="wilson")
            assert found.success_ci95[j] == pytest.approx([wilson.low, wilson.high], abs=1e-4)
            assert found.malformed[j] == pytest.approx(np.mean([row.stop == "malformed" for row in here]), abs=1e-4)
            facts = [packs[row.pack[3]].domain.facts(packs[row.pack[3]].world, row.context) for row in here]
            assert found.right[j] == pytest.approx(np.mean([right / 4 for right, _, _ in facts]), abs=1e-4)
            assert found.wrong[j] == pytest.approx(np.mean([wrong / 4 for _, wrong, _ in facts]), abs=1e-4)
        updates = [row.stop == "malformed" for row in own if row.kind == "update"]
        assert found.malformed_updates == pytest.approx(np.mean(updates) if updates else 0, abs=1e-4)
        assert found.missing == 0
    assert report.arms["oracle"].right == [1, 1, 1]
    lift = (solves(rows, "own") - solves(rows, "null")).mean(0)
    assert report.lift == pytest.approx(list(lift), abs=1e-4)


def test_lift_is_the_difference_paired_by_pack(packs):
    lives = {arm: fake_lives(PACKS, 3, seed=i, missing=(i,)) for i, arm in enumerate(("own", "null", "shuffled"))}
    found = compare(packs, lives)
    for name, arm in (("lift", "own"), ("shuffled_lift", "shuffled")):
        for j in range(3):
            pairs = [
                a.of("solve")[j].reward - b.of("solve")[j].reward
                for a, b in zip(lives[arm], lives["null"], strict=True)
                if a.failure is None and b.failure is None
            ]
            assert len(pairs) == PACKS - 2
            assert found[name][j] == pytest.approx(np.mean(pairs), abs=1e-4)
            assert found[f"{name}_ci95"][j] == mean_ci(np.array(pairs), -1.0, 1.0).interval


def test_share_is_the_fraction_of_the_gain_that_needs_a_context(packs):
    lives = {"own": fake_lives(PACKS, 3, missing=(4,))}
    found = compare(packs, lives)
    bayes, domain = scripted_rewards("bayes", packs), packs[0].domain
    for j in range(3):
        gained, possible = [], []
        for i, pack in enumerate(packs):
            if lives["own"][i].failure is None:
                gained.append(lives["own"][i].of("solve")[j].reward - bayes[i, 0])
                possible.append(domain.ceiling(pack.tasks[j]) - bayes[i, 0])
        assert found["share"][j] == pytest.approx(sum(gained) / sum(possible), abs=1e-4)
        low, high = found["share_ci95"][j]
        assert low < found["share"][j] < high
    assert found["lift"] is None


def test_the_informed_policy_has_share_1_and_bayes_at_position_0_has_share_0(packs):
    lives = fake_lives(PACKS, 3)

    def with_rewards(rewards):
        return {
            "own": [
                replace(
                    life, episodes=tuple(replace(e, reward=float(rewards[i, e.position])) for e in life.of("solve"))
                )
                for i, life in enumerate(lives)
            ]
        }

    assert compare(packs, with_rewards(scripted_rewards("informed", packs)))["share"] == pytest.approx([1, 1, 1])
    assert compare(packs, with_rewards(scripted_rewards("bayes", packs)))["share"][0] == pytest.approx(0)


def test_missing_lives_are_left_out_of_every_mean(packs):
    lives = fake_lives(PACKS, 3, missing=(0, 7))
    found, present = compare(packs, {"own": lives}), [life for life in lives if life.failure is None]
    own = found["arms"]["own"]
    assert own.missing == 2
    for j in range(3):
        rewards = [life.of("solve")[j].reward for life in present]
        assert own.reward[j] == pytest.approx(np.mean(rewards), abs=1e-4)
        assert own.success[j] == pytest.approx(np.mean([reward > 0 for reward in rewards]), abs=1e-4)
        stops = [life.of("solve")[j].stop for life in present]
        assert own.malformed[j] == pytest.approx(np.mean([stop == "malformed" for stop in stops]), abs=1e-4)


def test_lives_lost_to_an_environment_are_counted_and_logged(base, registry, caplog):
    domain = register(Flaky())
    domain.down = (0, 3)
    guess = {"domain": "flaky-v0", "preset": "few", "pack_size": 2, "packs": 6, "workers": 1}
    report = measured(base, **guess)
    assert [report.arms[arm].missing for arm in ("own", "null")] == [2, 2]
    expected = [
        f"2 of 6 lives of {arm} are missing: ConnectionError: the environment is down" for arm in ("own", "null")
    ]
    assert caplog.messages[:2] == expected
    assert report.arms["own"].right is None
    domain.down = range(6)
    report = measured(base, **guess)
    assert report.arms["own"].missing == 6
    assert all(map(math.isnan, report.arms["own"].reward))
    assert as_json(report)["arms"]["own"]["reward"] == [None, None]


def test_a_missing_life_of_the_writer_is_missing_for_the_reader(base, registry, caplog):
    domain = register(Flaky())

    def on_progress(arm, done, total):
        domain.down = () if (arm, done) == ("writer", total) else domain.down  # it is up again for the reader

    domain.down = (1, 4)
    guess = {"domain": "flaky-v0", "preset": "few", "pack_size": 2, "packs": 6, "workers": 1}
    report = measured(base, **guess, writer=base, on_progress=on_progress)
    assert [report.arms[arm].missing for arm in ("own", "null")] == [2, 0]
    assert caplog.messages[0] == "2 of 6 lives of own are missing: ConnectionError: the environment is down"


def test_a_domain_without_an_exact_optimum_has_no_share(base, registry):
    register(type("Loose", (Flaky,), {"id": "loose-v0", "exact": False})())
    report = measured(base, domain="loose-v0", preset="few", pack_size=2, packs=4, workers=1)
    assert report.share is None
    assert report.share_ci95 is None


def test_a_report_is_plain_json(all_arms):
    report, _, _ = all_arms
    plain = json.loads(json.dumps(as_json(report), allow_nan=False))
    assert list(plain) == list(report.__dataclass_fields__)
    assert plain["arms"]["own"]["reward"] == report.arms["own"].reward
    unknown = replace(report, share_ci95=[[float("nan"), 1.0]])
    assert json.loads(json.dumps(as_json(unknown), allow_nan=False))["share_ci95"] == [[None, 1.0]]


def test_results_do_not_depend_on_chunks_or_on_other_arms(all_arms, base, monkeypatch, tmp_path):
    report, rows, _ = all_arms
    assert measured(base, **LAKE, packs=PACKS, arms=ARMS) == report
    again = measured(base, **LAKE, packs=PACKS, arms=("shuffled",), rows=tmp_path / "rows.jsonl")
    assert again.arms == {"shuffled": report.arms["shuffled"]}
    assert load_rollouts(tmp_path / "rows.jsonl") == [row for row in rows if row.arm in ("own", "shuffled")]
    calls = []
    monkeypatch.setattr(sys.modules["codots.evaluation.evaluate"], "CHUNK", 8)
    assert measured(base, **LAKE, packs=PACKS, arms=("null",), on_progress=lambda *a: calls.append(a)).arms["null"]
    assert calls == [("null", done, PACKS) for done in range(1, PACKS + 1)]


def test_another_seed_samples_again_on_the_same_packs(all_arms, base):
    report, _, _ = all_arms
    seeded = measured(base, **LAKE, packs=PACKS, seed=1)
    assert seeded.arms["null"] != report.arms["null"]
    assert (seeded.floor, seeded.bayes, seeded.ceiling) == (report.floor, report.bayes, report.ceiling)


def test_the_seed_has_no_effect_at_temperature_0(base):
    one, other = (measured(base, **LAKE, packs=5, seed=seed, temperature=0.0) for seed in (0, 1))
    assert one.arms == other.arms
    assert one.temperature == 0


def test_the_temperature_is_that_of_each_models_profile_unless_it_is_given(base, tmp_path):
    cool = shutil.copytree(base, tmp_path / "cool")
    load_profile(base).at(0.3).save(cool)
    own, given, one = (
        measured(model, **LAKE, packs=5, rows=tmp_path / f"{i}.jsonl", **more)
        for i, (model, more) in enumerate([(cool, {}), (base, {"temperature": 0.3}), (base, {})])
    )
    assert (own.temperature, given.temperature, one.temperature) == (0.3, 0.3, 1.0)
    assert own.arms == given.arms != one.arms
    heads = [json.loads((tmp_path / f"{i}.jsonl").read_text().splitlines()[0])["evaluation"] for i in range(3)]
    assert [head["temperature"] for head in heads] == [0.3, 0.3, 1.0]
    read = measured(base, **LAKE, packs=2, writer=cool)
    assert (read.temperature, read.writer_temperature, own.writer_temperature) == (1.0, 0.3, None)
    both = measured(base, **LAKE, packs=2, writer=cool, temperature=0.5)
    assert (both.temperature, both.writer_temperature) == (0.5, 0.5)


def test_a_model_reads_what_another_wrote(base, other, tmp_path):
    files = {name: tmp_path / f"{name}.jsonl" for name in ("base", "other", "both")}
    alone = measured(base, **LAKE, packs=8, arms=("own", "null"), rows=files["base"])
    measured(other, **LAKE, packs=8, arms=("own",), rows=files["other"])
    both = measured(base, **LAKE, packs=8, arms=("own", "null", "frozen"), writer=other, rows=files["both"])
    rows = {name: load_rollouts(file) for name, file in files.items()}
    assert contexts(rows["both"], "own") == contexts(rows["other"], "own") != contexts(rows["base"], "own")
    assert contexts(rows["both"], "frozen") == [("", z[1], z[1]) for z in contexts(rows["other"], "own")]
    assert {(row.arm, row.kind) for row in rows["both"]} == {
        *((arm, "solve") for arm in ("writer", "own", "null", "frozen")),
        ("writer", "update"),
    }
    assert both.writer == str(other)
    assert alone.writer is None
    assert both.arms["null"] == alone.arms["null"]


def test_a_model_as_its_own_writer_changes_nothing(base, tmp_path):
    measured(base, **LAKE, packs=8, arms=("own",), rows=tmp_path / "own.jsonl")
    measured(base, **LAKE, packs=8, arms=("own",), writer=base, rows=tmp_path / "read.jsonl")
    own, read = (load_rollouts(tmp_path / name) for name in ("own.jsonl", "read.jsonl"))
    assert [row for row in own if row.kind == "solve"] == [row for row in read if row.arm == "own"]
    assert own == [replace(row, arm="own") for row in read if row.arm == "writer"]


def test_splits_have_different_packs(base, tmp_path):
    for split in ("dev", "test"):
        measured(base, **LAKE, split=split, packs=3, arms=("null",), rows=tmp_path / f"{split}.jsonl")
    dev, test = (load_rollouts(tmp_path / f"{split}.jsonl") for split in ("dev", "test"))
    assert {row.pack[2] for row in dev} == {"dev"}
    assert {row.turns[0][0] for row in dev} != {row.turns[0][0] for row in test}


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"arms": ("own", "nul")}, "unknown arm 'nul'; .*nearest is 'null'"),
        ({"arms": "own,nul"}, "unknown arm 'nul'; .*nearest is 'null'"),
        ({"arms": ()}, "arms: List should have at least 1 item"),
        ({"arms": 3}, "arms: .*valid list, got 3"),
        (
            {"split": "tset"},
            "split: expected train, dev, test, or a word unlike them; the nearest is 'test', got 'tset'",
        ),
        ({"split": "--json"}, "split: expected train, dev, test, or another word, got '--json'"),
        ({"device": "cudda"}, "unknown device 'cudda'; .*nearest is 'cuda'"),
        ({"pack": 3}, "unknown key 'pack'; .*nearest is 'packs'"),
        ({"packs": 1}, "packs: .*greater than or equal to 2, got 1"),
        ({"temperature": -1}, "temperature: .*greater than or equal to 0, got -1"),
        ({"domain": "frozen-lake"}, "unknown domain 'frozen-lake'; .*nearest is 'frozen-lake-v"),
        ({"preset": "tinny"}, "unknown preset of frozen-lake-v1 'tinny'; .*nearest is 'tiny'"),
        ({"pack_size": 0}, "pack_size: .*greater than or equal to 1, got 0"),
        ({"model": "nowhere"}, "no model at 'nowhere'"),
        ({"writer": "nowhere"}, "no model at 'nowhere'"),
    ],
)
def test_invalid_settings_are_one_line_errors(base, tmp_path, change, line):
    settings = {"model": base, **LAKE, "packs": 3, "rows": tmp_path / "rows.jsonl"} | change
    with pytest.raises(ValueError, match=line) as error:
        measured(**settings)
    assert len(str(error.value).splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_settings_are_checked_in_python_as_well(base, tmp_path):
    """Paths and their names are equal settings."""
    config = EvalConfig(model=base, writer=base, rows=tmp_path / "rows.jsonl", arms="own,null", **LAKE, packs=2)
    named = EvalConfig(model=str(base), writer=str(base), rows=str(tmp_path / "rows.jsonl"), **LAKE, packs=2)
    assert config == named
    assert as_json(evaluate(config)) == as_json(measured(base, writer=base, **LAKE, packs=2))
    assert (tmp_path / "rows.jsonl").exists()
    with pytest.raises(ValueError, match="unknown arm 'nul'"):
        EvalConfig(model=base, arms=["nul"])


@pytest.mark.parametrize("arms", [None, [None], ["null"], "null"])
def test_yaml_null_is_the_arm_null(arms):
    assert EvalConfig(model="base", arms=arms).arms == ["null"]


def test_rows_that_cannot_be_written_are_refused_before_the_model_is_loaded(base, tmp_path, monkeypatch):
    monkeypatch.setattr("codots.engine.local.LocalEngine", None)
    with pytest.raises(ValueError, match=r"cannot write .*rows\.jsonl: there is no folder .*nowhere"):
        measured(base, **LAKE, packs=3, rows=tmp_path / "nowhere" / "rows.jsonl")


def test_an_unsupported_style_is_a_one_line_error(base, registry):
    register(Guess())
    with pytest.raises(ValueError, match="uses prompt style 'compact'; guess-v0 has natural"):
        measured(base, domain="guess-v0", preset="few", packs=2)


def test_a_model_without_any_readable_reply_is_logged(caplog):
    found = measured("base", domain="alchemy-v1", preset="limited", packs=2, pack_size=2, workers=1)
    assert found.arms["own"].malformed == [1, 1]
    assert caplog.messages == ["no reply of base could be parsed; was it trained on alchemy-v1?"]


def test_replies_that_were_cut_are_told_from_unreadable_ones(base, registry, caplog, tmp_path):
    register(Guess())
    settings = {"domain": "guess-v0", "preset": "few", "packs": 2, "pack_size": 2, "workers": 1}
    profile = {"style": "natural", "solve_tokens": 1, "update_tokens": 1}
    report = measured(base, **settings, profile=profile, rows=tmp_path / "rows.jsonl")
    own, rows = report.arms["own"], [row for row in load_rollouts(tmp_path / "rows.jsonl") if row.arm == "own"]
    for j in range(2):
        ends = [row.ended == "length" for row in rows if (row.kind, row.position) == ("solve", j)]
        assert own.cut[j] == np.mean(ends) > 0
    assert own.cut_updates == np.mean([row.ended == "length" for row in rows if row.kind == "update"])
    assert own.no_room == [0, 0]
    assert "most were cut at 1 ids: raise solve_tokens" in caplog.messages[0]
    shown = io.StringIO()
    Console(file=shown, width=140).print(report_table(report))
    assert "own: replies cut at solve_tokens" in shown.getvalue()


def manual_play(name, pack):
    """Return the rewards of a scripted policy, stepping the environments one by one."""
    policy, rewards = pack.domain.policy(name, pack.world), []
    for task in pack.tasks:
        env = task.env(style="natural", memory=pack.domain.make_memory(pack.world))
        step = env.step(policy.act(env.view))
        while not step.done:
            step = env.step(policy.act(env.view))
        policy.end(step)
        rewards.append(step.reward)
    return rewards


def test_baselines_equal_playing_by_hand(packs):
    found = baselines("frozen-lake-v1", preset="tiny", packs=PACKS, size=3)
    lives = {"bayes": packs, "informed": packs, "random": [reseeded(p, k) for k in range(RANDOM_LIVES) for p in packs]}
    assert set(lives) == set(POLICIES)
    for name, played in lives.items():
        assert found[name] == pytest.approx(
            list(np.mean([manual_play(name, pack) for pack in played], axis=0)), abs=1e-4
        )
    assert found["exact"] is True
    assert found["random"][0] < found["bayes"][0] < found["bayes"][2] <= found["informed"][2]
    assert baselines("frozen-lake-v1", preset="tiny", packs=PACKS, size=3, split="test")["bayes"] != found["bayes"]


def test_the_random_policy_reaches_the_floor(packs):
    """The floor of Frozen Lake is the expected reward of uniformly drawn actions."""
    rewards = np.array([manual_play("random", reseeded(pack, k)) for pack in packs for k in range(20)]).ravel()
    floor = np.mean([pack.domain.floor(task) for pack in packs for task in pack.tasks])
    assert abs(rewards.mean() - floor) < 3 * rewards.std() / len(rewards) ** 0.5


def test_references_are_computed_on_the_same_packs(all_arms, packs):
    report, _, _ = all_arms
    domain = packs[0].domain
    for j in range(3):
        tasks = [pack.tasks[j] for pack in packs]
        assert report.floor[j] == pytest.approx(np.mean([domain.floor(task) for task in tasks]), abs=1e-4)
        assert report.ceiling[j] == pytest.approx(np.mean([domain.ceiling(task) for task in tasks]), abs=1e-4)
    assert report.bayes == baselines("frozen-lake-v1", preset="tiny", packs=PACKS, size=3)["bayes"]


def test_evaluate_works_inside_a_running_event_loop(base):
    """As in a notebook."""

    async def cell():
        return measured(base, **LAKE, packs=5)

    assert as_json(asyncio.run(cell())) == as_json(measured(base, **LAKE, packs=5))


def test_the_profile_overrides_the_model_folder(base, registry, tmp_path):
    register(Guess())
    settings = {"domain": "guess-v0", "preset": "few", "packs": 2, "pack_size": 2, "workers": 1}
    with pytest.raises(ValueError, match="uses prompt style 'compact'; guess-v0 has natural"):
        measured(base, **settings)
    measured(base, **settings, profile={"style": "natural", "solve_tokens": 1}, rows=tmp_path / "rows.jsonl")
    assert {row.tokens for row in load_rollouts(tmp_path / "rows.jsonl") if row.kind == "solve"} <= {1, 2}
    with pytest.raises(ValueError, match="belongs to another evaluation: there profile is"):
        measured(base, **settings, profile={"style": "natural"}, rows=tmp_path / "rows.jsonl")

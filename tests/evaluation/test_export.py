"""An exported evaluation has the rewards, texts and counts of its rows, and nothing secret."""

import json
import re
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from codots.context.rewrite import Rewrite
from codots.domains.registry import make_pack
from codots.evaluation.evaluate import as_json
from codots.evaluation.export import episode_rows, read_evaluations
from codots.rollout.records import MISSING, Row, dump, load_rollouts, solves
from tests.evaluating import measured
from tests.random_model import make_random_model

ARMS, PACKS, SIZE = ("own", "null", "transcript"), 4, 3
LAKE = {"domain": "frozen-lake-v1", "preset": "tiny", "pack_size": SIZE, "packs": PACKS, "workers": 1, "arms": ARMS}


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """The report of an evaluation in a folder that also has its rows, `eval.jsonl`, and itself, `eval.json`."""
    folder = tmp_path_factory.mktemp("evaluation")
    model = make_random_model(folder / "model")
    report = measured(model, **LAKE | {"arms": list(ARMS)}, rows=folder / "eval.jsonl")
    (folder / "eval.json").write_text(json.dumps(as_json(report)))
    return report


@pytest.fixture
def rows(report, tmp_path, monkeypatch):
    """A copy of the file of rows, in the working folder."""
    folder = Path(report.model).parent
    for name in ("eval.jsonl", "eval.json"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    monkeypatch.chdir(tmp_path)
    return Path("eval.jsonl")


@pytest.fixture
def refused(codots, tmp_path):
    """Export in a way that must fail with this one line and write nothing."""

    def run(line, *args):
        before = sorted(tmp_path.rglob("*"))
        ended = codots("export", *args)
        assert (ended.code, ended.out, len(ended.err.splitlines())) == (2, "", 1), ended.err
        assert re.search(line, ended.err), ended.err
        assert sorted(tmp_path.rglob("*")) == before

    return run


def test_parquet_has_a_row_for_each_episode(rows, report, codots):
    parquet = pytest.importorskip("pyarrow.parquet")
    recorded = load_rollouts(rows)
    ended = codots("export", rows, "--out", "eval.parquet")
    assert (ended.code, ended.out) == (0, f"wrote {len(recorded)} episodes to eval.parquet\n")
    table = parquet.read_table("eval.parquet")
    assert str(table.schema.field("prompt_tokens").type) == "int64"  # also where all values are missing
    for found, row in zip(table.to_pylist(), recorded, strict=True):
        same = {key: value for key, value in vars(row).items() if key in found}
        assert same.items() <= found.items()
        assert [found[key] for key in ("domain", "preset", "split", "index")] == row.pack
        assert (found["evaluation"], found["step"], found["model"]) == ("eval", None, report.model)
    means = [
        np.mean([row["reward"] for row in table.to_pylist() if (row["arm"], row["kind"], row["position"]) == key])
        for key in (("own", "solve", position) for position in range(SIZE))
    ]
    assert means == pytest.approx(report.arms["own"].reward, abs=1e-4)


@pytest.mark.filterwarnings("default")
def test_a_log_of_inspect_has_a_sample_for_each_task(rows, report, codots):
    inspect = pytest.importorskip("inspect_ai.log", reason="needs inspect_ai: pip install 'codots[inspect]'")
    ended = codots("export", rows, "--as", "inspect", "--out", "logs")
    assert (ended.code, ended.err) == (0, "")
    assert len(inspect.list_eval_logs("logs")) == len(ARMS)
    for arm in ARMS:
        log = inspect.read_eval_log(f"logs/eval-{arm}.eval")
        recorded = [row for row in load_rollouts(rows) if row.arm == arm]
        assert (log.status, log.eval.task, log.eval.model) == ("success", "frozen-lake-v1/tiny", report.model)
        assert (log.eval.task_args["arm"], log.eval.task_args["split"]) == (arm, "dev")
        assert [sample.id for sample in log.samples] == [f"{row.pack[-1]}-{row.position}" for row in _solved(recorded)]
        for sample, row in zip(log.samples, _solved(recorded), strict=True):
            score, said = sample.scores["reward"], [message.text for message in sample.messages]
            assert said[1:] == [text for turn in row.turns for text in turn]
            task = make_pack(*row.pack, SIZE).tasks[row.position]
            rules = task.domain.rules_text(task, row.prompt["style"])
            assert said[0] == Rewrite().solve(rules, row.context, "", row.prompt["style"]).system
            assert sample.output.completion == row.turns[-1][1]
            assert (score.value, score.metadata["context"]) == (row.reward, row.context)
            assert (score.metadata["malformed"], score.metadata["ended"]) == (row.stop == "malformed", row.ended)
        usage = log.stats.model_usage[report.model]
        assert usage.output_tokens == sum(row.tokens for row in recorded)
        assert usage.input_tokens == sum(row.read for row in recorded)
        rewards = np.array([row.reward for row in _solved(recorded)]).reshape(PACKS, SIZE)
        metrics = {name: metric.value for name, metric in log.results.scores[0].metrics.items()}
        error = rewards.mean(1).std(ddof=1) / PACKS**0.5
        assert (metrics["mean"], metrics["stderr"]) == (pytest.approx(rewards.mean()), pytest.approx(error))
        means = [metrics[f"mean at position {position}"] for position in range(SIZE)]
        assert means == pytest.approx(report.arms[arm].reward, abs=1e-4)
        assert (log.results.total_samples, log.results.completed_samples) == (PACKS * SIZE, PACKS * SIZE)


def _solved(recorded: list[Row]) -> list[Row]:
    return [row for index in range(PACKS) for row in solves(r for r in recorded if r.pack[-1] == index)]


def rewritten(path, change):
    """Write the file anew, with the rows that `change` returns."""
    head = path.read_text().splitlines(keepends=True)[0]
    path.write_text(head + dump(change(load_rollouts(path))))


@pytest.mark.filterwarnings("default")
def test_a_lost_life_and_a_prompt_that_changed_are_marked(rows, codots, caplog):
    inspect = pytest.importorskip("inspect_ai.log", reason="needs inspect_ai: pip install 'codots[inspect]'")

    def change(recorded):
        null = [row for row in recorded if row.arm == "null"]
        gone = Row(null[0].pack, "null", 0, 0, MISSING, 0.0, MISSING, "", None, [], "the server is gone", 0)
        other = replace(null[SIZE], prompt=null[SIZE].prompt | {"hash": "0"})
        return [*(row for row in recorded if row.arm != "null"), gone, other, *null[SIZE + 1 :]]

    rewritten(rows, change)
    assert codots("export", rows, "--as", "inspect", "--out", "logs").code == 0
    assert "eval.jsonl, null: 1 of 12 chats lack the system message" in caplog.text
    log = inspect.read_eval_log("logs/eval-null.eval")
    assert [sample.error.message for sample in log.samples if sample.error] == ["the server is gone"] * SIZE
    assert (log.results.total_samples, log.results.completed_samples) == (PACKS * SIZE, PACKS * SIZE - SIZE)
    assert [message.role for message in log.samples[SIZE].messages][:2] == ["user", "assistant"]


@pytest.mark.filterwarnings("default")
def test_secrets_never_get_into_an_export(rows, codots, monkeypatch):
    secret = "sk-0123456789"
    rewritten(rows, lambda recorded: [replace(recorded[0], context=f"the key is {secret}"), *recorded[1:]])
    lines = rows.read_text().splitlines(keepends=True)
    head = json.loads(lines[0])
    head["evaluation"]["extra_body"] = {"key": "another"}
    rows.write_text(json.dumps(head) + "\n" + "".join(lines[1:]))
    monkeypatch.setenv("MY_API_KEY", secret)
    assert codots("export", rows, "--out", "eval.out.jsonl").code == 0
    assert "the key is <MY_API_KEY>" in Path("eval.out.jsonl").read_text()
    assert secret not in Path("eval.out.jsonl").read_text()
    inspect = pytest.importorskip("inspect_ai.log", reason="needs inspect_ai: pip install 'codots[inspect]'")
    assert codots("export", rows, "--as", "inspect", "--out", "logs").code == 0
    text = inspect.read_eval_log("logs/eval-own.eval").model_dump_json()
    assert "the key is <MY_API_KEY>" in text
    assert secret not in text
    assert "another" not in text


def test_the_folder_of_a_suite_is_one_table_with_its_steps(rows, codots):
    for step in (0, 10):
        folder = Path(f"suite/step-{step:06d}")
        folder.mkdir(parents=True)
        (folder / "lake.jsonl").write_bytes(rows.read_bytes())
    found = list(episode_rows(read_evaluations(Path("suite"))))
    assert [(row["evaluation"], row["step"]) for row in found] == [
        ("lake", step) for step in (0, 10) for _ in load_rollouts(rows)
    ]
    ended = codots("export", "suite", "--out", "suite.jsonl")  # a folder, although its name could be that of a domain
    assert (ended.code, len(Path("suite.jsonl").read_text().splitlines())) == (0, len(found))


def test_what_cannot_be_exported_is_one_line_and_writes_nothing(rows, refused):
    text = rows.read_text()
    lines = text.splitlines(keepends=True)
    Path("cut.jsonl").write_text(text[:-20])
    Path("short.jsonl").write_text("".join(lines[:4]))
    Path("step.jsonl").write_text("".join(lines[1:]))
    Path("other.jsonl").write_text('{"loss": 1}\n')
    Path("old.jsonl").write_text('{"evaluation": {"size": 3}}\n' + lines[1])
    Path("broken.jsonl").write_text("".join([*lines[:3], "{\n", *lines[3:]]))
    for line, name in (
        (r"cut\.jsonl has 11 of 12 lives; finish it with the `codots eval` command", "cut.jsonl"),
        (r"short\.jsonl has 0 of 12 lives", "short.jsonl"),
        (r"step\.jsonl holds rows of training; expected the file of", "step.jsonl"),
        (r"other\.jsonl holds no recorded episodes", "other.jsonl"),
        (r"old\.jsonl is not an evaluation of this version: its first line lacks 'domain'", "old.jsonl"),
        (r"broken\.jsonl, line 4: not a row of a rollout", "broken.jsonl"),
        (r"no rows at evil\.jsonl; .*nearest is 'eval\.json", "evil.jsonl"),
        (r"no rows at nowhere/suite", "nowhere/suite"),
    ):
        refused(line, name, "--out", "new.jsonl")
    Path("kept.jsonl").write_text("kept")
    refused(r"kept\.jsonl exists; remove it, or give --out ANOTHER", rows, "--out", "kept.jsonl")
    refused("unknown ending '.csv'", rows, "--out", "x.csv")
    refused("--packs is for domains; eval.jsonl is an evaluation", rows, "--packs", "3", "--out", "x.jsonl")
    refused("unknown layout of an evaluation 'inspec'.*nearest is 'inspect'", rows, "--as", "inspec", "--out", "x")


def test_logs_need_their_extra_and_a_new_folder(rows, refused, monkeypatch):
    Path("logs").mkdir()
    refused("logs exists already; expected the name of a new folder", rows, "--as", "inspect", "--out", "logs")
    monkeypatch.setitem(sys.modules, "inspect_ai", None)
    refused(r"need inspect_ai: pip install 'codots\[inspect\]'", rows, "--as", "inspect", "--out", "new")

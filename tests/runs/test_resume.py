"""A stopped evaluation resumes with the same result, and never mixes with another evaluation."""

import sys

import pytest

from codots.domains.registry import register
from codots.evaluation.evaluate import as_json
from codots.rollout.records import load_rollouts
from tests.evaluating import measured
from tests.random_model import Flaky, make_random_model

LAKE = {"domain": "frozen-lake-v1", "preset": "tiny", "pack_size": 2, "packs": 5, "workers": 1}
CHUNK = 2


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return make_random_model(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    return make_random_model(tmp_path_factory.mktemp("other"), seed=1)


@pytest.fixture(autouse=True)
def chunks(monkeypatch):
    monkeypatch.setattr(sys.modules["codots.evaluation.evaluate"], "CHUNK", CHUNK)


@pytest.fixture
def rollout_counts(monkeypatch):
    """Return a list that collects the number of lives of each rollout."""
    module, counts = sys.modules["codots.engine.open"], []

    class CountingEngine(module.LocalEngine):
        def rollout(self, jobs, *args):
            counts.append(len(jobs))
            return super().rollout(jobs, *args)

    monkeypatch.setattr(module, "LocalEngine", CountingEngine)
    return counts


@pytest.fixture
def no_engine(monkeypatch):
    monkeypatch.setattr(sys.modules["codots.engine.open"], "LocalEngine", None)


def stop_after(count):
    """Return a progress callback that stops the evaluation after `count` chunks."""
    calls = []

    def on_progress(*progress):
        calls.append(progress)
        if len(calls) == count:
            raise KeyboardInterrupt

    return on_progress


@pytest.fixture(scope="module")
def whole(base, tmp_path_factory):
    """Return report and file of an uninterrupted evaluation."""
    path = tmp_path_factory.mktemp("whole") / "rows.jsonl"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys.modules["codots.evaluation.evaluate"], "CHUNK", CHUNK)
        return as_json(measured(base, **LAKE, arms=("null", "own"), rows=path)), path.read_bytes()


@pytest.mark.parametrize("after", range(1, 7))
def test_a_stopped_evaluation_resumes_where_it_stopped(base, whole, rollout_counts, tmp_path, after):
    path = tmp_path / "rows.jsonl"
    measured(base, **LAKE, arms=("null", "own"))
    once = list(rollout_counts)
    rollout_counts.clear()
    with pytest.raises(KeyboardInterrupt):
        measured(base, **LAKE, arms=("null", "own"), rows=path, on_progress=stop_after(after))
    assert path.read_bytes() == whole[1][: path.stat().st_size]
    assert len({(row.arm, row.pack[-1]) for row in load_rollouts(path)}) == sum([2, 2, 1, 2, 2, 1][:after])
    calls = []
    report = measured(base, **LAKE, arms=("null", "own"), rows=path, on_progress=lambda *call: calls.append(call))
    assert (as_json(report), path.read_bytes()) == whole
    assert rollout_counts == once
    assert calls == [(arm, done, 5) for arm in ("own", "null") for done in (2, 4, 5)]


@pytest.mark.parametrize("after", [2, 4, 8])
def test_the_contexts_of_a_writer_are_not_written_twice(base, other, rollout_counts, tmp_path, after):
    """Nor are the contexts of `own` that only `shuffled` needs."""
    settings = {**LAKE, "arms": ("shuffled",), "writer": other}
    expected = measured(base, **settings, rows=tmp_path / "whole.jsonl")
    once = list(rollout_counts)
    rollout_counts.clear()
    with pytest.raises(KeyboardInterrupt):
        measured(base, **settings, rows=tmp_path / "rows.jsonl", on_progress=stop_after(after))
    assert measured(base, **settings, rows=tmp_path / "rows.jsonl") == expected == measured(base, **settings)
    assert (tmp_path / "rows.jsonl").read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
    assert rollout_counts == once * 2
    assert list(expected.arms) == ["shuffled"]


def test_a_truncated_chunk_is_rolled_out_again(base, whole, rollout_counts, tmp_path):
    """Cuts are in the first line, between rows, and inside rows."""
    report, rows = whole
    path = tmp_path / "rows.jsonl"
    for cut in (0, 1, rows.index(b"\n"), rows.index(b"\n") + 1, *range(1000, len(rows), len(rows) // 7), len(rows) - 1):
        rollout_counts.clear()
        path.write_bytes(rows[:cut])
        assert as_json(measured(base, **LAKE, arms=("null", "own"), rows=path)) == report
        assert path.read_bytes() == rows
        assert cut or rollout_counts[:3] == [2, 2, 1]
    assert len(rollout_counts) <= 1  # the last chunk, only if it needs more lives than `own` has


def test_duplicate_rows_count_once(base, whole, tmp_path):
    """Two processes may have written the same file at once."""
    report, rows = whole
    path = tmp_path / "rows.jsonl"
    path.write_bytes(rows + b"".join(rows.splitlines(keepends=True)[1:9]))
    assert as_json(measured(base, **LAKE, arms=("null", "own"), rows=path)) == report
    assert sorted(path.read_bytes().splitlines()) == sorted(rows.splitlines())


def test_a_complete_evaluation_is_not_rolled_out_again(base, whole, no_engine, tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(whole[1])
    assert as_json(measured(base, **LAKE, arms=("null", "own"), rows=path)) == whole[0]
    assert path.read_bytes() == whole[1]


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"seed": 1}, "there seed is 0, here 1"),
        ({"temperature": 0.5}, "there temperature is 1.0, here 0.5"),
        ({"domain": "frozen-lake-v0", "preset": "easy"}, "there domain is 'frozen-lake-v1', here 'frozen-lake-v0'"),
        ({"preset": "easy"}, "there preset is 'tiny', here 'easy'"),
        ({"split": "test"}, "there split is 'dev', here 'test'"),
        ({"pack_size": 3, "packs": 6}, "there pack_size is 2, here 3"),
        ({"packs": 6}, "there packs is 5, here 6"),
        ({"arms": ("own",)}, r"there arms is \['null', 'own'\], here \['own'\]"),
        ({"workers": 2}, "there workers is 1, here 2"),
        ({"writer": "other"}, "there writer is None, here '[0-9a-f]{16}'"),
        ({"model": "other"}, "there model is '[0-9a-f]{16}', here '[0-9a-f]{16}'"),
    ],
)
def test_rows_of_another_evaluation_are_refused_and_kept(base, other, whole, no_engine, tmp_path, change, line):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(whole[1])
    settings = {"model": base, **LAKE, "arms": ("null", "own"), "rows": path} | change
    settings |= {key: other for key in ("model", "writer") if settings.get(key) == "other"}
    with pytest.raises(
        ValueError, match=rf"rows\.jsonl belongs to another evaluation: {line}; give another name"
    ) as error:
        measured(**settings)
    assert "\n" not in str(error.value)
    assert path.read_bytes() == whole[1]
    assert list(tmp_path.iterdir()) == [path]


def test_a_moved_model_is_the_same_and_a_changed_one_is_not(whole, base, no_engine, tmp_path):
    path, model = tmp_path / "rows.jsonl", make_random_model(tmp_path / "model")
    path.write_bytes(whole[1])
    assert as_json(measured(model, **LAKE, arms=("null", "own"), rows=path)) == {**whole[0], "model": str(model)}
    (model / "codots.json").write_text((model / "codots.json").read_text().replace("200", "100"))
    with pytest.raises(ValueError, match="there model is"):
        measured(model, **LAKE, arms=("null", "own"), rows=path)


@pytest.mark.parametrize("content", [b"notes\n", b"[]\n", b'{"pack": []}\n', b"\xff\xfe\x00", b'{"evaluation": 3}\n'])
def test_a_file_of_no_evaluation_is_refused_and_kept(base, no_engine, tmp_path, content):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"rows\.jsonl exists and is not the file of an evaluation; give another name"):
        measured(base, **LAKE, rows=path)
    assert path.read_bytes() == content


def test_missing_lives_stay_missing(base, registry, tmp_path):
    domain = register(Flaky())
    domain.down = (0, 3)
    settings = {
        "domain": "flaky-v0",
        "preset": "few",
        "pack_size": 2,
        "packs": 6,
        "workers": 1,
        "rows": tmp_path / "rows.jsonl",
    }
    report = measured(base, **settings)
    rows = settings["rows"].read_bytes()
    domain.down = ()
    again = measured(base, **settings)
    assert as_json(again) == as_json(report)
    assert settings["rows"].read_bytes() == rows
    assert [again.arms[arm].missing for arm in ("own", "null")] == [2, 2]
    missing = [row for row in load_rollouts(settings["rows"]) if row.kind == "missing"]
    assert {(row.arm, row.pack[-1]) for row in missing} == {(arm, i) for arm in ("own", "null") for i in (0, 3)}
    assert {row.outcome for row in missing} == {"ConnectionError: the environment is down"}


def test_without_rows_nothing_is_written(base, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    measured(base, **LAKE)
    assert list(tmp_path.iterdir()) == []

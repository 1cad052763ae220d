"""A stopped evaluation resumes with the same result, and never mixes with another evaluation."""

import json
import os
import signal
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from zlib import crc32

import pytest

from codots.core.files import claimed_file
from codots.domains.registry import register
from codots.evaluation.evaluate import as_json
from codots.rollout.records import load_rollouts
from tests.disk import mounted
from tests.evaluating import measured
from tests.random_model import Flaky, make_random_model
from tests.sampler.server import Server, good

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
    module, counts = import_module("codots.engine.local"), []

    class CountingEngine(module.LocalEngine):
        def rollout(self, jobs, *args):
            counts.append(len(jobs))
            return super().rollout(jobs, *args)

    monkeypatch.setattr(module, "LocalEngine", CountingEngine)
    return counts


@pytest.fixture
def no_engine(monkeypatch):
    monkeypatch.setattr("codots.engine.local.LocalEngine", None)


def stopped_after(rows, count):
    """Return the file of an evaluation that was stopped after `count` lives: any ones of the arm in progress."""
    head, *lines = rows.splitlines(keepends=True)
    lives = {}
    for line in lines:
        row = json.loads(line)
        lives.setdefault((row["arm"], row["pack"][-1]), []).append(line)
    arms = list(dict.fromkeys(arm for arm, _ in lives))
    kept = sorted(lives, key=lambda life: (arms.index(life[0]), crc32(str(life).encode())))[:count]
    return head + b"".join(line for life in kept for line in lives[life])


@pytest.fixture(scope="module")
def whole(base, tmp_path_factory):
    """Return report and file of an uninterrupted evaluation."""
    path = tmp_path_factory.mktemp("whole") / "rows.jsonl"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys.modules["codots.evaluation.evaluate"], "CHUNK", CHUNK)
        return as_json(measured(base, **LAKE, arms=("null", "own"), rows=path)), path.read_bytes()


@pytest.mark.parametrize("after", range(1, 11))
def test_a_stopped_evaluation_asks_only_for_what_is_missing(base, whole, rollout_counts, tmp_path, after):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(stopped_after(whole[1], after))
    assert len({(row.arm, row.pack[-1]) for row in load_rollouts(path)}) == after
    calls = []
    report = measured(base, **LAKE, arms=("null", "own"), rows=path, on_progress=lambda *call: calls.append(call))
    assert (as_json(report), path.read_bytes()) == whole
    assert sum(rollout_counts) <= (5 - after if after < 5 else 0) + 2 * min(5, 10 - after)
    assert calls == [("own", done, 5) for done in range(min(after, 5), 6) if done] + [
        ("null", done, 5) for done in range(max(after - 5, 0), 6) if done
    ]


@pytest.mark.parametrize("after", [2, 8, 13])
def test_the_contexts_of_a_writer_are_not_written_twice(base, other, rollout_counts, tmp_path, after):
    """Nor are the contexts of `own` that only `shuffled` needs."""
    settings = {**LAKE, "arms": ("shuffled",), "writer": other}
    expected = measured(base, **settings, rows=tmp_path / "whole.jsonl")
    once = sum(rollout_counts)
    rollout_counts.clear()
    (tmp_path / "rows.jsonl").write_bytes(stopped_after((tmp_path / "whole.jsonl").read_bytes(), after))
    assert measured(base, **settings, rows=tmp_path / "rows.jsonl") == expected
    assert sum(rollout_counts) <= once - after / 2  # some lives of own and shuffled are known in advance
    assert measured(base, **settings) == expected
    assert (tmp_path / "rows.jsonl").read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
    assert list(expected.arms) == ["shuffled"]


def test_a_truncated_life_is_rolled_out_again(base, whole, rollout_counts, tmp_path):
    """Cuts are in the first line, between rows, and inside rows."""
    report, rows = whole
    path = tmp_path / "rows.jsonl"
    for cut in (0, 1, rows.index(b"\n"), rows.index(b"\n") + 1, *range(1000, len(rows), len(rows) // 7), len(rows) - 1):
        rollout_counts.clear()
        path.write_bytes(rows[:cut])
        assert as_json(measured(base, **LAKE, arms=("null", "own"), rows=path)) == report
        assert path.read_bytes() == rows
        assert cut or rollout_counts[:3] == [2, 2, 1]
    assert sum(rollout_counts) <= 2  # the tasks of the last life


KILLED = """
import os, signal, sys
from tests.disk import mounted
from tests.evaluating import measured

def on_progress(arm, done, total):
    if (arm, done) == ("null", 4):
        os.kill(os.getpid(), signal.SIGKILL)

if __name__ == "__main__":
    measured(MODEL, **SETTINGS, rows="rows.jsonl", on_progress=on_progress)
"""


def kill(folder, model, settings, **environment):
    """Run an evaluation in a process that is killed after several lives."""
    script = folder / "killed.py"
    script.write_text(KILLED.replace("MODEL", repr(model)).replace("SETTINGS", repr(settings)))
    paths = os.pathsep.join([str(Path(__file__).parents[2]), *filter(None, sys.path)])
    ended = subprocess.run([sys.executable, script], cwd=folder, env=os.environ | {"PYTHONPATH": paths} | environment)
    assert ended.returncode == -signal.SIGKILL


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_killed_evaluation_resumes_with_the_same_rows_and_table(tmp_path, monkeypatch, workers):
    monkeypatch.setattr(sys.modules["codots.evaluation.evaluate"], "CHUNK", 100)
    settings = {"packs": 12, "pack_size": 3, "workers": workers, "arms": ["own", "null"]}
    expected = measured("base", **settings, rows=tmp_path / "whole.jsonl")
    kill(tmp_path, "base", settings)
    path = tmp_path / "rows.jsonl"
    kept = {(row.arm, row.pack[-1]) for row in load_rollouts(path)}
    assert len(kept) >= 15
    assert len(kept) < 24 or workers > 1
    path.write_bytes(path.read_bytes() + b'{"pack": ["frozen-l')  # a write that the kill cut off
    assert measured("base", **settings, rows=path) == expected
    assert path.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()


@pytest.mark.slow
def test_a_killed_evaluation_of_an_endpoint_asks_only_for_what_is_missing(tmp_path, monkeypatch):
    """The answers depend on the prompt alone, as those of a server that respects seeds or is greedy."""

    def answer(request):
        text = "".join(message["content"] for message in request["messages"])
        return good(f"<context>{crc32(text.encode()) % 9}</context><action>{'LRUD'[crc32(text.encode()) % 4]}</action>")

    server = Server(answer)
    monkeypatch.setenv("OPENAI_BASE_URL", server.url)
    settings = {"domain": "frozen-lake-v1", "packs": 12, "pack_size": 2, "workers": 1, "arms": ["own", "null"]}
    expected = measured("openai:m", **settings, rows=tmp_path / "whole.jsonl")
    once = len(server.requests)
    kill(tmp_path, "openai:m", settings, OPENAI_BASE_URL=server.url)
    server.requests.clear()
    assert measured("openai:m", **settings, rows=tmp_path / "rows.jsonl") == expected
    assert 0 < len(server.requests) < once / 3
    assert (tmp_path / "rows.jsonl").read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
    server.shutdown()
    server.server_close()


def test_two_evaluations_never_write_the_same_file(base, no_engine, tmp_path):
    path = tmp_path / "rows.jsonl"
    with (
        claimed_file(path),
        pytest.raises(ValueError, match=rf"rows\.jsonl is in use by process {os.getpid()}; .*name"),
    ):
        measured(base, **LAKE, rows=path)
    assert list(tmp_path.iterdir()) == []


def test_rows_on_a_disk_that_cannot_be_written_are_refused_before_the_first_life(base, no_engine, tmp_path):
    with mounted(tmp_path / "disk", "1m") as disk:
        if disk is None:
            pytest.skip("mounting is not permitted")
        subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
        with pytest.raises(ValueError, match=r"cannot write .*rows\.jsonl: the folder .*disk cannot be written to"):
            measured(base, **LAKE, rows=disk / "rows.jsonl")


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

"""Every step is a line of metrics.jsonl, a failing logger does not stop the run, and no secret is logged."""

import json
import os
import re
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest

from codots.core.redact import without_secrets
from codots.runs import loggers as module
from codots.runs.loggers import Metrics, check_loggers

TENSORBOARD = ["tensorboard"]


def lines(run):
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_every_step_is_one_line(tmp_path):
    metrics = Metrics(tmp_path, 0)
    metrics.add(1, {"reward/0": 0.5, "tokens/total": 7})
    assert lines(tmp_path) == [{"step": 1, "reward/0": 0.5, "tokens/total": 7}]
    metrics.add(2, {"reward/0": 0.25})
    metrics.close()
    assert [line["step"] for line in lines(tmp_path)] == [1, 2]


def test_a_resumed_run_drops_metrics_past_its_checkpoint(tmp_path):
    first = Metrics(tmp_path, 0)
    for step in (1, 2, 3):
        first.add(step, {"reward/0": step / 10})
    first.close()
    second = Metrics(tmp_path, 2)
    second.add(3, {"reward/0": 9.0})
    second.close()
    assert [(line["step"], line["reward/0"]) for line in lines(tmp_path)] == [(1, 0.1), (2, 0.2), (3, 9.0)]


def test_a_truncated_line_is_dropped(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n{"step": 2}\n{"step": 3, "rew')
    Metrics(tmp_path, 2).close()
    assert [line["step"] for line in lines(tmp_path)] == [1, 2]


@pytest.mark.parametrize("text", ["nonsense", "[]", '{"a": 1}', '{"step": null}'])
def test_an_invalid_line_is_named(tmp_path, text):
    written = f'{{"step": 1}}\n{text}\n'
    (tmp_path / "metrics.jsonl").write_text(written)
    with pytest.raises(ValueError, match=r"metrics\.jsonl, line 2, is not the metrics of a step; fix or remove it"):
        Metrics(tmp_path, 2)
    assert (tmp_path / "metrics.jsonl").read_text() == written


def events(run):
    """Yield the events of TensorBoard files, which are records of length, checksum, bytes, checksum."""
    from tensorboard.compat.proto.event_pb2 import Event

    for file in sorted((run / "tensorboard").iterdir()):
        content, at = file.read_bytes(), 0
        while at < len(content):
            (size,) = struct.unpack_from("<Q", content, at)
            yield Event.FromString(content[at + 12 : at + 12 + size])
            at += size + 16


def test_tensorboard_receives_the_same_metrics(tmp_path):
    metrics = Metrics(tmp_path, 0, TENSORBOARD)
    metrics.add(1, {"reward/0": 0.5, "credit/solve_abs": 2.0})
    metrics.close()
    written = {
        value.tag: (event.step, value.simple_value) for event in events(tmp_path) for value in event.summary.value
    }
    assert written == {"reward/0": (1, 0.5), "credit/solve_abs": (1, 2.0)}


def test_tensorboard_drops_metrics_past_a_checkpoint(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for done, steps, reward in ((0, (1, 2, 3), 0.5), (1, (2,), 0.75)):
        metrics = Metrics(tmp_path, done, TENSORBOARD)
        for step in steps:
            metrics.add(step, {"reward/0": reward})
        metrics.close()
    shown = EventAccumulator(str(tmp_path / "tensorboard")).Reload().Scalars("reward/0")
    assert [(point.step, point.value) for point in shown] == [(1, 0.5), (2, 0.75)]


def test_garbled_lines_are_dropped_and_missing_ones_warned_of(tmp_path, caplog):
    (tmp_path / "metrics.jsonl").write_bytes(b'{"step": 1}\n{"step": 2}\n' + bytes(40) + b"\n\xff\n")
    Metrics(tmp_path, 2).close()
    assert ([line["step"] for line in lines(tmp_path)], caplog.messages) == ([1, 2], [])
    Metrics(tmp_path, 3).close()
    assert caplog.messages == [f"{tmp_path}/metrics.jsonl has only 2 of the 3 completed steps; the rest are lost"]


class FailingLogger:
    """A logger that fails in one of its calls, with secrets in the error."""

    when = "never"

    def __init__(self, run, done, about):
        self.called("open")

    def add(self, step, values):
        self.called(f"step {step}")

    def close(self):
        self.called("close")

    def called(self, what):
        if what == self.when:
            raise ConnectionError("no answer from https://me:my-password@host\nwith key very-secret-key")


@pytest.mark.parametrize("when", ["open", "step 1", "step 2", "close"])
def test_a_failing_logger_is_one_line_and_the_run_continues(tmp_path, monkeypatch, caplog, when):
    monkeypatch.setitem(module.LOGGERS, "failing", FailingLogger)
    monkeypatch.setattr(FailingLogger, "when", when)
    monkeypatch.setenv("SOME_API_KEY", "very-secret-key")
    metrics = Metrics(tmp_path, 0, ["failing", *TENSORBOARD])
    for step in (1, 2, 3):
        metrics.add(step, {"reward/0": 0.5})
    metrics.close()
    assert [line["step"] for line in lines(tmp_path)] == [1, 2, 3]
    assert len([event for event in events(tmp_path) if event.summary.value]) == 3
    assert caplog.messages == [
        "the logger failing failed, and the run continues without it: ConnectionError: "
        "no answer from https://***@host with key <SOME_API_KEY>"
    ]


def test_a_hanging_logger_is_disabled(tmp_path, monkeypatch, caplog):
    monkeypatch.setitem(module.LOGGERS, "failing", FailingLogger)
    monkeypatch.setattr(FailingLogger, "add", lambda *_: time.sleep(60))
    monkeypatch.setattr(module, "LOGGER_TIMEOUT", 0.1)
    graces, close = [], module.SideThread.close
    monkeypatch.setattr(module.SideThread, "close", lambda thread, grace: (graces.append(grace), close(thread, grace)))
    metrics = Metrics(tmp_path, 0, ["failing"])
    metrics.add(1, {})
    metrics.add(2, {})
    metrics.close()
    assert graces == [0.0]  # the end of the run does not wait for it again
    assert len(lines(tmp_path)) == 2
    assert caplog.messages == [
        "the logger failing failed, and the run continues without it: TimeoutError: gave up after 0.1 s of writing"
    ]


def test_a_full_disk_under_tensorboard_is_one_line(tmp_path, caplog):
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    metrics = Metrics(tmp_path, 0, TENSORBOARD)
    board = metrics.loggers[0].logger.events
    board.close()
    board._writer = open("/dev/full", "wb", buffering=0)  # noqa: SIM115
    metrics.add(1, {"reward/0": 0.5})
    metrics.close()
    board._writer.close()
    (warning,) = caplog.messages
    assert re.search("the logger tensorboard failed, .*No space left on device", warning)
    assert len(lines(tmp_path)) == 1


FAILING_RUN = """
import sys
from pathlib import Path
from codots.runs.loggers import Metrics
run = Path(sys.argv[1])
(run / "tensorboard").touch()
metrics = Metrics(run, 0, ["tensorboard"])
metrics.add(1, {})
metrics.close()
"""


def test_a_failing_logger_prints_only_that_line(tmp_path):
    done = subprocess.run([sys.executable, "-c", FAILING_RUN, str(tmp_path)], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("the logger tensorboard failed, and the run continues without it: FileExistsError")


def test_a_missing_logger_is_named_with_its_extra(monkeypatch):
    check_loggers(TENSORBOARD)
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"the logger wandb is not installed; run pip install 'codots\[wandb\]', or"):
        check_loggers(["wandb"])


def two_sessions(run, logger, about=None):
    """Log two steps, and after a resume the second again and a third."""
    for done, steps in ((0, (1, 2)), (1, (2, 3))):
        if done and logger == "wandb":
            time.sleep(1.1)  # it names its folders by the time in seconds
        metrics = Metrics(run, done, [logger], about)
        for step in steps:
            metrics.add(step, {"reward/0": step / 4 + done, "eval/own_0": float("nan")})
        metrics.close()
        assert metrics.loggers[0].logger is not None


def test_wandb_offline_receives_the_metrics_and_a_resumed_run_stays_one_run(tmp_path, monkeypatch):
    wandb = pytest.importorskip("wandb", reason="wandb is not installed: pip install 'codots[wandb]'")
    monkeypatch.setenv("WANDB_MODE", "offline")
    two_sessions(tmp_path, "wandb", {"seed": 7, "model": "base"})
    wandb.teardown()  # its service may still be writing after a run is finished
    folders = sorted((tmp_path / "wandb").glob("offline-run-*"))
    (id,) = {folder.name.rpartition("-")[2] for folder in folders}
    assert json.loads((tmp_path / "loggers.json").read_text()) == {"wandb": id}
    found = [points for folder in folders for points in logged_rewards(folder / f"run-{id}.wandb")]
    assert found == [(1, 0.25), (2, 0.5), (2, 1.5), (3, 1.75)]


def test_wandb_without_a_login_stays_offline_and_asks_nothing(tmp_path, monkeypatch, caplog):
    wandb = pytest.importorskip("wandb", reason="wandb is not installed: pip install 'codots[wandb]'")
    for name in ("WANDB_MODE", "WANDB_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))  # no .netrc
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("asked for input"))
    run = tmp_path / "run"
    run.mkdir()
    metrics = Metrics(run, 0, ["wandb"])
    metrics.add(1, {"reward/0": 0.5})
    metrics.close()
    wandb.teardown()
    (file,) = run.glob("wandb/offline-run-*/run-*.wandb")
    assert list(logged_rewards(file)) == [(1, 0.5)]
    line = f"wandb has no login: the metrics stay in {run / 'wandb'}; upload them with `wandb sync`"
    assert [record.getMessage() for record in caplog.records if record.name == "codots"] == [line]


def logged_rewards(file):
    """Yield steps and rewards of a wandb file: blocks of 32 KiB, records with checksum, length and kind."""
    from wandb.proto.wandb_internal_pb2 import Record

    content, at, data = file.read_bytes(), 7, b""
    while at < len(content):
        if (left := 2**15 - at % 2**15) < 7:
            at += left
            continue
        size, kind = struct.unpack_from("<HB", content, at + 4)
        data += content[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in (1, 4):  # a whole record, or the end of one
            items = Record.FromString(data).history.item
            values = {item.key or item.nested_key[0]: json.loads(item.value_json) for item in items}
            data = b""
            if values:
                yield values["step"], values["reward/0"]


def test_mlflow_files_receive_the_metrics_and_a_resumed_run_stays_one_run(tmp_path, monkeypatch):
    pytest.importorskip("mlflow", reason="mlflow is not installed: pip install 'codots[mlflow]'")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    two_sessions(tmp_path, "mlflow", {"seed": 7, "model": "base"})
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=(tmp_path / "mlruns").as_uri())
    (run,) = client.search_runs([client.get_experiment_by_name("codots").experiment_id])
    assert run.info.run_id == json.loads((tmp_path / "loggers.json").read_text())["mlflow"]
    assert (run.info.status, run.data.params) == ("FINISHED", {"seed": "7", "model": '"base"'})
    points = client.get_metric_history(run.info.run_id, "reward/0")
    assert sorted((point.step, point.value) for point in points) == [(1, 0.25), (2, 0.5), (2, 1.5), (3, 1.75)]


@pytest.mark.parametrize("logger", ["tensorboard", "wandb", "mlflow"])
def test_no_secret_is_logged(tmp_path, monkeypatch, logger):
    pytest.importorskip(logger, reason=f"{logger} is not installed: pip install 'codots[{logger}]'")
    monkeypatch.setenv("WANDB_MODE", "offline")
    for name in ("WANDB_API_KEY", "HF_TOKEN", "AWS_SECRET_ACCESS_KEY", "DB_PASSWORD"):
        monkeypatch.setenv(name, f"hush-{'0123456789' * 4}"[:40])
    monkeypatch.setattr("sys.argv", ["codots", "train", "hush-on-the-command-line"])
    about = {"model": "https://somebody:hush-hush@host/model", "run": f"run-{os.environ['HF_TOKEN']}"}
    two_sessions(tmp_path, logger, about)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert files
    assert not [path for path in files if b"hush" in path.read_bytes()]


def test_other_text_is_not_redacted(monkeypatch):
    monkeypatch.setenv("SHORT_KEY", "one")
    monkeypatch.setenv("PLACE", "somewhere-long")
    text = "one step at https://host/a@b and somewhere-long, mail me@host"
    assert without_secrets(text) == text

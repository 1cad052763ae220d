"""Write the metrics of each step to `metrics.jsonl` and to the loggers of the recipe."""

from __future__ import annotations

import json
import logging
import os
import socket
import time
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from secrets import token_hex
from typing import Any, Protocol

from codots.core.deadline import GRACE, SideThread
from codots.core.files import write_atomically, writing
from codots.core.redact import without_secrets

LOGGER_TIMEOUT = 120.0
"""Timeout of one call of a logger, in seconds."""
IDS = "loggers.json"
"""File with the ids that logging services use for a run, so that a resumed run continues under the same ids."""
log = logging.getLogger("codots")
Numbers = dict[str, float]


class Logger(Protocol):
    """A destination for metrics."""

    def add(self, step: int, values: Numbers) -> None:
        """Log the metrics of one step. A step that is repeated after a resume is logged again."""
        ...

    def close(self) -> None:
        """Finish logging."""
        ...


class Metrics:
    """The metrics of a run, written to `metrics.jsonl` and passed to the loggers."""

    def __init__(self, run: Path, done: int, loggers: Sequence[str] = (), about: dict[str, Any] | None = None) -> None:
        """Open the metrics of a run with `done` completed steps, and delete later steps. `about` is the recipe."""
        self.path = run / "metrics.jsonl"
        kept = [text for number, text in enumerate(self._lines(), 1) if self._step_of(text, number) <= done]
        if len(kept) < done:
            log.warning(f"{self.path} has only {len(kept)} of the {done} completed steps; the rest are lost")
        write_atomically(self.path, "".join(text + "\n" for text in kept))
        self.history: list[Numbers] = [json.loads(text) for text in kept]
        """Metrics of all steps so far."""
        public = json.loads(without_secrets(json.dumps(about or {})))
        self.loggers = [GuardedLogger(name, run, done, public) for name in loggers]

    def _step_of(self, text: str, number: int) -> int:
        try:
            return int(json.loads(text)["step"])
        except (ValueError, TypeError, KeyError) as error:
            problem = "is not the metrics of a step; fix or remove it, and resume again"
            raise ValueError(f"{self.path}, line {number}, {problem}") from error

    def _lines(self) -> list[str]:
        """Return the complete lines before the first line that was garbled by a power cut."""
        text = self.path.read_text(errors="replace") if self.path.exists() else ""
        lines = text[: text.rfind("\n") + 1].splitlines()
        return lines[: next((i for i, line in enumerate(lines) if "\0" in line), None)]

    def add(self, step: int, values: Numbers) -> None:
        """Write the metrics of one step and pass them to the loggers. Raises OSError if they cannot be written."""
        try:
            with writing(self.path), self.path.open("a") as file:
                file.write(json.dumps({"step": step, **values}) + "\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise OSError(f"step {step}: {error}; continue with --resume") from error
        self.history.append(values)
        for logger in self.loggers:
            logger.add(step, values)

    def close(self) -> None:
        """Close all loggers."""
        for logger in self.loggers:
            logger.close()


class GuardedLogger:
    """A logger that is disabled with a warning when it fails, so that the run continues."""

    def __init__(self, name: str, run: Path, done: int, about: dict[str, Any]) -> None:
        self.name, self._thread = name, SideThread()
        self.logger: Logger | None = self._guard(lambda: LOGGERS[name](run, done, about))

    def _guard(self, call: Callable[[], Any]) -> Any:
        try:
            return self._thread.call(LOGGER_TIMEOUT, "writing", lambda _: call())
        except Exception as error:
            reason = without_secrets(" ".join(f"{type(error).__name__}: {error}".split()))
            log.warning(f"the logger {self.name} failed, and the run continues without it: {reason:.500}")
            self.logger = None

    def add(self, step: int, values: Numbers) -> None:
        """Log the metrics of one step unless the logger is disabled."""
        if logger := self.logger:
            self._guard(lambda: logger.add(step, values))

    def close(self) -> None:
        """Finish logging unless the logger is disabled."""
        if logger := self.logger:
            self._guard(logger.close)
        self._thread.close(GRACE if self.logger else 0.0)  # a logger that failed has had its time


def check_loggers(names: Sequence[str]) -> None:
    """Raise ValueError if the package of a logger is not installed."""
    for name in names:
        if find_spec(name) is None:
            raise ValueError(f"the logger {name} is not installed; run pip install 'codots[{name}]', or leave it out")


def service_id(run: Path, name: str, make: Callable[[], str]) -> str:
    """Return the id of a run at a logging service. The id is created with `make` and saved on first use."""
    path = run / IDS
    ids: dict[str, str] = json.loads(path.read_text()) if path.is_file() else {}
    if name not in ids:
        ids[name] = make()
        write_atomically(path, json.dumps(ids))
    return ids[name]


class TensorBoard:
    """Logger for TensorBoard. It writes event files to `tensorboard/` without a background thread that could hang."""

    def __init__(self, run: Path, done: int, about: dict[str, Any]) -> None:
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog
        from tensorboard.summary.writer.record_writer import RecordWriter

        (run / "tensorboard").mkdir(exist_ok=True)
        name = f"events.out.tfevents.{time.time_ns()}.{socket.gethostname()}.{os.getpid()}"
        self.events = RecordWriter((run / "tensorboard" / name).open("wb"))
        self._write(Event(wall_time=time.time(), file_version="brain.Event:2"))
        if done:  # hides steps that an earlier session logged after its last checkpoint
            start = SessionLog(status=SessionLog.START)
            self._write(Event(wall_time=time.time(), step=done + 1, session_log=start))

    def _write(self, event: Any) -> None:
        self.events.write(event.SerializeToString())
        self.events.flush()

    def add(self, step: int, values: Numbers) -> None:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary

        scalars = [Summary.Value(tag=name, simple_value=value) for name, value in values.items()]
        self._write(Event(wall_time=time.time(), step=step, summary=Summary(value=scalars)))

    def close(self) -> None:
        self.events.close()


class Wandb:
    """Logger for Weights & Biases. It never asks for a login: without one, or with `WANDB_MODE=offline`, all data stays
    in `wandb/` for a later `wandb sync`.

    Only the recipe and the metrics are sent: no machine data, code, command line or output.
    """

    def __init__(self, run: Path, done: int, about: dict[str, Any]) -> None:
        import wandb

        quiet = {"silent": True, "console": "off"}
        wandb.setup(wandb.Settings(silent=True))
        offline = not os.environ.get("WANDB_MODE") and not wandb.login(prompt=False)
        if offline:
            log.warning(f"wandb has no login: the metrics stay in {run / 'wandb'}; upload them with `wandb sync`")
        private = {"x_disable_meta": True, "x_disable_stats": True, "disable_git": True, "disable_code": True}
        self.run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "codots"),
            name=run.name,
            id=service_id(run, "wandb", lambda: token_hex(4)),
            resume="allow",
            dir=run,
            config=about,
            mode="offline" if offline else None,
            settings=wandb.Settings(**quiet, **private),
        )
        self.run.define_metric("*", step_metric="step")  # the step counter of wandb rejects repeated steps

    def add(self, step: int, values: Numbers) -> None:
        self.run.log({"step": step, **values})

    def close(self) -> None:
        self.run.finish()


class MLflow:
    """Logger for MLflow. It logs to `MLFLOW_TRACKING_URI` if that is set, otherwise to files in `mlruns/`."""

    def __init__(self, run: Path, done: int, about: dict[str, Any]) -> None:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        uri = os.environ.get("MLFLOW_TRACKING_URI")
        if not uri:
            os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")  # MLflow requires it for plain files
        from mlflow import MlflowClient
        from mlflow.entities import Param

        self.client = MlflowClient(tracking_uri=uri or (run / "mlruns").resolve().as_uri())
        self.id = service_id(run, "mlflow", lambda: self._create(run.name))
        self.client.update_run(self.id, status="RUNNING")
        if not self.client.get_run(self.id).data.params:
            self.client.log_batch(self.id, params=[Param(key, json.dumps(value)) for key, value in about.items()])

    def _create(self, name: str) -> str:
        project = os.environ.get("MLFLOW_EXPERIMENT_NAME", "codots")
        found = self.client.get_experiment_by_name(project)
        experiment = found.experiment_id if found else self.client.create_experiment(project)
        return str(self.client.create_run(experiment, run_name=name).info.run_id)

    def add(self, step: int, values: Numbers) -> None:
        from mlflow.entities import Metric

        now = time.time_ns() // 1_000_000
        self.client.log_batch(self.id, metrics=[Metric(name, value, now, step) for name, value in values.items()])

    def close(self) -> None:
        self.client.set_terminated(self.id)


LOGGERS: dict[str, Callable[[Path, int, dict[str, Any]], Logger]] = {
    "tensorboard": TensorBoard,
    "wandb": Wandb,
    "mlflow": MLflow,
}

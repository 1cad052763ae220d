"""The numbers of each step: `metrics.jsonl` always, and beside it the loggers that a recipe names."""

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

from codots.core.deadline import SideThread
from codots.core.files import write_atomically
from codots.core.redact import without_secrets

LOGGER_TIMEOUT = 120.0
"""Seconds that a logger may take for one thing."""
IDS = "loggers.json"
"""Under which names services know a run, so that one that is resumed goes on there too."""
log = logging.getLogger("codots")
Numbers = dict[str, float]


class Logger(Protocol):
    """Shows the numbers elsewhere."""

    def add(self, step: int, values: Numbers) -> None:
        """Show one step; a step that is done again after a resume comes again."""
        ...

    def close(self) -> None:
        """Finish."""
        ...


class Metrics:
    """The numbers of a run."""

    def __init__(self, run: Path, done: int, loggers: Sequence[str] = (), about: dict[str, Any] | None = None) -> None:
        """Open a run that has `done` steps behind it; what was written past them is dropped."""
        self.path = run / "metrics.jsonl"
        kept = [text for number, text in enumerate(self._lines(), 1) if self._step_of(text, number) <= done]
        if len(kept) < done:
            log.warning(f"{self.path} has only {len(kept)} of the {done} steps that are done; the rest are lost")
        write_atomically(self.path, "".join(text + "\n" for text in kept))
        public = json.loads(without_secrets(json.dumps(about or {})))
        self.loggers = [Guarded(name, run, done, public) for name in loggers]

    def _step_of(self, text: str, number: int) -> int:
        try:
            return int(json.loads(text)["step"])
        except (ValueError, TypeError, KeyError) as error:
            said = "is not the numbers of a step; mend or remove it, and resume again"
            raise ValueError(f"{self.path}, line {number}, {said}") from error

    def _lines(self) -> list[str]:
        """The whole lines, up to one that a power cut may have left."""
        text = self.path.read_text(errors="replace") if self.path.exists() else ""
        lines = text[: text.rfind("\n") + 1].splitlines()
        return lines[: next((i for i, line in enumerate(lines) if "\0" in line), None)]

    def add(self, step: int, values: Numbers) -> None:
        """Write one step."""
        try:
            with self.path.open("a") as file:
                file.write(json.dumps({"step": step, **values}) + "\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise OSError(
                f"step {step} could not be written to {self.path}: {error.strerror}; --resume goes on"
            ) from error
        for logger in self.loggers:
            logger.add(step, values)

    def close(self) -> None:
        """Finish writing."""
        for logger in self.loggers:
            logger.close()


class Guarded:
    """A logger whose failure is one line and no more: it is left out from then on."""

    def __init__(self, name: str, run: Path, done: int, about: dict[str, Any]) -> None:
        self.name, self._thread = name, SideThread()
        self.logger: Logger | None = self._tried(lambda: LOGGERS[name](run, done, about))

    def _tried(self, call: Callable[[], Any]) -> Any:
        try:
            return self._thread.call(LOGGER_TIMEOUT, "writing", lambda _: call())
        except Exception as error:
            said = without_secrets(" ".join(f"{type(error).__name__}: {error}".split()))
            log.warning(f"the logger {self.name} failed, and the run goes on without it: {said:.500}")
            self.logger = None

    def add(self, step: int, values: Numbers) -> None:
        """Show one step, if it still can."""
        if logger := self.logger:
            self._tried(lambda: logger.add(step, values))

    def close(self) -> None:
        """Finish, if it still can."""
        if logger := self.logger:
            self._tried(logger.close)
        self._thread.close()


def check_loggers(names: Sequence[str]) -> None:
    """Raise ValueError for a logger whose package is not there."""
    for name in names:
        if find_spec(name) is None:
            raise ValueError(f"the logger {name} is not installed; run pip install 'codots[{name}]', or leave it out")


def remembered(run: Path, name: str, make: Callable[[], str]) -> str:
    """The id of a run at a service, made once."""
    path = run / IDS
    known: dict[str, str] = json.loads(path.read_text()) if path.is_file() else {}
    if name not in known:
        known[name] = make()
        write_atomically(path, json.dumps(known))
    return known[name]


class TensorBoard:
    """Event files in `tensorboard/`; written here and now, so that no thread can hang or die behind the run's back."""

    def __init__(self, run: Path, done: int, about: dict[str, Any]) -> None:
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog
        from tensorboard.summary.writer.record_writer import RecordWriter

        (run / "tensorboard").mkdir(exist_ok=True)
        name = f"events.out.tfevents.{time.time_ns()}.{socket.gethostname()}.{os.getpid()}"
        self.events = RecordWriter((run / "tensorboard" / name).open("wb"))
        self._write(Event(wall_time=time.time(), file_version="brain.Event:2"))
        if done:  # what an earlier session showed past here is not shown any more
            start = SessionLog(status=SessionLog.START)
            self._write(Event(wall_time=time.time(), step=done + 1, session_log=start))

    def _write(self, event: Any) -> None:
        self.events.write(event.SerializeToString())
        self.events.flush()

    def add(self, step: int, values: Numbers) -> None:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary

        shown = [Summary.Value(tag=name, simple_value=value) for name, value in values.items()]
        self._write(Event(wall_time=time.time(), step=step, summary=Summary(value=shown)))

    def close(self) -> None:
        self.events.close()


class Wandb:
    """Weights & Biases; `WANDB_MODE=offline` keeps it all in `wandb/` for `wandb sync`.

    Only the recipe and the numbers are told: no machine, no code, no command line, no output.
    """

    def __init__(self, run: Path, done: int, about: dict[str, Any]) -> None:
        import wandb

        quiet = {"silent": True, "console": "off"}
        private = {"x_disable_meta": True, "x_disable_stats": True, "disable_git": True, "disable_code": True}
        self.run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "codots"),
            name=run.name,
            id=remembered(run, "wandb", lambda: token_hex(4)),
            resume="allow",
            dir=run,
            config=about,
            settings=wandb.Settings(**quiet, **private),
        )
        self.run.define_metric("*", step_metric="step")  # its own count takes no step twice

    def add(self, step: int, values: Numbers) -> None:
        self.run.log({"step": step, **values})

    def close(self) -> None:
        self.run.finish()


class MLflow:
    """MLflow, at `MLFLOW_TRACKING_URI` or as files in `mlruns/`."""

    def __init__(self, run: Path, done: int, about: dict[str, Any]) -> None:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        uri = os.environ.get("MLFLOW_TRACKING_URI")
        if not uri:
            os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")  # which MLflow asks of whoever wants plain files
        from mlflow import MlflowClient
        from mlflow.entities import Param

        self.client = MlflowClient(tracking_uri=uri or (run / "mlruns").resolve().as_uri())
        self.id = remembered(run, "mlflow", lambda: self._create(run.name))
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

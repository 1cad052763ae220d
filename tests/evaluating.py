"""Run an evaluation from keyword settings."""

from codots.config.evaluate import EvalConfig
from codots.config.load import validate
from codots.evaluation.evaluate import Report, evaluate


def measured(model, *, on_progress=None, **settings) -> Report:
    """Evaluate a model; invalid settings raise the same one-line error as `codots eval`."""
    config = validate(EvalConfig, {"model": model} | settings, "eval")
    return evaluate(config) if on_progress is None else evaluate(config, on_progress=on_progress)

"""An evaluation as a person asks for one: settings that are checked, then lives."""

from codots.config.load import validate
from codots.config.schema import EvalConfig
from codots.evaluation.evaluate import Report, evaluate


def measured(model, *, on_progress=None, **settings) -> Report:
    """Measure a model; settings that do not fit raise the one line that the command would say."""
    config = validate(EvalConfig, {"model": model} | settings, "eval")
    return evaluate(config) if on_progress is None else evaluate(config, on_progress=on_progress)

"""The command line: every command is a thin door to a function of the package."""

from __future__ import annotations

import sys
from itertools import pairwise
from typing import NoReturn

import typer

from codots.cli.app import StoppedError, app

# The order in which `codots --help` lists the commands.
# isort: off
from codots.cli import runs, worlds, look  # noqa: F401
# isort: on


def main() -> None:
    """Run a command; what goes wrong is one line on stderr.

    The exit code is 2 for what cannot be done, 1 for a run that stopped itself or input that ended early, 130 for
    Ctrl-C.
    """
    try:
        code = app(prog_name="codots", standalone_mode=False)
    except (StoppedError, KeyboardInterrupt):
        _fail("stopped", 130)
    except typer.Abort:
        _fail("stopped: the input ended", 1)
    except (ArithmeticError, TimeoutError, RuntimeError) as error:
        _fail(str(error), 1)
    except Exception as error:
        if type(error).__name__ == "NoArgsIsHelpError":
            error.show()  # type: ignore[attr-defined]
            sys.exit(2)
        _fail(_usage(error) or str(error) or type(error).__name__, 2)
    sys.exit(code if isinstance(code, int) else 0)


def _usage(error: Exception) -> str:
    """Word wrong usage, which typer would draw a box around; nothing for any other error."""
    if not hasattr(error, "format_message"):
        return ""
    where = getattr(getattr(error, "ctx", None), "command_path", "codots")
    return f"{str(error.format_message()).rstrip('.')}{_given(error)}; see {where} --help"


def _given(error: Exception) -> str:
    """What a wrong option was given, which typer does not say."""
    options = getattr(getattr(error, "param", None), "opts", ())
    said = [word.partition("=")[::2] if "=" in word else (word, after) for word, after in pairwise([*sys.argv, ""])]
    return next((f", got {value!r}" for option, value in said if option in options), "")


def _fail(line: str, code: int) -> NoReturn:
    from codots.core.redact import without_secrets

    typer.echo(f"codots: {without_secrets(' '.join(line.split()))}", err=True)
    sys.exit(code)

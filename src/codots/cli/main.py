"""Entry point of the command line: run a command and map errors to exit codes."""

from __future__ import annotations

import sys
from itertools import pairwise
from typing import NoReturn

import typer

from codots.cli.app import StoppedError, app
from codots.core.processes import stop_signals_to

# The order in which `codots --help` lists the commands.
# isort: off
from codots.cli import runs, worlds, look, models, contexts, quarantine, keys, agents  # noqa: F401
# isort: on


def main() -> None:
    """Run a command, and print an error as one line on stderr.

    The exit code is 130 after Ctrl-C, 143 after SIGTERM, 129 after SIGHUP, and 1 if a run stops itself or the input
    ends early. It is 2 for every other error, such as an invalid command or recipe.
    """
    try:
        with stop_signals_to():
            code = app(prog_name="codots", standalone_mode=False)
    except StoppedError as stopped:
        _fail("stopped", stopped.exit_code)
    except KeyboardInterrupt:
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
    """Return a usage error as one line, without the box that Typer draws. Returns '' for any other error."""
    if not hasattr(error, "format_message"):
        return ""
    where = getattr(getattr(error, "ctx", None), "command_path", "codots")
    return f"{str(error.format_message()).rstrip('.')}{_given(error)}; see {where} --help"


def _given(error: Exception) -> str:
    """Return the value given for an invalid parameter, as `, got VALUE`, because Typer's message omits the value."""
    if read := getattr(error.__cause__, "errors", None):  # of pydantic
        return f", got {read()[0]['input']!r}"
    options = [name for name in getattr(getattr(error, "param", None), "opts", ()) if name.startswith("-")]
    given = [word.partition("=")[::2] if "=" in word else (word, after) for word, after in pairwise([*sys.argv, ""])]
    return next((f", got {value!r}" for option, value in given if option in options), "")


def _fail(line: str, code: int) -> NoReturn:
    from codots.core.redact import without_secrets

    typer.echo(f"codots: {without_secrets(' '.join(line.split()))}", err=True)
    sys.exit(code)

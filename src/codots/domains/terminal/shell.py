"""The simulated shell, which parses a line, expands it and runs its commands on the current machine."""

from __future__ import annotations

import re
from collections.abc import Callable, Generator
from dataclasses import dataclass, field

from codots.domains.terminal.machine import Machine, Refused
from codots.domains.terminal.site import Site

UNIX = re.compile(
    r"""\s*(?:(?P<join>&&|;)|(?P<bad>[|<>&])|(?P<word>(?:'[^']*'|"[^"]*"|\\.|[^\s;&|<>'"\\])+)|(?P<open>\S))""", re.S
)
WINDOWS = re.compile(
    r"""\s*(?:(?P<join>&&|;)|(?P<bad>[|<>&])|(?P<word>(?:'[^']*'|"[^"]*"|[^\s;&|<>'"])+)|(?P<open>\S))""", re.S
)
PIECE = re.compile(r"""'([^']*)'|"([^"]*)"|\\(.)|([^'"\\]+|\\)""", re.S)
SPECIAL = re.compile(r"""['"\\$%]""")
VARIABLE = re.compile(r"\$\{(\w{1,40})\}|\$(\w{1,40})")
PERCENT = re.compile(r"%(\w{1,40})%")
TILDE = re.compile(r"(?<!\S)~(?=[/\s;&]|$)")

Command = Callable[["Shell", list[str]], str]


@dataclass(frozen=True)
class Behavior:
    """Behavior of the simulated shell. The values of v0 are quirks."""

    real: bool
    """Whether the shell behaves like a real shell: inline ssh commands run, `~` in a remote path is the remote home,
    quotes work on Windows, `tar -C` works, `ren` stays in the folder, `mkdir` on Windows creates parents, `chmod -R`
    includes the folder itself, `&&` stops on every failure, variables are expanded per command, and user names are
    always checked."""
    windows_lacks: frozenset[str]
    """Commands missing on Windows."""


@dataclass
class Shell:
    """One shell session on two machines."""

    local: Machine
    remote: Machine
    site: Site
    behavior: Behavior
    here: Machine = field(init=False)
    cwds: dict[str, str] = field(init=False)
    """Working directory by host, which survives a disconnect."""
    called: str = ""
    """Name by which the running command was called."""
    inline: str | None = None
    """Command line passed to `ssh` that has not run yet, or None if there is none."""

    def __post_init__(self) -> None:
        self.machines = {"local": self.local, "remote": self.remote}
        self.here = self.local
        self.cwds = {self.local.host: self.local.home, self.remote.host: self.remote.home}

    @property
    def cwd(self) -> str:
        """Working directory on the current machine."""
        return self.cwds[self.here.host]

    @property
    def prompt(self) -> str:
        """Shell prompt."""
        at = self.here.shown(self.cwd)
        if self.here.os == "windows":
            return f"{at}>"
        return f"{self.here.user}@{self.here.host}:{at}{'%' if self.here.os == 'macos' else '$'}"

    def path(self, text: str) -> str:
        """Return the absolute path of `text`, relative to the working directory."""
        return self.here.path(text, self.cwd)

    def run(self, line: str) -> Generator[str, None, bool]:
        """Run a line. Yield the output of each command, and return whether the last one succeeded."""
        try:
            commands = self._parse(line if self.behavior.real else self._expand_line(line))
        except Refused as refused:
            yield refused.text
            return False
        succeeded = True
        for join, raw in commands:
            if join == "&&" and not succeeded:
                continue
            printed, succeeded = self._run_one(raw)
            yield printed
            if self.inline is not None:
                succeeded = yield from self._run_inline()
        return succeeded

    def _run_inline(self) -> Generator[str, None, bool]:
        line, self.inline = self.inline or "", None
        self.here = self.remote
        try:
            return (yield from self.run(line))
        finally:
            self.here = self.local

    def _run_one(self, raw: list[str]) -> tuple[str, bool]:
        words = [self._expand_word(word) for word in raw]
        self.called = words[0]
        try:
            standard = self._standard(words[0])
            if words[1:] == ["--help"]:
                return help_text(standard, self.called), True
            return COMMANDS[standard](self, words[1:]), True
        except Refused as refused:
            return refused.text, not refused.nonzero_exit and not self.behavior.real

    def _standard(self, name: str) -> str:
        """Return the standard name of the command that has this name on the current machine.

        Raises Refused if this machine has no such command.
        """
        standard = name
        if self.here is self.remote:
            standard = self.site.standard(name)
        elif self.here.os == "windows" and name in self.behavior.windows_lacks:
            standard = ""
        if standard not in COMMANDS:
            raise Refused(NOT_FOUND[self.here.os].format(name))
        return standard

    def fail(self, text: str, *, nonzero_exit: bool = True) -> Refused:
        """Return a Refused error whose text starts with the name of the running command."""
        return Refused(f"{self.called}: {text}", nonzero_exit=nonzero_exit)

    def _parse(self, line: str) -> list[tuple[str, list[str]]]:
        commands: list[tuple[str, list[str]]] = [(";", [])]
        for found in (WINDOWS if self.here.os == "windows" else UNIX).finditer(line):
            join, bad, word, _ = found.groups()
            if word is not None:
                commands[-1][1].append(word)
            elif join is None:
                raise Refused(f"this shell has no pipes and no redirection: {bad}" if bad else "a quote is left open")
            elif not commands[-1][1]:
                raise Refused(f"syntax error near {join}")
            else:
                commands.append((join, []))
        if not commands[-1][1]:
            if commands[-1][0] == "&&" or len(commands) == 1:
                raise Refused("syntax error: a command is missing")
            commands.pop()
        return commands

    def _expand_word(self, raw: str) -> str:
        windows, real = self.here.os == "windows", self.behavior.real
        if real and raw[0] == "~":
            raw = self._tilde(raw)
        if not SPECIAL.search(raw):
            return raw
        if windows:
            raw = re.sub("[\"']", "", raw) if real else raw  # v0 treats quotes as part of the name
            return self._variables(raw) if real else raw
        pieces = []
        for single, double, escaped, plain in PIECE.findall(raw):
            text = double or plain
            pieces.append(single + escaped + (self._variables(text) if real else text))
        return "".join(pieces)

    def _expand_line(self, line: str) -> str:
        return self._variables(self._tilde(line))

    def _tilde(self, text: str) -> str:
        home = self.here.home
        return text if self.here.os == "windows" else TILDE.sub(lambda _: home, text)

    def _variables(self, text: str) -> str:
        here = self.here
        if here.os == "windows":
            known = {"USERPROFILE": here.shown(here.home), "USERNAME": here.user}
            return PERCENT.sub(lambda found: known.get(found[1].upper(), found[0]), text)
        known = {"HOME": here.home, "USER": here.user, "PWD": here.shown(self.cwd)}
        return VARIABLE.sub(lambda found: known.get(found[1] or found[2], ""), text)


NOT_FOUND = {
    "windows": "'{}' is not recognized as an internal or external command.",
    "macos": "zsh: command not found: {}",
    "linux": "bash: {}: command not found",
}

COMMANDS: dict[str, Command] = {}
USAGE: dict[str, str] = {}


def command(*names: str, usage: str) -> Callable[[Command], Command]:
    """Return a decorator that registers a function as a command under these names."""

    def register(function: Command) -> Command:
        for name in names:
            COMMANDS[name], USAGE[name] = function, usage
        return function

    return register


def help_text(standard: str, called: str) -> str:
    """Return the help text of a command, with the name by which it was called."""
    return f"{called}: {USAGE[standard].replace('NAME', called)}"


def options(shell: Shell, args: list[str], known: str) -> tuple[set[str], list[str]]:
    """Split arguments into one-letter options and the rest. Raises Refused if an option is unknown."""
    letters: set[str] = set()
    rest = []
    for arg in args:
        if len(arg) > 1 and arg[0] == "-":
            letters |= set(arg[1:])
        else:
            rest.append(arg)
    if letters - set(known):
        raise shell.fail(f"unknown option -{min(letters - set(known))}; {shell.called} --help says more")
    return letters, rest

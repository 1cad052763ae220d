"""Shell commands that reach the server."""

from __future__ import annotations

import re

from codots.domains.terminal.files import copy
from codots.domains.terminal.machine import FOLDER, Machine, Node, base
from codots.domains.terminal.shell import Shell, command, options

REMOTE = re.compile(r"(?:([^@:/\\]+)@)?([^@:/\\]+):(.*)", re.S)
DRIVE = re.compile(r"[A-Za-z]:([\\/]|$)")


@command("ssh", usage="opens a shell on a server, or runs one command there: NAME USER@HOST [COMMAND]")
def ssh(shell: Shell, args: list[str]) -> str:
    words = list(args)
    while len(words) > 1 and words[0] in ("-p", "-i"):
        del words[:2]
    if not words or words[0][0:1] in ("-", ""):
        raise shell.fail("expected user@host")
    if shell.here is shell.remote:
        raise shell.fail("you are on the server already")
    user, at, host = words[0].rpartition("@")
    _check_host(shell, host)
    if (user if at else shell.local.user) != shell.remote.user:
        raise shell.fail(f"{words[0]}: permission denied", nonzero_exit=False)
    if shell.behavior.real and len(words) > 1:
        shell.inline = " ".join(words[1:])
    else:
        shell.here = shell.remote
    return ""


@command("exit", "logout", usage="leaves the server")
def exit_(shell: Shell, args: list[str]) -> str:
    if shell.here is shell.local:
        raise shell.fail("you are on your own machine")
    shell.here = shell.local
    return ""


@command("scp", "rsync", usage="copies to and from a server, with -r also folders: NAME SOURCE... TARGET")
def scp(shell: Shell, args: list[str]) -> str:
    letters, words = options(shell, args, "rapvzqC")
    if shell.here is shell.remote:
        raise shell.fail("the other machine cannot be reached from here; leave the server first")
    if len(words) < 2:
        raise shell.fail("expected a source and a target")
    *sources, target = [_parse_location(shell, word) for word in words]
    if any((machine is target[0]) for machine, _ in sources):
        raise shell.fail("expected one side here and one on the server")
    if shell.site.transfer not in ("", shell.called):
        raise shell.fail("connection closed by the server: protocol not supported")
    deep = shell.called == "rsync" or bool(letters & set("ra"))
    for machine, path in sources:
        _send(shell, machine, path, target, deep)
    return ""


def _send(shell: Shell, machine: Machine, path: str, target: tuple[Machine, str], deep: bool) -> None:
    """Copy a file or folder to the other machine. Copied files get mode 644."""
    there, at = target
    landed = there.destination(at, base(path))
    copy(shell, machine, path, there, at, deep)
    for each in [landed, *there.descendants(landed)]:
        old = there.nodes[each]
        there.nodes[each] = FOLDER if old.content is None else Node(old.content, "644", old.kind, old.entries)


def _parse_location(shell: Shell, word: str) -> tuple[Machine, str]:
    """Return the machine and the path that a word names.

    Raises Refused if the host is wrong or, if `behavior.real` is true, the user is wrong.
    """
    found = REMOTE.fullmatch(word)
    if not found or (shell.local.os == "windows" and DRIVE.match(word)):
        return shell.local, shell.path(word)
    user, host, path = found.groups()
    _check_host(shell, host)
    if shell.behavior.real:
        if (user or shell.local.user) != shell.remote.user:
            raise shell.fail(f"{user or shell.local.user}@{host}: permission denied")
        if path == "~" or path.startswith("~/"):
            path = shell.remote.home + path[1:]
        return shell.remote, shell.remote.path(path, shell.remote.home)
    return shell.remote, shell.remote.path(path, shell.cwds[shell.remote.host])


def _check_host(shell: Shell, host: str) -> None:
    if host != shell.remote.host:
        raise shell.fail(f"could not resolve hostname {host}")

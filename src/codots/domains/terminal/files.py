"""Shell commands that list, read and change files."""

from __future__ import annotations

import re

from codots.domains.terminal.machine import FOLDER, Machine, Node, Refused, base, parent
from codots.domains.terminal.shell import Shell, command, options

OCTAL = re.compile(r"[0-7]{3}")
BITS = ("---", "--x", "-w-", "-wx", "r--", "r-x", "rw-", "rwx")


@command("ls", "dir", usage="shows what folders hold; -l with modes, -a with hidden files")
def ls(shell: Shell, args: list[str]) -> str:
    letters, paths = options(shell, args, "lah1")
    shown = []
    for text in paths or ["."]:
        try:
            listing = _listing(shell, text, letters)
        except Refused as refused:
            listing = refused.text
        shown.append(f"{text}:\n{listing}" if len(paths) > 1 else listing)
    return "\n\n".join(shown)


def _listing(shell: Shell, text: str, letters: set[str]) -> str:
    path, here = shell.path(text), shell.here
    node = here.existing(path)
    if node.content is not None:
        return _row(here, path) if "l" in letters else text
    names = [name for name in here.children(path) if "a" in letters or name[0] != "."]
    return "\n".join(_row(here, f"{path}/{name}") for name in names) if "l" in letters else "\n".join(names)


def _row(machine: Machine, path: str) -> str:
    node = machine.nodes[path]
    bits = "".join(BITS[int(digit)] for digit in node.mode)
    return f"{'d' if node.content is None else '-'}{bits} {machine.user} {node.size} {base(path)}"


@command("cd", usage="goes to a folder; without one, home")
def cd(shell: Shell, args: list[str]) -> str:
    path = shell.path(args[0]) if args else shell.here.home
    if not shell.here.has_folder(path):
        raise shell.fail(f"{args[0]}: no such directory")
    shell.cwds[shell.here.host] = path
    return ""


@command("pwd", usage="says where you are")
def pwd(shell: Shell, args: list[str]) -> str:
    return shell.here.shown(shell.cwd)


@command("whoami", usage="says who you are")
def whoami(shell: Shell, args: list[str]) -> str:
    return shell.here.user


@command("echo", usage="prints its words")
def echo(shell: Shell, args: list[str]) -> str:
    return " ".join(args)


@command("cat", "type", usage="prints files")
def cat(shell: Shell, args: list[str]) -> str:
    nodes = [shell.here.file(shell.path(arg)) for arg in _require(shell, args, 1)]
    return "\n".join("(binary)" if node.kind else node.content or "" for node in nodes)


@command("mkdir", usage="makes folders; -p also those above them: NAME FOLDER...")
def mkdir(shell: Shell, args: list[str]) -> str:
    letters, paths = options(shell, args, "pv")
    above = "p" in letters or (shell.behavior.real and shell.here.os == "windows")
    for text in _require(shell, paths, 1):
        path = shell.path(text)
        if above:
            shell.here.make_folders(path)
        elif path in shell.here.nodes:
            raise shell.fail(f"{text}: is there already")
        else:
            shell.here.put(path, FOLDER)
    return ""


@command("chmod", usage="sets the mode of files, three octal digits; -R also of all that is inside: NAME MODE FILE...")
def chmod(shell: Shell, args: list[str]) -> str:
    letters, (mode, *paths) = _require_two(options(shell, args, "Rv"), shell)
    if not OCTAL.fullmatch(mode):
        raise shell.fail(f"{mode}: not a mode of three octal digits")
    nodes = shell.here.nodes
    for text in paths:
        path = shell.path(text)
        shell.here.existing(path)
        inner = shell.here.descendants(path) if "R" in letters else []
        outer = [] if "R" in letters and not shell.behavior.real and nodes[path].content is None else [path]
        for each in [*outer, *inner]:
            old = nodes[each]
            nodes[each] = Node(old.content, mode, old.kind, old.entries)
    return ""


@command("cp", "copy", usage="copies files and, with -r, folders: NAME SOURCE... TARGET")
def cp(shell: Shell, args: list[str]) -> str:
    letters, (*sources, target) = _require_two(options(shell, args, "rRapfv"), shell)
    for source in sources:
        copy(shell, shell.here, shell.path(source), shell.here, shell.path(target), bool(letters & set("rRa")))
    return ""


def copy(shell: Shell, here: Machine, source: str, there: Machine, target: str, deep: bool) -> None:
    """Copy a file or folder within one machine or between two. Raises Refused for a folder if `deep` is false."""
    node = here.existing(source)
    if node.content is None and (not deep or source == here.root):
        raise shell.fail(f"{here.shown(source)} is a directory, which needs -r")
    target = there.destination(target, base(source))
    if here is there:
        _check_separate(shell, source, target)
    there.receive(here.subtree(source), target)


def _check_separate(shell: Shell, source: str, target: str) -> None:
    if target == source or target.startswith(source + "/"):
        raise shell.fail("source and target are one, or one inside the other")


@command("mv", "move", usage="moves or renames files and folders: NAME SOURCE... TARGET")
def mv(shell: Shell, args: list[str]) -> str:
    _, (*sources, target) = _require_two(options(shell, args, "fv"), shell)
    for source in sources:
        _move(shell, shell.path(source), shell.path(target))
    return ""


@command("ren", "rename", usage="renames a file: NAME OLD NEW")
def ren(shell: Shell, args: list[str]) -> str:
    _, (old, new) = _require_two((set(), args[:2]), shell)
    path = shell.path(old)
    beside = shell.behavior.real and not set(new) & set("/\\")
    _move(shell, path, f"{parent(path)}/{new}" if beside else shell.path(new))
    return ""


def _move(shell: Shell, source: str, target: str) -> None:
    here = shell.here
    here.existing(source)
    target = here.destination(target, base(source))
    _check_separate(shell, source, target)
    if shell.cwd == source or shell.cwd.startswith(source + "/"):
        raise shell.fail("you stand in it")
    if here.has_folder(source) and target in here.nodes:
        raise shell.fail(f"{here.shown(target)}: is there already")
    before, things = dict(here.nodes), here.subtree(source)
    here.remove(source)
    try:
        here.receive(things, target)
    except Refused:
        here.nodes = before
        raise


@command("rm", "del", usage="deletes files and, with -r, folders: NAME FILE...")
def rm(shell: Shell, args: list[str]) -> str:
    letters, paths = options(shell, args, "rRfv")
    for text in _require(shell, paths, 1):
        path = shell.path(text)
        if "f" in letters and path not in shell.here.nodes:
            continue
        if shell.here.existing(path).content is None and not letters & set("rR"):
            raise shell.fail(f"{text} is a directory, which needs -r")
        if (shell.cwd + "/").startswith(path + "/"):
            raise shell.fail("you stand in it")
        shell.here.remove(path)
    return ""


@command("touch", usage="makes empty files: NAME FILE...")
def touch(shell: Shell, args: list[str]) -> str:
    for text in _require(shell, args, 1):
        path = shell.path(text)
        if path not in shell.here.nodes:
            shell.here.put(path, Node(""))
    return ""


def _require(shell: Shell, args: list[str], least: int) -> list[str]:
    if len(args) < least:
        raise shell.fail(f"got {len(args)} names, expected at least {least}; {shell.called} --help says more")
    return args


def _require_two(parsed: tuple[set[str], list[str]], shell: Shell) -> tuple[set[str], list[str]]:
    return parsed[0], _require(shell, parsed[1], 2)

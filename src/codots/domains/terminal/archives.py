"""Shell commands that create and extract archives."""

from __future__ import annotations

from codots.domains.terminal.machine import Entries, Node, Refused, base, parent
from codots.domains.terminal.shell import Shell, command, options

ARCHIVE_LIMIT = 2000  # maximum characters in an archive, so that nested archives stay small


def archive_entries(shell: Shell, names: list[str], *, quiet: bool = False, deep: bool = True) -> Entries:
    """Return the entries of an archive of these files and folders.

    Each entry name starts with the last part of the given path. Raises Refused if a path does not exist, is a folder
    that needs -r, or if the archive is too large.
    """
    entries = []
    for text in names:
        path = shell.path(text)
        if path not in shell.here.nodes:
            raise shell.fail(f"{text}: no such file or directory", nonzero_exit=not quiet)
        if shell.here.nodes[path].content is None and (not deep or path == shell.here.root):
            raise shell.fail(f"{text} is a directory, which needs -r", nonzero_exit=not quiet)
        for inner, node in shell.here.subtree(path):
            if node.content is not None:
                entries.append((base(path) + inner, node.content))
    if sum(len(name) + len(content) for name, content in entries) > ARCHIVE_LIMIT:
        raise shell.fail("no space left on device")
    return tuple(entries)


def unpack(shell: Shell, archive: Node, into: str) -> None:
    """Extract an archive into a folder. Entry names are safe because `archive_entries` created them."""
    for name, content in archive.entries:
        shell.here.make_folders(parent(f"{into}/{name}"))
        shell.here.put(f"{into}/{name}", Node(content))


@command("tar", usage="packs with -cf or -czf, unpacks with -xf or -xzf, lists with -tf: NAME -cf ARCHIVE FOLDER...")
def tar(shell: Shell, args: list[str]) -> str:
    letters, archive, into, names = _parse_tar_args(shell, args)
    if len(letters & set("cxt")) != 1 or archive is None:
        raise shell.fail("expected one of c, x and t, and f with an archive")
    path = shell.path(archive)
    if "c" in letters:
        return _create(shell, path, into, names, "tar.gz" if "z" in letters else "tar")
    node = shell.here.file(path)
    if not node.kind.startswith("tar"):
        raise shell.fail(f"{archive}: not a tar archive")
    if "t" in letters:
        return "\n".join(name for name, _ in node.entries)
    if not shell.here.has_folder(into):
        raise shell.fail(f"{shell.here.shown(into)}: no such directory")
    unpack(shell, node, into)
    return ""


def _create(shell: Shell, path: str, cwd: str, names: list[str], kind: str) -> str:
    if not names:
        raise shell.fail("nothing to pack")
    host, before = shell.here.host, shell.cwd
    shell.cwds[host] = cwd
    try:
        entries = archive_entries(shell, names)
    finally:
        shell.cwds[host] = before
    shell.here.put(path, Node("", kind=kind, entries=entries))
    return ""


def _parse_tar_args(shell: Shell, args: list[str]) -> tuple[set[str], str | None, str, list[str]]:
    """Return the option letters, the archive, the folder (from -C if supported), and the remaining arguments."""
    letters: set[str] = set()
    archive, into, names, words = None, shell.cwd, [], list(args)
    while words:
        word = words.pop(0)
        if word == "-C" and shell.behavior.real:
            into = shell.path(words.pop(0)) if words else into
        elif (word[:1] == "-" or not letters) and set(word.removeprefix("-")) <= set("cxtzfv"):
            letters |= set(word)
            if "f" in word:
                archive = words.pop(0) if words else None
        else:
            names.append(word)
    return letters, archive, into, names


@command("zip", usage="packs; -r also folders: NAME -r ARCHIVE FOLDER...")
def zip_(shell: Shell, args: list[str]) -> str:
    letters, names = options(shell, args, "rqv")
    if len(names) < 2:
        raise shell.fail("expected an archive and what to pack", nonzero_exit=False)
    entries = archive_entries(shell, names[1:], quiet=True, deep="r" in letters)
    shell.here.put(shell.path(names[0]), Node("", kind="zip", entries=entries))
    return ""


@command("unzip", usage="unpacks a zip archive; -d FOLDER says where to: NAME ARCHIVE")
def unzip(shell: Shell, args: list[str]) -> str:
    words = [arg for arg in args if arg not in ("-o", "-q")]
    into = shell.cwd
    if "-d" in words:
        at = words.index("-d")
        if at + 1 == len(words):
            raise shell.fail("-d needs a folder", nonzero_exit=False)
        into = shell.path(words[at + 1])
        del words[at : at + 2]
    if len(words) != 1:
        raise shell.fail("expected one archive", nonzero_exit=False)
    node = shell.here.file(shell.path(words[0]))
    if node.kind != "zip":
        raise shell.fail(f"{words[0]}: not a zip archive", nonzero_exit=False)
    shell.here.make_folders(into)
    unpack(shell, node, into)
    return ""


@command("gzip", usage="packs one file in its place, as FILE.gz: NAME FILE")
def gzip(shell: Shell, args: list[str]) -> str:
    path, node = _one_file(shell, args)
    if node.kind not in ("", "tar"):
        raise shell.fail(f"{args[0]}: is packed already")
    if node.kind == "tar":
        new = Node("", node.mode, "tar.gz", node.entries)
    else:
        new = Node("", node.mode, "gz", ((base(path), node.content or ""),))
    return _replace(shell, path, path + ".gz", new)


@command("gunzip", usage="unpacks FILE.gz in its place: NAME FILE.gz")
def gunzip(shell: Shell, args: list[str]) -> str:
    path, node = _one_file(shell, args)
    if node.kind not in ("gz", "tar.gz") or not path.endswith(".gz") or base(path) == ".gz":
        raise shell.fail(f"{args[0]}: not a gzip file")
    content, kind, held = (node.entries[0][1], "", ()) if node.kind == "gz" else ("", "tar", node.entries)
    new = Node(content, node.mode, kind, held)
    return _replace(shell, path, path[:-3], new)


def _one_file(shell: Shell, args: list[str]) -> tuple[str, Node]:
    if len(args) != 1:
        raise shell.fail("expected one file")
    path = shell.path(args[0])
    return path, shell.here.file(path)


def _replace(shell: Shell, old: str, new: str, node: Node) -> str:
    if len(new) > 500 or shell.here.has_folder(new):
        raise Refused(f"{shell.called}: cannot write {shell.here.shown(new)}")
    shell.here.remove(old)
    shell.here.put(new, node)
    return ""

"""A machine in memory: its files, its paths, and what can be done to them. Nothing here touches a real one."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

NODES = 500  # files and folders of a machine; a full disk is an error like any other
PATH = 500  # characters of a path

Entries = tuple[tuple[str, str], ...]
"""What an archive holds: name and content."""


class Refused(Exception):  # noqa: N818, not an error of this program
    """A command that failed; its text is what the shell prints."""

    def __init__(self, text: str, *, noticed: bool = True) -> None:
        super().__init__(text)
        self.text, self.noticed = text, noticed
        """`noticed`: whether `&&` takes it for a failure."""


@dataclass(frozen=True)
class Node:
    """A file or a folder."""

    content: str | None
    """None for a folder."""
    mode: str = "644"
    kind: str = ""
    """Of an archive: tar, tar.gz, zip or gz."""
    entries: Entries = ()

    @property
    def size(self) -> int:
        """Bytes, more or less."""
        return len(self.content or "") + sum(len(name) + len(content) for name, content in self.entries)


FOLDER = Node(None, "755")
Nodes = dict[str, Node]
"""By absolute path with forward slashes; the root is "" or "C:"."""


def parent(path: str) -> str:
    return path.rpartition("/")[0]


def base(path: str) -> str:
    return path.rpartition("/")[2]


def grown(nodes: Nodes, files: Nodes) -> Nodes:
    """Add files, and the folders that they lie in; the root is there already."""
    nodes = dict(nodes)
    for path, node in files.items():
        above = parent(path)
        while above not in nodes:
            nodes[above] = FOLDER
            above = parent(above)
        nodes[path] = node
    return nodes


@dataclass
class Machine:
    """One computer."""

    os: str
    """windows, macos or linux."""
    user: str
    host: str
    home: str
    nodes: Nodes

    @property
    def root(self) -> str:
        return "C:" if self.os == "windows" else ""

    def path(self, text: str, cwd: str) -> str:
        """Make a path absolute and plain; `..` stops at the root."""
        if self.os == "windows":
            text = text.replace("\\", "/")
            if text[:2].upper() == "C:":
                text = "/" + text[2:]
        parts = [] if text.startswith("/") else cwd.split("/")[1:]
        for part in text.split("/"):
            if part == "..":
                del parts[-1:]
            elif part and part != ".":
                parts.append(part)
        path = "/".join([self.root, *parts])
        if len(path) > PATH:
            raise Refused("file name too long")
        return path

    def shown(self, path: str) -> str:
        """Write a path as this system does."""
        path = path if "/" in path else path + "/"
        return path.replace("/", "\\") if self.os == "windows" else path

    def has_folder(self, path: str) -> bool:
        node = self.nodes.get(path)
        return node is not None and node.content is None

    def file(self, path: str) -> Node:
        """Get a file that has to be there."""
        node = self.existing(path)
        if node.content is None:
            raise Refused(f"{self.shown(path)}: is a directory")
        return node

    def existing(self, path: str) -> Node:
        """Get a file or folder that has to be there."""
        if path not in self.nodes:
            raise Refused(f"{self.shown(path)}: no such file or directory")
        return self.nodes[path]

    def below(self, path: str) -> list[str]:
        """Every path inside a folder, parents before children."""
        return sorted(p for p in self.nodes if p.startswith(path + "/"))

    def children(self, path: str) -> list[str]:
        """The names in a folder."""
        start = len(path) + 1
        return sorted(p[start:] for p in self.nodes if p.startswith(path + "/") and "/" not in p[start:])

    def put(self, path: str, node: Node) -> None:
        """Write a file, or make a folder, in a folder that is there."""
        if not self.has_folder(parent(path)):
            raise Refused(f"{self.shown(parent(path))}: no such directory")
        old = self.nodes.get(path)
        if old is None and len(self.nodes) >= NODES:
            raise Refused("no space left on device")
        if old is not None and (old.content is None) != (node.content is None):
            raise Refused(f"{self.shown(path)}: {'is' if old.content is None else 'is not'} a directory")
        if len(path) > PATH:
            raise Refused("file name too long")
        self.nodes[path] = node

    def make_folders(self, path: str) -> None:
        """Make a folder and those above it."""
        if path == self.root or self.has_folder(path):
            return
        if len(path) > PATH:
            raise Refused("file name too long")
        self.make_folders(parent(path))
        self.put(path, FOLDER)

    def remove(self, path: str) -> None:
        """Delete a file, or a folder with all that is in it."""
        for inner in [path, *self.below(path)]:
            del self.nodes[inner]

    def landing(self, path: str, name: str) -> str:
        """Where something of this name ends up that is sent to a path."""
        return f"{path}/{name}" if self.has_folder(path) else path

    def receive(self, things: Iterable[tuple[str, Node]], path: str) -> None:
        """Put nodes, named from `path` on."""
        for inner, node in things:
            self.put(path + inner, node)

    def taken(self, path: str) -> list[tuple[str, Node]]:
        """A file or a whole folder, as `receive` takes it."""
        return [("", self.nodes[path]), *((p[len(path) :], self.nodes[p]) for p in self.below(path))]

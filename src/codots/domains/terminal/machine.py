"""An in-memory file system, which never accesses the real file system."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

NODES = 500  # maximum files and folders of a machine; more raise `no space left on device`
PATH = 500  # maximum characters of a path

Entries = tuple[tuple[str, str], ...]
"""Archive entries as pairs of name and content."""


class Refused(Exception):  # noqa: N818, a failed shell command, not a bug
    """Error for a shell command that fails. `text` is what the shell prints."""

    def __init__(self, text: str, *, nonzero_exit: bool = True) -> None:
        super().__init__(text)
        self.text, self.nonzero_exit = text, nonzero_exit
        """`nonzero_exit` is whether `&&` stops after this failure. A realistic shell always stops."""


@dataclass(frozen=True)
class Node:
    """A file or folder."""

    content: str | None
    """Content of a file, or None for a folder."""
    mode: str = "644"
    kind: str = ""
    """Format of an archive (`tar`, `tar.gz`, `zip` or `gz`), `program` for a tool, or empty for any other node."""
    entries: Entries = ()

    @property
    def size(self) -> int:
        """Approximate size in bytes."""
        return len(self.content or "") + sum(len(name) + len(content) for name, content in self.entries)


FOLDER = Node(None, "755")
Nodes = dict[str, Node]
"""Nodes by absolute path with forward slashes. The root is "" or "C:"."""


def parent(path: str) -> str:
    return path.rpartition("/")[0]


def base(path: str) -> str:
    return path.rpartition("/")[2]


def with_files(nodes: Nodes, files: Nodes) -> Nodes:
    """Return a copy of `nodes` with these files and their parent folders added. `nodes` must contain the root."""
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
    """One simulated computer."""

    os: str
    """Operating system: `windows`, `macos` or `linux`."""
    user: str
    host: str
    home: str
    nodes: Nodes

    @property
    def root(self) -> str:
        return "C:" if self.os == "windows" else ""

    def path(self, text: str, cwd: str) -> str:
        """Return the normalized absolute path of `text`; `..` stops at the root. Raises Refused if it is too long."""
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
        """Return the path in the notation of this system."""
        path = path if "/" in path else path + "/"
        return path.replace("/", "\\") if self.os == "windows" else path

    def has_folder(self, path: str) -> bool:
        node = self.nodes.get(path)
        return node is not None and node.content is None

    def file(self, path: str) -> Node:
        """Return the file at a path. Raises Refused if the path does not exist or is a folder."""
        node = self.existing(path)
        if node.content is None:
            raise Refused(f"{self.shown(path)}: is a directory")
        return node

    def existing(self, path: str) -> Node:
        """Return the file or folder at a path. Raises Refused if the path does not exist."""
        if path not in self.nodes:
            raise Refused(f"{self.shown(path)}: no such file or directory")
        return self.nodes[path]

    def descendants(self, path: str) -> list[str]:
        """Return every path inside a folder, parents before children."""
        return sorted(p for p in self.nodes if p.startswith(path + "/"))

    def children(self, path: str) -> list[str]:
        """Return the names in a folder."""
        start = len(path) + 1
        return sorted(p[start:] for p in self.nodes if p.startswith(path + "/") and "/" not in p[start:])

    def put(self, path: str, node: Node) -> None:
        """Write a file or create a folder.

        Raises Refused if the parent folder does not exist, if the disk is full, if the path is too long, or if a file
        would replace a folder or a folder a file.
        """
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
        """Create a folder and its parent folders, unless they exist."""
        if path == self.root or self.has_folder(path):
            return
        if len(path) > PATH:
            raise Refused("file name too long")
        self.make_folders(parent(path))
        self.put(path, FOLDER)

    def remove(self, path: str) -> None:
        """Delete a file, or a folder with its contents."""
        for inner in [path, *self.descendants(path)]:
            del self.nodes[inner]

    def destination(self, path: str, name: str) -> str:
        """Return the path at which a file of this name ends up if it is copied or moved to `path`."""
        return f"{path}/{name}" if self.has_folder(path) else path

    def receive(self, things: Iterable[tuple[str, Node]], path: str) -> None:
        """Write pairs of path and node, with paths relative to `path`."""
        for inner, node in things:
            self.put(path + inner, node)

    def subtree(self, path: str) -> list[tuple[str, Node]]:
        """Return a file, or a folder with its contents, as pairs of relative path and node for `receive`."""
        return [("", self.nodes[path]), *((p[len(path) :], self.nodes[p]) for p in self.descendants(path))]

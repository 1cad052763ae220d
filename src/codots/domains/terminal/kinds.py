"""Kinds of tasks, each with its initial files, final checks and a shortest plan."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from codots.domains.terminal.machine import FOLDER, Node, Nodes, parent
from codots.domains.terminal.site import Site
from codots.domains.terminal.tasks import COMPOSITE, SINGLE, Brief, Check, kind_of

PlanStep = tuple[str, ...]
"""A command of a plan: the machine, the tool (`send` for a transfer) and the arguments."""


@dataclass
class Scene:
    """A brief applied to a server, with initial files, final checks and a shortest plan."""

    brief: Brief
    site: Site
    real: bool
    """Whether the shell behaves like a real shell, which makes some plans shorter."""
    local: Nodes = field(default_factory=dict)
    """Initial files of the task on the local machine."""
    remote: Nodes = field(default_factory=dict)
    """Initial files of the task on the server."""
    checks: list[Check] = field(default_factory=list)
    plan: list[PlanStep] = field(default_factory=list)

    def __post_init__(self) -> None:
        KINDS[self.brief.kind](self, self.brief)

    def here(self, *parts: str) -> str:
        """Return a path in the local folder of the task."""
        return "/".join([self.brief.home, self.brief.folder, *parts])

    def there(self, *parts: str) -> str:
        """Return a path in the server folder of the task."""
        return "/".join(filter(None, [self.site.root, self.brief.there, *parts]))

    def at(self, *parts: str) -> str:
        """Return a path in the folder of a single-machine task."""
        return self.here(*parts) if self.brief.side == "local" else self.there(*parts)

    def to(self, *parts: str) -> str:
        """Return a path in the second folder of a single-machine task."""
        if self.brief.side == "local":
            return "/".join([self.brief.home, self.brief.beside, *parts])
        return "/".join(filter(None, [self.site.root, self.brief.yonder, *parts]))

    def server_name(self, name: str) -> str:
        """Return the name of a file on the server."""
        return self.site.server_name(name)

    def content_of(self, name: str) -> str:
        """Return the content of a file of the task."""
        return f"[{name} {self.brief.seed}]"

    def put(self, side: str, path: str, content: str | None, mode: str = "644") -> None:
        """Add an initial file, or a folder if `content` is None."""
        nodes = self.local if side == "local" else self.remote
        nodes[path] = FOLDER if content is None else Node(content, mode)

    def put_archive(self, path: str) -> None:
        """Add the task's archive to the server."""
        self.remote[path] = Node("", kind=kind_of(self.brief.archive), entries=self.entries())

    def entries(self, server_names: bool = False) -> tuple[tuple[str, str], ...]:
        """Return the entries of the task's archive, with plain names or with server names."""
        names = [(self.server_name(name) if server_names else name, name) for name in self.brief.files]
        return tuple((f"{self.brief.folder}/{called}", self.content_of(name)) for called, name in names)

    def put_others(self, side: str, folder: str) -> None:
        """Add the unrelated files of the task to a folder."""
        used = {self.brief.name, self.brief.new}
        for name in self.brief.others:
            if name not in used:
                self.put(side, f"{folder}/{self.server_name(name) if side == 'remote' else name}", f"[{name}]")

    def check(self, side: str, path: str, what: str, value: str = "") -> None:
        """Add a final check."""
        self.checks.append(Check(side, path, what, value))

    def check_archive(self, side: str, path: str, server_names: bool = False) -> None:
        """Add a final check of the task's archive."""
        entries = self.entries(server_names)
        self.checks.append(Check(side, path, "archive", kind=kind_of(self.brief.archive), entries=entries))

    def send(self, source: str, target: str, *, up: bool = True) -> None:
        """Add an upload or a download to the plan."""
        at = f"{self.brief.user}@{self.brief.host}:"
        self.plan.append(("local", "send", source if up else at + source, at + target if up else target))

    def run(self, side: str, tool: str, *args: str) -> None:
        """Add a command to the plan."""
        self.plan.append((side, tool, *args))

    def pack(self, side: str, archive: str, folder: str) -> None:
        """Add to the plan the command that packs a folder."""
        letters = {"tar": "-cf", "tar.gz": "-czf", "zip": "-r"}[kind_of(self.brief.archive)]
        self.run(side, "zip" if letters == "-r" else "tar", letters, archive, folder)

    def unpack(self, side: str, archive: str, into: str) -> None:
        """Add to the plan the commands that extract an archive."""
        kind = kind_of(self.brief.archive)
        letters = "-xzf" if kind == "tar.gz" else "-xf"
        if kind == "zip":
            self.run(side, "unzip", archive, "-d", into)
        elif self.real:
            self.run(side, "tar", letters, archive, "-C", into)
        else:
            self.run(side, "cd", into)
            self.run(side, "tar", letters, archive)


def upload(s: Scene, b: Brief) -> None:
    s.put("local", s.here(b.name), s.content_of(b.name))
    s.put("remote", s.there(), None)
    s.put_others("local", s.here())
    s.check("remote", s.there(s.server_name(b.name)), "file", s.content_of(b.name))
    s.send(s.here(b.name), s.there(s.server_name(b.name)))


def download(s: Scene, b: Brief) -> None:
    s.put("remote", s.there(s.server_name(b.name)), s.content_of(b.name))
    s.put("local", s.here(), None)
    s.put_others("local", s.here())
    s.put_others("remote", s.there())
    s.check("local", s.here(b.name), "file", s.content_of(b.name))
    s.send(s.there(s.server_name(b.name)), s.here(b.name), up=False)


def _change(s: Scene, b: Brief, old: str, new: str) -> None:
    s.put(b.side, old, s.content_of(b.name))
    s.put_others(b.side, s.at())
    s.check(b.side, old, "absent")
    s.check(b.side, new, "file", s.content_of(b.name))
    s.run(b.side, "mv", old, new)


def _name_on_side(s: Scene, name: str) -> str:
    return s.server_name(name) if s.brief.side == "remote" else name


def rename(s: Scene, b: Brief) -> None:
    _change(s, b, s.at(_name_on_side(s, b.name)), s.at(_name_on_side(s, b.new)))


def move(s: Scene, b: Brief) -> None:
    s.put(b.side, s.to(), None)
    _change(s, b, s.at(_name_on_side(s, b.name)), s.to(_name_on_side(s, b.name)))


def chmod(s: Scene, b: Brief) -> None:
    path = s.at(_name_on_side(s, b.name))
    s.put(b.side, path, s.content_of(b.name), b.old_mode)
    s.put_others(b.side, s.at())
    s.check(b.side, path, "mode", b.mode)
    s.run(b.side, "chmod", b.mode, path)


def delete(s: Scene, b: Brief) -> None:
    path = s.at(_name_on_side(s, b.name))
    s.put(b.side, path, s.content_of(b.name))
    s.put_others(b.side, s.at())
    s.check(b.side, path, "absent")
    s.run(b.side, "rm", path)


def copy(s: Scene, b: Brief) -> None:
    name = _name_on_side(s, b.name)
    s.put(b.side, s.at(name), s.content_of(b.name))
    s.put(b.side, s.to(), None)
    s.check(b.side, s.at(name), "file", s.content_of(b.name))
    s.check(b.side, s.to(name), "file", s.content_of(b.name))
    s.run(b.side, "cp", s.at(name), s.to(name))


def pack(s: Scene, b: Brief) -> None:
    for name in b.files:
        s.put(b.side, s.at(_name_on_side(s, name)), s.content_of(name))
    archive = f"{parent(s.at())}/{_name_on_side(s, b.archive)}"
    s.check_archive(b.side, archive, server_names=b.side == "remote")
    s.pack(b.side, archive, s.at())


def mkdir(s: Scene, b: Brief) -> None:
    path = f"{b.home}/{b.deep}" if b.side == "local" else s.there(b.deep)
    s.put("remote", s.there(), None)
    s.check(b.side, path, "folder")
    s.run(b.side, "mkdir", "-p", path)


def pack_upload(s: Scene, b: Brief) -> None:
    for name in b.files:
        s.put("local", s.here(name), s.content_of(name))
    s.put("remote", s.there(), None)
    target = s.there(s.server_name(b.archive))
    s.check_archive("remote", target)
    s.pack("local", f"{b.home}/{b.archive}", s.here())
    s.send(f"{b.home}/{b.archive}", target)


def download_extract(s: Scene, b: Brief) -> None:
    source, into = s.there(s.server_name(b.archive)), f"{b.home}/{b.beside}"
    s.put_archive(source)
    s.put("local", into, None)
    for name, content in s.entries():
        s.check("local", f"{into}/{name}", "file", content)
    s.send(source, f"{into}/{b.archive}", up=False)
    s.unpack("local", f"{into}/{b.archive}", into)


def mkdir_upload(s: Scene, b: Brief) -> None:
    target = s.there(b.deep, s.server_name(b.name))
    s.put("local", s.here(b.name), s.content_of(b.name))
    s.put("remote", s.there(), None)
    s.put_others("local", s.here())
    s.check("remote", target, "file", s.content_of(b.name))
    s.run("remote", "mkdir", "-p", parent(target))
    s.send(s.here(b.name), target)


def upload_chmod(s: Scene, b: Brief) -> None:
    upload(s, b)
    target = s.there(s.server_name(b.name))
    s.check("remote", target, "mode", b.mode)
    s.run("remote", "chmod", b.mode, target)


def upload_delete_source(s: Scene, b: Brief) -> None:
    upload(s, b)
    s.check("local", s.here(b.name), "absent")
    s.run("local", "rm", s.here(b.name))


def pack_upload_extract(s: Scene, b: Brief) -> None:
    for name in b.files:
        s.put("local", s.here(name), s.content_of(name))
    s.put("remote", s.there(), None)
    archive = s.there(s.server_name(b.archive))
    if s.site.root:
        s.check_archive("remote", archive)
    for name, content in s.entries():
        s.check("remote", s.there(name), "file", content)
    if s.real:  # sending the folder itself is shorter than extracting the archive on the server
        called = f"{b.home}/{s.server_name(b.archive)}"
        s.pack("local", called, s.here())
        s.run("local", "send", "-r", called, s.here(), f"{b.user}@{b.host}:{s.there()}")
    else:
        s.pack("local", f"{b.home}/{b.archive}", s.here())
        s.send(f"{b.home}/{b.archive}", archive)
        s.unpack("remote", archive, s.there())


def download_rename(s: Scene, b: Brief) -> None:
    s.put("remote", s.there(s.server_name(b.name)), s.content_of(b.name))
    s.put("local", s.here(), None)
    s.put_others("remote", s.there())
    s.check("local", s.here(b.new), "file", s.content_of(b.name))
    s.check("local", s.here(b.name), "absent")
    s.send(s.there(s.server_name(b.name)), s.here(b.new), up=False)


def backup_replace(s: Scene, b: Brief) -> None:
    target, new = s.there(s.server_name(b.name)), s.content_of(f"new {b.name}")
    s.put("remote", target, s.content_of(b.name))
    s.put("local", s.here(b.name), new)
    s.check("remote", target + ".bak", "file", s.content_of(b.name))
    s.check("remote", target, "file", new)
    s.run("remote", "mv", target, target + ".bak")
    s.send(s.here(b.name), target)


KINDS: dict[str, Callable[[Scene, Brief], None]] = {name: globals()[name] for name in (*SINGLE, *COMPOSITE)}

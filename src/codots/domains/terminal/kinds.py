"""What each kind of task means on a server: what lies where, what has to be so, and the shortest way there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from codots.domains.terminal.machine import FOLDER, Node, Nodes, parent
from codots.domains.terminal.site import Site
from codots.domains.terminal.tasks import COMPOSITE, SINGLE, Brief, Check, kind_of

Do = tuple[str, ...]
"""A command of a plan: side, tool (`send` for a transfer), arguments."""


@dataclass
class Scene:
    """A brief on a server: what lies where, what has to be so, and the shortest way there."""

    brief: Brief
    site: Site
    real: bool
    """Whether the shell has the manners of real ones, which makes some plans shorter."""
    local: Nodes = field(default_factory=dict)
    remote: Nodes = field(default_factory=dict)
    checks: list[Check] = field(default_factory=list)
    plan: list[Do] = field(default_factory=list)

    def __post_init__(self) -> None:
        KINDS[self.brief.kind](self, self.brief)

    def here(self, *parts: str) -> str:
        """A path in the local folder."""
        return "/".join([self.brief.home, self.brief.folder, *parts])

    def there(self, *parts: str) -> str:
        """A path in the folder of the server."""
        return "/".join(filter(None, [self.site.root, self.brief.there, *parts]))

    def at(self, *parts: str) -> str:
        """A path in the folder of a task of one machine."""
        return self.here(*parts) if self.brief.side == "local" else self.there(*parts)

    def to(self, *parts: str) -> str:
        """A path in its other folder."""
        if self.brief.side == "local":
            return "/".join([self.brief.home, self.brief.beside, *parts])
        return "/".join(filter(None, [self.site.root, self.brief.yonder, *parts]))

    def named(self, name: str) -> str:
        """What a file is called there."""
        return self.site.named(name)

    def stamp(self, name: str) -> str:
        """What a file holds."""
        return f"[{name} {self.brief.seed}]"

    def lay(self, side: str, path: str, content: str | None, mode: str = "644") -> None:
        """Put a file in its place beforehand."""
        nodes = self.local if side == "local" else self.remote
        nodes[path] = FOLDER if content is None else Node(content, mode)

    def lay_archive(self, path: str) -> None:
        self.remote[path] = Node("", kind=kind_of(self.brief.archive), entries=self.entries())

    def entries(self, named: bool = False) -> tuple[tuple[str, str], ...]:
        """What an archive of the task holds; files of the server go by their names there."""
        names = [(self.named(name) if named else name, name) for name in self.brief.files]
        return tuple((f"{self.brief.folder}/{called}", self.stamp(name)) for called, name in names)

    def scatter(self, side: str, folder: str) -> None:
        """Add files that have nothing to do with the task."""
        busy = {self.brief.name, self.brief.new}
        for name in self.brief.others:
            if name not in busy:
                self.lay(side, f"{folder}/{self.named(name) if side == 'remote' else name}", f"[{name}]")

    def check(self, side: str, path: str, what: str, value: str = "") -> None:
        self.checks.append(Check(side, path, what, value))

    def check_archive(self, side: str, path: str, named: bool = False) -> None:
        entries = self.entries(named)
        self.checks.append(Check(side, path, "archive", kind=kind_of(self.brief.archive), entries=entries))

    def send(self, source: str, target: str, *, up: bool = True) -> None:
        at = f"{self.brief.user}@{self.brief.host}:"
        self.plan.append(("local", "send", source if up else at + source, at + target if up else target))

    def do(self, side: str, tool: str, *args: str) -> None:
        self.plan.append((side, tool, *args))

    def pack(self, side: str, archive: str, folder: str) -> None:
        letters = {"tar": "-cf", "tar.gz": "-czf", "zip": "-r"}[kind_of(self.brief.archive)]
        self.do(side, "zip" if letters == "-r" else "tar", letters, archive, folder)

    def unpack(self, side: str, archive: str, into: str) -> None:
        kind = kind_of(self.brief.archive)
        letters = "-xzf" if kind == "tar.gz" else "-xf"
        if kind == "zip":
            self.do(side, "unzip", archive, "-d", into)
        elif self.real:
            self.do(side, "tar", letters, archive, "-C", into)
        else:
            self.do(side, "cd", into)
            self.do(side, "tar", letters, archive)


def upload(s: Scene, b: Brief) -> None:
    s.lay("local", s.here(b.name), s.stamp(b.name))
    s.lay("remote", s.there(), None)
    s.scatter("local", s.here())
    s.check("remote", s.there(s.named(b.name)), "file", s.stamp(b.name))
    s.send(s.here(b.name), s.there(s.named(b.name)))


def download(s: Scene, b: Brief) -> None:
    s.lay("remote", s.there(s.named(b.name)), s.stamp(b.name))
    s.lay("local", s.here(), None)
    s.scatter("local", s.here())
    s.scatter("remote", s.there())
    s.check("local", s.here(b.name), "file", s.stamp(b.name))
    s.send(s.there(s.named(b.name)), s.here(b.name), up=False)


def _change(s: Scene, b: Brief, old: str, new: str) -> None:
    s.lay(b.side, old, s.stamp(b.name))
    s.scatter(b.side, s.at())
    s.check(b.side, old, "absent")
    s.check(b.side, new, "file", s.stamp(b.name))
    s.do(b.side, "mv", old, new)


def _called(s: Scene, name: str) -> str:
    return s.named(name) if s.brief.side == "remote" else name


def rename(s: Scene, b: Brief) -> None:
    _change(s, b, s.at(_called(s, b.name)), s.at(_called(s, b.new)))


def move(s: Scene, b: Brief) -> None:
    s.lay(b.side, s.to(), None)
    _change(s, b, s.at(_called(s, b.name)), s.to(_called(s, b.name)))


def chmod(s: Scene, b: Brief) -> None:
    path = s.at(_called(s, b.name))
    s.lay(b.side, path, s.stamp(b.name), b.old_mode)
    s.scatter(b.side, s.at())
    s.check(b.side, path, "mode", b.mode)
    s.do(b.side, "chmod", b.mode, path)


def delete(s: Scene, b: Brief) -> None:
    path = s.at(_called(s, b.name))
    s.lay(b.side, path, s.stamp(b.name))
    s.scatter(b.side, s.at())
    s.check(b.side, path, "absent")
    s.do(b.side, "rm", path)


def copy(s: Scene, b: Brief) -> None:
    name = _called(s, b.name)
    s.lay(b.side, s.at(name), s.stamp(b.name))
    s.lay(b.side, s.to(), None)
    s.check(b.side, s.at(name), "file", s.stamp(b.name))
    s.check(b.side, s.to(name), "file", s.stamp(b.name))
    s.do(b.side, "cp", s.at(name), s.to(name))


def pack(s: Scene, b: Brief) -> None:
    for name in b.files:
        s.lay(b.side, s.at(_called(s, name)), s.stamp(name))
    archive = f"{parent(s.at())}/{_called(s, b.archive)}"
    s.check_archive(b.side, archive, named=b.side == "remote")
    s.pack(b.side, archive, s.at())


def mkdir(s: Scene, b: Brief) -> None:
    path = f"{b.home}/{b.deep}" if b.side == "local" else s.there(b.deep)
    s.lay("remote", s.there(), None)
    s.check(b.side, path, "folder")
    s.do(b.side, "mkdir", "-p", path)


def pack_upload(s: Scene, b: Brief) -> None:
    for name in b.files:
        s.lay("local", s.here(name), s.stamp(name))
    s.lay("remote", s.there(), None)
    target = s.there(s.named(b.archive))
    s.check_archive("remote", target)
    s.pack("local", f"{b.home}/{b.archive}", s.here())
    s.send(f"{b.home}/{b.archive}", target)


def download_extract(s: Scene, b: Brief) -> None:
    source, into = s.there(s.named(b.archive)), f"{b.home}/{b.beside}"
    s.lay_archive(source)
    s.lay("local", into, None)
    for name, content in s.entries():
        s.check("local", f"{into}/{name}", "file", content)
    s.send(source, f"{into}/{b.archive}", up=False)
    s.unpack("local", f"{into}/{b.archive}", into)


def mkdir_upload(s: Scene, b: Brief) -> None:
    target = s.there(b.deep, s.named(b.name))
    s.lay("local", s.here(b.name), s.stamp(b.name))
    s.lay("remote", s.there(), None)
    s.scatter("local", s.here())
    s.check("remote", target, "file", s.stamp(b.name))
    s.do("remote", "mkdir", "-p", parent(target))
    s.send(s.here(b.name), target)


def upload_chmod(s: Scene, b: Brief) -> None:
    upload(s, b)
    target = s.there(s.named(b.name))
    s.check("remote", target, "mode", b.mode)
    s.do("remote", "chmod", b.mode, target)


def upload_delete_source(s: Scene, b: Brief) -> None:
    upload(s, b)
    s.check("local", s.here(b.name), "absent")
    s.do("local", "rm", s.here(b.name))


def pack_upload_extract(s: Scene, b: Brief) -> None:
    for name in b.files:
        s.lay("local", s.here(name), s.stamp(name))
    s.lay("remote", s.there(), None)
    archive = s.there(s.named(b.archive))
    if s.site.root:
        s.check_archive("remote", archive)
    for name, content in s.entries():
        s.check("remote", s.there(name), "file", content)
    if s.real:  # what the archive holds can be sent as it is, which saves going there
        called = f"{b.home}/{s.named(b.archive)}"
        s.pack("local", called, s.here())
        s.do("local", "send", "-r", called, s.here(), f"{b.user}@{b.host}:{s.there()}")
    else:
        s.pack("local", f"{b.home}/{b.archive}", s.here())
        s.send(f"{b.home}/{b.archive}", archive)
        s.unpack("remote", archive, s.there())


def download_rename(s: Scene, b: Brief) -> None:
    s.lay("remote", s.there(s.named(b.name)), s.stamp(b.name))
    s.lay("local", s.here(), None)
    s.scatter("remote", s.there())
    s.check("local", s.here(b.new), "file", s.stamp(b.name))
    s.check("local", s.here(b.name), "absent")
    s.send(s.there(s.named(b.name)), s.here(b.new), up=False)


def backup_replace(s: Scene, b: Brief) -> None:
    target, new = s.there(s.named(b.name)), s.stamp(f"new {b.name}")
    s.lay("remote", target, s.stamp(b.name))
    s.lay("local", s.here(b.name), new)
    s.check("remote", target + ".bak", "file", s.stamp(b.name))
    s.check("remote", target, "file", new)
    s.do("remote", "mv", target, target + ".bak")
    s.send(s.here(b.name), target)


KINDS: dict[str, Callable[[Scene, Brief], None]] = {name: globals()[name] for name in (*SINGLE, *COMPOSITE)}

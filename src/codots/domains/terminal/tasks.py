"""Tasks: what is drawn of them in public, and what has to be so at the end."""

from __future__ import annotations

from dataclasses import dataclass, replace

from codots.domains.base import Rng
from codots.domains.terminal.machine import Machine

SINGLE = ("upload", "download", "rename", "move", "chmod", "delete", "copy", "pack", "mkdir")
COMPOSITE = (
    "pack_upload",
    "download_extract",
    "mkdir_upload",
    "upload_chmod",
    "upload_delete_source",
    "pack_upload_extract",
    "download_rename",
    "backup_replace",
)

NAMES = (
    "notes.txt", "report.pdf", "budget.csv", "plan.md", "photo.jpg", "invoice.pdf", "draft.txt", "index.html",
    "style.css", "app.py", "data.json", "config.yaml", "readme.md", "letter.txt", "summary.txt", "table.csv",
    "logo.png", "script.sh", "backup.sql", "todo.txt", "minutes.md", "contract.pdf", "results.csv",
    "slides.pdf", "main.js",
)  # fmt: skip
FOLDERS = (
    "work", "docs", "photos", "music", "projects", "reports", "letters", "drafts", "assets", "records",
    "exports", "imports", "lab", "studio", "garden", "kitchen", "travel", "school", "taxes", "recipes",
)  # fmt: skip
USERS = ("anna", "bruno", "chloe", "diego", "emma", "felix", "greta")
MODES = ("644", "600", "755", "700", "640", "664", "750", "444")
UPLOAD_MODES = ("755", "700", "600", "444")
ARCHIVES = ("tar", "tar.gz", "zip")
SYSTEMS = ("windows", "macos", "linux")


@dataclass(frozen=True)
class Brief:
    """The public part of a task; what a kind does not use is drawn all the same."""

    kind: str
    os: str
    host: str
    user: str
    """On the server."""
    seed: int
    side: str
    """Where a task of one machine plays."""
    folder: str
    """Of the local home."""
    beside: str
    """Another folder of the local home."""
    there: str
    """A folder of the server, from the document root where there is one."""
    yonder: str
    """Another one."""
    deep: str
    """Folders to make, in a folder that is there."""
    name: str
    new: str
    mode: str
    """To be set."""
    old_mode: str
    archive: str
    files: tuple[str, ...]
    """What an archive holds."""
    others: tuple[str, ...]
    """Files that have nothing to do with it."""

    @property
    def home(self) -> str:
        """The local home."""
        return {"windows": "C:/Users/user", "macos": "/Users/user", "linux": "/home/user"}[self.os]

    @property
    def root(self) -> str:
        """The top of the local machine."""
        return "C:" if self.os == "windows" else ""


@dataclass(frozen=True)
class Check:
    """One thing that has to be so at the end."""

    side: str
    path: str
    what: str
    """file, absent, folder, mode or archive."""
    value: str = ""
    kind: str = ""
    entries: tuple[tuple[str, str], ...] = ()

    def holds(self, machine: Machine, strict: bool) -> bool:
        """Whether it is so; `strict` also looks at the kind and the contents of archives."""
        node = machine.nodes.get(self.path)
        if node is None or self.what == "absent":
            return node is None and self.what == "absent"
        if self.what in ("folder", "file"):
            return node.content == (None if self.what == "folder" else self.value)
        if self.what == "mode":
            return node.mode == self.value
        if strict:
            return node.kind == self.kind and sorted(node.entries) == sorted(self.entries)
        return {name for name, _ in node.entries} == {name for name, _ in self.entries}

    def told(self, path: str) -> str:
        """Say what ought to be so of this path."""
        return {
            "file": f"{path} should hold {self.value}",
            "absent": f"{path} should be gone",
            "folder": f"{path} should be a folder",
            "mode": f"{path} should have mode {self.value}",
            "archive": f"{path} should be a {self.kind} archive of {', '.join(name for name, _ in self.entries)}",
        }[self.what]


def kind_of(archive: str) -> str:
    """The kind of an archive by its name."""
    return next(kind for kind in ("tar.gz", "tar", "zip") if archive.endswith(kind))


def draw_face(rng: Rng) -> tuple[str, str, str]:
    """Draw the two machines: local system, host, user there."""
    return _one(rng, SYSTEMS), f"192.168.1.{rng.integers(10, 100)}", _one(rng, USERS)


def draw_brief(rng: Rng, face: tuple[str, str, str], composite: float, hidden: bool) -> Brief:
    """Draw a task; where something is hidden of the server, every task is about it."""
    (system, host, user), far = face, f"/home/{face[2]}"
    kinds = COMPOSITE if rng.random() < composite else SINGLE
    kind = kinds[rng.integers(len(kinds))]
    folder, beside, below, beyond, *deep = _some(rng, FOLDERS, 8)
    name, new, *rest = _some(rng, NAMES, 9)
    side = "remote" if hidden or rng.random() < 0.5 or (kind == "chmod" and system == "windows") else "local"
    modes = _some(rng, UPLOAD_MODES if kind == "upload_chmod" else MODES, 2)
    ending = _one(rng, ARCHIVES)
    ending = "zip" if system == "windows" and ending != "zip" and (kind != "pack" or side == "local") else ending
    brief = Brief(
        kind, system, host, user, int(rng.integers(10**7)), side, folder, beside,
        there=below if hidden else _one(rng, (f"{far}/{below}", "/var/www/html", f"/opt/{below}", far)),
        yonder=beyond if hidden else f"{far}/{beyond}",
        deep="/".join(deep[: rng.integers(2, 5 if kind == "mkdir" else 4)]),
        name=name, new=new, mode=modes[0], old_mode=modes[1],
        archive=f"{folder}.{ending}", files=tuple(rest[: rng.integers(2, 5)]), others=tuple(rest[4:]),
    )  # fmt: skip
    return _placed(brief, hidden)


def _placed(brief: Brief, hidden: bool) -> Brief:
    """Give some kinds the only place that makes sense for them."""
    if hidden:
        where = {"mkdir": "", "pack": brief.folder}
        return replace(brief, there=where.get(brief.kind, brief.there))
    if brief.kind == "pack":
        stem = brief.name.partition(".")[0]
        there, ending = f"/home/{brief.user}/{brief.folder}", kind_of(brief.archive)
        return replace(brief, there=there, archive=f"{stem}.{ending}")
    if brief.kind in ("mkdir", "mkdir_upload"):
        return replace(brief, there=f"/home/{brief.user}")
    return brief


def _one(rng: Rng, pool: tuple[str, ...]) -> str:
    return pool[rng.integers(len(pool))]


def _some(rng: Rng, pool: tuple[str, ...], count: int) -> list[str]:
    return [pool[i] for i in rng.choice(len(pool), count, replace=False)]

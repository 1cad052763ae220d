"""Public content of tasks, and checks on the final state."""

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
    """The content of a task. Every field is drawn, even if this kind of task does not use it."""

    kind: str
    os: str
    host: str
    user: str
    """User name on the server."""
    seed: int
    side: str
    """Machine of a task that involves only one machine: `local` or `remote`."""
    folder: str
    """Folder in the local home."""
    beside: str
    """Another folder in the local home."""
    there: str
    """Folder on the server. The path is relative to the document root if the server has one."""
    yonder: str
    """Another folder on the server."""
    deep: str
    """Relative path of nested folders to create inside an existing folder."""
    name: str
    new: str
    mode: str
    """Mode to set."""
    old_mode: str
    archive: str
    files: tuple[str, ...]
    """Names of the files to archive."""
    others: tuple[str, ...]
    """Names of unrelated files."""

    @property
    def home(self) -> str:
        """Home folder on the local machine."""
        return {"windows": "C:/Users/user", "macos": "/Users/user", "linux": "/home/user"}[self.os]

    @property
    def root(self) -> str:
        """Root of the local file system."""
        return "C:" if self.os == "windows" else ""


@dataclass(frozen=True)
class Check:
    """One condition on the final state."""

    side: str
    path: str
    what: str
    """Kind of condition: `file`, `absent`, `folder`, `mode` or `archive`."""
    value: str = ""
    kind: str = ""
    entries: tuple[tuple[str, str], ...] = ()

    def holds(self, machine: Machine, strict: bool) -> bool:
        """Return whether the condition holds.

        If `strict` is true, archives must match in format and contents. Otherwise only their entry names must match.
        """
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

    def describe(self, path: str) -> str:
        """Return the condition in words, with `path` as the name of the file or folder."""
        return {
            "file": f"{path} should hold {self.value}",
            "absent": f"{path} should be gone",
            "folder": f"{path} should be a folder",
            "mode": f"{path} should have mode {self.value}",
            "archive": f"{path} should be a {self.kind} archive of {', '.join(name for name, _ in self.entries)}",
        }[self.what]


def kind_of(archive: str) -> str:
    """Return the archive format given by the ending of a file name."""
    return next(kind for kind in ("tar.gz", "tar", "zip") if archive.endswith(kind))


def draw_face(rng: Rng) -> tuple[str, str, str]:
    """Draw the public names: the local system, the server host and the server user."""
    return _choice(rng, SYSTEMS), f"192.168.1.{rng.integers(10, 100)}", _choice(rng, USERS)


def draw_brief(rng: Rng, face: tuple[str, str, str], composite: float, hidden: bool) -> Brief:
    """Draw a task. If the server has hidden settings, every task involves the server."""
    (system, host, user), far = face, f"/home/{face[2]}"
    kinds = COMPOSITE if rng.random() < composite else SINGLE
    kind = kinds[rng.integers(len(kinds))]
    folder, beside, below, beyond, *deep = _sample(rng, FOLDERS, 8)
    name, new, *rest = _sample(rng, NAMES, 9)
    side = "remote" if hidden or rng.random() < 0.5 or (kind == "chmod" and system == "windows") else "local"
    modes = _sample(rng, UPLOAD_MODES if kind == "upload_chmod" else MODES, 2)
    ending = _choice(rng, ARCHIVES)
    ending = "zip" if system == "windows" and ending != "zip" and (kind != "pack" or side == "local") else ending
    brief = Brief(
        kind, system, host, user, int(rng.integers(10**7)), side, folder, beside,
        there=below if hidden else _choice(rng, (f"{far}/{below}", "/var/www/html", f"/opt/{below}", far)),
        yonder=beyond if hidden else f"{far}/{beyond}",
        deep="/".join(deep[: rng.integers(2, 5 if kind == "mkdir" else 4)]),
        name=name, new=new, mode=modes[0], old_mode=modes[1],
        archive=f"{folder}.{ending}", files=tuple(rest[: rng.integers(2, 5)]), others=tuple(rest[4:]),
    )  # fmt: skip
    return _with_place(brief, hidden)


def _with_place(brief: Brief, hidden: bool) -> Brief:
    """Set the fields of kinds of tasks that allow only one place."""
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


def _choice(rng: Rng, pool: tuple[str, ...]) -> str:
    return pool[rng.integers(len(pool))]


def _sample(rng: Rng, pool: tuple[str, ...], count: int) -> list[str]:
    return [pool[i] for i in rng.choice(len(pool), count, replace=False)]

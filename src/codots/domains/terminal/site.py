"""Hidden settings of a server: tool names, document root, file naming and the working transfer tool."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

from codots.domains.base import Rng

TOOLS = ("mv", "rm", "chmod", "cp", "mkdir", "tar", "unzip")
"""Tools that may be renamed, in the order in which presets rename them."""
SAME = {"move": "mv", "ren": "mv", "rename": "mv", "del": "rm", "copy": "cp"}
"""Standard name of each alias. Renaming a tool also removes its aliases."""
LOCAL_NAMES = (
    "brint", "crale", "dovel", "drusk", "fenk", "flomp", "gart", "glim", "grost", "hux", "jask", "jorl", "kolv",
    "klav", "lorn", "lusk", "melk", "mirt", "morv", "nalk", "nesk", "nolt", "olp", "pelm", "plork", "quen",
    "rask", "relp", "rolm", "sarn", "skiv", "snelt", "stolm", "tarv", "tirl", "trosk", "ulm", "varn", "velk",
    "vorn", "wask", "wilp", "yarl", "yent", "zelk", "zorp",
)  # fmt: skip
ROOTS = (
    "/srv/www",
    "/var/www/html",
    "/opt/site/public",
    "/srv/http",
    "/usr/share/pages",
    "/data/web",
    "/var/lib/httpd",
    "/opt/web/htdocs",
)
BIN = "/usr/local/bin"
MARKS = ("live", "pub", "web", "site", "prod", "open", "main", "page")
TRANSFERS = ("scp", "rsync")


@dataclass(frozen=True)
class Naming:
    """Rule that names files under the document root."""

    mark: str
    joint: str
    front: bool
    """Whether the mark comes before the name. If False, the mark comes before the first dot."""

    def __call__(self, name: str) -> str:
        if self.front:
            return f"{self.mark}{self.joint}{name}"
        stem, dot, ending = name.partition(".")
        return f"{stem}{self.joint}{self.mark}{dot}{ending}"


NAMINGS = tuple(Naming(mark, joint, front) for mark in MARKS for joint in "-_" for front in (True, False))


@dataclass(frozen=True)
class Site:
    """The hidden part of a world. The default is an ordinary server that hides nothing."""

    seed: int = 0
    """Seed that v0 draws for each pack. Nothing depends on the seed."""
    root: str = ""
    naming: Naming | None = None
    transfer: str = ""
    """The one tool of scp and rsync that works, or an empty string if both work."""
    tools: tuple[tuple[str, str], ...] = ()
    """Pairs of local name and standard name, in the order of TOOLS."""

    def server_name(self, name: str) -> str:
        """Return the name of a file under the document root."""
        return self.naming(name) if self.naming else name

    def standard(self, name: str) -> str:
        """Return the standard name of a command on the server, or an empty string if there is no such command."""
        usual = SAME.get(name, name)
        for local, standard in self.tools:
            if name == local:
                return standard
            if usual == standard:
                return ""
        return name


def draw_site(rng: Rng, roots: int, hidden: int) -> Site:
    """Draw all hidden settings uniformly, with `roots` candidate roots and `hidden` renamed tools."""
    names = [LOCAL_NAMES[i] for i in rng.choice(len(LOCAL_NAMES), hidden, replace=False)]
    return Site(
        root=ROOTS[rng.integers(roots)],
        naming=NAMINGS[rng.integers(len(NAMINGS))],
        transfer=TRANSFERS[rng.integers(2)],
        tools=tuple(zip(names, TOOLS, strict=False)),
    )


def describe(site: Site) -> str:
    """Return the hidden settings as text, or the quirks of v0 if nothing is hidden."""
    if site.naming is None:
        return QUIRKS
    lines = [f"`{local}` is the local name of `{standard}`" for local, standard in site.tools]
    lines.append(f"the document root is {site.root}")
    lines.append(f"under it, a file X.txt is named {site.server_name('X.txt')}")
    lines.append(f"{site.transfer} works, the other one does not")
    return "\n".join(f"- {line}" for line in lines)


QUIRKS = """\
- an archive of a folder belongs beside the folder; one to upload is named like the folder, with the ending of its kind
- `ssh user@host` first, then the commands, then `exit`: a command on the ssh line is ignored
- `tar` has no -C and unpacks where you stand: cd first; `unzip -d` works
- write paths in full: on Windows without quotes, in scp without ~; `ren` takes a full new path
- chmod wants three digits; no pipes, no redirection, no wildcards; the target folder of scp, cp and mv has to exist"""

NAME = re.compile(r"\b(?:" + "|".join(LOCAL_NAMES) + r")\b")
TOOL = re.compile(r"\b(?:" + "|".join(TOOLS) + r")\b")
ROOT = re.compile(r"\broot\b(?:[ :=`*'\"]{1,5}(?!not\b)[a-z]{1,12}){0,4}[ :=`*'\"]{1,5}(/[\w/-]{1,40}\w)", re.I)
_MARKS = "|".join(MARKS)
MARK = re.compile(rf"(?<![\w/-])(?:({_MARKS})([-_])[A-Za-z]{{1,20}}(?=\.)|[A-Za-z]{{1,20}}([-_])({_MARKS})(?=\.))")
WORKS = re.compile(r"\b(scp|rsync)\b[` ]{1,3}(works|is broken|does not work|fails)")

Claim = tuple[str, str]
"""Subject (a standard tool, `root`, `naming` or `transfer`) and claimed value."""


def claims(context: str) -> Iterator[Claim]:
    """Yield all claims of a context line by line, including repeated claims."""
    for line in context.splitlines():
        for local, standard in zip(NAME.findall(line), TOOL.findall(line), strict=False):
            yield standard, local
        yield from (("root", path) for path in ROOT.findall(line))
        for front, joint, other, mark in MARK.findall(line):
            yield "naming", Naming(front or mark, joint or other, bool(front))("X.txt")
        for tool, how in WORKS.findall(line):
            yield "transfer", tool if how == "works" else TRANSFERS[tool == "scp"]


def truth(site: Site) -> dict[str, str]:
    """Return the true value of each subject."""
    facts = {standard: local for local, standard in site.tools}
    return facts | {"root": site.root, "naming": site.server_name("X.txt"), "transfer": site.transfer}


def other_seed(site: Site, rng: Rng) -> Site:
    """Return the same server with a new random seed."""
    return replace(site, seed=int(rng.integers(2**32)))

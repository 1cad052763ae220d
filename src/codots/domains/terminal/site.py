"""Hidden settings of a server: tool names, document root, file naming and the working transfer tool."""

from __future__ import annotations

from collections.abc import Mapping
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
BY_EXAMPLE = {naming("X.txt"): naming for naming in NAMINGS}
"""Naming rules by the name that they give to X.txt."""


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


def truth(site: Site) -> dict[str, str]:
    """Return the values of all hidden settings.

    They are the local name of each renamed tool, by its standard name, and `root`, `naming` (the name of X.txt) and
    `transfer`.
    """
    facts = {standard: local for local, standard in site.tools}
    return facts | {"root": site.root, "naming": site.server_name("X.txt"), "transfer": site.transfer}


def site_of(facts: Mapping[str, str]) -> Site:
    """Return a server with these values of `root` and `naming`. Missing values are arbitrary."""
    return Site(root=facts.get("root", ROOTS[0]), naming=BY_EXAMPLE.get(facts.get("naming", ""), NAMINGS[0]))


def other_seed(site: Site, rng: Rng) -> Site:
    """Return the same server with a new random seed."""
    return replace(site, seed=int(rng.integers(2**32)))

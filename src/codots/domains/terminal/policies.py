"""The reference policies."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from codots.domains.base import Rng, Step
from codots.domains.terminal.env import Dials, View, connected, write_line
from codots.domains.terminal.kinds import Do, Scene
from codots.domains.terminal.shell import helping
from codots.domains.terminal.site import BIN, NAMINGS, ROOTS, TOOLS, TRANSFERS, Claim, Site, truth
from codots.domains.terminal.tasks import Brief, kind_of

COMMANDS = (
    "ls", "cd", "cat", "pwd", "mkdir", "chmod", "cp", "mv", "rm", "touch", "echo", "scp", "ssh", "exit", "tar",
    "zip", "unzip",
)  # fmt: skip


class Random:
    """A command drawn evenly, on two words of the task drawn evenly."""

    def __init__(self, rng: Rng) -> None:
        self.rng = rng
        self.brief: Brief | None = None

    def act(self, view: View) -> str:
        if view.brief is not self.brief:
            self.brief, self.words = view.brief, words(view.brief)
        tool, first, second = self.rng.random(3).tolist()
        count = len(self.words)
        name = COMMANDS[int(tool * len(COMMANDS))]
        return write_line(f"{name} {self.words[int(first * count)]} {self.words[int(second * count)]}")

    def end(self, step: Step) -> None:
        """Random play learns nothing."""


def words(brief: Brief) -> list[str]:
    """What a task speaks of."""
    paths = [f"{brief.home}/{brief.folder}", f"{brief.home}/{brief.beside}", brief.there or "/srv", brief.yonder]
    at = f"{brief.user}@{brief.host}"
    plain = [brief.name, brief.new, brief.archive, brief.mode, brief.deep, at, f"{at}:{brief.there}", "-r", "."]
    return [*paths, *(f"{path}/{brief.name}" for path in paths), *plain]


class Chained:
    """Where nothing is hidden: the whole plan in one line.

    `readings`: an archive whose name is not told is given a plain one first, and that of its folder next.
    """

    def __init__(self, readings: bool) -> None:
        self.readings = readings

    def act(self, view: View) -> str:
        brief = view.brief
        if self.readings and brief.kind == "pack_upload" and view.used == 0:
            brief = replace(brief, archive="archive." + kind_of(brief.archive))
        plan = connected(Scene(brief, Site(), real=False).plan, view.side, brief)
        return write_line(" && ".join(" ".join(worded(do, "scp")) for do in plan))

    def end(self, step: Step) -> None:
        """Trying costs nothing, so there is nothing to keep."""


def worded(do: Do, transfer: str) -> list[str]:
    """The words of a command of a plan, without its side."""
    return [transfer if do[1] == "send" else do[1], *do[2:]]


@dataclass
class Knowledge:
    """What is known of a server, and for sure: things that are not known are not there."""

    dials: Dials
    facts: dict[str, str] = field(default_factory=dict)
    """Standard tool to local name, `root`, `naming` (what X.txt is called), `transfer`."""
    names: list[str] = field(default_factory=list)
    """The local names, once they were seen."""

    @property
    def hidden(self) -> tuple[str, ...]:
        return TOOLS[: self.dials.tools]

    @property
    def open_names(self) -> list[str]:
        """Local names that may be any of the tools not known yet."""
        return [name for name in self.names if name not in self.facts.values()]

    def learn(self, thing: str, said: str) -> None:
        """Keep a fact, and what follows from it."""
        self.facts[thing] = said
        open_tools = [tool for tool in self.hidden if tool not in self.facts]
        if len(open_tools) == 1 and len(self.open_names) == 1:
            self.facts[open_tools[0]] = self.open_names[0]

    def site(self) -> Site:
        """The server as it is believed to be, the rest filled in somehow."""
        naming = next((n for n in NAMINGS if n("X.txt") == self.facts.get("naming")), NAMINGS[0])
        return Site(root=self.facts.get("root", ROOTS[0]), naming=naming)

    def read_listing(self, output: str) -> None:
        """Learn from `ls` of several folders: the root is where the index is."""
        for block in output.split("\n/"):
            path, _, rest = ("/" + block.lstrip("/")).partition(":\n")
            held = rest.split()
            if path == BIN:
                self.names = held
            index = [name for name in held if "index" in name]
            if index and path in ROOTS:
                self.learn("root", path)
                self.learn("naming", index[0].replace("index", "X").replace("html", "txt"))


class Learner:
    """Plans with what it knows; what it lacks it looks up while there are commands to spare, then it gambles.

    First one `ls` of all places where something can be; then `--help`, name by name; with none to spare, an unknown
    name is tried on the task itself. Once a task is lost the rest of it goes into `--help`.
    """

    def __init__(self, dials: Dials, claims: Iterable[Claim] = ()) -> None:
        self.know = Knowledge(dials)
        for thing, said in claims:
            self.know.facts.setdefault(thing, said)
        self.asked: str | None = None
        """What the last line was to tell: `ls`, `send`, or a name."""
        self.done = 0
        """Commands of the plan that are behind."""

    @classmethod
    def informed(cls, dials: Dials, site: Site) -> Learner:
        """One who knows it all."""
        return cls(dials, truth(site).items())

    def act(self, view: View) -> str:
        self._hear(view)
        plan = connected(Scene(view.brief, self.know.site(), real=True).plan[self.done :], view.side, view.brief)
        needed = {do[1] for do in plan if do[0] == "remote"} & set(self.know.hidden) - set(self.know.facts)
        lost = not {"root", "naming"} <= set(self.know.facts) or (needed and not self.know.names)
        if lost and view.side == "remote":
            return self._look()
        spare = view.turns - view.used - len(plan)
        names = self.know.open_names
        if names and (spare < 0 or not plan or (needed and spare > 0)) and view.side == "remote":
            return self._ask(names[0])
        return self._go_on(plan[0] if plan else ("", "pwd"), names)

    def end(self, step: Step) -> None:
        self._hear(step.view)
        self.done = 0

    def _look(self) -> str:
        self.asked = "ls"
        return write_line(" ".join(["ls", *ROOTS[: self.know.dials.roots], BIN]), "Where is what?")

    def _ask(self, name: str) -> str:
        self.asked = name
        return write_line(f"{name} --help", "What does this one do?")

    def _go_on(self, do: Do, names: list[str]) -> str:
        tool, *words = worded(do, self.know.facts.get("transfer", TRANSFERS[0]))
        if do[0] == "remote" and tool in self.know.hidden:
            tool = self.know.facts.get(tool) or (names[0] if names else tool)
        self.asked = "send" if do[1] == "send" else None
        self.done += do[1] not in ("ssh", "exit")
        return write_line(" ".join([tool, *words]), "On with the task.")

    def _hear(self, view: View) -> None:
        asked, self.asked = self.asked, None
        if asked == "ls":
            self.know.read_listing(view.output)
        elif asked == "send":
            refused = "protocol" in view.output
            tool = view.line.split()[0]
            self.know.learn("transfer", TRANSFERS[tool == "scp"] if refused else tool)
            self.done -= refused
        elif asked is not None:
            for tool in self.know.hidden:
                if view.output == helping(tool, asked):
                    self.know.learn(tool, asked)

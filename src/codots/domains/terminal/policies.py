"""Scripted reference policies of the terminal."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from codots.domains.base import Rng, Step
from codots.domains.terminal.env import Dials, View, with_ssh, write_line
from codots.domains.terminal.kinds import PlanStep, Scene
from codots.domains.terminal.shell import help_text
from codots.domains.terminal.site import BIN, NAMINGS, ROOTS, TOOLS, TRANSFERS, Claim, Site, truth
from codots.domains.terminal.tasks import Brief, kind_of

COMMANDS = (
    "ls", "cd", "cat", "pwd", "mkdir", "chmod", "cp", "mv", "rm", "touch", "echo", "scp", "ssh", "exit", "tar",
    "zip", "unzip",
)  # fmt: skip


class Random:
    """Policy that runs a uniformly drawn command on two uniformly drawn words of the task."""

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
        """Ignore the outcome."""


def words(brief: Brief) -> list[str]:
    """Return the words that random commands use: names, paths, addresses and the file mode of a task, `-r` and `.`."""
    paths = [f"{brief.home}/{brief.folder}", f"{brief.home}/{brief.beside}", brief.there or "/srv", brief.yonder]
    at = f"{brief.user}@{brief.host}"
    plain = [brief.name, brief.new, brief.archive, brief.mode, brief.deep, at, f"{at}:{brief.there}", "-r", "."]
    return [*paths, *(f"{path}/{brief.name}" for path in paths), *plain]


class OneLinePolicy:
    """Policy that runs the whole plan in one line, for worlds that hide nothing.

    If `try_plain_name` is true, the archive of a `pack_upload` task, whose name the task may not state, is first called
    `archive`. Later tries name the archive like its folder.
    """

    def __init__(self, try_plain_name: bool) -> None:
        self.try_plain_name = try_plain_name

    def act(self, view: View) -> str:
        brief = view.brief
        if self.try_plain_name and brief.kind == "pack_upload" and view.used == 0:
            brief = replace(brief, archive="archive." + kind_of(brief.archive))
        plan = with_ssh(Scene(brief, Site(), real=False).plan, view.side, brief)
        return write_line(" && ".join(" ".join(command_words(step, "scp")) for step in plan))

    def end(self, step: Step) -> None:
        """Ignore the outcome. Retries are free."""


def command_words(step: PlanStep, transfer: str) -> list[str]:
    """Return the words of a command of a plan. The tool `send` becomes `transfer`."""
    return [transfer if step[1] == "send" else step[1], *step[2:]]


@dataclass
class Knowledge:
    """What is known for certain about a server. Unknown settings are absent."""

    dials: Dials
    facts: dict[str, str] = field(default_factory=dict)
    """Local name by standard tool, and the values of `root`, `naming` (the name of X.txt) and `transfer`."""
    names: list[str] = field(default_factory=list)
    """Local names on the server. Empty until a listing has shown them."""

    @property
    def hidden(self) -> tuple[str, ...]:
        """Renamed tools."""
        return TOOLS[: self.dials.tools]

    @property
    def unassigned(self) -> list[str]:
        """Local names that are not matched to a tool yet."""
        return [name for name in self.names if name not in self.facts.values()]

    def learn(self, subject: str, value: str) -> None:
        """Store a fact. If one tool and one local name then remain, match them too."""
        self.facts[subject] = value
        open_tools = [tool for tool in self.hidden if tool not in self.facts]
        if len(open_tools) == 1 and len(self.unassigned) == 1:
            self.facts[open_tools[0]] = self.unassigned[0]

    def site(self) -> Site:
        """Return a server with the known root and naming rule, or with arbitrary ones if they are unknown."""
        naming = next((n for n in NAMINGS if n("X.txt") == self.facts.get("naming")), NAMINGS[0])
        return Site(root=self.facts.get("root", ROOTS[0]), naming=naming)

    def read_listing(self, output: str) -> None:
        """Learn from the output of `ls` on several folders. The root is the folder with the index page."""
        for block in output.split("\n/"):
            path, _, rest = ("/" + block.lstrip("/")).partition(":\n")
            names = rest.split()
            if path == BIN:
                self.names = names
            index = [name for name in names if "index" in name]
            if index and path in ROOTS:
                self.learn("root", path)
                self.learn("naming", index[0].replace("index", "X").replace("html", "txt"))


class AdaptivePolicy:
    """Policy that follows the plan, looks up unknown settings while it has spare commands, and otherwise guesses names.

    The policy first lists all candidate folders in one `ls`, then calls `--help` on one name after another. If no
    command is to spare, it tries an unknown name on the task itself. Once a task is lost, the policy spends the
    remaining commands on `--help`.
    """

    def __init__(self, dials: Dials, claims: Iterable[Claim] = ()) -> None:
        self.known = Knowledge(dials)
        for subject, value in claims:
            self.known.facts.setdefault(subject, value)
        self.asked: str | None = None
        """What the last line tries to learn: `ls` for folders, `send` for transfers, or the name given to `--help`."""
        self.done = 0
        """Number of commands of the plan that have been run."""

    @classmethod
    def informed(cls, dials: Dials, site: Site) -> AdaptivePolicy:
        """Return a policy that knows every hidden setting."""
        return cls(dials, truth(site).items())

    def act(self, view: View) -> str:
        self._update(view)
        plan = with_ssh(Scene(view.brief, self.known.site(), real=True).plan[self.done :], view.side, view.brief)
        needed = {step[1] for step in plan if step[0] == "remote"} & set(self.known.hidden) - set(self.known.facts)
        lost = not {"root", "naming"} <= set(self.known.facts) or (needed and not self.known.names)
        if lost and view.side == "remote":
            return self._list_places()
        spare = view.turns - view.used - len(plan)
        names = self.known.unassigned
        if names and (spare < 0 or not plan or (needed and spare > 0)) and view.side == "remote":
            return self._ask_for_help(names[0])
        return self._next_command(plan[0] if plan else ("", "pwd"), names)

    def end(self, step: Step) -> None:
        self._update(step.view)
        self.done = 0

    def _list_places(self) -> str:
        self.asked = "ls"
        return write_line(" ".join(["ls", *ROOTS[: self.known.dials.roots], BIN]), "Where is what?")

    def _ask_for_help(self, name: str) -> str:
        self.asked = name
        return write_line(f"{name} --help", "What does this one do?")

    def _next_command(self, step: PlanStep, names: list[str]) -> str:
        tool, *words = command_words(step, self.known.facts.get("transfer", TRANSFERS[0]))
        if step[0] == "remote" and tool in self.known.hidden:
            tool = self.known.facts.get(tool) or (names[0] if names else tool)
        self.asked = "send" if step[1] == "send" else None
        self.done += step[1] not in ("ssh", "exit")
        return write_line(" ".join([tool, *words]), "On with the task.")

    def _update(self, view: View) -> None:
        asked, self.asked = self.asked, None
        if asked == "ls":
            self.known.read_listing(view.output)
        elif asked == "send":
            refused = "protocol" in view.output
            tool = view.line.split()[0]
            self.known.learn("transfer", TRANSFERS[tool == "scp"] if refused else tool)
            self.done -= refused
        elif asked is not None:
            for tool in self.known.hidden:
                if view.output == help_text(tool, asked):
                    self.known.learn(tool, asked)

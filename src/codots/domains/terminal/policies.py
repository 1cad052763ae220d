"""Scripted reference policies of the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from codots.domains.base import Rng, Step
from codots.domains.terminal.env import Dials, View, with_ssh, write_line
from codots.domains.terminal.kinds import PlanStep, Scene
from codots.domains.terminal.notes import (
    draw_value,
    read_names,
    read_settings,
    settings,
    write_claim,
    write_unknown,
)
from codots.domains.terminal.shell import help_text
from codots.domains.terminal.site import BIN, LOCAL_NAMES, ROOTS, TOOLS, TRANSFERS, Site, site_of, truth
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


class Reading(Random):
    """Policy that follows the plan with the settings that a context claims, and draws the others.

    After a plan that fails it draws again. It runs random commands if it has read no context.
    """

    def __init__(self, dials: Dials, rng: Rng) -> None:
        super().__init__(rng)
        self.dials = dials
        self.claims: dict[str, str] | None = None
        self.facts: dict[str, str] = {}
        """The claimed and the drawn settings that the plan is made for."""
        self.plan: list[PlanStep] = []

    def act(self, view: View) -> str:
        if self.claims is None:
            return super().act(view)
        if view.used == 0 or not self.plan:
            drawn = {s: draw_value(s, self.dials, self.rng) for s in settings(self.dials) if s not in self.claims}
            self.facts = self.claims | drawn
            self.plan = with_ssh(Scene(view.brief, site_of(self.facts), real=True).plan, view.side, view.brief)
        return write_line(" ".join(command_words(self.plan.pop(0), self.facts)), "On with the task.")

    def read(self, context: str) -> None:
        """Read the settings of the server."""
        self.claims = read_settings(context, self.dials)


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
        return write_line(" && ".join(" ".join(command_words(step, {})) for step in plan))

    def end(self, step: Step) -> None:
        """Ignore the outcome. Retries are free."""


def command_words(step: PlanStep, facts: Mapping[str, str]) -> list[str]:
    """Return the words of a command of a plan, with the names that the tools have on a server with these settings."""
    side, tool, *rest = step
    if tool == "send":
        tool = facts.get("transfer", TRANSFERS[0])
    return [facts.get(tool, tool) if side == "remote" else tool, *rest]


@dataclass
class Knowledge:
    """What is known about a server. Unknown settings are absent."""

    dials: Dials
    facts: dict[str, str] = field(default_factory=dict)
    """Values of settings, as in `truth`."""
    names: list[str] = field(default_factory=list)
    """Local names on the server. Empty until a listing has shown them."""
    read: set[str] = field(default_factory=set)
    """Settings whose value comes from a context and was not observed."""

    @property
    def hidden(self) -> tuple[str, ...]:
        """Renamed tools."""
        return TOOLS[: self.dials.tools]

    @property
    def unassigned(self) -> list[str]:
        """Local names that are not matched to a tool yet."""
        return [name for name in self.names if name not in self.facts.values()]

    def learn(self, subject: str, value: str) -> None:
        """Store an observed fact. If one tool and one local name then remain, match them too."""
        self.forget({other for other, known in self.facts.items() if known == value})
        self.facts[subject] = value
        self.read.discard(subject)
        open_tools = [tool for tool in self.hidden if tool not in self.facts]
        if len(open_tools) == 1 and len(self.unassigned) == 1:
            self.facts[open_tools[0]] = self.unassigned[0]
            self.read.update(open_tools if self.read else ())

    def forget(self, subjects: set[str]) -> bool:
        """Drop facts unless they were observed. Return whether any were dropped."""
        dropped = subjects & self.read
        self.read -= dropped
        self.facts = {subject: value for subject, value in self.facts.items() if subject not in dropped}
        return bool(dropped)

    def read_listing(self, output: str) -> None:
        """Learn from the output of `ls` on several folders. The root is the folder with the index page."""
        for block in output.split("\n/"):
            path, _, rest = ("/" + block.lstrip("/")).partition(":\n")
            names = rest.split()
            if path == BIN:
                self.names = names
                self.forget({tool for tool in self.hidden if self.facts.get(tool) not in names})
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

    def __init__(self, dials: Dials) -> None:
        self.known = Knowledge(dials)
        self.asked: str | None = None
        """What the last line tests: `ls` for folders, `send` for transfers, a name given to `--help`, or a tool."""
        self.done = 0
        """Number of commands of the plan that have been run."""
        self.guessed = False
        """Whether a guessed name was tried on this task. If so, later failures say nothing about what was read."""

    @classmethod
    def informed(cls, dials: Dials, site: Site) -> AdaptivePolicy:
        """Return a policy that knows every hidden setting."""
        policy = cls(dials)
        policy.known.facts = truth(site)
        return policy

    def read(self, context: str) -> None:
        """Read the settings of the server and the local names. What is known already has priority."""
        known = self.known
        claims = read_settings(context, known.dials)
        known.read |= claims.keys() - known.facts.keys()
        known.facts = claims | known.facts
        known.names = known.names or read_names(context, known.dials)

    def notes(self, style: str) -> dict[str, str]:
        """Return the known settings. The line of an unknown tool has a local name that no known tool has."""
        facts, unknown = self.known.facts, [tool for tool in self.known.hidden if tool not in self.known.facts]
        lines = {tool: write_unknown(name) for tool, name in zip(unknown, self.known.unassigned, strict=False)}
        lines |= {setting: write_claim(setting, value) for setting, value in facts.items()}
        return {setting: lines[setting] for setting in settings(self.known.dials) if setting in lines}

    def act(self, view: View) -> str:
        self._update(view)
        plan = with_ssh(
            Scene(view.brief, site_of(self.known.facts), real=True).plan[self.done :], view.side, view.brief
        )
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
        self.done, self.guessed = 0, False

    def _list_places(self) -> str:
        self.asked = "ls"
        return write_line(" ".join(["ls", *ROOTS[: self.known.dials.roots], BIN]), "Where is what?")

    def _ask_for_help(self, name: str) -> str:
        self.asked = name
        return write_line(f"{name} --help", "What does this one do?")

    def _next_command(self, step: PlanStep, names: list[str]) -> str:
        tool, *words = command_words(step, self.known.facts)
        self.asked = step[1] if step[0] == "remote" or step[1] == "send" else None
        if step[0] == "remote" and tool in self.known.hidden:
            tool, self.asked, self.guessed = names[0] if names else tool, None, True
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
            self.done -= refused or self._doubt("transfer", view)
        elif asked in LOCAL_NAMES:
            standard = next((tool for tool in self.known.hidden if view.output == help_text(tool, asked)), None)
            if standard:
                self.known.learn(standard, asked)
            else:
                self.known.names = []  # the context was wrong about the local names
        elif asked is not None:
            self.done -= self._doubt(asked, view)

    def _doubt(self, tool: str, view: View) -> bool:
        """Forget what a context claims if the last command failed. Return whether to run the command again.

        A command of a plan prints something only if it fails.
        """
        if self.guessed or not view.output:
            return False
        if "command not found" in view.output:
            self.known.names = []
            return self.known.forget({tool})
        return self.known.forget({"root", "naming"}) or self.known.forget({tool})

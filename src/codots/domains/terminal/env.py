"""One task at the terminal: what is shown, what is read, how it ends."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import lru_cache

from codots.core.rng import digest
from codots.core.templates import Prompts
from codots.domains.base import Step
from codots.domains.family import action
from codots.domains.terminal.kinds import Do, Scene
from codots.domains.terminal.machine import FOLDER, Machine, Node, Nodes, grown
from codots.domains.terminal.shell import Manners, Shell
from codots.domains.terminal.site import BIN, ROOTS, Site
from codots.domains.terminal.tasks import Brief, Check

render = Prompts(__package__)
LINE = 2000  # characters of a command line
SHOWN = 2000  # characters of what a line prints


@dataclass(frozen=True)
class Rules:
    """What differs between the versions."""

    hidden: bool
    """Whether a server has ways of its own. If so, its face (system, host, user) stays over the tasks, every task is
    about it, and paths there are told from the document root on, which is not told."""
    goals_told: bool
    """Whether the name and the place of an archive are always told."""
    failure_told: bool
    """Whether the feedback names the check that failed."""
    strict: bool
    """Whether an archive has to be of its kind, and everything that no goal is about has to stay as it was."""
    count_commands: bool
    """Whether each command of a line counts, else each line."""
    step_cost: float
    """What a success loses over all turns."""
    start: str
    """The machine where a task begins."""
    split_tasks: bool
    """Whether the content of a task belongs either to `train` or to the held-out splits."""
    last_output_told: bool
    """Whether the updater reads what the last line printed."""
    manners: Manners


@dataclass(frozen=True)
class Dials:
    """What differs between presets."""

    composite: float = 0.5
    """Share of tasks that are made of several."""
    turns: int = 0
    """Commands of an episode, where the number is fixed."""
    slack: int = 0
    """Commands beyond the shortest way, where it is not."""
    tools: int = 0
    """How many tools of the server go by local names, from the first of TOOLS on."""
    roots: int = 1
    """How many folders may be the document root."""


@dataclass(frozen=True)
class View:
    """The public state of an episode."""

    brief: Brief
    side: str
    """The machine where one stands."""
    used: int
    turns: int
    line: str = ""
    """The last line."""
    output: str = ""


def turns(scene: Scene, dials: Dials, start: str) -> int:
    """How many turns a task has: a fixed number, or those of the shortest plan and some to spare."""
    return dials.turns or len(connected(scene.plan, start, scene.brief)) + dials.slack


def connected(plan: list[Do], side: str, brief: Brief) -> list[Do]:
    """Put `ssh` and `exit` where a plan changes sides."""
    steps: list[Do] = []
    for do in plan:
        if do[0] != side:
            steps.append(("local", "ssh", f"{brief.user}@{brief.host}") if side == "local" else ("remote", "exit"))
            side = do[0]
        steps.append(do)
    return steps


@dataclass
class TerminalEnv:
    """One task at the terminal."""

    brief: Brief
    site: Site
    rules: Rules
    dials: Dials
    view: View = field(init=False)
    scene: Scene = field(init=False)
    shell: Shell = field(init=False)

    def __post_init__(self) -> None:
        brief, rules = self.brief, self.rules
        self.scene = scene = Scene(brief, self.site, rules.manners.real)
        local = Machine(
            brief.os, "user", "laptop", brief.home, grown({brief.root: FOLDER}, {brief.home: FOLDER, **scene.local})
        )
        server = bare_server(self.site, brief.user, self.dials.roots)
        remote = Machine("linux", brief.user, brief.host, f"/home/{brief.user}", grown(server, scene.remote))
        self.shell = Shell(local, remote, self.site, rules.manners)
        if rules.start == "remote":
            self.shell.here = remote
        self.before = {"local": dict(local.nodes), "remote": dict(remote.nodes)} if rules.strict else {}
        self.view = View(brief, rules.start, 0, turns(scene, self.dials, rules.start))

    def observe(self) -> str:
        """Give the task."""
        return f"{task_text(self.scene, self.shell.local, self.rules)}\n\n{self._situation()}"

    def step(self, text: str) -> Step:
        """Run the line that the text names."""
        line = read_line(text)
        if line is None:
            feedback = "The reply did not hold one command line in one <action></action>; the task is lost."
            return Step("", 0.0, True, feedback, "malformed", self.view)
        used, reached, output = self._run(line)
        side = "remote" if self.shell.here is self.shell.remote else "local"
        self.view = View(self.brief, side, used, self.view.turns, line[:LINE], output)
        stop = "goal" if reached else "late" if used >= self.view.turns else None
        reward = 1 - self.rules.step_cost * used / self.view.turns if reached else 0.0
        if stop is None:
            return Step(f"{output or '(no output)'}\n\n{self._situation()}", 0.0, False, view=self.view)
        told = (output or "(no output)") if self.rules.last_output_told else ""
        return Step(told, reward, True, self._feedback(reached), stop, self.view)

    def _run(self, line: str) -> tuple[int, bool, str]:
        """Commands used up by now, whether the goal is reached, and what was printed."""
        before, used, printed, reached = self.view.used, self.view.used, 0, False
        if len(line) > LINE:
            return before + 1, False, f"the line is longer than {LINE} characters"
        outputs = []
        for output in self.shell.run(line):
            if output and printed <= SHOWN:
                outputs.append(output)
                printed += len(output)
            if self.rules.count_commands:
                used, reached = used + 1, self.reached()
                if reached or used >= self.view.turns:
                    break
        if not self.rules.count_commands:
            used, reached = before + 1, self.reached()
        text = "\n".join(outputs)
        text = text if len(text) <= SHOWN else text[:SHOWN] + "\n... cut off"
        return used, reached, text

    def reached(self) -> bool:
        """Whether the goal is reached."""
        return next(self._unmet(), None) is None and next(self._disturbed(), None) is None

    def _unmet(self) -> Iterator[Check]:
        machines = self.shell.machines
        return (check for check in self.scene.checks if not check.holds(machines[check.side], self.rules.strict))

    def _disturbed(self) -> Iterator[str]:
        """What was there before, is no part of the goal, and has changed."""
        named = {(check.side, check.path) for check in self.scene.checks}
        for side, before in self.before.items():
            machine = self.shell.machines[side]
            for path, node in before.items():
                if machine.nodes.get(path) != node and (side, path) not in named:
                    yield machine.shown(path)

    def _feedback(self, reached: bool) -> str:
        if reached:
            return "The goal was reached."
        if not self.rules.failure_told:
            return "The goal was not reached."
        unmet = next(self._unmet(), None)
        failed = self._said(unmet) if unmet else f"{next(self._disturbed())} has changed"
        return f"The goal was not reached. The first check that failed: {failed}."

    def _said(self, check: Check) -> str:
        """Word a check by the names that the task uses: what is hidden, a failure does not tell."""
        plain = Scene(self.brief, Site(), self.scene.real).checks[self.scene.checks.index(check)]
        if check.side == "local":
            return plain.told(f"{self.shell.local.shown(plain.path)} on your machine")
        return plain.told(f"{plain.path.strip('/')} under the document root" if self.rules.hidden else plain.path)

    def _situation(self) -> str:
        view = self.view
        if self.rules.count_commands:
            return f"Commands used: {view.used} of {view.turns}.\n{self.shell.prompt}"
        return f"Step {view.used + 1} of {view.turns}.\n{self.shell.prompt}"


def task_text(scene: Scene, local: Machine, rules: Rules) -> str:
    """Word the task."""
    template = "task_site" if rules.hidden else "task_paths"
    return render(template, s=scene, b=scene.brief, told=rules.goals_told, local=local)


def side(brief: Brief, rules: Rules) -> str:
    """The side of the wall that a task falls on: by what it says, whatever machines it is told of."""
    brief = replace(brief, os="linux", host="server", user="user", seed=0)
    local = Machine("linux", "user", "laptop", brief.home, {})
    told = task_text(Scene(brief, Site(), rules.manners.real), local, rules)
    return "held-out" if digest("task", told) % 4 == 0 else "train"


@lru_cache(maxsize=1024)
def bare_server(site: Site, user: str, roots: int) -> Nodes:
    """A server before any task: the folders of all, its own tools, and the pages under its root."""
    places = dict.fromkeys((f"/home/{user}", "/var/www/html", "/opt", "/tmp"), FOLDER)
    if site.root:
        places |= dict.fromkeys((*ROOTS[:roots], BIN), FOLDER)
        places |= {f"{BIN}/{local}": Node("", "755", "program") for local, _ in site.tools}
        places |= {f"{site.root}/{site.named(page)}": Node(f"[{page}]") for page in ("index.html", "about.html")}
    return grown({"": FOLDER}, places)


def read_line(text: str) -> str | None:
    """Read the command line in a reply, None if it is malformed."""
    return (action(text) or "").strip() or None


def write_line(line: str, thought: str = "") -> str:
    """Write a reply with this line."""
    return f"{thought} <action>{line}</action>".strip()

"""Environment of the terminal, with observations, reply parsing, checks and rewards."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import lru_cache

from codots.core.rng import digest
from codots.core.templates import Prompts
from codots.domains.base import Step
from codots.domains.family import action
from codots.domains.terminal.kinds import PlanStep, Scene
from codots.domains.terminal.machine import FOLDER, Machine, Node, Nodes, with_files
from codots.domains.terminal.shell import Behavior, Shell
from codots.domains.terminal.site import BIN, ROOTS, Site
from codots.domains.terminal.tasks import Brief, Check

render = Prompts(__package__)
LINE = 2000  # maximum characters of a command line
SHOWN = 2000  # maximum characters of the output of a line


@dataclass(frozen=True)
class Rules:
    """Settings that differ between versions."""

    hidden: bool
    """Whether the server has hidden settings. If so, all tasks of a pack share the local system, host and user. Every
    task then involves the server and gives server paths relative to the document root, which is not shown."""
    goals_shown: bool
    """Whether tasks always state the name and place of an archive."""
    failure_shown: bool
    """Whether the feedback names the first failed check."""
    strict: bool
    """Whether archives must have the requested format, and all initial files outside the goal must stay unchanged."""
    count_commands: bool
    """Whether each command counts as a turn. If False, each line counts as a turn."""
    step_cost: float
    """Reward subtracted from a success that uses all turns. Fewer turns cost proportionally less."""
    start: str
    """Machine where a task begins: `local` or `remote`."""
    split_tasks: bool
    """Whether each task belongs either to `train` or to the held-out splits, depending on its content."""
    last_output_shown: bool
    """Whether the updater sees the output of the last line."""
    behavior: Behavior
    """Behavior of the simulated shell."""


@dataclass(frozen=True)
class Dials:
    """Settings that differ between presets."""

    composite: float = 0.5
    """Share of composite tasks."""
    turns: int = 0
    """Fixed number of turns. If 0, the number is the length of the shortest plan plus `slack`."""
    slack: int = 0
    """Number of turns beyond the shortest plan. Used only if `turns` is 0."""
    tools: int = 0
    """Number of renamed server tools, which are the first of TOOLS."""
    roots: int = 1
    """Number of candidate document roots, which are the first of ROOTS."""


@dataclass(frozen=True)
class View:
    """Public state of an episode."""

    brief: Brief
    side: str
    """Current machine: `local` or `remote`."""
    used: int
    turns: int
    line: str = ""
    """The last line that was run."""
    output: str = ""
    """The output of the last line."""


def turns(scene: Scene, dials: Dials, start: str) -> int:
    """Return the number of turns: `dials.turns`, or if that is 0, the length of the shortest plan plus the slack."""
    return dials.turns or len(with_ssh(scene.plan, start, scene.brief)) + dials.slack


def with_ssh(plan: list[PlanStep], side: str, brief: Brief) -> list[PlanStep]:
    """Insert `ssh` and `exit` where a plan changes machines."""
    steps: list[PlanStep] = []
    for step in plan:
        if step[0] != side:
            steps.append(("local", "ssh", f"{brief.user}@{brief.host}") if side == "local" else ("remote", "exit"))
            side = step[0]
        steps.append(step)
    return steps


@dataclass
class TerminalEnv:
    """The environment of one terminal task."""

    brief: Brief
    site: Site
    rules: Rules
    dials: Dials
    view: View = field(init=False)
    scene: Scene = field(init=False)
    shell: Shell = field(init=False)

    def __post_init__(self) -> None:
        brief, rules = self.brief, self.rules
        self.scene = scene = Scene(brief, self.site, rules.behavior.real)
        local = Machine(
            brief.os,
            "user",
            "laptop",
            brief.home,
            with_files({brief.root: FOLDER}, {brief.home: FOLDER, **scene.local}),
        )
        server = bare_server(self.site, brief.user, self.dials.roots)
        remote = Machine("linux", brief.user, brief.host, f"/home/{brief.user}", with_files(server, scene.remote))
        self.shell = Shell(local, remote, self.site, rules.behavior)
        if rules.start == "remote":
            self.shell.here = remote
        self.before = {"local": dict(local.nodes), "remote": dict(remote.nodes)} if rules.strict else {}
        self.view = View(brief, rules.start, 0, turns(scene, self.dials, rules.start))

    def observe(self) -> str:
        """Return the task and the shell prompt."""
        return f"{task_text(self.scene, self.shell.local, self.rules)}\n\n{self._status()}"

    def step(self, text: str) -> Step:
        """Run the command line in the reply."""
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
            return Step(f"{output or '(no output)'}\n\n{self._status()}", 0.0, False, view=self.view)
        observation = (output or "(no output)") if self.rules.last_output_shown else ""
        return Step(observation, reward, True, self._feedback(reached), stop, self.view)

    def _run(self, line: str) -> tuple[int, bool, str]:
        """Run a line. Return the turns used so far, whether the goal is reached, and the output."""
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
        """Return whether every check holds and, under strict rules, no other initial file or folder has changed."""
        return next(self._unmet(), None) is None and next(self._damaged(), None) is None

    def _unmet(self) -> Iterator[Check]:
        machines = self.shell.machines
        return (check for check in self.scene.checks if not check.holds(machines[check.side], self.rules.strict))

    def _damaged(self) -> Iterator[str]:
        """Yield the paths of initial files and folders that have changed although no check covers them."""
        named = {(check.side, check.path) for check in self.scene.checks}
        for side, before in self.before.items():
            machine = self.shell.machines[side]
            for path, node in before.items():
                if machine.nodes.get(path) != node and (side, path) not in named:
                    yield machine.shown(path)

    def _feedback(self, reached: bool) -> str:
        if reached:
            return "The goal was reached."
        if not self.rules.failure_shown:
            return "The goal was not reached."
        unmet = next(self._unmet(), None)
        failed = self._describe(unmet) if unmet else f"{next(self._damaged())} has changed"
        return f"The goal was not reached. The first check that failed: {failed}."

    def _describe(self, check: Check) -> str:
        """Describe a check in the plain names of the task, so that the feedback reveals nothing hidden."""
        plain = Scene(self.brief, Site(), self.scene.real).checks[self.scene.checks.index(check)]
        if check.side == "local":
            return plain.describe(f"{self.shell.local.shown(plain.path)} on your machine")
        return plain.describe(f"{plain.path.strip('/')} under the document root" if self.rules.hidden else plain.path)

    def _status(self) -> str:
        view = self.view
        if self.rules.count_commands:
            return f"Commands used: {view.used} of {view.turns}.\n{self.shell.prompt}"
        return f"Step {view.used + 1} of {view.turns}.\n{self.shell.prompt}"


def task_text(scene: Scene, local: Machine, rules: Rules) -> str:
    """Return the text of a task."""
    template = "task_site" if rules.hidden else "task_paths"
    return render(template, s=scene, b=scene.brief, shown=rules.goals_shown, local=local)


def split_side(brief: Brief, rules: Rules) -> str:
    """Return the side, `train` or `held-out`, of a task by its text. System, host, user and seed do not matter."""
    brief = replace(brief, os="linux", host="server", user="user", seed=0)
    local = Machine("linux", "user", "laptop", brief.home, {})
    text = task_text(Scene(brief, Site(), rules.behavior.real), local, rules)
    return "held-out" if digest("task", text) % 4 == 0 else "train"


@lru_cache(maxsize=1024)
def bare_server(site: Site, user: str, roots: int) -> Nodes:
    """Return the server's files before any task: common folders, the local tools, and pages under the document root."""
    places = dict.fromkeys((f"/home/{user}", "/var/www/html", "/opt", "/tmp"), FOLDER)
    if site.root:
        places |= dict.fromkeys((*ROOTS[:roots], BIN), FOLDER)
        places |= {f"{BIN}/{local}": Node("", "755", "program") for local, _ in site.tools}
        places |= {f"{site.root}/{site.server_name(page)}": Node(f"[{page}]") for page in ("index.html", "about.html")}
    return with_files({"": FOLDER}, places)


def read_line(text: str) -> str | None:
    """Return the command line in a reply, or None if the reply is malformed."""
    return (action(text) or "").strip() or None


def write_line(line: str, thought: str = "") -> str:
    """Return a reply with this command line."""
    return f"{thought} <action>{line}</action>".strip()

"""Terminal: file work over two machines in a simulated shell; in v1 the server has ways of its own.

Description:
    A local machine (Windows, macOS or Linux) and a Linux server. A task is a sentence: upload, rename, pack, ... The
    machines are simulated in memory; no command reaches a real one.
Hidden and shared:
    v0: nothing; what carries over are the quirks of the simulator, the same in every world.
    v1: the local names of the server's tools, its document root, the rule by which files under it are named, and which
    of scp and rsync works. All hold for the whole world, as do the public face of the server and the local system.
Observation:
    The task and the prompt of the shell, then what each line printed.
Action:
    Exactly one `<action>ls -l</action>` with a command line; `&&` and `;` chain commands. A command that fails costs
    what any other costs.
Reward:
    v0: 1 if the goal is reached, else 0. v1: 1 - 0.1 k/H after k of H commands, else 0.
Episode end:
    goal, out of turns (`late`), or malformed text.
Presets:
    v0: `standard` (12 lines, half of the tasks made of several). v1: `easy`, `hard` (more tools, more folders, fewer
    commands to spare), `tiny` (tests).
    Dials: composite, turns or slack (commands beyond the shortest way), tools, roots.
Reference policies:
    `random`; `informed`, the shortest plan; `bayes`, a scripted learner. In v0 it reads a goal that is not told in
    one way after another. In v1 it looks things up while commands are to spare, and gambles on a name when none are.
Version history:
    v0: the rules of arXiv 2606.20002: no world behind the tasks of a pack, some goals not told, checks that overlook
    damage, no cost of steps, a shell with quirks, and the updater is not told what the last line printed.
    v1: hidden ways of the server, every goal told, the failing check named, everything else has to stay as it was,
    commands cost, a shell like real ones, tasks split by content, and the last output reaches the updater.
"""

from __future__ import annotations

from dataclasses import replace

from codots.core.rng import stream
from codots.domains.base import Env, Rng, Task, World
from codots.domains.family import Family, Policies
from codots.domains.registry import register
from codots.domains.terminal import archives, files, network  # noqa: F401, they make their commands known
from codots.domains.terminal.env import Dials, Rules, TerminalEnv, render, side, turns
from codots.domains.terminal.kinds import Scene
from codots.domains.terminal.policies import Chained, Learner, Random
from codots.domains.terminal.shell import Manners
from codots.domains.terminal.site import BIN, TOOLS, Site, claims, draw_site, other_seed, told, truth
from codots.domains.terminal.tasks import Brief, draw_brief, draw_face

SYSTEMS = {"windows": "Windows", "macos": "macOS", "linux": "Linux"}


class Terminal(Family):
    """The family, under one set of rules."""

    rules: Rules
    chance = False

    def make_world(self, rng: Rng, dials: Dials) -> Site:
        """Draw the server's ways."""
        return draw_site(rng, dials.roots, dials.tools) if self.rules.hidden else other_seed(Site(), rng)

    def make_task(self, world: World, position: int, rng: Rng) -> Brief:
        """Draw tasks until one belongs to this split."""
        face = draw_face(stream(*world.names, "face") if self.rules.hidden else rng)
        while True:
            brief = draw_brief(rng, face, world.dials.composite, self.rules.hidden)
            if not self.rules.split_tasks or (side(brief, self.rules) == "train") == (world.split == "train"):
                return brief

    def side(self, task: Task) -> str | None:
        """The side of the task that is told."""
        return side(task.content, self.rules) if self.rules.split_tasks else None

    def make_env(self, task: Task, *, style: str = "natural", memory: object | None = None, rng: Rng) -> Env:
        """Open a session."""
        return TerminalEnv(task.content, task.world.hidden, self.rules, task.world.dials)

    def rules_text(self, task: Task, style: str) -> str:
        """Say the rules."""
        brief, dials, rules = task.content, task.world.dials, self.rules
        lacks = sorted(rules.manners.windows_lacks) if brief.os == "windows" else []
        return render(
            "rules",
            b=brief,
            system=SYSTEMS[brief.os],
            lacks=", ".join(lacks),
            real=rules.manners.real,
            hidden=rules.hidden,
            tools=", ".join(TOOLS[: dials.tools]),
            bin=BIN,
            count=rules.count_commands,
            turns=self._turns(task),
        )

    def _turns(self, task: Task) -> int:
        scene = Scene(task.content, task.world.hidden, self.rules.manners.real)
        return turns(scene, task.world.dials, self.rules.start)

    def policies(self, world: World) -> Policies:
        """Say how each scripted player is made."""
        hidden = self.rules.hidden
        return {
            "random": lambda: Random(stream(*world.names, "random")),
            "informed": lambda: Learner.informed(world.dials, world.hidden) if hidden else Chained(readings=False),
            "bayes": lambda: Learner(world.dials) if hidden else Chained(readings=True),
        }

    def oracle_context(self, world: World, style: str) -> str:
        """Write down what is hidden; in v0, how the simulator wants to be spoken to."""
        return told(world.hidden)

    def ceiling(self, task: Task) -> float:
        """The reward of the shortest plan."""
        dials: Dials = task.world.dials
        most = self._turns(task)
        return 1 - self.rules.step_cost * (most - dials.slack if self.rules.count_commands else 1) / most

    def twin(self, world: World, rng: Rng) -> World:
        """Draw another server behind the same face."""
        while True:
            hidden = self.make_world(rng, world.dials)
            if hidden != world.hidden:
                return replace(world, hidden=hidden)

    def facts(self, world: World, context: str) -> tuple[int, int, int] | None:
        """Count claims about tools, root, names of files and transfers; None in v0, where there is nothing to claim."""
        if not self.rules.hidden:
            return None
        true = truth(world.hidden)
        said = [true.get(thing) == what for thing, what in claims(context)]
        return sum(said), len(said) - sum(said), len(true)


V0 = Rules(
    hidden=False,
    goals_told=False,
    failure_told=False,
    strict=False,
    count_commands=False,
    step_cost=0.0,
    start="local",
    split_tasks=False,
    last_output_told=False,
    manners=Manners(False, frozenset(("chmod", "touch", "rsync", "tar", "gzip", "gunzip"))),
)
V1 = Rules(
    hidden=True,
    goals_told=True,
    failure_told=True,
    strict=True,
    count_commands=True,
    step_cost=0.1,
    start="remote",
    split_tasks=True,
    last_output_told=True,
    manners=Manners(True, frozenset(("chmod", "touch", "gzip", "gunzip"))),
)
STANDARD = Dials(turns=12)
EASY = Dials(composite=0.25, slack=2, tools=5, roots=4)
HARD = Dials(composite=0.5, slack=1, tools=7, roots=8)
TINY = Dials(composite=0.0, slack=2, tools=2, roots=2)

register(Terminal("terminal-v0", V0, {"standard": STANDARD}))
register(Terminal("terminal-v1", V1, {"easy": EASY, "hard": HARD, "tiny": TINY}))

"""Terminal: file tasks on two machines in a simulated shell. In v1 the server has hidden settings.

Description:
    A local machine (Windows, macOS or Linux) and a Linux server. A task is a sentence: upload, rename, pack, ... The
    machines are simulated in memory. No command reaches a real machine.
Hidden and shared:
    v0: nothing; only the quirks of the simulator carry over, and they are the same in every world.
    v1: the local names of the server's tools, its document root, the rule that names files under it, and which of scp
    and rsync works. All are fixed per world, as are the public system, host and user names.
Observation:
    The task and the shell prompt, then the output of each line.
Action:
    Exactly one `<action>ls -l</action>` with a command line. `&&` and `;` chain commands. A failed command costs as
    much as any other.
Reward:
    v0: 1 if the goal is reached, otherwise 0. v1: 1 - 0.1 k/H if the goal is reached after k of H commands, otherwise
    0.
Episode end:
    `goal`, `late` (out of turns) or `malformed`.
Presets:
    v0: `standard` (12 lines, half of the tasks composite). v1: `easy`, `hard` (more hidden tools, more possible roots,
    fewer spare commands), `tiny` (tests).
    Dials: composite, turns or slack (commands beyond the shortest plan), tools, roots.
Reference policies:
    `random` runs random commands. `informed` follows the shortest plan. `bayes` is an adaptive scripted policy. In v0
    it tries the possible readings of an underspecified goal one after another. In v1 it looks up unknown settings while
    it has spare commands, and otherwise guesses names.
Version history:
    v0: the rules of arXiv 2606.20002: tasks of a pack share no hidden world, some goals are underspecified, checks
    miss damage, steps are free, the shell has quirks, and the updater does not see the output of the last line.
    v1: hidden server settings, fully specified goals, feedback that names the failed check, a cost per command, a
    realistic shell, and tasks split by content. All other initial files must stay unchanged, and the updater sees the
    last output.
"""

from __future__ import annotations

from dataclasses import replace

from codots.core.rng import stream
from codots.domains.base import Env, Rng, Task, World
from codots.domains.family import Family, Policies
from codots.domains.registry import register
from codots.domains.terminal import archives, files, network  # noqa: F401, these modules register commands
from codots.domains.terminal.env import Dials, Rules, TerminalEnv, render, split_side, turns
from codots.domains.terminal.kinds import Scene
from codots.domains.terminal.notes import QUIRKS, draw_value, read_claims, write_claim
from codots.domains.terminal.policies import AdaptivePolicy, OneLinePolicy, Random, Reading
from codots.domains.terminal.shell import Behavior
from codots.domains.terminal.site import BIN, TOOLS, Site, draw_site, other_seed, truth
from codots.domains.terminal.tasks import Brief, draw_brief, draw_face

SYSTEMS = {"windows": "Windows", "macos": "macOS", "linux": "Linux"}


class Terminal(Family):
    """Domain family: do file tasks in a simulated shell. Each version has one rule set."""

    rules: Rules
    chance = False

    def make_world(self, rng: Rng, dials: Dials) -> Site:
        """Draw the hidden settings of the server. In v0 nothing is hidden, and worlds differ only in a seed."""
        return draw_site(rng, dials.roots, dials.tools) if self.rules.hidden else other_seed(Site(), rng)

    def make_task(self, world: World, position: int, rng: Rng) -> Brief:
        """Draw tasks until one belongs to the world's split."""
        face = draw_face(stream(*world.names, "face") if self.rules.hidden else rng)
        while True:
            brief = draw_brief(rng, face, world.dials.composite, self.rules.hidden)
            if not self.rules.split_tasks or (split_side(brief, self.rules) == "train") == (world.split == "train"):
                return brief

    def side(self, task: Task) -> str | None:
        """Return the side, `train` or `held-out`, that the task belongs to, or None if the rules do not split tasks."""
        return split_side(task.content, self.rules) if self.rules.split_tasks else None

    def make_env(self, task: Task, *, style: str = "natural", memory: object | None = None, rng: Rng) -> Env:
        """Open the environment of a task."""
        return TerminalEnv(task.content, task.world.hidden, self.rules, task.world.dials)

    def rules_text(self, task: Task, style: str) -> str:
        """Return the rules of a task as text."""
        brief, dials, rules = task.content, task.world.dials, self.rules
        lacks = sorted(rules.behavior.windows_lacks) if brief.os == "windows" else []
        return render(
            "rules",
            b=brief,
            system=SYSTEMS[brief.os],
            lacks=", ".join(lacks),
            real=rules.behavior.real,
            hidden=rules.hidden,
            tools=", ".join(TOOLS[: dials.tools]),
            bin=BIN,
            count=rules.count_commands,
            turns=self._turns(task),
        )

    def _turns(self, task: Task) -> int:
        scene = Scene(task.content, task.world.hidden, self.rules.behavior.real)
        return turns(scene, task.world.dials, self.rules.start)

    def policies(self, world: World) -> Policies:
        """Return a factory for each scripted policy, by name."""
        dials = world.dials
        if not self.rules.hidden:
            return {
                "random": lambda: Random(stream(*world.names, "random")),
                "informed": lambda: OneLinePolicy(try_plain_name=False),
                "bayes": lambda: OneLinePolicy(try_plain_name=True),
            }
        return {
            "random": lambda: Reading(dials, stream(*world.names, "random")),
            "informed": lambda: AdaptivePolicy.informed(dials, world.hidden),
            "bayes": lambda: AdaptivePolicy(dials),
        }

    def claims(self, world: World, style: str) -> dict[str, str]:
        """Return the values of the hidden settings, or in v0 the quirks of the simulator, which no policy reads."""
        if not self.rules.hidden:
            return {f"quirk {i}": line for i, line in enumerate(QUIRKS.splitlines())}
        return {setting: write_claim(setting, value) for setting, value in truth(world.hidden).items()}

    def guess(self, world: World, subject: str, style: str, rng: Rng) -> str:
        """Draw a claim about a setting. In v0, where nothing is hidden, it is true."""
        if not self.rules.hidden:
            return self.claims(world, style)[subject]
        return write_claim(subject, draw_value(subject, world.dials, rng))

    def ceiling(self, task: Task) -> float:
        """Return the reward of the shortest plan."""
        dials: Dials = task.world.dials
        most = self._turns(task)
        return 1 - self.rules.step_cost * (most - dials.slack if self.rules.count_commands else 1) / most

    def twin(self, world: World, rng: Rng) -> World:
        """Draw a server with different hidden settings and the same public names."""
        while True:
            hidden = self.make_world(rng, world.dials)
            if hidden != world.hidden:
                return replace(world, hidden=hidden)

    def facts(self, world: World, context: str) -> tuple[int, int, int] | None:
        """Count the right and the wrong claims about tools, root, file names and transfers, and all true facts.

        Returns None in v0, where nothing is hidden.
        """
        if not self.rules.hidden:
            return None
        true = truth(world.hidden)
        right = [true.get(subject) == value for subject, value in read_claims(context)]
        return sum(right), len(right) - sum(right), len(true)


V0 = Rules(
    hidden=False,
    goals_shown=False,
    failure_shown=False,
    strict=False,
    count_commands=False,
    step_cost=0.0,
    start="local",
    split_tasks=False,
    last_output_shown=False,
    behavior=Behavior(False, frozenset(("chmod", "touch", "rsync", "tar", "gzip", "gunzip"))),
)
V1 = Rules(
    hidden=True,
    goals_shown=True,
    failure_shown=True,
    strict=True,
    count_commands=True,
    step_cost=0.1,
    start="remote",
    split_tasks=True,
    last_output_shown=True,
    behavior=Behavior(True, frozenset(("chmod", "touch", "gzip", "gunzip"))),
)
STANDARD = Dials(turns=12)
EASY = Dials(composite=0.25, slack=2, tools=5, roots=4)
HARD = Dials(composite=0.5, slack=1, tools=7, roots=8)
TINY = Dials(composite=0.0, slack=2, tools=2, roots=2)

register(Terminal("terminal-v0", V0, {"standard": STANDARD}))
register(Terminal("terminal-v1", V1, {"easy": EASY, "hard": HARD, "tiny": TINY}))

"""Terminal: the simulated shell, task kinds, hidden settings, checks, rewards, policies and isolation."""

import re
import time
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codots.context.rewrite import Rewrite, Trajectory, Turn
from codots.core.rng import stream
from codots.domains.base import World
from codots.domains.registry import get_domain, make_pack
from codots.domains.terminal import EASY, HARD, STANDARD, V0, V1, Terminal
from codots.domains.terminal.env import LINE, TerminalEnv, read_line, with_files, with_ssh, write_line
from codots.domains.terminal.kinds import KINDS, Scene
from codots.domains.terminal.machine import NODES, PATH, Machine, Node
from codots.domains.terminal.notes import read_names, read_settings, write_claim, write_unknown
from codots.domains.terminal.notes import settings as settings_of
from codots.domains.terminal.notes import values as values_of
from codots.domains.terminal.policies import AdaptivePolicy
from codots.domains.terminal.shell import COMMANDS, Shell
from codots.domains.terminal.site import LOCAL_NAMES, NAMINGS, ROOTS, TOOLS, Naming, Site, draw_site, truth
from codots.domains.terminal.tasks import COMPOSITE, FOLDERS, NAMES, SINGLE, draw_brief, draw_face
from tests.domains.reading import life, noted_life

DOCS = Path(__file__).parents[2] / "docs/domains/terminal.md"
IDS = ("terminal-v0", "terminal-v1")
SYSTEMS = ("windows", "macos", "linux")
SITE = Site(
    root="/srv/http",
    naming=Naming("live", "-", front=False),
    transfer="rsync",
    tools=tuple(zip(("zorp", "brint", "fenk", "hux", "glim", "olp", "wask"), TOOLS, strict=True)),
)
AT = "emma@192.168.1.20"


def shell(behavior=V1.behavior, system="linux", site=None, files=(), there=()):
    """Return a shell with some files in the home folders. Each file contains its own name."""
    home = {"windows": "C:/Users/user", "macos": "/Users/user", "linux": "/home/user"}[system]
    root = "C:" if system == "windows" else ""
    local = with_files({root: Node(None, "755")}, {f"{home}/{f}": Node(f) for f in files} | {f"{home}/.rc": Node("")})
    remote = with_files(
        {"": Node(None, "755")}, {f"/home/emma/{f}": Node(f) for f in there} | {"/home/emma/.rc": Node("")}
    )
    here = Machine(system, "user", "laptop", home, local)
    return Shell(here, Machine("linux", "emma", "192.168.1.20", "/home/emma", remote), site or Site(), behavior)


def output_of(sh, line):
    return "\n".join(filter(None, sh.run(line)))


def succeeds(sh, line):
    """Return whether the last command of a line succeeds."""

    def outcome():
        ends.append((yield from sh.run(line)))

    ends = []
    list(outcome())
    return ends[0]


def home_files(sh, side="local"):
    """Return the contents of the files in the home folder, by path."""
    machine = getattr(sh, side)
    start = len(machine.home) + 1
    return {
        p[start:]: n.content
        for p, n in machine.nodes.items()
        if p.startswith(machine.home + "/") and n.content is not None and not p.endswith(".rc")
    }


def briefs(kind, count=6, hidden=False):
    """Draw briefs of one kind."""
    found, i = [], 0
    while len(found) < count:
        rng = stream("brief", kind, i)
        brief = draw_brief(rng, draw_face(rng), 0.5, hidden)
        found += [brief] if brief.kind == kind else []
        i += 1
    return found


def session(brief, rules=V1, site=None, dials=EASY):
    return TerminalEnv(brief, (SITE if rules.hidden else Site()) if site is None else site, rules, dials)


def send_lines(env, *lines):
    """Send lines and return the last step."""
    for line in lines:
        step = env.step(write_line(line))
    return step


# Rewards of the policies.


def episode_rewards(pack, policy):
    return [episode_reward(task.env(), policy) for task in pack.tasks]


def episode_reward(env, policy):
    step = None
    while step is None or not step.done:
        step = env.step(policy.act(env.view))
    policy.end(step)
    return step.reward


def reader(dials, context):
    """Return an adaptive policy that has read a context."""
    policy = AdaptivePolicy(dials)
    policy.read(context)
    return policy


def curve(id, preset, policy, packs=60):
    drawn = [make_pack(id, preset, "dev", i, 4) for i in range(packs)]
    return np.mean([episode_rewards(pack, pack.domain.policy(policy, pack.world)) for pack in drawn], axis=0)


def test_v0_informed_and_bayes_always_succeed_and_random_almost_never_does():
    assert curve("terminal-v0", "standard", "informed").tolist() == [1.0] * 4
    assert curve("terminal-v0", "standard", "bayes").tolist() == [1.0] * 4
    assert curve("terminal-v0", "standard", "random").mean() < 0.03


def test_v1_bayes_improves_over_the_life():
    bayes, informed, chance = (curve("terminal-v1", "easy", name) for name in ("bayes", "informed", "random"))
    assert bayes[3] - bayes[0] > 0.2
    assert informed.mean() - chance.mean() > 0.9
    assert (bayes <= informed + 0.02).all()


def test_v1_the_oracle_context_raises_the_reward():
    lifts = []
    for i in range(60):
        pack = make_pack("terminal-v1", "easy", "dev", i, 4)
        z = pack.domain.oracle_context(pack.world, "natural")
        for task in pack.tasks:
            alone = replace(pack, tasks=(task,))
            read, blank = (episode_rewards(alone, reader(EASY, context))[0] for context in (z, ""))
            lifts.append(read - blank)
    assert np.mean(lifts) > 0.15


# Kinds of tasks.


def test_kinds_are_drawn_uniformly():
    rng = stream("kinds")
    drawn = [draw_brief(rng, ("linux", "h", "u"), 0.5, False).kind for _ in range(3600)]
    for kinds in (SINGLE, COMPOSITE):
        for kind in kinds:
            assert abs(drawn.count(kind) - 1800 / len(kinds)) < 5 * (1800 / len(kinds)) ** 0.5


def test_pools_have_the_sizes_of_the_paper():
    assert (len(set(NAMES)), len(set(FOLDERS))) == (25, 20)
    assert (len(SINGLE), len(COMPOSITE)) == (9, 8)


@pytest.mark.parametrize("kind", list(KINDS))
def test_v0_tasks_start_unsolved_and_the_plan_solves_them_in_one_line(kind):
    for brief in briefs(kind, 12):
        env = session(brief, V0, dials=STANDARD)
        assert not env.reached()
        plan = with_ssh(env.scene.plan, "local", brief)
        line = " && ".join(" ".join(["scp" if step[1] == "send" else step[1], *step[2:]]) for step in plan)
        step = send_lines(env, line)
        assert (step.reward, step.stop, step.observation, step.feedback) == (1.0, "goal", "", "The goal was reached.")


def candidate_commands(env):
    """Return many commands on the paths of a task."""
    b, scene = env.brief, env.scene
    paths = {check.path for check in scene.checks} | set(scene.local) | set(scene.remote)
    paths |= {path.rpartition("/")[0] for path in paths}
    there = sorted(path for path in paths if path.startswith(SITE.root))
    here = sorted(paths - set(there))
    at = f"{b.user}@{b.host}:"
    lines = ["exit", f"ssh {b.user}@{b.host}"]
    lines += [
        " ".join(["rsync" if step[1] == "send" else step[1], *step[2:]]) for step in scene.plan if step[0] == "local"
    ]
    for names, side in ((there, "remote"), (here, "local")):
        called = {std: (local if side == "remote" else std) for local, std in SITE.tools}
        pairs = [f"{one} {two}" for one, two in product(names, repeat=2)]
        lines += [f"{called[tool]} {pair}" for tool in ("mv", "cp") for pair in pairs]
        lines += [
            f"{tool} {pair}" for tool in (f"{called['tar']} -czf", f"{called['tar']} -cf", "zip -r") for pair in pairs
        ]
        lines += [f"{called['rm']} -r {path}" for path in names] + [f"{called['mkdir']} -p {path}" for path in names]
        lines += [f"{called['chmod']} {b.mode} {path}" for path in names]
    lines += [f"rsync {one} {at}{two}" for one in here for two in there]
    return [*lines, *(f"rsync {at}{one} {two}" for one in there for two in here)]


def search(env, depth):
    """Return whether some sequence of candidate commands, at most `depth` long, reaches the goal."""
    sh, lines = env.shell, candidate_commands(env)

    def state():
        return (dict(sh.local.nodes), dict(sh.remote.nodes), sh.here)

    level, seen = [state()], set()
    for _ in range(depth):
        after = []
        for local, remote, here in level:
            for line in lines:
                sh.local.nodes, sh.remote.nodes, sh.here = dict(local), dict(remote), here
                list(sh.run(line))
                if env.reached():
                    return True
                key = (frozenset(sh.local.nodes.items()), frozenset(sh.remote.nodes.items()), sh.here.host)
                if key not in seen:
                    seen.add(key)
                    after.append(state())
        level = after
    return False


@pytest.mark.parametrize("kind", list(KINDS))
def test_no_plan_is_shorter_than_the_one_behind_the_ceiling(kind):
    brief = replace(briefs(kind, 1, hidden=True)[0], os="linux", others=(), files=("a.txt",))
    env = session(brief)
    steps = env.view.turns - EASY.slack
    assert not search(env, steps - 1)
    assert search(session(brief), steps)


# The shell.


@pytest.mark.parametrize("system", SYSTEMS)
@pytest.mark.parametrize("behavior", [V0.behavior, V1.behavior])
def test_common_commands_work(system, behavior):
    sh = shell(behavior, system, files=("a.txt", "d/b.txt"))
    assert output_of(sh, "ls").split() == ["a.txt", "d"]
    assert output_of(sh, "cat a.txt d/b.txt && echo x  y") == "a.txt\nd/b.txt\nx y"
    assert output_of(sh, "cp a.txt d && mv d/b.txt c.txt && mkdir -p n/m && cp -r d n/m && rm a.txt") == ""
    assert home_files(sh) == {"d/a.txt": "a.txt", "c.txt": "d/b.txt", "n/m/d/a.txt": "a.txt"}
    assert output_of(sh, "zip -r q.zip d && unzip q.zip -d u && cd u/d && cat a.txt") == "a.txt"
    assert output_of(sh, "whoami") == "user"
    assert sh.prompt.startswith(
        {"windows": "C:\\Users\\user\\u\\d>", "macos": "user@laptop:/Users/user/u/d%"}.get(system, "user@")
    )


def test_tar_and_gzip_pack_and_unpack():
    sh = shell(files=("d/a.txt", "d/e/b.txt", "f.txt"))
    assert output_of(sh, "tar -czf x.tar.gz d f.txt && tar -tf x.tar.gz").split() == ["d/a.txt", "d/e/b.txt", "f.txt"]
    assert output_of(sh, "mkdir o && tar xzf x.tar.gz -C o && cat o/d/e/b.txt") == "d/e/b.txt"
    assert output_of(sh, "gzip f.txt && ls && gunzip f.txt.gz && cat f.txt").split() == [
        "d",
        "f.txt.gz",
        "o",
        "x.tar.gz",
        "f.txt",
    ]
    assert output_of(sh, "tar -cf y.tar d; gzip y.tar; mkdir p; cd p; tar -xzf ../y.tar.gz; cat d/a.txt") == "d/a.txt"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("ls | cat", "no pipes"),
        ("echo a > b", "no redirection"),
        ("ls &", "no pipes"),
        ("cat 'a", "quote is left open"),
        ("&& ls", "syntax error"),
        ("ls &&", "syntax error"),
        (";", "syntax error"),
        ("reboot", "command not found"),
        ("cd nowhere", "no such"),
        ("cp d x", "needs -r"),
        ("cp -r d d/x", "one inside the other"),
        ("mv d d/x", "one inside the other"),
        ("rm -r /", "you stand in it"),
        ("cp -r / x", "needs -r"),
        ("zip -r z /", "needs -r"),
        ("cp a.txt q/r", "no such directory"),
        ("zip z.zip a.txt; gzip z.zip; rm z.zip", "packed already"),
        ("chmod u+x a.txt", "three octal digits"),
        ("mkdir a.txt", "is there already"),
        ("mkdir q/r", "no such directory"),
        ("mkdir -p a.txt/q", "is not a directory"),
        ("ls -Z", "unknown option"),
        ("scp a.txt nobody@10.0.0.1:x", "could not resolve"),
        ("ssh root@192.168.1.20", "permission denied"),
        ("exit", "own machine"),
        (f"mkdir {'x' * (PATH + 1)}", "too long"),
    ],
)
def test_invalid_commands_fail_and_change_nothing(line, message):
    sh = shell(files=("a.txt", "d/b.txt"))
    before = dict(sh.local.nodes), dict(sh.remote.nodes)
    assert message in output_of(sh, line)
    assert (sh.local.nodes, sh.remote.nodes) == before


def test_and_stops_at_a_failure_and_a_semicolon_does_not():
    sh = shell(files=("a.txt",))
    assert "no such" in output_of(sh, "cat b && rm a.txt")
    assert home_files(sh)
    output_of(sh, "cat b ; rm a.txt")
    assert not home_files(sh)


def test_variables_quotes_and_the_tilde_are_expanded():
    sh = shell(files=("a b.txt", "c.txt"))
    assert output_of(sh, "cat 'a b.txt' \"a b.txt\" a\\ b.txt ~/c.txt $HOME/c.txt ${HOME}/c.txt").count("txt") == 6
    assert output_of(sh, "echo '$HOME' $USER $NOTHING x~") == "$HOME user  x~"
    assert output_of(shell(system="windows"), "echo %USERNAME% %NOTHING% $HOME") == "user %NOTHING% $HOME"


QUIRKS = [  # line, system, whether it succeeds in v0, in v1
    ("cat 'a.txt'", "windows", False, True),
    ("mkdir n/m && cd n/m", "windows", False, True),
    ("tar -cf d.tar d && tar -tf d.tar", "windows", False, True),
    ("cd d && ren ../a.txt e.txt && cat ../e.txt", "linux", False, True),
    ("mkdir o && tar -cf d.tar d && tar -xf d.tar -C o && cat o/d/b.txt", "linux", False, True),
    (f"ssh {AT} 'mkdir o' && scp a.txt {AT}:o/a.txt && scp {AT}:o/a.txt e.txt && cat e.txt", "linux", False, True),
    (f"scp a.txt {AT}:~/a.txt", "linux", False, True),
    ("scp a.txt bob@192.168.1.20:a.txt", "linux", True, False),
    ("ssh root@192.168.1.20 && cat a.txt", "linux", True, False),
    ("zip z d ; zip z && cat a.txt", "linux", True, False),
    ("chmod 777 a.txt && rsync -r d emma@192.168.1.20:d", "linux", True, True),
    ("chmod 777 a.txt", "windows", False, False),
]


@pytest.mark.parametrize(("line", "system", "in_v0", "in_v1"), QUIRKS)
def test_the_quirks_of_v0_are_gone_in_v1(line, system, in_v0, in_v1):
    for behavior, works in ((V0.behavior, in_v0), (V1.behavior, in_v1)):
        assert succeeds(shell(behavior, system, files=("a.txt", "d/b.txt")), line) == works


def test_chmod_r_skips_the_folder_itself_only_in_v0():
    for behavior, mode in ((V0.behavior, "755"), (V1.behavior, "700")):
        sh = shell(behavior, files=("d/b.txt",))
        output_of(sh, "chmod -R 700 d")
        assert (sh.local.nodes["/home/user/d"].mode, sh.local.nodes["/home/user/d/b.txt"].mode) == (mode, "700")


def test_v0_ignores_an_inline_ssh_command_and_stays_connected():
    sh = shell(V0.behavior)
    output_of(sh, f"ssh {AT} 'mkdir o'")
    assert sh.here is sh.remote
    assert "/home/emma/o" not in sh.remote.nodes
    sh = shell(V1.behavior)
    assert output_of(sh, f"ssh {AT} 'mkdir o; ls; pwd'") == "o\n/home/emma"
    assert sh.here is sh.local


def test_the_remote_working_directory_survives_a_disconnect():
    sh = shell(there=("d/a.txt",))
    assert output_of(sh, f"ssh {AT} && cd d && exit && ssh {AT} && pwd") == "/home/emma/d"


def test_sent_files_get_the_default_mode():
    sh = shell(files=("a.txt",))
    output_of(sh, f"chmod 700 a.txt && scp a.txt {AT}:b.txt")
    assert sh.remote.nodes["/home/emma/b.txt"] == Node("a.txt")


# Hidden settings of a server.


def test_local_names_of_tools_apply_only_on_the_server():
    sh = shell(site=SITE, there=("a.txt",), files=("a.txt",))
    assert "not found" in output_of(sh, "zorp a.txt b.txt")
    output_of(sh, f"mv a.txt b.txt && ssh {AT}")
    for usual in ("mv", "move", "ren", "rename", "rm", "del", "cp", "copy", "tar", "unzip", "mkdir", "chmod"):
        assert output_of(sh, f"{usual} a.txt c.txt") == f"bash: {usual}: command not found"
    assert output_of(sh, "zorp --help") == "zorp: moves or renames files and folders: zorp SOURCE... TARGET"
    assert output_of(sh, "zorp a.txt b.txt && ls") == "b.txt"


def test_messages_of_a_renamed_tool_do_not_reveal_its_standard_name():
    for local, usual in SITE.tools:
        for args in ("", "a", "a b", "-Z", "a b c", "--help", "-c", "-d"):
            sh = shell(site=SITE, there=("a",))
            assert f"{usual} " not in output_of(sh, f"ssh {AT} && {local} {args}").replace(f"{local} ", "")


def test_listings_do_not_distinguish_the_tools_of_a_server():
    env = session(briefs("rename", 1, hidden=True)[0])
    listing = next(env.shell.run("ls -l /usr/local/bin")).splitlines()
    assert [line.split()[-1] for line in listing] == sorted(local for local, _ in SITE.tools)
    assert len({line.rpartition(" ")[0] for line in listing}) == 1
    assert set(output_of(env.shell, "cat /usr/local/bin/zorp /usr/local/bin/hux").split()) == {"(binary)"}


@pytest.mark.parametrize(("works", "fails"), [("scp", "rsync"), ("rsync", "scp")])
@pytest.mark.parametrize("system", SYSTEMS)
def test_only_one_of_scp_and_rsync_works(works, fails, system):
    sh = shell(system=system, site=replace(SITE, transfer=works), files=("a.txt",))
    assert "protocol not supported" in output_of(sh, f"{fails} a.txt {AT}:a.txt")
    assert output_of(sh, f"{works} a.txt {AT}:a.txt") == ""
    assert home_files(sh, "remote") == {"a.txt": "a.txt"}


def test_naming_rules_are_distinct():
    assert len({naming("a.tar.gz") for naming in NAMINGS}) == len(NAMINGS) == 32
    assert Naming("pub", "_", True)("a.tar.gz") == "pub_a.tar.gz"
    assert Naming("pub", "_", False)("a.tar.gz") == "a_pub.tar.gz"


def test_hidden_settings_are_drawn_uniformly():
    sites = [draw_site(stream("site", i), 4, 5) for i in range(800)]
    for values, count in (
        ([s.root for s in sites], 4),
        ([s.naming for s in sites], 32),
        ([s.transfer for s in sites], 2),
    ):
        assert len(set(values)) == count
        assert max(values.count(value) for value in set(values)) < 800 / count + 5 * (800 / count) ** 0.5
    assert {len({local for local, _ in site.tools}) for site in sites} == {5}
    assert {site.root for site in sites} == set(ROOTS[:4])
    assert not set(LOCAL_NAMES) & set(COMMANDS)


@pytest.mark.parametrize("kind", list(KINDS))
def test_v1_tasks_reveal_no_hidden_setting(kind):
    for brief in briefs(kind, 4, hidden=True):
        others = [
            replace(SITE, root=ROOTS[5]),
            replace(SITE, naming=NAMINGS[0]),
            replace(SITE, tools=()),
            draw_site(stream("x"), 8, 7),
        ]
        assert len({session(brief, site=site).observe() for site in (SITE, *others)}) == 1
        assert len({session(brief, site=site).view.turns for site in (SITE, *others)}) == 1


HARMLESS_LINES = (
    "pwd",
    "whoami",
    "ls -a",
    "cd ..",
    "ls /usr/local",
    "mv a b",
    "tar --help",
    "exit",
    "ls -l",
    "cat x.txt",
    "ssh " + AT,
)


def test_twin_worlds_answer_alike_until_a_command_depends_on_a_hidden_setting():
    domain = Terminal("terminal-of-this-test", replace(V1, behavior=V1.behavior), {"p": replace(HARD, slack=20)})
    for i in range(8):
        world = World(domain.make_world(stream("w", i), domain.presets["p"]), domain.presets["p"], "dev", ("twin", i))
        twin = domain.twin(world, stream("t", i))
        task = make_pack("terminal-v1", "hard", "dev", i, 1).tasks[0]
        both = [replace(task, domain=domain, world=w).env() for w in (world, twin)]
        assert both[0].observe() == both[1].observe()
        for line in HARMLESS_LINES:
            one, two = (send_lines(env, line) for env in both)
            assert replace(one, view=None) == replace(two, view=None)
        one, two = (
            output_of(env.shell, f"ssh {task.content.user}@{task.content.host} ; ls {' '.join(ROOTS)} /usr/local/bin")
            for env in both
        )
        assert one != two


# Checks, rewards, ends.


def test_commands_reduce_the_reward_of_a_success_only_in_v1():
    brief = replace(briefs("rename", 1, hidden=True)[0], name="a.txt", new="b.txt")
    line = f"zorp /srv/http/{brief.there}/a-live.txt /srv/http/{brief.there}/b-live.txt"
    assert send_lines(session(brief), line).reward == pytest.approx(1 - 0.1 * 1 / 3)
    assert send_lines(session(brief), "pwd", line).reward == pytest.approx(1 - 0.1 * 2 / 3)
    assert send_lines(session(brief), f"pwd ; {line} ; ls").reward == pytest.approx(1 - 0.1 * 2 / 3)
    late = send_lines(session(brief), f"pwd; ls; pwd; {line}")
    assert (late.reward, late.stop, late.done) == (0.0, "late", True)
    v0 = briefs("delete", 1)[0]
    env = session(v0, V0, dials=STANDARD)
    path = env.scene.checks[0].path
    where = f"ssh {v0.user}@{v0.host} && " if v0.side == "remote" else ""
    assert send_lines(env, *["pwd ; ls"] * 11, f"{where}rm {path}").reward == 1.0


def test_only_v1_feedback_names_the_failed_check():
    brief = replace(briefs("upload", 1, hidden=True)[0], name="a.txt", there="docs")
    step = send_lines(session(brief), "pwd; pwd; pwd; pwd")
    assert step.feedback.endswith(f"failed: docs/a.txt under the document root should hold [a.txt {brief.seed}].")
    assert (
        send_lines(session(briefs("upload", 1)[0], V0, dials=STANDARD), *["pwd"] * 12).feedback
        == "The goal was not reached."
    )


def test_damage_fails_a_task_only_in_v1():
    brief = replace(briefs("delete", 1, hidden=True)[0], name="a.txt", there="docs", others=("b.txt",))
    step = send_lines(session(brief), "brint -r /srv/http/docs", "pwd", "pwd")
    assert (step.reward, step.stop) == (0.0, "late")
    assert step.feedback.endswith("/srv/http/docs has changed.")
    assert send_lines(session(brief, replace(V1, strict=False)), "brint -r /srv/http/docs").stop == "goal"


def test_an_archive_of_the_wrong_kind_fails_only_in_v1():
    brief = replace(briefs("pack", 1, hidden=True)[0], there="docs", folder="docs", archive="docs.tar")
    wrong = "olp -czf /srv/http/docs-live.tar /srv/http/docs"
    assert send_lines(session(brief), wrong).stop is None
    assert send_lines(session(brief, replace(V1, strict=False)), wrong).stop == "goal"
    assert send_lines(session(brief), wrong.replace("-czf", "-cf")).stop == "goal"


def test_only_v1_states_the_name_and_place_of_an_archive():
    for kind, hidden in product(("pack", "pack_upload"), (False, True)):
        rules, brief = (V1 if hidden else V0), briefs(kind, 1, hidden)[0]
        short, full = (
            session(brief, replace(rules, goals_shown=shown), dials=STANDARD).observe() for shown in (False, True)
        )
        assert len(short) < len(full)
    for brief in briefs("pack_upload", 4):
        assert brief.archive not in session(brief, V0, dials=STANDARD).observe()
    for brief in briefs("pack_upload", 4, hidden=True):
        assert brief.archive in session(brief).observe()


def updater_reads(rules):
    brief = briefs("rename", 1, hidden=True)[0]
    step = send_lines(session(brief, rules), "pwd", "pwd", "ls /usr/local/bin")
    turn = Turn("task", "line")
    return (
        Rewrite().prompt(Trajectory("rules", (turn,), step.observation, step.reward, step.feedback), "", "natural").user
    )


def test_the_last_output_reaches_the_updater_only_in_v1():
    assert "zorp" in updater_reads(V1)
    assert "zorp" not in updater_reads(replace(V1, last_output_shown=False))


# Worlds and splits.


def test_v1_train_and_held_out_tasks_are_disjoint():
    """Compare the task texts without the system-dependent home folder."""

    def texts(split):
        drawn = [t.content for i in range(200) for t in make_pack("terminal-v1", "tiny", split, i, 4).tasks]
        home = re.compile(r"(C:\\Users|/Users|/home)[/\\]user[/\\]")
        return [home.sub("HOME/", session(brief).observe().split("\n\n")[0]).replace("\\", "/") for brief in drawn]

    train, held_out = texts("train"), texts("dev") + texts("test")
    assert len(set(train)) < len(train) - 10
    assert not set(train) & set(held_out)


def test_public_names_are_shared_over_a_pack_only_in_v1():
    faces = [
        {(t.content.os, t.content.host, t.content.user) for t in make_pack(id, p, "dev", 1, 6).tasks}
        for id, p in zip(IDS, ("standard", "easy"), strict=True)
    ]
    assert len(faces[0]) > 1
    assert len(faces[1]) == 1


# Replies and hostile lines.


@pytest.mark.parametrize(
    ("reply", "line"),
    [
        ("<action>ls -l</action>", "ls -l"),
        ("I look. <action>\n ls \n</action> done", "ls"),
        ("<action></action>", None),
        ("<action> \n</action>", None),
        ("<action>ls</action><action>ls</action>", None),
        ("the <action> tag <action>ls</action>", None),
        ("</action>ls<action>", None),
        ("ls", None),
    ],
)
def test_a_line_is_read_from_exactly_one_pair_of_tags(reply, line):
    assert read_line(reply) == line
    step = session(briefs("rename", 1, hidden=True)[0]).step(reply)
    assert (step.stop == "malformed") == (line is None)


PATHS = [
    "/",
    "..",
    ".",
    "~",
    "/srv/http",
    "C:\\Users",
    "a",
    "docs",
    "/etc/passwd",
    "x.tar.gz",
    f"{AT}:~",
    f"{AT}:/",
    AT,
    "x.gz",
    "''",
    "/home/user",
    "/usr/local/bin/zorp",
]
WORDS = [
    *COMMANDS,
    *(local for local, _ in SITE.tools),
    *PATHS,
    "-r",
    "-rf",
    "-p",
    "-czf",
    "-xzf",
    "-tf",
    "-C",
    "-d",
    "--help",
    "-",
    "--",
    "777",
    "000",
]
SIGNS = [
    "&&",
    ";",
    "|",
    ">",
    "'",
    '"',
    "\\",
    "$HOME",
    "${",
    "$",
    "%USERNAME%",
    "`",
    "$(rm)",
    "\n",
    "\x00",
    "*",
    "\u202e",
    "\U0001f9ca",
    "é" * 50,
]
hostile = st.lists(
    st.sampled_from(WORDS + SIGNS) | st.text(st.characters(exclude_categories=["Cs"]), max_size=8), max_size=30
).map(" ".join)
scenes = [
    (brief, rules)
    for rules in (V0, V1)
    for kind in ("delete", "pack", "backup_replace")
    for brief in briefs(kind, 3, rules.hidden)
]


@settings(max_examples=400)
@given(st.sampled_from(scenes), st.lists(hostile, min_size=1, max_size=6))
def test_no_line_breaks_out_of_the_simulator(scene, lines):
    brief, rules = scene
    env = session(brief, rules, replace(SITE, transfer="") if rules.hidden else None, STANDARD)
    env.observe()
    for line in lines:
        step = env.step(f"<action>{line}</action>")
        assert 0 <= step.reward <= 1
        assert len(step.observation) < 4000
        for machine in env.shell.machines.values():
            assert len(machine.nodes) <= NODES
            for path, node in machine.nodes.items():
                above = path.rpartition("/")[0]
                assert path == machine.root or machine.nodes[above].content is None
                assert len(path) <= PATH
                assert path == machine.root or path.split("/")[-1] not in ("", ".", "..")
                assert node.kind in ("", "tar", "tar.gz", "zip", "gz", "program")
            assert machine.has_folder(env.shell.cwds[machine.host])
        if step.done:
            break


@pytest.mark.parametrize(
    "line",
    [
        "x" * 10**6,
        "cp -r a a2 && " * 140 + "ls",
        "mkdir a; " + ";".join(f"cp -r a b{i}; cp -r b{i} a" for i in range(70)),
        "zip -r z.zip . ; " + "; ".join("zip z.zip z.zip" for _ in range(100)),
        "mkdir -p " + "a/" * 400,
        "'" * 1999,
        "\\" * 1999,
        "$HOME" * 390,
        "ls " * 600,
        "ls / ; " * 280,
        "ssh " * 400,
        "tar -c" + "f" * 1900,
    ],
)
@pytest.mark.parametrize("rules", [V0, V1])
def test_a_huge_line_uses_a_turn_and_little_time(line, rules):
    env, start = session(scenes[0][0] if rules is V0 else scenes[-1][0], rules, dials=STANDARD), time.process_time()
    step = env.step(write_line(line))
    assert time.process_time() - start < 2
    assert env.view.used >= 1
    assert step.reward == 0.0
    assert len(env.view.line) <= LINE


# Claims in contexts.


@pytest.mark.parametrize(
    ("context", "right", "wrong"),
    [
        ("", 0, 0),
        ("zorp=mv, brint=rm", 2, 0),
        ("mv is called zorp there; cp is brint", 1, 1),
        ("The document root: /srv/http", 1, 0),
        ("document root is `/srv/www`", 0, 1),
        ("the root is not /srv/www", 0, 0),
        ("files are named like report-live.txt", 1, 0),
        ("files are named like live-report.txt", 0, 1),
        ("rsync works", 1, 0),
        ("scp is broken", 1, 0),
        ("scp works here", 0, 1),
        ("nothing of this: rm -r /srv/http", 0, 0),
    ],
)
def test_facts_count_each_claim(context, right, wrong):
    assert get_domain("terminal-v1").facts(World(SITE, HARD), context) == (right, wrong, 10)


def test_v0_has_no_facts():
    pack = make_pack("terminal-v0", "standard", "dev", 0, 1)
    assert pack.domain.facts(pack.world, "anything") is None


@given(
    st.text(max_size=200)
    | st.lists(st.sampled_from(["root", "/srv/http", "zorp", "mv", "X-live.txt", "scp works", "\n", " is "])).map(
        "".join
    )
)
def test_any_context_can_be_read(context):
    domain, world = get_domain("terminal-v1"), World(SITE, HARD)
    right, wrong, knowable = domain.facts(world, context)
    assert right >= 0
    assert wrong >= 0
    assert knowable == len(truth(SITE))
    for name in ("random", "bayes"):
        policy = domain.policy(name, world)
        policy.read(context)
        assert 0 <= episode_reward(session(scenes[-1][0], dials=HARD), policy) <= 1


@pytest.mark.parametrize("filler", ["root ", "root is /", "zorp ", "zorp=mv\n", "X-live.", "scp ", "live-", "a", "\n"])
def test_a_huge_context_is_read_in_linear_time(filler):
    start = time.process_time()
    reader(HARD, filler * (200_000 // len(filler)))
    assert time.process_time() - start < 2


any_setting = st.sampled_from(settings_of(HARD)).flatmap(
    lambda setting: st.tuples(st.just(setting), st.sampled_from(values_of(setting, HARD)))
)


@given(any_setting)
def test_a_written_claim_is_read_back(claim):
    assert read_settings(write_claim(*claim), HARD) == dict([claim])


def test_local_names_are_read_if_all_are_listed():
    lines = [write_claim("mv", "zorp"), write_unknown("hux"), write_unknown("brint")]
    dials = replace(EASY, tools=3)
    assert read_names("\n".join(lines), dials) == ["brint", "hux", "zorp"]
    assert read_names("\n".join(lines[:2]), dials) == []
    assert get_domain("terminal-v1").facts(World(SITE, HARD), "\n".join(lines)) == (1, 0, 10)


def test_impossible_claims_are_not_believed():
    assert read_settings("zorp=tar\nthe root is /nowhere\nthe root is /data/web\nscp works", EASY) == {
        "transfer": "scp"
    }


@pytest.mark.parametrize("name", ["random", "bayes"])
@pytest.mark.parametrize("preset", ["easy", "hard"])
def test_readers_of_the_true_settings_reach_informed(preset, name):
    for pack in [make_pack("terminal-v1", preset, "dev", i, 4) for i in range(10)]:
        assert life(pack, name, pack.domain.oracle_context(pack.world, "natural")) == life(pack, "informed")


@pytest.mark.parametrize("preset", ["easy", "hard", "tiny"])
def test_notes_carry_all_that_bayes_knows_to_a_new_bayes(preset):
    for i in range(15):
        pack = make_pack("terminal-v1", preset, "dev", i, 4)
        assert noted_life(pack) == life(pack, "bayes")


@pytest.mark.parametrize("missing", ["mv", "root", "naming", "transfer"])
def test_random_draws_a_setting_that_the_context_leaves_out(missing):
    pack = make_pack("terminal-v1", "easy", "dev", 1, 1)
    claims = pack.domain.claims(pack.world, "natural")
    policy = pack.domain.policy("random", pack.world)
    policy.read(pack.domain.note([claim for setting, claim in claims.items() if setting != missing], "natural"))
    drawn = set()
    for _ in range(300):
        policy.act(pack.tasks[0].env().view)
        assert policy.facts.items() >= policy.claims.items()
        drawn.add(policy.facts[missing])
    assert drawn == set(values_of(missing, EASY))


@pytest.mark.parametrize(
    "wrong",
    [
        ["brint", "zorp"],
        ["zorp", "velk"],
        [SITE.root, "/var/www/html"],
        ["X-live", "X_pub"],
        ["rsync works", "scp works"],
    ],
)
def test_bayes_corrects_a_wrong_context_within_a_life(wrong):
    domain, world = get_domain("terminal-v1"), World(SITE, replace(HARD, slack=6), names=("corrected",))
    context, (old, new) = domain.oracle_context(world, "natural"), wrong
    policy = reader(world.dials, context.replace(old, "OLD").replace(new, old).replace("OLD", new))
    tasks = [domain.make_task(world, j, stream("corrected", j)) for j in range(60)]
    for brief in tasks:
        env = TerminalEnv(brief, SITE, V1, world.dials)
        episode_reward(env, policy)
    assert policy.notes("natural") == domain.claims(world, "natural")


def test_a_guess_is_a_possible_value_of_its_setting():
    domain, world, rng = get_domain("terminal-v1"), World(SITE, HARD), stream("guess")
    for setting in domain.claims(world, "natural"):
        guesses = {domain.guess(world, setting, "natural", rng) for _ in range(400)}
        assert guesses == {write_claim(setting, value) for value in values_of(setting, HARD)}


def test_the_context_of_v0_is_the_same_in_every_world():
    packs = [make_pack("terminal-v0", "standard", split, i, 1) for split in ("train", "dev") for i in range(3)]
    assert len({tuple(pack.domain.claims(pack.world, "natural").values()) for pack in packs}) == 1


@pytest.mark.parametrize("context", ["root is /srv/www\nzorp=rm\nscp works", "nesk=mv nesk=rm", "root is /nowhere"])
def test_a_policy_that_trusts_a_wrong_context_still_ends_its_tasks(context):
    pack = make_pack("terminal-v1", "hard", "dev", 3, 4)
    assert all(0 <= reward <= 1 for reward in episode_rewards(pack, reader(HARD, context)))


def test_the_plan_of_every_kind_is_as_long_on_every_site():
    for kind in KINDS:
        for brief in briefs(kind, 3, hidden=True):
            assert len({len(Scene(brief, draw_site(stream("plan", i), 8, 7), True).plan) for i in range(10)}) == 1


def test_the_life_in_the_docs_is_reproduced():
    pack = make_pack("terminal-v1", "easy", "dev", 2, 2)
    policy, lines, docs = pack.domain.policy("bayes", pack.world), [], DOCS.read_text()
    for task in pack.tasks:
        env, step = task.env(), None
        lines.append(env.observe())
        while step is None or not step.done:
            reply = policy.act(env.view)
            step = env.step(reply)
            lines[-1] += f" {read_line(reply)}"
            lines.append(step.observation)
        policy.end(step)
        lines.append(f"{step.feedback} Reward {step.reward:.3f}.\n")
    assert "\n".join(lines) in docs
    assert pack.domain.oracle_context(pack.world, "natural") in docs

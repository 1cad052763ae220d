"""Run folders for tests: evaluations with given numbers, lives of scripted policies, and training metrics."""

import json
from dataclasses import asdict, replace

import yaml

from codots.domains.registry import make_pack
from codots.evaluation.curves import ArmReport
from codots.evaluation.evaluate import Report
from codots.rollout.records import HEAD, Row, dump

INJECTION = "1=up </script><b>bold</b> <!-- & ]]> {{ 7 * 7 }} <img src=x onerror=alert(1)> \u202egnol"
CONTEXTS = ("", "1=up", "1=up 2=left")


def arm(reward, half=0.03, **changed):
    ones = [1.0] * len(reward)
    intervals, success_intervals = [[r - half, r + half] for r in reward], [[0.9, 1.0]] * len(reward)
    base = ArmReport(reward, intervals, ones, success_intervals, [0.0] * len(reward), 0.25, 0, ones, ones)
    return replace(base, **changed)


def report(own, null, **changed):
    S = len(own)
    base = Report(
        model="m",
        writer=None,
        domain="frozen-lake-v1",
        preset="easy",
        split="dev",
        n_packs=40,
        size=S,
        seed=0,
        temperature=1.0,
        writer_temperature=None,
        arms={"own": arm(own), "null": arm(null)},
        floor=[0.1] * S,
        bayes=[0.62] + [0.93] * (S - 1),
        ceiling=[0.95] * S,
        lift=[a - b for a, b in zip(own, null, strict=True)],
        lift_ci95=[[a - b - 0.05, a - b + 0.05] for a, b in zip(own, null, strict=True)],
        share=[(a - 0.62) / 0.33 for a in own],
        share_ci95=[[(a - 0.62) / 0.33 - 0.1, (a - 0.62) / 0.33 + 0.1] for a in own],
        shuffled_lift=None,
        shuffled_lift_ci95=None,
        hurt=None,
        tokens=1,
    )
    return asdict(replace(base, **changed))


def demo_summary(before=(0.3, 0.31, 0.35), after=(0.5, 0.7, 0.81), null=(0.5, 0.5, 0.5), **changed):
    return {
        "before": report(list(before), list(before)),
        "after": report(list(after), list(null), **changed),
        "seconds": {"evaluate before": 12.3, "train": 400.0},
    }


def life(index, won, *, contexts=CONTEXTS, arm="own", text="right", number=0, style="compact", **changed):
    """Return the rows of a life: tasks in `won` are played by the informed policy, others get a malformed reply."""
    pack = make_pack("frozen-lake-v1", "easy", "dev", index, len(won))
    rows = []
    for task, wins, context in zip(pack.tasks, won, contexts, strict=False):
        env, policy = task.env(style=style), pack.domain.policy("informed", pack.world)
        turns, observation, done = [], env.observe(), False
        while not done:
            reply = f"{text} {policy.act(env.view)}" if wins else text
            turns.append([observation, reply])
            step = env.step(reply)
            observation, done = step.observation, step.done
        name, j = list(pack.names), task.position
        rows.append(Row(name, arm, number, j, "solve", step.reward, step.stop, context, None, turns, observation, 3))
        if arm == "own" and j + 1 < len(won):
            turn = [["", f"<context> {contexts[j + 1]} </context>"]]
            rows.append(Row(name, arm, number, j, "update", 0.0, "ok", context, contexts[j + 1], turn, "", 3))
    return [replace(row, **changed) for row in rows]


def steps(count, size=3):
    """Return metrics per step with rising rewards."""
    return [
        {
            "step": t,
            **{f"reward/{j}": 0.3 + 0.5 * t / count * j / size for j in range(size)},
            "facts/right": t / count,
            "facts/wrong": 0.1,
            "malformed/solve": 0.0,
            "malformed/update": 0.1,
            "tokens/sampled": 2000,
            "time/step": 2.0,
            "time/rollout": 1.0,
            **({f"eval/{arm}_{size - 1}": 0.5 for arm in ("own", "null")} if t % 5 == 0 else {}),
        }
        for t in range(1, count + 1)
    ]


def make_run(folder, summary=None, rows=(), metrics=(), trained=(), **config):
    """Write a run folder with the given parts, and nothing else."""
    folder.mkdir(exist_ok=True)
    recipe = {
        "model": "base",
        "domain": "frozen-lake-v1",
        "preset": "easy",
        "pack_size": 3,
        "seed": 0,
        "steps": len(metrics),
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(recipe | config))
    if summary is not None:
        (folder / "summary.json").write_text(json.dumps(summary))
    if rows:
        text = json.dumps({HEAD: {"packs": 2}}) + "\n" + dump(rows)
        (folder / "after.jsonl").write_text(text, encoding="utf-8", errors="surrogatepass")
    if metrics:
        (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in metrics))
    if trained:
        (folder / "rollouts").mkdir()
        (folder / "rollouts" / "step-000001.jsonl").write_text(dump(trained))
    return folder


WORLDS = [
    {"domain": "frozen-lake-v1", "preset": "easy", "pack_size": 3, "packs_per_step": 2},
    {"domain": "frozen-lake-v1", "preset": "hard", "pack_size": 2, "packs_per_step": 2},
]


def mixed_run(folder, summary=None):
    """Write a run over two entries of worlds, with their labels in the metric names."""
    labels = {"frozen-lake-v1:easy": 3, "frozen-lake-v1:hard": 2}
    lines = [{"step": t, "eval/score": 0.5, "tokens/sampled": 10, "time/step": 1.0} for t in range(1, 11)]
    for line in lines:
        for label, size in labels.items():
            line |= {f"reward/{label}/{j}": 0.1 * j + 0.05 * line["step"] for j in range(size)}
            line |= {f"eval/{label}/{arm}_{j}": 0.5 for arm in ("own", "null") for j in range(size)}
        line |= {f"facts/frozen-lake-v1:hard/{name}": 0.25 for name in ("right", "wrong")}
    make_run(folder, summary, metrics=lines)
    (folder / "config.yaml").write_text(yaml.safe_dump({"model": "base", "seed": 0, "steps": 10, "worlds": WORLDS}))
    return folder


def full_run(folder):
    """Write a run with every part: evaluations, both writers, training, lives of two arms and of a group."""
    summary = demo_summary()
    for name, values in (("shuffled", [0.5, 0.4, 0.3]), ("frozen", [0.5, 0.7, 0.7]), ("oracle", [0.9, 0.9, 0.94])):
        summary["after"]["arms"][name] = asdict(arm(values))
    injected = life(1, [0, 0, 1], contexts=("", INJECTION, "1=up 2=left"), text=INJECTION)
    malformed = life(2, [1, 0, 0])
    malformed[1] = replace(malformed[1], stop="malformed", outcome="expected exactly one <context>")
    rows = [
        *life(0, [0, 1, 1]),
        *injected,
        *malformed,
        *(row for i, won in enumerate(([0, 1, 1], [0, 1, 0], [1, 1, 1])) for row in life(i, won, arm="null")),
    ]
    group = [row for g in (0, 1) for row in life(7, [g, 1, 1], number=g, advantage=0.25 - 0.5 * g, step=1)]
    make_run(folder, summary, rows, steps(30), group)
    crossed = report([0.4, 0.5, 0.6], [0.4, 0.4, 0.4], model="base", writer=str(folder))
    (folder / "base-reads.json").write_text(json.dumps(crossed))
    return folder

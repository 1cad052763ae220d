"""Old names are refused or read with their present ones, and stand nowhere else; the prose is plain."""

import hashlib
import json
import re
import subprocess
from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from codots.cli.app import app
from codots.config.evaluate import EvalConfig
from codots.config.imitate import ImitateConfig
from codots.config.load import keys_of, settings
from codots.config.schema import TrainConfig
from codots.context.rewrite import Rewrite, Trajectory, Turn
from codots.core.renamed import COMMANDS, KEYS, METRICS, new_metric, old_keys, with_new_keys
from codots.domains.registry import make_pack
from codots.report.run import read_run
from codots.rollout.profile import Profile, load_profile
from codots.runs.folder import open_run
from codots.runs.resume import Journal

ROOT = Path(__file__).parents[1]
OLD = [key for key in KEYS if not key.startswith(("stages", "credit.choices", "learner.loss_choices"))]
OLD_RUN = {
    "model": "base",
    "fork": None,
    "domain": "frozen-lake-v1",
    "preset": "easy",
    "size": 3,
    "packs": 2,
    "group": 4,
    "steps": 2,
    "credit": {"preset": "paper", "choices": {"scale": "std"}},
    "learner": {"clip": 1.0, "loss_choices": {"kl_coef": 0.1}},
    "profile": {"cap": 7},
}


def nested(key, value):
    """A dotted key as nested sections; an entry of worlds or stages is in a list."""
    for part in reversed(key.split(".")):
        value = {part: value}
        if part in ("worlds", "stages"):
            value = {part: [value[part]]}
    return value


@pytest.mark.parametrize("key", [*OLD, "credit.choices.baseline", "learner.loss_choices.eps_low"])
def test_an_old_key_of_a_recipe_is_one_line_with_its_present_name(key):
    old = next(name for name in (key, key.rpartition(".")[0]) if name in KEYS)
    for make in (TrainConfig.model_validate, lambda values: TrainConfig(**values)):
        with pytest.raises(ValidationError, match=re.escape(f"{old} is now called {KEYS[old]}")):
            make(nested(key, 1))
    with pytest.raises(ValueError, match=rf"^recipe: {re.escape(old)} is now called {re.escape(KEYS[old])}$"):
        settings(TrainConfig, nested(key, 1), [], "recipe")


def test_old_keys_of_evaluations_and_of_imitation_are_refused_too():
    for kind, values, line in (
        (EvalConfig, {"model": "base", "size": 3}, "eval: size is now called pack_size"),
        (EvalConfig, {"model": "base", "profile": {"cap": 3}}, "profile.cap is now called profile.max_context_chars"),
        (ImitateConfig, {"stages": [{"steps": 1, "packs": 3}]}, "stages.packs is now called stages.packs_per_step"),
        (
            ImitateConfig,
            {"stages": [{"steps": 1, "decay_to": 0}]},
            "stages.decay_to is now called stages.min_lr_ratio",
        ),
    ):
        with pytest.raises(ValueError, match=line):
            settings(kind, values, [], "eval")
    assert settings(EvalConfig, {"model": "base", "packs": 3}, [], "eval").packs == 3  # still its name


def test_every_present_name_exists():
    known = {key.name for kind in (TrainConfig, ImitateConfig, EvalConfig) for key in keys_of(kind)}
    known |= {f"{where}profile.{name}" for name in Profile.__dataclass_fields__ for where in ("", "worlds.")}
    assert set(KEYS.values()) <= known
    assert not set(KEYS) & {key.name for key in keys_of(TrainConfig)}


def test_an_old_recipe_is_read_under_the_present_names():
    new = with_new_keys(OLD_RUN)
    assert not list(old_keys(new))
    config = TrainConfig.model_validate(new)
    assert (config.group_size, config.packs_per_step, config.worlds[0].pack_size) == (4, 2, 3)
    assert (config.credit.scale, config.learner.kl_coef, config.learner.max_grad_norm) == ("std", 0.1, 1.0)
    assert config.profile == {"max_context_chars": 7}
    assert with_new_keys(new) == new
    assert with_new_keys({"worlds": [{"packs": 3}, 5], 1: 2}) == {"worlds": [{"packs_per_step": 3}, 5], 1: 2}


def test_a_model_folder_of_before_keeps_its_profile(tmp_path):
    (tmp_path / "codots.json").write_text('{"style": "compact", "cap": 200, "length": 512}')
    profile = load_profile(tmp_path)
    assert (profile.style, profile.max_context_chars, profile.max_model_len) == ("compact", 200, 512)


def test_a_run_of_before_is_shown_and_not_resumed(tmp_path):
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(OLD_RUN))
    lines = [{"step": t, "reward/0": 0.5, "look/lift": 0.2, "clock/step": 1.0, "clock/live": 0.5} for t in (1, 2)]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    run = read_run(tmp_path)
    assert run.size == 3
    assert set(run.metrics) == {"reward/0", "eval/lift", "time/step", "time/rollout"}
    line = r"is a run of codots 0\.1\.0, .*; resume it with that version, or start .* run=ANOTHER --init-from"
    with pytest.raises(ValueError, match=line), open_run(tmp_path, TrainConfig().to_dict(), resume=True):
        pass


def test_an_evaluation_of_before_is_not_resumed(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"evaluation": {"packs": 2, "size": 3}}\n')
    with pytest.raises(ValueError, match=r"was written by codots 0\.1\.0; finish it with that version"):
        Journal(path, {"packs": 2, "pack_size": 3}).__enter__()


def test_metrics_of_before_have_their_present_names():
    for old, new in (
        ("look/dev", "eval/score"),
        ("look/frozen-lake-v1/own_3", "eval/frozen-lake-v1/own_3"),
        ("clock/live", "time/rollout"),
        ("learner/grad_norm", "train/grad_norm"),
        ("lives/missing", "rollout/failed"),
        ("reward/0", "reward/0"),
    ):
        assert new_metric(old) == new
        assert new_metric(new) == new
    assert len(METRICS) == len(set(METRICS.values()))


@pytest.mark.parametrize("old", COMMANDS)
def test_an_old_command_is_one_line_with_its_present_name(codots, old):
    ended = codots(old)
    assert (ended.code, ended.out) == (2, "")
    assert ended.err.startswith(f"codots: {old} is now called {COMMANDS[old]};")
    assert len(ended.err.splitlines()) == 1
    assert codots(COMMANDS[old], "--help").code == 0


def test_the_shipped_base_reads_the_prompts_it_was_trained_on():
    """No rewording may touch them: they are as in version 0.1.0."""
    texts, strategy = [], Rewrite("keep", 200)
    packs = [make_pack(f"frozen-lake-{version}", "easy", "dev", i, 2) for version in ("v0", "v1") for i in range(3)]
    for task in (task for pack in packs for task in pack.tasks):
        rules, env = task.domain.rules_text(task, "compact"), task.env(style="compact")
        seen, step = env.observe(), env.step("Oc1")
        context = task.domain.oracle_context(task.world, "compact")
        ended = Trajectory(rules, (Turn(seen, "Oc1"),), step.observation, 0.5, step.feedback)
        for prompt in (strategy.solve(rules, context, seen, "compact"), strategy.prompt(ended, context, "compact")):
            texts += [prompt.system or "", prompt.user]
    assert hashlib.sha256("\0".join(texts).encode()).hexdigest()[:16] == "86eeeef5ba670814"


OLD_NAMES = r"""
    patience | look_every | look_packs | record_every | gap_limit | loss_choices | decay_to | micro_tokens | cache_gib
    | credit\.choices | learner\.(clip|warmup|checkpointing) | profile\.(cap|length)
    | (look|clock)/\w+ | lives/(missing|staleness) | codots[ ](plan|reference|tasks) | --from
"""
"""Names of before that are nothing else; a regular expression in verbose form."""
OLD_LINES = r"^\s*(- )?(packs|size|group|keep|fork|clip|warmup|checkpointing|cap|length)\s*:"
"""Old keys that are ordinary words elsewhere, as lines of a recipe."""
ARCHAIC = r"""
    told[ ]of | tells?[ ]of | heed\w* | hangs?[ ]on | there[ ]and[ ]back | lived[ ]before | lent[ ]us | nobody[ ]has
    | (is|are)[ ]no[ ]\w+'s | manieth | thither | hither | whence | dearest | anon | whoever | somebody[ ]else's
"""
"""Phrases that nobody writes today."""
TABLE = ("src/codots/core/renamed.py", "tests/test_words.py")
"""The table of old names, and this test of it."""
GUIDE = ("CONTRIBUTING.md",)
"""Shows sentences of before beside those that replaced them."""


def files(*kinds):
    """Tracked text files of these kinds, but for the table of old names."""
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    return [name for name in listed if name.endswith(kinds) and name not in TABLE and (ROOT / name).is_file()]


def words(pattern):
    """Compile a verbose pattern for whole words."""
    return re.compile(rf"(?<![\w.])(?:{pattern})(?!\w)", re.I | re.X)


def found(pattern, names):
    """Return the lines that match, with their places."""
    lines = ((name, number, line) for name in names for number, line in enumerate(text_of(name).splitlines(), 1))
    return [f"{name}:{number}: {line.strip()}" for name, number, line in lines if words(pattern).search(line)]


def text_of(name):
    return (ROOT / name).read_text(encoding="utf-8")


def test_old_names_stand_in_their_table_alone():
    names = files(".py", ".md", ".yaml", ".yml", ".jinja", ".js", ".sh", "Makefile", ".toml", ".cff")
    assert len(names) > 300
    assert found(OLD_NAMES, names) == []
    # where `packs` is a key of codots eval
    suites = ("recipes/eval/", "recipes/qwen3-8b/eval.yaml", "docs/evaluation.md")
    recipes = [name for name in names if name.endswith((".yaml", ".md")) and not name.startswith(suites)]
    assert [name for name in recipes if re.search(OLD_LINES, text_of(name), re.M)] == []


def test_no_archaic_phrase_is_left_in_source_and_docs():
    assert found(ARCHAIC, [name for name in files(".py", ".md", ".jinja", ".js", ".sh") if name not in GUIDE]) == []


NAMES = [command.name or command.callback.__name__ for command in app.registered_commands]


@pytest.mark.parametrize("command", [None, *NAMES])
def test_help_has_neither_old_names_nor_archaic_phrases(codots, command):
    ended = codots(*([command] if command else []), "--help")
    assert ended.code == 0
    for pattern in (OLD_NAMES, ARCHAIC):
        assert not words(pattern).search(ended.out)

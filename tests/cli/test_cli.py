"""Every command reports its result; an error is one line, changes no file and exits with code 2."""

import json
import os
import pkgutil
import re
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from inspect import Parameter, signature
from pathlib import Path

import pytest
import yaml

from codots.cli import runs, worlds
from codots.cli.watch import Stopped
from codots.config.evaluate import EvalConfig
from codots.domains.check import Checked
from codots.domains.contract import rollout
from codots.domains.registry import domain_ids, get_domain, make_pack, register
from codots.model import tiny
from codots.rollout.profile import load_profile
from codots.rollout.records import load_rollouts
from codots.runs.checkpoint import checkpoints, saved_steps
from codots.training.train import train
from tests.random_model import Flaky, make_random_model

RECIPE = {
    "preset": "tiny",
    "pack_size": 2,
    "steps": 3,
    "packs_per_step": 2,
    "group_size": 2,
    "workers": 1,
    "save_every": 1,
    "eval_every": 0,
    "run": "run",
    "model": "model",
}
EVAL = {"model": "model", "preset": "tiny", "packs": 2, "pack_size": 2, "workers": 1, "arms": "own,null"}
IMITATE = {"run": "run", "new": {"width": 16, "layers": 1, "heads": 2}, "workers": 1, "eval_packs": 2}
IMITATE |= {"profile": {"style": "compact", "solve_tokens": 4, "update_tokens": 14}}
IMITATE |= {"stages": [{"steps": 2, "packs_per_step": 2, "preset": "tiny", "pack_size": 2, "teacher": "skilled"}]}
COMMAND = [sys.executable, "-m", "codots"]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return make_random_model(tmp_path_factory.mktemp("base"))


@pytest.fixture
def home(base, tmp_path, monkeypatch):
    """A working folder with a model and recipes."""
    shutil.copytree(base, tmp_path / "model")
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(RECIPE))
    (tmp_path / "eval.yaml").write_text(yaml.safe_dump(EVAL))
    (tmp_path / "imitate.yaml").write_text(yaml.safe_dump(IMITATE))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def codots(home, codots):
    """Run the command in that folder."""
    return codots


def test_a_run_without_lives_exits_with_code_1(codots, registry):
    domain = register(Flaky())
    domain.down = range(100)
    ended = codots("train", "recipe.yaml", "domain=flaky-v0", "preset=few", "run=gone")
    assert ended.code == 1
    assert (
        ended.err.splitlines()[-1]
        == "codots: every life of step 1 failed; the first error: ConnectionError: the environment is down"
    )


def tree(folder):
    return {path: path.read_bytes() if path.is_file() else None for path in Path(folder).rglob("*")}


@pytest.fixture
def refused(codots, home):
    """Run a command that must fail with this one line and change no file."""

    def run(line, *args):
        before = tree(home)
        ended = codots(*args)
        assert ended.code == 2
        assert ended.out == ""
        assert len(ended.err.splitlines()) == 1
        assert ended.err.startswith("codots: ")
        assert re.search(line, ended.err)
        assert tree(home) == before

    return run


GREEDY = r"^codots: profile\.temperature is 0, which makes all lives of a group alike; expected more, such as 1$"


@pytest.mark.parametrize(
    ("line", "args"),
    [
        (r"cannot read the recipe nowhere\.yaml", ["train", "nowhere.yaml"]),
        ("unknown key 'stepz'.*nearest is 'steps'", ["train", "recipe.yaml", "stepz=3"]),
        ("unknown key 'learner.lrr'.*nearest is 'learner.lr'", ["train", "recipe.yaml", "learner.lrr=3"]),
        ("unknown preset of frozen-lake-v1 'eazy'.*nearest is 'easy'", ["train", "recipe.yaml", "preset=eazy"]),
        ("unknown domain 'frozen-lake-v7'.*nearest is", ["train", "recipe.yaml", "domain=frozen-lake-v7"]),
        ("steps: .*greater than or equal to 1, got 0", ["train", "recipe.yaml", "steps=0"]),
        ("'steps' is not a change; expected key=value", ["train", "recipe.yaml", "steps"]),
        (r"imitate\.yaml is a file for `codots imitate`: it has stages", ["train", "imitate.yaml"]),
        (r"cannot read the recipe recipee\.yaml: No such.*nearest is 'recipe\.yaml'", ["train", "recipee.yaml"]),
        ("unknown choice of contexts 'mine'.*nearest is", ["train", "recipe.yaml", "contexts=mine"]),
        ("unknown choice of loggers.0 'wandbb'.*nearest is 'wandb'", ["train", "recipe.yaml", "loggers=[wandbb]"]),
        ("no model at 'modle'.*nearest is 'model'", ["train", "recipe.yaml", "model=modle"]),
        (GREEDY, ["train", "recipe.yaml", "profile.temperature=0"]),
        (GREEDY, ["train", "recipe.yaml", "profile.temperature=0.0", "--dry-run"]),
        (GREEDY, ["estimate", "recipe.yaml", "profile.temperature=0"]),
        (GREEDY, ["demo", "recipe.yaml", "profile.temperature=0", "run=.", "--packs=2"]),
        ("no model at 'bse'.*nearest is 'base'", ["eval", "bse"]),
        ("no checkpoint at 'modle'.*nearest is 'model'", ["train", "recipe.yaml", "--init-from", "modle"]),
        ("no checkpoint at 'model'", ["train", "recipe.yaml", "--init-from", "model", "--dry-run"]),
        ("no run to resume at modell.*nearest is 'model'", ["train", "recipe.yaml", "run=modell", "--resume"]),
        (r"No such command 'trane'.*'train'.*; see codots --help", ["trane"]),
        (r"No such option: --resum .*--resume.*; see codots train --help", ["train", "recipe.yaml", "--resum"]),
        (r"No such option: --jsn .*--json.*; see codots eval --help", ["eval", "model", "--jsn"]),
        ("unknown key 'arm'.*nearest is 'arms'", ["eval", "model", "arm=own"]),
        ("unknown key 'rowz'.*nearest is 'rows'", ["eval", "model", "rowz=rows.jsonl", "rows=r.jsonl"]),
        ("'arms' is not a change; expected key=value", ["eval", "model", "arms"]),
        ("'arms=' is not a change; expected key=value", ["eval", "model", "arms="]),
        (r"Missing argument 'recipe'; see codots train --help", ["train"]),
        ("eval: packs: .*greater than or equal to 2, got 1", ["eval", "model", "packs=1"]),
        ("eval: packs: .*valid integer.*, got 'many'", ["eval", "model", "packs=many"]),
        (
            r"'--packs': .*greater than or equal to 2, got '1'; see codots baselines --help",
            ["baselines", "x", "--packs=1"],
        ),
        (r"'--packs': .*valid integer.*, got 'many'", ["baselines", "frozen-lake-v1", "--packs", "many"]),
        ("temperature: .*greater than or equal to 0, got -1", ["eval", "model", "temperature=-1"]),
        ("split: expected train, dev, test, or another word, got '--json'", ["eval", "model", "split=--json"]),
        (
            "split: expected train, dev, test, or a word unlike them; the nearest is 'test', got 'tset'",
            ["eval", "model", "split=tset", "rows=rows.jsonl"],
        ),
        (
            r"'--split': expected train, dev, test, or another word, got '--json'",
            ["baselines", "frozen-lake-v1", "--split", "--json"],
        ),
        (
            r"'--split': expected train, dev, test, or a word unlike them; the nearest is 'test', got 'tset'",
            ["baselines", "frozen-lake-v1", "--split", "tset"],
        ),
        (
            r"unknown domain 'mine:Mine'.*\(your own is found by its id once it is installed with an entry point\)",
            ["eval", "base", "domain=mine:Mine"],
        ),
        (r"'--index': .*greater than or equal to 0, got '-1'", ["play", "frozen-lake-v1", "--index", "-1"]),
        ("unknown key 'stepz'", ["doctor", "recipe.yaml", "stepz=3"]),
        ("unknown key 'stepz'", ["train", "recipe.yaml", "stepz=3", "--dry-run"]),
        ("no model at 'nowhere'", ["train", "recipe.yaml", "model=nowhere"]),
        ("no model at 'nowhere'", ["train", "recipe.yaml", "model=nowhere", "--dry-run"]),
        ("no run to resume at run", ["train", "recipe.yaml", "--resume"]),
        ("is a file for `codots train`: it has group_size", ["imitate", "recipe.yaml"]),
        ("unknown preset of frozen-lake-v1 'eazy'", ["imitate", "imitate.yaml", "stages.0.preset=eazy"]),
        ("cannot be split into 3 heads", ["imitate", "imitate.yaml", "new.heads=3"]),
        (
            "noise.right: right is 2|right is 2; expected a probability",
            ["imitate", "imitate.yaml", "stages.0.noise.right=2"],
        ),
        ("unknown choice of .*teacher 'skiled'; .*'skilled'", ["imitate", "imitate.yaml", "stages.0.teacher=skiled"]),
        (
            "the model uses prompt style 'natural'|has natural",
            ["imitate", "imitate.yaml", "stages.0.domain=terminal-v1", "stages.0.preset=easy"],
        ),
        ("no model at 'modle'.*nearest is 'model'", ["imitate", "imitate.yaml", "model=modle", "new=null"]),
        ("pretrain is now called imitate", ["pretrain", "imitate.yaml"]),
        ("unknown arm 'shufled'.*nearest is 'shuffled'", ["eval", "model", "arms=own,shufled", "rows=rows.jsonl"]),
        ("arms: .*at least 1 item", ["eval", "model", "arms=','"]),
        ("unknown preset of frozen-lake-v1 'eazy'.*nearest is 'easy'", ["eval", "model", "preset=eazy"]),
        ("unknown domain 'lake'.*nearest is", ["eval", "model", "domain=lake"]),
        ("unknown device 'cudda'.*nearest is 'cuda'", ["eval", "model", "device=cudda"]),
        (r"cannot read the recipe evall\.yaml: No such.*nearest is 'eval\.yaml'", ["eval", "evall.yaml"]),
        (r"eval\.yaml: unknown arm 'nul'.*nearest is 'null'", ["eval", "eval.yaml", "arms=nul"]),
        (r"recipe\.yaml is a file for `codots train`: it has steps", ["eval", "recipe.yaml"]),
        ("no model at 'nowhere'", ["eval", "nowhere"]),
        ("no model at 'nowhere'", ["eval", "model", "writer=nowhere", "preset=tiny", "workers=1"]),
        ("there is no folder gone", ["eval", "model", "rows=gone/rows.jsonl"]),
        ("there is no folder modl; the nearest is 'model'", ["eval", "model", "rows=modl/rows.jsonl"]),
        ("cannot write model: it is a folder", ["eval", "model", "rows=model"]),
        ("unknown domain 'lake'", ["baselines", "lake"]),
        ("unknown preset of frozen-lake-v1 'eazy'", ["baselines", "frozen-lake-v1", "--preset", "eazy", "--json"]),
        ("unknown domain 'lake'", ["play", "lake"]),
        ("unknown preset of frozen-lake-v1 'eazy'", ["play", "frozen-lake-v1", "--preset", "eazy"]),
        ("unknown policy 'informd'.*nearest is 'informed'", ["play", "frozen-lake-v1", "--policy", "informd"]),
        ("cannot import 'nowhere'.*expected an id, or module:Class", ["play", "nowhere:Lake"]),
        ("unknown domain of tests.toy 'Gues'.*nearest is 'Guess'", ["baselines", "tests.toy:Gues"]),
        ("expected one or more ids, module:Class, or --all; see codots check --help", ["check"]),
        ("expected one or more ids, module:Class, or --all", ["check", "frozen-lake-v1", "--all"]),
        ("unknown domain 'lake'", ["check", "frozen-lake-v1", "lake"]),
        (r"'--packs': .*greater than or equal to 2, got '1'", ["check", "frozen-lake-v1", "--packs", "1"]),
        (r"Missing option '--out'; see codots export --help", ["export", "frozen-lake-v1"]),
        (r"unknown ending '\.parque'.*nearest is '\.parquet'", ["export", "frozen-lake-v1", "--out", "x.parque"]),
        (r"unknown ending ''; expected one of \.jsonl, \.parquet", ["export", "frozen-lake-v1", "--out", "rows"]),
        ("there is no folder modl; the nearest is 'model'", ["export", "frozen-lake-v1", "--out", "modl/x.jsonl"]),
        ("unknown domain 'lake'", ["export", "lake", "--out", "x.jsonl"]),
        ("unknown preset of frozen-lake-v1 'eazy'", ["export", "frozen-lake-v1", "--preset=eazy", "--out", "x.jsonl"]),
        (
            "unknown prompt style of learn2ask-v1 'compact'",
            ["export", "learn2ask-v1", "--style=compact", "--out=x.jsonl"],
        ),
        ("learn2ask-v0 logs cannot be drawn yet: set ", ["export", "learn2ask-v0", "--preset=logs", "--out=x.jsonl"]),
        ("unknown key 'stepz'", ["demo", "recipe.yaml", "stepz=3"]),
        ("no run at nowhere; expected a folder with config.yaml", ["report", "nowhere"]),
        ("no run at model", ["report", "model", "--figures"]),
        ("no folder nowhere", ["view", "nowhere"]),
    ],
)
def test_an_invalid_command_is_one_line(refused, line, args):
    refused(line, *args)


MODEL_COMMANDS = pytest.mark.parametrize(
    "command", [["train", "recipe.yaml"], ["eval", "model", "preset=tiny", "workers=1"]], ids=lambda c: c[0]
)


@MODEL_COMMANDS
def test_a_model_folder_without_weights_is_one_line(refused, home, command):
    (home / "model" / "model.safetensors").unlink()
    refused("model has no weights: expected a .safetensors file", *command)


@MODEL_COMMANDS
def test_a_foreign_tokenizer_is_one_line(refused, home, tokenizer, command):
    from codots.model.tiny import make_tokenizer

    foreign = make_tokenizer()
    foreign.add_tokens(["another", "word"])
    foreign.save_pretrained(home / "model")
    refused(f"model has a foreign tokenizer: it has {len(tokenizer) + 2} ids, the model {len(tokenizer)}", *command)


@MODEL_COMMANDS
def test_missing_weights_are_one_line(refused, home, command):
    from safetensors.torch import load_file, save_file

    weights = load_file(home / "model" / "model.safetensors")
    del weights["model.norm.weight"]
    save_file(weights, home / "model" / "model.safetensors", metadata={"format": "pt"})
    refused(r"lacks 1 of the model's weights, such as model\.norm\.weight", *command)


@MODEL_COMMANDS
def test_an_invalid_profile_is_one_line(refused, home, command):
    (home / "model" / "codots.json").write_text('{"style": "loud"}')
    refused("codots.json is not a profile: unknown prompt style 'loud'", *command)


SMALL = [
    ["train", "recipe.yaml", "profile.max_model_len=10"],
    ["train", "recipe.yaml", "profile.max_model_len=10", "--dry-run"],
    ["estimate", "recipe.yaml", "profile.max_model_len=10"],
    ["eval", "model", "preset=tiny", "workers=1", "rows=rows.jsonl"],
    ["play", "frozen-lake-v1", "--preset=tiny", "--model", "model"],
]


@pytest.mark.parametrize("command", SMALL, ids=" ".join)
def test_a_context_window_too_small_for_the_first_prompt_is_refused_alike(refused, home, command):
    load_profile(home / "model")
    profile = json.loads((home / "model" / "codots.json").read_text()) | {"max_model_len": 10}
    (home / "model" / "codots.json").write_text(json.dumps(profile))
    refused(
        r"the first prompt of frozen-lake-v1 has \d\d ids, and the model may read 10; raise max_model_len", *command
    )


def test_a_model_with_too_few_positions_is_refused_alike(codots, refused, home, tokenizer):
    shutil.rmtree(home / "model")
    tiny.save(tiny.make_model(tokenizer, width=8, layers=1, heads=1, seed=0, length=32), tokenizer, home / "model")
    load_profile(home / "model").save(home / "model")
    line = r"has \d\d\d+ ids, and the model may read 32; use a model with more positions or style: compact"
    for command in (["train", "recipe.yaml"], ["train", "recipe.yaml", "--dry-run"], SMALL[3], SMALL[4]):
        refused(line, *command)
    found = codots("doctor", "recipe.yaml")
    assert found.code == 1
    assert re.search(line.replace(" ", r"[\s│]+"), found.out)


def test_training_saves_a_model(codots, home):
    ended = codots("train", "recipe.yaml")
    assert (ended.code, ended.out) == (0, "final model: run/model; run folder: run\n")
    assert load_profile(home / "run" / "model").style == "compact"
    assert re.search(r"^step 3/3  reward by position \d\.\d\d \d\.\d\d", ended.err, re.M)


def test_an_invalid_value_is_one_line(refused):
    for change, line in (
        ("init_from=''", "init_from: String should have at least 1 character"),
        ("stage_timeout=1e12", "stage_timeout: .*less than or equal to 100000000"),
        ("kv_cache_gib=1e308", "kv_cache_gib: .*less than or equal to 1000000"),
        ("profile.solve_tokens=true", "solve_tokens is True; expected a number of at least 1"),
    ):
        refused(line, "train", "recipe.yaml", change)
    refused("stage_timeout: .*finite number, got inf", "eval", "base", "stage_timeout=.inf")


def test_a_path_that_is_no_folder_or_regular_file_is_one_line(refused, home):
    os.mkfifo(home / "pipe")
    refused("cannot write pipe: it is not a regular file", "eval", "base", "packs=2", "rows=pipe")
    refused("cannot create a run at recipe.yaml/x: recipe.yaml is a file", "train", "recipe.yaml", "run=recipe.yaml/x")


def test_another_runs_folder_is_one_line(codots, refused):
    codots("train", "recipe.yaml", "steps=1")
    refused("run already contains a run; add --resume to continue it", "train", "recipe.yaml", "steps=1")
    refused("run is another run: there seed is 0, here 5", "train", "recipe.yaml", "steps=1", "seed=5", "--resume")
    refused("run is another run: there steps is 1, here 3", "train", "recipe.yaml", "--resume")
    refused("run already contains a run; add --resume to continue it, or give", "imitate", "imitate.yaml")


def test_a_corrupt_checkpoint_is_one_line_and_the_run_continues(codots, refused, home, caplog):
    codots("train", "recipe.yaml")
    last = checkpoints(home / "run")[-1]
    (last / "state.json").write_text("{")
    ended = codots("train", "recipe.yaml", "--resume")
    warning = (
        "step-000003 is corrupt: state.json cannot be read; "
        "it is renamed to corrupt-step-000003, and the run continues from step-000002"
    )
    assert ended.code == 0
    assert [warning in message for message in caplog.messages] == [True]
    for folder in checkpoints(home / "run"):
        (folder / "state.json").write_text("{")
    refused("no earlier checkpoint is intact; give run=ANOTHER to start again", "train", "recipe.yaml", "--resume")


def test_a_run_that_stops_itself_is_one_line_and_code_1(codots, home):
    ended = codots("train", "recipe.yaml", "max_logprob_gap=1e-12")
    assert ended.code == 1
    (line,) = [line for line in ended.err.splitlines() if line.startswith("codots: ")]
    assert re.search(
        "step 1 was stopped: sampler and learner disagree.* its lives and samples are in run/stopped", line
    )
    assert codots("train", "recipe.yaml", "--resume").code == 0


def test_a_run_can_start_from_another_run(codots, home):
    codots("train", "recipe.yaml")
    ended = codots("train", "recipe.yaml", "run=fork", "seed=1", "--init-from", "run", "eval_every=3", "eval_packs=2")
    assert ended.code == 0
    assert re.search(
        r"run folder: fork; best checkpoint \(dev score -?\d\.\d{3}\): fork/checkpoints/step-000003\n", ended.out
    )
    assert json.loads((home / "fork" / "origin.json").read_text())["step"] == 3
    assert yaml.safe_load((home / "fork" / "config.yaml").read_text())["init_from"] == "run"


def test_no_secret_is_in_an_error(codots, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_0123456789")
    ended = codots("eval", "https://me:word@host/hf_0123456789")
    assert "no model at 'https:/***" in ended.err or "<HF_TOKEN>" in ended.err
    assert not re.search("hf_0123456789|me:word", ended.err)


def test_the_doctor_prints_a_table_or_json_and_exits_with_its_verdict(codots, home):
    found = strict(codots("doctor", "recipe.yaml", "--json").out)
    assert found["fit"] is True
    assert {"model", "disk", "torch"} <= {finding["what"] for finding in found["findings"]}
    (greedy,) = [
        one
        for one in strict(codots("doctor", "recipe.yaml", "profile.temperature=0", "--json").out)["findings"]
        if one["must"]
    ]
    assert re.search(GREEDY, f"codots: {greedy['change']}")
    (home / "model" / "model.safetensors").unlink()
    ended = codots("doctor", "recipe.yaml")
    assert ended.code == 1
    assert "has no weights" in ended.out
    assert "must: " in ended.out


def test_a_dry_run_writes_nothing(codots, home):
    before = tree(home)
    ended = codots("train", "recipe.yaml", "group_size=8", "--dry-run")
    assert (ended.code, ended.err) == (0, "")
    assert tree(home) == before
    assert yaml.safe_load(ended.out)["group_size"] == 8
    assert "# a step: 2 packs x 8 lives = 16 lives, 48 episodes" in ended.out
    assert "# 3 steps from 'model' in style 'compact'; nothing was run" in ended.out


def test_a_dry_run_lists_every_entry_of_worlds_and_a_report_shows_them(codots, home):
    mixed = RECIPE | {
        "worlds": [{"preset": "tiny", "packs_per_step": 2, "pack_size": 2}, {"preset": "easy", "packs_per_step": 4}]
    }
    mixed = {key: value for key, value in mixed.items() if key not in ("preset", "pack_size", "packs_per_step")}
    (home / "mixed.yaml").write_text(yaml.safe_dump(mixed))
    ended = codots("train", "mixed.yaml", "worlds.0.packs_per_step=3", "--dry-run")
    assert (ended.code, ended.err) == (0, "")
    assert "# a step: frozen-lake-v1 tiny: 3 packs x 2 lives = 6 lives, 18 episodes" in ended.out
    assert "# a step: frozen-lake-v1 easy: 4 packs x 2 lives = 8 lives, 56 episodes" in ended.out
    (home / "full.yaml").write_text(ended.out)
    assert codots("train", "full.yaml", "--dry-run").out == ended.out
    assert codots("train", "mixed.yaml", "steps=1", "eval_every=1", "eval_packs=2").code == 0
    assert codots("train", "run/config.yaml", "--resume").code == 0
    assert codots("report", "run").out == "open run/report.html\n"
    assert "Reward while training, frozen-lake-v1:easy" in (home / "run" / "report.html").read_text()
    refusal = codots("demo", "mixed.yaml", "--packs", "2")
    assert (refusal.code, refusal.err) == (2, "codots: a demo trains on one domain; the recipe has 2 worlds\n")


def test_what_a_dry_run_prints_is_a_recipe(codots, home):
    (home / "full.yaml").write_text(codots("train", "recipe.yaml", "--dry-run").out)
    assert codots("train", "full.yaml", "--dry-run").out == codots("train", "recipe.yaml", "--dry-run").out


def strict(text):
    """Parse strict JSON, which has no NaN."""
    return json.loads(text, parse_constant=lambda word: pytest.fail(f"{word} is not JSON"))


def test_an_evaluation_as_json_prints_only_json(codots, home):
    args = ["model", "preset=tiny", "packs=2", "pack_size=2", "workers=1", "arms=own,null,oracle"]
    found = strict(codots("eval", *args, "--json", "rows=rows.jsonl").out)
    assert list(found["arms"]) == ["own", "null", "oracle"]
    assert found["arms"]["own"]["reward"][0] == found["arms"]["null"]["reward"][0]
    assert len(load_rollouts(home / "rows.jsonl")) == 2 * (3 + 2 + 2)


def test_an_evaluation_is_a_table(codots):
    ended = codots("eval", "model", "preset=tiny", "packs=3", "pack_size=2", "workers=1", "temperature=.5")
    assert ended.code == 0
    assert "model on frozen-lake-v1 tiny dev, 3 packs at temperature 0.5" in " ".join(ended.out.split())
    for label in ("own reward", "null success", "lift", "share", "floor", "bayes", "ceiling", "position 1"):
        assert label in ended.out


def test_a_settings_file_equals_arguments_and_later_arguments_override_it(codots, home):
    changes = [f"{key}={value}" for key, value in EVAL.items() if key != "model"]
    by_arguments = codots("eval", "model", *changes, "--json").out
    assert codots("eval", "eval.yaml", "--json").out == by_arguments
    assert (strict(by_arguments)["n_packs"], list(strict(by_arguments)["arms"])) == (2, ["own", "null"])
    changed = strict(codots("eval", "eval.yaml", "packs=3", "arms=null", "--json").out)
    assert (changed["n_packs"], list(changed["arms"])) == (3, ["null"])
    listed = yaml.safe_dump(EVAL | {"arms": ["own", "null"]}).replace(
        "'null'", "null"
    )  # the usual spelling, without quotes
    (home / "eval.yml").write_text(listed)
    assert codots("eval", "eval.yml", "--json").out == by_arguments
    (home / "eval.yml").write_text("preset: tiny\n")
    missing = codots("eval", "eval.yml")
    assert (missing.code, missing.err) == (2, "codots: eval.yml: model: Field required\n")


def test_a_run_and_a_checkpoint_can_be_evaluated(codots, home):
    codots("train", "recipe.yaml")
    args = ["preset=tiny", "packs=2", "pack_size=2", "workers=1", "--json"]
    found = [strict(codots("eval", name, *args).out) for name in ("run", "run/checkpoints/step-000003")]
    assert found[0]["arms"] == found[1]["arms"]


def test_baselines_are_a_table_or_json(codots):
    args = ["frozen-lake-v1", "--preset", "tiny", "--packs", "4", "--pack-size", "2"]
    found = strict(codots("baselines", *args, "--json").out)
    assert found["informed"][0] > found["random"][0]
    table = codots("baselines", *args).out
    assert all(label in table for label in ("random", "informed", "bayes is exact", f"{found['bayes'][1]:.3f}"))


def test_a_tiny_model_is_made_by_imitation(codots, home):
    planned = codots("imitate", "imitate.yaml", "--dry-run")
    assert "# stage 1: 2 steps of 2 lives of teachers" in planned.out
    assert not (home / "run").exists()
    ended = codots("imitate", "imitate.yaml")
    assert (ended.code, ended.out) == (0, "final model: run/model; run folder: run\n")
    assert "step 2/2  loss " in ended.err
    assert "malformed " in ended.err
    assert load_profile(home / "run" / "model").style == "compact"
    assert codots("imitate", "imitate.yaml", "--resume").code == 0


def test_a_demo_writes_a_report_and_renames_an_earlier_run(codots, refused, home):
    ended = codots("demo", "recipe.yaml", "--packs", "2")
    assert ended.code == 0
    assert strict((home / "run" / "summary.json").read_text())["after"]["share_ci95"][0] == [None, None]
    files = {"summary.json", "report.html", "model", "before.jsonl", "after.jsonl", "metrics.jsonl"}
    assert {path.name for path in (home / "run").iterdir()} >= files
    assert (home / "run" / "report.html").stat().st_size > 1000
    first = (home / "run" / "summary.json").read_bytes()
    refused("no model at 'nowhere'", "demo", "recipe.yaml", "model=nowhere")
    assert codots("demo", "recipe.yaml", "seed=1", "--packs", "3").code == 0
    assert (home / "run-1" / "summary.json").read_bytes() == first
    assert (home / "run" / "summary.json").read_bytes() != first


def test_a_demo_evaluates_with_the_profile_that_it_trains_with(codots, home):
    changes = ["profile.temperature=0.7", "profile.max_context_chars=100", "steps=1"]
    assert codots("demo", "recipe.yaml", *changes, "--packs", "2").code == 0
    found = json.loads((home / "run" / "summary.json").read_text())
    assert (found["before"]["temperature"], found["after"]["temperature"]) == (0.7, 0.7)
    head = json.loads((home / "run" / "before.jsonl").read_text().splitlines()[0])["evaluation"]
    assert head["profile"]["max_context_chars"] == 100


@pytest.mark.parametrize("stage", ["training", "evaluation"])
def test_a_stopped_demo_resumes_to_the_same_result(codots, home, monkeypatch, stage):
    def demo_rewards(*options):
        assert codots("demo", "recipe.yaml", "--packs", "2", *options).code == 0
        found = json.loads((home / "run" / "summary.json").read_text())
        return [found[when]["arms"]["own"]["reward"] for when in ("before", "after")]

    expected = demo_rewards()
    with monkeypatch.context() as patch:
        if stage == "training":
            patch.setattr("codots.cli.demo.run_training", stopped_training)
        else:
            patch.setattr("codots.cli.demo.evaluate", press_ctrl_c)
        ended = codots("demo", "recipe.yaml", "--packs", "2")
    assert ended.code == 130
    assert (home / "run-1" / "summary.json").exists()
    assert not (home / "run" / "summary.json").exists()
    assert demo_rewards("--resume") == expected


def stopped_training(config, *, resume):
    """Train one step, and stop as at Ctrl-C."""
    steps = train(config, resume=resume)
    next(steps)
    steps.close()
    return Stopped(1, 130)


def press_ctrl_c(*_, **__):
    raise KeyboardInterrupt


@pytest.mark.parametrize("option", [[], ["--imitate"], ["--eval"]])
def test_every_key_of_a_recipe_is_listed(codots, option):
    keys = {key["name"]: key for key in strict(codots("config", *option, "--json").out)}
    assert keys["workers"]["default"] == 2
    shown = codots("config", *option).out
    assert all(name in shown for name in keys)


def test_every_setting_of_an_evaluation_is_listed_with_its_default(codots):
    keys = {key["name"]: key for key in strict(codots("config", "--eval", "--json").out)}
    fields = EvalConfig.model_fields
    assert list(keys) == list(fields)
    assert {name: key["default"] for name, key in keys.items() if name != "model"} == EvalConfig(
        model="base"
    ).model_dump(mode="json", exclude={"model"})
    assert all(key["meaning"].endswith(".") for key in keys.values())
    both = codots("config", "--eval", "--imitate")
    assert (both.code, both.out, len(both.err.splitlines())) == (2, "", 1)
    assert "--imitate or --eval, not both" in both.err


def test_a_report_prints_its_path_and_includes_evaluations_in_the_run_folder(codots, home):
    assert codots("train", "recipe.yaml").code == 0
    evaluation = ["eval", "run", "preset=tiny", "pack_size=2", "packs=2", "workers=1"]
    (home / "run" / "mine.json").write_text(codots(*evaluation, "--json", "rows=run/mine.jsonl").out)
    ended = codots("report", "run", "--figures")
    assert (ended.code, ended.out) == (0, "open run/report.html, and 22 figures in run/figures\n")
    page = (home / "run" / "report.html").read_text()
    assert "the trained model reached a reward of" in page
    assert '"where":["mine","step 1"]' in page
    assert codots("report", "run", "run", "--out", "two.html").out == "open two.html\n"
    assert "Runs side by side" in (home / "two.html").read_text()


def test_a_demo_never_renames_a_run_in_progress(codots, home):
    from codots.core.files import claimed

    (home / "run").mkdir()
    with claimed(home / "run"):
        ended = codots("demo", "recipe.yaml", "--packs", "2")
    assert ended.code == 2
    assert "run is in use by process" in ended.err
    assert (home / "run").is_dir()
    assert not (home / "run-1").exists()


def test_a_demo_stopped_before_training_changes_no_file(codots, home, monkeypatch):
    before = tree(home)
    monkeypatch.setattr("codots.cli.demo.run_training", press_ctrl_c)
    assert codots("demo", "recipe.yaml", "--packs", "2").code == 130
    assert tree(home) == before


def informed_input(pack):
    """Return the action codes of the informed policy and its reward, for each task."""
    policy = pack.domain.policy("informed", pack.world)
    lives = []
    for task in pack.tasks:
        env, codes, done = task.env(), [], False
        while not done:
            text = policy.act(env.view)
            codes.append(text.partition("<action>")[2].partition("<")[0])
            step = env.step(text)
            done = step.done
        lives.append((codes, step.reward))
    return lives


def test_a_pack_is_played_from_typed_input(codots):
    pack = make_pack("frozen-lake-v1", "tiny", "test", 3, 2)
    (first, one), (second, two) = informed_input(pack)
    ended = codots(
        "play", "frozen-lake-v1", "--preset", "tiny", "--split", "test", "--index", "3", "--pack-size", "2",
        typed="\n".join([*first, "code 2 goes up", " code 3: down", "", *second]) + "\n",
    )  # fmt: skip
    assert ended.code == 0
    assert ended.out.endswith(f"rewards: {one:.2f} {two:.2f}\n")
    assert "your notes: none" in ended.out
    assert "your notes: code 2 goes up\n code 3: down\n" in ended.out
    assert pack.tasks[0].env().observe() in ended.out
    assert ended.err == ""


def test_an_invalid_action_loses_the_task_and_empty_notes_stay_empty(codots):
    ended = codots(
        "play", "frozen-lake-v1", "--preset", "tiny", "--pack-size", "2", typed="north\n\n<action>9</action>\n"
    )
    assert ended.code == 0
    assert ended.out.endswith("rewards: 0.00 0.00\n")
    assert ended.out.count("your notes: none") == 2


def test_the_length_limit_of_notes_holds_for_a_person_too(codots):
    long = "\n".join(["9 9 9"] * 800)
    ended = codots(
        "play", "frozen-lake-v1", "--preset", "tiny", "--pack-size", "3", typed=f"x\nmine\n\nx\n{long}\n\nx\n"
    )
    assert ended.code == 0
    assert "the notes are unchanged: the context has 4799 characters, the cap is 4000" in ended.out
    assert ended.out.count("your notes: mine") == 2


@pytest.mark.parametrize("typed", ["", "1", "x\nhalf a note"])
def test_input_that_ends_early_stops_play(codots, typed):
    ended = codots("play", "frozen-lake-v1", "--preset", "tiny", typed=typed)
    assert (ended.code, ended.err) == (1, "codots: stopped: the input ended\n")


def test_ctrl_c_stops_play(codots, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("codots.cli.play.read_reply", interrupted)
    ended = codots("play", "frozen-lake-v1", "--preset", "tiny")
    assert (ended.code, ended.err) == (130, "codots: stopped\n")


@pytest.mark.parametrize("policy", ["random", "bayes", "informed"])
def test_a_policy_is_shown_turn_by_turn(codots, policy):
    pack = make_pack("frozen-lake-v1", "tiny", "dev", 0, 4)
    ended = codots("play", "frozen-lake-v1", "--preset", "tiny", "--policy", policy)
    assert (ended.code, ended.err) == (0, "")
    for played in rollout(pack, policy, "natural"):
        assert played.opening in ended.out
        for text, step in played.turns:
            assert f"\n> {text}\n" in ended.out
            assert step.observation in ended.out
            assert f"{step.feedback} reward {step.reward:.2f}" in ended.out or not step.done
    rewards = " ".join(f"{played.reward:.2f}" for played in rollout(pack, policy, "natural"))
    ceilings = " ".join(f"{pack.domain.ceiling(task):.2f}" for task in pack.tasks)
    assert ended.out.endswith(f"ceiling: {ceilings}\nrewards: {rewards}\n")
    assert ended.out.count("the rules are the same") == 3


@pytest.mark.parametrize("id", domain_ids())
def test_every_domain_can_be_watched(codots, id):
    ended = codots("play", id, "--policy", "informed", "--pack-size", "1")
    assert (ended.code, ended.err) == (0, "")
    assert re.search(r"rewards: \d\.\d\d\n$", ended.out)


def test_a_drawing_is_printed_if_the_observation_does_not_contain_it(codots):
    ended = codots("play", "alchemy-v1", "--policy", "informed", "--pack-size", "1", "--preset", "tiny")
    task = make_pack("alchemy-v1", "tiny", "dev", 0, 1).tasks[0]
    assert task.domain.draw(task.env().view) in ended.out


def test_a_check_reports_every_domain_and_skipped_presets(codots):
    ended = codots("check", "learn2ask-v1", "learn2ask-v0", "--packs", "4", "--workers", "1")
    assert ended.code == 0
    first, second = ended.out.splitlines()
    assert re.fullmatch(
        r"learn2ask-v1 passes the check: 4 presets, prompts of up to \d,\d+ characters, [\d.]+ s", first
    )
    assert re.match(r"learn2ask-v0 passes the check: 1 preset, .* s; skipped logs, logs-sum, .*: set CODOTS_", second)
    assert "checking learn2ask-v1 easy: 0 of 9\n" in ended.err
    assert ended.err.endswith("checking all: 9 of 9\n")


def test_a_check_of_all_covers_every_id_and_preset(codots, monkeypatch):
    def passes(domain, preset, packs, size):
        return Checked(domain.id, preset, 1.0, packs * size)

    monkeypatch.setattr("codots.domains.check.check_preset", passes)
    ended = codots("check", "--all", "--packs", "9", "--workers", "1")
    presets = {id: len(get_domain(id).presets) for id in domain_ids()}
    expected = [
        f"{id} passes the check: {n} preset{'s' * (n > 1)}, prompts of up to 36 characters, {n:.1f} s"
        for id, n in presets.items()
    ]
    assert ended.out.splitlines() == expected


def test_the_domains_are_a_table_or_json(codots, monkeypatch):
    monkeypatch.delenv("CODOTS_DIALOGUE_LOG", raising=False)
    found = {entry["id"]: entry for entry in strict(codots("domains", "--json").out)}
    assert list(found) == domain_ids()
    assert found["frozen-lake-v1"] == {
        "id": "frozen-lake-v1",
        "presets": ["easy", "hard", "wide", "drift", "tiny"],
        "styles": ["natural", "compact"],
        "hidden": "A permutation that maps codes to directions",
        "exact": True,
        "sizes": [4, 8],
        "lacks": {},
    }
    assert found["learn2ask-v0"]["lacks"]["logs"].startswith("set CODOTS_DIALOGUE_LOG")
    shown = codots("domains")
    assert (
        "textworld:NAME is an external benchmark, such as textworld:house: pip install 'codots[textworld]'" in shown.out
    )
    assert (shown.code, shown.err) == (0, "")
    assert all(id in shown.out for id in domain_ids())
    assert "(logs)" in shown.out
    assert "\nlearn2ask-v0 lacks logs, logs-sum, logs-ra, logs-rs: set CODOTS_DIALOGUE_LOG" in shown.out


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.parquet"])
def test_tasks_are_exported_as_rows(codots, home, name):
    ended = codots("export", "frozen-lake-v1", "--out", name, "--preset", "tiny", "--packs", "3", "--pack-size", "2")
    assert (ended.code, ended.out) == (0, f"wrote 6 tasks of 3 packs to {name}\n")
    assert not list(home.glob(".*"))
    again = (home / name).read_bytes()
    assert codots("export", "frozen-lake-v1", "--out", name, "--preset=tiny", "--packs=3", "--pack-size=2").code == 0
    assert (home / name).read_bytes() == again


def test_parquet_without_pyarrow_names_the_extra(refused, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    refused(r"Parquet needs pyarrow: pip install 'codots\[parquet\]'", "export", "frozen-lake-v1", "--out", "x.parquet")


def test_the_default_preset_is_easy_or_the_first(codots):
    assert (
        "terminal-v0 standard: task 1 of 1" in codots("play", "terminal-v0", "--policy=informed", "--pack-size=1").out
    )
    assert (
        "frozen-lake-v1 easy: task 1 of 1" in codots("play", "frozen-lake-v1", "--policy=random", "--pack-size=1").out
    )


def test_ctrl_c_in_any_command_is_130(codots, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("codots.engine.local.LocalEngine", interrupted)
    ended = codots("eval", "model", "preset=tiny")
    assert (ended.code, ended.out, ended.err) == (130, "", "codots: stopped\n")


def test_no_command_shows_the_help(codots):
    ended = codots()
    assert ended.code == 2
    assert "Train a model with a recipe" in ended.out + ended.err


def completed(words):
    """Return the completions that bash offers after these words, with the function from `--show-completion`."""
    script = f"""
        eval "$(codots --show-completion; true)"
        COMP_WORDS=({words})
        COMP_CWORD=$(( ${{#COMP_WORDS[@]}} - 1 ))
        _codots_completion codots
        printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "--norc", "-c", script], capture_output=True, text=True, env=environment() | {"PATH": path}
    )
    assert done.stderr == ""
    return done.stdout.split()


@pytest.mark.skipif(not shutil.which("bash"), reason="bash is not installed")
def test_bash_completes_commands_options_and_values():
    assert completed("codots tra") == ["train"]
    assert "--resume" in completed("codots train recipe.yaml --re")
    assert completed("codots train recipe.yaml learner.war") == ["learner.warmup_steps="]
    assert completed("codots eval base wri") == ["writer="]
    assert completed("codots eval base arms=own,fro") == ["arms=own,frozen"]
    assert completed("codots eval base arms = own,fro") == ["own,frozen"]  # bash splits words at the equals sign
    assert completed("codots eval base packs = 4 split = te") == ["test"]
    assert completed("codots eval base packs = 4 wri") == ["writer="]
    assert completed("codots train recipe.yaml preset=tin") == ["preset=tiny"]
    assert "frozen-lake-v1" in completed("codots play froz")
    assert completed("codots check learn2ask-v0 froz") == ["frozen-lake-v0", "frozen-lake-v1"]
    assert completed("codots play frozen-lake-v1 --policy inf") == ["informed"]


def test_the_version_is_printed(codots):
    from codots import __version__

    assert codots("--version").out == f"codots {__version__}\n"


def environment():
    return os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1", "COLUMNS": "200"}


def await_content(path, process):
    """Wait until a file has content, or the process that writes it has ended."""
    while not (path.exists() and path.stat().st_size):
        with suppress(subprocess.TimeoutExpired):  # a loop without a pause takes the time of the process
            process.wait(0.02)
            return


def interrupt(home, file, *args, number=signal.SIGINT):
    """Run the command, signal all its processes once a file has content, and return the step it stopped at."""
    before = signal.signal(number, signal.SIG_DFL)  # the test process may ignore it, as under nohup
    process = subprocess.Popen(
        [*COMMAND, *args], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment(), start_new_session=True
    )
    signal.signal(number, before)
    await_content(home / file, process)
    os.killpg(process.pid, number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert out == b""
    assert b"Traceback" not in err
    if number == signal.SIGHUP:  # the terminal is gone
        return None
    stopped = re.fullmatch(
        r"stopped after step (\d+), saved; run the same command with --resume to continue", err.decode().split("\n")[-2]
    )
    return int(stopped[1])


def test_ctrl_c_saves_and_resume_finishes(codots, home):
    args = ["train", "recipe.yaml", "steps=20", "save_every=20"]
    stopped = interrupt(home, "run/metrics.jsonl", *args)
    assert [folder.name for folder in checkpoints(home / "run")] == [f"step-{stopped:06d}"]
    assert saved_steps(home / "run") == stopped  # where the display goes on
    assert codots(*args, "--resume").code == 0
    lines = (home / "run" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == list(range(1, 21))


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_other_stop_signals_save_as_ctrl_c_does(codots, home, number):
    args = ["train", "recipe.yaml", "steps=20", "save_every=20", "workers=2"]
    interrupt(home, "run/metrics.jsonl", *args, number=number)
    assert len(checkpoints(home / "run")) == 1
    assert codots(*args, "--resume").code == 0
    lines = (home / "run" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == list(range(1, 21))


def test_a_second_signal_stops_at_once(home):
    args = [*COMMAND, "train", "recipe.yaml", "steps=20", "packs_per_step=64", "save_every=20"]
    with subprocess.Popen(args, stderr=subprocess.PIPE, env=environment(), start_new_session=True) as process:
        await_content(home / "run/config.yaml", process)
        process.send_signal(signal.SIGTERM)
        first = process.stderr.readline()
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=60)
    assert first == b"SIGTERM: finishing this step, then saving; a second one stops at once\n"
    assert (process.returncode, err) == (143, b"codots: stopped\n")
    assert not checkpoints(home / "run")


def test_a_nohup_run_survives_its_terminal(home):
    args = [*COMMAND, "train", "recipe.yaml", "steps=2"]
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with subprocess.Popen(args, stdout=subprocess.PIPE, env=environment()) as process:
        signal.signal(signal.SIGHUP, before)
        await_content(home / "run/config.yaml", process)
        process.send_signal(signal.SIGHUP)
        process.communicate(timeout=60)
    assert process.returncode == 0


def test_ctrl_c_while_the_workers_start_also_saves(home):
    assert interrupt(home, "run/config.yaml", "train", "recipe.yaml", "steps=20", "workers=2") == 1


def test_ctrl_c_stops_a_check_and_its_workers(home):
    command = [*COMMAND, "check", "alchemy-v1", "frozen-lake-v1", "--workers", "2"]
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # the test process may ignore SIGINT
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment(), start_new_session=True
    ) as process:
        signal.signal(signal.SIGINT, before)
        assert process.stderr.readline() == b"checking alchemy-v1 easy: 0 of 15\n"
        os.killpg(process.pid, signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err.splitlines()[-1]) == (130, b"", b"codots: stopped")
    assert b"Traceback" not in err


LIGHT = """
import sys
import codots
light = set(sys.modules)
from codots.cli.main import main
given = (["--help"], ["train", "--help"], ["doctor", "--help"], ["--version"], ["check"], ["train", "no.yaml"], ["x"])
given += (["play", "frozen-lake-v1", "--preset", "tiny", "--policy", "bayes"],)
for args in given:
    sys.argv = ["codots", *args]
    try:
        main()
    except SystemExit:
        pass
heavy = {"torch", "transformers", "openai", "scipy", "plotly", "tensorboard"}
sys.exit(f"loaded {(heavy | {'numpy'}) & light} and {heavy & set(sys.modules)}" if heavy & set(sys.modules) else 0)
"""


def test_the_package_and_its_help_import_no_heavy_module(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", LIGHT], capture_output=True, text=True, cwd=tmp_path, env=environment()
    )
    assert done.returncode == 0, done.stderr
    assert "Train a model with a recipe" in done.stdout


def test_public_names_are_importable():
    import codots as package

    for name in package.__all__:
        assert getattr(package, name) is not None
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = package.nothing


@pytest.mark.parametrize(
    ("command", "function"),
    [
        pytest.param(runs.run_demo, "codots.cli.demo:demo", id="demo"),
        pytest.param(worlds.check, "codots.domains.check:check_domain", id="check"),
        pytest.param(worlds.run_export, "codots.domains.export:task_rows", id="export"),
    ],
)
def test_a_command_has_the_defaults_of_its_function(command, function):
    typed, called = (signature(f).parameters for f in (command, pkgutil.resolve_name(function)))
    shared = {name for name in typed.keys() & called.keys() if called[name].default is not Parameter.empty}
    assert shared
    for name in shared:
        default = called[name].default
        assert typed[name].default == (",".join(default) if isinstance(default, tuple) else default), name


def test_rescore_prints_the_table_of_the_evaluation_and_writes_new_rows(home, codots):
    evaluated = strict(codots("eval", "eval.yaml", "rows=rows.jsonl", "--json").out)
    found = strict(codots("rescore", "rows.jsonl", "--json").out)
    changes = found.pop("rescored")
    assert {arm: (c["rescored"], c["changed"], c["why"]) for arm, c in changes.items()} == {
        arm: (4, 0, {}) for arm in ("own", "null")
    }
    assert found | {"model": "model"} == evaluated
    assert Path("rows.rescored.jsonl").read_bytes() == Path("rows.jsonl").read_bytes()
    table = codots("rescore", "rows.jsonl", "--out", "other.jsonl").out
    assert all(
        word in table for word in ("own reward", "lift", "changed", "diverged", "the new rows are in other.jsonl")
    )
    for line, args in (
        ("codots: rows.jsonl exists; remove it, or give --out ANOTHER\n", ("rows.jsonl", "--out", "rows.jsonl")),
        ("holds no recorded episodes; expected the file of", ("eval.yaml",)),
        ("no rows at nowhere; expected a run folder or a .jsonl file", ("nowhere",)),
        ("no rows in model; expected rollouts, or the file of an evaluation", ("model",)),
    ):
        ended = codots("rescore", *args)
        assert (ended.code, ended.out) == (2, "")
        assert line in ended.err


def test_rescore_of_a_run_says_what_diverged(home, codots):
    codots("train", "recipe.yaml")
    path = Path("run/rollouts/step-000001.jsonl")
    text = path.read_text()
    path.write_text(re.sub(r'"hash": "\w+"', '"hash": "0"', text, count=1))
    done = codots("rescore", "run")
    assert "training: tasks re-scored" in done.out
    assert re.search(r"step-000001.jsonl, own: 2 tasks diverged; sample again; the first at position 0", done.err)
    assert "not a random sample" in done.err
    codots("report", "run/rescored")
    assert Path("run/rescored/report.html").is_file()

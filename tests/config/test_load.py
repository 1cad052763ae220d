"""Recipes are read and validated; an invalid recipe is one line before anything starts."""

from pathlib import Path

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from codots.config.evaluate import EvalConfig
from codots.config.imitate import ImitateConfig
from codots.config.load import keys_of, load_recipe, settings
from codots.config.schema import LearnerConfig, TrainConfig, WorldConfig, fingerprint
from codots.runs.folder import MUTABLE_KEYS

RECIPES = sorted((Path(__file__).parents[2] / "recipes").glob("*.yaml"))
STAGES = "stages: [{steps: 1, teacher: skilled}]\n"


@pytest.fixture
def recipe(tmp_path):
    """Write a recipe file and read it as this kind of recipe."""

    def read(text, changes=None, kind=TrainConfig):
        path = tmp_path / "recipe.yaml"
        path.write_text(text, encoding="utf-8")
        return load_recipe(kind, path, changes)

    return read


def one_line(error):
    return len(str(error.value).splitlines()) == 1


def kind_of(path):
    return ImitateConfig if "teacher:" in path.read_text() else TrainConfig


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_of_the_repository_is_valid(path):
    config = load_recipe(kind_of(path), path)
    assert kind_of(path).model_validate(config.to_dict()) == config
    assert kind_of(path).model_validate(config.model_dump(mode="json")) == config


@pytest.mark.parametrize("kind", [TrainConfig, ImitateConfig, EvalConfig])
def test_every_key_has_a_meaning(kind):
    keys = list(keys_of(kind))
    assert len({key.name for key in keys}) == len(keys)
    assert all(key.meaning.endswith(".") for key in keys)
    assert {"seed", "workers"} <= {key.name for key in keys}


def test_the_repository_has_recipes():
    assert {"demo", "tiny-base"} <= {path.stem for path in RECIPES}


@pytest.mark.parametrize(
    ("text", "kind", "given", "nearest"),
    [
        ("stepz: 3", TrainConfig, "stepz", "steps"),
        ("learner: {lrr: 0.1}", TrainConfig, "learner.lrr", "learner.lr"),
        ("credit: {presets: paper}", TrainConfig, "credit.presets", "credit.preset"),
        (STAGES + "new: {heights: 3}", ImitateConfig, "new.heights", "new.heads"),
        ("stages: [{steps: 1, packs_step: 3}]", ImitateConfig, "stages.packs_step", "stages.packs_per_step"),
    ],
)
def test_an_unknown_key_names_the_nearest(recipe, text, kind, given, nearest):
    with pytest.raises(ValueError, match=f"unknown key '{given}'; expected one of .*; the nearest is '{nearest}'") as e:
        recipe(text, kind=kind)
    assert one_line(e)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("steps: many", "steps: Input should be a valid integer.*got 'many'"),
        ("steps: 0", "steps: Input should be greater than or equal to 1, got 0"),
        ("steps: 1.5", "steps: .*integer.*got 1.5"),
        ("group_size: 1", "group_size: .*greater than or equal to 2, got 1"),
        ("learner: {lr: 0}", "learner.lr: .*greater than 0, got 0"),
        ("learner: {lr: .inf}", "learner.lr: .*finite number, got inf"),
        ("learner: {lr: .nan}", "learner.lr: .*finite number, got nan"),
        ("learner: {min_lr_ratio: 2}", "learner.min_lr_ratio: .*less than or equal to 1, got 2"),
        ("learner: 3", "learner: .*got 3"),
        ("learner:", "learner: .*got None"),
        ("contexts: owm", "unknown choice of contexts 'owm'; expected one of none, own; the nearest is 'own'"),
        ("loggers: [wandbb]", "unknown choice of loggers.0 'wandbb'.*nearest is 'wandb'"),
        ("contexts: 3", "contexts: Input should be 'own' or 'none', got 3"),
        ("stages: [{steps: 1}]", "is a file for `codots imitate`"),
        ("max_logprob_gap: 0", "max_logprob_gap: .*greater than 0"),
        ("stage_timeout: 0", "stage_timeout: .*greater than 0"),
        ("domain: frozen-lake-v9", "unknown domain 'frozen-lake-v9'.*nearest is 'frozen-lake-v1'"),
        ("preset: eazy", "unknown preset of frozen-lake-v1 'eazy'.*nearest is 'easy'"),
        ("{packs_per_step: 5, minibatches: 2}", "5 packs cannot be split into 2 equal mini-batches"),
        ("credit: {preset: papers}", "unknown preset 'papers'.*nearest is 'paper'"),
        ("credit: {baseline: groups}", "credit: unknown baseline 'groups'.*nearest is 'group'"),
        ("credit: {windows: 3}", "unknown key 'credit.windows'.*nearest is 'credit.window'"),
        ("credit: {window: wide}", "credit.window: .*valid integer.*, got 'wide'"),
        ("credit: {window: 0}", "need window >= 1"),
        ("credit: {preset: 3}", "credit.preset: .*valid string, got 3"),
        ("credit: {gamma: .nan}", "credit.gamma: .*finite number, got nan"),
        ("learner: {loss: rec}", "learner: unknown loss 'rec'"),
        ("learner: {eps: 0.1}", "unknown key 'learner.eps'.*nearest is 'learner.eps_low'"),
        ("learner: {kl_coeff: 1}", "unknown key 'learner.kl_coeff'.*nearest is 'learner.kl_coef'"),
        ("- steps", "is not a recipe: expected keys and values, got list"),
        ("steps: [", "is not YAML: .*expected the node content"),
        ("seed: !!timestamp now", "is not YAML"),
        ("seed: !!bool maybe", "is not YAML"),
        ("seed: 2020-13-01", "seed: .*valid integer.*got '2020-13-01'"),
        ("seed: 1\nsteps: 2\nseed: 3", "the key 'seed' is given twice, in lines 1 and 3"),
        ("learner:\n  lr: 1\n  lr: 2", "the key 'lr' is given twice, in lines 2 and 3"),
        ("[" * 5000, "is not YAML: .*recursion"),
        ('profile: {"a\\nb\\u2028c": [x]}', "profile.a b c"),
    ],
)
def test_an_invalid_recipe_is_one_line(recipe, text, line):
    with pytest.raises(ValueError, match=line) as error:
        recipe(text)
    assert one_line(error)
    assert "recipe.yaml" in str(error.value)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("stages: []", "stages: List should have at least 1 item"),
        ("seed: 1", "stages: Field required"),
        ("stages: [{teacher: skilled}, {steps: 0, teacher: skilled}]", r"stages.1.steps: .*equal to 1, got 0"),
        ("stages: [{preset: eazy}]", "unknown preset of frozen-lake-v1 'eazy'"),
        ("stages: [{steps: 1}]", r"stages.0: expected worlds, such as .*, or recorded"),
        ("stages: [{recorded: runs/x, teacher: skilled}]", "both worlds and recorded are given; expected one of them"),
        ("stages: [{teacher: skilled, lr: 200}]", r"stages.0.lr: .*less than or equal to 100, got 200"),
        ("{teacher: skilled, lr: 200}", r"recipe.yaml: lr: .*less than or equal to 100, got 200"),
        ("{teacher: skilled, noise: {wrong: 2}}", "wrong is 2; expected a probability from 0 to 1"),
        ("{teacher: skilled, noise: {wrongs: 0.2}}", "unknown noise of skilled 'wrongs'; .*nearest is 'wrong'"),
        ("{teacher: skiled}", "unknown choice of teacher 'skiled'; .*nearest is 'skilled'"),
        ("{teacher: skilled, domain: lake}", "unknown domain 'lake'"),
        ("{teacher: skilled, given: 2}", "given: .*less than or equal to 1, got 2"),
        (STAGES + "steps: 3", "both stages and steps are given; expected steps in each entry of stages"),
        (STAGES + "model: base\nnew: {}", "both model and new are given; expected one of them"),
        (STAGES + "learner: {loss: ppo}", "loss, kl_coef and entropy_coef are for RL"),
        (STAGES + "new: {width: 24, heads: 5}", "a width of 24 cannot be split into 5 heads"),
        (STAGES + "new: {width: 24, heads: 8}", "24 cannot be split into 8 heads of even"),
    ],
)
def test_an_invalid_recipe_of_imitation_is_one_line(recipe, text, line):
    with pytest.raises(ValueError, match=line) as error:
        recipe(text, kind=ImitateConfig)
    assert one_line(error)


def test_an_unreadable_recipe_is_one_line(tmp_path):
    (tmp_path / "latin.yaml").write_bytes("run: caf\xe9".encode("latin-1"))
    (tmp_path / "lake.yaml").touch()
    with pytest.raises(ValueError, match=r"No such file or directory; the nearest is '\S*/lake\.yaml'"):
        load_recipe(TrainConfig, tmp_path / "lak.yaml")
    for name in ("latin.yaml", "nowhere.yaml", "."):
        with pytest.raises(ValueError, match="cannot read the recipe") as error:
            load_recipe(TrainConfig, tmp_path / name)
        assert one_line(error)


def test_an_empty_recipe_has_the_defaults(recipe):
    assert recipe("") == recipe("# nothing") == TrainConfig()


def test_changes_apply_at_every_depth(recipe):
    changes = ["steps=7", "learner.lr=1e-3", "credit.baseline=group", "model=some/folder", "seed=-3"]
    config = recipe("{steps: 3, learner: {max_grad_norm: 2}}", changes)
    assert (config.steps, config.model, config.seed) == (7, "some/folder", -3)
    assert config.learner == LearnerConfig(lr=1e-3, max_grad_norm=2)
    assert config.credit.overrides == {"baseline": "group"}


@pytest.mark.parametrize(("text", "value"), [("7e-1", 0.7), ("1E1", 10.0), ("010", 10), ("off", "off")])
def test_sections_without_a_schema_read_numbers_as_yaml_1_2(recipe, text, value):
    for config in (recipe(f"profile: {{temperature: {text}}}"), recipe("", [f"profile.temperature={text}"])):
        found = config.profile["temperature"]
        assert (found, type(found)) == (value, type(value))


def test_the_last_of_two_changes_wins(recipe):
    assert recipe("steps: 3", ["steps=4", "steps=5"]).steps == 5


def test_a_value_may_contain_an_equals_sign(recipe):
    assert recipe("", ["run=a=b"]).run == "a=b"


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ("steps", "'steps' is not a change; expected key=value"),
        ("=3", "'=3' is not a change"),
        ("stepz=3", "unknown key 'stepz'.*nearest is 'steps'"),
        ("learner.lrr=3", "unknown key 'learner.lrr'.*nearest is 'learner.lr'"),
        ("steps.more=3", "steps is not a section"),
        ("steps=[", "is not YAML"),
        ("steps=!!int ''", "is not YAML"),
        ("learner={lr: 1, lr: 2}", "'learner={lr: 1, lr: 2}': the key 'lr' is given twice, in line 1"),
        ("steps=soon", "steps: .*got 'soon'"),
    ],
)
def test_an_invalid_change_is_one_line(recipe, change, line):
    with pytest.raises(ValueError, match=line) as error:
        recipe("steps: 3", [change])
    assert one_line(error)


NAMES = [key.name.rpartition(".")[2] for key in keys_of(TrainConfig)]
KEYS = st.sampled_from([*NAMES, "stepz", "a\nb", "", "é"])
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.dates()
TREES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4), max_leaves=10
)
FLOW = st.text(alphabet="ab1: -[]{},&*!?|>'\"%@#\n\t\\~.=<_x\ud7ff\u2028", max_size=40)


def is_valid_or_one_line(kind, path, changes=None):
    try:
        return isinstance(load_recipe(kind, path, changes), kind)
    except ValueError as error:
        return len(str(error).splitlines()) == 1


@example("? [a]\n: b")
@example("a: &a [*a]")
@example("&a {learner: *a}")
@example("!!python/object:os.system x")
@example("1: 2")
@example("seed: !!int ''")
@example("seed: " + "9" * 5000)
@example('run: "\\ud800"')
@given(FLOW | st.text(max_size=60) | TREES.map(lambda tree: repr(tree).replace("None", "null")))
def test_any_text_is_valid_or_one_line(tmp_path_factory, text):
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    for kind in (TrainConfig, ImitateConfig, EvalConfig):
        assert is_valid_or_one_line(kind, path)


@given(st.lists(st.text(max_size=20) | st.tuples(KEYS, st.text(max_size=20)).map("=".join), max_size=3))
def test_any_changes_are_valid_or_one_line(tmp_path_factory, changes):
    path = tmp_path_factory.getbasetemp() / "plain.yaml"
    path.write_text("steps: 3")
    assert is_valid_or_one_line(TrainConfig, path, changes)


def test_a_recipe_is_immutable():
    with pytest.raises(ValueError, match="frozen"):
        TrainConfig().steps = 3


def fingerprint_of(config, **kwargs):
    return fingerprint(config.to_dict(), **kwargs)


def test_different_recipes_have_different_fingerprints():
    one = TrainConfig(seed=1)
    assert fingerprint_of(one) == fingerprint_of(TrainConfig(seed=1))
    assert fingerprint_of(one) != fingerprint_of(TrainConfig(seed=2))
    assert fingerprint_of(one) != fingerprint_of(TrainConfig(seed=1, learner={"lr": 1e-5}))
    assert fingerprint_of(one) != fingerprint_of(TrainConfig(seed=1, worlds=[{"packs_per_step": 3}]))
    without = frozenset({"seed"})
    assert fingerprint_of(one, without=without) == fingerprint_of(TrainConfig(seed=2), without=without)


def test_mutable_keys_do_not_change_the_fingerprint():
    """Both forms of a recipe have the same fingerprint, and later versions must not change it."""
    changed = TrainConfig(run="moved", loggers=["wandb"], max_logprob_gap=1, stage_timeout=7)
    assert {"run", "loggers", "max_logprob_gap", "stage_timeout"} == MUTABLE_KEYS
    assert fingerprint_of(changed, without=MUTABLE_KEYS) == fingerprint_of(TrainConfig(), without=MUTABLE_KEYS)
    assert fingerprint_of(TrainConfig(init_from="runs/a"), without=MUTABLE_KEYS) != fingerprint_of(
        changed, without=MUTABLE_KEYS
    )
    short, listed = TrainConfig.model_validate({"packs_per_step": 16}), TrainConfig(worlds=[{"packs_per_step": 16}])
    assert fingerprint_of(short) == fingerprint_of(listed) == fingerprint_of(TrainConfig())
    assert fingerprint_of(TrainConfig(run="runs/train"), without=MUTABLE_KEYS) == "e98bd97c0c3e7304"


def two_worlds(text):
    """Return a recipe with two entries of `worlds` that differ in their preset."""
    return "worlds: [{preset: easy, packs_per_step: 4}, {preset: hard, packs_per_step: 4, pack_size: 8}]\n" + text


def test_one_entry_may_set_its_keys_at_the_top(recipe):
    short = recipe("{domain: frozen-lake-v0, preset: hard, pack_size: 8, packs_per_step: 3}")
    listed = recipe("worlds: [{domain: frozen-lake-v0, preset: hard, pack_size: 8, packs_per_step: 3}]")
    assert short == listed
    assert short.worlds == [WorldConfig(domain="frozen-lake-v0", preset="hard", pack_size=8, packs_per_step=3)]
    assert recipe("pack_size: 8") == recipe("worlds: [{pack_size: 8}]", ["worlds.0.packs_per_step=16"])
    assert recipe("pack_size: 8", ["pack_size=2"]).worlds[0].pack_size == 2


def test_to_dict_uses_the_short_form_and_reads_back_as_the_same(recipe):
    one = recipe("worlds: [{pack_size: 8}]")
    values = one.to_dict()
    assert {key: values[key] for key in TrainConfig.SHORT} == {
        "domain": "frozen-lake-v1",
        "preset": "easy",
        "pack_size": 8,
        "packs_per_step": 16,
    }
    assert "worlds" not in values
    for config in (one, recipe(two_worlds("")), recipe("worlds: [{profile: {max_context_chars: 100}}]")):
        assert TrainConfig.model_validate(config.to_dict()) == config
        assert recipe(yaml.safe_dump(config.to_dict())) == config
    assert [world["preset"] for world in recipe(two_worlds("")).to_dict()["worlds"]] == ["easy", "hard"]
    assert "packs_per_step" not in recipe(two_worlds("")).to_dict()
    assert recipe("worlds: [{profile: {max_context_chars: 100}}]").to_dict()["worlds"][0]["profile"] == {
        "max_context_chars": 100
    }


def test_entries_are_changed_by_their_index(recipe):
    config = recipe(two_worlds(""), ["worlds.0.packs_per_step=8", "worlds.1.profile.max_context_chars=99"])
    assert [world.packs_per_step for world in config.worlds] == [8, 4]
    assert [world.profile for world in config.worlds] == [{}, {"max_context_chars": 99}]
    assert config.packs_per_step == 12
    assert recipe(two_worlds(""), ["worlds.1={preset: tiny}"]).worlds[1] == WorldConfig(preset="tiny")
    assert recipe("", ["worlds=[{preset: tiny}, {}]"]).worlds == [WorldConfig(preset="tiny"), WorldConfig()]
    assert recipe(STAGES, ["stages.0.steps=7"], ImitateConfig).stages[0].steps == 7


def test_a_recipe_may_set_an_episode_loss_and_a_kl_penalty(recipe):
    learner = recipe("learner: {loss: gspo, kl_coef: 0.1}").learner
    assert (learner.by_episode, learner.kl_coef) == (True, 0.1)


def test_an_engine_is_a_name_or_a_section(recipe):
    assert recipe("engine: local") == recipe("engine: {kind: local}") == recipe("", ["engine.kind=local"]) == recipe("")
    twin = recipe("engine: local", ["engine.mode=async", "engine.max_staleness=2"])
    assert (twin.engine.ahead, twin.to_dict()["engine"]) == (2, {"kind": "local", "mode": "async", "max_staleness": 2})
    assert recipe("engine: {mode: async}").engine.ahead == 1
    assert recipe("engine: {mode: async}", ["engine=local"]).engine.ahead == 0
    assert recipe("engine: {max_staleness: 0}") == recipe("", ["engine.max_staleness=0"])
    assert TrainConfig(engine="local") == TrainConfig()
    ray = recipe("engine: ray", ["engine.samplers=4"])
    assert (ray.engine.kind, ray.engine.samplers) == ("ray", 4)
    assert TrainConfig.model_validate(ray.to_dict()) == ray


def test_a_run_stores_no_keys_that_its_engine_does_not_use(recipe):
    assert recipe("").to_dict()["engine"] == {"kind": "local", "mode": "sync"}
    assert "max_ratio" not in recipe("").to_dict()["learner"]
    assert recipe("learner: {max_ratio: 5}").to_dict()["learner"]["max_ratio"] == 5


@pytest.mark.parametrize(
    ("text", "changes", "line"),
    [
        (
            two_worlds("packs_per_step: 3"),
            [],
            "both worlds and packs_per_step are given; expected packs_per_step in each entry of worlds",
        ),
        (
            two_worlds(""),
            ["pack_size=3"],
            "both worlds and pack_size are given; expected pack_size in each entry of worlds",
        ),
        (
            two_worlds(""),
            ["worlds.2.packs_per_step=8"],
            "'worlds.2.packs_per_step=8': '2' is not an index; expected a number below 2",
        ),
        (two_worlds(""), ["worlds.2={}"], "'worlds.2=.*'2' is not an index; expected a number below 2"),
        (two_worlds(""), ["worlds.-1.packs_per_step=8"], "'-1' is not an index; expected a number below 2"),
        (two_worlds(""), ["worlds.first.packs_per_step=8"], "'first' is not an index; expected a number below 2"),
        (two_worlds(""), ["worlds.0.pakcs=8"], "unknown key 'worlds.pakcs'; .*nearest is 'worlds.pack_size'"),
        (two_worlds(""), ["worlds.0.packs_per_step=0"], "worlds.0.packs_per_step: .*greater than or equal to 1, got 0"),
        (two_worlds("minibatches: 3"), [], "4 packs cannot be split into 3 equal mini-batches"),
        ("worlds: []", [], "worlds: .*at least 1 item"),
        ("worlds: [{}, {}]", [], "frozen-lake-v1 easy is listed twice in worlds; use one entry with more packs"),
        (
            "worlds: [{profile: {temperature: 1}}]",
            [],
            "worlds.0.profile: unknown key of an entry's profile 'temperature'; .*max_context_chars",
        ),
        ("worlds: 3", [], "worlds: .*valid list, got 3"),
        ("packs_per_step: 0", [], "yaml: packs_per_step: .*greater than or equal to 1, got 0"),
        ("pack_size: 0", [], "yaml: pack_size: .*greater than or equal to 1, got 0"),
        ("pack_size: four", [], "yaml: pack_size: .*valid integer.*, got 'four'"),
        ("preset: 3", [], "yaml: preset: .*valid string, got 3"),
        (
            "engine: locall",
            [],
            "unknown choice of engine.kind 'locall'; expected one of .*local, ray; the nearest is 'local'",
        ),
        ("engine: {max_staleness: -1}", [], "engine.max_staleness: .*greater than or equal to 0, got -1"),
        ("engine: {max_staleness: 2}", [], "engine: max_staleness=2 needs mode=async"),
        ("engine: {max_stale: 1}", [], "unknown key 'engine.max_stale'; .*nearest is 'engine.max_staleness'"),
        ("engine: {delay: 4}", [], "engine.delay is now called engine.max_staleness"),
        (
            "engine: {mode: asynch}",
            [],
            "unknown choice of engine.mode 'asynch'; .*nearest is 'async'",
        ),
        ("engine: 3", [], "engine: .*got 3"),
        ("engine: ray", ["engine.samplers=0"], "engine.samplers: .*greater than or equal to 1, got 0"),
        (
            "engine: {samplers: 4}",
            [],
            "engine: samplers=4 needs kind=ray; .* are set by workers",
        ),
        ("engine: {learners: 2}", [], "engine: learners=2 needs kind=ray; the processes of kind=local are set by"),
        ("steps: 3", ["steps="], "'steps=' is not a change; expected key=value"),
    ],
)
def test_invalid_entries_and_engines_are_one_line(recipe, text, changes, line):
    with pytest.raises(ValueError, match=line) as error:
        recipe(text, changes)
    assert one_line(error)


def test_keys_of_the_short_form_are_listed_like_keys_of_an_entry():
    keys = {key.name: key for key in keys_of(TrainConfig)}
    for name in TrainConfig.SHORT:
        assert keys[name].default == keys[f"worlds.{name}"].default
        assert keys[name].meaning == keys[f"worlds.{name}"].meaning


def test_every_key_has_a_description():
    for kind in (TrainConfig, ImitateConfig, EvalConfig, WorldConfig):
        assert all(info.description for info in kind.model_fields.values())


def test_a_tilde_is_the_home_directory_in_every_path(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    changes = ["run=~/runs/x", "model=~/m", "init_from=~/i", "learner.reference=~/r", "learner.kl_coef=0.1"]
    config = settings(TrainConfig, {}, changes, "recipe")
    found = [config.run, config.model, config.init_from, config.learner.reference]
    assert found == [str(tmp_path / name) for name in ("runs/x", "m", "i", "r")]
    config = settings(EvalConfig, {}, ["model=~/m", "writer=~/w", "rows=~/rows.jsonl"], "eval")
    assert [config.model, config.writer, config.rows] == [str(tmp_path / name) for name in ("m", "w", "rows.jsonl")]

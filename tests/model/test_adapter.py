"""A LoRA adapter loads with its base, wherever a model is named, and has its own profile and chat template."""

import json
import logging
import shutil
import warnings

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from codots.cli.play import watch
from codots.domains.registry import make_pack
from codots.engine.open import OpenModel
from codots.model.adapter import Adapted
from codots.model.device import count_weights
from codots.model.load import identity, load_model, load_render, model_folder
from codots.preflight.doctor import examine
from codots.preflight.estimate import estimate
from codots.preflight.importing import import_model
from codots.rollout.profile import PROFILE, load_profile
from codots.training.train import train
from tests.evaluating import measured
from tests.random_model import make_random_model
from tests.training.small import changed, recipe

IDS = torch.tensor([[3, 40, 7, 90, 12, 55]])
ADAPTER = "adapter_model.safetensors"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Return a folder with a base, and an adapter as peft saves it."""
    home = tmp_path_factory.mktemp("made")
    make_random_model(home / "base")
    model = AutoModelForCausalLM.from_pretrained(home / "base")
    lora = LoraConfig(r=2, lora_alpha=4, target_modules="all-linear", task_type="CAUSAL_LM")
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings(action="ignore"):
        torch.manual_seed(0)
        adapted = get_peft_model(model, lora)
        for name, weight in adapted.named_parameters():
            if "lora_" in name:
                weight.data.normal_(std=0.3)
    adapted.save_pretrained(home / "adapter")
    return home


@pytest.fixture
def home(made, tmp_path):
    copied = shutil.copytree(made, tmp_path / "home")
    name_base(copied / "adapter", str(copied / "base"))
    return copied


def name_base(adapter, base):
    path = adapter / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"base_model_name_or_path": base}))


def own_logits(base, adapter):
    """Return the logits of the base with the adapter beside its layers, as peft computes them."""
    with torch.no_grad(), warnings.catch_warnings(action="ignore"):
        return PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), adapter)(IDS).logits


def logits(model):
    with torch.no_grad():
        return load_model(model)[0](IDS).logits


def test_an_adapter_gives_the_logits_of_its_base_with_the_adapter(home):
    found = logits(model_folder(home / "adapter"))
    assert torch.allclose(found, own_logits(home / "base", home / "adapter"), atol=1e-4)
    assert (found - logits(home / "base")).abs().max() > 0.1


def test_an_imported_adapter_is_one_folder_with_its_base(home):
    import_model(home / "adapter", home / "whole")
    assert torch.allclose(logits(home / "whole"), own_logits(home / "base", home / "adapter"), atol=1e-4)
    assert load_profile(home / "whole") == load_profile(home / "base")
    assert not (home / "whole" / "adapter_config.json").exists()
    (home / "base").rename(home / "elsewhere")
    with pytest.raises(ValueError, match=r"adapter is a LoRA adapter of .*base, which is not found; give base=FOLDER"):
        import_model(home / "adapter", home / "again")
    import_model(home / "adapter", home / "again", base=str(home / "elsewhere"))


def test_all_weights_of_an_adapted_model_can_be_trained(home):
    model, _ = load_model(model_folder(home / "adapter"))
    assert all(weight.requires_grad for weight in model.parameters())
    assert model.state_dict().keys() == load_model(home / "base")[0].state_dict().keys()


@pytest.mark.parametrize("name", ["../base", None])
def test_the_base_is_found_beside_the_adapter_or_given(home, name):
    name_base(home / "adapter", name or "org/elsewhere")
    given = None if name else home / "base"
    assert logits(model_folder(home / "adapter", given)).equal(logits(Adapted(home / "adapter", home / "base")))


def test_a_base_relative_to_the_working_directory_is_found(home, monkeypatch):
    monkeypatch.chdir(home)
    name_base(home / "adapter", "base")
    assert model_folder("adapter").base.samefile(home / "base")


def test_profile_and_chat_template_are_the_adapters_or_those_of_the_base(home):
    words = load_render(home / "base").tokenizer
    with_base = load_render(model_folder(home / "adapter")).opening("Be brief.", "up")
    assert with_base == load_render(home / "base").opening("Be brief.", "up")
    words.chat_template = None
    words.save_pretrained(home / "adapter")
    assert load_render(model_folder(home / "adapter")).opening("Be brief.", "up") == with_base
    template = (home / "base" / "chat_template.jinja").read_text()
    (home / "adapter" / "chat_template.jinja").write_text(template.replace("<|user|>", "<|user|>up"))
    assert load_render(model_folder(home / "adapter")).opening("Be brief.", "up") != with_base
    load_profile(home / "base").at(0.5).save(home / "adapter")
    with_own = OpenModel(home / "adapter", "frozen-lake-v1")
    (home / "adapter" / PROFILE).unlink()
    assert (with_own.profile.temperature, OpenModel(home / "adapter", "frozen-lake-v1").profile.temperature) == (0.5, 1)


def test_the_identity_is_that_of_adapter_and_base(home):
    model = model_folder(home / "adapter")
    seen = {identity(model), identity(home / "base")}
    assert identity(model_folder(shutil.copytree(home / "adapter", home / "copy"))) in seen
    for path in (home / "adapter" / ADAPTER, home / "base" / "model.safetensors"):
        weights = load_file(path)
        save_file({name: weight * 1.5 for name, weight in weights.items()}, path, metadata={"format": "pt"})
        seen.add(identity(model))
    assert len(seen) == 4


def test_the_weights_counted_are_those_of_the_base(home):
    count = count_weights(home / "base")
    shutil.copytree(home / "adapter", home / "base", dirs_exist_ok=True)
    assert count_weights(model_folder(home / "adapter")) == count_weights(model_folder(home / "base")) == count


def test_an_adapter_beside_all_weights_is_merged_into_them_in_one_warning(home, caplog):
    expected = own_logits(home / "base", home / "adapter")
    shutil.copytree(home / "adapter", home / "base", dirs_exist_ok=True)
    name_base(home / "base", "org/elsewhere")
    assert torch.allclose(logits(model_folder(home / "base")), expected, atol=1e-4)
    with caplog.at_level(logging.WARNING):
        measured(home / "base", preset="tiny", packs=2, pack_size=2, workers=1, arms=["null"])
    (line,) = [record.message for record in caplog.records if "LoRA" in record.message]
    assert line.startswith(f"{home / 'base'} has all weights and a LoRA adapter; the adapter is merged into them")


def test_an_adapter_beside_a_config_alone_loads_with_its_base(home):
    shutil.copy(home / "base" / "config.json", home / "adapter")
    assert model_folder(home / "adapter") == Adapted(home / "adapter", home / "base")


@pytest.mark.parametrize("base", [{}, {"base": True}])
def test_an_adapter_is_evaluated_played_examined_estimated_and_trained(home, base):
    if base:
        name_base(home / "adapter", "org/elsewhere")
        base = {"base": str(home / "base")}
    assert measured(home / "adapter", preset="tiny", packs=2, pack_size=2, workers=1, **base).tokens > 0
    assert list(watch(home / "adapter", make_pack("frozen-lake-v1", "tiny", "dev", 0, 2), **base))[-1].startswith("rew")
    learner = {"lr": 3e-3, "warmup_steps": 0, "kl_coef": 0.01}
    config = changed(recipe(home / "adapter", home / "run", steps=1, eval_every=0, learner=learner), **base)
    found = {finding.what: finding for finding in examine(config)}
    assert not found["model"].must
    assert identity(model_folder(home / "adapter", base.get("base"))) in found["model"].found
    assert estimate(config).fits
    (report,) = train(config)
    assert report.metrics["train/logprob_gap_max"] < 1e-4
    assert report.metrics["train/ref_kl"] < 1e-6
    assert (
        load_file(home / "run" / "model" / "model.safetensors").keys()
        == load_file(home / "base" / "model.safetensors").keys()
    )


def assert_refused(line, call):
    with pytest.raises(ValueError, match=line) as error:
        call()
    assert len(str(error.value).splitlines()) == 1


def test_a_base_that_is_missing_wrong_or_needless_is_a_one_line_error(home):
    name_base(home / "adapter", "nowhere/else")
    line = r"is a LoRA adapter of nowhere/else, which is not found; give base=FOLDER"
    assert_refused(line, lambda: model_folder(home / "adapter"))
    assert_refused("no model at 'nowhere'", lambda: model_folder(home / "adapter", "nowhere"))
    assert_refused("is an adapter itself; expected", lambda: model_folder(home / "adapter", home / "adapter"))
    assert_refused("is given, but .* is not a LoRA adapter", lambda: model_folder(home / "base", home / "base"))
    name_base(home / "adapter", None)
    assert_refused("names no base model; give base=FOLDER", lambda: model_folder(home / "adapter"))
    (home / "adapter" / "adapter_config.json").write_text("[]")
    assert_refused("is not the config of an adapter", lambda: model_folder(home / "adapter"))


def test_an_adapter_that_does_not_fit_its_base_is_a_one_line_error(home, monkeypatch):
    adapter, path = model_folder(home / "adapter"), home / "adapter" / ADAPTER
    weights = load_file(path)
    name, weight = sorted(weights.items())[0]
    save_file({n: w for n, w in weights.items() if n != name}, path)
    assert_refused(
        "cannot be loaded: the adapter lacks weights of layers in its base, such as", lambda: load_model(adapter)
    )
    save_file(weights | {name.replace("layers.0", "layers.7"): weight.clone()}, path)
    assert_refused(
        "cannot be loaded: the adapter has weights without a place in its base, such as", lambda: load_model(adapter)
    )
    save_file(weights | {name: weight[:1].contiguous()}, path)
    assert_refused("cannot be loaded: ", lambda: load_model(adapter))
    path.write_text("version https://git-lfs.github.com/spec/v1\n")
    assert_refused(r"adapter_model\.safetensors is a Git LFS pointer", lambda: load_model(adapter))
    path.unlink()
    assert_refused("has adapter_config.json, but no adapter_model", lambda: load_model(adapter))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert_refused("is a LoRA adapter, which needs peft: pip install", lambda: load_model(adapter))


def test_every_command_takes_a_base(home, codots, monkeypatch):
    monkeypatch.chdir(home)
    name_base(home / "adapter", "org/elsewhere")
    (home / "recipe.yaml").write_text("model: adapter\nrun: run\npreset: tiny\nworkers: 1\neval_every: 0\n")
    tiny = ("preset=tiny", "packs=2", "pack_size=2", "workers=1", "arms=null")
    for command in (
        ("eval", "adapter", *tiny),
        ("play", "frozen-lake-v1", "--preset", "tiny", "--pack-size", "2", "--model", "adapter"),
        ("train", "recipe.yaml", "--dry-run"),
    ):
        assert codots(*command, "--base", "./base").code == 0
        refused = codots(*command)
        assert (refused.code, "adapter of org/elsewhere, which is not found" in refused.err) == (2, True)
    assert codots("doctor", "recipe.yaml", "base=./base", "--json").code == 0
    assert "is given, but ./base is not" in codots("eval", "./base", *tiny, "base=./base").err

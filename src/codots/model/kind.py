"""Which class of transformers reads text with a model, and what the text part of its config says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

UNLIMITED = 2**31
"""Maximum length of a model whose config has none."""


def read_config(folder: Path) -> Any:
    """Return the config of a folder with a causal LM. Raises ValueError with what the folder is instead."""
    import transformers
    from transformers import CONFIG_MAPPING, AutoConfig

    given = json.loads((folder / "config.json").read_text())
    kind = given.get("model_type")
    if kind not in CONFIG_MAPPING and "auto_map" in given:
        raise ValueError(f"model type {kind!r} brings code of its own (auto_map in config.json), which is never run")
    if kind not in CONFIG_MAPPING:
        raise ValueError(f"transformers {transformers.__version__} does not know model type {kind!r}; a later may")
    config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    if config.is_encoder_decoder:
        raise ValueError(f"{kind} is an encoder-decoder; expected a causal LM")
    if masked := [name for name in config.architectures or () if name.endswith("ForMaskedLM")]:
        raise ValueError(f"{masked[0]} is an encoder, which does not generate text; expected a causal LM")
    auto_class(config)
    return config


def auto_class(config: Any) -> Any:
    """Return the auto class that makes a causal LM of a config, which may also read images.

    Raises ValueError if there is none.
    """
    import transformers

    if type(config) in transformers.MODEL_FOR_CAUSAL_LM_MAPPING:
        return transformers.AutoModelForCausalLM
    if type(config) in transformers.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING:
        return transformers.AutoModelForImageTextToText
    raise ValueError(f"transformers has no causal LM for model type {config.model_type!r}")


def text_config(model: Any) -> Any:
    """Return the part of a model's config that describes how it reads text."""
    return model.config.get_text_config()


def max_positions(config: Any) -> int:
    """Return the maximum number of ids in a sequence, by a text config."""
    names = ("max_position_embeddings", "max_seq_len")
    return next((value for name in names if (value := getattr(config, name, None))), UNLIMITED)


def train_text_only(model: Any) -> Any:
    """Freeze everything but the text part of a model that also reads images or audio, and return the model."""
    if text_config(model) is not model.config:
        model.requires_grad_(False)
        for part in (model.get_decoder(), model.get_output_embeddings()):
            part.requires_grad_(True)
    return model

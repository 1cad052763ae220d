"""Reading a model folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from codots.render import Render


def load_model(folder: Path) -> tuple[Any, Render]:
    """Load a causal LM and its renderer from a Hugging Face folder; ValueError says what is missing."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    if not (folder / "config.json").is_file():
        raise ValueError(f"{folder} is not a model folder: it has no config.json")
    if not any(folder.glob("*.safetensors")):
        raise ValueError(f"{folder} has no weights: expected a .safetensors file beside config.json")
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, local_files_only=True).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    if len(tokenizer) > model.config.vocab_size:
        raise ValueError(
            f"{folder} has a foreign tokenizer: it knows {len(tokenizer)} ids, the model {model.config.vocab_size}"
        )
    return model, Render(tokenizer)

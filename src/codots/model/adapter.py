"""LoRA adapters on disk, as peft writes them: which base they need, and their weights merged into it."""

from __future__ import annotations

import importlib.util
import json
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
"""Files that peft writes for an adapter."""


@dataclass(frozen=True)
class Adapted:
    """A folder with an adapter, and the folder of its base model. They may be the same."""

    adapter: Path
    base: Path

    @property
    def name(self) -> str:
        """Name of the adapter's folder."""
        return self.adapter.name

    def __str__(self) -> str:
        return f"{self.adapter} on {self.base}"


Model = Path | Adapted
"""Where the files of a model are: one folder, or those of an adapter and its base."""


def folders(model: Model) -> tuple[Path, ...]:
    """Return the folders of a model. The last one has the weights, and files of earlier ones come first."""
    return tuple(dict.fromkeys((model.adapter, model.base))) if isinstance(model, Adapted) else (model,)


def absolute(model: Model) -> Model:
    """Return a model with absolute paths."""
    if isinstance(model, Adapted):
        return Adapted(model.adapter.absolute(), model.base.absolute())
    return model.absolute()


def holder(model: Model, file: str) -> Path:
    """Return the first folder of a model that has this file, or its last folder."""
    found = folders(model)
    return next((folder for folder in found if (folder / file).is_file()), found[-1])


def weight_files(folder: Path) -> list[Path]:
    """Return the files with full weights in a folder."""
    return sorted(path for path in folder.glob("*.safetensors") if path.name != WEIGHTS)


def base_name(folder: Path) -> str | None:
    """Return the base that an adapter names. Raises ValueError if its config cannot be read."""
    try:
        named = json.loads((folder / CONFIG).read_text()).get("base_model_name_or_path")
    except (OSError, ValueError, AttributeError) as error:
        raise ValueError(f"{folder / CONFIG} is not the config of an adapter: {error}") from error
    return str(named) if named else None


def check_adapter(folder: Path) -> None:
    """Raise ValueError if an adapter cannot be loaded."""
    if importlib.util.find_spec("peft") is None:
        raise ValueError(f"{folder} is a LoRA adapter, which needs peft: pip install 'codots[lora]'")
    if not (folder / WEIGHTS).is_file():
        raise ValueError(f"{folder} has {CONFIG}, but no {WEIGHTS}; expected an adapter as peft writes it")


def merge(model: Any, folder: Path) -> Any:
    """Return the model with an adapter merged into its weights.

    Raises ValueError if a weight of the adapter is missing or has no place in the model.
    """
    from peft import PeftConfig, PeftModel

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # peft uses deprecated names of transformers; what does not fit is raised below
        wrapped = PeftModel(model, PeftConfig.from_pretrained(folder))
        found = wrapped.load_adapter(folder, wrapped.active_adapter)
    for names, what in (
        (found.missing_keys, "lacks weights of layers"),
        (found.unexpected_keys, "has weights without a place"),
    ):
        if names:
            raise ValueError(f"the adapter {what} in its base, such as {sorted(names)[0]}")
    plain = wrapped.merge_and_unload()
    return plain.requires_grad_(True)  # peft freezes the base

"""Models of the Hugging Face hub: found in the local cache, or downloaded into it."""

from __future__ import annotations

import json
import logging
import re
from pathlib import Path

from codots.model.adapter import CONFIG, WEIGHTS, weight_files

FILES = ["*.json", "*.safetensors", "*.jinja", "*.model", "*.txt"]
"""Files of a model that are read."""
OTHERS = ["*/*", "consolidated*"]
"""Files that are not read although their names fit: those in subfolders, and weights in another format."""
INDEX = "model.safetensors.index.json"
OURS = ("runs/", "models/")
"""How the paths of trained and imported models begin in recipes."""
log = logging.getLogger("codots")


def is_hub_id(name: str) -> bool:
    """Return whether a name is `org/name` or `org/name@revision`, and not a path.

    A name whose first part is a folder here, `runs` or `models` is a path, so that a mistyped or untrained model is not
    looked up on the network.
    """
    id, _, _ = name.partition("@")
    fits = re.fullmatch(r"\w[\w.-]*/\w[\w.-]*(@[\w./-]+)?", name)
    return fits is not None and not name.startswith(OURS) and not Path(name).exists() and not Path(id).parent.exists()


def snapshot(name: str) -> Path:
    """Return the folder of a hub model in the local cache; download it if it is missing and the settings allow that.

    Raises ValueError with what to do if the model is not found.
    """
    from huggingface_hub import constants, is_offline_mode, snapshot_download

    id, _, revision = name.partition("@")

    def find(local: bool) -> Path:
        return Path(
            snapshot_download(
                id,
                revision=revision or None,
                cache_dir=constants.HF_HUB_CACHE,
                local_files_only=local,
                allow_patterns=FILES,
                ignore_patterns=OTHERS,
            )
        )

    try:
        if is_whole(folder := find(local=True)):
            return folder
    except Exception as error:  # of many kinds, and not finding a model is not an error yet
        log.debug(f"{name} is not in the cache: {error}")
    if is_offline_mode():
        raise ValueError(
            f"no model at {name!r}: no such folder, the Hugging Face cache ({constants.HF_HUB_CACHE}) does not have "
            f"all of its files, and HF_HUB_OFFLINE is set; expected HF_HUB_OFFLINE=0, or `hf download {id}` first"
        )
    log.warning(f"downloading {name} from {constants.ENDPOINT} into {constants.HF_HUB_CACHE}")
    try:
        folder = find(local=False)
    except Exception as error:
        raise ValueError(
            f"no model at {name!r}: no such folder, and it cannot be downloaded: {_line(error)}"
        ) from error
    if not is_whole(folder):
        raise ValueError(f"{name} has no config.json with .safetensors weights, and no adapter; see {folder}")
    return folder


def is_whole(folder: Path) -> bool:
    """Return whether a folder has a model with all of its weights, or an adapter."""
    if (folder / CONFIG).is_file() and (folder / WEIGHTS).is_file():
        return True
    if (folder / INDEX).is_file():
        names = set(json.loads((folder / INDEX).read_text())["weight_map"].values())
        return (folder / "config.json").is_file() and all((folder / name).is_file() for name in names)
    return (folder / "config.json").is_file() and bool(weight_files(folder))


def _line(error: Exception) -> str:
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)

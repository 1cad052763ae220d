"""How a model reads several sequences: packed as rows of one forward pass, or each alone, as the model itself does.

The decision is made once for a model, by comparing both on short random sequences.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from codots.model.attention import Rows, run, use_row_attention
from codots.model.kind import text_config

LENGTHS = (7, 19, 2, 12)
"""Lengths of the random sequences; the longest is also read in two parts."""
TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-4}
"""Largest difference of two computations of the same logits, relative to their spread, by dtype."""
HALF_TOLERANCE = 0.05
COLUMNS = 256
"""About how many of an id's logits are compared, so that a large vocabulary takes little memory."""
PLAIN_LAYERS = ("full_attention", "sliding_attention")
"""Values of `layer_types` for which short sequences show whether rows are right."""
HIDDEN = ("index_topk", "attention_chunk_size")
"""Options of some models that hide keys only from queries beyond a length which no short sequence reaches."""


@dataclass(frozen=True)
class ForwardPath:
    """How a model reads several sequences."""

    rows: bool = True
    """Whether one forward pass reads several sequences; otherwise each is read alone."""
    why: str = ""
    """The layer that needs the slower path, and why; empty with `rows`."""
    cached: bool = True
    """Whether the model's own cache gives the logits of its full forward pass; otherwise it is not used."""
    switches: tuple[int, ...] = ()
    """Lengths above which the model reads all positions with other rotary embeddings, ascending."""

    def __str__(self) -> str:
        """Return the path in words."""
        slower = "each sequence alone" if self.cached else "each sequence alone, again for each token"
        return "packed rows" if self.rows else f"slower path, {slower}: {self.why}"


def path_of(model: Any) -> ForwardPath:
    """Return how a model reads several sequences, and install the row attention if it fits.

    Raises ValueError for a model whose logits depend on later ids, or that cannot read a sequence at all.
    """
    if not hasattr(model, "forward_path"):
        with torch.no_grad(), _evaluating(model):
            model.forward_path = _in_float32(model, _choose)
    path: ForwardPath = model.forward_path
    if path.rows:
        use_row_attention(model)  # again, since its layers may have been replaced, by LoRA
    return path


def rows_fit_shape(model: Any) -> bool:
    """Return whether packed rows reach every layer of a model on the meta device, whose logits cannot be compared.

    The row attention is installed if they do.
    """
    own, seen = model.config._attn_implementation, dict[int, int | None]()
    if _unfit_config(text_config(model), _switches_of(model)):
        return False
    try:
        _packed(use_row_attention(model), _random_ids(model), seen)
    except Exception:
        seen.clear()
    if fits := set(range(text_config(model).num_hidden_layers)) <= set(seen):
        return fits
    model.set_attn_implementation(own)
    return fits


def read_alone(model: Any, ids_L: Tensor, path: ForwardPath) -> Tensor:
    """Return the model's output for one sequence, (L, V), or (L, hidden) for the part of it below the LM head.

    The output at each index is that of the model's forward pass over the ids up to there.
    """
    states: Tensor = model(input_ids=ids_L[None], use_cache=False)[0][0]
    for switch in reversed(path.switches):
        if len(ids_L) > switch:
            before = model(input_ids=ids_L[None, :switch], use_cache=False)[0][0]
            states = torch.cat([before, states[switch:]])
    return states


def last_only(model: Any) -> dict[str, int]:
    """Return the option with which a model computes only its last logits, if it has one."""
    return {"logits_to_keep": 1} if "logits_to_keep" in inspect.signature(model.forward).parameters else {}


def _choose(model: Any) -> ForwardPath:
    switches = _switches_of(model)
    probes = [ids[: min(switches, default=None)] for ids in _random_ids(model)]
    longest = max(probes, key=len)
    half = len(longest) // 2
    try:
        alone = [_some(model(input_ids=ids[None], use_cache=False)) for ids in probes]
        whole, start = (_some(model(input_ids=ids[None], use_cache=False)) for ids in (longest, longest[:half]))
    except Exception as error:
        raise ValueError(f"{type(model).__name__} cannot read a sequence of ids: {_line(error)}") from error
    if not _equal(start, whole[:half]):
        raise ValueError(f"{_layer_class(model)} is not causal: the logits of an id depend on later ids")
    if why := _unfit_config(text_config(model), switches) or _unfit_rows(model, probes, torch.cat(alone)):
        return ForwardPath(False, why, _is_cache_right(model, longest, half, whole), switches)
    return ForwardPath()


def _in_float32(model: Any, choose: Callable[[Any], ForwardPath]) -> ForwardPath:
    """Choose with the weights in float32, where rounding hides nothing, if memory allows; they return unchanged."""
    dtypes = {weight: weight.dtype for weight in model.parameters() if weight.dtype in (torch.bfloat16, torch.float16)}
    try:
        for weight in dtypes:
            weight.data = weight.data.float()
        return choose(model)
    except torch.OutOfMemoryError:
        _restore(dtypes)
        return choose(model)
    finally:
        _restore(dtypes)


def _restore(dtypes: dict[Any, torch.dtype]) -> None:
    for weight, dtype in dtypes.items():
        weight.data = weight.data.to(dtype)


@contextmanager
def _evaluating(model: Any) -> Iterator[None]:
    """Turn dropout off for a model in training mode."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


def _random_ids(model: Any) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(text_config(model).vocab_size, (sum(LENGTHS),), generator=generator)
    return list(torch.split(ids.to(model.device), list(LENGTHS)))


def _some(output: Any) -> Tensor:
    """Return some logits of every id, (L, about `COLUMNS`)."""
    logits_LV: Tensor = output.logits[0]
    return logits_LV[:, :: -(-logits_LV.shape[-1] // COLUMNS)].clone()


def _equal(some: Tensor, others: Tensor) -> bool:
    """Return whether two computations of the same logits differ by no more than rounding.

    What is added to all logits of an id does not count, since it does not change their logprobs.
    """
    tolerance = TOLERANCE.get(others.dtype, HALF_TOLERANCE)
    off, spread = (
        (x - x.mean(-1, keepdim=True)).square().mean().sqrt() for x in (some.float() - others.float(), others.float())
    )
    return bool(off <= tolerance * spread)


def _switches_of(model: Any) -> tuple[int, ...]:
    return tuple(sorted(set(_switches(getattr(text_config(model), "rope_parameters", None)))))


def _switches(parameters: Any) -> Iterator[int]:
    """Yield the lengths at which rotary embeddings change, also of parameters by layer type."""
    if not isinstance(parameters, dict):
        return
    if parameters.get("rope_type") == "longrope":
        yield int(parameters["original_max_position_embeddings"])
    for inner in parameters.values():
        yield from _switches(inner)


def _unfit_config(config: Any, switches: tuple[int, ...]) -> str:
    """Return what of a config needs the slower path although short sequences do not show it."""
    for layer, kind in enumerate(getattr(config, "layer_types", None) or ()):
        if kind not in PLAIN_LAYERS:
            return f"layer {layer} is {kind}"
    if set_options := [name for name in HIDDEN if getattr(config, name, None)]:
        return f"its attention has {set_options[0]}={getattr(config, set_options[0])}"
    if switches:
        return f"its rotary embedding (longrope) changes beyond {switches[0]} ids"
    return ""


def _unfit_rows(model: Any, probes: list[Tensor], alone_NC: Tensor) -> str:
    """Install the row attention if it computes the model's own logits; else leave the model and return why not."""
    own = model.config._attn_implementation
    seen: dict[int, int | None] = {}
    try:
        packed_NC = _packed(use_row_attention(model), probes, seen)
        why = _difference(model, seen, packed_NC, alone_NC)
    except Exception as error:
        why = f"{_layer_class(model, seen)} does not take packed rows ({_line(error)})"
    if why:
        model.set_attn_implementation(own)
    return why


class _Watched(Rows):
    """Rows that record which layers attend through them, and with which window."""

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, **how: Any) -> Tensor:
        self.shared["seen"][layer] = how.get("sliding_window")
        return super().attend(layer, query, key, value, **how)


def _packed(model: Any, probes: list[Tensor], seen: dict[int, int | None]) -> Tensor:
    """Return some logits of all sequences from one pass, (N, about `COLUMNS`)."""
    counts, device = np.array([len(ids) for ids in probes]), probes[0].device
    firsts = np.cumsum(counts) - counts

    def places(b: np.ndarray, width: int) -> tuple[Tensor, np.ndarray]:
        lines = np.minimum(firsts[b, None] + np.arange(width), counts.sum() - 1)
        return torch.from_numpy(lines).to(device), np.arange(len(b))

    rows = _Watched.of(counts, np.zeros_like(counts), places, lambda _, keys, values: (keys, values), device)
    rows.shared["seen"] = seen
    positions = torch.cat([torch.arange(count) for count in counts]).to(device)
    return _some(run(model, torch.cat(probes), positions, rows))


def _difference(model: Any, seen: dict[int, int | None], packed_NC: Tensor, alone_NC: Tensor) -> str:
    if unseen := sorted(set(range(text_config(model).num_hidden_layers)) - set(seen)):
        return f"{_layer_class(model, seen)} (layer {unseen[0]}) has an attention of its own"
    if not _equal(packed_NC, alone_NC):
        off = (packed_NC.float() - alone_NC.float()).abs().max()
        return f"packed rows change logits by up to {float(off):.2g} in {_layer_class(model)}"
    for layer, window in seen.items():
        if window != (expected := _window(text_config(model), layer)):
            return f"{_layer_class(model)} (layer {layer}) has a window of {expected}, packed rows one of {window}"
    return ""


def _window(config: Any, layer: int) -> int | None:
    """Return the sliding window of a layer by the config."""
    kinds = getattr(config, "layer_types", None)
    slides = kinds[layer] == "sliding_attention" if kinds else getattr(config, "use_sliding_window", True)
    window: int | None = getattr(config, "sliding_window", None) if slides else None
    return window


def _is_cache_right(model: Any, ids_L: Tensor, half: int, alone_LC: Tensor) -> bool:
    """Return whether the model's own cache gives the same logits, reading one half at once and the other by id."""
    try:
        output = model(input_ids=ids_L[None, :half], use_cache=True)
        logits = [_some(output)[-1:]]
        for id in ids_L[half:]:
            output = model(input_ids=id[None, None], past_key_values=output.past_key_values, use_cache=True)
            logits.append(_some(output))
    except Exception:
        return False
    return _equal(torch.cat(logits), alone_LC[half - 1 :])


def _layer_class(model: Any, seen: dict[int, int | None] | None = None) -> str:
    """Return the class of the first innermost layer that did not attend through the rows."""
    layers = [module for module in model.modules() if hasattr(module, "layer_idx")]
    inner = [m for m in layers if not any(hasattr(part, "layer_idx") for part in m.modules() if part is not m)]
    return next((type(m).__name__ for m in inner if m.layer_idx not in (seen or ())), type(model).__name__)


def _line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]

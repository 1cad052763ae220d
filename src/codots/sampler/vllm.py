"""A sampler that runs the model in vLLM: its processes batch all requests and keep the KV cache of common prefixes."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable
from typing import Any, Self

import torch
from torch import Tensor

from codots.core.deadline import LoopThread
from codots.core.rng import Names, stream
from codots.core.transcript import Sampled, StopReason
from codots.model.kind import max_positions, text_config
from codots.sampler.base import CACHE_BYTES, SESSIONS, FinalError, SamplingParams
from codots.sampler.vllm_engine import Limits, VllmEngine, check_vllm

MIN_TEMPERATURE = 0.01
"""Lowest temperature of vLLM except 0."""
PROBE_TOKENS = 16
"""Number of tokens that are sampled after a load and scored by the model."""
GAPS = {torch.float32: 1e-3}
HALF_GAP = 0.2
"""Largest mean difference between vLLM's and the model's logprobs of the probe, by the precision of the model."""


class VllmSession:
    """One growing sequence. Each request sends all of its ids; vLLM has the KV cache of those that it knows."""

    def __init__(self, sampler: VllmSampler, names: Names, ids: list[int] | None = None) -> None:
        self.sampler, self.names = sampler, names
        self.ids = ids or []
        self.turn = 0
        self._open = False

    async def __aenter__(self) -> Self:
        self._open = True
        return self

    async def __aexit__(self, *error: object) -> None:
        self._open = False

    async def sample(self, ids: list[int], params: SamplingParams) -> Sampled:
        """Append new ids and sample an answer. Logprobs are those of the distribution that was sampled from."""
        self._check_open()
        prompt = [*self.ids, *ids]
        if params.max_tokens < 1 or not prompt:
            raise ValueError(
                f"max_tokens is {params.max_tokens}, with {len(ids)} new token ids; "
                "expected max_tokens of at least 1, and new ids in the first request"
            )
        if len(prompt) >= self.sampler.max_length:
            return Sampled([], [], StopReason.FULL, [])
        seed = int(stream(*self.names, self.turn).integers(2**63))
        self.turn += 1
        self._open = False  # a partial answer cannot be continued
        sampled = await self.sampler.answer(prompt, params, seed)
        self._open = True
        self.ids = [*prompt, *sampled.ids]
        return sampled

    def fork(self, names: Names) -> VllmSession:
        """Return a branch of this session. Enter the branch before use."""
        self._check_open()
        return VllmSession(self.sampler, names, list(self.ids))

    def _check_open(self) -> None:
        if not self._open:
            raise RuntimeError("this session is closed, was cancelled, or is sampling another answer")


class VllmSampler:
    """Sampler of a causal LM in processes of vLLM, which have their own copy of the weights.

    The copy is loaded from `model` when the sampler is made and at each `load`, and a probe that vLLM samples must have
    the logprobs of the model. Before a load, answers in progress are finished; sessions go on with the new weights.
    """

    def __init__(
        self,
        model: Any,
        stop_ids: frozenset[int],
        probe: list[int],
        device: str = "cpu",
        *,
        state: Callable[[], dict[str, Tensor]] | None = None,
        max_sessions: int = SESSIONS,
        max_length: int | None = None,
        cache_bytes: int = CACHE_BYTES,
        tensor_parallel: int = 1,
    ) -> None:
        """Start vLLM on a device, or with `tensor_parallel` on the first ones of its kind.

        `probe` is a prompt. `state` returns the weights, if they are not those of `model.state_dict`. Raises ValueError
        if vLLM is missing, was not tested in this version, or cannot run the model.
        """
        check_vllm()
        device, _, number = device.partition(":")
        if number not in ("", "0"):
            raise ValueError(
                f"vLLM uses the first GPU, not {device}:{number}; expected device=cuda, CUDA_VISIBLE_DEVICES={number}"
            )
        self.model, self.stop_ids, self.state = model, stop_ids, state or model.state_dict
        self.max_length = min(max_positions(text_config(model)), max_length or 2**31)
        self.probe, self.places = probe[: self.max_length // 2], max_sessions
        self.version = 0
        self.sampled_tokens = 0
        self._answers = 0
        """Number of answers in progress."""
        self._idle, self._serving = asyncio.Event(), asyncio.Event()
        """Whether there is none, and whether new ones may start."""
        self._broken = ""
        dtype = str(model.dtype).removeprefix("torch.")
        size = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
        limits = Limits(device, dtype, self.max_length, max_sessions, cache_bytes, tensor_parallel)
        self._engine = VllmEngine(limits, size)
        self._thread = LoopThread()
        try:
            self._thread.run(self._start())
        except BaseException:
            self.close()
            raise

    def session(self, names: Names) -> VllmSession:
        """Open a session that draws the seed of each answer from `stream(*names, turn)`."""
        return VllmSession(self, names)

    async def load(self, weights: dict[str, Tensor] | None, version: int) -> None:
        """Serve other weights; pass None if the model was changed in place. Answers may be in progress.

        Raises RuntimeError if vLLM does not sample by the new weights.
        """
        if weights is not None:
            self.model.load_state_dict(weights)
        await asyncio.to_thread(self._write)
        await self._thread.await_(self._load(version))

    async def answer(self, ids: list[int], params: SamplingParams, seed: int) -> Sampled:
        """Sample an answer to a prompt. Raises FinalError if vLLM has ended, or has not taken new weights."""
        if 0 < params.temperature < MIN_TEMPERATURE:
            raise ValueError(
                f"the temperature is {params.temperature:g}; vLLM takes 0, or at least {MIN_TEMPERATURE:g}"
            )
        return await self._thread.await_(self._answer(ids, params, seed))

    def close(self) -> None:
        """Stop the processes of vLLM; may be called repeatedly."""
        if self._engine.folder.is_dir():
            self._thread.run(self._engine.stop())
            self._thread.close()
            shutil.rmtree(self._engine.folder, ignore_errors=True)

    async def _start(self) -> None:
        """Start vLLM with random weights and load those of the model, so that a load without effect is found here."""
        self._write()
        try:
            await self._engine.start()
            self._idle.set()
            await self._load(0)
        except Exception as error:
            raise ValueError(f"vLLM cannot run this model: {self._engine.cause(error)}") from error

    def _write(self) -> None:
        """Write the model to the folder from which vLLM loads it, with the names of weights that checkpoints have."""
        self.model.save_pretrained(self._engine.folder, state_dict=self.state())

    async def _load(self, version: int) -> None:
        self._serving.clear()
        await self._idle.wait()
        try:
            await self._engine.load()
            await self._check(version)
        except Exception as error:
            ours = isinstance(error, RuntimeError)
            self._broken = str(error) if ours else f"vLLM did not take version {version}: {self._engine.cause(error)}"
            raise RuntimeError(self._broken) from error
        finally:
            self._serving.set()
        self.version = version

    async def _check(self, version: int) -> None:
        """Raise RuntimeError unless vLLM samples by the weights of the model."""
        sampled = await self._engine.sample(self.probe, SamplingParams(PROBE_TOKENS), 0, frozenset(), version)
        gap, most = self._gap(sampled), GAPS.get(self.model.dtype, HALF_GAP)
        if not gap <= most:
            raise RuntimeError(
                f"vLLM does not sample by the weights of version {version}: its logprobs differ from the model's by "
                f"{gap:.3g} on average; expected at most {most:g}"
            )

    def _gap(self, sampled: Sampled) -> float:
        """Return the mean difference between the logprobs of an answer to the probe and those of the model."""
        ids = torch.tensor([[*self.probe, *sampled.ids]], device=self.model.device)
        with torch.no_grad():
            logits_TV = self.model(input_ids=ids, use_cache=False).logits[0, len(self.probe) - 1 : -1].float()
        own = logits_TV.log_softmax(-1).gather(1, ids[0, len(self.probe) :, None])[:, 0]
        return float((own.cpu() - torch.tensor(sampled.logprobs)).abs().mean())

    async def _answer(self, ids: list[int], params: SamplingParams, seed: int) -> Sampled:
        while not self._serving.is_set():
            await self._serving.wait()
        if self._broken:
            raise FinalError(self._broken)
        self._answers += 1
        self._idle.clear()
        try:
            sampled = await self._engine.sample(ids, params, seed, self.stop_ids, self.version)
        except FinalError as error:
            self._broken = str(error)
            raise
        finally:
            self._answers -= 1
            if not self._answers:
                self._idle.set()
        self.sampled_tokens += len(sampled.ids)
        return sampled

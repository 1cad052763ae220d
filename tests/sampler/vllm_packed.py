"""The extension of the vLLM worker without its change of linear layers, for the check that notices what follows."""

import vllm.model_executor.layers.utils as layers

from codots.sampler import vllm_worker
from codots.sampler.vllm_worker import Reloading  # noqa: F401

layers.dispatch_cpu_unquantized_gemm = vllm_worker._dispatch

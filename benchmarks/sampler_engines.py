"""The engines that `sampler.py` times; each replays the same lives in its own process.

    python sampler_engines.py ENGINE MODEL DTYPE LIVES

For every line on stdin the script writes one line to stdout: the wall and CPU seconds of all lives, starting with an
empty cache, and the number of sampled ids. Logprobs are computed as well. The script imports only what the engine
needs, because an engine may run in another environment. Ids are sampled at temperature 1 over the whole vocabulary;
every answer has exactly the recorded length.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}

Turn = tuple[list[int], int]
"""The ids that the model reads, and the number of ids to sample."""
Life = list[list[Turn]]
"""Consecutive sessions, each a list of turns."""
Logprobs = list[list[float]]
"""For each life, the logprobs of all its sampled ids."""


class Codots:
    """The sampler of this package."""

    def __init__(self, folder: str, dtype: str = "float32") -> None:
        from codots.model.device import Place
        from codots.model.load import load_model
        from codots.sampler.local import LocalSampler

        self.sampler = LocalSampler(load_model(Path(folder), Place("cpu", dtype))[0], frozenset())

    def replay(self, lives: list[Life]) -> Logprobs:
        """Replay all lives concurrently; a new event loop starts with an empty cache."""
        from codots.sampler.base import SamplingParams

        async def replay_one(i: int, life: Life) -> list[float]:
            logprobs = []
            for j, turns in enumerate(life):
                async with self.sampler.session(("life", i, j)) as session:
                    for ids, count in turns:
                        logprobs += (await session.sample(ids, SamplingParams(count))).logprobs
            return logprobs

        async def replay_all() -> Logprobs:
            return await asyncio.gather(*(replay_one(i, life) for i, life in enumerate(lives)))

        return asyncio.run(replay_all())


class Batched:
    """Base class of transformers engines that run the i-th sessions of all lives as one batch."""

    def __init__(self, folder: str, dtype: str = "float32") -> None:
        import torch
        from transformers import AutoModelForCausalLM

        torch.set_num_threads(1)
        self.torch = torch
        self.model = AutoModelForCausalLM.from_pretrained(
            folder, dtype=getattr(torch, dtype), attn_implementation="sdpa"
        ).eval()
        self.model.generation_config.eos_token_id = None

    def replay(self, lives: list[Life]) -> Logprobs:
        """Replay the lives session by session."""
        logprobs: Logprobs = [[] for _ in lives]
        with self.torch.inference_mode():
            for j in range(max(map(len, lives))):
                active = [i for i, life in enumerate(lives) if j < len(life)]
                for i, more in zip(active, self.sessions([lives[i][j] for i in active]), strict=True):
                    logprobs[i] += more
        return logprobs

    def padded(self, rows: list[list[int]]) -> tuple[Any, Any]:
        """Pad rows of ids on the left; return the ids and the attention mask."""
        longest = max(map(len, rows))
        ids = self.torch.tensor([[0] * (longest - len(row)) + row for row in rows])
        return ids, self.torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in rows])


class Generate(Batched):
    """`model.generate`, which reads the whole session again in every turn."""

    def sessions(self, sessions: list[list[Turn]]) -> Logprobs:
        rows, found = [[] for _ in sessions], [[] for _ in sessions]
        for t in range(max(map(len, sessions))):
            active = [b for b, turns in enumerate(sessions) if t < len(turns)]
            counts = [sessions[b][t][1] for b in active]
            ids, mask = self.padded([rows[b] + sessions[b][t][0] for b in active])
            output = self.model.generate(
                input_ids=ids,
                attention_mask=mask,
                max_new_tokens=max(counts),
                do_sample=True,
                temperature=1.0,
                top_k=0,
                top_p=1.0,
                pad_token_id=0,
                output_logits=True,
                return_dict_in_generate=True,
            )
            new = output.sequences[:, ids.shape[1] :]
            logprobs = (
                self.torch.stack(output.logits, 1).float().log_softmax(-1).gather(2, new[:, :, None])[:, :, 0].tolist()
            )
            for b, count, answer, more in zip(active, counts, new.tolist(), logprobs, strict=True):
                rows[b] += sessions[b][t][0] + answer[:count]
                found[b] += more[:count]
        return found


class PaddedLoop(Batched):
    """A loop with one padded KV cache for all turns; a turn reads only new ids, and finished rows are dropped."""

    def sessions(self, sessions: list[list[Turn]]) -> Logprobs:
        from transformers import DynamicCache

        torch = self.torch
        cache, found = DynamicCache(), [[] for _ in sessions]
        rows, last = list(zip(sessions, found, strict=True)), [[] for _ in sessions]
        mask_BW = torch.zeros(len(rows), 0, dtype=torch.long)
        for t in range(max(map(len, sessions))):
            left = [b for b, (turns, _) in enumerate(rows) if t < len(turns)]
            if len(left) < len(rows):
                rows, last, mask_BW = [rows[b] for b in left], [last[b] for b in left], mask_BW[left]
                cache.batch_select_indices(torch.tensor(left))
            counts = [turns[t][1] for turns, _ in rows]
            ids_BT, new_BT = self.padded([ids + turns[t][0] for ids, (turns, _) in zip(last, rows, strict=True)])
            ids, logprobs, counts_B = [], [], torch.tensor(counts)
            for step in range(max(counts)):
                mask_BW = torch.cat([mask_BW, new_BT], 1)
                logprobs_BV = self.logits(ids_BT, mask_BW, cache).float().log_softmax(-1)
                ids_BT = torch.multinomial(logprobs_BV.exp(), 1)
                logprobs.append(logprobs_BV.gather(1, ids_BT))
                ids.append(ids_BT)
                new_BT = (step + 1 < counts_B)[:, None].long()  # mask the ids of finished rows
            # The last sampled id has no keys yet; the next turn reads it.
            last = [answer[n - 1 : n] for answer, n in zip(torch.cat(ids, 1).tolist(), counts, strict=True)]
            for (_, row), more, n in zip(rows, torch.cat(logprobs, 1).tolist(), counts, strict=True):
                row += more[:n]
        return found

    def logits(self, ids_BT: Any, mask_BW: Any, cache: Any) -> Any:
        """Run the new ids of all rows; the mask is built here because transformers builds it more slowly."""
        new, width = ids_BT.shape[1], mask_BW.shape[1]
        mask = mask_BW[:, None, None, :].bool()
        if new > 1:
            ones = self.torch.ones(new, width, dtype=self.torch.bool)
            # A padding position attends to itself: an empty attention row would return NaN.
            mask = (mask & ones.tril(width - new)) | (ones.tril(width - new) & ones.triu(width - new))
        positions_BT = (mask_BW.cumsum(1)[:, -new:] - 1).clamp(min=0)
        return self.model(
            input_ids=ids_BT, attention_mask=mask, position_ids=positions_BT, past_key_values=cache, logits_to_keep=1
        ).logits[:, -1]


class Queued:
    """Base class of engines with a request queue; each turn is requested as soon as the previous one is answered."""

    def replay(self, lives: list[Life]) -> Logprobs:
        """Replay all lives concurrently."""
        turns, rows, found = [turns_of(life) for life in lives], [[] for _ in lives], [[] for _ in lives]
        requests, waiting = 0, {}

        def request_next(i: int) -> None:
            nonlocal requests
            if (turn := next(turns[i], None)) is not None:
                opens, ids, count = turn
                rows[i] = ids if opens else rows[i] + ids
                requests += 1
                waiting[str(requests)] = i
                self.request(str(requests), rows[i], count)

        for i in range(len(lives)):
            request_next(i)
        while waiting:
            for name, ids, logprobs in self.answers():
                i = waiting.pop(name)
                rows[i] = rows[i] + ids
                found[i] += logprobs
                request_next(i)
        return found


class Continuous(Batched, Queued):
    """Continuous batching of transformers, as in `generate_batch`, with shared blocks."""

    manager: Any = None

    def begin(self) -> None:
        """Start a new manager with an empty cache."""
        from transformers import ContinuousBatchingConfig, GenerationConfig

        self.end()
        batching = ContinuousBatchingConfig(
            page_size=32, num_blocks=1024, max_batch_tokens=2048, return_logprobs=True, allow_block_sharing=True
        )
        sampling = GenerationConfig(
            do_sample=True, temperature=1.0, top_k=0, top_p=1.0, max_new_tokens=64, eos_token_id=-1, pad_token_id=0
        )
        self.manager = self.model.init_continuous_batching(sampling, continuous_batching_config=batching)
        self.manager.start()

    def end(self) -> None:
        """Stop the thread of the manager."""
        if self.manager:
            self.manager.stop(block=True)
            self.manager.destroy()

    replay = Queued.replay

    def request(self, name: str, ids: list[int], count: int) -> None:
        self.manager.add_request(ids, request_id=name, max_new_tokens=count)

    def answers(self) -> Iterator[tuple[str, list[int], list[float]]]:
        if (output := self.manager.get_result(timeout=60)) is None or output.error:
            raise RuntimeError(f"no answer: {output and output.error}")
        yield output.request_id, output.generated_tokens, output.logprobs


class VLLM(Queued):
    """vLLM on the CPU, in this process, with prefix caching and compilation (slow start, faster passes)."""

    eager = False

    def __init__(self, folder: str, dtype: str = "float32") -> None:
        cpu = {"ENABLE_V1_MULTIPROCESSING": 0, "CPU_KVCACHE_SPACE": 1, "CPU_OMP_THREADS_BIND": "nobind"}
        quiet = {"LOGGING_LEVEL": "ERROR", "NO_USAGE_STATS": 1}
        os.environ |= {f"VLLM_{name}": str(value) for name, value in (cpu | quiet).items()}
        from vllm import LLM

        limits = {"dtype": dtype, "max_num_seqs": 64, "enable_prefix_caching": True}
        features = {"enforce_eager": self.eager, "skip_tokenizer_init": True, "disable_log_stats": True}
        self.engine = LLM(folder, **limits, **features).llm_engine

    def begin(self) -> None:
        """Empty the cache."""
        self.engine.reset_prefix_cache()

    def request(self, name: str, ids: list[int], count: int) -> None:
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        options = {"ignore_eos": True, "logprobs": 0, "detokenize": False, "output_kind": RequestOutputKind.FINAL_ONLY}
        self.engine.add_request(name, {"prompt_token_ids": ids}, SamplingParams(max_tokens=count, **options))

    def answers(self) -> Iterator[tuple[str, list[int], list[float]]]:
        for output in self.engine.step():
            if output.finished:
                ids, places = list(output.outputs[0].token_ids), output.outputs[0].logprobs
                yield output.request_id, ids, [place[id].logprob for id, place in zip(ids, places, strict=True)]


class EagerVLLM(VLLM):
    """vLLM without compilation."""

    eager = True


def turns_of(life: Life) -> Iterator[tuple[bool, list[int], int]]:
    """Yield the turns of a life, and whether each opens a session."""
    for session in life:
        for t, (ids, count) in enumerate(session):
            yield t == 0, ids, count


ENGINES: dict[str, Callable[..., Any]] = {
    "codots": Codots,
    "generate": Generate,
    "padded loop": PaddedLoop,
    "generate_batch": Continuous,
    "vllm": VLLM,
    "vllm eager": EagerVLLM,
}


def main() -> None:
    """Replay the lives of the named load once for every line on stdin, and print the timing."""
    name, folder, dtype, lives = sys.argv[1:]
    answers, sys.stdout = sys.stdout, sys.stderr  # keep the output of libraries out of the answers
    engine, loads = ENGINES[name](folder, dtype), json.loads(Path(lives).read_text())
    for line in sys.stdin:
        getattr(engine, "begin", bool)()
        start, cpu = time.perf_counter(), time.process_time()
        logprobs = engine.replay(loads[line.strip()])
        seconds = time.perf_counter() - start, time.process_time() - cpu
        print(json.dumps([*seconds, sum(map(len, logprobs))]), file=answers, flush=True)
    getattr(engine, "end", bool)()


if __name__ == "__main__":
    main()

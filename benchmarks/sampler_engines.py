"""The engines that `sampler.py` times: each plays the same lives, in a process of its own.

    python sampler_engines.py ENGINE MODEL LIVES

An answer a line on stdout for every line on stdin: the seconds that all lives took, sampled ids and their logprobs
included, from an empty cache on. Nothing is imported but what the engine itself needs, so that one may come out of
another environment. Every id that the model may say is sampled at temperature 1; an answer is as long as the life says.
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
"""What the model reads, and how many ids it is to answer with."""
Life = list[list[Turn]]
"""Sessions one after the other, each of turns."""
Told = list[list[float]]
"""The logprobs of all ids that a life sampled."""


class Ours:
    """The sampler of this package."""

    def __init__(self, folder: str) -> None:
        from codots.model.load import load_model
        from codots.sampler.local import LocalSampler

        self.sampler = LocalSampler(load_model(Path(folder))[0], frozenset())

    def play(self, lives: list[Life]) -> Told:
        """Live all lives at once; a new event loop begins with an empty cache."""
        from codots.sampler.base import SamplingParams

        async def live(i: int, life: Life) -> list[float]:
            told = []
            for j, turns in enumerate(life):
                async with self.sampler.session(("life", i, j)) as session:
                    for ids, count in turns:
                        told += (await session.sample(ids, SamplingParams(count))).logprobs
            return told

        async def all_lives() -> Told:
            return await asyncio.gather(*(live(i, life) for i, life in enumerate(lives)))

        return asyncio.run(all_lives())


class Plain:
    """A model of transformers, called in batches: `sessions` of the same place in their lives go side by side."""

    def __init__(self, folder: str) -> None:
        import torch
        from transformers import AutoModelForCausalLM

        torch.set_num_threads(1)
        self.torch = torch
        self.model = AutoModelForCausalLM.from_pretrained(
            folder, dtype=torch.float32, attn_implementation="sdpa"
        ).eval()
        self.model.generation_config.eos_token_id = None

    def play(self, lives: list[Life]) -> Told:
        """Live the lives session by session."""
        told: Told = [[] for _ in lives]
        with self.torch.inference_mode():
            for j in range(max(map(len, lives))):
                at = [i for i, life in enumerate(lives) if j < len(life)]
                for i, more in zip(at, self.sessions([lives[i][j] for i in at]), strict=True):
                    told[i] += more
        return told

    def padded(self, rows: list[list[int]]) -> tuple[Any, Any]:
        """Pad rows of ids on the left; gives them and where they are."""
        most = max(map(len, rows))
        ids = self.torch.tensor([[0] * (most - len(row)) + row for row in rows])
        return ids, self.torch.tensor([[0] * (most - len(row)) + [1] * len(row) for row in rows])


class Generate(Plain):
    """`model.generate`, which reads everything again at every turn."""

    def sessions(self, sessions: list[list[Turn]]) -> Told:
        rows, told = [[] for _ in sessions], [[] for _ in sessions]
        for t in range(max(map(len, sessions))):
            at = [b for b, turns in enumerate(sessions) if t < len(turns)]
            counts = [sessions[b][t][1] for b in at]
            ids, there = self.padded([rows[b] + sessions[b][t][0] for b in at])
            said = self.model.generate(
                input_ids=ids,
                attention_mask=there,
                max_new_tokens=max(counts),
                do_sample=True,
                temperature=1.0,
                top_k=0,
                top_p=1.0,
                pad_token_id=0,
                output_logits=True,
                return_dict_in_generate=True,
            )
            new = said.sequences[:, ids.shape[1] :]
            logprobs = self.torch.stack(said.logits, 1).log_softmax(-1).gather(2, new[:, :, None])[:, :, 0].tolist()
            for b, count, answer, more in zip(at, counts, new.tolist(), logprobs, strict=True):
                rows[b] += sessions[b][t][0] + answer[:count]
                told[b] += more[:count]
        return told


class Loop(Plain):
    """One padded cache carried from turn to turn: a turn reads only what is new, rows that are over are dropped."""

    def sessions(self, sessions: list[list[Turn]]) -> Told:
        from transformers import DynamicCache

        torch = self.torch
        cache, told = DynamicCache(), [[] for _ in sessions]
        rows, last = list(zip(sessions, told, strict=True)), [[] for _ in sessions]
        there = torch.zeros(len(rows), 0, dtype=torch.long)
        for t in range(max(map(len, sessions))):
            left = [b for b, (turns, _) in enumerate(rows) if t < len(turns)]
            if len(left) < len(rows):
                rows, last, there = [rows[b] for b in left], [last[b] for b in left], there[left]
                cache.batch_select_indices(torch.tensor(left))
            counts = [turns[t][1] for turns, _ in rows]
            ids_BT, new_BT = self.padded([one + turns[t][0] for one, (turns, _) in zip(last, rows, strict=True)])
            ids, logprobs, counts_B = [], [], torch.tensor(counts)
            for step in range(max(counts)):
                there = torch.cat([there, new_BT], 1)
                logprobs_BV = self.logits(ids_BT, there, cache).log_softmax(-1)
                ids_BT = torch.multinomial(logprobs_BV.exp(), 1)
                logprobs.append(logprobs_BV.gather(1, ids_BT))
                ids.append(ids_BT)
                new_BT = (step + 1 < counts_B)[:, None].long()  # the ids of rows that have ended are nobody's
            # The last sampled id has no keys yet, and is read with the next turn.
            last = [answer[n - 1 : n] for answer, n in zip(torch.cat(ids, 1).tolist(), counts, strict=True)]
            for (_, mine), more, n in zip(rows, torch.cat(logprobs, 1).tolist(), counts, strict=True):
                mine += more[:n]
        return told

    def logits(self, ids_BT: Any, there_BW: Any, cache: Any) -> Any:
        """Run the new ids of all rows; the mask is made here, as making it inside takes longer."""
        new, width = ids_BT.shape[1], there_BW.shape[1]
        mask = there_BW[:, None, None, :].bool()
        if new > 1:
            ones = self.torch.ones(new, width, dtype=self.torch.bool)
            # A place of padding looks at itself, as nothing at all would give it numbers that are none.
            mask = (mask & ones.tril(width - new)) | (ones.tril(width - new) & ones.triu(width - new))
        positions_BT = (there_BW.cumsum(1)[:, -new:] - 1).clamp(min=0)
        return self.model(
            input_ids=ids_BT, attention_mask=mask, position_ids=positions_BT, past_key_values=cache, logits_to_keep=1
        ).logits[:, -1]


class Served:
    """An engine that takes requests at any time: `ask` for a turn as soon as `answers` has the one before."""

    def play(self, lives: list[Life]) -> Told:
        """Live all lives at once."""
        walks, rows, told = [walk(life) for life in lives], [[] for _ in lives], [[] for _ in lives]
        asked, waiting = 0, {}

        def ask(i: int) -> None:
            nonlocal asked
            if (turn := next(walks[i], None)) is not None:
                fresh, ids, count = turn
                rows[i] = ids if fresh else rows[i] + ids
                asked += 1
                waiting[str(asked)] = i
                self.ask(str(asked), rows[i], count)

        for i in range(len(lives)):
            ask(i)
        while waiting:
            for name, ids, logprobs in self.answers():
                i = waiting.pop(name)
                rows[i] = rows[i] + ids
                told[i] += logprobs
                ask(i)
        return told


class Continuous(Plain, Served):
    """Continuous batching of transformers, which `generate_batch` puts to work, with blocks shared."""

    manager: Any = None

    def begin(self) -> None:
        """Start anew, with an empty cache."""
        from transformers import ContinuousBatchingConfig, GenerationConfig

        self.end()
        how = ContinuousBatchingConfig(
            page_size=32, num_blocks=1024, max_batch_tokens=2048, return_logprobs=True, allow_block_sharing=True
        )
        sampling = GenerationConfig(
            do_sample=True, temperature=1.0, top_k=0, top_p=1.0, max_new_tokens=64, eos_token_id=-1, pad_token_id=0
        )
        self.manager = self.model.init_continuous_batching(sampling, continuous_batching_config=how)
        self.manager.start()

    def end(self) -> None:
        """Let its thread end."""
        if self.manager:
            self.manager.stop(block=True)
            self.manager.destroy()

    play = Served.play

    def ask(self, name: str, ids: list[int], count: int) -> None:
        self.manager.add_request(ids, request_id=name, max_new_tokens=count)

    def answers(self) -> Iterator[tuple[str, list[int], list[float]]]:
        if (said := self.manager.get_result(timeout=60)) is None or said.error:
            raise RuntimeError(f"no answer: {said and said.error}")
        yield said.request_id, said.generated_tokens, said.logprobs


class VLLM(Served):
    """vLLM on the CPU, in this process, with prefixes cached; compiled, it is faster after a slow start."""

    eager = False

    def __init__(self, folder: str) -> None:
        here = {"ENABLE_V1_MULTIPROCESSING": 0, "CPU_KVCACHE_SPACE": 1, "CPU_OMP_THREADS_BIND": "nobind"}
        quiet = {"LOGGING_LEVEL": "ERROR", "NO_USAGE_STATS": 1}
        os.environ |= {f"VLLM_{name}": str(value) for name, value in (here | quiet).items()}
        from vllm import LLM

        room = {"dtype": "float32", "max_num_seqs": 64, "enable_prefix_caching": True}
        spared = {"enforce_eager": self.eager, "skip_tokenizer_init": True, "disable_log_stats": True}
        self.engine = LLM(folder, **room, **spared).llm_engine

    def begin(self) -> None:
        """Empty the cache."""
        self.engine.reset_prefix_cache()

    def ask(self, name: str, ids: list[int], count: int) -> None:
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        how = {"ignore_eos": True, "logprobs": 0, "detokenize": False, "output_kind": RequestOutputKind.FINAL_ONLY}
        self.engine.add_request(name, {"prompt_token_ids": ids}, SamplingParams(max_tokens=count, **how))

    def answers(self) -> Iterator[tuple[str, list[int], list[float]]]:
        for said in self.engine.step():
            if said.finished:
                ids, places = list(said.outputs[0].token_ids), said.outputs[0].logprobs
                yield said.request_id, ids, [place[id].logprob for id, place in zip(ids, places, strict=True)]


class EagerVLLM(VLLM):
    """The same without its compiler."""

    eager = True


def walk(life: Life) -> Iterator[tuple[bool, list[int], int]]:
    """Walk the turns of a life, and whether each opens a session."""
    for session in life:
        for t, (ids, count) in enumerate(session):
            yield t == 0, ids, count


ENGINES: dict[str, Callable[[str], Any]] = {
    "codots": Ours,
    "generate": Generate,
    "padded loop": Loop,
    "generate_batch": Continuous,
    "vllm": VLLM,
    "vllm eager": EagerVLLM,
}


def main() -> None:
    """Time the lives once for every line that comes; the first time, which warms up, is not told."""
    engine, folder, lives = sys.argv[1:]
    answers, sys.stdout = sys.stdout, sys.stderr  # what libraries print is no answer
    player, plan = ENGINES[engine](folder), json.loads(Path(lives).read_text())
    for line in sys.stdin:
        getattr(player, "begin", bool)()
        start, cpu = time.perf_counter(), time.process_time()
        told = player.play(plan[line.strip()])
        taken = time.perf_counter() - start, time.process_time() - cpu
        print(json.dumps([*taken, sum(map(len, told))]), file=answers, flush=True)
    getattr(player, "end", bool)()


if __name__ == "__main__":
    main()

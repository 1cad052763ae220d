"""Take training steps with TRL's GRPOTrainer, for `benchmarks/trl.py`; needs only TRL.

The script reads the model, the episodes and its settings from a JSON file. For every line on stdin it takes one
training step and prints the figures. TRL has no lives: all episodes start at once, and environment texts come from the
recorded episodes, so environments cost it nothing. Turns are sampled as in TRL's own tool loop.
"""

import json
import os
import sys
import time
from collections import Counter

os.environ |= {"TRL_EXPERIMENTAL_SILENCE": "1"}
ANSWERS = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)  # keep the output of libraries out of the answers

import torch  # noqa: E402
from datasets import Dataset  # noqa: E402
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback  # noqa: E402
from trl import GRPOConfig, GRPOTrainer  # noqa: E402


class Rollout:
    """Roll out many episodes turn by turn, with each turn as one batch."""

    def __init__(self, episodes, group):
        self.episodes, self.group = episodes, group
        self.sampled = self.total = self.seconds = 0

    def __call__(self, prompts, trainer):
        start = time.perf_counter()
        counts, chosen = Counter(), []
        for prompt in prompts:  # the prompt is the group's number, repeated once per episode
            chosen.append(self.episodes[int(prompt) * self.group + counts[prompt]])
            counts[prompt] += 1
        ids, masks = [list(e["given"][0]) for e in chosen], [[0] * len(e["given"][0]) for e in chosen]
        for turn in range(max(len(e["given"]) for e in chosen)):
            for limit in sorted({e["limit"] for e in chosen}):
                rows = [i for i, e in enumerate(chosen) if e["limit"] == limit and turn < len(e["given"])]
                if rows:
                    self.turn(trainer, rows, turn, limit, chosen, ids, masks)
        firsts = [len(e["given"][0]) for e in chosen]
        self.sampled, self.total = sum(map(sum, masks)), sum(map(len, ids))
        self.seconds = time.perf_counter() - start
        return {
            "prompt_ids": [row[:n] for row, n in zip(ids, firsts, strict=True)],
            "completion_ids": [row[n:] for row, n in zip(ids, firsts, strict=True)],
            "env_mask": [mask[n:] for mask, n in zip(masks, firsts, strict=True)],
            "logprobs": None,
            "earned": [e["reward"] for e in chosen],
        }

    def turn(self, trainer, rows, turn, limit, chosen, ids, masks):
        if turn:
            for i in rows:
                ids[i] += chosen[i]["given"][turn]
                masks[i] += [0] * len(chosen[i]["given"][turn])
        trainer.generation_config.max_new_tokens = limit
        answers, _ = trainer._generate_single_turn([ids[i] for i in rows], None, {}, self.group)
        for i, answer in zip(rows, answers, strict=True):
            ids[i] += answer
            masks[i] += [1] * len(answer)


class StepByStep(TrainerCallback):
    """Start a step for each line on stdin and print its figures at its end."""

    def __init__(self, rollout):
        self.rollout = rollout

    def on_step_begin(self, args, state, control, **more):
        if state.is_world_process_zero and not sys.stdin.readline():
            raise SystemExit("stdin was closed")
        if args.world_size > 1:
            torch.distributed.barrier()  # no process starts before the request
        self.start = time.perf_counter()

    def on_step_end(self, args, state, control, **more):
        seconds = time.perf_counter() - self.start
        sums = torch.tensor([self.rollout.sampled, self.rollout.total])
        if args.world_size > 1:
            torch.distributed.all_reduce(sums)
        if state.is_world_process_zero:
            figures = {"seconds": seconds, "live": self.rollout.seconds}
            figures |= {"sampled": sums[0].item(), "total": sums[1].item()}
            print(json.dumps(figures), file=ANSWERS, flush=True)


def main():
    with open(sys.argv[1]) as file:
        plan = json.load(file)
    torch.set_num_threads(1)
    episodes, group, world = plan["episodes"], plan["group"], int(os.environ.get("WORLD_SIZE", "1"))
    share = len(episodes) // world
    config = GRPOConfig(
        output_dir=plan["folder"],
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        learning_rate=plan["lr"],
        beta=0.0,
        num_generations=group,
        per_device_train_batch_size=share // plan["cuts"],
        gradient_accumulation_steps=plan["cuts"],
        generation_batch_size=len(episodes),
        temperature=1.0,
        top_k=0,
        max_steps=plan["steps"],
        shuffle_dataset=False,
        ddp_find_unused_parameters=False,
        logging_steps=10**6,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )
    rollout = Rollout(episodes, group)
    trainer = GRPOTrainer(
        model=AutoModelForCausalLM.from_pretrained(plan["model"], dtype=getattr(torch, plan["dtype"])),
        processing_class=AutoTokenizer.from_pretrained(plan["model"]),
        reward_funcs=lambda earned, **more: earned,
        args=config,
        train_dataset=Dataset.from_dict({"prompt": [str(i) for i in range(len(episodes) // group)]}),
        rollout_func=rollout,
        callbacks=[StepByStep(rollout)],
    )
    trainer.train()


if __name__ == "__main__":
    main()

"""Ask two models the same plain questions: `python benchmarks/plain_questions.py RAW TRAINED`.

Prints both answers to each question, sampled greedily, and how far training has moved the model: the KL divergence of
the trained model from the raw one, in nats per token, over the raw model's answers.
"""

from __future__ import annotations

import sys
from typing import Any

import torch

from codots.model.load import load_model, model_folder
from codots.model.renderer import Render

QUESTIONS = [
    "What is the capital of France?",
    "How many legs does a spider have?",
    "Why is the sky blue?",
    "Write one sentence about a dog.",
    "What is 7 plus 5?",
    "Name three fruits.",
    "What does a doctor do?",
    "Translate to French: good morning.",
    "How do I boil an egg?",
    "What comes after Tuesday?",
]
TOKENS = 48


def answer(model: Any, render: Render, question: str) -> tuple[list[int], list[int]]:
    """Return the ids of the prompt and of the model's greedy answer."""
    chat = [{"role": "user", "content": question}]
    text = render.tokenizer.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)
    prompt = render.tokenizer(text, return_tensors="pt", add_special_tokens=False).input_ids
    ids = model.generate(
        prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=TOKENS, do_sample=False, pad_token_id=0
    )
    return prompt[0].tolist(), ids[0, prompt.shape[1] :].tolist()


@torch.no_grad()
def divergence(trained: Any, raw: Any, prompt: list[int], reply: list[int]) -> torch.Tensor:
    """Return KL(trained || raw) at every token of a reply."""
    ids, start = torch.tensor([prompt + reply]), len(prompt) - 1
    of_trained, of_raw = (model(ids).logits[0, start:-1].float().log_softmax(-1) for model in (trained, raw))
    return (of_trained.exp() * (of_trained - of_raw)).sum(-1)


def main(names: list[str]) -> None:
    """Print a table of answers, and the mean divergence."""
    (raw, render), (trained, _) = (load_model(model_folder(name)) for name in names)
    divergences = []
    print(f"| question | {names[0]} | {names[1]} |\n|---|---|---|")
    for question in QUESTIONS:
        prompt, reply = answer(raw, render, question)
        _, other = answer(trained, render, question)
        divergences.append(divergence(trained, raw, prompt, reply))
        texts = [" ".join(render.tokenizer.decode(ids, skip_special_tokens=True).split()) for ids in (reply, other)]
        print(f"| {question} | {texts[0]} | {texts[1]} |")
    print(f"\nKL of the trained model from the raw one: {torch.cat(divergences).mean():.3f} nats per token")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("expected two models: python benchmarks/plain_questions.py RAW TRAINED")
    main(sys.argv[1:])

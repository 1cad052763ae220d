"""Commands about worlds: what there are, whether they keep their contract, and what it is like to live in one."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from codots.cli.app import AsJson, Id, Packs, Preset, Size, Split, app, show


@app.command()
def reference(
    id: Id,
    preset: Preset = "easy",
    packs: Packs = 500,
    size: Size = 4,
    split: Split = "dev",
    as_json: AsJson = False,
) -> None:
    """Play scripted policies: what chance, the best honest player and one who knows the world reach."""
    from codots.display import plain_table
    from codots.evaluate import POLICIES, reference

    found = reference(id, preset=preset, packs=packs, size=size, split=split)
    if as_json:
        typer.echo(json.dumps(found, indent=2))
    else:
        exact = "exact" if found["exact"] else "a scripted learner"
        show(plain_table(f"{id} {preset} {split}, {packs} packs; bayes is {exact}", {n: found[n] for n in POLICIES}))


@app.command()
def play(
    id: Id,
    preset: Preset = "easy",
    split: Split = "dev",
    index: Annotated[int, typer.Option(min=0, help="Which pack.")] = 0,
    size: Size = 4,
) -> None:
    """Live a life yourself: solve the tasks, and write your own notes between them."""
    from codots.domain import make_pack

    pack = make_pack(id, preset, split, index, size)
    memory, rewards, notes = pack.domain.make_memory(pack.world), [], ""
    for task in pack.tasks:
        typer.echo(f"\n=== task {task.position + 1} of {size}\n{pack.domain.rules_text(task, 'natural')}\n")
        typer.echo(f"your notes: {notes or 'none'}\n")
        env = task.env(style="natural", memory=memory)
        typer.echo(env.observe())
        while True:
            step = env.step(_reply())
            if step.done:
                break
            typer.echo(step.observation)
        rewards.append(step.reward)
        typer.echo(f"{step.observation}\n{step.feedback} reward {step.reward:.2f}")
        if task.position + 1 < size:
            notes = typer.prompt("notes for the next task", default=notes, show_default=False)
    typer.echo("\nrewards: " + " ".join(f"{reward:.2f}" for reward in rewards))


def _reply() -> str:
    """A bare word is taken for an action."""
    text = str(typer.prompt(">", prompt_suffix=" "))
    return text if "<" in text else f"<action>{text}</action>"

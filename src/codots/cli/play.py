"""A life in the terminal: a person, a scripted policy or a model lives it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.text import Text

from codots.context.rewrite import CLOSE, OPEN, Rewrite
from codots.core.deadline import PATIENCE, deadline
from codots.core.suggest import check_known
from codots.domains.base import POLICIES, Pack, Policy, Step, Task
from codots.domains.scripted import turns

if TYPE_CHECKING:
    from codots.rollout.life import Episode

HINT = "notes for the next task: an empty line ends them, and alone keeps what you have"
console = Console(highlight=False)


def play(pack: Pack, policy: str | None = None) -> list[float]:
    """Live a pack, every turn shown; gives the rewards.

    Raises EOFError where the input of a person ends early, ValueError for an unknown policy.
    """
    if policy is not None:
        check_known(policy, POLICIES, "policy")
    player = pack.domain.policy(policy, pack.world) if policy else None
    domain, style = pack.domain, pack.domain.styles[0]
    memory, rewards, notes, told = domain.make_memory(pack.world), [], "", ""
    for task in pack.tasks:
        console.print()
        console.rule(f"{domain.id} {pack.preset}: task {task.position + 1} of {len(pack.tasks)}", characters="=")
        rules = domain.rules_text(task, style)
        say("the rules are the same" if rules == told else rules, "dim" if rules == told else "")
        told = rules
        if player is None:
            say(f"\nyour notes: {notes or 'none'}", "cyan")
        step = solve(task, style, memory, rules, player)
        rewards.append(step.reward)
        if player is not None:
            player.end(step)
        elif task.position + 1 < len(pack.tasks):
            notes = rewritten(notes)
    say("")
    for name, values in (
        ("floor", [domain.floor(task) for task in pack.tasks]),
        ("ceiling", [domain.ceiling(task) for task in pack.tasks]),
        ("rewards", rewards),
    ):
        say(f"{name}: {' '.join(f'{value:.2f}' for value in values)}", "bold" if name == "rewards" else "dim")
    return rewards


def solve(task: Task, style: str, memory: object | None, rules: str, player: Policy | None) -> Step:
    """Play one task to its end."""
    env = task.env(style=style, memory=memory)
    show(task, env.observe(), env.view)

    def act(view: Any) -> str:
        if player is None:
            return answer(rules)
        text = player.act(view)
        say(f"> {text}", "green")
        return text

    for _, step in turns(env, act):
        show(task, step.observation, env.view)
    say(f"{step.feedback} reward {step.reward:.2f}", "bold")
    return step


def show(task: Task, observation: str, view: Any) -> None:
    """Print what a model would read, and a drawing of the state where there is one that it does not hold already."""
    say(f"\n{observation}" if observation else "")
    drawn = task.domain.draw(view) if view is not None else None
    if drawn and drawn not in observation:
        say(drawn, "dim")


def answer(rules: str) -> str:
    """Read a reply; where the rules ask for an action in tags, bare words are taken for one."""
    text = console.input("> ")
    return text if "<action>" in text or "<action>" not in rules else f"<action>{text}</action>"


def rewritten(notes: str) -> str:
    """Read notes of some lines; the same bounds hold as for a model."""
    say(f"\n{HINT}", "cyan")
    lines = [console.input("| ")]
    while lines[-1].strip():
        lines.append(console.input("| "))
    if len(lines) == 1:
        return notes
    parsed = Rewrite().parse("\n".join([OPEN, *lines, CLOSE]), notes)
    if parsed.failure:
        say(f"the notes stay as they were: {parsed.failure}", "red")
    return parsed.context


def say(text: str, style: str = "") -> None:
    """Print text as it is, in lines as long as they are."""
    console.print(Text(text, style), soft_wrap=True)


def watch(
    model: str | Path, pack: Pack, *, temperature: float | None = None, seed: int = 0, patience: float = PATIENCE
) -> Iterator[str]:
    """Let a model live a pack, and tell each episode in a paragraph.

    Raises ValueError for what is no model, RuntimeError for a life lost to the infrastructure, TimeoutError for one
    that takes longer than `patience` seconds.
    """
    from codots.engine.open import Player  # torch, which who plays alone does not wait for
    from codots.rollout.life import Job, Own

    with closing(Player(model, pack.domain.id, temperature=temperature)) as player:
        job = Job(pack, Own(player.profile.strategy()), ("play", seed, pack.index))
        with deadline(patience, f"watching {model} live"):
            life = player.live([job])[0]
        if life.failure:
            raise RuntimeError(f"the life is missing: {life.failure}")
        style = player.profile.style
    for episode in life.episodes:
        if episode.kind == "solve":
            rules = pack.domain.rules_text(pack.tasks[episode.position], style)
            yield f"=== task {episode.position + 1} of {len(pack.tasks)}\n{rules}\n\n{_solved(episode)}"
        else:
            unread = f"\n({episode.outcome}; the notes are now: {episode.written or 'none'})"
            yield f"--- notes\n{episode.turns[0].reply}{unread if episode.stop == 'malformed' else ''}"
    yield "rewards: " + " ".join(f"{episode.reward:.2f}" for episode in life.of("solve"))


def _solved(episode: Episode) -> str:
    said = "\n".join(f"{turn.observation}\n> {turn.reply}" for turn in episode.turns)
    ended = f"{episode.outcome}\n{episode.stop}, reward {episode.reward:.2f}"
    return f"notes: {episode.context or 'none'}\n\n{said}\n{ended}"

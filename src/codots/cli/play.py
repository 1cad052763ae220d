"""A life in the terminal: a person, a scripted policy or a model lives it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from codots.context.rewrite import CLOSE, OPEN, Rewrite
from codots.core.deadline import STAGE_TIMEOUT
from codots.core.suggest import check_known
from codots.domains.base import POLICIES, Env, Pack, Policy, Step, Task
from codots.model.alphabet import make_render
from codots.rollout.profile import Profile
from codots.rollout.steps import Episode, Given, LifeSteps, Own, SolveSteps, UpdateSteps
from codots.sampler.scripted import scripted

HINT = "notes for the next task: an empty line ends them, and alone keeps what you have"
RENDER = make_render()
console = Console(highlight=False)


def play(pack: Pack, policy: str | None = None) -> list[float]:
    """Live a pack, every turn shown; gives the rewards.

    Raises EOFError where the input of a person ends early, ValueError for an unknown policy.
    """
    if policy is not None:
        check_known(policy, POLICIES, "policy")
    player = pack.domain.policy(policy, pack.world) if policy else None
    domain, style, strategy = pack.domain, pack.domain.styles[0], Rewrite()
    contexts = Given(strategy, ("",) * len(pack.tasks)) if player else Own(strategy)
    life, memory = LifeSteps(contexts, Profile(style).episode_params(), len(pack.tasks)), domain.make_memory(pack.world)
    rewards, shown = [], ""
    for task in pack.tasks:
        console.print()
        console.rule(f"{domain.id} {pack.preset}: task {task.position + 1} of {len(pack.tasks)}", characters="=")
        rules, env = domain.rules_text(task, style), task.env(style=style, memory=memory)
        say("the rules are the same" if rules == shown else rules, "dim" if rules == shown else "")
        shown = rules
        observation = env.observe()
        steps = life.solve(task.position, rules, observation)
        if player is None:
            say(f"\nyour notes: {steps.context or 'none'}", "cyan")
        step = solved(steps, task, env, observation, player)
        rewards.append(step.reward)
        if player is not None:
            player.end(step)
        if update := life.update(domain.reveals_reward):
            rewrite(update)
    say("")
    for name, values in (
        ("floor", [domain.floor(task) for task in pack.tasks]),
        ("ceiling", [domain.ceiling(task) for task in pack.tasks]),
        ("rewards", rewards),
    ):
        say(f"{name}: {' '.join(f'{value:.2f}' for value in values)}", "bold" if name == "rewards" else "dim")
    return rewards


def solved(steps: SolveSteps, task: Task, env: Env, observation: str, player: Policy | None) -> Step:
    """Play one task to its end; gives the last step."""
    show(task, observation, env.view)
    while not steps.done:
        text = player.act(env.view) if player else answer(steps.rules)
        if player:
            say(f"> {text}", "green")
        step = env.step(replied(steps, text))
        steps.observe(step)
        show(task, step.observation, env.view)
    say(f"{step.feedback} reward {step.reward:.2f}", "bold")
    return step


def replied(steps: SolveSteps | UpdateSteps, text: str) -> str:
    """Reply with a text in place of a model; gives the action."""
    steps.next_ids(RENDER)
    return steps.reply(scripted(text, RENDER), text)


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


def rewrite(steps: UpdateSteps) -> None:
    """Read notes of some lines; the same bounds hold as for a model."""
    say(f"\n{HINT}", "cyan")
    lines = [console.input("| ")]
    while lines[-1].strip():
        lines.append(console.input("| "))
    replied(steps, "\n".join([OPEN, *(lines if len(lines) > 1 else [steps.context]), CLOSE]))
    if failure := steps.finish().outcome:
        say(f"the notes stay as they were: {failure}", "red")


def say(text: str, style: str = "") -> None:
    """Print text as it is, in lines as long as they are."""
    console.print(Text(text, style), soft_wrap=True)


def watch(
    model: str | Path,
    pack: Pack,
    *,
    temperature: float | None = None,
    seed: int = 0,
    timeout: float = STAGE_TIMEOUT,
) -> Iterator[str]:
    """Let a model live a pack, and tell each episode in a paragraph.

    Raises ValueError for what is no model, RuntimeError for a life lost to the infrastructure, TimeoutError for one
    that takes longer than `timeout` seconds.
    """
    from codots.engine.open import OpenModel  # torch, which who plays alone does not wait for
    from codots.rollout.life import Job

    with closing(OpenModel(model, pack.domain.id, temperature=temperature)) as player:
        job = Job(pack, Own(player.profile.strategy()), player.profile.episode_params(), ("play", seed, pack.index))
        life = player.rollout([job], timeout)[0]
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

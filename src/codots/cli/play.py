"""Play a pack in the terminal, as a person, a scripted policy or a model."""

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
from codots.rollout.records import UNANSWERED
from codots.rollout.steps import Episode, Given, LifeSteps, Own, SolveSteps, UpdateSteps
from codots.sampler.scripted import scripted

HINT = "notes for the next task: end them with an empty line; an empty line alone keeps the old notes"
RENDER = make_render()
console = Console(highlight=False)


def play(pack: Pack, policy: str | None = None) -> list[float]:
    """Play a pack, print every turn, and return the rewards.

    If `policy` is None, the user plays. Raises EOFError if the input ends early, and ValueError for an unknown policy.
    """
    if policy is not None:
        check_known(policy, POLICIES, "policy")
    scripted_policy = pack.domain.policy(policy, pack.world) if policy else None
    domain, style, strategy = pack.domain, pack.domain.styles[0], Rewrite()
    contexts = Given(strategy, ("",) * len(pack.tasks)) if scripted_policy else Own(strategy)
    life, memory = LifeSteps(contexts, Profile(style).episode_params(), len(pack.tasks)), domain.make_memory(pack.world)
    rewards, previous_rules = [], ""
    for task in pack.tasks:
        console.print()
        console.rule(f"{domain.id} {pack.preset}: task {task.position + 1} of {len(pack.tasks)}", characters="=")
        rules, env = domain.rules_text(task, style), task.env(style=style, memory=memory)
        is_same = rules == previous_rules
        print_text("the rules are the same" if is_same else rules, "dim" if is_same else "")
        previous_rules = rules
        observation = env.observe()
        steps = life.solve(task.position, rules, observation)
        if scripted_policy is None:
            print_text(f"\nyour notes: {steps.context or 'none'}", "cyan")
        step = solve(steps, task, env, observation, scripted_policy)
        rewards.append(step.reward)
        if scripted_policy is not None:
            scripted_policy.end(step)
        if update := life.update(domain.reveals_reward):
            read_notes(update)
    print_text("")
    for name, values in (
        ("floor", [domain.floor(task) for task in pack.tasks]),
        ("ceiling", [domain.ceiling(task) for task in pack.tasks]),
        ("rewards", rewards),
    ):
        print_text(f"{name}: {' '.join(f'{value:.2f}' for value in values)}", "bold" if name == "rewards" else "dim")
    return rewards


def solve(steps: SolveSteps, task: Task, env: Env, observation: str, policy: Policy | None) -> Step:
    """Play one task to its end and return the last step."""
    print_state(task, observation, env.view)
    while not steps.done:
        text = policy.act(env.view) if policy else read_reply(steps.rules)
        if policy:
            print_text(f"> {text}", "green")
        step = env.step(reply_with(steps, text))
        steps.observe(step)
        print_state(task, step.observation, env.view)
    print_text(f"{step.feedback} reward {step.reward:.2f}", "bold")
    return step


def reply_with(steps: SolveSteps | UpdateSteps, text: str) -> str:
    """Add `text` to the episode as if a model had replied with it, and return the action in the reply."""
    steps.next_ids(RENDER)
    return steps.reply(scripted(text, RENDER), text)


def print_state(task: Task, observation: str, view: Any) -> None:
    """Print the observation, and the drawing of the state if the observation does not contain it."""
    print_text(f"\n{observation}" if observation else "")
    drawing = task.domain.draw(view) if view is not None else None
    if drawing and drawing not in observation:
        print_text(drawing, "dim")


def read_reply(rules: str) -> str:
    """Read a reply. If the rules ask for an action in tags and the reply has no tags, add the tags."""
    text = console.input("> ")
    return text if "<action>" in text or "<action>" not in rules else f"<action>{text}</action>"


def read_notes(steps: UpdateSteps) -> None:
    """Read notes up to an empty line, and apply them with the same limits as for a model."""
    print_text(f"\n{HINT}", "cyan")
    lines = [console.input("| ")]
    while lines[-1].strip():
        lines.append(console.input("| "))
    reply_with(steps, "\n".join([OPEN, *(lines if len(lines) > 1 else [steps.context]), CLOSE]))
    if failure := steps.finish().outcome:
        print_text(f"the notes are unchanged: {failure}", "red")


def print_text(text: str, style: str = "") -> None:
    """Print text verbatim, without wrapping lines."""
    console.print(Text(text, style), soft_wrap=True)


def watch(
    model: str | Path,
    pack: Pack,
    *,
    temperature: float | None = None,
    seed: int = 0,
    timeout: float = STAGE_TIMEOUT,
    base: str | None = None,
) -> Iterator[str]:
    """Let a model play a pack. Yield one paragraph per episode, then the rewards.

    `base` names the base model of an adapter. Raises ValueError for an unknown model, RuntimeError if the life fails
    with an infrastructure error, and TimeoutError if the life takes longer than `timeout` seconds.
    """
    from codots.engine.open import OpenModel  # imported here, because only a model needs torch
    from codots.rollout.life import Job

    with closing(OpenModel(model, pack.domain.id, temperature=temperature, base=base)) as player:
        player.check_fits(pack)
        job = Job(pack, Own(player.profile.strategy()), player.profile.episode_params(), ("play", seed, pack.index))
        life = player.rollout([job], timeout)[0]
        if life.failure:
            raise RuntimeError(f"the life failed: {life.failure}")
        style = player.profile.style
    for episode in life.episodes:
        if episode.kind == "solve":
            rules = pack.domain.rules_text(pack.tasks[episode.position], style)
            yield f"=== task {episode.position + 1} of {len(pack.tasks)}\n{rules}\n\n{_describe_solve(episode)}"
        else:
            unread = f"\n({episode.outcome}; the notes are now: {episode.written or 'none'})"
            yield f"--- notes\n{episode.turns[0].reply}{unread if episode.stop == 'malformed' else ''}"
    yield "rewards: " + " ".join(f"{episode.reward:.2f}" for episode in life.of("solve"))


def _describe_solve(episode: Episode) -> str:
    turns = "\n".join(f"{turn.observation}\n> {turn.reply}" for turn in episode.turns)
    why = {"length": " (cut at solve_tokens)", "full": " (no room left in the context window)"}
    why |= {str(end): f" (reply {words})" for end, (words, _) in UNANSWERED.items()}
    ended = f"{episode.outcome}\n{episode.stop}{why.get(episode.ended, '')}, reward {episode.reward:.2f}"
    return f"notes: {episode.context or 'none'}\n\n{turns}\n{ended}"

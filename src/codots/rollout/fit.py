"""Whether prompts fit into a model, and dry runs: scripted policies replace it, to count the tokens of a run."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from codots.context.rewrite import CLOSE, OPEN
from codots.core.transcript import Sample, Sampled, StopReason, Transcript
from codots.domains.base import Pack
from codots.model.adapter import Model, folders
from codots.model.kind import max_positions, read_config
from codots.model.load import check_files, load_render
from codots.model.renderer import Render
from codots.rollout.profile import Profile
from codots.rollout.steps import Given, LifeSteps, Own, SolveSteps, UpdateSteps


@dataclass(frozen=True)
class DryRun:
    """One life of a dry run."""

    samples: list[Sample]
    """Episodes of the life that have reply tokens."""
    seconds: float
    """CPU seconds of environments, policies and rendering."""

    @property
    def passes(self) -> int:
        """Number of forward passes of the model, one per sampled token."""
        return sum(sum(sample.mask) for sample in self.samples)

    @property
    def longest(self) -> int:
        """Length of the longest episode, in tokens."""
        return max((len(sample.ids) for sample in self.samples), default=0)


def window(model: Model) -> int:
    """Return the maximum length of an episode that a model's positions allow, in tokens."""
    try:
        return max_positions(read_config(folders(model)[-1]).get_text_config())
    except Exception as error:
        raise ValueError(f"{model} cannot be loaded: {str(error).splitlines()[0]}") from error


def check_fits(model: Model, wanted: Sequence[tuple[Pack, Profile]]) -> None:
    """Raise ValueError if the first prompt of a pack leaves no room for a reply of a model."""
    check_files(model)
    positions = window(model)
    for pack, profile in wanted:
        check_fit(pack, profile, load_render(model, profile.thinking), positions)


def check_fit(pack: Pack, profile: Profile, render: Render, positions: int = 2**31) -> None:
    """Raise ValueError if the first prompt of a pack leaves no room for a reply.

    `positions` is the limit of the model itself. The message says how many ids the prompt has and what to change.
    """
    task, style, domain = pack.tasks[0], profile.style, pack.domain
    try:
        observation = task.env(style=style, memory=domain.make_memory(pack.world)).observe()
    except Exception:
        return  # the lives will say what the environment lacks
    prompt = profile.strategy().solve(domain.rules_text(task, style), "", observation, style)
    count, limit = len(render.opening(prompt.system, prompt.user)), min(profile.max_model_len, positions)
    if count < limit:
        return
    other = " or style: compact" if style != "compact" and "compact" in domain.styles else ""
    change = f"raise max_model_len{other}" if count < positions else f"use a model with more positions{other}"
    raise ValueError(f"the first prompt of {domain.id} has {count} ids, and the model may read {limit}; {change}")


def dry_run(
    packs: Sequence[Pack], profile: Profile, render: Render, share: float, *, rewrites: bool = True
) -> list[DryRun]:
    """Roll out packs with scripted policies, alternating between `bayes` and `random`.

    Prompts are the same as for a model. The length of a reply is `share` of the maximum reply length, or the length of
    the policy's text if that is longer, up to the maximum. No episode exceeds the profile's `max_model_len`. If
    `rewrites` is False, there are no updates and all contexts are empty. Raises ValueError if the first prompt does not
    fit.
    """
    check_fit(packs[0], profile, render)
    runner = _DryRunner(profile, render, share)
    return [runner.life(pack, "random" if i % 2 else "bayes", rewrites) for i, pack in enumerate(packs)]


@dataclass(frozen=True)
class _DryRunner:
    profile: Profile
    render: Render
    share: float

    def life(self, pack: Pack, policy: str, rewrites: bool) -> DryRun:
        start = time.process_time()
        samples = [t.sample(1.0) for t in self._episodes(pack, policy, rewrites) if t.tokens]
        return DryRun(samples, time.process_time() - start)

    def _episodes(self, pack: Pack, name: str, rewrites: bool) -> Iterator[Transcript]:
        domain, style, strategy = pack.domain, self.profile.style, self.profile.strategy()
        contexts = Own(strategy) if rewrites else Given(strategy, ("",) * len(pack.tasks))
        life = LifeSteps(contexts, self.profile.episode_params(), len(pack.tasks))
        policy, memory = domain.policy(name, pack.world), domain.make_memory(pack.world)
        written = f"{OPEN}{domain.oracle_context(pack.world, style)[: self.profile.max_context_chars]}{CLOSE}"
        for task in pack.tasks:
            env = task.env(style=style, memory=memory)
            solve = life.solve(task.position, domain.rules_text(task, style), env.observe())
            while not solve.done:
                text = policy.act(env.view)
                sampled = self._sampled(solve, text)
                action = solve.reply(sampled, text if sampled.ids else "")  # empty if no tokens are left
                step = env.step(action)
                solve.observe(step)
            policy.end(step)
            yield solve.transcript
            if update := life.update(domain.reveals_reward):
                update.reply(self._sampled(update, written), written)  # keep the context even if no tokens are left
                yield update.transcript

    def _sampled(self, steps: SolveSteps | UpdateSteps, text: str) -> Sampled:
        """Return the ids of a text, repeated up to the requested length.

        The result is empty if no tokens are left within `max_model_len`.
        """
        ids, reply, limit = steps.next_ids(self.render), self.render.reply(text), steps.sampling.max_tokens
        room = self.profile.max_model_len - len(steps.transcript.ids) - len(ids)
        count = min(max(len(reply), int(limit * self.share)), limit, room)
        if count < 1:
            return Sampled([], [], StopReason.FULL, [])
        return Sampled((reply * (count // len(reply) + 1))[:count], [0.0] * count, StopReason.STOP, [0] * count)


def grouped(lives: list[DryRun], group: int) -> list[Sample]:
    """Make `group` copies of each episode that agree up to the first reply and differ in the first token of it."""
    return [_marked(sample, k) for life in lives for sample in life.samples for k in range(group)]


def _marked(sample: Sample, k: int) -> Sample:
    at = sample.mask.index(True)
    return replace(sample, ids=[*sample.ids[:at], k, *sample.ids[at + 1 :]])

"""Lives of scripted policies that read contexts, for tests of what reading and notes are worth."""

import numpy as np
from hypothesis import strategies as st

from codots.domains.registry import make_pack
from codots.domains.scripted import turns


def hostile_text(*words):
    """Return a strategy of texts: any characters, or these words in any order."""
    any_text = st.text(st.characters(exclude_categories=[]), max_size=60)
    word = st.sampled_from([*words, "", " ", "\n", "0", "1", "9" * 12, "-"])
    return any_text | st.lists(word, max_size=40).map(" ".join)


def life(pack, name, context=None, style="natural"):
    """Return the rewards of a life. If there is a context, each task has a new policy that reads it."""
    domain, memory, rewards = pack.domain, pack.domain.make_memory(pack.world), []
    policy = domain.policy(name, pack.world)
    for task in pack.tasks:
        if context is not None:
            policy = domain.policy(name, pack.world)
            policy.read(context)
        rewards.append(play(policy, task, memory, style).reward)
    return rewards


def noted_life(pack, contexts=None, style="natural"):
    """Return the rewards of a life in which each task has a new `bayes` that reads the notes of the one before."""
    domain, memory, rewards, context = pack.domain, pack.domain.make_memory(pack.world), [], ""
    for task in pack.tasks:
        policy = domain.policy("bayes", pack.world)
        policy.read(context)
        rewards.append(play(policy, task, memory, style).reward)
        context = domain.note(policy.notes(style).values(), style)
        if contexts is not None:
            contexts.append(context)
    return rewards


def play(policy, task, memory=None, style="natural"):
    """Play one task and return its last step."""
    *_, (_, last) = turns(task.env(style=style, memory=memory), policy.act)
    policy.end(last)
    return last


def last_rewards(id, preset, packs, size=4):
    """Return the mean last reward of lives with notes, and of whole lives."""
    drawn = [make_pack(id, preset, "dev", i, size) for i in range(packs)]
    return tuple(np.mean([of(pack)[-1] for pack in drawn]) for of in (noted_life, lambda pack: life(pack, "bayes")))

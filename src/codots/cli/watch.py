"""One life of a model, told as it went."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from codots.core.deadline import PATIENCE, deadline
from codots.core.rng import Pack
from codots.engine.open import Player
from codots.rollout.life import Episode, Job, Own


def watch(
    model: str | Path, pack: Pack, *, temperature: float | None = None, seed: int = 0, patience: float = PATIENCE
) -> Iterator[str]:
    """Let a model live a pack, and tell each episode in a paragraph.

    Raises ValueError for what is no model, RuntimeError for a life lost to the infrastructure, TimeoutError for one
    that takes longer than `patience` seconds.
    """
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
    turns = "\n".join(f"{turn.observation}\n> {turn.reply}" for turn in episode.turns)
    ended = f"{episode.outcome}\n{episode.stop}, reward {episode.reward:.2f}"
    return f"notes: {episode.context or 'none'}\n\n{turns}\n{ended}"

"""API keys of a store: who may use which worlds over HTTP, and how often."""

from __future__ import annotations

import hashlib
import json
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from codots.agent.records import ConflictError, UnknownError, check_name
from codots.agent.schema import keys
from codots.agent.sql import sa
from codots.agent.store import Store
from codots.core.suggest import nearest

PREFIX = "codots_"
"""Start of every key, by which scanners for secrets find it."""


@dataclass(frozen=True)
class Key:
    """What the holder of a key may do."""

    name: str
    worlds: tuple[str, ...] | None
    """Names of the worlds that it may use, also if they do not exist yet; None for all."""
    writes: bool
    """Whether it may write: make worlds, start and finish tasks, chat, and roll back."""
    per_minute: int | None
    """Maximum number of requests a minute, or None."""
    created: float
    revoked: float | None = None
    """When it was revoked, in seconds since 1970."""

    def allows(self, world: str, write: bool) -> bool:
        """Return whether the key may read, or write, in a world."""
        return (self.writes or not write) and (self.worlds is None or world in self.worlds)


def create_key(
    store: Store, name: str, worlds: Sequence[str] = (), writes: bool = True, per_minute: int | None = None
) -> str:
    """Add a key for some worlds, by default all, and return its text. The store has only a hash of it.

    Raises ConflictError if the name was used before, also by a revoked key.
    """
    check_name(name, "key")
    for world in worlds:
        check_name(world, "world")
    if per_minute is not None and per_minute < 1:
        raise ValueError(f"{per_minute} requests a minute; expected at least 1")
    text = PREFIX + secrets.token_urlsafe(32)
    scope = json.dumps(sorted(set(worlds))) if worlds else None
    values = {"name": name, "hash": hashed(text), "worlds": scope, "writes": writes, "per_minute": per_minute}
    try:
        with store.write() as c:
            c.execute(sa.insert(keys).values(created=time.time(), revoked=None, **values))
    except sa.exc.IntegrityError:
        raise ConflictError(f"the key {name!r} exists or was revoked; expected a new name") from None
    return text


def list_keys(store: Store) -> list[Key]:
    """Return all keys by name, also those that were revoked."""
    with store.read() as c:
        return [_as_key(row) for row in c.execute(sa.select(keys).order_by(keys.c.name))]


def has_keys(store: Store) -> bool:
    """Return whether a key was ever made."""
    with store.read() as c:
        return c.execute(sa.select(keys.c.id).limit(1)).first() is not None


def revoke_key(store: Store, name: str) -> Key:
    """Revoke a key. Raises UnknownError if there is none of this name, and ConflictError if it was revoked before."""
    with store.write() as c:
        row = c.execute(sa.select(keys).where(keys.c.name == name)).one_or_none()
        if row is None:
            names = list(c.execute(sa.select(keys.c.name)).scalars())
            raise UnknownError(nearest(name, names, "key") if names else f"unknown key {name!r}; there is none yet")
        if row.revoked is not None:
            raise ConflictError(f"the key {name!r} was revoked before")
        now = time.time()
        c.execute(sa.update(keys).where(keys.c.id == row.id).values(revoked=now))
    return replace(_as_key(row), revoked=now)


def find_key(store: Store, digest: str) -> Key | None:
    """Return the key of a hash, unless it was revoked."""
    with store.read() as c:
        row = c.execute(sa.select(keys).where(keys.c.hash == digest, keys.c.revoked.is_(None))).one_or_none()
    return None if row is None else _as_key(row)


def hashed(text: str) -> str:
    """Hash the text of a key. It has 256 random bits, so that no slow hash is needed."""
    return hashlib.sha256(text.encode(errors="replace")).hexdigest()


def _as_key(row: Any) -> Key:
    worlds = None if row.worlds is None else tuple(json.loads(row.worlds))
    return Key(row.name, worlds, row.writes, row.per_minute, row.created, row.revoked)

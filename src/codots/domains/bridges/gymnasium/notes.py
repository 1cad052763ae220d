"""Reading and writing what a context says about codes."""

from __future__ import annotations

import re

import numpy as np

from codots.domains.bridges.gymnasium.model import Floats
from codots.domains.bridges.gymnasium.upstream import Spec

UNLISTED = 1e-3
"""Estimated probability of an action that a line of estimates does not list."""

Claim = tuple[int, int]
"""A code and its claimed action, both counted from 0."""


def _names(spec: Spec) -> tuple[list[str], str]:
    """Return the lower-case names of the actions, and a regular expression that matches one of them."""
    names = [name.lower() for name in spec.names]
    return names, "|".join(map(re.escape, names))


def read_claims(spec: Spec, context: str) -> list[Claim]:
    """Return all claims of a text, in order. Estimates are no claims."""
    names, pattern = _names(spec)
    claim = rf"\b([1-{spec.actions}])\b(?:\W+(?!(?:{pattern})\b)[a-z]+){{0,4}}?\W+({pattern})\b"
    return [(int(code) - 1, names.index(name.lower())) for code, name in re.findall(claim, context, re.I)]


def write_claim(spec: Spec, code: int, action: int) -> str:
    """Return a claim as text."""
    return f"- code {code + 1} is {spec.names[action]}"


def read_estimates(spec: Spec, context: str) -> dict[int, Floats]:
    """Return estimated probabilities of the actions of each code that a line of `write_estimate` is about."""
    names, pattern = _names(spec)
    estimates = {}
    for code, rest in re.findall(rf"code ([1-{spec.actions}]) is not known for certain, so far:(.{{0,200}})", context):
        estimates[int(code) - 1] = estimate = np.full(spec.actions, UNLISTED)
        for name, chance in re.findall(rf"({pattern}) (0\.\d\d)", rest):
            estimate[names.index(name)] = max(UNLISTED, float(chance))
    return estimates


def write_estimate(spec: Spec, code: int, estimate: Floats) -> str:
    """Return estimated probabilities of the actions of a code as text, with the likeliest action first."""
    listed = [action for action in np.argsort(-estimate, kind="stable") if estimate[action] >= 0.01]
    chances = ", ".join(f"{spec.names[action]} {min(estimate[action], 0.99):.2f}" for action in listed)
    return f"- code {code + 1} is not known for certain, so far: {chances}"

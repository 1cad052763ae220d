"""Reading and writing claims about a and b in a context."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from codots.domains.optimal_control.point import Plant

MINUS = "\u2212"
NUMBER = r"\d{1,9}(?:\.\d{1,9})?|\.\d{1,9}"
CLAIM = re.compile(
    rf"\b([ab])[*`]{{0,2}} ?(?:=|:|~|≈|is|is about|equals) ?([-+{MINUS}]?(?:{NUMBER}))(?!\w|\.\d)"
    rf"(?: ?(?:\+/?-|±) ?({NUMBER})(?!\w|\.\d))?",
    re.I | re.A,
)
SIGN = re.compile(r"\bb ?(is positive|> ?0|is negative|< ?0)(?!\w|\.\d)", re.I | re.A)
CLOSE = 0.02
"""Maximum error at which a claimed number counts as right. Such numbers are close enough for steering."""


@dataclass(frozen=True)
class Claim:
    """A claimed value of a or b."""

    name: str
    """`a` or `b`."""
    value: float
    error: float | None = None
    """The stated error, or None if the claim states none."""

    @property
    def sure(self) -> bool:
        """Whether the claim is more than a rough estimate."""
        return self.error is None or self.error <= CLOSE


@dataclass(frozen=True)
class Estimate:
    """A plant and the maximum errors of its a and b."""

    plant: Plant
    errors: tuple[float, float] = (CLOSE, CLOSE)


def read_claims(context: str) -> Iterator[Claim]:
    """Yield all claims about the values of a and b, in order."""
    for name, value, error in CLAIM.findall(context):
        yield Claim(name.lower(), float(value.replace(MINUS, "-")), float(error) if error else None)


def read_signs(context: str) -> Iterator[bool]:
    """Yield for each claim about the sign of b whether it says that b is positive."""
    for sign in SIGN.findall(context):
        yield ">" in sign or "pos" in sign.lower()


def read_estimate(context: str) -> Estimate | None:
    """Return the last claims about a and b, or None unless there are both. Values out of range are clipped."""
    found = {claim.name: claim for claim in read_claims(context)}
    if len(found) < 2:
        return None
    a, b = (CLOSE if found[name].error is None else max(1e-6, min(10.0, found[name].error or 0.0)) for name in "ab")
    return Estimate(Plant(found["a"].value, found["b"].value).clipped, (a, b))


def read_sign(context: str) -> bool | None:
    """Return whether b is claimed to be positive, by its sign or by its value, or None if nothing is claimed."""
    signs = [*read_signs(context), *(claim.value > 0 for claim in read_claims(context) if claim.name == "b")]
    return signs[-1] if signs else None


def write_claim(estimate: Estimate) -> str:
    """Return a claim about a and b as text. Only errors above CLOSE are stated."""
    pairs = zip("ab", (estimate.plant.a, estimate.plant.b), estimate.errors, strict=True)
    return ", ".join(f"{name} = {value:.4f}" + f" +- {error:.2f}" * (error > CLOSE) for name, value, error in pairs)

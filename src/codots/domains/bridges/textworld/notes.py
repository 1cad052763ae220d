"""Reading and writing claims about a house in a context."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from typing import NamedTuple

from codots.domains.bridges.textworld.house import HousePlan, Way

LINES, LENGTH = 300, 500
"""Maximum number of lines read, and maximum characters of a line. Further ones are ignored."""
_NAME = r"[\w'-]+(?: [\w'-]+){0,5}"
_PLACE = rf"(?:the )?({_NAME})"
EXIT = re.compile(rf"\b(north|east|south|west) to (?:the )?({_NAME}?)(?: through {_PLACE})?(?=,|$)", re.I)
STANDS = re.compile(rf"({_NAME}) stands in {_PLACE}((?:, \w+){{0,2}})", re.I)
LIES = re.compile(rf"({_NAME}?)(?::| is| lies)? (on|in) {_PLACE}", re.I)
SOMEWHERE, CLOSED, SEARCHED = "somewhere", "closed", "searched"


class Exit(NamedTuple):
    """The claim that an exit of a room leads to a room."""

    room: str
    way: str
    to: str
    """The other room, or SOMEWHERE if it is not known."""
    door: str | None


class Stands(NamedTuple):
    """The claim that a piece of furniture stands in a room."""

    piece: str
    room: str
    closed: bool
    searched: bool
    """Whether the notes list everything that is in a closed piece."""


class Lies(NamedTuple):
    """The claim that a thing is on or in a place."""

    thing: str
    place: str
    on: bool
    """Whether it is on the place, not in it."""


Claim = Exit | Stands | Lies


def read_claims(context: str) -> list[Claim]:
    """Return all claims of a text, in order."""
    return [claim for line in re.split(r"[\n.;]", context, maxsplit=LINES)[:LINES] for claim in _read(line[:LENGTH])]


def _read(line: str) -> Iterator[Claim]:
    line = line.strip(" -*\t\r")
    subject, colon, rest = line.partition(":")
    if colon and (exits := EXIT.findall(rest.strip())):
        for way, to, door in exits:
            yield Exit(_name(subject), way.lower(), to, door or None)
    elif stands := STANDS.fullmatch(line):
        words = stands[3].lower()
        yield Stands(_name(stands[1]), stands[2], CLOSED in words, SEARCHED in words)
    else:
        for lies in filter(None, map(LIES.fullmatch, map(str.strip, line.split(",")))):
            yield Lies(_name(lies[1]), lies[3], lies[2].lower() == "on")


def _name(text: str) -> str:
    """Return a name without `the` or `... that the` before it."""
    return re.sub(r"^(?:.*\bthat )?the ", "", text.strip(), flags=re.I)


def write_room(room: str, ways: dict[str, Way]) -> str:
    """Return a claim about the exits of a room."""
    exits = [f"{way} to {to or SOMEWHERE}" + (f" through {door}" if door else "") for way, (to, door) in ways.items()]
    return f"- {room}: {', '.join(exits)}"


def write_piece(piece: str, room: str, *marks: str) -> str:
    """Return a claim about a piece of furniture. The marks are CLOSED, SEARCHED or both."""
    return ", ".join([f"- {piece} stands in {room}", *marks])


def write_thing(thing: str, place: str, supporters: Collection[str]) -> str:
    """Return a claim about the place of a thing."""
    return f"- {thing}: {'on' if place in supporters else 'in'} {place}"


def write_plan(plan: HousePlan, supporters: Collection[str], searched: Collection[str] = ()) -> dict[str, str]:
    """Return claims about everything in a plan, by subject."""
    lines = {f"room {room}": write_room(room, ways) for room, ways in plan.ways.items() if ways}
    for piece, room in plan.room_of.items():
        marks = [CLOSED, *([SEARCHED] if piece in searched else [])] if piece in plan.shut else []
        lines[f"piece {piece}"] = write_piece(piece, room, *marks)
    return lines | {f"thing {thing}": write_thing(thing, place, supporters) for thing, place in plan.holder.items()}


def truth_of(plan: HousePlan) -> dict[tuple[str, ...], str]:
    """Return everything that can be claimed, in lower case: the place by thing or piece, and the room by exit."""
    truth = {(name,): place for name, place in (plan.room_of | plan.holder).items()}
    exits = {(room, way): str(to) for room, ways in plan.ways.items() for way, (to, _) in ways.items()}
    return {tuple(map(str.lower, subject)): place.lower() for subject, place in (truth | exits).items()}


def subject_and_place(claim: Claim) -> tuple[tuple[str, ...], str]:
    """Return what a claim is about and the place that it names, in the form of `truth_of`."""
    about = (claim.room, claim.way) if isinstance(claim, Exit) else claim[:1]
    place = claim.to if isinstance(claim, Exit) else claim[1]
    return tuple(map(str.lower, about)), place.lower()

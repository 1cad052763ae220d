"""One round of a logged dialogue: what is shown, what is read, how it is scored; and who plays it by script."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from codots.domains.base import Rng, Step
from codots.domains.learn2ask.judge import Scorer, judge_from_environment, judge_lacks, spoken
from codots.domains.learn2ask.log import DOCTOR, FIELDS, Line, Log, Round, Session, merged, read_log
from codots.domains.learn2ask.score import Scores, best, fuse
from codots.domains.learn2ask.template import render
from codots.domains.learn2ask.toy import FAMILIES, judge_by_rule, named, toy_log

LOG = "CODOTS_DIALOGUE_LOG"
TOKEN = "<stop />"
"""Stops, wherever it stands in a reply."""
LONGEST = 4000
"""Greatest length of a reply in characters."""
NOTHING = "Is there anything else?"
EVEN = 3 / 7
"""The chance at which stopping, for 4, is worth as much as a fair question, for 3."""


@dataclass(frozen=True)
class Source:
    """What differs between presets."""

    source: Literal["toy", "environment"]
    """Where the dialogues and the judge come from."""
    mode: str = "Ra+Rs"
    """How the subscores make the reward."""

    def lacks(self) -> str | None:
        """What has to be set first, in one line."""
        if self.source == "toy":
            return None
        if not os.environ.get(LOG):
            return f"set {LOG} to a file of dialogues in JSON lines ({', '.join(FIELDS)})"
        return judge_lacks()

    def log(self) -> Log:
        """The dialogues."""
        return toy_log() if self.source == "toy" else read_log(Path(os.environ[LOG]))

    def judge(self) -> Scorer:
        """Who scores the questions."""
        return judge_by_rule if self.source == "toy" else judge_from_environment()


@dataclass(frozen=True)
class Look:
    """The public state of an episode: nothing that its texts do not tell, but for a name."""

    cid: str
    """By which the informed player finds the round in its log; the others do not look at it."""
    lines: tuple[Line, ...]
    scores: Scores | None = None
    stop: bool = False
    """Whether the reply was to stop."""


@dataclass
class DialogueEnv:
    """One round, one reply."""

    round: Round
    judge: Scorer
    mode: str
    view: Look = field(init=False)

    def __post_init__(self) -> None:
        self.view = Look(self.round.cid, tuple(merged(self.round.lines)))

    def observe(self) -> str:
        """Show the dialogue."""
        return "\n".join(spoken(self.view.lines))

    def step(self, text: str) -> Step:
        """Score the reply. Raises JudgeError if it takes a judge and there is no verdict."""
        if len(text) > LONGEST or not any(map(str.isalpha, text)):
            feedback = f"The reply was no text of at most {LONGEST} characters; it counts for nothing."
            return Step("", 0.0, True, feedback, "malformed", self.view)
        stop, note = TOKEN in text, ""
        scores = Scores(0.0)
        if stop and self.round.stop:
            scores = Scores(1.0, 1.0, float(text.strip() == TOKEN))
        elif not stop and not self.round.stop:
            verdict = self.judge(self.view.lines, text, self.round.wanted)
            scores, note = Scores(1.0, verdict.content, verdict.format), verdict.note
        self.view = replace(self.view, scores=scores, stop=stop)
        reward = fuse(scores, self.mode)
        feedback = render("score.dialogue", scores=scores, stop=stop, reward=reward, best=best(self.mode), note=note)
        word = ("stopped" if stop else "asked") if scores.action else ("early" if stop else "needless")
        return Step("", reward, True, feedback, word, self.view)


class Reader:
    """Does what the doctor of the log did."""

    def __init__(self, sessions: tuple[Session, ...]) -> None:
        self.rounds = {r.cid: r for session in sessions for r in session}

    def act(self, view: Look) -> str:
        known = self.rounds[view.cid]
        first = re.split(r"[;\n?]", known.wanted)[0].strip()[:200]
        return TOKEN if known.stop else f"Could you tell me more about this: {first}?"

    def end(self, step: Step) -> None:
        """There is nothing left to learn."""


class Even:
    """Stops, or asks about nothing, drawn evenly."""

    def __init__(self, rng: Rng) -> None:
        self.rng = rng

    def act(self, view: Look) -> str:
        return TOKEN if self.rng.random() < 0.5 else NOTHING

    def end(self, step: Step) -> None:
        """Random play learns nothing."""


class Habit:
    """Asks about what was not spoken of yet, and learns after how many of the doctor's turns dialogues stop."""

    def __init__(self) -> None:
        self.met: list[tuple[int, bool]] = []
        """After how many turns a round stood, and whether to stop was right."""

    def act(self, view: Look) -> str:
        spoken_of = named(" ".join(said for _, said in view.lines))
        left = [family for family in FAMILIES if family not in spoken_of]
        return f"Could you tell me about the {left[0]}?" if left and self.chance(_turns(view)) < EVEN else TOKEN

    def chance(self, turns: int) -> float:
        """How likely it is right to stop: a guess that grows with the turns counts like four rounds."""
        alike = [stopped for met, stopped in self.met if met == turns]
        return (sum(alike) + 4 * min(turns / 6, 1)) / (len(alike) + 4)

    def end(self, step: Step) -> None:
        view: Look = step.view
        if view.scores is not None:
            self.met.append((_turns(view), view.stop == bool(view.scores.action)))


def _turns(view: Look) -> int:
    return sum(role == DOCTOR for role, _ in view.lines)

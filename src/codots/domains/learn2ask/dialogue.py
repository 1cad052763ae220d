"""Rounds of logged dialogues, with settings, environment and scripted policies."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from codots.domains.base import Rng, Step
from codots.domains.learn2ask.judge import Scorer, judge_from_environment, judge_lacks, labeled
from codots.domains.learn2ask.log import DOCTOR, FIELDS, Line, Log, Round, Session, merged, read_log
from codots.domains.learn2ask.score import Scores, best, fuse
from codots.domains.learn2ask.template import render
from codots.domains.learn2ask.toy import TOPICS, judge_by_rule, named, toy_log

LOG = "CODOTS_DIALOGUE_LOG"
TOKEN = "<stop />"
"""Stop token. A reply stops if it contains this token."""
LONGEST = 4000
"""Maximum characters of a reply."""
NEUTRAL_QUESTION = "Is there anything else?"
"""Question that names no topic."""
STOP_THRESHOLD = 3 / 7
"""Probability that stopping is right at which stopping (worth 4 if right) pays as much as asking (worth 3 if right)."""


@dataclass(frozen=True)
class Source:
    """Settings that differ between presets."""

    source: Literal["toy", "environment"]
    """Source of the dialogues and the judge: the built-in toy, or environment variables."""
    mode: str = "Ra+Rs"
    """Reward mode: how the subscores are combined."""

    def lacks(self) -> str | None:
        """Return one line on the environment variables that must be set, or None if nothing is missing."""
        if self.source == "toy":
            return None
        if not os.environ.get(LOG):
            return f"set {LOG} to a file of dialogues in JSON lines ({', '.join(FIELDS)})"
        return judge_lacks()

    def log(self) -> Log:
        """Return the dialogues."""
        return toy_log() if self.source == "toy" else read_log(Path(os.environ[LOG]))

    def judge(self) -> Scorer:
        """Return the judge that scores questions."""
        return judge_by_rule if self.source == "toy" else judge_from_environment()


@dataclass(frozen=True)
class DialogueView:
    """Public state of an episode. Except for `cid`, it holds only what the texts show."""

    cid: str
    """Id by which the informed policy finds the round in the log. Other policies ignore it."""
    lines: tuple[Line, ...]
    scores: Scores | None = None
    stop: bool = False
    """Whether the reply stopped. False before the reply."""


@dataclass
class DialogueEnv:
    """The environment of one round, which takes one reply."""

    round: Round
    judge: Scorer
    mode: str
    view: DialogueView = field(init=False)

    def __post_init__(self) -> None:
        self.view = DialogueView(self.round.cid, tuple(merged(self.round.lines)))

    def observe(self) -> str:
        """Return the dialogue."""
        return "\n".join(labeled(self.view.lines))

    def step(self, text: str) -> Step:
        """Score the reply. Raises JudgeError if a verdict is needed but the judge returns none."""
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


class InformedPolicy:
    """Policy that does what the doctor in the log did."""

    def __init__(self, sessions: tuple[Session, ...]) -> None:
        self.rounds = {r.cid: r for session in sessions for r in session}

    def act(self, view: DialogueView) -> str:
        known = self.rounds[view.cid]
        first = re.split(r"[;\n?]", known.wanted)[0].strip()[:200]
        return TOKEN if known.stop else f"Could you tell me more about this: {first}?"

    def end(self, step: Step) -> None:
        """Ignore the outcome; the labels are already known."""


class RandomPolicy:
    """Policy that stops or asks a neutral question, with equal probability."""

    def __init__(self, rng: Rng) -> None:
        self.rng = rng

    def act(self, view: DialogueView) -> str:
        return TOKEN if self.rng.random() < 0.5 else NEUTRAL_QUESTION

    def end(self, step: Step) -> None:
        """Ignore the outcome."""


class AdaptivePolicy:
    """Policy that asks about topics not mentioned yet, and learns after how many doctor turns dialogues stop."""

    def __init__(self) -> None:
        self.seen: list[tuple[int, bool]] = []
        """Number of doctor turns of each past round, and whether stopping was right."""

    def act(self, view: DialogueView) -> str:
        mentioned = named(" ".join(said for _, said in view.lines))
        left = [topic for topic in TOPICS if topic not in mentioned]
        return (
            f"Could you tell me about the {left[0]}?" if left and self.p_stop(_turns(view)) < STOP_THRESHOLD else TOKEN
        )

    def p_stop(self, turns: int) -> float:
        """Return the estimated probability that stopping is right after this number of doctor turns.

        The prior grows with the number of turns and has the weight of four observed rounds.
        """
        alike = [stopped for past, stopped in self.seen if past == turns]
        return (sum(alike) + 4 * min(turns / 6, 1)) / (len(alike) + 4)

    def end(self, step: Step) -> None:
        view: DialogueView = step.view
        if view.scores is not None:
            self.seen.append((_turns(view), view.stop == bool(view.scores.action)))


def _turns(view: DialogueView) -> int:
    return sum(role == DOCTOR for role, _ in view.lines)

"""Environment of PDE discovery, with observations, tools and episode ends."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np

from codots.domains.base import Rng, Step
from codots.domains.pde_discovery import actions
from codots.domains.pde_discovery.actions import Element, RefusedError
from codots.domains.pde_discovery.equation import Equation, read_equation, read_term, same
from codots.domains.pde_discovery.field import Start
from codots.domains.pde_discovery.field import field as field_of
from codots.domains.pde_discovery.regression import (
    THRESHOLD,
    Scored,
    Support,
    fit,
    kappa,
    margin,
    penalty,
    ranked,
    supports,
)
from codots.domains.pde_discovery.rules import Dials, Rules, render


class Point(NamedTuple):
    """One measurement."""

    x: float
    t: float
    u: float
    y: float


@dataclass(frozen=True)
class PastEquation:
    """The result of a finished task."""

    task: int
    equation: Equation
    points: int
    worst: float
    """Largest absolute error of y on the points measured in the task."""
    note: str = ""


@dataclass
class Archive:
    """Data and findings of one task, or of the whole life if the environment carries them over."""

    tasks: int = 0
    data: dict[str, tuple[Point, ...]] = field(default_factory=dict)
    """Data sets by task and number, such as `t1.2`."""
    findings: list[PastEquation] = field(default_factory=list)


@dataclass(frozen=True)
class FitReport:
    """The output of a regression, with numbers rounded as shown."""

    count: int
    """Number of scored equations."""
    shown: tuple[Scored, ...]
    """The best equations, no two of which have the same terms."""
    points: tuple[Point, ...]
    fitted: tuple[float, ...]
    """Value of the best equation at each point."""

    @property
    def best(self) -> Scored:
        """The first shown equation."""
        return self.shown[0]


@dataclass(frozen=True)
class View:
    """The public state of an episode. It contains only what the texts show."""

    turns: int
    turn: int = 0
    """Number of turns used."""
    left: int = 0
    """Number of points left to measure."""
    measured: str = ""
    """Message about the latest points of this task."""
    report: FitReport | None = None
    """The latest report of this task."""
    answer: Equation | None = None


@dataclass
class PdeEnv:
    """The environment of one task."""

    reaction: Equation
    start: Start
    rules: Rules
    dials: Dials
    archive: Archive
    rng: Rng
    view: View = field(init=False)
    ranking: list[Scored] = field(default_factory=list)
    """All equations scored by the latest regression of this task, best first."""

    def __post_init__(self) -> None:
        self.archive.tasks += 1
        self.task = self.archive.tasks
        self.view = View(self.dials.turns, left=self.dials.points)

    def observe(self) -> str:
        """Return the opening observation."""
        return self._show("")

    def step(self, text: str) -> Step:
        """Run the tool call in the text."""
        asked = actions.read_action(text)
        if asked is None:
            return self._end("", "malformed")
        self.view = replace(self.view, turn=self.view.turn + 1)
        try:
            message = getattr(self, f"_{asked.tag}")(asked)
        except RefusedError as refused:
            message = str(refused)
        if self.view.answer is not None:
            return self._end(message, "answered", self.rules.reward(self.view.answer, self.reaction))
        if self.view.turn >= self.dials.turns:
            return self._end(message, "late")
        return Step(self._show(message), 0.0, False, view=self.view)

    def _show(self, message: str) -> str:
        return render("turn", message=message, view=self.view, points=self.dials.points, archive=self.archive)

    def _end(self, message: str, stop: str, reward: float = 0.0) -> Step:
        feedback = render("feedback", stop=stop, view=self.view)
        return Step(message if self.rules.last_shown else "", reward, True, feedback, stop, self.view)

    def _sample(self, asked: Element) -> str:
        places = actions.places(asked, self.view.left)
        trajectory = field_of(self.reaction, self.start, self.dials.diffusion)
        exact = np.array([trajectory.at(x, t) for x, t in places])
        measured = exact + self.rng.normal(0, self.dials.noise, exact.shape)
        points = tuple(Point(*place, float(u), float(y)) for place, (u, y) in zip(places, measured, strict=True))
        name = f"t{self.task}.{len(self._own()) + 1}"
        self.archive.data[name] = points
        message = render("sampled", name=name, points=points)
        self.view = replace(self.view, left=self.view.left - len(points), measured=message)
        return message

    def _own(self) -> list[tuple[Point, ...]]:
        """Return the data sets of this task."""
        return [points for name, points in self.archive.data.items() if name.startswith(f"t{self.task}.")]

    def _regress(self, asked: Element) -> str:
        threshold = self._threshold(asked)
        points, noted = self._points(asked.get("data", "all")), actions.noted_points(asked)
        wanted, terms = self._wanted(asked)
        if not points and not noted:
            raise RefusedError("There are no data to fit; measure first.")
        u, y = np.array([(point.u, point.y) for point in points] + noted).T
        scored = fit(u, y, wanted, threshold)
        if not scored:
            raise RefusedError("Every coefficient came out too small to count.")
        spare = self.rules.ranking == "spare"
        self.ranking = ranked(scored, self.dials.noise[1] if spare else None, len(u))
        best = self.ranking[0].equation
        fitted = best(u)[: len(points)].tolist()
        self.view = replace(self.view, report=self._report(points, fitted))
        return render(
            "report",
            report=self.view.report,
            spare=spare,
            noted=len(noted),
            kappas=(kappa(u, best.support), kappa(u, terms)),
            penalty=penalty,
            margin=margin(self.ranking),
            errors=[point.y - value for point, value in zip(points, fitted, strict=True)],
        )

    def _threshold(self, asked: Element) -> float:
        """Return the size below which coefficients are dropped. `alpha` is parsed but has no effect."""
        decoys = ("alpha", "threshold") if self.rules.decoys else ()
        actions.allow(asked, ("data", *decoys), ("term", "equation", *(["known"] if self.rules.free else [])))
        settings = {name: actions.number(asked, name) for name in decoys if name in asked.attrib}
        if min(settings.values(), default=0.0) < 0:
            raise RefusedError("alpha and threshold may not be below 0.")
        return settings.get("threshold", THRESHOLD)

    def _report(self, points: tuple[Point, ...], fitted: list[float]) -> FitReport:
        """Return the report of the latest regression, with numbers rounded as shown."""
        first: dict[Support, Scored] = {}
        for s in self.ranking:
            first.setdefault(s.equation.support, Scored(s.equation, short(s.worst, 4), short(s.mean, 4)))
        digits = self.rules.digits
        return FitReport(
            count=len(self.ranking),
            shown=tuple(first.values())[: self.rules.shown],
            points=tuple(Point(*[short(number, digits) for number in point]) for point in points),
            fitted=tuple(short(number, digits) for number in fitted),
        )

    def _points(self, wanted: str) -> tuple[Point, ...]:
        """Return the points of the named data sets or tasks, such as `t1+t3`, or of all data sets."""
        data = self.archive.data
        if wanted.strip() == "all":
            return tuple(point for points in data.values() for point in points)
        names = list(dict.fromkeys(name.strip() for name in wanted[:200].split("+")))
        found = [key for key in data if key in names or key.partition(".")[0] in names]
        for name in names:
            if not any(name in (key, key.partition(".")[0]) for key in found):
                raise RefusedError(f"There are no data called {name!r:.40}.")
        return tuple(point for key in found for point in data[key])

    def _wanted(self, asked: Element) -> tuple[tuple[Support, ...], tuple[int, ...]]:
        """Return the supports to fit and the terms that they contain."""
        terms, equations = actions.chosen_terms(asked), actions.candidates(asked, self.dials.terms[1])
        if bool(terms) == bool(equations):
            raise RefusedError("regress needs either term elements or equation elements.")
        if terms:
            return supports(terms, self.dials.terms[1]), terms
        return tuple(e.support for e in equations), tuple(sorted({i for e in equations for i in e.support}))

    def _summary(self, asked: Element) -> str:
        actions.allow(asked, ("equations",))
        reveal = asked.get("equations", "").strip() == "true"
        return render("summary", archive=self.archive, reveal=reveal)

    def _answer(self, asked: Element) -> str:
        actions.allow(asked, ("note", "uncertain") if self.rules.decoys else ())
        equation = read_equation(asked.text or "")
        if equation is None:
            raise RefusedError("The answer is no sum of numbers times terms of the library.")
        doubted = [name for name in asked.get("uncertain", "").split(",") if name.strip()]
        if len(doubted) > 4 or any(read_term(name) is None for name in doubted):
            raise RefusedError("uncertain takes 4 terms of the library at most.")
        if not self.rules.free:
            self._check_scored(equation)
        self.view = replace(self.view, answer=equation)
        own = [point for points in self._own() for point in points]
        worst = max((abs(float(equation(np.array(point.u))) - point.y) for point in own), default=0.0)
        note = asked.get("note", "")[: actions.NOTE]
        self.archive.findings.append(PastEquation(self.task, equation, len(own), worst, note))
        return render("answered", equation=equation, points=len(own), worst=worst)

    def _check_scored(self, equation: Equation) -> None:
        """Raise RefusedError unless this task measured points and its latest regression scored the equation."""
        if self.view.left == self.dials.points or self.view.report is None:
            raise RefusedError("Measure and fit in this task before you answer.")
        if not any(same(equation, scored.equation) for scored in self.ranking):
            raise RefusedError("The answer is none of the equations that the latest regression scored.")


def short(number: float, digits: int) -> float:
    """Round a number to `digits` significant digits, as shown."""
    return float(f"{number:.{digits}g}")

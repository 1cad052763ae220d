"""The law language, whose parser turns one expression into closures without `eval`."""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

Value = float | bool
State = Mapping[str, float]
"""Variables that a law reads at one step."""
Law = Callable[[State], Value]

VARIABLES = ("x", "v", "t", "x_target", "v_target", "horizon", "remaining_steps")
LENGTH = 2000  # maximum characters of a law
DEPTH = 32  # maximum nesting of brackets, signs and powers; far below Python's recursion limit
DIGITS = ".0123456789"  # ASCII only; digits of other scripts are rejected
TOKEN = re.compile(r"\d+\.?\d*(?:e[-+]?\d+)?|\.\d+(?:e[-+]?\d+)?|\w+|\*\*|[<>=!]=|[-+*/<>(),]|\S", re.A | re.I)


class LawError(ValueError):
    """Error for a law that cannot be parsed. The message is the reason in one line."""


@dataclass(frozen=True)
class Function:
    """A function that laws may call."""

    least: int
    """Minimum number of arguments."""
    most: int
    """Maximum number of arguments."""
    of: Callable[..., Value]
    """Implementation, which takes the state and then the values of the arguments."""
    times: int = LENGTH
    """Maximum number of calls in one law, because some functions are costly."""


def _plain(of: Callable[..., float]) -> Callable[..., Value]:
    """Wrap a function of floats. All arguments are converted to float, which bounds the size of integers."""
    return lambda _, *values: of(*map(float, values))


def _compared(of: Callable[[float, float], bool]) -> Function:
    return Function(2, 2, lambda _, a, b: of(a, b))


FUNCTIONS = {
    "abs": Function(1, 1, _plain(abs)),
    "min": Function(1, LENGTH, _plain(lambda *values: min(values))),
    "max": Function(1, LENGTH, _plain(lambda *values: max(values))),
    "pow": Function(2, 2, _plain(math.pow)),
    "clip": Function(3, 3, _plain(lambda value, low, high: max(low, min(high, value)))),
    **{name: _compared(getattr(operator, name)) for name in ("lt", "le", "gt", "ge", "eq", "ne")},
}
SUM: dict[str, Callable[[float, float], float]] = {"+": operator.add, "-": operator.sub}
PRODUCT: dict[str, Callable[[float, float], float]] = {"*": operator.mul, "/": operator.truediv}
COMPARE = {"<": "lt", "<=": "le", ">": "gt", ">=": "ge", "==": "eq", "!=": "ne"}


def read_law(text: str, extra: Mapping[str, Function] | None = None) -> Law:
    """Parse a law. `extra` adds functions to the built-in ones. Raises LawError if the law cannot be parsed.

    The returned law raises ArithmeticError or ValueError if it has no value in a state.
    """
    if len(text) > LENGTH:
        raise LawError(f"the law has {len(text)} characters, at most {LENGTH} are read")
    return _Parser(TOKEN.findall(text), {**FUNCTIONS, **(extra or {})}).whole()


def push(law: Law, state: State) -> float:
    """Return a law's unclipped push in a state. Raises ArithmeticError or ValueError if it is not a finite number."""
    value = law(state)
    if isinstance(value, bool):
        raise ValueError("the law gave a truth value, not a number")
    if not math.isfinite(value):
        raise ValueError("the law gave no finite number")
    return value


@dataclass
class _Parser:
    """Recursive-descent parser, loosest operators first. Chains are parsed in loops, so only nesting adds depth."""

    tokens: list[str]
    functions: Mapping[str, Function]
    at: int = 0
    depth: int = 0
    calls: dict[str, int] = field(default_factory=dict)

    def whole(self) -> Law:
        law = self.deeper(self.choice)
        if self.token:
            raise LawError(f"{self.token[:40]!r} cannot stand where it does")
        return law

    @property
    def token(self) -> str:
        """The next token, or an empty string at the end."""
        return self.tokens[self.at] if self.at < len(self.tokens) else ""

    def take(self, *wanted: str) -> str:
        """Consume and return the next token if it is one of these; otherwise return an empty string."""
        token = self.token
        if not token or token not in wanted:
            return ""
        self.at += 1
        return token

    def need(self, wanted: str) -> None:
        if not self.take(wanted):
            raise LawError(f"got {self.token[:40]!r}, expected {wanted!r}")

    def deeper(self, read: Callable[[], Law]) -> Law:
        self.depth += 1
        if self.depth > DEPTH:
            raise LawError(f"the law is nested more than {DEPTH} deep")
        law = read()
        self.depth -= 1
        return law

    def choice(self) -> Law:
        """Parse `VALUE if CONDITION else VALUE if ...`."""
        cases, value = [], self.either()
        while self.take("if"):
            condition = self.either()
            self.need("else")
            cases.append((condition, value))
            value = self.either()
        return _choose(cases, value) if cases else value

    def either(self) -> Law:
        parts = [self.both()]
        while self.take("or"):
            parts.append(self.both())
        return parts[0] if len(parts) == 1 else _first(parts, True)

    def both(self) -> Law:
        parts = [self.negation()]
        while self.take("and"):
            parts.append(self.negation())
        return parts[0] if len(parts) == 1 else _first(parts, False)

    def negation(self) -> Law:
        if not self.take("not"):
            return self.comparison()
        inner = self.deeper(self.negation)
        return lambda state: not inner(state)

    def comparison(self) -> Law:
        parts, tests = [self.sum()], []
        while sign := self.take(*COMPARE):
            tests.append(getattr(operator, COMPARE[sign]))
            parts.append(self.sum())
        return _compare(parts, tests) if tests else parts[0]

    def sum(self) -> Law:
        return self.chain(SUM, self.product)

    def product(self) -> Law:
        return self.chain(PRODUCT, self.signed)

    def chain(self, signs: dict[str, Callable[[float, float], float]], read: Callable[[], Law]) -> Law:
        first, rest = read(), []
        while sign := self.take(*signs):
            rest.append((signs[sign], read()))
        return _fold(first, rest) if rest else first

    def signed(self) -> Law:
        sign = self.take("+", "-")
        if not sign:
            return self.power()
        inner = self.deeper(self.signed)
        return (lambda state: -float(inner(state))) if sign == "-" else (lambda state: float(inner(state)))

    def power(self) -> Law:
        """Parse a power.

        `**` binds tighter than a sign to its left and looser than a sign to its right: -2 ** -2 is -(2 ** (-2)).
        """
        base = self.atom()
        if not self.take("**"):
            return base
        exponent = self.deeper(self.signed)
        return lambda state: math.pow(base(state), exponent(state))

    def atom(self) -> Law:
        if self.take("("):
            law = self.deeper(self.choice)
            self.need(")")
            return law
        token = self.token
        self.at += 1
        if token and token[0] in DIGITS and token != ".":
            return _number(token)
        if token in VARIABLES:
            return lambda state: state[token]
        if token in self.functions or token == "ifelse":
            return self.call(token)
        raise LawError(f"{token[:40]!r} cannot stand where it does" if token else "the law ends too early")

    def call(self, name: str) -> Law:
        self.need("(")
        arguments = [self.deeper(self.choice)]
        while self.take(","):
            arguments.append(self.deeper(self.choice))
        self.need(")")
        function = self.functions.get(name)
        least, most = (function.least, function.most) if function else (3, 3)
        if not least <= len(arguments) <= most:
            raise LawError(f"{name} was given {len(arguments)} arguments, it takes {least}")
        if function is None:  # ifelse evaluates only one of its two values
            condition, value, other = arguments
            return _choose([(condition, value)], other)
        self.calls[name] = self.calls.get(name, 0) + 1
        if self.calls[name] > function.times:
            raise LawError(f"{name} is called more than {function.times} times")
        of = function.of
        return lambda state: of(state, *[argument(state) for argument in arguments])


def _number(token: str) -> Law:
    value = float(token)
    if not math.isfinite(value):
        raise LawError(f"{token[:40]!r} is too large a number")
    return lambda _: value


def _choose(cases: list[tuple[Law, Law]], last: Law) -> Law:
    def law(state: State) -> Value:
        for condition, value in cases:
            if condition(state):
                return value(state)
        return last(state)

    return law


def _first(parts: list[Law], wanted: bool) -> Law:
    """Return the law of an `or` (`wanted` is True) or of an `and` (`wanted` is False).

    The law returns the first value whose truth value is `wanted`, or the last value if there is none.
    """

    def law(state: State) -> Value:
        for part in parts[:-1]:
            value = part(state)
            if bool(value) is wanted:
                return value
        return parts[-1](state)

    return law


def _compare(parts: list[Law], tests: list[Callable[[float, float], bool]]) -> Law:
    def law(state: State) -> Value:
        left = parts[0](state)
        for test, part in zip(tests, parts[1:], strict=True):
            right = part(state)
            if not test(left, right):
                return False
            left = right
        return True

    return law


def _fold(first: Law, rest: list[tuple[Callable[[float, float], float], Law]]) -> Law:
    def law(state: State) -> Value:
        total = float(first(state))
        for operate, part in rest:
            total = operate(total, float(part(state)))
        return total

    return law

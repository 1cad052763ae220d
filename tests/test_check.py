"""Every domain keeps its contract, and a domain that breaks one promise is told which."""

import random
from dataclasses import replace

import numpy as np
import pytest

from codots.check import DomainError, check_domain
from codots.domain import Step, domain_ids
from tests.toy import Guess, GuessEnv


@pytest.mark.parametrize("id", domain_ids())
def test_every_domain_keeps_its_contract(id):
    check_domain(id)


def test_a_domain_with_fallbacks_only_keeps_it_too(registry):
    check_domain(Guess())


def breaks(method, wrong):
    """Make a domain that does one thing wrong; `wrong` is given what would have been right, and the arguments."""

    def broken(self, *args, **kwargs):
        return wrong(getattr(super(kind, self), method)(*args, **kwargs), *args)

    kind = type("Broken", (Guess,), {"id": "broken-v0", method: broken})
    return kind()


class Answers(GuessEnv):
    """Answers each step by a function of what would have been right."""

    def __init__(self, env, wrong):
        super().__init__(env.hidden, env.view)
        self.wrong = wrong

    def step(self, text):
        return self.wrong(super().step(text), text)


def answers(wrong):
    return breaks("make_env", lambda env, task: Answers(env, wrong))


def raises(step, text):
    if step.stop == "malformed":
        raise KeyError(text[:3])
    return step


def draws(right, *_):
    random.random()
    return right


def legacy(right, *_):
    np.random.rand()
    return right


unequal = iter(range(10**9))
nameless = [lambda: 0]

BROKEN = {
    "a world of its own every time": (
        breaks("make_world", lambda *_: next(unequal)),
        "a_name_is_one_pack.*expected the",
    ),
    "tasks of their own every time": (
        breaks("make_task", lambda *_: next(unequal)),
        "a_name_is_one_pack.*expected the",
    ),
    "the global generator": (breaks("make_task", draws), "got a draw from a global random generator"),
    "numpy's global generator": (breaks("rules_text", legacy), "got a draw from a global random generator"),
    "a world that cannot travel": (breaks("make_world", lambda *_: nameless[0]), "packs_travel: got .*expected no exc"),
    "a twin that is the same": (breaks("twin", lambda _, world, rng: world), "expected a twin that hides something"),
    "a twin of other dials": (
        breaks("twin", lambda t, *_: replace(t, dials=9, hidden=10)),
        "expected a twin of the same",
    ),
    "rules that tell": (
        breaks("rules_text", lambda _, task, style: f"It is {task.world.hidden}"),
        "the same in a twin",
    ),
    "the position in the rules": (
        breaks("rules_text", lambda text, task, style: f"{text} Task {task.position}."),
        "prompts_hide_the_position: .*expected one prompt at every position",
    ),
    "an exception on garbage": (answers(raises), "garbage_is_malformed: got KeyError: .*expected no exception"),
    "garbage taken for a move": (
        answers(lambda s, _: replace(s, stop="late" if s.done else None)),
        "stops as 'malformed'",
    ),
    "no end": (answers(lambda s, text: s if s.stop == "malformed" else Step("", 0.0, False)), "expected an end"),
    "a reward out of bounds": (answers(lambda s, _: replace(s, reward=s.reward * 2)), "expected a reward within"),
    "a reward that is not a number": (
        answers(lambda s, _: replace(s, reward=float("nan"))),
        "expected a reward within",
    ),
    "a reward on the way": (answers(lambda s, _: replace(s, reward=0.5)), "only the last one counts"),
    "an observation that is no text": (answers(lambda s, _: replace(s, observation=None)), "got None, expected text"),
    "an environment that remembers": (
        answers(lambda s, _: replace(s, feedback=str(next(unequal)))),
        "replays_are_equal",
    ),
    "an informed player that is not": (
        breaks("policy", lambda right, name, world: Guess().policy({"informed": "random"}.get(name, name), world)),
        "knowledge_pays: .*expected informed to reach bayes",
    ),
    "a floor above its ceiling": (breaks("floor", lambda *_: 1.5), "a floor and a ceiling in order"),
    "a floor that is too high": (breaks("floor", lambda *_: 0.9), "expected random to reach floor"),
    "a ceiling that is too low": (breaks("ceiling", lambda *_: 0.7), "expected ceiling to reach informed"),
    "facts that are wrong": (breaks("facts", lambda *_: (0, 1, 1)), ""),
}


@pytest.mark.parametrize("promise", BROKEN)
def test_a_broken_promise_is_one_line(promise, registry):
    domain, line = BROKEN[promise]
    if promise == "facts that are wrong":
        type(domain).oracle_context = lambda self, world, style: f"It is {world.hidden}."
        line = "expected all right and none wrong in the oracle's context"
    with pytest.raises(DomainError, match=line) as error:
        check_domain(domain)
    assert "\n" not in str(error.value)
    assert str(error.value).startswith("broken-v0 ")


def test_one_pack_is_too_few_to_know_the_noise():
    with pytest.raises(ValueError, match="1 packs; expected at least 2"):
        check_domain("frozen-lake-v1", packs=1)

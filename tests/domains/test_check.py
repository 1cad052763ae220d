"""Every domain keeps its contract, and a domain that breaks one promise is told which."""

import random
import sys
from dataclasses import replace

import numpy as np
import pytest

from codots.domains.base import Step
from codots.domains.check import PACKS, SIZE, DomainError, check_domain, check_domains, check_preset
from codots.domains.contract import GARBAGE, MAX_PROMPT
from codots.domains.registry import domain_ids, find_domain, get_domain
from tests.toy import Guess, GuessEnv


@pytest.mark.parametrize(("id", "preset"), [(id, p) for id in domain_ids() for p in get_domain(id).presets])
def test_every_domain_keeps_its_contract_in_every_preset(id, preset):
    found = check_preset(get_domain(id), preset, PACKS, SIZE)
    assert (found.id, found.preset, found.lacks) == (id, preset, get_domain(id).lacks(preset))
    assert found.lacks or 0 < found.longest <= MAX_PROMPT


def test_a_domain_with_fallbacks_only_keeps_it_too(registry):
    assert [found.preset for found in check_domain(Guess())] == ["few", "many"]


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


def blabs(step, hidden):
    return replace(step, feedback=f"not a number {'.' * hidden}") if step.stop == "malformed" else step


def draws(right, *_):
    random.random()
    return right


def legacy(right, *_):
    np.random.rand()
    return right


def stubborn(step, text):
    """Give every guess but the informed one another turn."""
    return step if step.reward or step.stop == "malformed" else Step("no", 0.0, False)


def telling(env, task):
    """Say after a miss on which side the number lies, which the view does not."""

    class Telling(GuessEnv):
        def step(self, text):
            step = super().step(text)
            return step if step.done else replace(step, observation="more" if self.hidden > int(text) else "less")

    return Telling(env.hidden, env.view)


def opens(wrong):
    """Let the environment show something of its hidden number at the start."""

    class Opening(GuessEnv):
        def observe(self):
            return wrong(super().observe(), self.hidden)

    return breaks("make_env", lambda env, task: Opening(env.hidden, env.view))


def shows(env, task):
    env.view = replace(env.view, guess=env.hidden, hit=True)
    return env


def says(wrong):
    """Change what policies say, given what they would have said, their name and their world."""

    def broken(player, name, world):
        right = player.act
        player.act = lambda view: wrong(right(view), name, world)
        return player

    return breaks("policy", broken)


class Parted(Guess):
    """Even tasks are of `train`, and so are even worlds; what follows breaks it."""

    id = "broken-v0"

    def belongs(self, hidden, split):
        return (hidden % 2 == 0) == (split == "train")

    def make_task(self, world, position, rng):
        return 1 if world.split == "train" else 2

    def side(self, task):
        return "train" if task.content == 1 else "held-out"


def parted(method, wrong):
    return type("Broken", (Parted,), {method: wrong})()


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
    "a world that cannot be pickled": (
        breaks("make_world", lambda *_: nameless[0]),
        "packs_pickle: got .*expected no exc",
    ),
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
    "a ceiling under what bayes earns": (breaks("ceiling", lambda *_: 0.4), "expected ceiling to reach"),
    "rules of another kind": (breaks("rules_text", lambda *_: None), "a_twin|rules_hide.*expected"),
    "the oracle's words in the opening": (
        opens(lambda text, hidden: f"{text} It is {hidden}."),
        "rules_hide_the_world: .*expected no trace of the oracle's",
    ),
    "an opening that tells": (
        opens(lambda text, hidden: text + " " * hidden),
        "twins_look_alike: .*the opening of its",
    ),
    "a view that tells": (breaks("make_env", shows), "twins_look_alike: .*expected the first view of its twin"),
    "an answer that tells more than its effect": (
        breaks("make_env", telling),
        "twins_look_alike: .*expected the answer of its twin",
    ),
    "a malformed answer that tells": (
        breaks("make_env", lambda env, task: Answers(env, lambda s, _: blabs(s, env.hidden))),
        "twins_look_alike: .*expected what the same text returned in its twin",
    ),
    "a bayes that knows": (
        says(lambda text, name, world: str(world.hidden) if name == "bayes" else text),
        "twins_look_alike: .*expected what the same policy says in a twin",
    ),
    "a policy that never says the same": (
        says(lambda text, name, world: str(next(unequal) % 4) if name == "random" else text),
        "replays_are_equal: .*expected what the same policy said before",
    ),
    "an opening of its own every time": (
        opens(lambda text, hidden: f"{text}{next(unequal)}"),
        "prompts_hide_the_position|replays_are_equal",
    ),
    "no end for the stubborn": (answers(stubborn), "expected an end"),
    "an exception on what is hostile": (
        answers(lambda s, text: s if len(text) < 9 or text in GARBAGE else 1 / 0),
        "garbage_is_malformed: got ZeroDivisionError",
    ),
    "an oracle that is too long": (
        breaks("oracle_context", lambda *_: "so " * 2000),
        "prompts_fit: got '6000 characters', expected an oracle's context of at most 4000",
    ),
    "prompts that are too long": (
        breaks("rules_text", lambda text, *_: text * 1000),
        "prompts_fit: got '.* characters', expected prompts of at most 32000",
    ),
    "an episode that is too long": (
        answers(lambda s, _: replace(s, observation="no " * 20_000)),
        "prompts_fit: got '.* characters', expected prompts",
    ),
    "a prompt style that nobody knows": (
        type("Broken", (Guess,), {"id": "broken-v0", "styles": ("loud",)})(),
        "broken-v0 few loud, .*expected no exception",
    ),
    "a task on the wrong side": (
        parted("make_task", lambda self, world, position, rng: int(rng.integers(1, 3))),
        "splits_stay_apart: .*expected a task of the side",
    ),
    "a side that hangs on the split": (
        parted("side", lambda self, task: "train" if task.world.split == "train" else "held-out"),
        "splits_stay_apart: .*expected a side that depends on the content alone",
    ),
    "worlds that dev and test do not share": (
        parted("belongs", lambda self, hidden, split: hidden % 3 != ("train", "dev", "test").index(split)),
        "splits_stay_apart: .*expected dev and test to share",
    ),
    "worlds of which some are on both sides": (
        parted("belongs", lambda self, hidden, split: hidden == 1 or (hidden % 2 == 0) == (split == "train")),
        "splits_stay_apart: got '.* of 32 worlds on both sides'",
    ),
    "facts that are wrong": (
        breaks("facts", lambda *_: (0, 1, 1)),
        "facts_are_right: .*expected all right and none wrong in the oracle's context",
    ),
}


@pytest.mark.parametrize("promise", BROKEN)
def test_a_broken_promise_is_one_line(promise, registry):
    domain, line = BROKEN[promise]
    if promise in ("facts that are wrong", "the oracle's words in the opening"):
        type(domain).oracle_context = lambda self, world, style: f"It is {world.hidden}."
    with pytest.raises(DomainError, match=line) as error:
        check_domain(domain)
    assert "\n" not in str(error.value)
    assert str(error.value).startswith("broken-v0 ")


def test_one_pack_is_too_few_to_know_the_noise():
    with pytest.raises(ValueError, match="1 packs; expected at least 2"):
        check_domain("frozen-lake-v1", packs=1)


def test_a_domain_that_keeps_its_splits_apart_keeps_its_contract(registry):
    check_domain(Parted())


# So many words that no two processes walk their set in the same order by chance.
HASHES = """
from dataclasses import replace
from tests.toy import Guess

class Hashes(Guess):
    id = "hashes-v0"

    def make_task(self, world, position, rng):
        return 1 + position % 2, [*{*"abcdefghijklmnopqrstuvwxyz"}]

    def make_env(self, task, **how):
        return super().make_env(replace(task, content=task.content[0]), **how)
"""


@pytest.fixture
def module(tmp_path, monkeypatch, registry):
    """A module of this text that can be imported."""

    def make(name, text):
        (tmp_path / f"{name}.py").write_text(text)
        monkeypatch.syspath_prepend(str(tmp_path))
        monkeypatch.delitem(sys.modules, name, raising=False)
        return name

    return make


def test_what_hangs_on_the_hashes_of_a_process_is_found(module):
    name = module("hashes", HASHES)
    with pytest.raises(DomainError, match=r"another_process_agrees: .*expected the pack that this process draws"):
        check_domains([f"{name}:Hashes"])
    module("steady", HASHES.replace("{*", "").replace("}]", "]").replace("hashes-", "steady-"))
    assert [found.id for found in check_domains(["steady:Hashes"])] == ["steady-v0"] * 2


def test_a_domain_that_another_process_cannot_play_is_told_why(module):
    name = module("parents", HASHES + 'import os\nif "CHILD" in os.environ: raise OSError("no room")\n')
    domain = find_domain(f"{name}:Hashes")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CHILD", "1")
        with pytest.raises(DomainError, match=r"another_process_agrees: got 'OSError: no room'"):
            check_domain(domain)


def test_several_processes_check_what_one_does_and_tell_how_far_they_are():
    names, told = ["learn2ask-v1", "learn2ask-v0"], []
    one = check_domains(names, packs=4)
    two = check_domains(names, packs=4, workers=2, on_progress=lambda *what: told.append(what))
    assert [replace(found, seconds=0.0) for found in two] == [replace(found, seconds=0.0) for found in one]
    assert told[0] == ("learn2ask-v1 easy", 0, 9)
    assert told[-1] == ("all", 9, 9)
    assert one[5].lacks.startswith("set CODOTS_DIALOGUE_LOG")
    assert one[5].seconds == 0.0


def test_a_promise_that_breaks_in_another_process_is_told_here(module):
    name = module("broken_here", HASHES.replace("[1 + len", "[0 * len").replace("hashes-", "broken-"))
    with pytest.raises(DomainError, match=r"^broken-v0 few.*expected"):
        check_domains([f"{name}:Hashes"], workers=2)


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("frozen-lake-v11", "unknown domain 'frozen-lake-v11'.*nearest is 'frozen-lake-v1'"),
        (
            "no_such_module:Doors",
            r"cannot import 'no_such_module' \(No module named 'no_such_module'\); expected an id",
        ),
        ("tests.toy:Gess", "unknown domain of tests.toy 'Gess'; expected one of Guess, Talk; the nearest is 'Guess'"),
        ("tests.toy:GuessEnv", "unknown domain of tests.toy 'GuessEnv'; expected one of Guess, Talk"),
        ("tests.toy:", "unknown domain of tests.toy ''"),
        (":Guess", "cannot import ''"),
        ("..toy:Guess", r"cannot import '\.\.toy'"),
        ("codots.domains.base:Domain", "unknown domain of codots.domains.base 'Domain'"),
    ],
)
def test_a_domain_that_is_not_there_is_one_line(name, line, registry):
    with pytest.raises(ValueError, match=line) as error:
        find_domain(name)
    assert "\n" not in str(error.value)


def test_a_domain_is_found_by_its_class_or_as_an_object(registry):
    assert find_domain("tests.toy:Guess").id == "guess-v0"
    assert get_domain("guess-v0") is registry["guess-v0"]
    assert find_domain("tests.domains.test_check:PARTED") is PARTED


PARTED = Parted()

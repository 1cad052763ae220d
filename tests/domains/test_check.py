"""Every domain keeps its contract, and the check names the promise that a domain breaks."""

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

PRESETS = [(id, preset) for id in domain_ids() for preset in get_domain(id).presets]
COSTLY = {preset for preset in PRESETS if preset[0].startswith("pde-discovery") and preset[1] != "easy"}
"""Presets that are checked in the slow tests alone, because a check takes several seconds."""
CHECKS = [pytest.param(*preset, PACKS // 4, marks=[pytest.mark.slow] * (preset in COSTLY)) for preset in PRESETS]
CHECKS += [pytest.param(*preset, PACKS, marks=pytest.mark.slow) for preset in PRESETS]


@pytest.mark.parametrize(("id", "preset", "packs"), CHECKS)
def test_every_domain_keeps_its_contract_in_every_preset(id, preset, packs):
    found = check_preset(get_domain(id), preset, packs, SIZE)
    assert (found.id, found.preset, found.lacks) == (id, preset, get_domain(id).lacks(preset))
    assert found.lacks or 0 < found.longest <= MAX_PROMPT


def test_a_domain_without_optional_methods_keeps_its_contract(registry):
    assert [found.preset for found in check_domain(Guess())] == ["few", "many"]


def breaks(method, wrong):
    """Return a domain with one wrong method; `wrong` receives the right result and the arguments."""

    def broken(self, *args, **kwargs):
        return wrong(getattr(super(kind, self), method)(*args, **kwargs), *args)

    kind = type("Broken", (Guess,), {"id": "broken-v0", method: broken})
    return kind()


class AlteredEnv(GuessEnv):
    """Returns a function of the right step and the text."""

    def __init__(self, env, wrong):
        super().__init__(env.hidden, env.view)
        self.wrong = wrong

    def step(self, text):
        return self.wrong(super().step(text), text)


def alters_step(wrong):
    return breaks("make_env", lambda env, task: AlteredEnv(env, wrong))


def raises(step, text):
    if step.stop == "malformed":
        raise KeyError(text[:3])
    return step


def leaks_in_feedback(step, hidden):
    return replace(step, feedback=f"not a number {'.' * hidden}") if step.stop == "malformed" else step


def draws_from_random(right, *_):
    random.random()
    return right


def draws_from_numpy(right, *_):
    np.random.rand()
    return right


def endless_unless_right(step, text):
    """Continue the episode after every guess but the right one."""
    return step if step.reward or step.stop == "malformed" else Step("no", 0.0, False)


def leaks_in_observation(env, task):
    """Reveal after a miss whether the number is larger, which the view does not show."""

    class LeakyEnv(GuessEnv):
        def step(self, text):
            step = super().step(text)
            return step if step.done else replace(step, observation="more" if self.hidden > int(text) else "less")

    return LeakyEnv(env.hidden, env.view)


def alters_opening(wrong):
    """Change the first observation, given the right one and the hidden number."""

    class AlteredOpening(GuessEnv):
        def observe(self):
            return wrong(super().observe(), self.hidden)

    return breaks("make_env", lambda env, task: AlteredOpening(env.hidden, env.view))


def leaks_in_view(env, task):
    env.view = replace(env.view, guess=env.hidden, hit=True)
    return env


def alters_policy(wrong):
    """Change the actions of policies, given the right action, the policy's name and the world."""

    def broken(policy, name, world):
        right = policy.act
        policy.act = lambda view: wrong(right(view), name, world)
        return policy

    return breaks("policy", broken)


class SplitGuess(Guess):
    """Separates worlds and tasks of `train` from the held-out ones; subclasses break that."""

    id = "broken-v0"

    def belongs(self, hidden, split):
        return (hidden % 2 == 0) == (split == "train")

    def make_task(self, world, position, rng):
        return 1 if world.split == "train" else 2

    def side(self, task):
        return "train" if task.content == 1 else "held-out"


def breaks_split(method, wrong):
    return type("Broken", (SplitGuess,), {method: wrong})()


counter = iter(range(10**9))
unpicklable = [lambda: 0]

BROKEN = {
    "another world at every draw": (
        breaks("make_world", lambda *_: next(counter)),
        "a_name_is_one_pack.*expected the",
    ),
    "other tasks at every draw": (
        breaks("make_task", lambda *_: next(counter)),
        "a_name_is_one_pack.*expected the",
    ),
    "the global generator": (breaks("make_task", draws_from_random), "got a draw from a global random generator"),
    "numpy's global generator": (breaks("rules_text", draws_from_numpy), "got a draw from a global random generator"),
    "a world that cannot be pickled": (
        breaks("make_world", lambda *_: unpicklable[0]),
        "packs_pickle: got .*expected no exc",
    ),
    "a twin that is the same": (breaks("twin", lambda _, world, rng: world), "expected a twin that hides something"),
    "a twin of other dials": (
        breaks("twin", lambda t, *_: replace(t, dials=9, hidden=10)),
        "expected a twin of the same",
    ),
    "rules that reveal the world": (
        breaks("rules_text", lambda _, task, style: f"It is {task.world.hidden}"),
        "the same in a twin",
    ),
    "the position in the rules": (
        breaks("rules_text", lambda text, task, style: f"{text} Task {task.position}."),
        "prompts_hide_the_position: .*expected one prompt at every position",
    ),
    "an exception on garbage": (alters_step(raises), "garbage_is_malformed: got KeyError: .*expected no exception"),
    "garbage accepted as an action": (
        alters_step(lambda s, _: replace(s, stop="late" if s.done else None)),
        "stops as 'malformed'",
    ),
    "no end": (alters_step(lambda s, text: s if s.stop == "malformed" else Step("", 0.0, False)), "expected an end"),
    "a reward out of bounds": (alters_step(lambda s, _: replace(s, reward=s.reward * 2)), "expected a reward within"),
    "a reward that is not a number": (
        alters_step(lambda s, _: replace(s, reward=float("nan"))),
        "expected a reward within",
    ),
    "a reward before the end": (alters_step(lambda s, _: replace(s, reward=0.5)), "only the last one counts"),
    "an observation that is not text": (
        alters_step(lambda s, _: replace(s, observation=None)),
        "got None, expected text",
    ),
    "an environment that remembers earlier episodes": (
        alters_step(lambda s, _: replace(s, feedback=str(next(counter)))),
        "replays_are_equal",
    ),
    "an informed policy that knows nothing": (
        breaks("policy", lambda right, name, world: Guess().policy({"informed": "random"}.get(name, name), world)),
        "knowledge_pays: .*expected informed to reach bayes",
    ),
    "a floor above its ceiling": (breaks("floor", lambda *_: 1.5), "a floor and a ceiling in order"),
    "a floor that is too high": (breaks("floor", lambda *_: 0.9), "expected random to reach floor"),
    "a ceiling that is too low": (breaks("ceiling", lambda *_: 0.7), "expected ceiling to reach informed"),
    "a ceiling below the reward of bayes": (breaks("ceiling", lambda *_: 0.4), "expected ceiling to reach"),
    "rules that are not text": (breaks("rules_text", lambda *_: None), "a_twin|rules_hide.*expected"),
    "the oracle's words in the opening": (
        alters_opening(lambda text, hidden: f"{text} It is {hidden}."),
        "rules_hide_the_world: .*expected no trace of the oracle's",
    ),
    "an opening that reveals the world": (
        alters_opening(lambda text, hidden: text + " " * hidden),
        "twins_look_alike: .*the opening of its",
    ),
    "a view that reveals the world": (
        breaks("make_env", leaks_in_view),
        "twins_look_alike: .*expected the first view of its twin",
    ),
    "an observation that reveals more than the effect": (
        breaks("make_env", leaks_in_observation),
        "twins_look_alike: .*expected the answer of its twin",
    ),
    "feedback on garbage that reveals the world": (
        breaks("make_env", lambda env, task: AlteredEnv(env, lambda s, _: leaks_in_feedback(s, env.hidden))),
        "twins_look_alike: .*expected what the same text returned in its twin",
    ),
    "a bayes that knows the world": (
        alters_policy(lambda text, name, world: str(world.hidden) if name == "bayes" else text),
        "twins_look_alike: .*expected what the same policy says in a twin",
    ),
    "a policy that acts differently every time": (
        alters_policy(lambda text, name, world: str(next(counter) % 4) if name == "random" else text),
        "replays_are_equal: .*expected what the same policy said before",
    ),
    "another opening every time": (
        alters_opening(lambda text, hidden: f"{text}{next(counter)}"),
        "prompts_hide_the_position|replays_are_equal",
    ),
    "no end for a policy that repeats itself": (alters_step(endless_unless_right), "expected an end"),
    "an exception on hostile text": (
        alters_step(lambda s, text: s if len(text) < 9 or text in GARBAGE else 1 / 0),
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
        alters_step(lambda s, _: replace(s, observation="no " * 20_000)),
        "prompts_fit: got '.* characters', expected prompts",
    ),
    "an unknown prompt style": (
        type("Broken", (Guess,), {"id": "broken-v0", "styles": ("loud",)})(),
        "broken-v0 few loud, .*expected no exception",
    ),
    "a task on the wrong side": (
        breaks_split("make_task", lambda self, world, position, rng: int(rng.integers(1, 3))),
        "splits_stay_apart: .*expected a task of the side",
    ),
    "a side that depends on the split": (
        breaks_split("side", lambda self, task: "train" if task.world.split == "train" else "held-out"),
        "splits_stay_apart: .*expected a side that depends on the content alone",
    ),
    "worlds that dev and test do not share": (
        breaks_split("belongs", lambda self, hidden, split: hidden % 3 != ("train", "dev", "test").index(split)),
        "splits_stay_apart: .*expected dev and test to share",
    ),
    "some worlds on both sides": (
        breaks_split("belongs", lambda self, hidden, split: hidden == 1 or (hidden % 2 == 0) == (split == "train")),
        "splits_stay_apart: got '.* of 32 worlds on both sides'",
    ),
    "facts that are wrong": (
        breaks("facts", lambda *_: (0, 1, 1)),
        "facts_are_right: .*expected all right and none wrong in the oracle's context",
    ),
}


@pytest.mark.parametrize("promise", BROKEN)
def test_a_broken_promise_is_a_one_line_error(promise, registry):
    domain, line = BROKEN[promise]
    if promise in ("facts that are wrong", "the oracle's words in the opening"):
        type(domain).oracle_context = lambda self, world, style: f"It is {world.hidden}."
    with pytest.raises(DomainError, match=line) as error:
        check_domain(domain)
    assert "\n" not in str(error.value)
    assert str(error.value).startswith("broken-v0 ")


def test_one_pack_is_too_few_to_estimate_the_noise():
    with pytest.raises(ValueError, match="1 packs; expected at least 2"):
        check_domain("frozen-lake-v1", packs=1)


def test_a_domain_that_keeps_its_splits_apart_keeps_its_contract(registry):
    check_domain(SplitGuess())


# A set so large that no two processes iterate over it in the same order by chance.
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
    """Write an importable module with this text."""

    def make(name, text):
        (tmp_path / f"{name}.py").write_text(text)
        monkeypatch.syspath_prepend(str(tmp_path))
        monkeypatch.delitem(sys.modules, name, raising=False)
        return name

    return make


def test_a_dependence_on_the_hash_seed_of_a_process_is_found(module):
    name = module("hashes", HASHES)
    with pytest.raises(DomainError, match=r"another_process_agrees: .*expected the pack that this process draws"):
        check_domains([f"{name}:Hashes"])
    module("steady", HASHES.replace("{*", "").replace("}]", "]").replace("hashes-", "steady-"))
    assert [found.id for found in check_domains(["steady:Hashes"])] == ["steady-v0"] * 2


def test_an_error_in_the_other_process_is_reported(module):
    name = module("parents", HASHES + 'import os\nif "CHILD" in os.environ: raise OSError("no room")\n')
    domain = find_domain(f"{name}:Hashes")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CHILD", "1")
        with pytest.raises(DomainError, match=r"another_process_agrees: got 'OSError: no room'"):
            check_domain(domain)


def test_several_processes_give_the_results_of_one_and_report_progress():
    names, events = ["learn2ask-v1", "learn2ask-v0"], []
    one = check_domains(names, packs=4)
    two = check_domains(names, packs=4, workers=2, on_progress=lambda *event: events.append(event))
    assert [replace(found, seconds=0.0) for found in two] == [replace(found, seconds=0.0) for found in one]
    assert events[0] == ("learn2ask-v1 easy", 0, 9)
    assert events[-1] == ("all", 9, 9)
    assert one[5].lacks.startswith("set CODOTS_DIALOGUE_LOG")
    assert one[5].seconds == 0.0


def test_a_promise_broken_in_another_process_is_raised_here(module):
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
def test_an_unknown_domain_is_a_one_line_error(name, line, registry):
    with pytest.raises(ValueError, match=line) as error:
        find_domain(name)
    assert "\n" not in str(error.value)


def test_a_domain_is_found_by_its_class_or_as_an_object(registry):
    assert find_domain("tests.toy:Guess").id == "guess-v0"
    assert get_domain("guess-v0") is registry["guess-v0"]
    assert find_domain("tests.domains.test_check:SPLIT_GUESS") is SPLIT_GUESS


SPLIT_GUESS = SplitGuess()

"""A list of domains speaks in the words of their docstrings."""

import pytest

from codots.domains.catalog import by_reason, catalog, domain_info, section
from codots.domains.registry import domain_ids, get_domain
from tests.toy import Guess


def test_every_domain_says_what_it_hides():
    entries = catalog()
    assert [entry.id for entry in entries] == domain_ids()
    for found in entries:
        assert found.hidden
        assert found.exact is get_domain(found.id).exact


@pytest.mark.parametrize(
    ("id", "words"),
    [("learn2ask-v0", "nothing"), ("learn2ask-v1", "the clinic's protocol"), ("terminal-v1", "the local names of")],
)
def test_each_version_says_its_own(id, words):
    assert domain_info(get_domain(id)).hidden.startswith(words)


class Told(Guess):
    """Guess.

    Hidden and shared:
        A number. It
        is small.
    Presets:
        Two.
    """


def test_a_class_speaks_before_its_module_and_silence_is_no_error():
    assert domain_info(Told()).hidden == "A number"
    assert domain_info(Guess()).hidden == ""
    assert section(Told.__doc__, "Hidden and shared") == "A number. It is small."
    assert section(Told.__doc__, "Presets") == "Two."
    assert section("", "Presets") == section(Told.__doc__, "Reward") == ""


def test_presets_that_lack_the_same_are_named_together():
    assert by_reason({"a": "set X", "b": "set Y", "c": "set X"}) == "a, c: set X; b: set Y"
    assert by_reason({}) == ""

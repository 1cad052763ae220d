"""The catalog describes domains by their docstrings."""

import pytest

from codots.domains.catalog import by_reason, catalog, domain_info, section
from codots.domains.registry import domain_ids, get_domain
from tests.toy import Guess


def test_every_domain_documents_its_hidden_part():
    entries = catalog()
    assert [entry.id for entry in entries] == domain_ids()
    for entry in entries:
        assert entry.hidden
        assert entry.exact is get_domain(entry.id).exact


@pytest.mark.parametrize(
    ("id", "words"),
    [("learn2ask-v0", "nothing"), ("learn2ask-v1", "the clinic's protocol"), ("terminal-v1", "the local names of")],
)
def test_each_version_has_its_own_description(id, words):
    assert domain_info(get_domain(id)).hidden.startswith(words)


class Documented(Guess):
    """Guess.

    Hidden and shared:
        A number. It
        is small.
    Presets:
        Two.
    """


def test_a_class_docstring_comes_before_the_modules_and_may_be_missing():
    assert domain_info(Documented()).hidden == "A number"
    assert domain_info(Guess()).hidden == ""
    assert section(Documented.__doc__, "Hidden and shared") == "A number. It is small."
    assert section(Documented.__doc__, "Presets") == "Two."
    assert section("", "Presets") == section(Documented.__doc__, "Reward") == ""


def test_presets_are_grouped_by_what_they_lack():
    assert by_reason({"a": "set X", "b": "set Y", "c": "set X"}) == "a, c: set X; b: set Y"
    assert by_reason({}) == ""

"""Prompts are filled in as they were written, and what is missing is an error and never an empty place."""

import pytest
from jinja2 import TemplateNotFound, UndefinedError

from codots.core.templates import Prompts


@pytest.fixture
def render(tmp_path, monkeypatch):
    folder = tmp_path / "package_of_this_test"
    (folder / "prompts").mkdir(parents=True)
    (folder / "__init__.py").touch()
    (folder / "prompts/board.natural.jinja").write_text(
        "\n{% if title %}\n{{ title }}\n{% endif %}\n  a b  \n1 {{ x }}\n\n"
    )
    (folder / "prompts/board.compact.jinja").write_text("board {{ x }} \n")
    monkeypatch.syspath_prepend(tmp_path)
    return Prompts("package_of_this_test")


def test_a_prompt_keeps_its_indent_and_loses_the_empty_lines_around_it(render):
    assert render("board", title="", x=7) == "  a b  \n1 7"
    assert render("board", title="T", x=7) == "T\n  a b  \n1 7"
    assert render("board", "compact", x="") == "board"


def test_text_is_put_in_as_it_is(render):
    assert render("board", "compact", x="<b> & {{ 7 * 6 }} {% if %}") == "board <b> & {{ 7 * 6 }} {% if %}"


def test_what_a_prompt_asks_for_and_is_not_given_is_an_error(render):
    with pytest.raises(UndefinedError, match="'x' is undefined"):
        render("board", "compact")
    with pytest.raises(TemplateNotFound, match=r"board\.terse\.jinja"):
        render("board", "terse", x=1)

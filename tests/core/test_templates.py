"""Prompt templates keep their text, and a missing value is an error."""

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


def test_a_prompt_keeps_its_indent_and_loses_surrounding_empty_lines(render):
    assert render("board", title="", x=7) == "  a b  \n1 7"
    assert render("board", title="T", x=7) == "T\n  a b  \n1 7"
    assert render("board", "compact", x="") == "board"


def test_values_are_inserted_unchanged(render):
    assert render("board", "compact", x="<b> & {{ 7 * 6 }} {% if %}") == "board <b> & {{ 7 * 6 }} {% if %}"


def test_a_missing_value_or_template_is_an_error(render):
    with pytest.raises(UndefinedError, match="'x' is undefined"):
        render("board", "compact")
    with pytest.raises(TemplateNotFound, match=r"board\.terse\.jinja"):
        render("board", "terse", x=1)

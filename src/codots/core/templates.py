"""Prompts stand in jinja2 files beside the code that speaks them; here they are found and filled in."""

from __future__ import annotations

from functools import cached_property

from jinja2 import Environment, PackageLoader, StrictUndefined


class Prompts:
    """The prompts of a package: `render = Prompts(__package__)`, then `render("rules", dials=dials)`.

    They lie in the folder `prompts` of the package, each under its name and style: `rules.natural.jinja`. Empty lines
    before a text and white space after it are dropped. A value that a template asks for and is not given raises
    jinja2.UndefinedError.
    """

    def __init__(self, package: str) -> None:
        self.package = package

    @cached_property
    def _files(self) -> Environment:
        return Environment(
            loader=PackageLoader(self.package, "prompts"),
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            auto_reload=False,
        )

    def __call__(self, template: str, style: str = "natural", **values: object) -> str:
        text = self._files.get_template(f"{template}.{style}.jinja").render(**values)
        return text.lstrip("\n").rstrip()

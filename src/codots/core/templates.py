"""Load and render the jinja2 prompt templates of a package."""

from __future__ import annotations

from functools import cached_property

from jinja2 import Environment, PackageLoader, StrictUndefined


class Prompts:
    """Renderer of the prompts of a package: `render = Prompts(__package__)`, then `render("rules", dials=dials)`.

    Templates are in the folder `prompts` of the package, named by prompt and style: `rules.natural.jinja`. Leading
    newlines and trailing white space of the text are removed. A missing value raises jinja2.UndefinedError.
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

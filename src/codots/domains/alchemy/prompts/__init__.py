"""The prompts of this family."""

from __future__ import annotations

from functools import cache

from jinja2 import Environment, PackageLoader, StrictUndefined


@cache
def _templates() -> Environment:
    return Environment(
        loader=PackageLoader("codots.domains.alchemy", "prompts"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def render(template: str, style: str = "natural", **values: object) -> str:
    """Fill in a template."""
    return _templates().get_template(f"{template}.{style}.jinja").render(**values).strip()

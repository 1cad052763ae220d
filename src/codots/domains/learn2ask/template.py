"""The prompts of this family."""

from __future__ import annotations

from functools import cache

from jinja2 import Environment, PackageLoader, StrictUndefined


@cache
def _templates() -> Environment:
    loader = PackageLoader("codots.domains.learn2ask", "prompts")
    return Environment(
        loader=loader, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, auto_reload=False
    )


def render(template: str, **values: object) -> str:
    """Fill a template."""
    return _templates().get_template(f"{template}.natural.jinja").render(**values).strip()

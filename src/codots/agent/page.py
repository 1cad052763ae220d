"""The page of a server: a person looks at contexts and how they grew, and goes back to earlier ones."""

from __future__ import annotations

from functools import cache

from starlette.responses import HTMLResponse

from codots.report.page import asset, hashed, render


async def show_page() -> HTMLResponse:
    """Return the page, which asks the routes of worlds for what it shows."""
    return _page()


@cache
def _page() -> HTMLResponse:
    style, script = asset("page.css") + asset("worlds.css"), asset("diff.js") + asset("worlds.js")
    policy = {
        "default-src": "'none'",
        "style-src": f"'{hashed(style)}'",
        "script-src": f"'{hashed(script)}'",
        "connect-src": "'self'",
        "img-src": "data:",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",  # no other page may lay itself over the buttons
    }
    headers = {"content-security-policy": "; ".join(map(" ".join, policy.items())), "cache-control": "no-cache"}
    return HTMLResponse(render("worlds.html.jinja", style=style, script=script), headers=headers)

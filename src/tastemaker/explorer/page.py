"""The report as HTML: a template that escapes everything, the shared look inside, and a policy that loads nothing."""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from importlib.resources import files
from typing import Any

import jinja2
from markupsafe import Markup

_HERE = files("tastemaker.explorer")


def render_page(**content: Any) -> bytes:  # noqa: ANN401
    """Return the report as UTF-8, with its styles and script inside.

    Everything in ``content`` is escaped. The page's policy forbids whatever is not in the page, and every script but
    its own.

    Args:
        content: What the template names.
    """
    code = _static("report.js")
    page = (
        _environment()
        .get_template("report.html")
        .render(
            style=Markup(_static("look.css") + _static("report.css")),  # ours, and trusted
            script=Markup(code),
            policy=_policy(code),
            **content,
        )
    )
    return page.encode("utf-8", "backslashreplace")


def format_share(share: float) -> str:
    """Return a share for a sentence.

    Example:
        >>> [format_share(share) for share in (0.2, 0.1234, 0.00021, 0, 0.99996)]
        ['20%', '12.3%', '0.021%', '0%', '99.996%']
    """
    percent = 100 * share
    if share and (percent < 0.1 or 99.9 < percent < 100):
        digits = next(digits for digits in range(2, 20) if round(percent, digits) not in (0.0, 100.0))
        return f"{percent:.{max(digits, 3)}f}".rstrip("0") + "%"
    return f"{percent:.1f}".removesuffix(".0") + "%"


def _policy(code: str) -> str:
    digest = base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()
    return (
        f"default-src 'none'; script-src 'sha256-{digest}'; img-src data:; style-src 'unsafe-inline'; "
        "base-uri 'none'; form-action 'none'"
    )


@cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(lambda name: (_HERE / "templates" / name).read_text("utf-8")),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = lambda value: f"{value:,}"
    environment.filters["share"] = format_share
    environment.filters["percent"] = lambda value: f"{100 * value:.1f}%"
    return environment


@cache
def _static(name: str) -> str:
    return (_HERE / "static" / name).read_text("utf-8")

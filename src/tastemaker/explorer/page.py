"""Self-contained pages: templates that escape everything, the shared look inside, and a policy that loads nothing."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

import jinja2
from markupsafe import Markup

from tastemaker.explorer.pictures import Thumbnail

_HERE = files("tastemaker.explorer")


@dataclass(frozen=True, slots=True)
class Figure:
    """One picture as a page shows it.

    Attributes:
        thumbnail: The small picture, or its place.
        alt: Read out in its place: its caption, or its key and score.
        name: Its key.
        score: Shown under it; empty where it has none.
        is_kept: Whether it passes the cut.
        rank: Shown before its name; None where it has none.
    """

    thumbnail: Thumbnail
    alt: str
    name: str
    score: str
    is_kept: bool
    rank: int | None = None


def render_page(template: str, *, styles: tuple[str, ...], script: str | None = None, **content: Any) -> bytes:  # noqa: ANN401
    """Return a page as UTF-8: a template of this package with its styles and script inside.

    Everything in ``content`` is escaped. The page's policy forbids whatever is not in the page, and every script but
    this one.

    Args:
        template: Name of a file in ``templates``.
        styles: Names of files in ``static``, in their order.
        script: Name of a file in ``static``.
        content: What the template names.
    """
    code = _static(script) if script else ""
    page = (
        _environment()
        .get_template(template)
        .render(
            style=Markup("\n".join(_static(name) for name in styles)),  # ours, and trusted
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
    scripts = f"script-src 'sha256-{digest}'; " if code else ""
    return f"default-src 'none'; {scripts}img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"


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

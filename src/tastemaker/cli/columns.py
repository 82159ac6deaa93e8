"""Tables on stdout, and the names in them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import typer


def print_columns(heads: Sequence[str], lines: Sequence[Sequence[str]]) -> None:
    """Print a table with a line of heads. Columns of numbers are aligned right, others left."""
    columns = list(zip(heads, *lines, strict=True))
    widths = [max(map(len, column)) for column in columns]
    are_numbers = [all(re.fullmatch(r"[\d.,%+-]*", cell) for cell in column[1:]) for column in columns]
    for line in (heads, *lines):
        cells = zip(line, widths, are_numbers, strict=True)
        typer.echo("  ".join(f"{cell:{'>' if right else '<'}{width}}" for cell, width, right in cells).rstrip())


def plain_name(row: dict[str, Any]) -> str:
    """Return what a row is called, as `plain_text`: of embeddings, only the identifier may be known."""
    return plain_text(row["image_path"] or row["image_id"] or "")


def plain_text(text: str, kept: str = "") -> str:
    """Return a text that comes from strangers: what would steer the terminal is shown as an escape."""
    return "".join(c if c.isprintable() or c in kept else c.encode("unicode_escape").decode() for c in text)

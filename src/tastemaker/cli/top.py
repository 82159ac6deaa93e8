"""``tastemaker top``: the best and the worst images, as a table, with small pictures where the terminal shows them."""

from __future__ import annotations

import json
import os
import sys
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tastemaker.cli import options as o
from tastemaker.cli.select import RankByOption, ScoresArgument

if TYPE_CHECKING:
    from tastemaker.scores.sources import OriginalsReader
    from tastemaker.scores.table import ScoreTable

EXAMPLE = "Example: tastemaker top scores/ -n 10"

_NEEDED = ("image_id", "image_path", "shard", "offset", "size", "xxh3", "reason")


class Pictures(StrEnum):
    """How pictures are shown."""

    AUTO = "auto"
    NONE = "none"
    KITTY = "kitty"
    ITERM2 = "iterm2"
    SIXEL = "sixel"
    BLOCKS = "blocks"


def top(
    scores: ScoresArgument,
    number: Annotated[int, typer.Option("--number", "-n", min=1, help="How many of the best, and of the worst.")] = 10,
    rank_by: RankByOption = "aesthetic_score",
    pictures: Annotated[
        Pictures, typer.Option("--pictures", help="How small pictures are drawn. auto: as the terminal understands.")
    ] = Pictures.AUTO,
    storage_options: o.StorageOptionsOption = None,
    as_json: o.JsonOption = False,
) -> None:
    """Print the best and the worst images with their scores."""
    from tastemaker.scores.table import ScoreTable

    table = ScoreTable(scores, storage_options=o.parse_storage_options(storage_options))
    ranked = _rank(table, number, rank_by)
    if as_json:
        typer.echo(json.dumps([{"rank": rank + 1, **row} for rank, row in ranked], indent=2))
        return
    how = _choose(pictures)
    if how:
        _print_pictures(table, ranked, rank_by, how)
    else:
        _print_table(ranked, rank_by)


def _rank(table: ScoreTable, number: int, rank_by: str) -> list[tuple[int, dict[str, Any]]]:
    """Return rank, from 0, and row of the best and the worst."""
    values = table.values(rank_by)
    order = (-values).argsort(kind="stable")
    scored = int((values == values).sum())  # a NaN differs from itself
    ranks = [rank for rank in range(scored) if rank < number or rank >= scored - number]
    columns = list(dict.fromkeys([rank_by, *(name for name in _NEEDED if name in table.columns)]))
    return list(zip(ranks, table.take(order[ranks], columns).to_pylist(), strict=True))


def _choose(pictures: Pictures) -> str:
    if pictures is Pictures.NONE or (pictures is Pictures.AUTO and not sys.stdout.isatty()):
        return ""
    if pictures is not Pictures.AUTO:
        return pictures.value
    from tastemaker.cli.terminal_pictures import ask_terminal, detect

    return detect(os.environ, ask_terminal)


def _print_table(ranked: list[tuple[int, dict[str, Any]]], rank_by: str) -> None:
    lines = [(f"{rank + 1:,}", f"{row[rank_by]:.3f}", _name(row)) for rank, row in ranked]
    wide, wider = (max(map(len, column)) for column in list(zip(("rank", rank_by, ""), *lines, strict=True))[:2])
    typer.echo(f"{'rank':>{wide}}  {rank_by:>{wider}}  image")
    for number, (rank, score, name) in enumerate(lines):
        if number and ranked[number][0] > ranked[number - 1][0] + 1:
            typer.echo(f"{'...':>{wide}}")
        typer.echo(f"{rank:>{wide}}  {score:>{wider}}  {name}")


def _print_pictures(table: ScoreTable, ranked: list[tuple[int, dict[str, Any]]], rank_by: str, how: str) -> None:
    from tastemaker.scores.sources import OriginalsReader

    with OriginalsReader(table.storage_options) as reader:
        for rank, row in ranked:
            typer.echo(f"{rank + 1:>6,}  {row[rank_by]:.3f}  {_name(row)}", color=True)
            typer.echo(_draw(reader, row, how), color=True)


def _draw(reader: OriginalsReader, row: dict[str, Any], how: str) -> str:
    """Return a row's picture as the terminal takes it, or why there is none."""
    from PIL import Image

    from tastemaker.cli.terminal_pictures import ENCODERS
    from tastemaker.errors import UnreadableImageError
    from tastemaker.imaging.decode import decode_image

    try:
        pixels = decode_image(reader.read_image(row), apply_exif_rotation=True).pixels
    except UnreadableImageError as error:
        return f"        ({_plain(str(error))})\n"
    return ENCODERS[how](Image.fromarray(pixels))


def _name(row: dict[str, Any]) -> str:
    """Return what a row is called: of embeddings, only the identifier may be known."""
    return _plain(row["image_path"] or row["image_id"])


def _plain(text: str | None) -> str:
    """Return a name without what would steer the terminal: names come from strangers."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text or "")

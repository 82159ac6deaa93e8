"""``tastemaker search``: the pictures that words describe, from rows that are there."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from tastemaker.cli import options as o
from tastemaker.cli.columns import plain_name, print_columns

EXAMPLE = 'Example: tastemaker search scores/ "boats at sunset" --top 20'

_SHOWN = ("image_id", "image_path", "shard")


def search(
    scores: Annotated[str, typer.Argument(metavar="SCORES", help="Search these rows: a folder, a file or a URL.")],
    text: Annotated[str, typer.Argument(metavar="TEXT", help="Describe the pictures, in English.")],
    top: Annotated[int, typer.Option("--top", "-n", min=1, help="Print this many pictures.")] = 10,
    model_dir: o.ModelDirOption = None,
    scorer: o.OwnScorerOption = None,
    storage_options: o.StorageOptionsOption = None,
    as_json: o.JsonOption = False,
) -> None:
    """Print the pictures that match a text best, with their similarity to it (a cosine) and their scores."""
    from tastemaker.scores.search import TextSearch
    from tastemaker.scores.table import ScoreTable

    options = o.parse_storage_options(storage_options)
    table = ScoreTable(scores, storage_options=options)
    found, cosines = TextSearch(table, model_dir, scorer, options).find(text, top)
    columns = [name for name in (*_SHOWN, table.ranking) if name in table.columns]
    rows = [
        {"rank": rank, "likeness": round(float(cosine), 4), **row}
        for rank, (cosine, row) in enumerate(zip(cosines, table.take(found, columns).to_pylist(), strict=True), 1)
    ]
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
        return
    lines = [
        (f"{row['rank']:,}", f"{row['likeness']:.3f}", _score(row.get(table.ranking)), plain_name(row)) for row in rows
    ]
    print_columns(("rank", "likeness", "score", "image"), lines)


def _score(score: float | None) -> str:
    return "-" if score is None else f"{score:.3f}"

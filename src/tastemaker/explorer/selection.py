"""What the page shows as kept, as `select_images` takes it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from tastemaker.errors import ConfigurationError
from tastemaker.explorer.index import Filter
from tastemaker.explorer.service import Explorer
from tastemaker.scores.cutoff import parse_top
from tastemaker.selections.select import SelectProgress, SelectSummary, select_images
from tastemaker.selections.selection import Selection


def start_export(explorer: Explorer, body: dict[str, Any]) -> dict[str, Any]:
    """Start to write what is kept of a view, and return the export.

    Args:
        explorer: Whose pictures.
        body: ``to`` and ``as``: where, and in which form; ``score`` or ``top``: the cut-off; ``filter``: its fields;
            ``without_rejected``: leave out what the user rejected.

    Raises:
        ConfigurationError: There is no cut-off, nothing is kept, or `Exports.start` refuses.
    """
    chosen = Filter(**{name: str(value) for name, value in body["filter"].items()})
    selection, images = _select(
        explorer, chosen, body.get("score"), body.get("top"), body.get("without_rejected") is True
    )
    if not images:
        raise ConfigurationError("nothing is kept: there is nothing to export")
    form = str(body["as"])

    def work(path: Path, on_progress: Callable[[int], None]) -> SelectSummary:
        def tell(progress: SelectProgress) -> None:
            on_progress(progress.images)

        return select_images(explorer.table, path, selection, kind=form, on_progress=tell)

    return explorer.exports.start(str(body["to"]), form, images, work)


def _select(
    explorer: Explorer, chosen: Filter, score: float | None, top: str | None, without_rejected: bool
) -> tuple[Selection, int]:
    """Return the selection, and how many pictures it has: the same that the page shows as kept."""
    view, by = explorer.index.view(chosen), explorer.index.ranked_by(chosen.by)
    _, kept = view.cut(None if score is None else float(score), top)
    if without_rejected or chosen.group:
        left_out = set(explorer.ratings.rows("rejected")) if without_rejected else set()
        rows = [row for row in view.rows[:kept].tolist() if row not in left_out]
        return Selection(row_ids=rows, rank_by=by), len(rows)
    condition = chosen.condition(explorer.table, explorer.ratings)
    if top is not None:
        return Selection(where=condition, top=parse_top(top), rank_by=by), kept
    return Selection(where=condition, min_score=score, rank_by=by), kept

"""What lies where below a directory of results.

::

    OUTPUT/rows/          Parquet files of rows, and nothing else
    OUTPUT/kept/          originals that `tastemaker filter` copied
    OUTPUT/_tastemaker/   notes of runs: what is done, what is running, who holds the directory
"""

from __future__ import annotations

import json
from typing import Any

from tastemaker.storage import STATE_FOLDER as STATE_FOLDER
from tastemaker.storage.place import Place

ROWS_FOLDER = "rows"
KEPT_FOLDER = "kept"

ROWS_SUFFIX = ".parquet"


def results_of(rows: Place) -> Place:
    """Return the directory of results that a folder of rows belongs to; the folder itself where it belongs to none.

    That is the folder above a ``rows``: of several the nearest with notes, for a shard may lie in a folder ``rows``.
    """
    found, above = [], rows
    while above.name:
        if above.name == ROWS_FOLDER:
            found.append(above.parent)
        above = above.parent
    if len(found) > 1:
        found = [folder for folder in found if (folder / STATE_FOLDER).is_folder()] or found
    return found[0] if found else rows


def read_note(place: Place) -> dict[str, Any]:
    """Return a note in JSON; nothing if it is not there, cannot be read, or is damaged."""
    try:
        found = json.loads(place.read())
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}

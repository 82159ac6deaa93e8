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

    That is the folder above a ``rows``. It needs notes unless it is the only one and just above, for shards may lie in
    folders, also in one called ``rows``, and so may the directory of results itself.
    """
    found, above = [], rows
    while above.name:
        if above.name == ROWS_FOLDER:
            found.append(above.parent)
        above = above.parent
    nearest = rows.parent if rows.name == ROWS_FOLDER else rows
    if found == [nearest]:
        return nearest
    return next((folder for folder in found if (folder / STATE_FOLDER).is_folder()), nearest)


def read_note(place: Place) -> dict[str, Any]:
    """Return a note in JSON; nothing if it is not there, cannot be read, or is damaged."""
    try:
        found = json.loads(place.read())
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}

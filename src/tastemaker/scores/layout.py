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


def read_note(place: Place) -> dict[str, Any]:
    """Return a note in JSON; nothing if it is not there, cannot be read, or is damaged."""
    try:
        found = json.loads(place.read())
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}

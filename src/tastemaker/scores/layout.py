"""What lies where below a directory of results.

::

    OUTPUT/rows/          Parquet files of rows, and nothing else
    OUTPUT/kept/          originals that `tastemaker filter` copied
    OUTPUT/_tastemaker/   notes of runs: what is done, what is running, who holds the directory
"""

from __future__ import annotations

from tastemaker.storage import STATE_FOLDER as STATE_FOLDER

ROWS_FOLDER = "rows"
KEPT_FOLDER = "kept"

ROWS_SUFFIX = ".parquet"

"""The explorer of rows that change while one looks at them: what is new is offered, and shown when one asks for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from threading import Lock
from typing import Any

from tastemaker.errors import ConfigurationError
from tastemaker.explorer.lookup import stamp_of
from tastemaker.explorer.scoring import Scoring
from tastemaker.explorer.service import Explorer
from tastemaker.scores.layout import ROWS_FOLDER
from tastemaker.scores.locations import find_rows
from tastemaker.storage.place import Place


class Live:
    """An explorer, and the one that takes its place once the page asks for new rows.

    Args:
        make: Makes an explorer of the rows that are there; raises `ConfigurationError` where there are none.
        sources: Where it takes them from, as `find_rows` does.
        storage_options: For URLs.
        scoring: What makes rows there meanwhile. With it, there may be none yet.

    Raises:
        ConfigurationError: There are no rows, and nothing makes any; or what `make` raises.
    """

    def __init__(
        self,
        make: Callable[[], Explorer],
        sources: Sequence[str] = (),
        storage_options: Mapping[str, Any] | None = None,
        scoring: Scoring | None = None,
    ) -> None:
        self._make, self._sources, self._options = make, sources, storage_options
        self._scoring = scoring
        self._lock = Lock()
        self._before: Explorer | None = None  # questions about it may still be under way
        self._explorer: Explorer | None = None
        self._seen, self._there = self._times(), ("", 0)
        try:
            self._explorer = make()
            self._there = (self._explorer.stamp, len(self._explorer.table))
        except ConfigurationError:
            if scoring is None:
                raise

    @property
    def explorer(self) -> Explorer | None:
        """The one that is shown; None before there are rows."""
        return self._explorer

    def close(self) -> None:
        """Close what is open."""
        for explorer in (self._before, self._explorer):
            if explorer is not None:
                explorer.close()

    def news(self) -> dict[str, Any]:
        """Return which rows there are now, how many more than are shown, and how far their scoring is."""
        with self._lock:
            self._look()
            (stamp, rows), shown = self._there, self._explorer
        more = rows - (len(shown.table) if shown else 0)
        return {"stamp": stamp, "more": more, "scoring": self._scoring.state() if self._scoring else None}

    def show_new(self) -> dict[str, str]:
        """Show the rows that are there now, and return their stamp."""
        with self._lock:
            self._look()
            shown, stamp = self._explorer, self._there[0]
            if shown is None or shown.stamp != stamp:
                new = self._make()
                if shown is not None:
                    new.exports = shown.exports  # one that is running goes on
                if self._before is not None:
                    self._before.marks.close()
                self._before, self._explorer = shown, new
            assert self._explorer is not None
            return {"stamp": self._explorer.stamp}

    def _look(self) -> None:
        """Count the rows that are there, if a folder of them was changed since. URLs are not looked at again."""
        changed = self._times()
        if changed == self._seen:
            return
        with suppress(ConfigurationError, OSError):  # none yet, or one is just being replaced
            found = find_rows(list(self._sources), self._options)
            self._there, self._seen = (stamp_of(found), sum(source.rows for source in found)), changed

    def _times(self) -> list[int]:
        """Return when the local folders of the rows were changed last."""
        places = [path for source in self._sources if (path := Place.of(source, self._options).local_path) is not None]
        folders = [place if place.is_dir() else place.parent for place in places]
        folders += [rows for folder in folders if (rows := folder / ROWS_FOLDER).is_dir()]
        return [folder.stat().st_mtime_ns for folder in folders if folder.is_dir()]

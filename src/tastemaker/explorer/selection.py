"""What the page calls the selection, as `tastemaker select` takes it."""

from __future__ import annotations

from typing import Any

from tastemaker.errors import ConfigurationError
from tastemaker.explorer.service import Explorer


def start_export(explorer: Explorer, body: dict[str, Any]) -> dict[str, Any]:
    """Start to export what is kept of a view."""
    raise ConfigurationError("not yet")

"""OpenVINO, which otherwise tells its makers of each process that imports it."""

from __future__ import annotations

import importlib
import sys
from typing import Any

_TELEMETRY = "openvino_telemetry"


def import_openvino() -> Any:  # noqa: ANN401 - openvino ships no types
    """Return the module ``openvino``, imported without its telemetry.

    On import it writes an identifier of the user below ``~/intel`` and sends an event to a server on the internet,
    unless the package for that is missing: then a stand-in does nothing. So the package is missing for that moment.
    """
    if "openvino" in sys.modules or _TELEMETRY in sys.modules:
        return importlib.import_module("openvino")
    sys.modules[_TELEMETRY] = None  # type: ignore[assignment]  # Python's way to say that there is none
    try:
        return importlib.import_module("openvino")
    finally:
        sys.modules.pop(_TELEMETRY, None)  # another thread may have done it

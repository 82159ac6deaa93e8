"""Tastemaker scores, ranks and filters images by aesthetic quality.

Its names are listed in ``__init__.pyi``, for people, type checkers and this module. Each is loaded when it is first
used: ``import tastemaker`` imports no model, engine or table library.
"""

from __future__ import annotations

from importlib import import_module

__version__ = "0.1.0"

_homes: dict[str, str] = {}  # name -> its module; read when the first of them is asked for


def __getattr__(name: str) -> object:
    if not _homes:
        _read_names()
    if name == "__all__":
        value: object = ["__version__", *sorted(_homes.keys() - {"TorchClip"})]  # `import *` is to work without torch
    elif name in _homes:
        value = getattr(import_module(_homes[name]), name)
    else:
        raise AttributeError(f"module 'tastemaker' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> object:
    return __getattr__("__all__")


def _read_names() -> None:
    import re

    with open(f"{__path__[0]}/__init__.pyi", encoding="utf-8") as stub:
        for module, names in re.findall(r"^from (\S+) import ([^()\n]+|\([^()]+\))$", stub.read(), re.MULTILINE):
            _homes.update(dict.fromkeys(re.findall(r"(\w+) as \1\b", names), module))

"""Uploads that end: each goes on only as long as bytes leave this machine."""

from __future__ import annotations

import time
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

from tastemaker.storage.retries import current_patience

PART_BYTES = 2**23
_PARTS_AT_ONCE = 4
_POLL_S = 0.25


def send_file(system: Any, draft: Path, path: str) -> None:  # noqa: ANN401 - fsspec has no types
    """Upload a local file, in parts where the store takes parts.

    Raises:
        OSError: For too long no part of it was taken; or whatever the library raises.
    """
    from fsspec.callbacks import Callback

    callback = Callback()
    if not system.async_impl:
        system.put_file(str(draft), path, callback=callback)
        return
    own = _OWN_ARGUMENTS.get(_kind(system), {})
    _run(system, system._put_file(str(draft), path, callback=callback, **own), draft.stat().st_size, callback)


def send_bytes(system: Any, data: bytes, path: str) -> None:  # noqa: ANN401
    """Upload bytes.

    Raises:
        OSError: For too long they were not taken; or whatever the library raises.
    """
    if not system.async_impl:
        system.pipe_file(path, data)
        return
    own = _OWN_ARGUMENTS.get(_kind(system), {})
    _run(system, system._pipe_file(path, data, **own), len(data), None)


_OWN_ARGUMENTS: dict[str, dict[str, int]] = {
    "s3": {"chunksize": PART_BYTES, "max_concurrency": _PARTS_AT_ONCE},
    "gs": {"chunksize": PART_BYTES},
    "az": {"max_concurrency": _PARTS_AT_ONCE},
}


def _kind(system: Any) -> str:  # noqa: ANN401
    names = (system.protocol,) if isinstance(system.protocol, str) else system.protocol
    return next((name for name in names if name in _OWN_ARGUMENTS), "")


def _run(system: Any, upload: Coroutine[Any, Any, Any], size: int, callback: Any) -> None:  # noqa: ANN401
    """Wait for an upload in the thread that serves the system's connections.

    The libraries' own timeouts begin when a request has been sent: they do not see a server that accepts a connection
    and takes no bytes.
    """
    from fsspec.asyn import sync

    patience = current_patience()
    at_once = size if callback is None else min(size, PART_BYTES * (_PARTS_AT_ONCE + 1))
    sync(system.loop, _watch, upload, callback, patience.timeout_s + at_once / patience.slowest_bytes_per_s)


async def _watch(upload: Coroutine[Any, Any, Any], callback: Any, limit_s: float) -> None:  # noqa: ANN401
    import asyncio  # here, because it takes as long as all else of this package

    task = asyncio.ensure_future(upload)
    sent, since = 0, time.monotonic()
    while not (await asyncio.wait({task}, timeout=_POLL_S))[0]:
        if callback is not None and callback.value != sent:
            sent, since = callback.value, time.monotonic()
        elif time.monotonic() - since > limit_s:
            task.cancel()
            await asyncio.wait({task}, timeout=1)
            raise ConnectionAbortedError(f"nothing was taken for {limit_s:.0f} s")
    task.result()

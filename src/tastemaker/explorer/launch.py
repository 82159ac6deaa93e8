"""Starting the explorer: a free port on this machine, a token, the browser."""

from __future__ import annotations

import secrets
import socket
import webbrowser
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from threading import Timer
from typing import Any

import uvicorn

from tastemaker.errors import ConfigurationError
from tastemaker.explorer.server import create_app
from tastemaker.explorer.service import Explorer

HOST = "127.0.0.1"
DEFAULT_PORT = 8765

_BROWSER_DELAY_S = 0.3


def explore(
    sources: list[str],
    port: int | None,
    open_browser: bool,
    say: Callable[[str], None],
    storage_options: Mapping[str, Any] | None = None,
    originals: Sequence[str] = (),
    rank_by: str | None = None,
    model_dir: str | None = None,
) -> None:
    """Serve the page for a score table until the program is stopped.

    Args:
        sources: Directories, files or URLs of rows.
        port: To listen on; None for 8765, or a free one where that is taken.
        open_browser: Show the page.
        say: Told the address once the page can be opened.
        storage_options: For rows and originals that are URLs; see docs/remote-data.md.
        originals: Places that originals may be read from, beside the inputs of your own runs.
        rank_by: The column or SQL expression that pictures are ranked by at first; None for that of the first scorer.
        model_dir: Directory of models, for a search by words; None for ``$TASTEMAKER_MODEL_DIR`` or the user's cache.

    Raises:
        ConfigurationError: There are no rows, or the port is taken.
    """
    with (
        closing(_listen(port)) as listening,
        closing(Explorer(sources, None, storage_options, originals, rank_by, model_dir)) as explorer,
    ):
        chosen = listening.getsockname()[1]
        token = secrets.token_urlsafe(24)
        address = f"http://{HOST}:{chosen}/?token={token}"
        app = create_app(explorer, token, chosen)
        config = uvicorn.Config(
            app, log_level="warning", access_log=False, server_header=False, lifespan="off", ws="none"
        )
        say(address)
        if open_browser:
            Timer(_BROWSER_DELAY_S, webbrowser.open, (address,)).start()
        uvicorn.Server(config).run(sockets=[listening])


def _listen(port: int | None) -> socket.socket:
    candidates = [DEFAULT_PORT, 0] if port is None else [port]
    for candidate in candidates:
        # asyncio turns off Nagle's delay, 40 ms a request, only where the protocol is named.
        listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((HOST, candidate))
            listening.listen(128)  # from now on a browser waits for the page, and is not refused
        except OSError as error:
            listening.close()
            if candidate == candidates[-1]:
                raise ConfigurationError(f"port {candidate} of {HOST} cannot be used: {error.strerror}") from error
        else:
            return listening
    raise AssertionError("unreachable")

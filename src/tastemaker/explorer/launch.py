"""Starting the explorer: a free port on this machine, a token, the browser."""

from __future__ import annotations

import secrets
import socket
import webbrowser
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from threading import Timer
from typing import Any

import uvicorn

from tastemaker.errors import ConfigurationError
from tastemaker.explorer.live import Live
from tastemaker.explorer.scoring import Scoring, default_output
from tastemaker.explorer.server import create_app
from tastemaker.explorer.service import Explorer
from tastemaker.runs.options import WITHOUT_MODEL, RunOptions
from tastemaker.scores.locations import is_of_rows, name_of
from tastemaker.storage.place import Place

HOST = "127.0.0.1"
DEFAULT_PORT = 8765

_BROWSER_DELAY_S = 0.3


def explore(
    sources: list[str],
    port: int | None,
    open_browser: bool,
    say: Callable[[str, str], None],
    storage_options: Mapping[str, Any] | None = None,
    originals: Sequence[str] = (),
    rank_by: str | None = None,
    model_dir: str | None = None,
    output: str | None = None,
) -> None:
    """Serve the page for a score table until the program is stopped.

    Pictures without rows are scored meanwhile, in a process of its own, and the page shows them as they come.

    Args:
        sources: Directories, files or URLs of rows; or folders and files of pictures.
        port: To listen on; None for 8765, or a free one where that is taken.
        open_browser: Show the page.
        say: Told the address once the page can be opened, and where rows of pictures go, if any are scored.
        storage_options: For rows and originals that are URLs; see docs/remote-data.md.
        originals: Places that originals may be read from, beside the inputs of your own runs.
        rank_by: The column or SQL expression that pictures are ranked by at first; None for that of the first scorer.
            With ``technical_quality``, pictures without rows are measured and not scored.
        model_dir: Directory of models, for a search by words; None for ``$TASTEMAKER_MODEL_DIR`` or the user's cache.
        output: Where rows of pictures go; None for a folder among the user's data, see `default_output`.

    Raises:
        ConfigurationError: There are no rows, and no pictures either; or the port is taken.
    """
    inputs: list[str] = []
    if not any(is_of_rows(source, storage_options) for source in sources):
        for place in (Place.at(source, storage_options) for source in sources):
            is_local = place.local_path is not None  # a store is asked by the run
            if is_local and not (place.is_pattern or place.is_file() or place.is_folder()):
                raise ConfigurationError(f"{place} does not exist")  # before a browser is opened
        inputs, output = sources, output or default_output(sources)
        sources = [output]
    elif output is not None:
        raise ConfigurationError("--output says where rows of pictures go, and there are rows: leave it out")

    def make() -> Explorer:
        explorer = Explorer(sources, storage_options, originals, rank_by, model_dir)
        explorer.name = name_of(inputs or sources)
        return explorer

    with closing(_listen(port)) as listening, ExitStack() as stack:
        by = WITHOUT_MODEL if rank_by == WITHOUT_MODEL else None
        options = RunOptions(model_dir=model_dir, rank_by=by, storage_options=dict(storage_options or {}))
        scoring = Scoring(inputs, sources[0], options) if inputs else None
        if scoring is not None:
            stack.enter_context(closing(scoring))
        live = stack.enter_context(closing(Live(make, sources, storage_options, scoring)))
        chosen = listening.getsockname()[1]
        token = secrets.token_urlsafe(24)
        address = f"http://{HOST}:{chosen}/?token={token}"
        app = create_app(live, token, chosen)
        config = uvicorn.Config(
            app, log_level="warning", access_log=False, server_header=False, lifespan="off", ws="none"
        )
        server = uvicorn.Server(config)
        if scoring is not None:
            scoring.start(lambda: _end_without_rows(live, scoring, server))
        say(address, sources[0] if inputs else "")
        if open_browser:
            Timer(_BROWSER_DELAY_S, webbrowser.open, (address,)).start()
        server.run(sockets=[listening])
        if scoring is not None and scoring.problem and live.explorer is None:
            raise ConfigurationError(scoring.problem)


def _end_without_rows(live: Live, scoring: Scoring, server: uvicorn.Server) -> None:
    """End the server where the scoring is over and its rows cannot be shown: there are none, or they are refused."""
    try:
        if live.explorer is None:
            live.show_new()
    except ConfigurationError as error:
        scoring.problem = scoring.problem or str(error)
        server.should_exit = True


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

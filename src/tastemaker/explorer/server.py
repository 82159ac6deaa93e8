"""The web server: addresses, and what answers them. Nothing in an address is ever a path of a file."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any

import anyio
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from tastemaker.errors import TastemakerError
from tastemaker.explorer.index import Filter
from tastemaker.explorer.live import Live
from tastemaker.explorer.security import Guard
from tastemaker.explorer.service import Explorer
from tastemaker.machine import usable_cores

_FILTER = [field.name for field in fields(Filter)]
_STATIC = Path(__file__).parent / "static"
_FOR_EVER = {"cache-control": "private, max-age=31536000, immutable"}
_NEVER = {"cache-control": "no-store"}


class NewRowsError(TastemakerError):
    """A page asks for rows by numbers that they do not have any more."""


_Endpoint = Callable[[Request], Awaitable[Response]]
_Body = dict[str, Any]


def create_app(live: Live, token: str, port: int) -> Guard:
    """Return the application, guarded.

    Args:
        live: What it shows.
        token: That every request needs.
        port: Named in the cookie.
    """
    ask, take = partial(_answer, live), partial(_take, live)
    routes = [
        Route("/", _index),
        Route("/api/news", partial(_about_live, live.news)),
        Route("/api/news/show", partial(_about_live, live.show_new), methods=["POST"]),
        Mount("/static", StaticFiles(directory=_STATIC)),
        Route("/favicon.ico", _no_icon),
        Route("/picture/{row:int}/{height:int}", _at_most(max(2, usable_cores()), partial(_picture, live))),
        Route("/api/table", ask(lambda e, r: e.describe())),
        Route("/api/view", ask(lambda e, r: e.view(_filter(r), _text(r, "cut")))),
        Route("/api/rows", ask(lambda e, r: e.rows(_filter(r), [int(n) for n in _text(r, "places").split(",")]))),
        Route("/api/order", ask(lambda e, r: e.order(_filter(r), _text(r, "order")))),
        Route("/api/facets", ask(lambda e, r: e.facets(_filter(r), json.loads(_text(r, "searches") or "{}")))),
        Route("/api/cutoff", ask(lambda e, r: e.cut(_filter(r), _text(r, "cut")))),
        Route("/api/picture/{row:int}", ask(lambda e, r: e.picture(_filter(r), r.path_params["row"]))),
        Route(
            "/api/neighbours/{row:int}", _at_most(1, ask(lambda e, r: e.neighbours(_filter(r), r.path_params["row"])))
        ),
        Route("/api/slices", ask(lambda e, r: e.slices(_filter(r), _text(r, "dimension"), _text(r, "cut")))),
        Route("/api/failures", ask(lambda e, r: e.failures(_text(r, "by")))),
        Route(
            "/api/failures/rows",
            ask(lambda e, r: e.failed_rows(_text(r, "by"), _text(r, "kind"), _number(r, "start"))),
        ),
        Route("/api/export", ask(lambda e, r: e.exports.state())),
        Route("/api/export", take(_export), methods=["POST"]),
        Route("/api/export/stop", take(lambda e, r, b: e.exports.stop()), methods=["POST"]),
        Route("/api/ratings", take(_rate), methods=["POST"]),
        Route("/api/taste", ask(lambda e, r: e.taste.describe())),
        Route("/api/taste/learn", take(lambda e, r, b: e.taste.learn()), methods=["POST"]),
        Route("/api/taste/save", take(lambda e, r, b: e.taste.save(str(b["to"]))), methods=["POST"]),
    ]
    return Guard(Starlette(routes=routes), token, f"tastemaker_{port}")


async def _picture(live: Live, request: Request) -> Response:
    row, height = request.path_params["row"], request.path_params["height"]
    try:
        data = await run_in_threadpool(partial(_shown(live, request).small_picture, row, height))
    except (TastemakerError, OSError) as error:
        reason = str(error).splitlines()[0][:300] or type(error).__name__
        return PlainTextResponse(reason, status_code=404, headers=_NEVER)
    return Response(data, media_type="image/jpeg", headers=_FOR_EVER)


async def _about_live(question: Callable[[], Any], request: Request) -> Response:
    return await _reply(question)


def _shown(live: Live, request: Request) -> Explorer:
    """Return the explorer of the rows that a page has seen: another one's numbers would mean other pictures.

    Raises:
        NewRowsError: Others are shown meanwhile.
    """
    explorer, seen = live.explorer, _text(request, "v")
    if explorer is None or seen not in ("", explorer.stamp):
        raise NewRowsError("the rows were read anew; the page shows them once it is loaded again")
    return explorer


def _answer(live: Live, question: Callable[[Explorer, Request], Any]) -> _Endpoint:
    """Return an endpoint that answers a question about the table, outside of the event loop."""

    async def endpoint(request: Request) -> Response:
        return await _reply(lambda: question(_shown(live, request), request))

    return endpoint


def _at_most(number: int, endpoint: _Endpoint) -> _Endpoint:
    """Return an endpoint for what takes a core or all: so many at once, and what was given up is not begun."""
    limit = anyio.Semaphore(number)

    async def limited(request: Request) -> Response:
        async with limit:
            if await request.is_disconnected():
                return Response(status_code=499)
            return await endpoint(request)

    return limited


def _take(live: Live, order: Callable[[Explorer, Request, _Body], Any]) -> _Endpoint:
    """Return an endpoint that does what the JSON in its body says."""

    async def endpoint(request: Request) -> Response:
        try:
            body = await request.json()
        except ClientDisconnect:
            return Response(status_code=499)
        except (ValueError, RecursionError):
            body = None
        if not isinstance(body, dict):
            return JSONResponse({"error": "the request is no JSON object"}, status_code=400)
        return await _reply(lambda: order(_shown(live, request), request, body))

    return endpoint


async def _reply(work: Callable[[], Any]) -> Response:
    try:
        return JSONResponse(await run_in_threadpool(work), headers=_NEVER)
    except TastemakerError as error:
        status = 409 if isinstance(error, NewRowsError) else 400
        return JSONResponse({"error": str(error)}, status_code=status, headers=_NEVER)
    except (AttributeError, KeyError, TypeError, ValueError, OverflowError) as error:
        return JSONResponse({"error": f"the request is not understood: {error!r}"}, status_code=400, headers=_NEVER)
    except OSError as error:  # deleted, or on a disk that was unplugged
        return JSONResponse({"error": f"the rows cannot be read: {error}"}, status_code=500, headers=_NEVER)


async def _index(request: Request) -> Response:
    return FileResponse(_STATIC / "index.html")


async def _no_icon(request: Request) -> Response:
    return Response(status_code=204)


def _export(explorer: Explorer, request: Request, body: _Body) -> Any:  # noqa: ANN401 - plain data
    return explorer.export(_filter(request), str(body["to"]), str(body["as"]), str(body["cut"]))


def _rate(explorer: Explorer, request: Request, body: _Body) -> Any:  # noqa: ANN401 - plain data
    return explorer.rate(_filter(request), {int(change["row"]): _change(change) for change in body["changes"]})


def _change(body: _Body) -> _Body:
    kinds: dict[str, Callable[[Any], Any]] = {"stars": int, "rejected": lambda value: value is True, "label": str}
    return {name: kind(body[name]) for name, kind in kinds.items() if body.get(name) is not None}


def _filter(request: Request) -> Filter:
    return Filter(**{name: request.query_params.get(name, "") for name in _FILTER})


def _text(request: Request, name: str) -> str:
    return request.query_params.get(name, "")


def _number(request: Request, name: str) -> int:
    return int(request.query_params.get(name, "0"))

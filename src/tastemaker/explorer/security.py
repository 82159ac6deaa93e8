"""Who may talk to the explorer: programs on this machine that know the token, and the page itself."""

from __future__ import annotations

import hmac
import re
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import parse_qs

from starlette.responses import PlainTextResponse

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

_LOOPBACK_NAMES = ("127.0.0.1", "localhost", "[::1]")
_SAFE_METHODS = ("GET", "HEAD")

_HEADERS = {
    "cache-control": "no-cache",
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "x-frame-options": "DENY",
}


class Guard:
    """Lets a request through that comes from the page or has the token, and adds headers to every answer.

    - ``Host`` must be a name of this machine, against DNS rebinding: a foreign name that resolves to it is refused.
    - The token comes in the printed URL, then in a cookie that is sent to no other site's requests.
    - What changes anything must come from the page's own origin.

    Args:
        app: What is guarded.
        token: The secret.
        cookie: Name of the cookie. Ports do not divide cookies, so it names the port.
    """

    def __init__(self, app: Any, token: str, cookie: str) -> None:  # noqa: ANN401 - any ASGI application
        self._app, self._token, self._cookie = app, token, cookie

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        given = parse_qs(scope.get("query_string", b"").decode("latin-1")).get("token", [""])[0]
        is_first = self._matches(given)
        refusal = _refuse(scope, headers)
        if not refusal and not (is_first or self._has_cookie(headers)):
            refusal = "Open the address that tastemaker printed: it has the token that this page asks for."

        async def send_with_headers(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                added = dict(_HEADERS)
                if is_first and not refusal:
                    added["set-cookie"] = f"{self._cookie}={self._token}; Path=/; HttpOnly; SameSite=Strict"
                present = {name.lower() for name, _ in message["headers"]}
                more = [(n.encode(), v.encode()) for n, v in added.items() if n.encode() not in present]
                message = {**message, "headers": [*message["headers"], *more]}
            await send(message)

        answer = PlainTextResponse(f"{refusal}\n", status_code=403) if refusal else self._app
        await answer(scope, receive, send_with_headers)

    def _matches(self, given: str) -> bool:
        return hmac.compare_digest(given.encode("utf-8", "replace"), self._token.encode())

    def _has_cookie(self, headers: dict[str, str]) -> bool:
        pairs = (part.strip().partition("=") for part in headers.get("cookie", "").split(";"))
        return any(name == self._cookie and self._matches(value) for name, _, value in pairs)


def _refuse(scope: Scope, headers: dict[str, str]) -> str:
    """Return why a request is refused whatever token it has; empty if it is not."""
    host = headers.get("host", "")
    if re.sub(r":\d+$", "", host).lower() not in _LOOPBACK_NAMES:
        return "This page answers to 127.0.0.1 and localhost only."
    is_navigation = headers.get("sec-fetch-mode", "navigate") == "navigate" and scope["method"] in _SAFE_METHODS
    if headers.get("sec-fetch-site", "none") not in ("same-origin", "none") and not is_navigation:
        return "This request comes from another page."
    origin = headers.get("origin")
    if scope["method"] not in _SAFE_METHODS and origin != f"http://{host}":
        return "This request does not come from the page."
    return ""

"""A Hugging Face hub on loopback: what downloads need of its protocol, and the ways in which it fails.

Like the real one it answers for large files with a redirect to another origin (the CDN), and for small files itself.
Repositories with folders and commits are in `hub_repos`.
Clients have to be started with `HubServer.environment`, since huggingface_hub reads HF_ENDPOINT when it is imported, or
given the storage option ``endpoint``.
"""

import hashlib
import os
import threading
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from hub_repos import Repo, answer_about_repo


@dataclass(frozen=True)
class Request:
    """One request that arrived. `server` is "hub" or "cdn"."""

    server: str
    method: str
    path: str
    byte_range: str | None
    authorization: str | None


@dataclass(frozen=True)
class Fault:
    """What the CDN gives in place of one answer: a status, or a body that breaks off or stalls after some bytes."""

    status: int | None = None
    cut_after: int | None = None
    stall_after: int | None = None


class HubServer:
    """A hub and its CDN, each on a port of its own, while the `with` block runs."""

    def __init__(self):
        self.requests: list[Request] = []
        self.faults: list[Fault] = []  # the CDN uses up one for each GET
        self.status: int | None = None  # the hub answers everything with this
        self.released = threading.Event()  # ends the stalls
        self.small: dict[str, bytes] = {}
        self.served: dict[str, bytes] = {}  # by SHA-256
        self.repos: dict[str, Repo] = {}  # by "datasets/owner/name"
        self.page_size = 1000  # entries in one answer about a folder
        self.signature = 0  # of the CDN's addresses; others have run out
        self.cdn_front: str | None = None  # what stands in front of the CDN
        self.refusals: list[
            tuple[int, dict[str, str]]
        ] = []  # the hub uses up one, status and headers, for each request
        self.on_request = lambda _request: None  # called before each answer
        self._hub = self._start(_HubHandler)
        self._cdn = self._start(_CdnHandler)

    def _start(self, handler):
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        server.daemon_threads = True
        server.handle_error = lambda *_: None  # a client that went away is no news
        server.owner = self
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        return server

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.released.set()
        for server in (self._hub, self._cdn):
            server.shutdown()
            server.server_close()

    @property
    def url(self):
        return f"http://127.0.0.1:{self._hub.server_port}"

    @property
    def cdn_url(self):
        return self.cdn_front or f"http://127.0.0.1:{self.cdn_port}"

    @property
    def cdn_port(self):
        return self._cdn.server_port

    def add(self, model, body, served=None):
        """Offer `body` as the weights of `model`; `served` is what the CDN sends in its place."""
        repo = self.add_repo(model.id, {model.filename: body})
        repo.refs[model.revision] = repo.refs["main"]
        if served is not None:
            self.served[hashlib.sha256(body).hexdigest()] = served

    def add_repo(self, name, files=(), **kwargs):
        """Offer a repository, ``datasets/owner/name``, with a first commit; see `Repo`."""
        self.repos[name] = Repo(self, name, dict(files), **kwargs)
        return self.repos[name]

    def downloads(self):
        """Return the requests for bytes of large files."""
        return [request for request in self.requests if request.server == "cdn"]

    def environment(self, home, **extra):
        """Return the environment of a client process whose home and caches are in `home`."""
        clean = {k: v for k, v in os.environ.items() if not k.startswith("HF_") and not k.lower().endswith("_proxy")}
        return clean | {"HOME": str(home), "XDG_CACHE_HOME": str(home / "cache"), "HF_ENDPOINT": self.url} | extra


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    name = ""

    def log_message(self, *_):
        pass

    def record(self):
        seen = (self.command, self.path, self.headers["Range"], self.headers["Authorization"])
        request = Request(self.name, *seen)
        self.server.owner.requests.append(request)
        self.server.owner.on_request(request)

    def answer(self, status, headers, body=b""):
        self.send_response(status)
        for key, value in ({"Content-Length": len(body)} | headers).items():
            self.send_header(key, str(value))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_HEAD(self):
        self.do_GET()


class _HubHandler(_Handler):
    name = "hub"

    def do_GET(self):
        self.form = self.rfile.read(int(self.headers["Content-Length"] or 0)).decode()
        self.record()
        hub = self.server.owner
        commit = {"X-Repo-Commit": self.path.split("/resolve/")[-1].split("/")[0].ljust(40, "0")}
        if hub.status:
            self.answer(hub.status, {})
        elif hub.refusals:
            self.answer(*hub.refusals.pop(0))
        elif answer_about_repo(self, hub):
            pass
        elif self.path in hub.small:
            body = hub.small[self.path]
            self.answer(200, commit | {"ETag": f'"{hashlib.sha1(body).hexdigest()}"'}, body)
        else:
            self.answer(404, {"X-Error-Code": "EntryNotFound", "X-Error-Message": "Entry not found"})

    do_POST = do_GET  # noqa: N815


class _CdnHandler(_Handler):
    name = "cdn"

    def do_GET(self):
        self.record()
        hub = self.server.owner
        fault = hub.faults.pop(0) if hub.faults else Fault()
        if fault.status:
            self.answer(fault.status, {})
            return
        path, _, signature = self.path.partition("?Signature=")
        if signature and int(signature) != hub.signature:
            self.answer(403, {})
            return
        body = hub.served[path.split("/")[1]]
        wanted = (self.headers["Range"] or "").removeprefix("bytes=")
        start, end = (int(part) if part else len(body) - 1 for part in (wanted or "0-").split("-"))
        end = min(end, len(body) - 1)
        length = {"Content-Length": end + 1 - start, "Accept-Ranges": "bytes"}
        partial = {"Content-Range": f"bytes {start}-{end}/{len(body)}"} if wanted else {}
        stop = fault.cut_after or fault.stall_after
        part = body[start : end + 1]
        self.answer(206 if partial else 200, length | partial, part[:stop] if stop else part)
        if fault.stall_after:
            hub.released.wait(60)
        self.close_connection = bool(stop)

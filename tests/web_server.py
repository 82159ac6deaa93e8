"""Web servers on loopback that fail on demand: one that serves a folder, one that stands in front of another server."""

import contextlib
import hashlib
import http.client
import os
import socket
import struct
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote

from conftest import free_port


@dataclass(frozen=True)
class Fault:
    """What takes the place of one answer to a GET or PUT: a status; a body that breaks off or stalls; a reset."""

    status: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    cut_after: int | None = None
    stall_after: int | None = None
    reset: bool = False


@dataclass
class Request:
    """One request that arrived, and the bytes of its answer's body so far."""

    method: str
    path: str
    headers: Message
    sent: int = 0

    @property
    def byte_range(self):
        return self.headers["Range"] or self.headers["x-ms-range"]

    @property
    def authorization(self):
        return self.headers["Authorization"]


class WebServer:
    """Serves `folder`, or what `forward_to` (a port) serves, while the `with` block runs."""

    def __init__(self, folder=None, forward_to=None, ranges=True):
        self.folder, self.forward_to, self.ranges = folder, forward_to, ranges
        self.requests: list[Request] = []
        self.faults: list[Fault] = []  # one is used up by each request with a body
        self.always: Fault | None = None
        self.only = ""  # faults hit paths with this in them
        self.broken_from: int | None = None  # bytes from this one on are never given
        self.faulty = {"GET", "PUT", "POST"}
        self.latency_s = 0.0
        self.released = threading.Event()  # ends the stalls
        self.on_request = lambda _request: None  # called before each answer
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
        self._server.daemon_threads = True
        self._server.handle_error = lambda *_: None  # a client that went away is no news
        self._server.owner = self
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.released.set()
        self._server.shutdown()
        self._server.server_close()

    @property
    def url(self):
        return f"http://127.0.0.1:{self._server.server_port}"

    def reads(self, path=""):
        """Return the requests for bytes of files whose path has this in it."""
        return [request for request in self.requests if request.method == "GET" and path in request.path]

    def sent(self, path=""):
        return sum(request.sent for request in self.reads(path))

    def answer_itself(self, method, path, headers, body):
        """Return status, headers and body of an answer that the server behind does not know to give."""

    def next_fault(self, path, byte_range):
        if self.only not in path:
            return Fault()
        start = (byte_range or "").removeprefix("bytes=").partition("-")[0]
        if self.broken_from is not None and int(start or 0) >= self.broken_from:
            return Fault(status=503)
        if self.always:
            return self.always
        return self.faults.pop(0) if self.faults else Fault()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_GET(self):
        owner = self.server.owner
        body = self.rfile.read(int(self.headers["Content-Length"] or 0))
        path = unquote(self.path)  # obstore writes a dot in a name of Google's as %2E
        request = Request(self.command, path, self.headers)
        owner.requests.append(request)
        owner.on_request(request)
        time.sleep(owner.latency_s)
        fault = owner.next_fault(path, request.byte_range) if self.command in owner.faulty else Fault()
        if fault.reset:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
            self.close_connection = True
            return
        if fault.status:
            self.answer(fault.status, {"Content-Length": "0"} | fault.headers, b"", request, fault)
            return
        answer = owner.answer_itself(self.command, self.path, self.headers, body)
        self.answer(*(answer or (self.forward(body) if owner.forward_to else self.serve())), request, fault)

    do_HEAD = do_PUT = do_POST = do_DELETE = do_GET  # noqa: N815

    def answer(self, status, headers, body, request, fault):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        stop = fault.cut_after or fault.stall_after or len(body)
        with contextlib.suppress(OSError):  # the client may have had enough
            if self.command != "HEAD":
                for start in range(0, min(stop, len(body)), 2**16):
                    piece = body[start : min(start + 2**16, stop)]
                    request.sent += len(piece)  # before: the client may go on as soon as it has the last of them
                    self.wfile.write(piece)
            self.wfile.flush()
        if fault.stall_after:
            self.server.owner.released.wait(60)
        self.close_connection |= bool(fault.cut_after or fault.stall_after)

    def forward(self, body):
        connection = http.client.HTTPConnection("127.0.0.1", self.server.owner.forward_to)
        headers = {name: value for name, value in self.headers.items() if name.lower() not in ("connection", "host")}
        connection.request(self.command, self.path, body or None, headers)
        answer = connection.getresponse()
        data = answer.read()
        headers = {k: v for k, v in answer.getheaders() if k.lower() not in ("transfer-encoding", "connection")}
        if self.command != "HEAD":
            headers = {name: value for name, value in headers.items() if name.lower() != "content-length"}
            headers["Content-Length"] = str(len(data))
        connection.close()
        return answer.status, headers, data

    def serve(self):
        path = self.server.owner.folder / unquote(self.path.lstrip("/").partition("?")[0])
        if not path.is_file():
            return 404, {"Content-Length": "0"}, b""
        return part_of(path.read_bytes(), self.headers["Range"] if self.server.owner.ranges else None)


def part_of(data, wanted):
    """Return status, headers and body of the answer to a request for a file, or for a range of it."""
    headers = {"ETag": f'"{hashlib.md5(data).hexdigest()}"'}
    if not wanted:
        return 200, headers | {"Content-Length": str(len(data))}, data
    start, _, end = wanted.removeprefix("bytes=").partition("-")
    part = data[int(start) : int(end) + 1 if end else None]
    if not part:
        return 416, headers | {"Content-Range": f"bytes */{len(data)}", "Content-Length": "0"}, b""
    span = f"bytes {start}-{int(start) + len(part) - 1}/{len(data)}"
    return 206, headers | {"Content-Range": span, "Content-Length": str(len(part))}, part


@contextlib.contextmanager
def server_process(command, **environment):
    """Yield the port of a server in a process of its own, once it answers; `{port}` in the command is that port."""
    port = free_port()
    command = [part.format(port=port) for part in command]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen(command, env=os.environ | environment, **quiet)
    try:
        for _ in range(300):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            time.sleep(0.1)
        yield port
    finally:
        process.terminate()
        process.wait(10)


def moto_server():
    """Return a context with the port of moto's S3 server."""
    return server_process([sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", "{port}"])

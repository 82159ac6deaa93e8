"""Reading shards over HTTP on loopback, with and without latency, against the same files read locally.

    python benchmarks/remote.py [--shards 2] [--samples 1000] [--bytes 100000] [--latency-ms 0 50] [--runs 3]

The server is a process of its own, on the same cores. Prints the machine, medians, ratios and requests per shard.
"""

import argparse
import io
import multiprocessing
import random
import re
import tarfile
import tempfile
import time
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from common import alternate, print_machine, print_rates

from tastemaker.imaging.shards import read_samples


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shards", type=int, default=2)
    parser.add_argument("--samples", type=int, default=1000, help="in a shard: a JPEG and a caption each")
    parser.add_argument("--bytes", type=int, default=100_000, help="of a JPEG")
    parser.add_argument("--latency-ms", type=float, nargs="+", default=[0, 50], help="before each answer")
    parser.add_argument("--runs", type=int, default=3)
    arguments = parser.parse_args()
    print_machine("httpx2")
    with tempfile.TemporaryDirectory() as folder:
        names = [write_shard(Path(folder) / f"{n:05}.tar", arguments) for n in range(arguments.shards)]
        servers = {latency: Server(folder, latency / 1000) for latency in arguments.latency_ms}
        actions = {"local": partial(read_all, [f"{folder}/{name}" for name in names])}
        for latency, server in servers.items():
            actions[f"HTTP, {latency:g} ms"] = partial(read_all, [f"{server.url}/{name}" for name in names])
        images = arguments.shards * arguments.samples
        print_rates("all members, one shard after the other", alternate(actions, arguments.runs, images), "local")
        size = (Path(folder) / names[0]).stat().st_size
        for latency, server in servers.items():
            passes = (arguments.runs + 1) * arguments.shards
            print(
                f"  {latency:g} ms: {server.requests.value / passes:.1f} requests for a shard of {size / 2**20:.0f} MiB"
            )
            server.process.terminate()


def read_all(paths: list[str]) -> None:
    for path in paths:
        for _ in read_samples(path):
            pass


def write_shard(path: Path, arguments: argparse.Namespace) -> str:
    rng = random.Random(path.name)
    with tarfile.open(path, "w") as tar:
        for number in range(arguments.samples):
            for extension, data in {"jpg": b"\xff\xd8\xff" + rng.randbytes(arguments.bytes), "txt": b"a"}.items():
                member = tarfile.TarInfo(f"{number:08}.{extension}")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    return path.name


class Server:
    """Serves a folder in ranges from a process of its own, each answer after a delay."""

    def __init__(self, folder: str, latency_s: float) -> None:
        context = multiprocessing.get_context("spawn")
        self.requests, port = context.Value("i", 0), context.Value("i", 0)
        arguments = (folder, latency_s, self.requests, port)
        self.process = context.Process(target=serve, args=arguments, daemon=True)
        self.process.start()
        while not port.value:
            time.sleep(0.01)
        self.url = f"http://127.0.0.1:{port.value}"


def serve(folder, latency_s, requests, port) -> None:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_) -> None:
            pass

        def do_GET(self) -> None:
            with requests.get_lock():
                requests.value += 1
            time.sleep(latency_s)
            path = Path(folder) / self.path.lstrip("/")
            total = path.stat().st_size
            start, end = map(int, re.findall(r"\d+", self.headers["Range"]))
            end = min(end, total - 1)
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{end}/{total}")
            self.send_header("Content-Length", str(end - start + 1))
            self.send_header("ETag", f'"{path.name}"')
            self.end_headers()
            self.wfile.flush()
            with path.open("rb") as file:
                self.connection.sendfile(file, start, end - start + 1)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    port.value = server.server_port
    server.serve_forever()


if __name__ == "__main__":
    main()

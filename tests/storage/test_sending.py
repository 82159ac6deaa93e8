"""Uploads: none waits for ever, and a large one is made in parts."""

# ruff: noqa: F811 - fixtures are arguments

import contextlib
import socket

import pytest
from remote_servers import (  # noqa: F401 - fixtures
    _impatient,
    azure_port,
    bucket,
    google_port,
    moto_port,
    open_bucket,
)
from web_server import Fault

from tastemaker.errors import ConfigurationError, RemoteError
from tastemaker.storage.place import Place
from tastemaker.storage.stores import PART_BYTES

pytestmark = pytest.mark.network


@pytest.fixture
def deaf(monkeypatch):
    """Storage options of a server that accepts connections and neither reads nor answers."""
    monkeypatch.setenv("TASTEMAKER_REMOTE_TIMEOUT_S", "0.2")
    monkeypatch.setenv("TASTEMAKER_REMOTE_SLOWEST_BYTES_PER_S", str(2**26))
    with contextlib.closing(socket.create_server(("127.0.0.1", 0), backlog=100)) as listener:
        yield {"endpoint_url": f"http://127.0.0.1:{listener.getsockname()[1]}"}


def test_a_server_that_takes_nothing_is_one_clear_error_after_three_tries(deaf):
    place = Place.of("s3://bucket/a.tar", {**deaf, "key": "a", "secret": "b"})
    draft = place.draft()
    draft.path.write_bytes(bytes(30_000_000))
    for upload in (draft.commit, lambda: place.write(bytes(10))):
        with pytest.raises(RemoteError, match=r"s3://bucket/a\.tar cannot be written: .*\(given up after 3 tries\)"):
            upload()
    assert draft.path.exists()
    draft.discard()


def test_an_upload_that_stalls_once_is_made_again(bucket):
    bucket.server.faults, bucket.server.only = [Fault(reset=True), Fault(status=503)], "a.bin"
    Place.of(f"{bucket.url}/a.bin", bucket.options).write(b"data")
    assert bucket.files() == {"a.bin": b"data"}


@pytest.mark.parametrize("scheme", ["s3", "gs", "az"])
def test_a_large_file_is_uploaded_in_parts_and_is_whole(request, scheme):
    body = bytes(range(256)) * (2**16 + 1)
    with open_bucket(scheme, request) as store:
        with Place.of(f"{store.url}/a.bin", store.options).draft() as draft:
            draft.path.write_bytes(body)
        assert store.files() == {"a.bin": body}
        parts = [request for request in store.server.requests if request.method == "PUT"]
    assert len(parts) >= len(body) / PART_BYTES


@pytest.mark.parametrize(
    ("url", "options", "name"),
    [
        ("s3://b/a", {"kye": "k"}, "kye"),
        ("gs://b/a", {"tokn": "t"}, "tokn"),
        ("az://b/a", {"account_name": "a", "acount_key": "k"}, "acount_key"),
        ("https://host/a", {"https://host": {"header": {}}}, "option header"),
        ("hf://datasets/o/n", {"hf": {"revison": "r"}}, "revison"),
    ],
)
def test_an_option_that_no_store_has_is_refused_by_its_name(url, options, name):
    with pytest.raises(ConfigurationError, match=name):
        Place.of(url, {"region": "r", **options} if url.startswith("s3") else options).stat()


def test_options_in_the_spelling_of_fsspec_reach_the_store(bucket, tmp_path, monkeypatch):
    inner = {"endpoint_url": bucket.server.url, "region_name": "us-east-1", "aws_session_token": "t"}
    spellings = [
        {"key": "k", "secret": "s", "token": "t", "endpoint_url": bucket.server.url},
        {"client_kwargs": inner},
        {"anon": True, "client_kwargs": {"endpoint_url": bucket.server.url}},
    ]
    for number, options in enumerate(spellings):
        Place.of(f"{bucket.url}/{number}", options).write(b"data")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    (tmp_path / "credentials").write_text("[mine]\naws_access_key_id = k\naws_secret_access_key = s\n")
    (tmp_path / "config").write_text(f"[profile mine]\nregion = r\nendpoint_url = {bucket.server.url}\n")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    Place.of(f"{bucket.url}/3", {"profile": "mine"}).write(b"data")
    assert bucket.files() == dict.fromkeys("0123", b"data")
    with pytest.raises(ConfigurationError, match="no profile 'other'"):
        Place.of(f"{bucket.url}/3", {"profile": "other"}).stat()

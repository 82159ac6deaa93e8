"""Uploads: none waits for ever, and a slow one is let alone."""

# ruff: noqa: F811 - fixtures are arguments

import contextlib
import socket
import time

import pytest
from remote_servers import _impatient, bucket, moto_port  # noqa: F401 - fixtures
from web_server import Fault

from tastemaker.errors import RemoteError
from tastemaker.storage import output_path
from tastemaker.storage.files import publish, publish_bytes

pytestmark = pytest.mark.network


@pytest.fixture
def deaf(monkeypatch):
    """Storage options of a server that accepts connections and neither reads nor answers."""
    monkeypatch.setenv("TASTEMAKER_REMOTE_TIMEOUT_S", "0.5")
    monkeypatch.setenv("TASTEMAKER_REMOTE_SLOWEST_BYTES_PER_S", str(2**25))
    with contextlib.closing(socket.create_server(("127.0.0.1", 0), backlog=100)) as listener:
        yield {"endpoint_url": f"http://127.0.0.1:{listener.getsockname()[1]}"}


@pytest.mark.parametrize("size", [10, 10_000_000, 30_000_000])
def test_a_server_that_takes_nothing_is_one_clear_error_after_three_tries(tmp_path, deaf, size):
    (tmp_path / "draft").write_bytes(bytes(size))
    target = output_path("s3://bucket/a.tar", deaf)
    for upload in (lambda: publish(tmp_path / "draft", target), lambda: publish_bytes(bytes(size), target)):
        started = time.monotonic()
        with pytest.raises(RemoteError, match=r"s3://bucket/a\.tar cannot be written: .*\(given up after 3 tries\)"):
            upload()
        assert time.monotonic() - started < 15
    assert (tmp_path / "draft").exists()


def test_an_upload_that_stalls_once_is_made_again(bucket):
    bucket.server.faults, bucket.server.only = [Fault(reset=True), Fault(status=503)], "a.bin"
    publish_bytes(b"data", output_path(f"{bucket.url}/a.bin", bucket.options))
    assert bucket.files() == {"a.bin": b"data"}


def test_a_slow_upload_that_goes_on_is_let_alone(tmp_path, bucket, monkeypatch):
    monkeypatch.setenv("TASTEMAKER_REMOTE_SLOWEST_BYTES_PER_S", str(2**24))  # 4.5 s without a part
    body = bytes(range(256)) * (2**18)  # 8 parts in two rounds
    (tmp_path / "draft").write_bytes(body)
    bucket.server.latency_s = 1.2
    started = time.monotonic()
    publish(tmp_path / "draft", output_path(f"{bucket.url}/a.bin", bucket.options))
    assert time.monotonic() - started > 4.5
    assert bucket.files() == {"a.bin": body}
    assert not (tmp_path / "draft").exists()

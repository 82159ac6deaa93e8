"""Uploads: none waits for ever, and a slow one is let alone."""

# ruff: noqa: F811 - fixtures are arguments

import asyncio
import contextlib
import socket
import time

import pytest
from fsspec.asyn import get_loop, sync
from fsspec.callbacks import Callback
from remote_servers import _impatient, bucket, moto_port  # noqa: F401 - fixtures
from web_server import Fault

from tastemaker.errors import RemoteError
from tastemaker.storage import output_path, sending
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


class Clock:
    """Stands in for the module `time`: a second passes whenever somebody looks, however busy the machine is."""

    now = 0.0

    def monotonic(self):
        self.now += 1
        return self.now


@pytest.mark.parametrize(("pause_s", "is_let_alone"), [(3, True), (8, False)])
def test_an_upload_may_take_any_time_as_long_as_it_goes_on(monkeypatch, pause_s, is_let_alone):
    clock, callback = Clock(), Callback()
    monkeypatch.setattr(sending, "time", clock)
    monkeypatch.setattr(sending, "_POLL_S", 0.001)

    async def upload():
        for part in range(10):
            due = clock.now + pause_s
            while clock.now < due:
                await asyncio.sleep(0)
            callback.absolute_update(part + 1)

    outcome = contextlib.nullcontext() if is_let_alone else pytest.raises(ConnectionAbortedError, match="taken for 5 s")
    with outcome:
        sync(get_loop(), sending._watch, upload(), callback, 5)
    assert clock.now > 2 * 5 or not is_let_alone


def test_each_part_of_an_upload_counts_as_going_on(tmp_path, bucket, monkeypatch):
    seen = []

    class Recording(Callback):
        def call(self, *args, **kwargs):
            seen.append(self.value)

    monkeypatch.setattr("fsspec.callbacks.Callback", Recording)
    body = bytes(range(256)) * (2**18)
    (tmp_path / "draft").write_bytes(body)
    publish(tmp_path / "draft", output_path(f"{bucket.url}/a.bin", bucket.options))
    assert len(set(seen)) >= len(body) // sending.PART_BYTES == 8
    assert bucket.files() == {"a.bin": body}
    assert not (tmp_path / "draft").exists()

"""One remote file by position: only the bytes that are wanted, whatever the connection does."""

# ruff: noqa: F811 - fixtures are arguments

import random
import re
import time

import pytest
from remote_servers import (  # noqa: F401 - fixtures
    _impatient,
    azure_port,
    dataset,
    google_port,
    hub,
    moto_port,
    open_bucket,
    plain_web,
    web,
)
from web_server import Fault

from tastemaker.errors import RemoteError
from tastemaker.storage.place import Place

pytestmark = pytest.mark.network
DATA = random.Random(1).randbytes(3_000_000)


class RemoteFile:
    """A file on a server."""

    def __init__(self, kind, server, url, options, write):
        self.kind, self.server, self.url, self.options, self.write = kind, server, url, options, write
        self.write(DATA)
        self.server.only = "f.bin"

    def open(self):
        return Place.at(self.url, self.options).open_ranges()

    def reads(self):
        """Return the requests for bytes; some stores are asked about the file first."""
        return [request for request in self.server.reads("f.bin") if request.byte_range]


@pytest.fixture(params=["web", "s3", "gs", "az", "hf"])
def place(request, tmp_path):
    if request.param == "hf":
        data = request.getfixturevalue("dataset")
        url = f"{data.url}/f.bin"
        yield RemoteFile("hf", data.server, url, data.options, lambda body: data.repo.commit({"f.bin": body}))
        return
    if request.param == "web":
        server = request.getfixturevalue("web")
        yield RemoteFile("web", server, f"{server.url}/f.bin", None, (tmp_path / "web" / "f.bin").write_bytes)
        return
    with open_bucket(request.param, request) as bucket:
        url, write = f"{bucket.url}/f.bin", lambda body: bucket.store.put("f.bin", body)
        yield RemoteFile(request.param, bucket.server, url, bucket.options, write)


def test_a_read_requests_exactly_its_bytes(place):
    file = place.open()
    assert file.read_at(1_000_000, 70_000) == DATA[1_000_000:1_070_000]
    assert file.read_at(len(DATA) - 5, 100) == DATA[-5:]
    assert file.read_at(len(DATA) + 5, 100) == b""
    assert file.holds(len(DATA))
    assert not file.holds(len(DATA) + 1)
    assert [request.byte_range for request in place.reads()] == [
        "bytes=1000000-1069999",
        f"bytes={len(DATA) - 5}-{len(DATA) - 1}",
    ]
    deadline = time.monotonic() + 10  # the server counts once the last byte has gone
    while (sent := sum(read.sent for read in place.reads())) != 70_005 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert sent == 70_005


def test_an_empty_file_is_empty(place):
    place.write(b"")
    assert place.open().read_at(0, 10) == b""
    assert not place.open().holds(1)


def test_after_a_cut_the_read_goes_on_at_the_byte_that_is_missing(place):
    place.server.faults = [Fault(cut_after=1_200_000), Fault(reset=True), Fault(cut_after=600_000)]
    assert place.open().read_at(0, len(DATA)) == DATA
    starts = [int(r.byte_range.removeprefix("bytes=").partition("-")[0]) for r in place.reads()]
    assert starts == sorted(starts)
    assert max(starts) >= 1_200_000  # nothing that had come was asked for again, but for what was on its way
    assert place.server.sent("f.bin") < 1.4 * len(DATA)


@pytest.mark.parametrize("fault", [Fault(status=503), Fault(status=500), Fault(reset=True)])
def test_a_failing_server_is_asked_again(place, fault):
    place.server.faults = [fault, fault]
    assert place.open().read_at(5, 1000) == DATA[5:1005]


def test_a_server_that_says_nothing_more_is_asked_again_after_the_timeout(place, monkeypatch):
    monkeypatch.setenv("TASTEMAKER_REMOTE_TIMEOUT_S", "0.7")
    place.server.faults = [Fault(stall_after=500_000)]
    assert place.open().read_at(0, 2_000_000) == DATA[:2_000_000]
    assert len(place.reads()) > 1


@pytest.mark.parametrize("fault", [Fault(status=503), Fault(cut_after=10)])  # ten bytes are no progress
def test_the_number_of_tries_is_bounded_and_the_error_says_what_failed(place, fault):
    file = place.open()
    file.size_bytes()
    before, place.server.always = len(place.reads()), fault
    said = rf"^{re.escape(place.url)} cannot be read at byte 7: .*\(given up after 3 tries\)"
    with pytest.raises(RemoteError, match=said):
        file.read_at(7, 1000)
    assert len(place.reads()) - before == 3


def test_what_is_not_there_is_asked_for_once(place):
    file = Place.at(place.url + "x", place.options).open_ranges()
    with pytest.raises(RemoteError, match=r"f\.binx cannot be read at byte 0"):
        file.read_at(0, 10)
    assert len(place.server.reads("f.binx")) <= 3  # Google's is asked for a folder of that name, too


def test_a_file_that_was_replaced_is_not_mixed_with_the_one_before(place):
    file = place.open()
    assert file.read_at(0, 10) == DATA[:10]
    place.write(DATA[::-1])
    if place.kind == "hf":  # what was committed stays, and is read on
        assert file.read_at(10, 10) == DATA[10:20]
        return
    with pytest.raises(RemoteError, match="was changed while it was read"):
        file.read_at(10, 10)


def test_a_signature_is_in_no_error(web):
    web.always = Fault(status=403)
    with pytest.raises(RemoteError) as caught:
        Place.at(f"{web.url}/a.tar?X-Amz-Signature=SECRET%2B").open_ranges().read_at(0, 10)
    assert "SECRET" not in str(caught.value)
    assert "403" in str(caught.value)


def test_from_a_server_without_ranges_a_file_is_fetched_once_and_read_by_position(plain_web, tmp_path):
    (tmp_path / "web" / "f.bin").write_bytes(DATA)
    assert Place.at(f"{plain_web.url}/f.bin").stat().size == len(DATA)
    plain_web.requests.clear()
    plain_web.faults = [Fault(cut_after=1_500_000)]
    file = Place.at(f"{plain_web.url}/f.bin").open_ranges()
    for start in (2_900_000, 0, 500_000):
        assert file.read_at(start, 250_000) == DATA[start : start + 250_000]
    assert len(plain_web.reads()) == 2  # cut once
    file.close()

"""Remote shards in one pass: the samples of a local file, before the whole shard was read, in a bounded memory."""

import sys

import pytest
from conftest import make_tar
from test_compressions import COMPRESS
from test_shards import picture
from web_server import WebServer

from tastemaker.errors import ReasonKind, RemoteError
from tastemaker.imaging.readers import open_shard
from tastemaker.imaging.shards import WINDOW_BYTES, read_samples, read_stream
from tastemaker.storage.blocks import AHEAD, BLOCK_BYTES, HELD_BLOCKS, BlockReader


def streamed(path, window_bytes):
    reader = BlockReader(open_shard(f"file://{path}"), block_bytes=4096, held=4, ahead=1)
    return list(read_stream(reader, window_bytes))


def in_order(count=60):
    return [(f"{n:03d}.{e}", picture(f"{n}{e}", 3000)) for n in range(count) for e in ("jpg", "txt")]


@pytest.mark.parametrize("kind", ["tar", "tar.gz"])
def test_samples_are_those_of_a_local_file_though_the_window_is_small(tmp_path, kind):
    path = make_tar(tmp_path / f"a.{kind}", in_order(), mode="w:gz" if kind == "tar.gz" else "w")
    assert streamed(path, 10_000) == list(read_samples(str(path)))


@pytest.mark.parametrize("kind", ["tar", "tar.gz"])
@pytest.mark.parametrize("late", ["025.txt", "025.jpg"])
def test_a_member_behind_the_window_is_a_sample_that_says_so(tmp_path, kind, late):
    members = in_order()
    moved = next(member for member in members if member[0] == late)
    members.remove(moved)
    members.insert(90, moved)
    path = make_tar(tmp_path / f"a.{kind}", members, mode="w:gz" if kind == "tar.gz" else "w")
    whole = list(read_samples(str(path)))
    found = streamed(path, 10_000)
    assert [pair for pair in found if pair[0].key != "025"] == [pair for pair in whole if pair[0].key != "025"]
    first, second = (sample for sample, _ in found if sample.key == "025")
    said = "no image among the members of this key, which are: txt"
    assert str(first.problem or "") == ("" if late == "025.txt" else said)
    assert second.problem.text.startswith(f"late member: '{late}' lies too far behind the other members of '025'")
    assert second.problem.kind is ReasonKind.LATE_MEMBER
    assert streamed(path, sys.maxsize) == whole


def test_a_second_sample_of_a_key_far_away_is_a_duplicate_as_in_a_local_file(tmp_path):
    members = in_order()
    path = make_tar(tmp_path / "a.tar", [*members, *members])
    assert streamed(path, 10_000) == list(read_samples(str(path)))


@pytest.mark.network
def test_the_first_sample_comes_before_the_shard_was_read(tmp_path):
    members = [(f"{n:03d}.jpg", picture(n, 2_000_000)) for n in range(64)]
    make_tar(tmp_path / "a.tar", members)
    with WebServer(tmp_path) as web:
        samples = read_samples(f"{web.url}/a.tar")
        first = next(samples)
        assert first[1] == {"000.jpg": members[0][1]}
        assert web.sent() <= WINDOW_BYTES + (AHEAD + 2) * BLOCK_BYTES + 2**20
        assert sum(1 for _ in samples) == 63
        size = (tmp_path / "a.tar").stat().st_size
        assert web.sent() <= size + 2**20 + 1  # once
        assert sum(read.sent > 0 for read in web.reads()) <= size / BLOCK_BYTES + 3  # not what timed out
    assert (HELD_BLOCKS + AHEAD) * BLOCK_BYTES <= 96 * 2**20


@pytest.mark.network
@pytest.mark.parametrize("kind", ["", *COMPRESS])
def test_samples_that_are_whole_are_given_out_before_a_connection_fails_for_good(tmp_path, kind, monkeypatch):
    for name, value in {"ATTEMPTS": "2", "WAIT_S": "0.01"}.items():
        monkeypatch.setenv(f"TASTEMAKER_REMOTE_{name}", value)
    members = [(f"{n:03d}.jpg", picture(n, 1_000_000)) for n in range(18)]
    path = make_tar(tmp_path / "a.tar", members)
    path.write_bytes(COMPRESS.get(kind, bytes)(path.read_bytes()))
    with WebServer(tmp_path) as web:
        web.broken_from = 2 * BLOCK_BYTES
        found = []
        with pytest.raises(RemoteError, match="given up after 2 tries"):
            found.extend(read_samples(f"{web.url}/a.tar"))  # what came before the error is in the list
    whole = [data for sample, data in found if not sample.problem]
    assert whole == [{name: content} for name, content in members[: len(whole)]]
    assert len(whole) >= 7  # a block of 8 MiB of the tar itself, but for its last sample, which may lack members

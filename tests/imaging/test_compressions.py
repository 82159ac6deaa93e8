"""Tars in every compression: read alike, and what lies before damage is there."""

import bz2
import contextlib
import gzip
import lzma
from functools import partial

import pyarrow as pa
import pytest
from conftest import make_tar

from tastemaker.imaging.readers import open_shard
from tastemaker.imaging.shards import is_shard, read_samples, read_stream
from tastemaker.storage.blocks import BlockReader


def zstd(data):
    return pa.Codec("zstd").compress(data, asbytes=True)


COMPRESS = {"gz": gzip.compress, "bz2": bz2.compress, "xz": partial(lzma.compress, preset=0), "zst": zstd}
every_kind = pytest.mark.parametrize("kind", COMPRESS)
"""Names of the extensions."""


@pytest.fixture
def members():
    import random

    bytes_of = random.Random(0).randbytes
    return [(f"{n:03d}.{e}", b"\xff\xd8\xff" + bytes_of(20_000)) for n in range(60) for e in ("jpg", "txt")]


@pytest.fixture
def plain(tmp_path, members):
    return make_tar(tmp_path / "plain.tar", members)


def pack(plain, kind, *, called=None):
    path = plain.with_name(called or f"a.tar.{kind}")
    path.write_bytes(COMPRESS[kind](plain.read_bytes()))
    return path


def summary(samples):
    return [(sample.key, str(sample.problem or ""), data) for sample, data in samples]


@every_kind
@pytest.mark.parametrize("called", [None, "called.tar"])
def test_a_compressed_tar_gives_the_samples_of_a_plain_one(plain, kind, called):
    path = pack(plain, kind, called=called)
    assert is_shard(str(path))
    expected = summary(read_samples(str(plain)))
    assert len(expected) == 60
    assert summary(read_samples(str(path))) == expected
    assert summary(read_samples(f"file://{path}")) == expected  # as from a server: in blocks
    with contextlib.closing(open_shard(str(path))) as reader:  # there and back again
        assert reader.read_at(2_000_000, 9) == plain.read_bytes()[2_000_000:2_000_009]
        assert reader.read_at(1_000_000, 9) == plain.read_bytes()[1_000_000:1_000_009]


@every_kind
def test_a_compressed_tar_of_several_parts_is_read_to_its_end(tmp_path, plain, kind):
    raw, compress = plain.read_bytes(), COMPRESS[kind]
    path = tmp_path / f"a.tar.{kind}"
    path.write_bytes(compress(raw[:734_567]) + compress(raw[734_567:]))
    assert summary(read_samples(str(path))) == summary(read_samples(str(plain)))


@every_kind
@pytest.mark.parametrize("share", [0.3, 0.8, 0.99])
def test_of_a_cut_stream_what_lies_before_is_there_and_the_cut_is_told(plain, kind, share):
    path = pack(plain, kind)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    expected = {sample.key: data for sample, data in read_samples(str(plain))}
    for samples in (read_samples(str(path)), read_stream(BlockReader(open_shard(f"file://{path}")), 2**25)):
        found = list(samples)
        assert found[-1][0].key == ""
        assert found[-1][0].problem.text.startswith("damaged shard: ")
        whole = {sample.key: data for sample, data in found if not (sample.problem or sample.notes)}
        assert all(expected[key] == data for key, data in whole.items())
        lost = 1_000_000 if kind == "bz2" else 70_000  # it has blocks of 900 kB
        assert len(whole) >= 60 * (share * plain.stat().st_size - lost) / plain.stat().st_size - 2


@every_kind
@pytest.mark.parametrize("name", ["a.tar", "small.tar"])
def test_what_follows_a_sound_archive_costs_one_row_and_no_image(plain, tmp_path, members, kind, name):
    if name == "small.tar":
        make_tar(tmp_path / name, members[:2])
    whole = (plain if name == "a.tar" else tmp_path / name).read_bytes()
    path = tmp_path / f"{name}.{kind}"
    path.write_bytes(COMPRESS[kind](whole) + b"this is no part of it" * 10)
    for samples in (read_samples(str(path)), read_stream(BlockReader(open_shard(f"file://{path}")), 2**25)):
        *images, (damage, _) = samples
        assert [data for _, data in images] == [dict(members[at : at + 2]) for at in range(0, 2 * len(images), 2)]
        assert len(images) == (60 if name == "a.tar" else 1)
        assert (damage.key, damage.problem.text[:15]) == ("", "damaged shard: ")


@pytest.mark.parametrize("kind", ["gz", "bz2", "xz"])
def test_zeros_behind_a_compressed_archive_are_padding(plain, kind):
    path = pack(plain, kind)
    path.write_bytes(path.read_bytes() + bytes(200_000))
    assert summary(read_samples(str(path))) == summary(read_samples(str(plain)))


def test_frames_to_skip_before_zstd_are_skipped(plain):
    path = pack(plain, "zst")
    path.write_bytes(b"\x50\x2a\x4d\x18\x04\0\0\0abcd" + path.read_bytes())
    assert len(list(read_samples(str(path)))) == 60


def test_a_plain_tar_whose_first_name_begins_like_bzip2_is_plain(tmp_path):
    path = make_tar(tmp_path / "a.tar", [("BZh91AY.jpg", b"\xff\xd8\xff")])
    assert [sample.key for sample, _ in read_samples(str(path))] == ["BZh91AY"]

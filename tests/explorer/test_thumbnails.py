"""Thumbnails: small, whole, upright, kept on disk within bounds."""

import io

import numpy as np
import pytest
from conftest import encode
from PIL import Image

from explorer.table import encode_picture
from tastemaker import ScoreTable
from tastemaker.errors import UnreadableImageError
from tastemaker.explorer.index import Filter
from tastemaker.explorer.reduced import encode_small
from tastemaker.explorer.service import Explorer
from tastemaker.explorer.thumbnails import Thumbnails
from tastemaker.runs.run import RunOptions, run_scoring


def size_of(data):
    with Image.open(io.BytesIO(data)) as image:
        assert image.format == "JPEG"
        return image.size


@pytest.mark.parametrize(
    ("size", "expected"), [((300, 200), (300, 200)), ((3000, 2000), (300, 200)), ((1200, 100), (1200, 100))]
)
def test_a_thumbnail_has_the_height_asked_for_and_is_never_enlarged(size, expected):
    assert size_of(encode_small(encode_picture(1, *size), 1600, 200, 80)) == expected


def test_very_wide_and_very_tall_pictures_are_whole():
    wide = size_of(encode_small(encode_picture(1, 8000, 100), 1600, 200, 80))
    tall = size_of(encode_small(encode_picture(1, 60, 4000), 1600, 200, 80))
    assert wide == (1600, 20)
    assert tall == (3, 200)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_thumbnail_is_upright_as_exif_says(orientation):
    from PIL import ImageOps

    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encode_picture(2, 640, 320, exif=exif, quality=95)
    thumbnail = Image.open(io.BytesIO(encode_small(data, 1600, 160, 95)))
    expected = ImageOps.exif_transpose(Image.open(io.BytesIO(data))).resize(thumbnail.size)
    assert (thumbnail.height > thumbnail.width) == (orientation >= 5)
    difference = np.abs(np.asarray(thumbnail, np.int16) - np.asarray(expected, np.int16))
    assert difference.mean() < 4


@pytest.mark.parametrize(
    ("mode", "file_format"),
    [("RGBA", "PNG"), ("P", "GIF"), ("CMYK", "JPEG"), ("L", "JPEG"), ("I;16", "TIFF"), ("RGB", "WEBP")],
)
def test_every_kind_of_picture_becomes_a_jpeg(mode, file_format):
    image = Image.new("I;16", (90, 60), 30_000) if mode == "I;16" else Image.new("RGB", (90, 60), "teal").convert(mode)
    assert size_of(encode_small(encode(image, file_format), 320, 40, 80)) == (60, 40)


@pytest.mark.parametrize("data", [b"", b"<svg onload=alert(1)>", b"\xff\xd8\xff\xe0nothing", b"<html>"])
def test_what_is_no_picture_is_refused(data):
    with pytest.raises(UnreadableImageError):
        encode_small(data, 320, 40, 80)


def test_the_cache_answers_until_the_source_changes(explorer, tmp_path):
    row = explorer.original(0)
    first = explorer.thumbnails.make(row, 97)
    assert size_of(first)[1] == 160  # rounded up
    stored = {path: path.read_bytes() for path in (tmp_path / "cache").rglob("*.jpg")}
    assert sorted(size_of(data)[1] for data in stored.values()) == [160, 200]  # the original is not larger
    for path in stored:
        path.write_bytes(b"from the cache")
    assert explorer.thumbnails.make(row, 120) == b"from the cache"
    shard = tmp_path / "shards" / "00000.tar"
    shard.write_bytes(shard.read_bytes() + bytes(1024))
    assert explorer.thumbnails.make(row, 120) == first


def test_smaller_thumbnails_are_made_of_larger_ones_without_the_original(explorer, tmp_path):
    row = explorer.original(1)
    large = explorer.thumbnails.make(row, 320)
    explorer.thumbnails._read = None  # whoever reads the original fails
    assert size_of(large) == (200, 300)
    assert size_of(explorer.thumbnails.make(row, 100)) == (107, 160)
    assert explorer.thumbnails.make(row, 320) == large


@pytest.mark.parametrize("has_hash", [True, False])
def test_another_picture_in_the_place_of_the_scored_one_is_never_shown(tmp_path, has_hash):
    (tmp_path / "photos").mkdir()
    photo = tmp_path / "photos" / "a.jpg"
    scored, other = encode_picture(1, 300, 200), encode_picture(1, 280, 200)
    size = max(len(other), len(scored))
    photo.write_bytes(scored.ljust(size, b"\0"))
    run_scoring([str(tmp_path / "photos")], tmp_path / "out", RunOptions(rank_by="technical_quality", signals=True))
    explorer = Explorer([str(tmp_path / "out")], cache=tmp_path / "cache")
    row = explorer.original(0) if has_hash else {**explorer.original(0), "xxh3": None}
    assert size_of(explorer.thumbnails.make(row, 3000)) == (300, 200)
    photo.write_bytes(other.ljust(size, b"\0"))
    with pytest.raises(UnreadableImageError, match=r"^the file has changed since it was scored$"):
        explorer.thumbnails.make(row, 3000)
    with pytest.raises(UnreadableImageError, match="has changed"):
        explorer.thumbnails.make(row, 100)
    explorer.close()


def test_the_cache_stays_within_its_bounds(explorer, tmp_path):
    small = Thumbnails(tmp_path / "bounded", max_bytes=12_000, named=explorer.table.originals)
    for number in range(12):
        small.make(explorer.original(number), 160)
    sizes = [path.stat().st_size for path in (tmp_path / "bounded").rglob("*") if path.is_file()]
    assert 0 < sum(sizes) <= 12_000


def test_a_source_that_is_gone_or_shorter_is_said_to_be(explorer, tmp_path):
    shard = tmp_path / "shards" / "00000.tar"
    shard.write_bytes(shard.read_bytes()[:2000])
    with pytest.raises(UnreadableImageError, match="has changed"):
        explorer.thumbnails.make(explorer.original(5), 3000)
    shard.unlink()
    with pytest.raises(UnreadableImageError, match="gone"):
        explorer.thumbnails.make(explorer.original(5), 3000)


@pytest.mark.parametrize("rotate", [False, True])
def test_a_picture_that_exif_turns_stands_upright_in_a_box_of_its_shape(tmp_path, rotate):
    exif = Image.Exif()
    exif[0x0112] = 6
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "turned.jpg").write_bytes(encode_picture(2, 640, 320, exif=exif))
    options = RunOptions(rank_by="technical_quality", signals=True, exif_rotate=rotate)
    run_scoring([str(tmp_path / "photos")], tmp_path / "out", options)
    table = ScoreTable(tmp_path / "out")
    stored = [column[0].as_py() for column in table.to_arrow(["width", "height", "orientation"]).columns]
    assert stored == ([320, 640, 1] if rotate else [640, 320, 6])
    explorer = Explorer([str(tmp_path / "out")], cache=tmp_path / "cache")
    (aspect,) = explorer.index.aspects(explorer.index.view(Filter()).rows)
    (row,) = explorer.rows(Filter(), 0, 1)
    thumbnail = size_of(explorer.thumbnails.make(explorer.original(row["row"]), 640))
    explorer.close()
    assert thumbnail == (row["width"], row["height"]) == (320, 640)
    assert aspect == 500

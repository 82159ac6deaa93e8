"""Small pictures: whole, upright, and only of what was scored."""

import io

import numpy as np
import pyarrow as pa
import pytest
from conftest import encode
from PIL import Image, ImageOps

from explorer.table import encode_picture, set_column
from tastemaker import ScoreTable
from tastemaker.errors import UnreadableImageError
from tastemaker.explorer.index import Filter
from tastemaker.explorer.service import Explorer
from tastemaker.runs.run import RunOptions, run_scoring
from tastemaker.scores.small import reduce_image


def score(folder, **options):
    """Score the pictures in ``photos``, and return the folder of the rows."""
    run_scoring(
        [str(folder / "photos")], folder / "out", RunOptions(rank_by="technical_quality", signals=True, **options)
    )
    return folder / "out" / "rows"


def turned_by(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((300, 200), (300, 200)),
        ((3000, 2000), (300, 200)),
        ((1200, 100), (1200, 100)),
        ((8000, 100), (1600, 20)),
        ((60, 4000), (3, 200)),
    ],
)
def test_a_picture_fits_its_box_whole_and_is_never_enlarged(size, expected):
    assert reduce_image(encode_picture(1, *size), 1600, 200).size == expected


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_picture_is_upright_as_exif_says(orientation):
    data = encode_picture(2, 640, 320, exif=turned_by(orientation), quality=95)
    small = reduce_image(data, 1600, 160)
    expected = ImageOps.exif_transpose(Image.open(io.BytesIO(data))).resize(small.size)
    assert (small.height > small.width) == (orientation >= 5)
    assert np.abs(np.asarray(small, np.int16) - np.asarray(expected, np.int16)).mean() < 4


@pytest.mark.parametrize(
    ("mode", "file_format"),
    [("RGBA", "PNG"), ("P", "GIF"), ("CMYK", "JPEG"), ("L", "JPEG"), ("I;16", "TIFF"), ("RGB", "WEBP")],
)
def test_every_kind_of_picture_is_reduced_to_colours(mode, file_format):
    image = Image.new("I;16", (90, 60), 30_000) if mode == "I;16" else Image.new("RGB", (90, 60), "teal").convert(mode)
    small = reduce_image(encode(image, file_format), 320, 40)
    assert (small.size, small.mode) == ((60, 40), "RGB")


@pytest.mark.parametrize("data", [b"", b"<svg onload=alert(1)>", b"\xff\xd8\xff\xe0nothing", b"<html>"])
def test_what_is_no_picture_is_refused(data):
    with pytest.raises(UnreadableImageError):
        reduce_image(data, 320, 40)


@pytest.mark.parametrize("has_hash", [True, False])
def test_another_picture_in_the_place_of_the_scored_one_is_never_shown(tmp_path, has_hash):
    (tmp_path / "photos").mkdir()
    photo = tmp_path / "photos" / "a.jpg"
    scored, other = encode_picture(1, 300, 200), encode_picture(1, 280, 200)
    size = max(len(other), len(scored))
    photo.write_bytes(scored.ljust(size, b"\0"))
    rows = score(tmp_path)
    if not has_hash:
        set_column(rows, "xxh3", pa.nulls(1, pa.string()))
    explorer = Explorer([str(rows)], originals=[str(tmp_path)])
    assert Image.open(io.BytesIO(explorer.small_picture(0, 3000))).size == (300, 200)
    photo.write_bytes(other.ljust(size, b"\0"))
    with pytest.raises(UnreadableImageError, match=r"^the file has changed since it was scored$"):
        explorer.small_picture(0, 100)
    explorer.close()


def test_a_source_that_is_gone_or_shorter_is_said_to_be(explorer, tmp_path):
    shard = tmp_path / "shards" / "00000.tar"
    shard.write_bytes(shard.read_bytes()[:2000])
    with pytest.raises(UnreadableImageError, match="has changed"):
        explorer.small_picture(5, 3000)
    shard.unlink()
    with pytest.raises(UnreadableImageError, match="gone"):
        explorer.small_picture(5, 3000)


@pytest.mark.parametrize("rotate", [False, None])
def test_a_picture_that_exif_turns_stands_upright_in_a_box_of_its_shape(tmp_path, rotate):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "turned.jpg").write_bytes(encode_picture(2, 640, 320, exif=turned_by(6)))
    table = ScoreTable(score(tmp_path, exif_rotate=rotate))
    stored = [column[0].as_py() for column in table.to_arrow(["width", "height", "orientation"]).columns]
    assert stored == ([320, 640, 1] if rotate is None else [640, 320, 6])
    explorer = Explorer([str(tmp_path / "out")])
    (aspect,) = explorer.index.aspects(explorer.index.view(Filter()).rows)
    (row,) = explorer.rows(Filter(), range(1))
    shown = Image.open(io.BytesIO(explorer.small_picture(row["row"], 640))).size
    explorer.close()
    assert shown == (row["width"], row["height"]) == (320, 640)
    assert aspect == 500

"""One folder is one folder, however it is spelt, linked or mounted: nothing is scored twice, or has two rows."""

import os
import shutil
import sys

import pyarrow.parquet as pq
import pytest
from conftest import encode, make_tar
from PIL import Image
from tiny import make_pictures, make_tiny_shards, picture

from tastemaker.runs.run import RunMode, RunOptions, run_scoring

links = pytest.mark.skipif(sys.platform == "win32", reason="links need rights there")


@pytest.fixture
def run(tmp_path, model_dir):
    def call(*inputs, out="out", mode=None, **options):
        return run_scoring(list(inputs), tmp_path / out, RunOptions(model_dir=str(model_dir), **options), mode)

    return call


@pytest.fixture
def rows(tmp_path):
    def read():
        files = sorted((tmp_path / "out" / "rows").rglob("*.parquet"))
        return [row for file in files for row in pq.read_table(file).to_pylist()]

    return read


@pytest.fixture
def photos(tmp_path):
    photos = make_pictures(tmp_path / "disk" / "photos", ["a.jpg", "b.jpg", "c.png", "below/d.jpg"])
    (photos / "a.txt").write_text("of the folder")
    return photos


@pytest.fixture
def shards(tmp_path):
    return make_tiny_shards(tmp_path / "disk" / "shards", shards=3)


def without_places(rows):
    return [
        {name: value for name, value in row.items() if name not in ("image_path", "shard", "sidecars")} for row in rows
    ]


@links
def test_a_folder_is_one_however_it_is_spelt_or_linked(tmp_path, photos, shards, run, rows, monkeypatch):
    (tmp_path / "link").symlink_to(tmp_path / "disk")
    monkeypatch.chdir(tmp_path)
    for folder, pattern in (("photos", "*"), ("shards", "*.tar")):
        run(f"disk/{folder}")
        before = rows()
        for spelling in (
            *(f"./disk/{folder}", f"disk/{folder}/", f"disk//{folder}//", f"{tmp_path}/disk/{folder}"),
            *(f"disk/../disk/{folder}", f"link/{folder}", f"disk/{folder}/{pattern}", "disk/" + folder[:-1] + "*"),
        ):
            assert run(spelling).images_scored_now == 0, spelling
        monkeypatch.chdir(tmp_path / "disk" / folder)
        assert run(".").images_scored_now == 0
        monkeypatch.chdir(tmp_path)
        assert rows() == before


def test_inputs_that_overlap_give_each_picture_one_row(photos, shards, run, rows):
    assert run(photos / "below", photos / "a.jpg", shards / "1.tar").images_scored_now == 6
    summary = run(photos, photos.parent, photos / "a.jpg", shards / "1.tar", shards)
    assert (summary.images_scored_now, summary.images) == (2 + 8, 4 + 12)
    paths = [row["image_path"] for row in rows()]
    assert len(paths) == len(set(paths)) == 16
    assert run(photos.parent).images_scored_now == 0


@pytest.mark.parametrize("keeps_times", [True, False])
def test_a_folder_that_moved_keeps_its_rows_which_know_the_new_place(tmp_path, photos, shards, run, rows, keeps_times):
    run(photos, shards)
    before = rows()
    copy = shutil.copy2 if keeps_times else shutil.copy
    elsewhere = shutil.copytree(tmp_path / "disk", tmp_path / "mounted elsewhere", copy_function=copy)
    if not keeps_times:
        for path in elsewhere.rglob("*.*"):
            os.utime(path, (1, 1))
    shutil.rmtree(tmp_path / "disk")
    summary = run(elsewhere / "photos", elsewhere / "shards")
    assert (summary.images_scored_now, summary.moved, summary.images, summary.deleted) == (0, 4 + 3, 16, 0)
    after = rows()
    assert without_places(after) == without_places(before)
    assert all(row["image_path"].startswith(str(elsewhere)) for row in after)
    [captioned] = [row for row in after if row["caption"] == "of the folder"]
    assert [part["member"] for part in captioned["sidecars"]] == [str(elsewhere / "photos" / "a.txt")]
    again = run(elsewhere / "photos", elsewhere / "shards")
    assert (again.images_scored_now, again.moved, again.redone) == (0, 0, {})


def test_a_renamed_folder_with_changes_is_scored_where_it_changed(photos, run, rows):
    run(photos)
    renamed = photos.rename(photos.parent / "renamed")
    (renamed / "b.jpg").unlink()
    (renamed / "c.png").write_bytes(picture(9, "PNG"))
    (renamed / "e.jpg").write_bytes(picture(10))
    summary = run(renamed)
    assert (summary.images_scored_now, summary.moved, summary.images) == (2, 2, 4)
    assert sorted(
        (os.path.basename(row["image_path"]), row["status"]) for row in rows() if row["status"] == "kept"
    ) == [*(("a.jpg", "kept"), ("c.png", "kept"), ("d.jpg", "kept"), ("e.jpg", "kept"))]


def test_shards_of_one_name_in_two_folders_keep_their_rows_apart(tmp_path, shards, run, rows):
    run(shards)
    (tmp_path / "other").mkdir()
    other = make_tar(tmp_path / "other" / "1.tar", [("x.jpg", picture(3))])
    assert run(other).images_scored_now == 1
    assert len(rows()) == 13
    assert run(shards, other).images_scored_now == 0


def test_another_file_of_the_same_name_size_and_time_is_not_taken_for_one_that_moved(tmp_path, run, rows):
    for number, folder in enumerate(("old", "new")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.jpg").write_bytes(picture(number).ljust(5000, b"\0"))
        make_tar(tmp_path / folder / "0.tar", [("x.jpg", picture(number))])
        for path in (tmp_path / folder).iterdir():
            os.utime(path, (1, 1))  # as programs that make archives do
    run(tmp_path / "old")
    shutil.rmtree(tmp_path / "old")
    summary = run(tmp_path / "new")
    assert (summary.images_scored_now, summary.moved) == (2, 0)
    assert len(rows()) == 4


def test_files_that_were_only_touched_are_not_scored_again_and_changed_ones_are_counted(photos, run, rows):
    run(photos)
    before = rows()
    for path in photos.glob("*.jpg"):
        os.utime(path, (1, 1))
    assert run(photos).images_scored_now == 0
    assert rows() == before
    (photos / "a.jpg").write_bytes(picture(9))
    summary = run(photos)
    assert (summary.images_scored_now, summary.redone) == (1, {"changed": 1})
    assert run(photos).redone == {}


def test_shards_with_another_caption_in_the_same_place_are_read_again(tmp_path, run, rows):
    shard = tmp_path / "new" / "a.tar"
    for folder, caption in (("old", b"one"), ("new", b"two")):
        (tmp_path / folder).mkdir()
        make_tar(tmp_path / folder / "a.tar", [("x.jpg", picture(3)), ("x.txt", caption)])
    run(tmp_path / "old")
    shutil.rmtree(tmp_path / "old")
    os.utime(shard, (1, 1))
    assert run(tmp_path / "new").images_scored_now == 1
    assert "two" in [row["caption"] for row in rows()]


def test_a_higher_limit_of_pixels_redoes_what_failed_for_it_and_nothing_else(tmp_path, photos, run, rows):
    (photos / "big.jpg").write_bytes(encode(Image.new("L", (300, 200), 90), "JPEG"))
    shard = make_tar(tmp_path / "a.tar", [("small.jpg", picture(1)), ("big.jpg", (photos / "big.jpg").read_bytes())])
    first = run(photos, shard, max_pixels=50_000)
    assert (first.failed, first.reasons) == (2, {"too_large": 2})
    assert run(photos, shard, max_pixels=59_999).images_scored_now == 0
    summary = run(photos, shard, max_pixels=60_000)
    assert (summary.images_scored_now, summary.failed) == (2, 0)
    assert summary.redone == {"within a higher limit": 2}
    assert run(photos, shard, max_pixels=50_000, mode=RunMode(retry_failed=True)).images_scored_now == 0

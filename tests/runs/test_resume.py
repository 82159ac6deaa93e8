"""What a second run does again, and what it leaves alone."""

import os
import shutil
import sys

import numpy as np
import pyarrow.parquet as pq
import pytest
from conftest import make_tar
from tiny import make_pictures, make_tiny_shards, picture

from tastemaker.errors import ConfigurationError
from tastemaker.runs.options import Slice
from tastemaker.runs.run import RunMode, RunOptions, run_scoring
from tastemaker.testing import write_random_models

links = pytest.mark.skipif(sys.platform == "win32", reason="links need rights there")


@pytest.fixture
def run(tmp_path, model_dir):
    def call(inputs, mode=None, out="out", **options):
        return run_scoring(inputs, tmp_path / out, RunOptions(**{"model_dir": str(model_dir)} | options), mode)

    return call


@pytest.fixture
def read(tmp_path):
    """Image path below the input -> row."""

    def call(out="out"):
        rows = [
            row for path in sorted((tmp_path / out / "rows").rglob("*")) if path.is_file() for row in read_file(path)
        ]
        return {row["image_path"].rpartition("photos/")[2]: row for row in rows}

    return call


def read_file(path):
    return pq.read_table(path).to_pylist()


@pytest.fixture
def shards(tmp_path):
    return make_tiny_shards(tmp_path / "shards", shards=4)


@pytest.fixture
def photos(tmp_path):
    return make_pictures(tmp_path / "photos", ["a.jpg", "b.jpg", "c.png", "below/d.jpg"])


# -- fingerprints


def test_other_weights_in_the_same_place_are_noticed_and_named(tmp_path, shards, run):
    models = write_random_models(tmp_path / "models")
    run(shards, model_dir=str(models))
    write_random_models(models, seed=1)
    with pytest.raises(ConfigurationError) as error:
        run(shards, model_dir=str(models))
    parts = (
        "clip_sha256 of image_embedding was",
        "aesthetic_score of scores of image_aesthetic_filter was",
        "4 of 4 files",
    )
    for part in (*parts, "--overwrite", "--new-fingerprint-only"):
        assert part in str(error.value)
    assert run(shards, RunMode(overwrite=True), model_dir=str(models)).images_scored_now == 16


def test_a_precision_that_was_chosen_by_itself_is_the_same_as_when_it_is_named(shards, run):
    from tastemaker.models.clip import resolve_precision

    run(shards)
    assert run(shards, precision=resolve_precision("cpu", "auto")).images_scored_now == 0


def test_no_model_is_loaded_before_fingerprints_are_compared(shards, run, monkeypatch):
    run(shards)

    def fail(*_args, **_options):
        raise AssertionError("a model was loaded")

    monkeypatch.setattr("tastemaker.stages.embed.load_clip", fail)
    monkeypatch.setattr("tastemaker.models.aesthetic.AestheticPredictor.from_file", fail)
    assert run(shards).images_scored_now == 0
    with pytest.raises(ConfigurationError, match="apply_exif_rotation of image_reader was"):
        run(shards, exif_rotate=True)


def test_new_fingerprint_only_leaves_other_rows_alone_and_says_that_they_are_mixed(tmp_path, shards, run):
    run([shards / "0.tar", shards / "1.tar"])
    before = {path: path.read_bytes() for path in (tmp_path / "out" / "rows").glob("*.parquet")}
    summary = run(shards, RunMode(new_fingerprint_only=True), preprocess="transformers")
    assert (summary.is_mixed, summary.images_scored_now, summary.images) == (True, 8, 16)
    assert {path: path.read_bytes() for path in before} == before
    with pytest.raises(ConfigurationError, match="2 of 4 files"):
        run(shards, preprocess="transformers")


def test_rows_without_a_fingerprint_are_not_mixed_with(tmp_path, shards, run):
    run(shards)
    path = tmp_path / "out" / "rows" / "0.parquet"
    pq.write_table(pq.read_table(path).replace_schema_metadata({b"tastemaker": b"{}"}), path)
    with pytest.raises(ConfigurationError, match="rows_format was None"):
        run(shards)


def test_a_wrong_note_in_the_index_does_not_count(tmp_path, shards, run):
    run(shards)
    index = tmp_path / "out" / "_tastemaker" / "index.json"
    for nonsense in ("", "[1, 2]", '{"fingerprints": [], "notes": [[1]]}', index.read_text()[:-40]):
        index.write_text(nonsense)
        summary = run(shards)
        assert (summary.images_scored_now, summary.images, summary.failed) == (0, 16, 4)


# -- loose folders


def test_only_added_and_changed_pictures_are_read_and_deleted_ones_are_marked(photos, run, read, monkeypatch):
    from tastemaker.imaging.folders import FolderReader

    run(photos)
    before, seen = read(), []
    shutil.copy(photos / "c.png", photos / "0.jpg")  # first in the order of names
    shutil.copy(photos / "c.png", photos / "a.jpg")
    (photos / "b.jpg").unlink()
    original = FolderReader.read_sample
    monkeypatch.setattr(FolderReader, "read_sample", lambda *a: seen.append(os.path.basename(a[1])) or original(*a))
    summary = run(photos)
    assert sorted(seen) == ["0.jpg", "a.jpg"]
    assert (summary.images_scored_now, summary.images, summary.deleted) == (2, 4, 1)
    after = read()
    assert set(after) == {*before, "0.jpg"}
    assert {path for path in before if after[path] != before[path]} == {"a.jpg", "b.jpg"}
    assert after["b.jpg"] | {"status": "kept", "reason_kind": None, "reason": None} == before["b.jpg"]
    assert (after["b.jpg"]["status"], after["b.jpg"]["reason_kind"]) == ("deleted", "deleted")
    assert after["a.jpg"]["aesthetic_score"] == after["c.png"]["aesthetic_score"]
    assert run(photos).images_scored_now == 0


def test_a_deleted_picture_that_comes_back_has_one_row_again(photos, run, read):
    run(photos)
    before, content = read(), (photos / "b.jpg").read_bytes()
    (photos / "b.jpg").unlink()
    run(photos)
    (photos / "b.jpg").write_bytes(content)
    summary = run(photos)
    assert (summary.images_scored_now, summary.deleted) == (1, 0)
    assert read() == before


def test_rows_of_deleted_pictures_outlive_an_overwrite_without_scores_of_other_models(photos, run, read):
    run(photos)
    (photos / "b.jpg").unlink()
    run(photos, RunMode(overwrite=True), preprocess="transformers")
    row = read()["b.jpg"]
    assert (row["status"], row["aesthetic_score"], row["embedding"]) == ("deleted", None, None)
    assert run(photos, preprocess="transformers").images_scored_now == 0


def test_an_overwrite_of_some_pictures_leaves_the_rows_of_the_others_which_are_scored_when_they_are_asked_for(
    photos, run, read
):
    run(photos)
    assert run(f"{photos}/*.png", RunMode(overwrite=True), preprocess="transformers").images_scored_now == 1
    assert {path: row["aesthetic_score"] is not None for path, row in read().items()} == {
        **dict.fromkeys(["a.jpg", "b.jpg", "below/d.jpg"], False),
        "c.png": True,
    }
    assert run(photos, preprocess="transformers").images_scored_now == 3
    assert all(row["aesthetic_score"] for row in read().values())


def test_an_overwrite_that_was_stopped_after_a_move_leaves_no_row_that_looks_finished(photos, run, read, monkeypatch):
    run(photos)
    (photos.parent / "elsewhere").mkdir()
    moved = photos.rename(photos.parent / "elsewhere" / "photos")
    (moved / "b.jpg").unlink()
    with monkeypatch.context() as patch:
        patch.setattr("tastemaker.stages.embed.load_clip", lambda *_args, **_options: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            run(moved, RunMode(overwrite=True), preprocess="transformers")
    with pytest.raises(ConfigurationError, match="made otherwise"):
        run(moved, preprocess="transformers")
    assert run(moved, RunMode(overwrite=True), preprocess="transformers").images_scored_now == 3
    assert [path for path, row in read().items() if row["aesthetic_score"] is None] == ["b.jpg"]


def test_what_is_no_input_of_this_run_is_not_deleted_and_told_to_be_there(tmp_path, photos, run, read):
    run([f"{photos}/*.png", f"{photos}/*.jpg"])
    run(f"{photos}/*.png")
    assert [row["status"] for row in read().values()] == ["kept"] * 3
    run(photos, out="all")
    copy = shutil.copytree(photos, tmp_path / "copy")
    assert run(copy, out="all").other_rows_files == 1
    assert run(copy, RunMode(part=Slice(0, 2)), out="all").other_rows_files == 0


@links
def test_a_link_has_a_row_while_it_leads_nowhere_and_keeps_its_score_when_the_picture_is_gone(
    tmp_path, photos, run, read
):
    (photos / "link.jpg").symlink_to(tmp_path / "later.jpg")
    assert run(photos).failed == 1
    assert read()["link.jpg"]["reason"] == "unreadable: link.jpg cannot be read: No such file or directory"
    assert run(photos).images_scored_now == 0
    shutil.copy(photos / "c.png", tmp_path / "later.jpg")
    assert run(photos).images_scored_now == 1
    score = read()["link.jpg"]["aesthetic_score"]
    (tmp_path / "later.jpg").unlink()
    assert run(photos).deleted == 1
    row = read()["link.jpg"]
    assert (row["status"], row["aesthetic_score"]) == ("deleted", score)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
def test_a_folder_that_cannot_be_read_has_a_row_and_costs_no_score(photos, run, read):
    run(photos)
    before = read()
    (photos / "below").chmod(0)
    summary = run(photos)
    assert (summary.failed, summary.deleted) == (1, 0)
    assert read()["below"]["reason"] == "unreadable: below cannot be read: Permission denied"
    assert {path: read()[path] for path in before} == before
    (photos / "below").chmod(0o700)
    summary = run(photos)
    assert (summary.failed, summary.images, read()["below"]["status"]) == (0, len(before), "deleted")


def test_rows_below_a_folder_of_embeddings_are_no_input_of_the_next_run(tmp_path, run):
    np.save(tmp_path / "a.npy", np.eye(3, 768, dtype=np.float32))
    for _ in range(2):
        assert run(tmp_path, copy_embeddings=True).images == 3


def test_two_folders_of_one_name_keep_their_rows_apart_in_later_runs(tmp_path, photos, run):
    other = shutil.copytree(photos, tmp_path / "other" / "photos")
    run(photos)
    assert run(other).images_scored_now == 4
    files = sorted(path.name for path in (tmp_path / "out" / "rows").iterdir())
    assert files == ["photos-00000.parquet", "photos-2-00000.parquet"]
    both = run([other, photos])
    assert (both.images_scored_now, both.images) == (0, 8)


def test_a_shard_and_loose_pictures_never_share_a_rows_file(photos, run, read):
    run(photos)
    shard = make_tar(photos / "photos-00000.tar", [("in_a_tar.jpg", picture(9))])
    for inputs in ([photos], [photos], [shard], [*photos.glob("*.png")]):
        summary = run(inputs)
        assert len(read()) == 5
    assert summary.images_scored_now == 0


# -- failed images again


def break_decoding(monkeypatch, *keys):
    """Let pictures with these names fail, as they do where memory is short."""
    from tastemaker.errors import UnreadableImageError
    from tastemaker.tasks import ImageObject

    decode = ImageObject.decode

    def fail(image):
        if image.image_id.rpartition("/")[2] in keys:
            raise UnreadableImageError("out of luck")
        return decode(image)

    monkeypatch.setattr(ImageObject, "decode", fail)


def test_failed_images_of_shards_are_read_by_their_byte_ranges_and_no_others(tmp_path, run, read, monkeypatch):
    from tastemaker.storage.local import LocalRanges

    shards = make_tiny_shards(tmp_path / "shards", shards=4, captions=False)
    (shards / "more").mkdir()
    (shards / "3.tar").rename(shards / "more" / "3.tar")
    run(shards, out="whole")
    with monkeypatch.context() as patch:
        break_decoding(patch, "11", "30", "32")
        assert run(shards).failed == 7
    assert run(shards).images_scored_now == 0  # not asked for
    reads = []
    read_at = LocalRanges.read_at
    monkeypatch.setattr(LocalRanges, "read_at", lambda r, at, size: reads.append(size) or read_at(r, at, size))
    summary = run(shards, RunMode(retry_failed=True))
    assert (summary.images_scored_now, summary.failed) == (7, 4)  # the three, and the four that are damaged
    wanted = [row for row in read("whole").values() if row["image_id"] in ("11", "30", "32") or row["reason"]]
    assert sum(reads) <= sum(row["size"] for row in wanted) + 80  # and two bytes to see what a file is
    assert read() == read("whole")


def test_failed_loose_images_are_run_again_in_place(photos, run, read, monkeypatch):
    run(photos, out="whole")
    with monkeypatch.context() as patch:
        break_decoding(patch, "b")
        assert run(photos).failed == 1
    summary = run(photos, RunMode(retry_failed=True))
    assert (summary.images_scored_now, summary.failed) == (1, 0)
    assert read() == read("whole")


def test_what_is_wrong_with_the_shard_itself_is_not_run_again(tmp_path, run, read):
    good = picture(0)
    members = [("good.jpg", good), ("../climbs.jpg", good), ("good.jpg", good), ("only.txt", b"text")]
    shard = make_tar(tmp_path / "nasty.tar", members)
    run(shard)
    before = read()
    summary = run(shard, RunMode(retry_failed=True))
    assert (summary.images_scored_now, summary.not_retried, summary.failed) == (0, 3, 3)
    assert read() == before


def test_a_shard_that_failed_as_a_whole_is_done_again_as_a_whole(tmp_path, shards, run):
    cut = shards / "1.tar"
    cut.write_bytes(cut.read_bytes()[:900])
    run(shards)
    summary = run(shards, RunMode(retry_failed=True))
    rows = read_file(tmp_path / "out" / "rows" / "1.parquet")
    assert [row["reason_kind"] for row in rows] == ["damaged_shard"] * 2
    assert summary.images_scored_now == len(rows) + 3  # and one bad picture in each of the others

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


@pytest.fixture
def options(model_dir):
    return RunOptions(model_dir=str(model_dir))


@pytest.fixture
def shards(tmp_path):
    return make_tiny_shards(tmp_path / "shards", shards=4)


@pytest.fixture
def photos(tmp_path):
    return make_pictures(tmp_path / "photos", ["a.jpg", "b.jpg", "c.png", "below/d.jpg"])


def read_rows(output):
    """Return image path below the input -> row, of all rows files but those under way."""
    files = sorted(path for path in output.rglob("*.parquet") if "rows" in path.parts)
    return {
        row["image_path"].rpartition("photos/")[2]: row for path in files for row in pq.read_table(path).to_pylist()
    }


def statuses(output):
    return {path: row["status"] for path, row in read_rows(output).items()}


# -- fingerprints


def test_other_weights_in_the_same_place_are_noticed_and_named(tmp_path, shards):
    models = write_random_models(tmp_path / "models")
    options = RunOptions(model_dir=str(models))
    run_scoring([str(shards)], tmp_path / "out", options)
    write_random_models(models, seed=1)
    with pytest.raises(ConfigurationError) as error:
        run_scoring([str(shards)], tmp_path / "out", options)
    for part in (
        "clip_sha256 of image_embedding was",
        "predictor of image_aesthetic_filter was",
        "4 of 4 files",
        "--overwrite",
        "--new-fingerprint-only",
    ):
        assert part in str(error.value)
    assert run_scoring([str(shards)], tmp_path / "out", options, RunMode(overwrite=True)).images_scored_now == 16


def test_another_predictor_of_the_same_name_is_noticed(tmp_path, shards, model_dir):
    own = tmp_path / "own.safetensors"
    sources = [write_random_models(tmp_path / f"models{seed}", seed=seed) for seed in (0, 1)]
    weights = [next((source / "ttj").rglob("*.safetensors")) for source in sources]
    options = RunOptions(model_dir=str(model_dir), predictor=str(own))
    shutil.copy(weights[0], own)
    run_scoring([str(shards)], tmp_path / "out", options)
    shutil.copy(weights[1], own)
    with pytest.raises(ConfigurationError, match=r"predictor of \w+ was \w{12}\.\.\. and is \w{12}\.\.\.[^;]*\. Say"):
        run_scoring([str(shards)], tmp_path / "out", options)


def test_a_precision_that_was_chosen_by_itself_is_the_same_as_when_it_is_named(tmp_path, shards, model_dir):
    from tastemaker.models.clip import resolve_precision

    named = RunOptions(model_dir=str(model_dir), precision=resolve_precision("cpu", "auto"))
    run_scoring([str(shards)], tmp_path / "out", RunOptions(model_dir=str(model_dir)))
    assert run_scoring([str(shards)], tmp_path / "out", named).images_scored_now == 0


def test_no_model_is_loaded_before_fingerprints_are_compared(tmp_path, shards, options, monkeypatch):
    run_scoring([str(shards)], tmp_path / "out", options)

    def fail(*_args, **_options):
        raise AssertionError("a model was loaded")

    monkeypatch.setattr("tastemaker.stages.embed.load_clip", fail)
    monkeypatch.setattr("tastemaker.models.aesthetic.AestheticPredictor.from_file", fail)
    assert run_scoring([str(shards)], tmp_path / "out", options).images_scored_now == 0
    with pytest.raises(ConfigurationError, match="max_pixels of image_reader was"):
        run_scoring([str(shards)], tmp_path / "out", RunOptions(model_dir=options.model_dir, max_pixels=10))


def test_new_fingerprint_only_leaves_other_rows_alone_and_says_that_they_are_mixed(tmp_path, shards, options):
    run_scoring([str(shards / "0.tar"), str(shards / "1.tar")], tmp_path / "out", options)
    before = {path.name: path.read_bytes() for path in (tmp_path / "out" / "rows").glob("*.parquet")}
    other = RunOptions(model_dir=options.model_dir, preprocess="transformers")
    summary = run_scoring([str(shards)], tmp_path / "out", other, RunMode(new_fingerprint_only=True))
    assert (summary.is_mixed, summary.images_scored_now, summary.images) == (True, 8, 16)
    assert {name: (tmp_path / "out" / "rows" / name).read_bytes() for name in before} == before
    with pytest.raises(ConfigurationError, match="2 of 4 files"):
        run_scoring([str(shards)], tmp_path / "out", other)


def test_rows_without_a_fingerprint_are_not_mixed_with(tmp_path, shards, options):
    run_scoring([str(shards)], tmp_path / "out", options)
    path = tmp_path / "out" / "rows" / "0.parquet"
    pq.write_table(pq.read_table(path).replace_schema_metadata({b"tastemaker": b"{}"}), path)
    with pytest.raises(ConfigurationError, match="rows_format was None"):
        run_scoring([str(shards)], tmp_path / "out", options)


def test_a_wrong_note_in_the_index_does_not_count(tmp_path, shards, options):
    run_scoring([str(shards)], tmp_path / "out", options)
    index = tmp_path / "out" / "_tastemaker" / "index.jsonl"
    for nonsense in ("", "[1, 2, 3]\n{}\nnull\n", index.read_text()[:-40]):
        index.write_text(nonsense)
        summary = run_scoring([str(shards)], tmp_path / "out", options)
        assert (summary.images_scored_now, summary.images, summary.failed) == (0, 16, 4)


# -- loose folders


def test_only_added_and_changed_pictures_are_read_and_deleted_ones_are_marked(tmp_path, photos, options, monkeypatch):
    from tastemaker.imaging.folders import FolderReader

    run_scoring([str(photos)], tmp_path / "out", options)
    before = read_rows(tmp_path / "out")
    shutil.copy(photos / "c.png", photos / "a-new-one.jpg")  # first in the order of names
    shutil.copy(photos / "c.png", photos / "a.jpg")
    (photos / "b.jpg").unlink()
    read = []
    original = FolderReader.read_sample
    monkeypatch.setattr(FolderReader, "read_sample", lambda *a: read.append(os.path.basename(a[1])) or original(*a))
    summary = run_scoring([str(photos)], tmp_path / "out", options)
    assert sorted(read) == ["a-new-one.jpg", "a.jpg"]
    assert (summary.images_scored_now, summary.images, summary.deleted) == (2, 4, 1)
    after = read_rows(tmp_path / "out")
    assert set(after) == {*before, "a-new-one.jpg"}
    assert {path for path in before if after[path] != before[path]} == {"a.jpg", "b.jpg"}
    assert after["b.jpg"] | {"status": "kept", "reason_kind": None, "reason": None} == before["b.jpg"]
    assert (after["b.jpg"]["status"], after["b.jpg"]["reason_kind"]) == ("deleted", "deleted")
    assert after["a.jpg"]["aesthetic_score"] == after["c.png"]["aesthetic_score"]
    assert run_scoring([str(photos)], tmp_path / "out", options).images_scored_now == 0


def test_a_deleted_picture_that_comes_back_has_one_row_again(tmp_path, photos, options):
    run_scoring([str(photos)], tmp_path / "out", options)
    before = read_rows(tmp_path / "out")
    content = (photos / "b.jpg").read_bytes()
    (photos / "b.jpg").unlink()
    run_scoring([str(photos)], tmp_path / "out", options)
    (photos / "b.jpg").write_bytes(content)
    summary = run_scoring([str(photos)], tmp_path / "out", options)
    assert (summary.images_scored_now, summary.deleted) == (1, 0)
    assert read_rows(tmp_path / "out") == before


def test_a_picture_that_is_no_input_of_this_run_is_not_deleted(tmp_path, photos, options):
    run_scoring([str(photos / "*.png"), str(photos / "*.jpg")], tmp_path / "out", options)
    run_scoring([str(photos / "*.png")], tmp_path / "out", options)
    assert set(statuses(tmp_path / "out").values()) == {"kept"}
    assert len(read_rows(tmp_path / "out")) == 3


def test_rows_of_a_folder_that_was_renamed_are_told_to_be_there(tmp_path, photos, options):
    assert run_scoring([str(photos)], tmp_path / "out", options).other_rows_files == 0
    renamed = photos.rename(tmp_path / "renamed")
    assert run_scoring([str(renamed)], tmp_path / "out", options).other_rows_files == 1
    part = RunMode(part=Slice(0, 2))
    assert run_scoring([str(renamed)], tmp_path / "out", options, part).other_rows_files == 0


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights there")
def test_a_link_that_leads_nowhere_has_a_row_until_it_leads_somewhere(tmp_path, photos, options):
    (photos / "link.jpg").symlink_to(tmp_path / "later.jpg")
    assert run_scoring([str(photos)], tmp_path / "out", options).failed == 1
    reason = "unreadable: link.jpg cannot be read: No such file or directory"
    assert read_rows(tmp_path / "out")["link.jpg"]["reason"] == reason
    assert run_scoring([str(photos)], tmp_path / "out", options).images_scored_now == 0
    shutil.copy(photos / "c.png", tmp_path / "later.jpg")
    assert run_scoring([str(photos)], tmp_path / "out", options).images_scored_now == 1
    assert statuses(tmp_path / "out")["link.jpg"] == "kept"


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights there")
def test_a_link_to_a_picture_that_is_gone_keeps_its_score_as_deleted(tmp_path, photos, options):
    shutil.copy(photos / "c.png", tmp_path / "elsewhere.jpg")
    (photos / "link.jpg").symlink_to(tmp_path / "elsewhere.jpg")
    run_scoring([str(photos)], tmp_path / "out", options)
    score = read_rows(tmp_path / "out")["link.jpg"]["aesthetic_score"]
    (tmp_path / "elsewhere.jpg").unlink()
    assert run_scoring([str(photos)], tmp_path / "out", options).deleted == 1
    row = read_rows(tmp_path / "out")["link.jpg"]
    assert (row["status"], row["aesthetic_score"]) == ("deleted", score)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
def test_a_folder_that_cannot_be_read_has_a_row_and_costs_no_score(tmp_path, photos, options):
    (photos / "sub").mkdir()
    shutil.move(photos / "c.png", photos / "sub" / "c.png")
    run_scoring([str(photos)], tmp_path / "out", options)
    before = statuses(tmp_path / "out")
    (photos / "sub").chmod(0)
    summary = run_scoring([str(photos)], tmp_path / "out", options)
    assert (summary.failed, summary.deleted) == (1, 0)
    after = read_rows(tmp_path / "out")
    assert after["sub"]["reason"] == "unreadable: sub cannot be read: Permission denied"
    assert {path: after[path]["status"] for path in before} == before
    (photos / "sub").chmod(0o700)
    summary = run_scoring([str(photos)], tmp_path / "out", options)
    assert (summary.failed, summary.images, statuses(tmp_path / "out")["sub"]) == (0, len(before), "deleted")


def test_rows_below_a_folder_of_embeddings_are_no_input_of_the_next_run(tmp_path, model_dir):
    np.save(tmp_path / "a.npy", np.eye(3, 768, dtype=np.float32))
    options = RunOptions(model_dir=str(model_dir), copy_embeddings=True)
    for _ in range(2):
        assert run_scoring(str(tmp_path), tmp_path / "scores", options).images == 3


def test_two_folders_of_one_name_keep_their_rows_apart_in_later_runs(tmp_path, photos, options):
    other = tmp_path / "other" / "photos"
    shutil.copytree(photos, other)
    run_scoring([str(photos)], tmp_path / "out", options)
    summary = run_scoring([str(other)], tmp_path / "out", options)
    assert summary.images_scored_now == 4
    assert sorted(path.name for path in (tmp_path / "out" / "rows").glob("*.parquet")) == [
        "photos-00000.parquet",
        "photos-2-00000.parquet",
    ]
    both = run_scoring([str(other), str(photos)], tmp_path / "out", options)
    assert (both.images_scored_now, both.images) == (0, 8)


def test_a_shard_and_loose_pictures_never_share_a_rows_file(tmp_path, photos, options):
    out = tmp_path / "out"
    run_scoring([str(photos)], out, options)
    shard = make_tar(photos / "photos-00000.tar", [("in_a_tar.jpg", picture(9))])
    for inputs in ([photos], [photos], [shard], [*photos.glob("*.png")]):
        summary = run_scoring([str(path) for path in inputs], out, options)
        rows = [
            row["image_path"] for path in (out / "rows").glob("*.parquet") for row in pq.read_table(path).to_pylist()
        ]
        assert len(rows) == len(set(rows)) == 5
    assert summary.images_scored_now == 0


def test_the_same_folder_spelled_otherwise_is_scored_again_in_place(tmp_path, photos, options, monkeypatch):
    run_scoring([str(photos)], tmp_path / "out", options)
    monkeypatch.chdir(tmp_path)
    assert run_scoring(["photos"], tmp_path / "out", options).images_scored_now == 4
    assert [path.name for path in (tmp_path / "out" / "rows").glob("*.parquet")] == ["photos-00000.parquet"]


def test_a_separator_behind_the_folder_makes_no_other_folder(tmp_path, photos, options):
    run_scoring([f"{photos}{os.sep}"], tmp_path / "out", options)
    before = read_rows(tmp_path / "out")
    assert run_scoring([str(photos)], tmp_path / "out", options).images_scored_now == 0
    assert run_scoring([f"{photos}{os.sep}"], tmp_path / "out", options).images_scored_now == 0
    assert read_rows(tmp_path / "out") == before


def test_rows_of_deleted_pictures_outlive_an_overwrite_without_scores_of_other_models(tmp_path, photos, options):
    run_scoring([str(photos)], tmp_path / "out", options)
    (photos / "b.jpg").unlink()
    other = RunOptions(model_dir=options.model_dir, preprocess="transformers")
    run_scoring([str(photos)], tmp_path / "out", other, RunMode(overwrite=True))
    row = read_rows(tmp_path / "out")["b.jpg"]
    assert (row["status"], row["aesthetic_score"], row["embedding"]) == ("deleted", None, None)
    assert run_scoring([str(photos)], tmp_path / "out", other).images_scored_now == 0


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


def test_failed_images_of_shards_are_read_by_their_byte_ranges_and_no_others(tmp_path, options, monkeypatch):
    from tastemaker.imaging.readers import PlainReader

    shards = make_tiny_shards(tmp_path / "shards", shards=4, captions=False)
    (shards / "more").mkdir()
    (shards / "3.tar").rename(shards / "more" / "3.tar")
    run_scoring(shards, tmp_path / "whole", options)
    with monkeypatch.context() as patch:
        break_decoding(patch, "11", "30", "32")
        assert run_scoring(shards, tmp_path / "out", options).failed == 7
    assert run_scoring(shards, tmp_path / "out", options).images_scored_now == 0  # not asked for
    reads = []
    read_at = PlainReader.read_at
    monkeypatch.setattr(PlainReader, "read_at", lambda r, at, size: reads.append(size) or read_at(r, at, size))
    summary = run_scoring(shards, tmp_path / "out", options, RunMode(retry_failed=True))
    assert (summary.images_scored_now, summary.failed) == (7, 4)  # the three, and the four that are damaged
    wanted = [r for r in read_rows(tmp_path / "whole").values() if r["image_id"] in ("11", "30", "32") or r["reason"]]
    assert sum(reads) <= sum(row["size"] for row in wanted) + 80  # and two bytes to see what a file is
    assert read_rows(tmp_path / "out") == read_rows(tmp_path / "whole")
    assert not [path for path in (tmp_path / "out" / "_tastemaker").iterdir() if path.is_dir()]


def test_failed_loose_images_are_run_again_in_place(tmp_path, photos, options, monkeypatch):
    run_scoring(photos, tmp_path / "whole", options)
    with monkeypatch.context() as patch:
        break_decoding(patch, "b")
        run_scoring(photos, tmp_path / "out", options)
    assert statuses(tmp_path / "out")["b.jpg"] == "failed"
    summary = run_scoring(photos, tmp_path / "out", options, RunMode(retry_failed=True))
    assert (summary.images_scored_now, summary.failed) == (1, 0)
    assert read_rows(tmp_path / "out") == read_rows(tmp_path / "whole")


def test_what_is_wrong_with_the_shard_itself_is_not_run_again(tmp_path, model_dir):
    good = picture(0)
    members = [("good.jpg", good), ("../climbs.jpg", good), ("good.jpg", good), ("only.txt", b"text")]
    shard = make_tar(tmp_path / "nasty.tar", members)
    options = RunOptions(model_dir=str(model_dir))
    run_scoring([str(shard)], tmp_path / "out", options)
    before = pq.read_table(tmp_path / "out" / "rows" / "nasty.parquet").to_pylist()
    summary = run_scoring([str(shard)], tmp_path / "out", options, RunMode(retry_failed=True))
    assert (summary.images_scored_now, summary.not_retried, summary.failed) == (0, 3, 3)
    assert pq.read_table(tmp_path / "out" / "rows" / "nasty.parquet").to_pylist() == before


def test_a_shard_that_failed_as_a_whole_is_done_again_as_a_whole(tmp_path, shards, options):
    cut = shards / "1.tar"
    cut.write_bytes(cut.read_bytes()[:900])
    run_scoring([str(shards)], tmp_path / "out", options)
    summary = run_scoring([str(shards)], tmp_path / "out", options, RunMode(retry_failed=True))
    rows = pq.read_table(tmp_path / "out" / "rows" / "1.parquet").to_pylist()
    assert [row["reason_kind"] for row in rows] == ["damaged_shard"] * 2
    assert summary.images_scored_now == len(rows) + 3  # and one bad picture in each of the others

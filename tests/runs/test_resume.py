"""What a second run does again, and what it leaves alone."""

import os
import shutil
import sys
import tarfile

import numpy as np
import pyarrow.parquet as pq
import pytest
from conftest import make_shards, make_tar

from tastemaker.errors import ConfigurationError
from tastemaker.runs import resume
from tastemaker.runs.options import Slice
from tastemaker.runs.run import RunMode, RunOptions, run_scoring
from tastemaker.scores.cutoff import Top
from tastemaker.scores.files import TEMPORARY_PREFIX
from tastemaker.testing import write_random_models


@pytest.fixture
def options(model_dir):
    return RunOptions(model_dir=str(model_dir))


@pytest.fixture
def shards(tmp_path, photographs):
    files = [*photographs.items(), ("bad.jpg", b"no image")]
    return make_shards(tmp_path / "shards", ([(f"{n}{name}", data) for name, data in files] for n in range(4)))


def read_rows(output):
    """Return image path below the input -> row, of all rows files but those under way."""
    files = sorted(path for path in output.rglob("*.parquet") if "_tastemaker" not in path.parts)
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
        "clip_sha256 was",
        "predictor_sha256 was",
        "4 of 4 rows files",
        "--overwrite",
        "--new-fingerprint-only",
    ):
        assert part in str(error.value)
    assert run_scoring([str(shards)], tmp_path / "out", options, RunMode(overwrite=True)).images_scored_now == 28


def test_another_predictor_of_the_same_name_is_noticed(tmp_path, shards, model_dir):
    own = tmp_path / "own.safetensors"
    sources = [write_random_models(tmp_path / f"models{seed}", seed=seed) for seed in (0, 1)]
    weights = [next((source / "ttj").rglob("*.safetensors")) for source in sources]
    options = RunOptions(model_dir=str(model_dir), predictor=str(own))
    shutil.copy(weights[0], own)
    run_scoring([str(shards)], tmp_path / "out", options)
    shutil.copy(weights[1], own)
    with pytest.raises(ConfigurationError, match=r"predictor_sha256 was \w{12}\.\.\. and is \w{12}\.\.\.[^;]*\. Say"):
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
    with pytest.raises(ConfigurationError, match="max_pixels was"):
        run_scoring([str(shards)], tmp_path / "out", RunOptions(model_dir=options.model_dir, max_pixels=10))


def test_new_fingerprint_only_leaves_other_rows_alone_and_says_that_they_are_mixed(tmp_path, shards, options):
    run_scoring([str(shards / "0.tar"), str(shards / "1.tar")], tmp_path / "out", options)
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").glob("*.parquet")}
    other = RunOptions(model_dir=options.model_dir, preprocess="transformers")
    summary = run_scoring([str(shards)], tmp_path / "out", other, RunMode(new_fingerprint_only=True))
    assert (summary.is_mixed, summary.images_scored_now, summary.images) == (True, 14, 28)
    assert {name: (tmp_path / "out" / name).read_bytes() for name in before} == before
    with pytest.raises(ConfigurationError, match="2 of 4 rows files"):
        run_scoring([str(shards)], tmp_path / "out", other)


def test_rows_without_a_fingerprint_are_not_mixed_with(tmp_path, shards, options):
    run_scoring([str(shards)], tmp_path / "out", options)
    path = tmp_path / "out" / "0.parquet"
    pq.write_table(pq.read_table(path).replace_schema_metadata({b"tastemaker": b"{}"}), path)
    with pytest.raises(ConfigurationError, match="another version of Tastemaker"):
        run_scoring([str(shards)], tmp_path / "out", options)


def test_a_broken_rows_file_is_made_again(tmp_path, shards, options):
    run_scoring([str(shards)], tmp_path / "out", options)
    (tmp_path / "out" / "2.parquet").write_bytes(b"PAR1 and no more")
    assert run_scoring([str(shards)], tmp_path / "out", options).images_scored_now == 7
    assert len(read_rows(tmp_path / "out")) == 28


def test_a_wrong_note_in_the_index_does_not_count(tmp_path, shards, options):
    run_scoring([str(shards)], tmp_path / "out", options)
    index = tmp_path / "out" / "_tastemaker" / "index.jsonl"
    for nonsense in ("", "[1, 2, 3]\n{}\nnull\n", index.read_text()[:-40]):
        index.write_text(nonsense)
        summary = run_scoring([str(shards)], tmp_path / "out", options)
        assert (summary.images_scored_now, summary.images, summary.failed) == (0, 28, 4)


# -- loose folders


def test_only_added_and_changed_pictures_are_read_and_deleted_ones_are_marked(
    tmp_path, photo_folder, options, monkeypatch
):
    from tastemaker.imaging.folders import FolderReader

    run_scoring([str(photo_folder)], tmp_path / "out", options)
    before = read_rows(tmp_path / "out")
    shutil.copy(photo_folder / "rocket.jpg", photo_folder / "a-new-one.jpg")  # first in the order of names
    shutil.copy(photo_folder / "rocket.jpg", photo_folder / "chelsea.png")
    (photo_folder / "coffee.png").unlink()
    read = []
    original = FolderReader.read_sample
    monkeypatch.setattr(FolderReader, "read_sample", lambda *a: read.append(os.path.basename(a[1])) or original(*a))
    summary = run_scoring([str(photo_folder)], tmp_path / "out", options)
    assert sorted(read) == ["a-new-one.jpg", "chelsea.png"]
    assert (summary.images_scored_now, summary.images, summary.deleted) == (2, 7, 1)
    after = read_rows(tmp_path / "out")
    assert set(after) == {*before, "a-new-one.jpg"}
    assert {path for path in before if after[path] != before[path]} == {"chelsea.png", "coffee.png"}
    assert after["coffee.png"] | {"kept": True, "status": "kept", "reason": None} == before["coffee.png"]
    assert (after["coffee.png"]["status"], after["coffee.png"]["kept"]) == ("deleted", False)
    assert after["chelsea.png"]["aesthetic_score"] == after["rocket.jpg"]["aesthetic_score"]
    assert run_scoring([str(photo_folder)], tmp_path / "out", options).images_scored_now == 0


def test_a_deleted_picture_that_comes_back_has_one_row_again(tmp_path, photo_folder, options):
    run_scoring([str(photo_folder)], tmp_path / "out", options)
    before = read_rows(tmp_path / "out")
    content = (photo_folder / "coffee.png").read_bytes()
    (photo_folder / "coffee.png").unlink()
    run_scoring([str(photo_folder)], tmp_path / "out", options)
    (photo_folder / "coffee.png").write_bytes(content)
    summary = run_scoring([str(photo_folder)], tmp_path / "out", options)
    assert (summary.images_scored_now, summary.deleted) == (1, 0)
    assert read_rows(tmp_path / "out") == before


def test_a_picture_that_is_no_input_of_this_run_is_not_deleted(tmp_path, photo_folder, options):
    run_scoring([str(photo_folder / "*.png"), str(photo_folder / "*.jpg")], tmp_path / "out", options)
    run_scoring([str(photo_folder / "*.png")], tmp_path / "out", options)
    assert set(statuses(tmp_path / "out").values()) == {"kept"}
    assert len(read_rows(tmp_path / "out")) == 6


def test_rows_of_a_folder_that_was_renamed_are_told_to_be_there(tmp_path, photo_folder, options):
    assert run_scoring([str(photo_folder)], tmp_path / "out", options).other_rows_files == 0
    renamed = photo_folder.rename(tmp_path / "renamed")
    assert run_scoring([str(renamed)], tmp_path / "out", options).other_rows_files == 1
    part = RunMode(part=Slice(0, 2))
    assert run_scoring([str(renamed)], tmp_path / "out", options, part).other_rows_files == 0


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights there")
def test_a_link_that_leads_nowhere_has_a_row_until_it_leads_somewhere(tmp_path, photo_folder, options):
    (photo_folder / "link.jpg").symlink_to(tmp_path / "later.jpg")
    assert run_scoring([str(photo_folder)], tmp_path / "out", options).failed == 1
    reason = "unreadable: link.jpg cannot be read: No such file or directory"
    assert read_rows(tmp_path / "out")["link.jpg"]["reason"] == reason
    assert run_scoring([str(photo_folder)], tmp_path / "out", options).images_scored_now == 0
    shutil.copy(photo_folder / "rocket.jpg", tmp_path / "later.jpg")
    assert run_scoring([str(photo_folder)], tmp_path / "out", options).images_scored_now == 1
    assert statuses(tmp_path / "out")["link.jpg"] == "kept"


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights there")
def test_a_link_to_a_picture_that_is_gone_keeps_its_score_as_deleted(tmp_path, photo_folder, options):
    shutil.copy(photo_folder / "rocket.jpg", tmp_path / "elsewhere.jpg")
    (photo_folder / "link.jpg").symlink_to(tmp_path / "elsewhere.jpg")
    run_scoring([str(photo_folder)], tmp_path / "out", options)
    score = read_rows(tmp_path / "out")["link.jpg"]["aesthetic_score"]
    (tmp_path / "elsewhere.jpg").unlink()
    assert run_scoring([str(photo_folder)], tmp_path / "out", options).deleted == 1
    row = read_rows(tmp_path / "out")["link.jpg"]
    assert (row["status"], row["aesthetic_score"]) == ("deleted", score)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
def test_a_folder_that_cannot_be_read_has_a_row_and_costs_no_score(tmp_path, photo_folder, options):
    (photo_folder / "sub").mkdir()
    shutil.move(photo_folder / "rocket.jpg", photo_folder / "sub" / "rocket.jpg")
    run_scoring([str(photo_folder)], tmp_path / "out", options)
    before = statuses(tmp_path / "out")
    (photo_folder / "sub").chmod(0)
    summary = run_scoring([str(photo_folder)], tmp_path / "out", options)
    assert (summary.failed, summary.deleted) == (1, 0)
    after = read_rows(tmp_path / "out")
    assert after["sub"]["reason"] == "unreadable: sub cannot be read: Permission denied"
    assert {path: after[path]["status"] for path in before} == before
    (photo_folder / "sub").chmod(0o700)
    summary = run_scoring([str(photo_folder)], tmp_path / "out", options)
    assert (summary.failed, summary.images, statuses(tmp_path / "out")["sub"]) == (0, len(before), "deleted")


@pytest.mark.parametrize("originals", ["folder", "shards"])
def test_results_below_the_input_folder_are_no_input_of_the_next_run(photo_folder, model_dir, originals):
    options = RunOptions(model_dir=str(model_dir), top=Top(share=0.5), originals=originals)
    first = run_scoring(str(photo_folder), photo_folder / "best", options)
    again = run_scoring(str(photo_folder), photo_folder / "best", options)
    assert (again.images, again.kept, again.images_scored_now) == (first.images, first.kept, 0)
    (photo_folder / "link").symlink_to("best")
    assert run_scoring(str(photo_folder), photo_folder / "link", options).images == first.images


def test_rows_below_a_folder_of_embeddings_are_no_input_of_the_next_run(tmp_path, model_dir):
    np.save(tmp_path / "a.npy", np.eye(3, 768, dtype=np.float32))
    options = RunOptions(model_dir=str(model_dir), copy_embeddings=True)
    for _ in range(2):
        assert run_scoring(str(tmp_path), tmp_path / "scores", options).images == 3


def test_two_folders_of_one_name_keep_their_rows_apart_in_later_runs(tmp_path, photo_folder, options):
    other = tmp_path / "other" / "photos"
    shutil.copytree(photo_folder, other)
    run_scoring([str(photo_folder)], tmp_path / "out", options)
    summary = run_scoring([str(other)], tmp_path / "out", options)
    assert summary.images_scored_now == 7
    assert sorted(path.name for path in (tmp_path / "out").glob("*.parquet")) == [
        "photos-00000.parquet",
        "photos-2-00000.parquet",
    ]
    both = run_scoring([str(other), str(photo_folder)], tmp_path / "out", options)
    assert (both.images_scored_now, both.images) == (0, 14)


def test_a_shard_and_loose_pictures_never_share_a_rows_file(tmp_path, photo_folder, photographs, options):
    out = tmp_path / "out"
    run_scoring([str(photo_folder)], out, options)
    shard = make_tar(photo_folder / "photos-00000.tar", [("in_a_tar.jpg", photographs["rocket.jpg"])])
    for inputs in ([photo_folder], [photo_folder], [shard], [*photo_folder.glob("*.png")]):
        summary = run_scoring([str(path) for path in inputs], out, options)
        rows = [row["image_path"] for path in out.glob("*.parquet") for row in pq.read_table(path).to_pylist()]
        assert len(rows) == len(set(rows)) == 8
    assert summary.images_scored_now == 0


def test_the_same_folder_spelled_otherwise_is_scored_again_in_place(tmp_path, photo_folder, options, monkeypatch):
    run_scoring([str(photo_folder)], tmp_path / "out", options)
    monkeypatch.chdir(tmp_path)
    assert run_scoring(["photos"], tmp_path / "out", options).images_scored_now == 7
    assert [path.name for path in (tmp_path / "out").glob("*.parquet")] == ["photos-00000.parquet"]


def test_a_separator_behind_the_folder_makes_no_other_folder(tmp_path, photo_folder, options):
    run_scoring([f"{photo_folder}{os.sep}"], tmp_path / "out", options)
    before = read_rows(tmp_path / "out")
    assert run_scoring([str(photo_folder)], tmp_path / "out", options).images_scored_now == 0
    assert run_scoring([f"{photo_folder}{os.sep}"], tmp_path / "out", options).images_scored_now == 0
    assert read_rows(tmp_path / "out") == before


def test_a_filter_follows_the_folder(tmp_path, photo_folder, model_dir):
    options = RunOptions(model_dir=str(model_dir), min_score=0.0, originals="folder")
    run_scoring([str(photo_folder)], tmp_path / "out", options)
    kept = tmp_path / "out" / "kept" / "photos"
    content = (photo_folder / "coffee.png").read_bytes()
    (photo_folder / "coffee.png").unlink()
    (photo_folder / "chelsea.png").write_bytes(b"no image any more")
    run_scoring([str(photo_folder)], tmp_path / "out", options)
    assert not (kept / "coffee.png").exists()
    assert not (kept / "coffee.txt").exists()
    assert not (kept / "chelsea.png").exists()
    assert (tmp_path / "out" / "deleted" / "photos" / "coffee.png").read_bytes() == content  # out of the kept, not lost
    assert (tmp_path / "out" / "deleted" / "photos" / "coffee.txt").read_text() == "a cup of coffee"
    assert statuses(tmp_path / "out")["chelsea.png"] == "failed"
    left = {path.relative_to(kept).as_posix() for path in kept.rglob("*.*")}
    assert left == {"astronaut.png", "below/again.png", "hubble_deep_field.jpg", "motorcycle_left.png", "rocket.jpg"}


def test_tars_of_loose_pictures_are_made_again_without_what_is_gone(tmp_path, photo_folder, model_dir):
    options = RunOptions(model_dir=str(model_dir), min_score=0.0, originals="shards")
    run_scoring([str(photo_folder)], tmp_path / "out", options)
    content = (photo_folder / "coffee.png").read_bytes()
    (photo_folder / "coffee.png").unlink()
    shutil.copy(photo_folder / "rocket.jpg", photo_folder / "chelsea.png")
    run_scoring([str(photo_folder)], tmp_path / "out", options)
    with tarfile.open(tmp_path / "out" / "photos-00000-000000.tar") as tar:
        members = {member.name: tar.extractfile(member).read() for member in tar}
    assert "coffee.png" not in members
    assert members["chelsea.png"] == (photo_folder / "rocket.jpg").read_bytes()
    assert (tmp_path / "out" / "deleted" / "photos" / "coffee.png").read_bytes() == content


@pytest.mark.parametrize("kind", ["folder", "shards"])
def test_the_top_is_taken_anew_when_the_folder_changes(tmp_path, photo_folder, model_dir, kind):
    options = RunOptions(model_dir=str(model_dir), top=Top(count=2), originals=kind)
    run_scoring([str(photo_folder)], tmp_path / "out", options)
    rows = read_rows(tmp_path / "out")
    best = max((row for row in rows.values() if row["kept"]), key=lambda row: row["aesthetic_score"])
    os.unlink(best["image_path"])
    run_scoring([str(photo_folder)], tmp_path / "out", options)
    run_scoring([str(photo_folder)], tmp_path / "fresh", options)
    after, fresh = read_rows(tmp_path / "out"), read_rows(tmp_path / "fresh")
    gone = best["image_path"].rpartition("photos/")[2]
    assert after.pop(gone)["status"] == "deleted"
    places = ("tar_file",)
    assert [{k: v for k, v in row.items() if k not in places} for row in after.values()] == [
        {k: v for k, v in row.items() if k not in places} for row in fresh.values()
    ]
    assert kept_files(tmp_path / "out") == kept_files(tmp_path / "fresh")


def kept_files(output):
    files = [*output.glob("*.tar"), *(path for path in (output / "kept").rglob("*") if path.is_file())]
    return {path.relative_to(output).as_posix(): path.read_bytes() for path in files}


def test_a_finished_cut_is_not_made_again(tmp_path, photo_folder, model_dir, monkeypatch):
    options = RunOptions(model_dir=str(model_dir), top=Top(count=2), originals="folder")
    first = run_scoring([str(photo_folder)], tmp_path / "out", options)
    monkeypatch.setattr("tastemaker.runs.run.keep_top", None)
    again = run_scoring([str(photo_folder)], tmp_path / "out", options)
    assert (again.cutoff, again.kept) == (first.cutoff, 2)


def test_rows_of_deleted_pictures_outlive_an_overwrite_without_scores_of_other_models(tmp_path, photo_folder, options):
    run_scoring([str(photo_folder)], tmp_path / "out", options)
    (photo_folder / "coffee.png").unlink()
    other = RunOptions(model_dir=options.model_dir, preprocess="transformers")
    run_scoring([str(photo_folder)], tmp_path / "out", other, RunMode(overwrite=True))
    row = read_rows(tmp_path / "out")["coffee.png"]
    assert (row["status"], row["aesthetic_score"], row["embedding"]) == ("deleted", None, None)
    assert run_scoring([str(photo_folder)], tmp_path / "out", other).images_scored_now == 0


def test_rows_that_were_redone_before_a_kill_are_merged_by_the_next_run(tmp_path, photo_folder, options, monkeypatch):
    run_scoring([str(photo_folder)], tmp_path / "out", options)
    shutil.copy(photo_folder / "rocket.jpg", photo_folder / "chelsea.png")

    def killed(*_args, **_options):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("tastemaker.runs.run._Run._update", killed)
        with pytest.raises(KeyboardInterrupt):
            run_scoring([str(photo_folder)], tmp_path / "out", options)
    assert (tmp_path / "out" / resume.REDO_FOLDER / "photos-00000.parquet").exists()
    summary = run_scoring([str(photo_folder)], tmp_path / "out", options)
    assert summary.images_scored_now == 0
    rows = read_rows(tmp_path / "out")
    assert rows["chelsea.png"]["aesthetic_score"] == rows["rocket.jpg"]["aesthetic_score"]
    assert not list((tmp_path / "out").rglob(f"{TEMPORARY_PREFIX}*"))


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


@pytest.mark.parametrize(
    "cut", [{}, {"min_score": 0.0, "originals": "shards"}, {"top": Top(count=5), "originals": "folder"}]
)
def test_failed_images_of_shards_are_read_by_their_byte_ranges_and_no_others(
    tmp_path, shards, model_dir, monkeypatch, cut
):
    from tastemaker.storage.local import LocalRanges

    options = RunOptions(model_dir=str(model_dir), **cut)
    run_scoring([str(shards)], tmp_path / "whole", options)
    with monkeypatch.context() as patch:
        break_decoding(patch, "1coffee", "3rocket", "3chelsea")
        assert run_scoring([str(shards)], tmp_path / "out", options).failed == 7
    assert run_scoring([str(shards)], tmp_path / "out", options).images_scored_now == 0  # not asked for
    reads = []
    read_at = LocalRanges.read_at
    monkeypatch.setattr(LocalRanges, "read_at", lambda r, at, size: reads.append(size) or read_at(r, at, size))
    summary = run_scoring([str(shards)], tmp_path / "out", options, RunMode(retry_failed=True))
    assert summary.images_scored_now == 7  # the three, and the four that are no images
    if not cut:
        rows = read_rows(tmp_path / "whole").values()
        wanted = [r for r in rows if r["image_id"] in ("1coffee", "3rocket", "3chelsea") or r["status"] == "failed"]
        assert sum(reads) <= sum(row["size"] for row in wanted) + 64  # and two bytes to see what a file is
    assert summary.failed == 4
    names = ("tar_file",)
    for mine, whole in zip(read_rows(tmp_path / "out").values(), read_rows(tmp_path / "whole").values(), strict=True):
        assert {k: v for k, v in mine.items() if k not in names} == {k: v for k, v in whole.items() if k not in names}
    assert kept_files(tmp_path / "out") == kept_files(tmp_path / "whole")


def test_failed_loose_images_are_run_again_in_place(tmp_path, photo_folder, model_dir, monkeypatch):
    options = RunOptions(model_dir=str(model_dir), min_score=0.0, originals="folder")
    run_scoring([str(photo_folder)], tmp_path / "whole", options)
    with monkeypatch.context() as patch:
        break_decoding(patch, "rocket")
        run_scoring([str(photo_folder)], tmp_path / "out", options)
    assert statuses(tmp_path / "out")["rocket.jpg"] == "failed"
    summary = run_scoring([str(photo_folder)], tmp_path / "out", options, RunMode(retry_failed=True))
    assert (summary.images_scored_now, summary.failed) == (1, 0)
    assert kept_files(tmp_path / "out") == kept_files(tmp_path / "whole")


def test_failed_images_of_shards_in_folders_leave_no_folder_behind(tmp_path, shards, options):
    (shards / "more").mkdir()
    (shards / "3.tar").rename(shards / "more" / "3.tar")
    run_scoring([str(shards)], tmp_path / "out", options)
    assert run_scoring([str(shards)], tmp_path / "out", options, RunMode(retry_failed=True)).images_scored_now == 4
    assert [path for path in (tmp_path / "out" / "_tastemaker").iterdir() if path.is_dir()] == []


def test_what_is_wrong_with_the_shard_itself_is_not_run_again(tmp_path, photographs, model_dir):
    good = photographs["rocket.jpg"]
    members = [("good.jpg", good), ("../climbs.jpg", good), ("good.jpg", good), ("only.txt", b"text")]
    shard = make_tar(tmp_path / "nasty.tar", members)
    options = RunOptions(model_dir=str(model_dir))
    run_scoring([str(shard)], tmp_path / "out", options)
    before = pq.read_table(tmp_path / "out" / "nasty.parquet").to_pylist()
    summary = run_scoring([str(shard)], tmp_path / "out", options, RunMode(retry_failed=True))
    assert (summary.images_scored_now, summary.not_retried, summary.failed) == (0, 3, 3)
    assert pq.read_table(tmp_path / "out" / "nasty.parquet").to_pylist() == before


def test_a_shard_that_failed_as_a_whole_is_done_again_as_a_whole(tmp_path, shards, options):
    cut = shards / "1.tar"
    cut.write_bytes(cut.read_bytes()[:300_000])
    run_scoring([str(shards)], tmp_path / "out", options)
    summary = run_scoring([str(shards)], tmp_path / "out", options, RunMode(retry_failed=True))
    rows = pq.read_table(tmp_path / "out" / "1.parquet").to_pylist()
    assert [row["reason"].split(":")[1] for row in rows] == [" truncated", " damaged shard"]
    assert summary.images_scored_now == len(rows) + 3  # and one bad picture in each of the others

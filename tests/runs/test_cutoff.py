"""Cuts by share and count, resuming, and what the rows say afterwards."""

import io
from dataclasses import replace
from itertools import count
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from conftest import make_shards, make_tar, read_rows, read_tars
from tastemaker.runs.best import keep_top

from tastemaker.errors import ConfigurationError, StageError
from tastemaker.runs.run import RunMode, RunOptions, run_scoring
from tastemaker.scores.cutoff import Top, mark_best, parse_top
from tastemaker.scores.files import TEMPORARY_PREFIX, PendingFile
from tastemaker.scores.schema import original_name
from tastemaker.stages.partition import FilePartitioningStage


@pytest.fixture
def shards(tmp_path, photographs):
    files = [*photographs.items(), *((f"{name.partition('.')[0]}.txt", b"caption") for name in photographs)]
    files.append(("bad.jpg", b"no image"))  # captions are not beside their pictures
    return make_shards(tmp_path / "shards", ([(f"{n}{name}", data) for name, data in files] for n in range(3)))


def test_shares_and_counts_are_told_apart():
    assert parse_top("20%") == Top(share=0.2)
    assert parse_top("1_000") == Top(count=1000)
    assert parse_top(" 1,234,000 ") == Top(count=1_234_000)
    for nonsense in ("0", "-3", "0%", "101%", "many", "", "1.5", "5,5", "1,00", ",100"):
        with pytest.raises(ConfigurationError):
            parse_top(nonsense)


def test_of_equal_scores_the_first_are_kept_and_nan_never_is():
    scores = np.array([np.nan, 5, 7, 5, 5], np.float32)
    assert mark_best(scores, Top(count=3)).tolist() == [False, True, True, True, False]
    assert mark_best(scores, Top(share=0.5)).tolist() == [False, True, True, False, False]
    assert mark_best(scores, Top(count=99)).sum() == 4
    assert mark_best(np.empty(0, np.float32), Top(share=0.2)).tolist() == []


def test_the_top_is_taken_over_all_shards_with_bytes_and_captions(tmp_path, shards, model_dir, photographs):
    options = RunOptions(top=Top(count=4), originals="shards", model_dir=str(model_dir))
    summary = run_scoring([str(shards)], tmp_path / "out", options)
    rows = read_rows(tmp_path / "out")
    best = sorted((row["aesthetic_score"] for row in rows if row["aesthetic_score"] is not None), reverse=True)[:4]
    kept = [row for row in rows if row["kept"]]
    assert sorted((row["aesthetic_score"] for row in kept), reverse=True) == best
    assert summary.cutoff == best[-1]
    assert (summary.images, summary.kept, summary.failed) == (21, 4, 3)
    expected = {
        name: data for row in kept for name, data in [(row["member_name"], photographs[row["member_name"][1:]])]
    }
    expected |= {f"{row['image_id']}.txt": b"caption" for row in kept}
    assert read_tars(tmp_path / "out") == expected
    assert {row["reason"] for row in rows if row["status"] == "dropped"} == {"not in the top 4"}


@pytest.mark.parametrize("originals", ["shards", "folder"])
def test_originals_and_results_may_have_names_that_are_no_utf8(tmp_path, photographs, model_dir, originals):
    name, out = "caf\udce9.jpg", tmp_path / "out\udce9"
    shard = make_tar(tmp_path / "a.tar", [(name, photographs["rocket.jpg"])])
    run_scoring([str(shard)], out, RunOptions(top=Top(count=1), originals=originals, model_dir=str(model_dir)))
    [row] = pq.read_table(io.BytesIO((out / "a.parquet").read_bytes())).to_pylist()
    assert (row["status"], row["member_name"]) == ("kept", r"caf\xe9.jpg")
    assert Path(original_name(row["tar_file"])).is_file()


def test_a_folder_of_originals_keeps_names_and_folders(tmp_path, photo_folder, model_dir):
    options = RunOptions(top=Top(share=1.0), originals="folder", model_dir=str(model_dir))
    run_scoring([str(photo_folder)], tmp_path / "out", options)
    copied = tmp_path / "out" / "kept" / "photos"
    before = {path.relative_to(photo_folder): path.read_bytes() for path in photo_folder.rglob("*") if path.is_file()}
    assert {path.relative_to(copied): path.read_bytes() for path in copied.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("cut", [{"min_score": 4.8}, {"top": Top(share=0.4)}], ids=["min_score", "top"])
def test_a_run_after_a_killed_one_ends_with_the_same_files(tmp_path, shards, model_dir, cut):
    options = RunOptions(originals="shards", model_dir=str(model_dir), **cut)
    run_scoring([str(shards)], tmp_path / "whole", options)
    again = tmp_path / "again"
    run_scoring([str(shards)], again, options)
    (again / "1.parquet").unlink()  # as if it had been killed before the second shard's rows
    (again / f"{TEMPORARY_PREFIX}abc-1.parquet").write_bytes(b"half")
    summary = run_scoring([str(shards)], again, options)
    assert summary.images_scored_now == 7
    assert summary.images == 21
    assert read_rows(again) == [
        row | {"tar_file": row["tar_file"] and row["tar_file"].replace("/whole/", "/again/")}
        for row in read_rows(tmp_path / "whole")
    ]
    assert read_tars(again) == read_tars(tmp_path / "whole")
    assert not list(again.glob(f"{TEMPORARY_PREFIX}*"))


def test_a_changed_shard_is_scored_again_and_the_others_are_not(tmp_path, shards, model_dir, photographs):
    options = RunOptions(model_dir=str(model_dir))
    run_scoring([str(shards)], tmp_path / "out", options)
    make_tar(shards / "1.tar", [("new.jpg", photographs["rocket.jpg"])])
    summary = run_scoring([str(shards)], tmp_path / "out", options)
    assert (summary.images_scored_now, summary.images) == (1, 15)


def test_rows_made_with_other_options_are_not_mixed(tmp_path, shards, model_dir):
    run_scoring([str(shards)], tmp_path / "out", RunOptions(model_dir=str(model_dir)))
    other = RunOptions(model_dir=str(model_dir), preprocess="transformers")
    with pytest.raises(ConfigurationError, match="preprocess was 'openai' and is 'transformers'"):
        run_scoring([str(shards)], tmp_path / "out", other)
    assert run_scoring([str(shards)], tmp_path / "out", other, RunMode(overwrite=True)).images_scored_now == 21


def test_a_second_run_on_the_same_directory_is_refused(tmp_path, shards, model_dir):
    import filelock

    (tmp_path / "out").mkdir()
    with (
        filelock.FileLock(tmp_path / "out" / ".tastemaker.lock"),
        pytest.raises(ConfigurationError, match="another run"),
    ):
        run_scoring([str(shards)], tmp_path / "out", RunOptions(model_dir=str(model_dir)))


def test_tars_of_an_earlier_run_that_kept_more_are_gone(tmp_path, shards, model_dir):
    many = RunOptions(min_score=0.0, originals="shards", images_per_tar=2, model_dir=str(model_dir))
    run_scoring([str(shards)], tmp_path / "out", many)
    assert len(list((tmp_path / "out").glob("0-*.tar"))) == 3
    few = RunOptions(top=Top(count=1), originals="shards", images_per_tar=2, model_dir=str(model_dir))
    run_scoring([str(shards)], tmp_path / "out", few, RunMode(overwrite=True))
    assert len(list((tmp_path / "out").glob("*.tar"))) == 1


def test_an_original_that_changed_since_it_was_scored_is_a_failed_row(tmp_path, photo_folder, model_dir):
    run_scoring([str(photo_folder)], tmp_path / "out", RunOptions(model_dir=str(model_dir)))
    groups = FilePartitioningStage([str(photo_folder)]).process()
    for path in photo_folder.glob("*.png"):
        path.write_bytes(path.read_bytes()[:100])
    keep_top(groups, tmp_path / "out", Top(share=1.0), "folder")
    rows = read_rows(tmp_path / "out")
    assert {row["image_id"] for row in rows if row["kept"]} == {"below/again", "hubble_deep_field", "rocket"}
    assert all("has changed since it was scored" in row["reason"] for row in rows if row["status"] == "failed")
    assert len(rows) == 7


def test_an_original_with_other_bytes_of_the_same_number_is_a_failed_row(tmp_path, photo_folder, model_dir):
    run_scoring([str(photo_folder)], tmp_path / "out", RunOptions(model_dir=str(model_dir)))
    groups = FilePartitioningStage([str(photo_folder)]).process()
    data = (photo_folder / "rocket.jpg").read_bytes()
    (photo_folder / "rocket.jpg").write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    keep_top(groups, tmp_path / "out", Top(share=1.0), "folder")
    failed = [row for row in read_rows(tmp_path / "out") if row["status"] == "failed"]
    assert [row["image_id"] for row in failed] == ["rocket"]
    assert "has other bytes" in failed[0]["reason"]


@pytest.mark.parametrize("stricter", [{"min_score": 100.0}, {"top": Top(count=1)}])
def test_copies_that_a_stricter_cut_does_not_keep_are_deleted(tmp_path, photo_folder, model_dir, stricter):
    for cut in ({"min_score": -100.0}, stricter, {"min_score": -100.0}):
        options = RunOptions(model_dir=str(model_dir), originals="folder", **cut)
        summary = run_scoring([str(photo_folder)], tmp_path / "out", options, RunMode(overwrite=True))
        copies = {str(path) for path in (tmp_path / "out" / "kept").rglob("*") if path.is_file()}
        rows = [row for row in read_rows(tmp_path / "out") if row["tar_file"]]
        assert len(rows) == summary.kept
        assert {row["tar_file"] for row in rows} == {path for path in copies if not path.endswith((".txt", ".json"))}
        assert len(copies) == len(rows) + sum(len(row["sidecars"] or ()) for row in rows)


def results(output):
    """Return name -> bytes of tars and copies, and name -> rows."""
    files = {str(path.relative_to(output)): path for path in output.rglob("*") if path.is_file()}
    rows = {name: pq.read_table(path).drop_columns(["tar_file"]) for name, path in files.items() if ".parquet" in name}
    return {name: path.read_bytes() for name, path in files.items() if "kept/" in name or ".tar" in name[-4:]}, rows


def run_killed(patch, number, *arguments):
    """Run until so many files of results are to be seen."""
    commit, calls = PendingFile.commit, count()

    def fail(pending):
        if "_tastemaker" not in pending.path.parts and next(calls) >= number:
            raise OSError("killed")
        commit(pending)

    with patch.context() as inner:
        inner.setattr(PendingFile, "commit", fail)
        with pytest.raises(StageError, match="killed"):
            run_scoring(*arguments)


def go_on(*arguments):
    """Run without saying that other rows are to be done again, where that need not be said."""
    try:
        run_scoring(*arguments)
    except ConfigurationError:
        run_scoring(*arguments, RunMode(overwrite=True))


@pytest.mark.parametrize("originals", ["shards", "folder"])
@pytest.mark.parametrize(("number", "place"), [(0, "out"), (1, "out"), (4, "."), (14, "out")])
def test_another_cut_after_a_kill_leaves_what_it_keeps_and_nothing_else(
    tmp_path, shards, model_dir, monkeypatch, originals, number, place
):
    (shards / "more").mkdir()
    (shards / "0.tar").rename(shards / "more" / "0.tar")
    options = RunOptions(model_dir=str(model_dir), min_score=5.0, originals=originals)
    assert 0 < run_scoring([str(shards)], tmp_path / "whole", options).kept < 18
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    for score in (-100.0, 100.0):
        other = replace(options, min_score=score)
        files = {"shards": 6, "folder": 39}[originals] if score < 0 else 3  # that the whole run would make
        run_killed(monkeypatch, number % files, [str(shards)], Path(place), other, RunMode(overwrite=True))
        go_on([str(shards)], Path(place), options)
        assert results(Path(place)) == results(tmp_path / "whole")
        assert not list((Path(place) / "_tastemaker").glob("replacing-*"))


def test_after_a_kill_a_run_that_copies_nothing_is_finished_once(tmp_path, shards, model_dir, monkeypatch):
    scored = RunOptions(model_dir=str(model_dir))
    inputs, output = [str(shards)], tmp_path / "out"
    run_scoring(inputs, output, scored)
    run_killed(
        monkeypatch, 1, inputs, output, replace(scored, min_score=-100.0, originals="shards"), RunMode(overwrite=True)
    )
    run_scoring(inputs, output, scored, RunMode(overwrite=True))
    assert run_scoring(inputs, output, scored).images_scored_now == 0


def test_tars_that_a_killed_run_has_deleted_are_written_again(tmp_path, shards, model_dir, monkeypatch):
    cut = RunOptions(model_dir=str(model_dir), min_score=-100.0, originals="shards")
    inputs, output = [str(shards)], tmp_path / "out"
    run_scoring(inputs, output, cut)
    whole = results(output)
    run_killed(monkeypatch, 0, inputs, output, RunOptions(model_dir=str(model_dir)), RunMode(overwrite=True))
    assert results(output) != whole
    run_scoring(inputs, output, cut)
    assert results(output) == whole

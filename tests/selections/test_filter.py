"""Filter: rows of everything, and the originals of those that pass, whatever was there before."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest
from conftest import make_tar
from tiny import best_keys, copies, make_pictures, make_tiny_shards, picture, rows_of, snapshot, statuses

from tastemaker import ConfigurationError, Selection
from tastemaker.runs.options import RunMode, RunOptions, Slice
from tastemaker.scores.cutoff import Top
from tastemaker.selections.filter import filter_images

EVERYTHING, NOTHING, BEST = Selection(where="status = 'kept'"), Selection(min_score=100), Selection(top=Top(count=2))


@pytest.fixture
def run(model_dir):
    """Filter with the tiny models."""

    def call(inputs, output, selection=BEST, mode=None, **options):
        return filter_images(inputs, output, selection, RunOptions(model_dir=str(model_dir)), mode, **options)

    return call


def test_the_best_of_all_shards_are_kept_with_bytes_and_captions(tmp_path, run):
    shards, out = make_tiny_shards(tmp_path / "in"), tmp_path / "out"
    found = run(shards, out)
    best = best_keys(out, 2)
    expected = {name: data for name, data in copies(shards).items() if name.partition(".")[0] in best}
    assert copies(out / "kept") == expected
    assert sorted(expected) == sorted(f"{key}.{kind}" for key in best for kind in ("jpg", "txt"))
    assert (found.run.images, found.run.failed, found.selection.written) == (12, 3, 2)
    scores = sorted(row["aesthetic_score"] for row in rows_of(out).values() if row["aesthetic_score"] is not None)
    assert found.selection.lowest == scores[-2]


def test_a_folder_keeps_its_names_and_folders(tmp_path, run):
    photos = make_pictures(tmp_path / "photos")
    found = run(photos, tmp_path / "out", EVERYTHING)
    assert found.selection.kind == "folder"
    assert copies(tmp_path / "out" / "kept") == copies(photos)


@pytest.mark.parametrize("kind", ["folder", "webdataset", "links"])
def test_kept_holds_what_the_last_cut_keeps_and_rows_know_nothing_of_it(tmp_path, run, kind):
    photos, out = make_pictures(tmp_path / "photos"), tmp_path / "out"
    run(photos, tmp_path / "fresh", BEST, kind=kind)
    run(photos, out, EVERYTHING, kind=kind)
    rows = snapshot(out / "rows")
    for cut, written in ((NOTHING, 0), (EVERYTHING, 4), (BEST, 2)):
        found = run(photos, out, cut, kind=kind)
        assert (found.run.images_scored_now, found.selection.written) == (0, written)
    assert snapshot(out / "rows") == rows
    assert copies(out / "kept") == copies(tmp_path / "fresh" / "kept")
    before = snapshot(out / "kept")
    run(photos, out, BEST, kind=kind)
    unchanged = {name for name, state in snapshot(out / "kept").items() if before[name] == state}
    assert unchanged >= {name for name in before if not name.startswith("_tastemaker")}  # nothing is written twice


def test_fewer_tars_replace_more_and_forms_replace_each_other(tmp_path, run):
    shards, out = make_tiny_shards(tmp_path / "in"), tmp_path / "out"
    run(shards, out, EVERYTHING, images_per_tar=2)
    assert len(list((out / "kept").glob("*.tar"))) == 5
    run(shards, out, BEST, images_per_tar=2)
    assert [path.name for path in (out / "kept").glob("*.tar")] == ["images-000000.tar"]
    photos = make_pictures(tmp_path / "photos")
    before, kept = copies(photos), out / "kept"
    for kind in ("folder", "links", "webdataset", "links", "folder"):
        run(photos, out, EVERYTHING, kind=kind)
        assert copies(kept) == before == copies(photos)
        assert (kept / "a.jpg").is_symlink() == (kind == "links")
        assert len(list(kept.glob("*.tar"))) == (kind == "webdataset")


def test_kept_follows_the_input(tmp_path, run):
    photos, out = make_pictures(tmp_path / "photos"), tmp_path / "out"
    run(photos, out, EVERYTHING)
    gone = (photos / "b.jpg").read_bytes()
    (photos / "b.jpg").unlink()
    (photos / "a.jpg").write_bytes(b"no image any more")
    (photos / "e.jpg").write_bytes(picture(9))
    found = run(photos, out, EVERYTHING)
    assert statuses(out) == {"a.jpg": "failed", "b.jpg": "deleted", "c.jpg": "kept", "d.png": "kept", "e.jpg": "kept"}
    assert (found.run.images_scored_now, found.selection.written) == (2, 3)
    assert set(copies(out / "kept")) == {"below/c.jpg", "below/d.png", "e.jpg"}
    aside = out / "kept" / "_tastemaker" / "aside" / "1"
    assert ((aside / "b.jpg").read_bytes(), (aside / "b.txt").read_text()) == (gone, "a caption")  # the last ones
    assert found.selection.moved_aside == {str(aside.parent): 2}


def test_an_original_that_changed_while_it_was_scored_is_skipped_and_listed(tmp_path, run):
    photos, out = make_pictures(tmp_path / "photos"), tmp_path / "out"

    data = (photos / "a.jpg").read_bytes()

    def spoil(progress):
        if progress.images:  # not before the first was scored
            (photos / "a.jpg").write_bytes(data[:-1] + bytes([data[-1] ^ 1]))  # of the same length

    found = run(photos, out, EVERYTHING, on_scored=spoil)
    assert found.selection.skipped == {"changed": 1}
    [line] = map(json.loads, (out / "kept" / "_tastemaker" / "skipped.jsonl").read_text().splitlines())
    assert (line["image_id"], line["problem"]) == ("a", "changed")
    assert "has other bytes" in line["detail"]
    assert "a.jpg" not in copies(out / "kept")


@pytest.mark.parametrize("kind", ["webdataset", "folder"])
def test_originals_and_results_may_have_names_that_are_no_utf8(tmp_path, run, kind):
    name, out = "caf\udce9.jpg", tmp_path / "out\udce9"
    run(make_tar(tmp_path / "a.tar", [(name, picture(0))]), out, kind=kind)
    [row] = rows_of(out).values()
    assert (row["status"], row["image_path"].rpartition("/")[2]) == ("kept", r"caf\xe9.jpg")
    assert copies(out / "kept") == {name: picture(0)}


def test_results_in_the_input_are_no_input(tmp_path, run, monkeypatch):
    photos = make_pictures(tmp_path / "photos")
    before = snapshot(photos)
    monkeypatch.chdir(photos)
    for output in (".", "best", "."):
        for _ in range(2):
            found = run(".", output, EVERYTHING)
            assert (found.run.images, found.selection.written) == (4, 4)
            assert len(rows_of(photos / output)) == 4
    (tmp_path / "link").symlink_to(photos / "best")
    assert run(str(photos), tmp_path / "link", EVERYTHING).run.images == 4
    assert {name: state for name, state in snapshot(photos).items() if name in before} == before


def test_embeddings_have_no_originals_and_get_a_list(tmp_path, run):
    np.save(tmp_path / "a.npy", np.eye(3, 768, dtype=np.float32))
    found = run(tmp_path / "a.npy", tmp_path / "out", BEST)
    assert (found.selection.kind, found.selection.written) == ("manifest", 2)
    listed = pq.read_table(tmp_path / "out" / "kept.parquet")["aesthetic_score"].to_pylist()
    assert min(listed) == found.selection.lowest
    run(tmp_path / "a.npy", tmp_path / "out", Selection(top=Top(count=1)))
    assert len(pq.read_table(tmp_path / "out" / "kept.parquet")) == 1


def test_a_slice_is_scored_and_not_filtered(tmp_path, run):
    shards, out = make_tiny_shards(tmp_path / "in"), tmp_path / "out"
    with pytest.raises(ConfigurationError, match=r"slice 0-of-2.*without slices"):
        run(shards, out, mode=RunMode(part=Slice(0, 2)))
    assert not out.exists()


def test_rows_of_an_earlier_input_are_not_filtered_with_those_of_this_one(tmp_path, run):
    shards, out = make_tiny_shards(tmp_path / "in"), tmp_path / "out"
    run(shards, out, EVERYTHING)
    run(shards / "1.tar", out, EVERYTHING)
    assert {name[0] for name in copies(out / "kept")} == {"1"}


def test_an_input_without_images_writes_nothing(tmp_path, run):
    make_tar(tmp_path / "a.tar", [("only.txt", b"text")])
    found = run(tmp_path / "a.tar", tmp_path / "out", EVERYTHING)
    assert (found.run.failed, found.selection.written) == (1, 0)

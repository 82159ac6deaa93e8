"""Selections: exactly the chosen originals, byte for byte, and nothing where something is wrong."""

import errno
import hashlib
import json
import tarfile

import numpy as np
import pyarrow.parquet as pq
import pytest
from conftest import make_tar
from rows import mark_as_gone, write_scores

from tastemaker import ConfigurationError, ScoreTable, Selection, TastemakerError, select_images
from tastemaker.scores.cutoff import Top
from tastemaker.scores.files import TarFile
from tastemaker.scores.run import RunOptions, run_scoring

ALL = Selection(where="status = 'kept'")


@pytest.fixture
def scored(tmp_path, photo_folder, photographs, model_dir):
    """Rows of a folder, a tar and a gzipped tar whose images have captions, some of them far away."""
    captions = [(f"{name.partition('.')[0]}.txt", name.encode()) for name in photographs]
    members = [*photographs.items(), ("naïve/東.jpg", photographs["rocket.jpg"]), *captions, ("bad.jpg", b"no image")]
    make_tar(tmp_path / "plain.tar", members)
    make_tar(tmp_path / "packed.tar.gz", members, mode="w:gz")
    (photo_folder / "caf\udce9.jpg").write_bytes(photographs["rocket.jpg"])
    inputs = [str(tmp_path / "plain.tar"), str(tmp_path / "packed.tar.gz"), str(photo_folder)]
    run_scoring(inputs, tmp_path / "scores", RunOptions(model_dir=str(model_dir)))
    return ScoreTable(tmp_path / "scores")


def contents(folder):
    """sha256 of all that is in a folder, members of tars for the tars."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.suffix == ".tar":
            with tarfile.open(path) as tar:
                for member in tar:
                    assert member.name not in found
                    found[member.name] = hashlib.sha256(tar.extractfile(member).read()).hexdigest()
        elif path.is_file() and "_tastemaker" not in path.parts:
            found[path.relative_to(folder).as_posix()] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def digests(photographs):
    return sorted(hashlib.sha256(data).hexdigest() for data in photographs)


@pytest.mark.parametrize("kind", ["webdataset", "folder"])
def test_originals_and_sidecars_come_out_byte_for_byte(tmp_path, scored, photographs, kind):
    summary = select_images(scored, tmp_path / "out", ALL, kind=kind)
    captions = [name.encode() for name in photographs] * 2 + [b"a cup of coffee", b'{"width": 600}']
    images = [*photographs.values()] * 3 + [photographs["rocket.jpg"]] * 3 + [photographs["coffee.png"]]
    found = contents(tmp_path / "out")
    assert sorted(found.values()) == digests([*images, *captions])
    assert {"rocket.jpg", "2/rocket.jpg", "3/rocket.jpg", "naïve/東.jpg", "caf\udce9.jpg"} <= set(found)
    assert (summary.written, summary.skipped, summary.checked_by_size_only) == (len(images), {}, 0)
    rows = pq.read_table(tmp_path / "out" / "_tastemaker" / "selected.parquet").to_pylist()
    assert len(rows) == len(images)


def test_the_top_is_what_the_cut_keeps_and_a_second_run_gives_the_same_bytes(tmp_path, scored):
    selection, out = Selection(top=Top(count=4)), tmp_path / "out"
    for images_per_tar, kind in ((3, "webdataset"), (3, "folder")):
        target = out / kind
        assert select_images(scored, target, selection, kind=kind, images_per_tar=images_per_tar).written == 4
        before = {p: p.read_bytes() for p in target.rglob("*") if p.is_file()}
        select_images(scored, target, selection, kind=kind, images_per_tar=images_per_tar)
        assert {p: p.read_bytes() for p in target.rglob("*") if p.is_file()} == before
    assert not list(out.glob(".*"))


def test_what_changed_or_is_gone_is_skipped_and_listed(tmp_path, scored, photo_folder):
    data = (photo_folder / "rocket.jpg").read_bytes()
    (photo_folder / "rocket.jpg").write_bytes(data[:-1] + bytes([data[-1] ^ 1]))  # the same size
    (photo_folder / "coffee.txt").write_text("another, longer caption")
    (photo_folder / "chelsea.png").unlink()
    shard = (tmp_path / "plain.tar").read_bytes()
    (tmp_path / "plain.tar").write_bytes(shard[512:])  # everything moved
    summary = select_images(scored, tmp_path / "out", ALL, kind="folder")
    assert summary.skipped == {"changed": 9, "missing": 1}
    lines = [json.loads(line) for line in (tmp_path / "out" / "_tastemaker" / "skipped.jsonl").read_text().splitlines()]
    loose = {line["image_id"]: line["problem"] for line in lines if ".tar" not in line["image_path"]}
    assert loose == {"rocket": "changed", "coffee": "changed", "chelsea": "missing"}


def test_a_file_that_is_there_is_not_replaced(tmp_path, scored):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "a.txt").write_text("a")
    with pytest.raises(ConfigurationError, match="did not write it"):
        select_images(scored, tmp_path / "mine", ALL, overwrite=True)
    select_images(scored, tmp_path / "out", Selection(top=Top(count=1)))
    with pytest.raises(ConfigurationError, match="another selection"):
        select_images(scored, tmp_path / "out", ALL)
    assert select_images(scored, tmp_path / "out", ALL, overwrite=True).written > 1


def test_a_full_disk_is_one_error_and_leaves_nothing(tmp_path, scored, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(TarFile, "add_sample", full)
    with pytest.raises(TastemakerError, match="no room left"):
        select_images(scored, tmp_path / "o" / "out", ALL)
    assert list((tmp_path / "o").iterdir()) == []


def test_links_lead_to_loose_files_and_shards_have_none(tmp_path, scored, photo_folder):
    loose = Selection(where="shard IS NULL AND image_id = 'coffee'")
    select_images(scored, tmp_path / "links", loose, kind="links")
    names = ("coffee.json", "coffee.png", "coffee.txt")
    assert [(tmp_path / "links" / name).readlink() for name in names] == [photo_folder / name for name in names]
    with pytest.raises(ConfigurationError, match="no file to link to"):
        select_images(scored, tmp_path / "none", ALL, kind="links")
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("name", ["m.parquet", "m.csv", "m.jsonl"])
def test_a_manifest_has_paths_scores_and_no_embeddings(tmp_path, scored, name):
    import pandas

    path = tmp_path / name
    select_images(scored, path, Selection(top=Top(count=5)), kind="manifest")
    first = path.read_bytes()
    select_images(scored, path, Selection(top=Top(count=5)), kind="manifest")
    assert path.read_bytes() == first
    readers = {"parquet": pandas.read_parquet, "csv": pandas.read_csv}
    frame = readers[path.suffix[1:]](path) if path.suffix[1:] in readers else pandas.read_json(path, lines=True)
    assert len(frame) == 5
    assert "embedding" not in frame.columns
    assert frame.aesthetic_score.min() == pytest.approx(scored.cutoff(keep=5).score, abs=1e-5)
    with pytest.raises(ConfigurationError, match="other content"):
        select_images(scored, path, Selection(top=Top(count=1)), kind="manifest")


def test_keys_are_lines_and_datacomp_uids_are_an_array(tmp_path, scored):
    select_images(scored, tmp_path / "keys.txt", Selection(row_ids=[0, 2]), kind="uids")
    assert (tmp_path / "keys.txt").read_text().splitlines() == scored.take([0, 2], ["image_id"])["image_id"].to_pylist()
    with pytest.raises(ConfigurationError, match="no DataComp uid"):
        select_images(scored, tmp_path / "keys.npy", ALL, kind="uids")
    rows = pq.read_table(write_scores(tmp_path / "dc" / "a.parquet", [5.0, 6.0]))
    uids = ["f" * 32, "0" * 31 + "1"]
    place = rows.schema.get_field_index("json")
    rows = rows.set_column(place, "json", [[json.dumps({"uid": uid}) for uid in uids]])
    pq.write_table(rows, tmp_path / "dc" / "a.parquet")
    select_images(ScoreTable(tmp_path / "dc"), tmp_path / "u.npy", Selection(min_score=5), kind="uids")
    assert np.load(tmp_path / "u.npy").tolist() == [(0, 1), (2**64 - 1, 2**64 - 1)]


def test_a_selection_without_a_condition_and_one_of_nothing(tmp_path, scored):
    with pytest.raises(ConfigurationError, match="say what to select"):
        Selection()
    assert select_images(scored, tmp_path / "none", Selection(min_score=99)).written == 0


@pytest.mark.parametrize(
    "selection",
    [
        Selection(where="true"),
        Selection(min_score=0),
        Selection(top=Top(count=5)),
        Selection(row_ids=[0, 1, 2]),
    ],
)
def test_pictures_that_are_gone_are_not_selected(tmp_path, selection):
    path = write_scores(tmp_path / "rows.parquet", [6.0, 7.0, 5.0])
    mark_as_gone(path, [1])
    summary = select_images(ScoreTable(path), tmp_path / "list.csv", selection, kind="manifest")
    assert (summary.chosen, summary.lowest) == (2, 5.0)

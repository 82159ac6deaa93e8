"""Image folders with metadata files: captions come along, and the kept part lies beside the kept pictures."""

import csv
import json
import tarfile

import pyarrow.parquet as pq
import pytest

from tastemaker import ScoreTable, Selection, errors, select_images
from tastemaker.runs.run import RunOptions, run_scoring
from tastemaker.scores.cutoff import parse_top


@pytest.fixture
def scored(tmp_path, photographs, model_dir):
    """A function that writes an image folder, scores it, and returns its rows by name."""

    def make(**files):
        folder = tmp_path / "set"
        for name in ("train/a.jpg", "train/b.jpg", "c.jpg"):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(photographs["rocket.jpg"] + name.encode())
        for name, text in files.items():
            path = folder / name.replace("__", "/").replace("_jsonl", ".jsonl").replace("_csv", ".csv")
            path.write_text(text, encoding="utf-8")
        run_scoring(str(folder), tmp_path / "scores", RunOptions(model_dir=str(model_dir)))
        (rows,) = (tmp_path / "scores").glob("rows/*.parquet")
        return {row["image_id"]: row for row in pq.read_table(rows).to_pylist()}

    return make


def lines(*records):
    return "".join(json.dumps(record) + "\n" for record in records)


def select(tmp_path, number, kind):
    selection = Selection(top=parse_top(str(number)))
    return select_images(ScoreTable(tmp_path / "scores"), tmp_path / kind, selection, kind=kind, overwrite=True)


def test_captions_and_columns_are_those_of_the_nearest_metadata_file(scored):
    rows = scored(
        train__metadata_jsonl=lines({"file_name": "a.jpg", "text": "an a", "label": 3}),
        metadata_csv='file_name,caption\ntrain/a.jpg,not this\n./train/b.jpg,"b, with a comma"\n',
    )
    assert [rows[key]["caption"] for key in ("train/a", "train/b", "c")] == ["an a", "b, with a comma", None]
    assert json.loads(rows["train/a"]["json"]) == {"file_name": "a.jpg", "text": "an a", "label": 3}


def test_a_sidecar_of_the_picture_itself_comes_first(scored):
    rows = scored(metadata_jsonl=lines({"file_name": "c.jpg", "text": "of the folder"}), **{"c.txt": "its own"})
    assert rows["c"]["caption"] == "its own"
    assert json.loads(rows["c"]["json"])["text"] == "of the folder"


HALF = '{"file_name": "train/a.jpg", "text": "half of a pair: \\ud83d"}'


@pytest.mark.parametrize("text", ["no json\n", "[1]\n{}\n", "{" * 100_000, "\0", HALF])
def test_a_metadata_file_that_is_damaged_fails_no_picture(scored, text):
    rows = scored(metadata_jsonl=text + "\n" + lines({"file_name": "c.jpg", "text": "whole"}))
    assert {row["status"] for row in rows.values()} == {"kept"}
    assert rows["c"]["caption"] == "whole"


@pytest.mark.parametrize("kind", ["folder", "links"])
def test_the_kept_part_lies_beside_the_kept_pictures(tmp_path, scored, kind):
    scored(
        train__metadata_jsonl=lines(*({"file_name": f"{n}.jpg", "text": n} for n in "abx")),
        metadata_csv="file_name,text\nc.jpg,see\nd.jpg,dee\n",
    )
    select(tmp_path, 3, kind)
    kept = (tmp_path / kind / "train" / "metadata.jsonl").read_text().splitlines()
    assert sorted(json.loads(line)["text"] for line in kept) == ["a", "b"]
    with open(tmp_path / kind / "metadata.csv", newline="") as file:
        assert list(csv.DictReader(file)) == [{"file_name": "c.jpg", "text": "see"}]
    select(tmp_path, 1, kind)  # what an earlier selection wrote is replaced
    remaining = [p for p in (tmp_path / kind).rglob("*") if "_tastemaker" not in p.parts and not p.is_dir()]
    assert len(remaining) == 2


def test_in_tars_the_record_is_a_sidecar(tmp_path, scored):
    scored(train__metadata_jsonl=lines({"file_name": "a.jpg", "text": "an a"}))
    select(tmp_path, 3, "webdataset")
    with tarfile.open(tmp_path / "webdataset" / "images-000000.tar") as archive:
        assert archive.extractfile("train/a.txt").read() == b"an a"
        assert json.loads(archive.extractfile("train/a.json").read())["file_name"] == "a.jpg"
        assert len(archive.getnames()) == 5


def test_a_metadata_file_of_somebody_else_is_not_written_over(tmp_path, scored):
    scored(metadata_jsonl=lines({"file_name": "c.jpg", "text": "c"}))
    table, folder = ScoreTable(tmp_path / "scores"), tmp_path / "folder"
    select_images(table, folder, Selection(where="image_id = 'train/a'"), kind="folder")
    (folder / "metadata.jsonl").write_text("mine")
    with pytest.raises(errors.ConfigurationError, match=r"metadata\.jsonl is there, and Tastemaker did not write it"):
        select(tmp_path, 3, "folder")
    assert (folder / "metadata.jsonl").read_text() == "mine"
    assert not (folder / "c.jpg").exists()

"""Tables with pictures in them: Parquet and Arrow files as Hugging Face's datasets and img2dataset write them."""

import io
import json
import struct
import tarfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from tastemaker import ScoreTable, Selection, errors, select_images
from tastemaker.runs.run import RunMode, RunOptions, run_scoring
from tastemaker.scores.cutoff import parse_top
from tastemaker.selections.filter import filter_images
from tastemaker.storage.place import Place


def encode(number, kind="JPEG"):
    file = io.BytesIO()
    Image.new("RGB", (40, 30), (number * 20 % 256, 100, 50)).save(file, kind)
    return file.getvalue()


def structs(*pictures):
    return pa.array(pictures, pa.struct([("bytes", pa.binary()), ("path", pa.string())]))


def write(path, table, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        pq.write_table(table, path, **options)
    else:
        new = pa.ipc.new_stream if options.get("stream") else pa.ipc.new_file
        with pa.OSFile(str(path), "wb") as file, new(file, table.schema) as writer:
            writer.write_table(table, max_chunksize=2)
    return path


def hugging_face(count=3):
    pictures = [{"bytes": encode(n), "path": f"{n}.jpg"} for n in range(count)]
    return pa.table({"image": structs(*pictures), "text": [f"picture {n}" for n in range(count)], "label": [7] * count})


@pytest.fixture
def score(tmp_path, model_dir):
    """Score inputs, and return their rows."""

    def run(*inputs, mode=None, **options):
        output = tmp_path / "out"
        run_scoring([str(path) for path in inputs], output, RunOptions(model_dir=str(model_dir), **options), mode)
        return [row for path in sorted(output.glob("rows/**/*.parquet")) for row in pq.read_table(path).to_pylist()]

    return run


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("name", ["train-00000-of-00001.parquet", "data.arrow", "data.feather"])
def test_rows_with_pictures_are_scored_with_their_caption_and_other_columns(tmp_path, score, name, stream):
    path = write(tmp_path / "hf" / name, hugging_face(), **({"stream": stream} if "parquet" not in name else {}))
    rows = score(tmp_path / "hf")
    assert [row["status"] for row in rows] == ["kept"] * 3
    assert [row["image_id"] for row in rows] == ["0", "1", "2"]
    assert rows[1]["image_path"] == f"{path}/1.jpg"
    assert (rows[1]["shard"], rows[1]["offset"], rows[1]["size"]) == (str(path), 1, len(encode(1)))
    assert rows[1]["caption"] == "picture 1"
    assert json.loads(rows[1]["json"]) == {"text": "picture 1", "label": 7}


def test_a_column_of_bytes_is_read_and_the_key_is_the_tables(tmp_path, score):
    table = pa.table(
        {"key": ["000", "001"], "jpg": [encode(0), None], "caption": ["x", "y"], "similarity": [0.5, float("nan")]}
    )
    rows = score(write(tmp_path / "00000.parquet", table))
    assert [(row["image_id"], row["status"], row["reason_kind"]) for row in rows] == [
        ("000", "kept", None),
        ("001", "failed", "not_an_image"),
    ]
    assert json.loads(rows[0]["json"]) == {"key": "000", "caption": "x", "similarity": 0.5}


@pytest.mark.parametrize(
    "paths",
    [[None, None], ["same.jpg", "same.jpg"], ["", "../"]],
    ids=["none", "repeated", "unusable"],
)
def test_a_row_without_a_name_of_its_own_is_called_by_its_number(tmp_path, score, paths):
    pictures = structs(*({"bytes": encode(n), "path": path} for n, path in enumerate(paths)))
    rows = score(write(tmp_path / "x.parquet", pa.table({"image": pictures})))
    assert [row["image_id"] for row in rows] == ["x/000000000", "x/000000001"]


def test_a_path_that_leads_elsewhere_gives_its_last_part_only(tmp_path, score):
    paths = ["/home/me/a.png", "https://host/b.jpg?size=1", "../../c.JPG"]
    pictures = structs(*({"bytes": encode(n), "path": path} for n, path in enumerate(paths)))
    rows = score(write(tmp_path / "x.parquet", pa.table({"image": pictures})))
    assert [row["image_path"].rpartition("/")[2] for row in rows] == ["a.png", "b.jpg", "c.JPG"]


@pytest.mark.parametrize("name", ["set.parquet", "set.arrow"])
def test_what_a_filter_keeps_of_a_table_lies_in_tars_and_as_files_byte_for_byte(tmp_path, model_dir, name):
    path = write(tmp_path / "set" / name, hugging_face(40), **({"row_group_size": 7} if "parquet" in name else {}))
    filter_images(
        str(path), tmp_path / "best", Selection(top=parse_top("50%")), options=RunOptions(model_dir=str(model_dir))
    )
    (tar,) = (tmp_path / "best" / "kept").glob("*.tar")
    with tarfile.open(tar) as archive:
        members = {info.name: archive.extractfile(info).read() for info in archive}
    kept = {name.partition(".")[0] for name in members}
    assert len(kept) == 20
    for key in kept:
        assert members[f"{key}.jpg"] == encode(int(key))
        assert members[f"{key}.txt"] == f"picture {key}".encode()
        assert json.loads(members[f"{key}.json"])["label"] == 7
    select_images(ScoreTable(tmp_path / "best"), tmp_path / "files", Selection(top=parse_top("3")), kind="folder")
    assert len(list((tmp_path / "files").glob("*.jpg"))) == 3


def test_tables_at_urls_are_read_and_copied_as_on_this_machine(tmp_path, score):
    for name in ("a.parquet", "b.arrow"):
        path = write(tmp_path / name, hugging_face())
        (Place.of("memory://tables-with-pictures") / name).write(path.read_bytes())
    rows = score("memory://tables-with-pictures")
    assert [row["image_path"].rpartition("/")[2] for row in rows] == ["0.jpg", "1.jpg", "2.jpg"] * 2
    report = select_images(
        ScoreTable(tmp_path / "out"), tmp_path / "copies", Selection(top=parse_top("6")), kind="folder"
    )
    assert (report.written, report.skipped) == (6, {})
    assert (tmp_path / "copies" / "2" / "1.jpg").read_bytes() == encode(1)


def test_a_table_that_changed_is_not_copied(tmp_path, score, model_dir):
    path = write(tmp_path / "x.parquet", hugging_face())
    score(path)
    write(path, pa.table({"image": structs(*({"bytes": encode(n + 5), "path": f"{n}.jpg"} for n in range(2)))}))
    report = select_images(
        ScoreTable(tmp_path / "out"), tmp_path / "copies", Selection(top=parse_top("3")), kind="folder"
    )
    assert (report.written, sum(report.skipped.values())) == (0, 3)


def test_several_columns_of_pictures_stay_together_and_the_one_to_score_is_named(tmp_path, score):
    table = pa.table({"left": [encode(1)], "right": [encode(2, "PNG")]})
    path = write(tmp_path / "x.parquet", table)
    with pytest.raises(errors.ConfigurationError, match="pictures in left, right; say --column NAME"):
        score(path)
    (row,) = score(path, column="right")
    assert row["image_path"].endswith("x.parquet/x/000000000.right.png")
    assert [sidecar["extension"] for sidecar in row["sidecars"]] == ["left.jpg"]
    select_images(ScoreTable(tmp_path / "out"), tmp_path / "copies", Selection(top=parse_top("1")), kind="folder")
    assert (tmp_path / "copies" / "x" / "000000000.left.jpg").read_bytes() == encode(1)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (
            {"URL": ["http://h/a.jpg"], "TEXT": ["x"]},
            r"1 rows with the columns URL \(string\), .* addresses in URL first",
        ),
        ({"file_name": ["a.jpg"]}, "paths in file_name .* --files-from FILE"),
        ({"audio": [b"RIFF1234WAVE"]}, "holds no pictures and no embeddings"),
    ],
)
def test_a_table_without_pictures_is_answered_by_what_it_has(tmp_path, score, columns, message):
    with pytest.raises(errors.ModelError, match=message):
        score(write(tmp_path / "x.parquet", pa.table(columns)))


def test_tables_without_pictures_beside_images_are_passed_over(photo_folder, score):
    write(photo_folder / "metadata.parquet", pa.table({"URL": ["http://h/a.jpg"]}))
    assert not [row for row in score(photo_folder) if "parquet" in row["image_path"]]


@pytest.mark.parametrize("name", ["x.parquet", "x.arrow"])
def test_a_damaged_table_is_a_row_that_says_so_and_the_others_go_on(tmp_path, score, name):
    write(tmp_path / "in" / "a.parquet", hugging_face())
    whole = write(tmp_path / name, hugging_face(20)).read_bytes()
    (tmp_path / "in" / name).write_bytes(whole[: len(whole) // 2])
    rows = score(tmp_path / "in")
    assert [row["status"] for row in rows] == ["kept"] * 3 + ["failed"]
    assert rows[-1]["reason_kind"] == "damaged_shard"


@pytest.mark.parametrize("stream", [False, True])
def test_positions_in_an_arrow_file_that_lead_out_of_it_are_damage(tmp_path, score, stream):
    path = write(tmp_path / "x.arrow", hugging_face(4), stream=stream)
    whole, texts = path.read_bytes(), struct.pack("<3i", 0, 9, 18)
    assert whole.count(texts) == 2  # of "picture 0" and following, two in a batch
    at = whole.rindex(texts)
    path.write_bytes(whole[: at + 4] + struct.pack("<i", 2**30) + whole[at + 8 :])
    row = score(path)[-1]
    assert (row["status"], row["reason_kind"]) == ("failed", "damaged_shard")


def test_a_damaged_picture_is_its_own_row_and_is_tried_again(tmp_path, score):
    table = pa.table({"key": ["a", "b"], "jpg": [encode(1)[:300], encode(2)]})
    path = write(tmp_path / "x.parquet", table)
    before = score(path)
    assert [row["status"] for row in before] == ["failed", "kept"]
    assert score(path, mode=RunMode(retry_failed=True)) == before

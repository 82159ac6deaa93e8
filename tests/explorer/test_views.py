"""Slices, details, neighbours and failures: counted here and in another way."""

import json
import os

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rows import make_image, mark_as_gone, write_rows

from explorer.table import SCORES, write_table
from tastemaker import ScoreTable
from tastemaker.explorer.dimensions import SOURCE, list_dimensions
from tastemaker.explorer.index import Filter
from tastemaker.explorer.service import Explorer
from tastemaker.imaging.tars import Member


def slices_of(explorer, name, score=5.0, chosen=Filter()):  # noqa: B008 - it is frozen
    found = explorer.slices(chosen, name, f"{score:.2f}")
    return {part["name"]: (part["scored"], part["kept"]) for part in found["slices"]}, found


def test_slices_count_what_a_cut_off_keeps_of_each_part(explorer):
    by_licence, _ = slices_of(explorer, "json: licence")
    expected = {
        name: (6, sum(score >= 5.0 for score in SCORES[start::2])) for start, name in ((0, "CC-BY"), (1, "CC0"))
    }
    assert by_licence == expected
    by_shape, _ = slices_of(explorer, "shape")
    assert {name: images for name, (images, _) in by_shape.items()} == {
        "landscape": 3,
        "portrait": 3,
        "very wide, beyond 2:1": 3,
        "very tall, beyond 1:2": 3,
    }
    explorer.rate(Filter(), {6: {"rejected": True}})
    only_wide, _ = slices_of(explorer, "json: licence", chosen=Filter(where="width > 1000"))
    assert only_wide == {"CC-BY": (2, sum(SCORES[n] >= 5.0 for n in (2, 10)))}


def test_every_slice_can_be_filtered_by_and_adds_up(explorer):
    for name in explorer.slices(Filter(), "", "20%")["dimensions"]:
        found, answer = slices_of(explorer, name)
        assert sum(images for images, _ in found.values()) == len(SCORES), name
        for part in answer["slices"]:
            assert len(explorer.index.view(Filter(where=part["where"])).rows) == part["scored"], part["where"]
            assert " AND " not in part["where"]  # the page takes conditions apart there


@pytest.mark.skipif(os.sep != "/", reason="a backslash is between folders there")
def test_a_backslash_in_a_name_is_no_folder(tmp_path):
    images = [make_image(number, 5.0) for number in range(4)]
    for image, name in zip(images, ("a/x\\1.jpg", "a/y\\2.jpg", "b\\c/3.jpg", "b\\d/4.jpg"), strict=True):
        image.image_path, image.shard = f"/photos/{name}", ""
    table = ScoreTable(write_rows(tmp_path / "rows.parquet", images))
    [source] = [dimension for dimension in list_dimensions(table) if dimension.name == SOURCE]
    keys = table.query(f"SELECT DISTINCT {source.key} AS key FROM rows").column("key").to_pylist()
    assert source.shorten(sorted(keys)) == {"/photos/a": "a", "/photos/b\\c": "b\\c", "/photos/b\\d": "b\\d"}
    assert source.shorten(["/photos/b\\c", "/photos/b\\d"]) == {
        "/photos/b\\c": "b\\c",
        "/photos/b\\d": "b\\d",
    }


def test_slices_far_from_the_whole_come_first_and_small_ones_last(tmp_path, explorer):
    table = explorer.table.to_arrow()
    rng = np.random.default_rng(0)
    number = 4000
    rows = table.take(pa.array(np.zeros(number, np.int64)))
    kinds = rng.choice(["plain", "good", "rare"], number, p=[0.7, 0.297, 0.003])
    scores = np.where(kinds == "good", 6.0, 5.0) + rng.normal(0, 0.3, number) + 4 * (kinds == "rare")
    values = {"aesthetic_score": pa.array(scores.astype(np.float32)), "format": pa.array(kinds)}
    for name, column in values.items():
        rows = rows.set_column(rows.schema.get_field_index(name), name, column)
    pq.write_table(rows, tmp_path / "many.parquet")
    many = Explorer([str(tmp_path / "many.parquet")])
    found, _ = slices_of(many, "format", score=5.5)
    many.close()
    assert list(found) == ["good", "plain", "rare"]
    assert found["rare"][0] < 30


def test_details_have_sidecars_as_text_and_say_what_cannot_be_read(explorer, tmp_path):
    details = explorer.picture(Filter(), 4)
    assert dict(details["sidecars"])["txt"] == "a picture 4"
    assert json.loads(dict(details["sidecars"])["json"])["number"] == 4
    assert dict(details["columns"])["width"] == "300"
    assert len(details["signals"]) == 8
    (tmp_path / "shards" / "00000.tar").unlink()
    assert "cannot be read" in dict(explorer.picture(Filter(), 4)["sidecars"])["txt"]


def test_json_of_strangers_leaves_slices_and_details_whole(tmp_path):
    """Half an emoji is what is left where a caption was cut; JSON that is nested without end is hostile."""
    deep = 100_000
    odd = [
        r'{"place": "\ud83d", "\ud83d": 1}',
        "[" * deep + "]" * deep,
        '{"a":' * deep + "1" + "}" * deep,
        "[]",
        "{",
        "9" * 9999,
    ]
    texts = [*odd, *(json.dumps({"place": f"{n % 2}", "$.\"'[*]": n % 2, "\0\n": n % 2}) for n in range(6))]
    images = [make_image(number, 5.0, sidecars={"json": text.encode()}) for number, text in enumerate(texts)]
    for number, (image, text) in enumerate(zip(images, texts, strict=True)):
        (tmp_path / f"{number}.json").write_text(text)
        image.sidecar_members = {"json": Member(str(tmp_path / f"{number}.json"), 0, len(text))}
    write_rows(tmp_path / "rows.parquet", images)
    explorer = Explorer([str(tmp_path / "rows.parquet")], originals=[str(tmp_path)])
    for name in ("json: place", "json: $.\"'[*]"):
        found, _ = slices_of(explorer, name)
        assert [counted for counted in found.values() if counted[0] == 3] == [(3, 3), (3, 3)]
    assert [n for n in explorer.slices(Filter(), "", "5")["dimensions"] if n.startswith("json")] == [
        "json: $.\"'[*]",
        "json: place",
    ]
    for number in range(len(texts)):
        json.dumps(explorer.picture(Filter(), number), ensure_ascii=False).encode()
    explorer.close()


def test_pictures_that_are_gone_are_told_and_shown_nowhere(tmp_path):
    folder = write_table(tmp_path)
    (path,) = folder.glob("*.parquet")
    mark_as_gone(path, [5, 12])  # the best, and one that could not be read
    explorer = Explorer([str(folder)])
    everything = Filter()
    view = explorer.view(everything)
    seen = explorer.rows(everything, range(100))
    slices = explorer.slices(everything, "shape", "top 3")["slices"]
    failures = explorer.failures("")
    near = explorer.neighbours(everything, 0)
    told = explorer.describe()
    explorer.close()
    assert (told["images"], told["deleted"]) == (len(SCORES), 2)  # of fourteen rows
    assert (view["images"], view["reaching"][0], view["unscored"]) == (11, 11, 1)
    assert 5 not in {item["row"] for item in seen}
    assert len(seen) == 11
    assert sum(part["scored"] for part in slices) == 11
    assert [(group["status"], group["images"]) for group in failures] == [("failed", 1)]
    assert {item["row"] for item in near} == set(range(1, 12)) - {5}

"""Whatever bytes come, no file ends the process, keeps it busy, takes its memory, or raises what nobody expects."""

import io
import json
import struct
import subprocess
import sys

import fuzzing
import pytest
from conftest import encode, make_tar, read_rows
from PIL import Image

from tastemaker.explorer.report import write_report
from tastemaker.imaging.xmp import make_xmp
from tastemaker.runs.run import RunOptions, run_scoring
from tastemaker.scores.table import ScoreTable


def test_ten_thousand_damaged_files_become_pictures_samples_rows_or_reasons():
    run = subprocess.run([sys.executable, fuzzing.__file__, "560"], capture_output=True, text=True, check=True)
    reports = json.loads(run.stdout)
    assert {kind: report["problems"] for kind, report in reports.items() if report["problems"]} == {}
    assert sum(report["files"] for report in reports.values()) >= 10_000
    assert all(report["came_out"] for report in reports.values()), "or nothing but the first bytes was looked at"


@pytest.mark.parametrize("side", [50_000, 2**31 - 1, 2**32 - 1])
def test_a_picture_that_claims_any_size_costs_its_own_row_and_no_question_about_sizes(
    tmp_path, photographs, model_dir, side
):
    tags = {256: side, 257: side, 258: 8, 259: 1, 262: 1, 273: 8, 277: 1, 278: side, 279: 100}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/bomb.tif").write_bytes(b"II*\0\x08\0\0\0\x09\0" + entries + bytes(104))
    (tmp_path / "photos/rocket.jpg").write_bytes(photographs["rocket.jpg"])
    run_scoring([str(tmp_path / "photos")], tmp_path / "out", RunOptions(model_dir=str(model_dir)))
    table = ScoreTable(tmp_path / "out")
    assert [row["reason_kind"] for row in table.to_arrow(["reason_kind"]).to_pylist()] == ["too_large", None]
    assert len(table.to_arrow(["image_id"], where="width * height > 100")) >= 1
    assert write_report(table, tmp_path / "report.html", top="1").kept == 1


def test_metadata_that_cannot_be_read_fails_no_picture_and_ends_no_run(tmp_path, photographs, model_dir):
    xmp = make_xmp(4).replace(b"UTF-8", b"klingon")
    with_xmp = encode(Image.open(io.BytesIO(photographs["rocket.jpg"])), "JPEG", xmp=xmp)
    members = [("a.jpg", photographs["rocket.jpg"]), ("a.xmp", xmp), ("b.jpg", with_xmp), ("c.jpg", with_xmp[:-2])]
    (tmp_path / "photos").mkdir()
    for name, data in members:
        (tmp_path / "photos" / name).write_bytes(data)
    make_tar(tmp_path / "photos.tar", members)
    inputs = [str(tmp_path / "photos"), str(tmp_path / "photos.tar")]
    run_scoring(inputs, tmp_path / "out", RunOptions(model_dir=str(model_dir)))
    rows = read_rows(tmp_path / "out" / "rows")
    assert [(row["image_id"], row["status"], row["rating"]) for row in rows] == [(k, "kept", None) for k in "abcabc"]
    assert [row["metadata"] for row in rows if row["image_id"] == "c"] == [
        '{"notes": ["the JPEG lacks its end mark, and nothing else"]}'
    ] * 2

"""The explorer over rows and originals in an object store."""

import io

import pytest
from conftest import make_tar
from PIL import Image
from remote_servers import _impatient, bucket, moto_port  # noqa: F401 - fixtures

from explorer.table import encode_picture
from tastemaker.explorer.index import Filter
from tastemaker.explorer.service import Explorer
from tastemaker.runs.run import RunOptions, run_scoring

pytestmark = pytest.mark.network


def test_rows_pictures_and_sidecars_come_from_where_they_lie(tmp_path, bucket):  # noqa: F811 - a fixture
    members = [("a.jpg", encode_picture(1, 300, 200)), ("a.txt", b"far away"), ("b.jpg", encode_picture(2, 200, 300))]
    (tmp_path / "data").mkdir()
    make_tar(tmp_path / "data" / "0.tar", members)
    (tmp_path / "data" / "loose.jpg").write_bytes(encode_picture(3, 240, 240))
    inputs = bucket.upload(tmp_path / "data", "in/")
    options = RunOptions(rank_by="technical_quality", signals=True, storage_options=bucket.options)
    run_scoring([inputs], f"{bucket.url}/out", options)
    explorer = Explorer([f"{bucket.url}/out"], storage_options=bucket.options)
    rows = explorer.rows(Filter(), range(10))
    details = {row["name"]: explorer.picture(Filter(), row["row"]) for row in rows}
    thumbnails = {row["name"]: explorer.small_picture(row["row"], 400) for row in rows}
    explorer.close()
    assert {name: Image.open(io.BytesIO(data)).size for name, data in thumbnails.items()} == {
        "a": (300, 200),
        "b": (200, 300),
        "loose": (240, 240),
    }
    assert details["a"]["sidecars"] == [["txt", "far away"]]

"""Whole runs with input, output and weights in an object store: the rows and files of a local run."""

# ruff: noqa: F811 - fixtures are arguments

import io
import json
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pyarrow.parquet as pq
import pytest
from conftest import make_tar, write_predictor
from remote_runs import keep, local_files, rows_of, run
from remote_servers import _impatient, bucket, dataset, hub, moto_port, web  # noqa: F401 - fixtures
from web_server import Fault

from tastemaker import FilePartitioningStage, ImageReaderStage
from tastemaker.errors import ConfigurationError, RemoteError, StageError, WeightsNotFoundError
from tastemaker.models.hub import ensure_weights, weights_path
from tastemaker.models.published import find_scorer
from tastemaker.runs.run import RunOptions, run_scoring
from tastemaker.scores.table import ScoreTable
from tastemaker.selections.select import select_images
from tastemaker.selections.selection import Selection
from tastemaker.storage.place import Place, look_anew

pytestmark = pytest.mark.network


@pytest.fixture(scope="module")
def data(tmp_path_factory, photographs):
    """Shards and loose files with everything that may be wrong with them."""
    small = {name: body for name, body in photographs.items() if name in ("chelsea.png", "rocket.jpg")}
    folder = tmp_path_factory.mktemp("data")
    (folder / "shards" / "below").mkdir(parents=True)
    (folder / "photos" / "below").mkdir(parents=True)
    for n in range(3):
        members = [(f"{n}{name}", body) for name, body in small.items()]
        members += [(f"{n}{name.partition('.')[0]}.txt", b"caption") for name in small]
        members += [(f"{n}bad.jpg", b"no image"), (f"{n}empty.jpg", b""), (f"{n}alone.json", b"{}"), ("../up.jpg", b"")]
        make_tar(folder / "shards" / f"{n}.tar", [*members, members[0]])
    make_tar(folder / "shards" / "below" / "z.tar.gz", members, mode="w:gz")
    whole = (folder / "shards" / "0.tar").read_bytes()
    (folder / "shards" / "cut.tar").write_bytes(whole[: len(whole) // 2])
    (folder / "shards" / "damaged.tar").write_bytes(whole[:1000] + random.Random(2).randbytes(3000) + whole[4000:])
    (folder / "shards" / "none.tar").write_bytes(b"no tar")
    for name, body in small.items():
        (folder / "photos" / name).write_bytes(body)
        (folder / "photos" / "below" / name).write_bytes(body)
    (folder / "photos" / "chelsea.txt").write_text("a cat")
    (folder / "photos" / "no_extension").write_bytes(small["rocket.jpg"])
    (folder / "photos" / ".hidden.jpg").write_bytes(small["rocket.jpg"])
    (folder / "photos" / "broken.jpg").write_bytes(small["rocket.jpg"][:5000])
    return folder


def test_rows_of_whatever_is_wrong_with_shards_are_those_of_a_local_run(tmp_path, data, bucket, model_dir):
    url = bucket.upload(data)
    local = run([str(data / "shards")], tmp_path / "out", model_dir)
    remote = run([f"{url}/shards"], f"{url}/out", model_dir, bucket)
    here, there = local_files(tmp_path / "out"), bucket.files("out")
    assert set(there) == set(here)
    assert rows_of(there) == rows_of(here)
    assert (local.images, local.failed, local.reasons) == (remote.images, remote.failed, remote.reasons)
    shard = pq.read_table(io.BytesIO(there["rows/below/z.parquet"])).to_pylist()[0]
    assert shard["shard"] == f"{url}/shards/below/z.tar.gz"
    assert shard["image_path"] == f"{shard['shard']}/2chelsea.png"


def test_a_caption_behind_the_window_is_a_failed_row_and_its_picture_is_kept(
    tmp_path, bucket, model_dir, photographs, monkeypatch
):
    monkeypatch.setattr("tastemaker.imaging.shards.WINDOW_BYTES", 100_000)
    members = [(f"{n:02d}.jpg", photographs["rocket.jpg"]) for n in range(20)]
    (tmp_path / "data").mkdir()
    path = make_tar(tmp_path / "data" / "a.tar", [*members, ("00.txt", b"a rocket")])
    remote = run([f"{bucket.upload(tmp_path / 'data')}/{path.name}"], f"{bucket.url}/out", model_dir, bucket)
    assert (remote.images, remote.failed) == (21, 1)
    rows = pq.read_table(io.BytesIO(bucket.files("out")["rows/a.parquet"])).to_pylist()
    late = [(row["status"], row["reason"]) for row in rows if row["image_id"] == "00"]
    assert late[0] == ("kept", None)
    assert late[1][0] == "failed"
    assert "late member: '00.txt' lies too far behind the other members of '00'" in late[1][1]


def test_loose_images_and_their_captions_are_those_of_a_local_run(tmp_path, data, bucket, model_dir):
    url = bucket.upload(data)
    keep([str(data / "photos")], tmp_path / "out", model_dir, kind="folder")
    keep([f"{url}/photos"], f"{url}/out", model_dir, bucket, kind="folder")
    here, there = local_files(tmp_path / "out"), bucket.files("out")
    assert "kept/chelsea.txt" in there
    kept = [name for name in here if name.startswith("kept/") and "_tastemaker" not in name]
    assert {name: there[name] for name in kept} == {name: here[name] for name in kept}
    assert set(there) == set(here)

    def without_places(files):
        rows = rows_of(files)["photos-00000.parquet"]
        return [row | {"sidecars": [s | {"member": s["member"][-9:]} for s in row["sidecars"]]} for row in rows]

    assert without_places(there) == without_places(here)
    assert [row["image_id"] for row in without_places(there)] == [
        *("below/chelsea", "below/rocket", "broken", "chelsea", "no_extension", "rocket")
    ]
    bucket.store.delete("photos/chelsea.png")
    bucket.store.put("photos/added.jpg", (data / "photos" / "rocket.jpg").read_bytes())
    assert run([f"{url}/photos"], f"{url}/out", model_dir, bucket).images_scored_now == 1
    rows = [row for rows in rows_of(bucket.files("out")).values() for row in rows]
    assert [row["image_id"] for row in rows if row["status"] == "deleted"] == ["chelsea"]
    assert "added" in {row["image_id"] for row in rows if row["status"] == "kept"}


def test_a_server_that_does_not_answer_for_one_shard_costs_that_shard_alone(data, web, model_dir, tmp_path):
    for name in ("0.tar", "1.tar"):
        (web.folder / name).write_bytes((data / "shards" / name).read_bytes())
    urls = [f"{web.url}/0.tar", f"{web.url}/1.tar"]

    def row_counts():
        run(urls, tmp_path / "out", model_dir)
        return [pq.read_metadata(tmp_path / "out" / "rows" / name).num_rows for name in ("0.parquet", "1.parquet")]

    web.only, web.always = "1.tar", Fault(status=500)
    all_rows, failed = row_counts()
    [row] = pq.read_table(tmp_path / "out" / "rows" / "1.parquet").to_pylist()
    web.always = None
    assert failed == 1
    assert row["reason"].startswith("unreadable: the shard cannot be read: ")
    assert row_counts() == [all_rows, all_rows]  # it answers now, so it is another version than before

    web.only, web.always = "0.tar", Fault(status=500)
    assert row_counts() == [all_rows, all_rows]  # what its rows say is worth more than that it does not answer
    web.only = ""
    with pytest.raises(ConfigurationError, match=r"0\.tar cannot be looked at: .*500"):
        row_counts()


def test_an_upload_that_fails_leaves_nothing_to_be_seen_and_no_draft(data, bucket, model_dir, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    url = bucket.upload(data)
    bucket.server.only, bucket.server.always = f"/{bucket.name}/out/rows/0", Fault(status=500)
    with pytest.raises((StageError, RemoteError), match=r"out/rows/0\.parquet cannot be .*given up after 3 tries"):
        run([f"{url}/shards/0.tar"], f"{url}/out", model_dir, bucket)
    assert set(bucket.files("out")) == {"_tastemaker/run.json"}
    assert list(tmp_path.rglob(".tastemaker-tmp-*")) == []
    bucket.server.always = None
    run([f"{url}/shards/0.tar"], f"{url}/out", model_dir, bucket)
    assert set(bucket.files("out")) == {"rows/0.parquet", "_tastemaker/run.json", "_tastemaker/index.json"}


@pytest.mark.parametrize("kind", ["bucket", "dataset"])
def test_weights_at_a_url_are_fetched_once_and_anew_when_they_change(tmp_path, model_dir, kind, request):
    store = request.getfixturevalue(kind)
    url = store.upload(model_dir, "models/")
    clip, head = find_scorer().backbone, find_scorer().head
    store.server.faults, store.server.only = [Fault(cut_after=5000)], f"{clip.id}/{clip.filename}"
    paths = {ensure_weights(clip, url, store.options) for _ in range(2)}
    [path] = paths
    assert path.read_bytes() == weights_path(clip, model_dir).read_bytes()
    assert len(store.server.reads(f"{clip.id}/{clip.filename}")) == 2  # cut once
    own = replace(head, path=f"{url}/{head.id}/{head.filename}")
    first = ensure_weights(own, None, store.options).read_bytes()
    (tmp_path / "new" / head.id).mkdir(parents=True)
    changed = write_predictor(model_dir, tmp_path / "new" / head.id / head.filename, 2)
    store.upload(tmp_path / "new", "models/")
    look_anew([url])
    assert ensure_weights(own, None, store.options).read_bytes() == changed.read_bytes() != first
    with pytest.raises(WeightsNotFoundError, match=r"nowhere/.* does not exist"):
        ensure_weights(clip, f"{url}/nowhere", store.options)


def test_no_secret_is_written(data, bucket, model_dir, web, tmp_path):
    (tmp_path / "web" / "a.tar").write_bytes((data / "shards" / "0.tar").read_bytes())
    options = bucket.options | {"client_kwargs": {"aws_session_token": "SECRET-1"}}
    inputs = [f"{bucket.upload(data)}/shards/2.tar"]
    chosen = RunOptions(model_dir=str(model_dir), storage_options={"s3": options})
    run_scoring([*inputs, f"{web.url}/a.tar?sig=SECRET-2"], tmp_path / "out", chosen)
    assert not any(b"SECRET" in body for body in local_files(tmp_path).values())
    assert "SECRET" not in repr(chosen) + repr(FilePartitioningStage("x", storage_options=options))
    assert json.loads((tmp_path / "out" / "_tastemaker" / "run.json").read_text())["inputs"][1] == f"{web.url}/a.tar"


def test_no_signature_is_logged_or_said(data, web, photographs, model_dir, tmp_path, caplog, monkeypatch):
    (web.folder / "cut.tar").write_bytes((data / "shards" / "cut.tar").read_bytes())
    (web.folder / "a.jpg").write_bytes(photographs["rocket.jpg"])
    urls = [f"{web.url}/{name}?sig=SECRET".replace("://", "://me:SECRET@") for name in ("cut.tar", "a.jpg")]
    caplog.set_level("INFO", "tastemaker")
    run(urls, tmp_path / "out", model_dir, verbose=True)
    assert all(words in caplog.text for words in ("failed: unreadable", "cut.tar"))
    assert "SECRET" not in caplog.text

    def fail(*_):
        raise ValueError("no")

    monkeypatch.setattr("tastemaker.models.aesthetic.AestheticPredictor.score", fail)
    with pytest.raises(StageError, match=r"cut\.tar, keys") as raised:
        run(urls, tmp_path / "again", model_dir)
    assert "SECRET" not in str(raised.value)


def test_remote_files_are_partitioned_as_local_ones(data, bucket):
    url = bucket.upload(data)
    for options in ({"files_per_partition": 2}, {"blocksize": "1MB"}, {"file_extensions": [".jpg"]}, {"limit": 2}):
        groups = FilePartitioningStage(f"{url}/", storage_options=bucket.options, **options).process()
        expected = FilePartitioningStage(str(data), **options).process()
        assert [[p.removeprefix(url) for p in g.data] for g in groups] == [
            [p.removeprefix(str(data)) for p in g.data] for g in expected
        ]
        assert [g.partition.source_bytes for g in groups] == [g.partition.source_bytes for g in expected]
    with pytest.raises(ConfigurationError, match=r"shards/nothing.* does not exist"):
        FilePartitioningStage(f"{url}/shards/nothing*", storage_options=bucket.options).process()


@pytest.mark.parametrize("name", ["in/../x.jpg", "in//x.jpg"])
def test_an_object_with_a_name_that_is_no_path_is_one_failed_row_and_the_others_are_read(
    bucket, photographs, tmp_path, model_dir, name
):
    body = photographs["rocket.jpg"]
    for good in ("before/a.jpg", "in/0.jpg", "in/below/b.jpg", "z.jpg"):
        bucket.store.put(good, body)
    address = f"http://127.0.0.1:{bucket.server.forward_to}"
    s3 = pytest.importorskip("boto3").client("s3", endpoint_url=address, region_name="us-east-1")
    s3.put_object(Bucket=bucket.name, Key=name, Body=body)
    run([bucket.url], tmp_path / "out", model_dir, bucket)
    rows = ScoreTable(tmp_path / "out").to_arrow(["image_path", "status", "reason_kind"]).to_pylist()
    paths = {row["image_path"].removeprefix(f"{bucket.url}/"): row["status"] for row in rows}
    assert paths.pop(name) == "failed"
    assert paths == dict.fromkeys(("before/a.jpg", "in/0.jpg", "in/below/b.jpg", "z.jpg"), "kept")
    files = Place.of(f"{bucket.url}/in", bucket.options).list(recursive=False)
    assert [entry.place.name for entry in files] == ["0.jpg"]


def test_a_web_server_is_asked_for_named_files_only(web, tmp_path, photographs):
    with pytest.raises(ConfigurationError, match="name each file"):
        FilePartitioningStage(f"{web.url}/photos/").process()
    with pytest.raises(ConfigurationError, match="does not exist"):
        FilePartitioningStage(f"{web.url}/gone.tar").process()
    (tmp_path / "web" / "a b.jpg").write_bytes(photographs["rocket.jpg"])
    [group] = FilePartitioningStage(f"{web.url}/a%20b.jpg").process()
    assert group.partition.source_bytes == len(photographs["rocket.jpg"])


def test_many_loose_images_at_urls_come_in_the_order_of_their_names(web, photographs):
    names = [f"{n:02d}.jpg" for n in range(40)]
    for name in names:
        (web.folder / name).write_bytes(photographs["rocket.jpg"])
    [group] = FilePartitioningStage([f"{web.url}/{name}" for name in names]).process()
    images = [image for batch in ImageReaderStage().process(group) for image in batch.data]
    assert [image.image_path for image in images] == [f"{web.url}/{name}" for name in names]


@pytest.mark.parametrize("shard", ["1.tar", "below/z.tar.gz"])
def test_bytes_that_were_freed_are_read_again_by_their_range_also_of_a_shard_that_is_called_plain(data, bucket, shard):
    bucket.store.put("plain.tar", (data / "shards" / shard).read_bytes())
    [group] = FilePartitioningStage(f"{bucket.url}/plain.tar", storage_options=bucket.options).process()
    [batch] = ImageReaderStage().process(group)
    image = batch.data[0]
    before = image.encoded
    image.remove_image_data()
    assert image.encoded is None
    sent, reads = bucket.server.sent("plain.tar"), len(bucket.server.reads("plain.tar"))
    assert image.read_encoded() == before
    if shard == "1.tar":
        assert bucket.server.sent("plain.tar") - sent == len(before)
        assert len(bucket.server.reads("plain.tar")) - reads == 1


def test_rows_in_a_bucket_and_on_a_web_server_are_selected_from_and_only_the_kept_bytes_are_read(
    data, bucket, web, model_dir, tmp_path
):
    url = bucket.upload(data)
    run([f"{url}/shards/2.tar"], f"{url}/out", model_dir, bucket)
    (tmp_path / "web" / "2.parquet").write_bytes(bucket.files("out")["rows/2.parquet"])
    options, picture = {"s3": bucket.options}, (data / "photos" / "rocket.jpg").read_bytes()
    for number, place in enumerate((f"{url}/out", f"{web.url}/2.parquet")):
        table, sent = ScoreTable(place, storage_options=options, originals=f"{url}/shards"), bucket.server.sent("2.tar")
        done = select_images(table, tmp_path / f"best{number}", Selection(where="image_id = '2rocket'"), kind="folder")
        assert (done.written, done.skipped) == (1, {})
        found = [p.read_bytes() for p in sorted((tmp_path / f"best{number}").rglob("*.jpg"))]
        assert found == [picture]
        assert bucket.server.sent("2.tar") - sent < len(picture) + 5000


@pytest.mark.slow
def test_a_killed_run_leaves_complete_files_only_and_is_finished_by_the_next(tmp_path, data, bucket, model_dir):
    url = bucket.upload(data)
    arguments = [f"{url}/shards", "--output", f"{url}/out", "--model-dir", str(model_dir)]
    arguments += ["--storage-options", json.dumps(bucket.options), "--json"]
    command = [sys.executable, "-m", "tastemaker", "score", *arguments]
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    bucket.server.latency_s = 0.1
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment)
    deadline = time.monotonic() + 60
    while not rows_of(bucket.files("out")) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    assert process.poll() is None
    process.send_signal(signal.SIGKILL)
    process.wait()
    bucket.server.latency_s = 0
    run([str(data / "shards")], tmp_path / "local", model_dir)
    whole, seen = local_files(tmp_path / "local"), bucket.files("out")
    assert 0 < len(rows_of(seen)) < len(rows_of(whole))
    assert json.loads(seen["_tastemaker/run.json"])["state"] == "running"
    for name, rows in rows_of(seen).items():
        assert rows == rows_of(whole)[name]
    subprocess.run(command, check=True, capture_output=True, env=environment)
    assert rows_of(bucket.files("out")) == rows_of(whole)
    assert list(tmp_path.rglob("tastemaker-drafts-*/*")) == []

"""Embeddings in an object store and on web servers: the rows of a local run."""

# ruff: noqa: F811 - fixtures are arguments

import io
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from embedding_files import clip_retrieval, unit_vectors  # noqa: F401 - one is a fixture
from remote_servers import _impatient, bucket, moto_port, plain_web, web  # noqa: F401 - fixtures
from web_server import Fault

from tastemaker.embeddings.find import find_embeddings
from tastemaker.runs.run import RunOptions, run_scoring

pytestmark = pytest.mark.network


def write_kind(folder, kind, vectors):
    """Write embeddings as a file of one kind, and return its path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"given.{kind}"
    table = pa.table({"id": range(len(vectors)), "embedding": pa.FixedSizeListArray.from_arrays(vectors.ravel(), 768)})
    if kind == "npy":
        np.save(path, vectors)
    elif kind == "npz":
        np.savez_compressed(path, l14_img=vectors, l14_txt=-vectors)
    else:
        pq.write_table(table, path, row_group_size=700)
    return path


@pytest.fixture
def score(model_dir):
    def run(given, output, bucket=None, **options):
        options = RunOptions(model_dir=str(model_dir), storage_options=bucket and bucket.options, **options)
        return run_scoring([str(path) for path in given], output, options)

    return run


def read(path):
    return pq.read_table(path).to_pylist()


def rows_of(bucket, below):
    return {
        name: pq.read_table(io.BytesIO(body)).to_pylist()
        for name, body in bucket.files(below).items()
        if name.endswith(".parquet")
    }


def test_a_clip_retrieval_folder_has_the_rows_of_a_local_run(tmp_path, clip_retrieval, bucket, score):
    url = bucket.upload(clip_retrieval, "laion/")
    score([clip_retrieval], tmp_path / "out")
    summary = score([url], f"{bucket.url}/out", bucket)
    there = rows_of(bucket, "out/rows")
    assert summary.images == 50
    assert there == {
        f"img_emb/img_emb_{n}.parquet": read(tmp_path / f"out/rows/img_emb/img_emb_{n}.parquet") for n in (0, 1)
    }
    body = bucket.files("out/rows")["img_emb/img_emb_1.parquet"]
    made_by = json.loads(pq.read_schema(io.BytesIO(body)).metadata[b"tastemaker"])
    assert made_by["embeddings"]["file"] == f"{url}/img_emb/img_emb_1.npy"
    assert made_by["embeddings"]["metadata"] == f"{url}/metadata/metadata_1.parquet"


@pytest.mark.parametrize(("server", "kind"), [("web", "npy"), ("plain_web", "npz")])
def test_web_servers_serve_every_kind_without_ranges_too(tmp_path, kind, server, score, request):
    site = request.getfixturevalue(server)
    path = write_kind(site.folder, kind, unit_vectors(2000))
    score([path], tmp_path / "here")
    score([f"{site.url}/given.{kind}?signature=secret"], tmp_path / "there")
    written = tmp_path / "there" / "rows" / "given.parquet"
    assert read(written) == read(tmp_path / "here" / "rows" / "given.parquet")
    assert b"secret" not in written.read_bytes()


def test_metadata_beside_a_file_on_a_web_server_is_found(tmp_path, web, score):
    np.savez(web.folder / "00ab.npz", l14_img=unit_vectors(3))
    pq.write_table(pa.table({"uid": ["x", "y", "z"], "text": ["a", "b", "c"]}), web.folder / "00ab.parquet")
    score([f"{web.url}/00ab.npz"], tmp_path / "out")
    assert [row["image_id"] for row in read(tmp_path / "out" / "rows" / "00ab.parquet")] == ["x", "y", "z"]
    web.only, web.always = ".parquet", Fault(status=403)  # as stores say of what is not there
    assert [file.metadata for file in find_embeddings([f"{web.url}/00ab.npz"])] == [None]


def test_a_run_is_resumed_and_a_replaced_file_is_scored_anew(clip_retrieval, bucket, score):
    url = bucket.upload(clip_retrieval, "laion/")
    arguments = ([f"{url}/img_emb/*.npy"], f"{bucket.url}/out", bucket)
    assert score(*arguments).images_scored_now == 50
    assert score(*arguments).images_scored_now == 0
    body = (clip_retrieval / "img_emb" / "img_emb_1.npy").read_bytes()
    bucket.store.put("laion/img_emb/img_emb_1.npy", body[:128] + body[128:][::-1])
    assert score(*arguments).images_scored_now == 20


@pytest.mark.parametrize("kind", ["npy", "npz", "parquet"])
def test_every_kind_of_file_in_a_store_has_the_rows_of_a_local_run_though_its_connection_is_cut(
    tmp_path, kind, bucket, score
):
    path = write_kind(tmp_path / "given", kind, unit_vectors(2000))
    url = bucket.upload(path.parent)
    score([path], tmp_path / "here")
    bucket.server.only, bucket.server.faults = "given.", [Fault(cut_after=5000), Fault(reset=True)]
    score([f"{url}/given.{kind}"], tmp_path / "there", bucket)
    assert not bucket.server.faults
    rows = read(tmp_path / "there" / "rows" / "given.parquet")
    assert rows == read(tmp_path / "here" / "rows" / "given.parquet")
    assert sum(row["status"] == "kept" for row in rows) == 2000


def test_a_file_that_cannot_be_read_is_a_failed_row_and_the_others_are_scored(tmp_path, bucket, score):
    for folder in "ab":
        write_kind(tmp_path / "given" / folder, "npy", unit_vectors(20))
    url = bucket.upload(tmp_path / "given")
    bucket.server.only, bucket.server.always = "a/given.", Fault(status=503)
    summary = score([f"{url}/a/given.npy", f"{url}/b/given.npy"], tmp_path / "out", bucket)
    assert (summary.kept, summary.failed) == (20, 1)
    [row] = read(tmp_path / "out" / "rows" / "given.parquet")
    assert row["status"] == "failed"
    assert row["reason"].startswith(f"unreadable: {url}/a/given.npy cannot be read")
    assert "given up after 3 tries" in row["reason"]


def test_looking_for_embeddings_reads_headers_only(tmp_path, bucket):
    write_kind(tmp_path / "given", "npy", unit_vectors(5000))
    url = bucket.upload(tmp_path / "given")
    assert [file.path for file in find_embeddings([url], None, bucket.options)] == [f"{url}/given.npy"]
    assert bucket.server.sent("given.npy") < 100_000

"""Removing duplicates under NeMo Curator's names: embeddings, a list of duplicates, tars without them."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import encode, make_tar, read_rows, read_tars
from nemo_scripts import run_as_user
from tiny import picture, snapshot

from tastemaker.compat.nemo_curator.duplicates import (
    DocumentBatch,
    ImageDuplicatesRemovalStage,
    ParquetWriter,
    SemanticDeduplicationWorkflow,
)
from tastemaker.errors import ConfigurationError
from tastemaker.imaging.decode import decode_image
from tastemaker.tasks import ImageBatch, ImageObject

SCRIPT = """
import sys
from nemo_curator.core.client import RayClient
from nemo_curator.pipeline import Pipeline
from nemo_curator.stages.deduplication.semantic import SemanticDeduplicationWorkflow
from nemo_curator.stages.file_partitioning import FilePartitioningStage
from nemo_curator.stages.image.deduplication.removal import ImageDuplicatesRemovalStage
from nemo_curator.stages.image.embedders.clip_embedder import ImageEmbeddingStage
from nemo_curator.stages.image.io.convert import ConvertImageBatchToDocumentBatchStage
from nemo_curator.stages.image.io.image_reader import ImageReaderStage
from nemo_curator.stages.image.io.image_writer import ImageWriterStage
from nemo_curator.stages.text.io.writer.parquet import ParquetWriter

shards, models, name, out = sys.argv[1:]
client = RayClient()
client.start()


def read():
    return [
        FilePartitioningStage(file_paths=shards, files_per_partition=1, file_extensions=[".tar"]),
        ImageReaderStage(dali_batch_size=3, verbose=False, num_threads=2, num_gpus_per_worker=0.25),
    ]


embedding = Pipeline(name="embeddings", description="Images to vectors", stages=[
    *read(),
    ImageEmbeddingStage(model_dir=models, num_gpus_per_worker=0.25, model_inference_batch_size=8, verbose=False),
    ConvertImageBatchToDocumentBatchStage(fields=[name, "embedding"]),
    ParquetWriter(path=f"{out}/embeddings"),
])
print(embedding.describe())
embedding.run(checkpoint_path=None)
result = SemanticDeduplicationWorkflow(
    input_path=f"{out}/embeddings", output_path=f"{out}/removal", id_field=name, embedding_field="embedding",
    n_clusters=100, eps=0.01, read_kwargs={"storage_options": {}}, write_kwargs={"storage_options": {}}, verbose=False,
).run(checkpoint_path=None)
print("duplicates:", result.metadata["num_duplicates"])
removal = Pipeline(name="removal", description="Images without duplicates", stages=[
    *read(),
    ImageDuplicatesRemovalStage(f"{out}/removal/duplicates", duplicate_id_field="id", verbose=False),
    ImageWriterStage(output_dir=f"{out}/unique", remove_image_data=True, verbose=False),
])
removal.run(checkpoint_path=None)
client.stop()
"""


@pytest.fixture
def shards(tmp_path):
    """Two shards of four pictures; one is there a second time, and one as a copy of lower quality."""
    folder = tmp_path / "shards"
    folder.mkdir()
    pictures = [picture(number) for number in range(8)]
    pictures[5] = pictures[0]
    pictures[6] = encode(decode_image(pictures[2]).pixels, "JPEG", quality=90)
    for shard in range(2):
        members = [(f"{n:03d}.jpg", pictures[n]) for n in range(4 * shard, 4 * shard + 4)]
        make_tar(folder / f"{shard}.tar", [*members, (f"{4 * shard:03d}.txt", b"a caption")])
    return folder


def test_a_script_that_removes_duplicates_runs_unchanged(tmp_path, shards, model_dir):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    for _ in range(2):
        told = run_as_user(script, str(shards), str(model_dir), "image_id", str(tmp_path))
        assert told.returncode == 0, told.stderr
    listed = pq.read_table(tmp_path / "removal" / "duplicates")["id"].to_pylist()
    assert f"duplicates: {len(listed)}" in told.stdout
    assert {"005"} <= set(listed) <= {"005", "006"}
    kept = read_tars(tmp_path / "unique")
    assert {name.partition(".")[0] for name in kept} == {f"{n:03d}" for n in range(8)} - set(listed)
    rows = read_rows(tmp_path / "unique")
    assert {row["image_id"] for row in rows if row["status"] == "dropped"} == set(listed)
    assert all("image_dedup_filter" in row["reason"] for row in rows if row["status"] == "dropped")


def test_names_that_two_images_share_are_refused_and_paths_are_not(tmp_path, model_dir):
    folder = tmp_path / "shards"
    folder.mkdir()
    for shard in range(2):
        make_tar(folder / f"{shard}.tar", [("0.jpg", picture(7)), ("1.jpg", picture(shard))])
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    told = run_as_user(script, str(folder), str(model_dir), "image_id", str(tmp_path))
    assert told.returncode == 1
    assert "two images are called '0'" in told.stderr
    for path in (tmp_path / "embeddings").glob("*.parquet"):
        path.unlink()
    told = run_as_user(script, str(folder), str(model_dir), "image_path", str(tmp_path))
    assert told.returncode == 0, told.stderr
    assert [row["image_path"][-11:] for row in read_rows(tmp_path / "unique") if row["status"] == "dropped"] == [
        "1.tar/0.jpg"
    ]


def write_vectors(folder, vectors, names=None):
    folder.mkdir(parents=True)
    names = [f"{n}" for n in range(len(vectors))] if names is None else names
    pq.write_table(pa.table({"id": names, "embeddings": list(vectors)}), folder / "0.parquet")
    return folder


def test_duplicates_are_those_with_a_cosine_of_one_less_eps(tmp_path):
    angles = np.arccos([1, 0.995, 0.985, 0.5])
    folder = write_vectors(tmp_path / "in", np.stack([np.cos(angles), np.sin(angles)], 1).astype(np.float32))
    for eps, listed in ((0.01, ["1"]), (0.02, ["1", "2"]), (0.001, [])):
        result = SemanticDeduplicationWorkflow(str(folder), str(tmp_path / "out"), 5, eps=eps).run()
        assert result.get_metadata("num_duplicates") == len(listed)
        result.add_metadata("a", 1)
        result.extend_metadata({"b": 2})
        result.add_pipeline_tasks("empty", None)
        assert (result.get_metadata("a"), result.get_metadata("b"), result.pipeline_tasks["empty"]) == (1, 2, [])
        assert pq.read_table(tmp_path / "out" / "duplicates")["id"].to_pylist() == listed


def test_files_of_others_are_never_replaced(tmp_path):
    folder = write_vectors(tmp_path / "in", np.eye(2, dtype=np.float32))
    (tmp_path / "out" / "duplicates").mkdir(parents=True)
    for name in ("mine.parquet", "duplicates/duplicates.parquet"):
        (tmp_path / "out" / name).write_bytes(b"mine")
    before = snapshot(tmp_path / "out")
    with pytest.raises(ConfigurationError, match="Tastemaker did not write it"):
        SemanticDeduplicationWorkflow(
            *(str(folder), str(tmp_path / "out"), 5, "cache", "id", "embeddings", None, "parquet", None, 300, 1e-4, 42),
            *("k-means||", 1, 2.0, 32768, None, "cosine", "hard", None, 1024, 0.1),  # all by position, to eps
        ).run()
    writer = ParquetWriter(str(tmp_path / "out"))
    task = DocumentBatch("d", pa.table({"a": [1]}), task_id="0")
    (path,) = writer.process(task).data
    written = (tmp_path / path).read_bytes()
    assert writer.process(task).data == [path]
    (tmp_path / path).write_bytes(b"edited")
    writer.process(task)
    assert (tmp_path / path).read_bytes() == written
    assert before.items() <= snapshot(tmp_path / "out").items()
    assert b"edited" in [p.read_bytes() for p in (tmp_path / "out" / "_tastemaker" / "aside").rglob("*.parquet")]
    with pytest.raises(ConfigurationError, match="is there already"):
        ParquetWriter(str(tmp_path / "out"), mode="error")


@pytest.mark.parametrize(
    "options",
    [{}, {"eps": 1.0}, {"eps": 0.1, "input_filetype": "jsonl"}, {"eps": 0.1, "distance_metric": "l2"}],
)
def test_what_the_workflow_does_not_do_is_refused(options):
    with pytest.raises(ConfigurationError):
        SemanticDeduplicationWorkflow("in", "out", 5, **options)


def test_input_without_embeddings_is_named(tmp_path):
    (tmp_path / "in").mkdir()
    workflow = SemanticDeduplicationWorkflow(str(tmp_path / "in"), str(tmp_path / "out"), 5, eps=0.1)
    with pytest.raises(ConfigurationError, match="no Parquet files"):
        workflow.run()
    pq.write_table(pa.table({"id": ["a"]}), tmp_path / "in" / "a.parquet")
    with pytest.raises(ConfigurationError, match="embeddings"):
        workflow.run()


def test_another_list_of_duplicates_is_another_pipeline(tmp_path):
    stage = ImageDuplicatesRemovalStage(str(tmp_path))
    with pytest.raises(FileNotFoundError):
        stage.setup()
    pq.write_table(pa.table({"id": ["a"]}), tmp_path / "0.parquet")
    first = stage.fingerprint()
    pq.write_table(pa.table({"id": ["b", "p/c.jpg"]}), tmp_path / "1.parquet")
    assert stage.fingerprint() != first
    stage.setup()
    images = [ImageObject(image_path=f"p/{name}.jpg", image_id=name) for name in "abcd"]
    assert [image.image_id for image in stage.process(ImageBatch(data=images)).data] == ["d"]

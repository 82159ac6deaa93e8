"""Single stages, called as a program would call them without a pipeline."""

import os
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from conftest import encode, make_tar
from PIL import Image
from tiny import picture, unit_vectors

from tastemaker import (
    ConfigurationError,
    FileGroupTask,
    ImageAestheticFilterStage,
    ImageBatch,
    ImageEmbeddingStage,
    ImageObject,
    ImageReaderStage,
    ImageWriterStage,
    LocalExecutor,
    ModelError,
    Resources,
)
from tastemaker.models.hub import weights_path
from tastemaker.models.published.laion_v2 import AESTHETIC_PREDICTOR
from tastemaker.tasks import Partition


def random_pixels(seed=0, shape=(50, 70, 3)):
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def batch_with_embeddings(number):
    images = [
        ImageObject(image_id=f"{n}", image_path=f"{n}.jpg", embedding=e) for n, e in enumerate(unit_vectors(number))
    ]
    return ImageBatch(data=images, dataset_name="d")


def test_pixels_made_by_a_program_are_embedded_like_a_file_with_them(model_dir, tmp_path):
    pixels = random_pixels()
    stage = ImageEmbeddingStage(model_dir=str(model_dir), precision="f32")
    by_hand = stage.process(ImageBatch(data=[ImageObject(image_data=pixels)])).data[0].embedding
    shard = make_tar(tmp_path / "a.tar", [("a.png", encode(pixels, "PNG"))])
    [read] = ImageReaderStage().process(FileGroupTask(data=[str(shard)]))
    assert np.array_equal(stage.process(read).data[0].embedding, by_hand)
    assert by_hand.dtype == np.float32
    assert by_hand.shape == (768,)


def test_files_are_turned_as_exif_says_and_images_in_shards_are_not_unless_one_says_so(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    lying = encode(random_pixels(), "JPEG", exif=exif)
    (tmp_path / "a.jpg").write_bytes(lying)
    make_tar(tmp_path / "a.tar", [("a.jpg", lying)])
    for wanted, files, shards in ((None, True, False), (False, False, False), (True, True, True)):
        for name, turned in (("a.jpg", files), ("a.tar", shards)):
            reader = ImageReaderStage(apply_exif_rotation=wanted)
            [batch] = reader.process(FileGroupTask(data=[str(tmp_path / name)]))
            assert batch.data[0].image_data.shape == ((70, 50, 3) if turned else (50, 70, 3))
            assert batch.partition.provenance["exif_rotation"] == ("applied" if turned else "ignored")


def test_pixels_that_are_no_picture_fail_alone(model_dir):
    images = [ImageObject(image_id="float", image_data=np.zeros((4, 4, 3))), ImageObject(image_id="none")]
    images.append(ImageObject(image_id="fine", image_data=random_pixels()))
    batch = ImageEmbeddingStage(model_dir=str(model_dir)).process(ImageBatch(data=images))
    assert [image.image_id for image in batch.data] == ["fine"]
    assert all(image.failed and image.reason.startswith("unreadable: ") for image in batch.dropped)


def test_the_old_names_of_the_batch_size_are_accepted():
    assert ImageReaderStage().batch_size == 100
    assert ImageReaderStage(dali_batch_size=7).batch_size == 7
    assert ImageReaderStage(task_batch_size=8).batch_size == 8
    for option in ("batch_size", "dali_batch_size", "task_batch_size"):
        with pytest.raises(ConfigurationError, match="batch_size=0 is less than 1"):
            ImageReaderStage(**{option: 0})


def test_the_reader_gives_pixels_on_demand_and_batches_of_the_size_asked_for(tmp_path):
    pixels = [random_pixels(n, (20 + n, 30, 3)) for n in range(7)]
    shard = make_tar(tmp_path / "a.tar", [(f"{n}.png", encode(p, "PNG")) for n, p in enumerate(pixels)])
    batches = ImageReaderStage(batch_size=3).process(FileGroupTask(data=[str(shard)]))
    assert [batch.num_items for batch in batches] == [3, 3, 1]
    assert [batch.partition.is_last_batch for batch in batches] == [False, False, True]
    images = [image for batch in batches for image in batch.data]
    assert not any(image.has_pixels for image in images)
    assert all(np.array_equal(image.image_data, p) for image, p in zip(images, pixels, strict=True))
    assert [(image.width, image.height) for image in images] == [(30, 20 + n) for n in range(7)]


def test_a_batch_of_large_files_ends_early_and_loses_none(tmp_path):
    """Half a dozen batches are under way at a time: of TIFFs of 100 MB that was more memory than most machines have."""
    paths = [tmp_path / f"{number}.jpg" for number in range(6)]
    for path in paths:
        path.write_bytes(encode(random_pixels(), "JPEG"))
        os.truncate(path, 2**26)  # zeros behind the picture
    stage, task = ImageReaderStage(batch_size=32), FileGroupTask(data=[*map(str, paths)])
    read = [(*(image.image_id for image in batch.data), batch.partition.is_last_batch) for batch in stage.stream(task)]
    assert read == [("0", "1", "2", "3", False), ("4", "5", True)]


def test_a_shard_that_the_system_cannot_read_is_a_row(tmp_path):
    [batch] = ImageReaderStage().process(FileGroupTask(data=[str(tmp_path / "gone.tar")]))
    assert batch.data == []
    assert "No such file" in batch.dropped[0].reason


def test_a_score_equal_to_the_threshold_is_kept(model_dir):
    score = ImageAestheticFilterStage(str(model_dir), score_threshold=None).process(batch_with_embeddings(1)).data[0]
    for threshold, kept in ((score.aesthetic_score, 1), (np.nextafter(np.float32(score.aesthetic_score), 99), 0)):
        stage = ImageAestheticFilterStage(str(model_dir), score_threshold=float(threshold))
        batch = stage.process(batch_with_embeddings(1))
        assert len(batch.data) == kept
    assert batch.dropped[0].aesthetic_score == score.aesthetic_score
    assert "is below" in batch.dropped[0].reason


def test_verbose_logs_each_dropped_image_and_a_count(model_dir, caplog):
    caplog.set_level("INFO", "tastemaker")
    ImageAestheticFilterStage(str(model_dir), score_threshold=99, verbose=True).process(batch_with_embeddings(3))
    messages = [record.getMessage() for record in caplog.records]
    assert sum("filtered out: aesthetic_score" in message for message in messages) == 3
    assert "Aesthetic filtering: 0/3 images passed, 3 filtered out" in messages


def test_embeddings_that_cannot_be_scored_are_an_error_that_says_what_to_do(model_dir):
    stage = ImageAestheticFilterStage(str(model_dir))
    with pytest.raises(ModelError, match="put an ImageEmbeddingStage before"):
        stage.process(ImageBatch(data=[ImageObject(image_id="x")]))
    with pytest.raises(ModelError, match="divide embeddings by their L2 norm"):
        stage.process(ImageBatch(data=[ImageObject(embedding=np.full(768, 9, np.float32))]))
    with pytest.raises(ModelError, match=r"\(n, 768\)"):
        stage.process(ImageBatch(data=[ImageObject(embedding=np.ones(512, np.float32))]))


def test_another_predictor_is_taken_by_its_path(model_dir, tmp_path):
    path = weights_path(AESTHETIC_PREDICTOR, model_dir)
    own = shutil.copy(path, tmp_path / "My taste.safetensors")
    stage = ImageAestheticFilterStage(str(model_dir), scorer=["laion-v2", str(own)], score_threshold=None)
    [image, _] = stage.process(batch_with_embeddings(2)).data
    assert image.scores == {"aesthetic_score": image.aesthetic_score, "my_taste": image.aesthetic_score}
    bare = ImageAestheticFilterStage(str(model_dir), score_threshold=None)
    [image, _] = bare.with_(scorer=str(own)).process(batch_with_embeddings(2)).data
    assert list(image.scores) == ["my_taste"]
    with pytest.raises(ConfigurationError, match=r"missing\.pth does not exist"):
        ImageAestheticFilterStage(scorer="missing.pth")


@pytest.mark.parametrize(
    "make",
    [
        lambda: ImageReaderStage(batch_size=0),
        lambda: ImageReaderStage(preprocess="other"),
        lambda: ImageEmbeddingStage(device="tpu"),
        lambda: ImageEmbeddingStage(precision="f8"),
        lambda: ImageEmbeddingStage(model_inference_batch_size=0),
        lambda: ImageAestheticFilterStage(score_threshold=float("nan")),
        lambda: ImageWriterStage("out", images_per_tar=0),
        lambda: ImageWriterStage("out", originals="zip"),
        lambda: Resources(gpus=1, gpu_memory_gb=4),
        lambda: ImageReaderStage().with_(speed=2),
    ],
)
def test_wrong_options_are_refused_before_anything_runs(make):
    with pytest.raises(ConfigurationError):
        make()


def test_with_changes_a_copy():
    stage = ImageReaderStage()
    changed = stage.with_(batch_size=5, resources=Resources(cpus=4))
    assert (changed.batch_size, changed.resources.cpus) == (5, 4)
    assert (stage.batch_size, stage.resources.cpus) == (100, 1)


def test_a_second_run_with_the_same_writer_or_a_copy_of_it_replaces_its_files(tmp_path):
    def batch():
        images = [ImageObject(image_id=f"i{n}", image_path=f"i{n}", image_data=random_pixels(n)) for n in range(2)]
        return ImageBatch(data=images, dataset_name="d", partition=Partition("a"))

    stage = ImageWriterStage(str(tmp_path / "out"))
    stages = (stage, stage, stage.with_(output_dir=str(tmp_path / "other")))
    written = [[Path(path).name for path in LocalExecutor().execute([s], [batch()])[0].data] for s in stages]
    assert written == [["a-000000.tar", "a.parquet"]] * 3


def test_batches_that_a_program_made_are_written_under_names_made_of_their_paths(tmp_path):
    def write(output):
        images = [ImageObject(image_id=f"i{n}", image_path=f"i{n}", image_data=random_pixels(n)) for n in range(5)]
        stage = ImageWriterStage(str(tmp_path / output), images_per_tar=2)
        [task] = stage.stream(ImageBatch(data=images, dataset_name="d"))
        return [path.rpartition("/")[2] for path in task.data], task

    names, task = write("one")
    assert names == write("two")[0]
    assert len(names) == 4
    assert task._metadata["num_images"] == 5
    with tarfile.open(task.data[0]) as tar:
        assert tar.getnames() == ["i0.jpg", "i1.jpg"]
    assert pq.read_table(task.data[-1])["member_name"].to_pylist() == [f"i{n}.jpg" for n in range(5)]


def test_a_name_that_leads_out_of_the_folder_is_never_written(tmp_path):
    images = [ImageObject(image_id=name, image_data=random_pixels()) for name in ("../out", "in")]
    [task] = ImageWriterStage(str(tmp_path / "below")).stream(ImageBatch(data=images))
    assert task._metadata["counts"] == {"failed": 1, "kept": 1}
    assert pq.read_table(task.data[-1])["reason_kind"].to_pylist() == ["unsafe_name", None]
    with tarfile.open(task.data[0]) as tar:
        assert tar.getnames() == ["in.jpg"]


def test_an_unfinished_partition_leaves_nothing_behind(tmp_path):
    shard = make_tar(tmp_path / "a.tar", [(f"{seed}.jpg", picture(seed)) for seed in range(3)])
    first, *_ = ImageReaderStage(batch_size=2).stream(FileGroupTask(data=[str(shard)], partition=Partition("a")))
    stage = ImageWriterStage(str(tmp_path / "out"))
    assert stage.process(first) is None
    assert list((tmp_path / "out").iterdir())  # unfinished, under temporary names
    stage.teardown()
    assert list((tmp_path / "out").iterdir()) == []


def test_images_of_one_name_in_grouped_shards_all_come_out(tmp_path):
    contents = [picture(n, "PNG") for n in range(2)]
    shards = [str(make_tar(tmp_path / f"{n}.tar", [("a.png", data)])) for n, data in enumerate(contents)]
    batches = ImageReaderStage().process(FileGroupTask(data=shards, partition=Partition("p")))
    stage = ImageWriterStage(str(tmp_path / "out"))
    [task] = [task for batch in batches for task in stage.stream(batch)]
    assert task._metadata["counts"] == {"kept": 2}
    rows = pq.read_table(tmp_path / "out" / "p.parquet").to_pylist()
    found = []
    for row in rows:
        with tarfile.open(row["tar_file"]) as tar:  # a tar each: a reader would make one sample of two of a key
            found.append(tar.extractfile(row["member_name"]).read())
    assert found == contents


def test_rows_alone_have_no_columns_for_copies(tmp_path):
    stage = ImageWriterStage(str(tmp_path / "out"), originals="none")
    [task] = stage.stream(ImageBatch(data=[ImageObject(image_id="a", image_data=random_pixels())]))
    assert [Path(path).suffix for path in task.data] == [".parquet"]
    assert {"tar_file", "member_name"} & set(pq.read_table(task.data[0]).column_names) == set()

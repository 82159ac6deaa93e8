"""Real photographs in, kept originals and a row for every image out."""

import hashlib
import json
import tarfile

import numpy as np
import pyarrow.parquet as pq
import pytest
from conftest import encode, make_tar, read_rows
from tiny import usual_stages, write_nasty_data

from tastemaker import (
    ImageEmbeddingStage,
    ImageSignalsStage,
    ImageWriterStage,
    Pipeline,
    errors,
)


def make_pipeline(paths, model_dir, threshold, *more):
    return Pipeline("end to end", stages=[*usual_stages(paths, model_dir, threshold=threshold), *more])


def make_shard(path, photographs):
    members = []
    for name, data in photographs.items():
        stem = name.partition(".")[0]
        caption = (f"{stem}.txt", f"a photograph of {stem}".encode())
        members += [
            (name, data),
            caption,
            (f"{stem}.json", json.dumps({"source": stem}).encode()),
            (f"{stem}.cls", b"7"),
        ]
    return make_tar(path, members)


def sha256_of_members(paths):
    digests = {}
    for path in paths:
        with tarfile.open(path) as tar:
            digests |= {m.name: hashlib.sha256(tar.extractfile(m).read()).hexdigest() for m in tar}
    return digests


def test_kept_originals_and_sidecars_come_out_byte_for_byte(tmp_path, photographs, model_dir):
    shard = make_shard(tmp_path / "in.tar", photographs)
    scores = {i.image_id: i.aesthetic_score for b in make_pipeline(shard, model_dir, None).run() for i in b.data}
    median = sorted(scores.values())[len(scores) // 2]

    results = make_pipeline(shard, model_dir, median, ImageWriterStage(str(tmp_path / "out"))).run()

    files = [path for task in results for path in task.data]
    kept = {key for key, score in scores.items() if score >= median}
    before = sha256_of_members([shard])
    expected = {name: digest for name, digest in before.items() if name.partition(".")[0] in kept}
    assert sha256_of_members([path for path in files if path.endswith(".tar")]) == expected
    assert 0 < len(kept) < len(photographs)
    rows = pq.read_table(tmp_path / "out" / "in.parquet").to_pylist()
    assert [row["image_id"] for row in rows] == [name.partition(".")[0] for name in photographs]
    assert {row["image_id"] for row in rows if row["status"] == "kept"} == kept
    assert {row["member_name"].partition(".")[0] for row in rows if row["member_name"]} == kept
    assert {row["reason_kind"] for row in rows} == {None, "below_cutoff"}
    assert all(row["caption"] == f"a photograph of {row['image_id']}" for row in rows)
    assert all(json.loads(row["json"]) == {"source": row["image_id"]} for row in rows)


def test_rows_hold_where_an_image_lies_and_what_made_its_score(tmp_path, photographs, model_dir):
    shard = make_shard(tmp_path / "in.tar", photographs)
    make_pipeline(shard, model_dir, 0.0, ImageWriterStage(str(tmp_path / "out"))).run()
    table = pq.read_table(tmp_path / "out" / "in.parquet")
    raw = shard.read_bytes()
    for row, (name, data) in zip(table.to_pylist(), photographs.items(), strict=True):
        assert row["image_path"] == f"{shard}/{name}"
        assert raw[row["offset"] : row["offset"] + row["size"]] == data
        for sidecar in row["sidecars"]:
            assert raw[sidecar["offset"] : sidecar["offset"] + sidecar["size"]]
        assert abs(np.linalg.norm(row["embedding"]) - 1) < 2e-3
    assert table.schema.field("embedding").type.value_type == "halffloat"
    provenance = json.loads(table.schema.metadata[b"tastemaker"])
    assert provenance["preprocess"] == "openai"
    assert provenance["device"] == "cpu"
    assert provenance["precision"] in ("f32", "bf16")
    assert len(provenance["clip_sha256"]) == 64
    assert provenance["clip_revision"] == "unknown"  # random weights are not the pinned ones
    assert {"tastemaker", "pillow", "simplejpeg", "backend_version", "scores"} <= set(provenance)


def test_every_bad_image_is_a_row_with_a_reason_and_the_others_are_scored(tmp_path, photographs, model_dir):
    folder = write_nasty_data(tmp_path / "in", photographs)
    make_pipeline(folder, model_dir, 0.0, ImageWriterStage(str(tmp_path / "out"))).run()
    rows = read_rows(tmp_path / "out")
    bad = [row for row in rows if row["status"] == "failed"]
    failed = {((row["shard"] or "").rpartition("/")[2], row["image_id"]): row["reason"] for row in bad}
    kept = [row["image_id"] for row in rows if row["status"] == "kept"]
    names = [name.partition(".")[0] for name in photographs]
    expected = ["good", "twice", "\u5bcc\u58eb\u5c71 \u00e9t\u00e9", "loose/below/\u00fcber"]
    assert sorted(kept) == sorted(
        [*expected, *(f"{where}{name}" for where in ("", "more/", "loose/") for name in names)]
    )
    expected = {
        ("0-nasty.tar", "cut"): "truncated",
        ("0-nasty.tar", "empty"): "empty",
        ("0-nasty.tar", "text"): "not an image",
        ("0-nasty.tar", "../climbs"): "unsafe name",
        ("0-nasty.tar", "twice"): "duplicate key",
        ("0-nasty.tar", "bomb"): "",
        ("0-nasty.tar", "caption-only"): "no image",
        ("1-cut.tar", "good"): "truncated",
        ("1-cut.tar", ""): "",
        ("2-empty.tar", ""): "no images",
        ("", "loose/below/cut"): "truncated",
    }
    assert failed.keys() == expected.keys()
    for where, part in expected.items():
        assert failed[where].startswith("unreadable: ")
        assert part in failed[where]
    assert all(row["aesthetic_score"] is None for row in bad)


def test_a_stage_of_the_users_own_loses_no_image(tmp_path, photo_folder, model_dir):
    from dataclasses import dataclass

    from tastemaker import ImageBatch, ProcessingStage

    @dataclass
    class KeepSquares(ProcessingStage[ImageBatch, ImageBatch]):
        name: str = "keep_squares"

        def process(self, task):
            squares = [image for image in task.data if image.image_data.shape[0] == image.image_data.shape[1]]
            return ImageBatch(data=squares, dataset_name=task.dataset_name) if squares else None

    pipeline = make_pipeline(photo_folder, model_dir, 0.0, ImageWriterStage(str(tmp_path / "out")))
    pipeline.stages.insert(2, KeepSquares())
    pipeline.run()
    rows = read_rows(tmp_path / "out")
    assert len(rows) == 7
    assert {row["image_id"] for row in rows if row["status"] == "kept"} == {"astronaut"}
    assert {row["reason"] for row in rows if row["status"] != "kept"} == {"dropped by stage 'keep_squares'"}


def test_pixels_that_a_stage_changed_are_what_is_embedded(photographs, tmp_path, model_dir):
    from tastemaker import ImageBatch, ProcessingStage

    class Invert(ProcessingStage[ImageBatch, ImageBatch]):
        name = "invert"

        def process(self, task):
            for image in task.data:
                image.image_data = 255 - image.image_data
            return task

    shard = make_shard(tmp_path / "in.tar", photographs)
    plain = make_pipeline(shard, model_dir, None)
    inverted = make_pipeline(shard, model_dir, None)
    inverted.stages.insert(2, Invert())
    scores, changed = ([i.aesthetic_score for b in p.run() for i in b.data] for p in (plain, inverted))
    assert len(scores) == len(changed) == len(photographs)
    assert all(abs(a - b) > 1e-3 for a, b in zip(scores, changed, strict=True))


def test_signals_are_columns_and_a_first_filter(tmp_path, photo_folder, model_dir, photographs):
    (photo_folder / "flat.png").write_bytes(encode(np.full((90, 120, 3), 128, np.uint8), "PNG"))
    pipeline = make_pipeline(photo_folder, model_dir, 0.0, ImageWriterStage(str(tmp_path / "out")))
    pipeline.stages.insert(2, ImageSignalsStage(min_technical_quality=0.5))
    pipeline.run()
    rows = read_rows(tmp_path / "out")
    flat = next(row for row in rows if row["image_id"] == "flat")
    assert flat["status"] == "dropped"
    assert flat["reason"].startswith("technical_quality 0.")
    assert flat["aesthetic_score"] is None
    assert all(row["technical_quality"] >= 0.5 and row["sharpness"] > 0 for row in rows if row["status"] == "kept")
    assert sum(row["status"] == "kept" for row in rows) == len(photographs) + 1


def test_remove_image_data_frees_memory_and_loses_nothing(tmp_path, photographs, model_dir):
    shard = make_shard(tmp_path / "in.tar", photographs)
    pipeline = make_pipeline(shard, model_dir, 0.0)
    pipeline.stages[2] = ImageEmbeddingStage(model_dir=str(model_dir), remove_image_data=True)
    batches = pipeline.run()
    assert all(image.image_data is None and image.encoded is None for batch in batches for image in batch.data)
    writer = ImageWriterStage(str(tmp_path / "out"))
    files = [path for batch in batches for task in writer.stream(batch) for path in task.data]
    assert sha256_of_members([path for path in files if path.endswith(".tar")]) == sha256_of_members([shard])


def test_a_wrong_input_is_an_error_before_any_model_loads(tmp_path):
    for path in (tmp_path / "missing", tmp_path):
        with pytest.raises(errors.ConfigurationError, match=r"does not exist|no images"):
            make_pipeline(path, tmp_path / "no models here", 5.0).run()


def test_a_pipeline_without_stages_says_what_to_do():
    with pytest.raises(errors.ConfigurationError, match="no stages"):
        Pipeline("empty").run()
    with pytest.raises(TypeError, match="stages"):
        Pipeline("wrong").add_stage("reader")


def test_a_pipeline_that_names_no_executor_runs_where_the_variable_says_or_where_there_is_a_cluster(monkeypatch):
    from tastemaker import executors

    assert type(executors.default_executor()).__name__ == "LocalExecutor"  # the variable is set for the tests
    monkeypatch.setenv("TASTEMAKER_EXECUTOR", "cloud")
    with pytest.raises(errors.ConfigurationError, match="'cloud' is not one of local, xenna, ray-data"):
        executors.default_executor()
    monkeypatch.delenv("TASTEMAKER_EXECUTOR")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert type(executors.default_executor()).__name__ == "LocalExecutor"
    monkeypatch.setenv("RAY_ADDRESS", "head:6379")
    monkeypatch.setattr("tastemaker.executors.ray_data.find_spec", lambda name: object())
    assert type(executors.default_executor()).__name__ == "XennaExecutor"


def test_the_low_default_threshold_is_remarked_on_once(model_dir, tmp_path, photographs, caplog):
    shard = make_shard(tmp_path / "in.tar", photographs)
    make_pipeline(shard, model_dir, 0.5).run()
    remarks = [record.message for record in caplog.records if "keeps nearly every image" in record.message]
    assert len(remarks) == 1
    assert "4.5, 5, 6, 6.5" in remarks[0]

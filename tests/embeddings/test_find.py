"""Which files are taken for embeddings, and which column of them."""

import logging
import os

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tastemaker import FilePartitioningStage, errors
from tastemaker.embeddings.find import find_embeddings, group_embeddings
from tastemaker.embeddings.names import choose_name


def save(path, count=2, size=768):
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, np.ones((count, size), np.float32))
    return path


def write_table(path, **columns):
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path)
    return path


def lists(count, size=768):
    return pa.FixedSizeListArray.from_arrays(np.ones(count * size, np.float32), size)


def names(files):
    return [file.path.rpartition("/")[2] for file in files]


def test_a_folder_gives_arrays_and_tables_with_embeddings_and_passes_over_text_and_metadata(tmp_path):
    save(tmp_path / "img_emb" / "img_emb_0.npy")
    save(tmp_path / "text_emb" / "text_emb_0.npy")
    metadata = write_table(tmp_path / "metadata" / "metadata_0.parquet", key=["a", "b"])
    write_table(tmp_path / "more.parquet", embedding=lists(2))
    write_table(tmp_path / "boxes.parquet", face_boxes=pa.array([[0.5, 0.5], [0.1]]))
    save(tmp_path / "_hidden" / "x.npy", size=3)
    files = find_embeddings([str(tmp_path)])
    assert names(files) == ["img_emb_0.npy", "more.parquet"]
    assert str(files[0].metadata) == str(metadata)
    assert [group.partition.name for group in group_embeddings(files)] == ["img_emb/img_emb_0", "more"]


def test_images_stay_images_whatever_lies_beside_them(tmp_path, photo_folder, caplog):
    save(photo_folder / "coffee.npy", size=5)  # a sidecar
    with caplog.at_level(logging.WARNING):
        assert find_embeddings([str(photo_folder)]) == []
    assert not caplog.records
    save(photo_folder / "all.npy")
    assert find_embeddings([str(photo_folder)]) == []
    assert "all.npy are passed over" in caplog.text
    assert find_embeddings([str(tmp_path / "missing")]) == []


def test_images_and_embeddings_together_are_refused(tmp_path, photo_folder):
    path = save(tmp_path / "given.npy")
    with pytest.raises(errors.ConfigurationError, match="in two runs"):
        find_embeddings([str(path), str(photo_folder)])


def test_metadata_of_another_length_is_refused(tmp_path):
    save(tmp_path / "img_emb" / "img_emb_3.npy", count=4)
    write_table(tmp_path / "metadata" / "metadata_3.parquet", key=["a", "b", "c"])
    with pytest.raises(errors.ConfigurationError, match=r"metadata_3\.parquet has 3 rows and .* 4 embeddings"):
        find_embeddings([str(tmp_path)])


def test_a_file_of_a_set_without_its_metadata_is_told(tmp_path, caplog):
    paths = [save(tmp_path / "img_emb" / f"img_emb_{number}.npy") for number in range(3)]
    find_embeddings([str(tmp_path)])
    assert not caplog.records  # none has any: nothing is missing
    for number in (0, 2):
        write_table(tmp_path / "metadata" / f"metadata_{number}.parquet", key=["a", "b"])
    for inputs in ([tmp_path], paths):
        caplog.clear()
        files = find_embeddings(list(map(str, inputs)))
        assert [file.metadata is None for file in files] == [False, True, False]
        assert "1 of 3 files have no metadata (img_emb_1.npy)" in caplog.text


@pytest.mark.parametrize("place", ["metadata", "laion2B-en-metadata", "img_emb"])
def test_metadata_is_found_where_clip_retrieval_laion_and_a_plain_download_put_it(tmp_path, place, monkeypatch, caplog):
    root = tmp_path / "laion2B-en"
    array = save(root / "img_emb" / "img_emb_0000.npy")
    table = write_table(root / place / "metadata_0000.parquet", key=["a", "b"])
    for given in (root, root / "img_emb", array):
        assert [str(file.metadata) for file in find_embeddings([str(given)])] == [str(table)]
    for folder, given in (
        (root / "img_emb", "img_emb_0000.npy"),
        (root, "."),
        (root / "img_emb", "."),
        (root, "img_emb"),
    ):
        monkeypatch.chdir(folder)
        (file,) = find_embeddings([given])
        assert file.metadata is not None
        assert os.path.samefile(str(file.metadata), table)
    assert not caplog.records


def test_a_named_file_of_embeddings_that_are_not_read_is_an_error_and_no_image(tmp_path):
    for extension in ("pt", "lance"):
        path = tmp_path / f"embeddings.{extension}"
        path.write_bytes(b"PK")
        assert find_embeddings([str(path)]) == []
        with pytest.raises(errors.ConfigurationError, match=rf"1 \.{extension} \(.*tars"):
            FilePartitioningStage(str(path)).process()


def test_a_folder_of_text_embeddings_only_is_an_error_and_a_named_file_is_not(tmp_path):
    path = save(tmp_path / "text_emb" / "text_emb_0.npy")
    with pytest.raises(errors.ConfigurationError, match="of text only"):
        find_embeddings([str(tmp_path)])
    assert names(find_embeddings([str(path)])) == ["text_emb_0.npy"]


def test_a_table_named_by_the_user_must_have_embeddings(tmp_path):
    path = write_table(tmp_path / "rows.parquet", key=["a"], b32=lists(1, 512))
    with pytest.raises(errors.ModelError, match=r"no embeddings of 768 numbers a row, .* b32 \(512 numbers a row\)"):
        find_embeddings([str(path)])
    with pytest.raises(errors.ConfigurationError, match="no embeddings called 'key'"):
        find_embeddings([str(path)], "key")


def test_of_several_columns_the_known_one_is_taken_and_others_must_be_named(tmp_path):
    two = {"first": 768, "second": 768}
    assert choose_name({**two, "embedding": None, "image_embedding": 768}, None, 768, "f") == "image_embedding"
    assert choose_name({"boxes": None, "img_emb": None}, None, 768, "f") == "img_emb"
    assert choose_name(two, "second", 768, "f") == "second"
    with pytest.raises(errors.ConfigurationError, match="first, second could all be"):
        choose_name(two, None, 768, "f")
    with pytest.raises(errors.ModelError, match="512 numbers a row"):
        choose_name({"b32": 512}, "b32", 768, "f")

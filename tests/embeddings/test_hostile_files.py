"""Files that lie, end early, or carry code."""

import io
import pickle
import zipfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from embedding_files import unit_vectors
from tiny import Trap

from tastemaker import errors
from tastemaker.runs.run import RunOptions, run_scoring


@pytest.fixture
def score(tmp_path, model_dir):
    def run(path):
        run_scoring([str(path)], tmp_path / "out", RunOptions(model_dir=str(model_dir)))
        (rows,) = (tmp_path / "out").glob("rows/*.parquet")
        return pq.read_table(rows).to_pylist()

    return run


def npy(array, shape=None):
    file = io.BytesIO()
    header = {"descr": array.dtype.str, "fortran_order": not array.flags.c_contiguous, "shape": shape or array.shape}
    np.lib.format.write_array_header_1_0(file, header)
    return file.getvalue() + array.tobytes("A")


@pytest.mark.parametrize("kind", ["npy", "npz"])
def test_pickled_objects_are_refused_and_never_loaded(tmp_path, kind, score):
    trap = tmp_path / "sprung"
    given = tmp_path / f"given.{kind}"
    objects = np.array([[Trap(trap)] * 768] * 2, object)
    if kind == "npy":
        np.save(given, objects, allow_pickle=True)
    else:
        np.savez(given, embedding=objects, allow_pickle=True)
    with pytest.raises(errors.ModelError, match=r"pickled objects|no embeddings"):
        score(given)
    assert not trap.exists()
    given.write_bytes(pickle.dumps(Trap(trap)))  # np.load would try to unpickle this, too
    (row,) = score(given)
    assert row["status"] == "failed"
    assert not trap.exists()


@pytest.mark.parametrize(
    "header",
    [
        "{'descr': '<f4'",
        "{'descr': '<,f4', 'fortran_order': False, 'shape': (20, 768)}",
        "(" * 5000,
    ],
    ids=["unfinished", "type", "nested"],
)
def test_a_header_that_is_no_python_is_a_row_and_the_other_files_go_on(tmp_path, model_dir, header):
    folder = tmp_path / "given"
    folder.mkdir()
    np.save(folder / "a.npy", unit_vectors(3))
    length = (len(header) + 1).to_bytes(2, "little")
    (folder / "b.npy").write_bytes(b"\x93NUMPY\x01\x00" + length + header.encode() + b"\n")
    run_scoring([str(folder)], tmp_path / "out", RunOptions(model_dir=str(model_dir)))
    assert len(pq.read_table(tmp_path / "out" / "rows" / "a.parquet")) == 3
    (row,) = pq.read_table(tmp_path / "out" / "rows" / "b.parquet").to_pylist()
    assert row["status"] == "failed"
    assert row["reason"].startswith("unreadable: not a sound .npy file: ")


def test_a_truncated_file_gives_the_rows_that_are_there_and_says_what_is_missing(tmp_path, score):
    data = npy(unit_vectors(20_000))
    (tmp_path / "given.npy").write_bytes(data[: -3001 * 1536 + 700])
    rows = score(tmp_path / "given.npy")
    assert len(rows) == 17_000  # 16,999 and the one that tells
    assert all(row["status"] == "kept" for row in rows[:-1])
    assert rows[-1]["status"] == "failed"
    assert rows[-1]["image_id"] == ""
    assert rows[-1]["image_path"] == str(tmp_path / "given.npy")
    assert rows[-1]["reason"] == "unreadable: truncated: only 16,999 of 20,000 embeddings are there"


def test_a_header_that_promises_too_much_takes_no_memory(tmp_path, score):
    (tmp_path / "given.npy").write_bytes(npy(unit_vectors(3), shape=(10**15, 768)))
    rows = score(tmp_path / "given.npy")
    assert [row["status"] for row in rows] == ["kept", "kept", "kept", "failed"]
    assert "only 3 of 1,000,000,000,000,000" in rows[-1]["reason"]


def test_a_header_that_promises_too_little_is_told(tmp_path, score):
    (tmp_path / "given.npy").write_bytes(npy(unit_vectors(5), shape=(3, 768)))
    rows = score(tmp_path / "given.npy")
    assert [row["status"] for row in rows] == ["kept", "kept", "kept", "failed"]
    assert "more bytes follow the 3 embeddings" in rows[-1]["reason"]


@pytest.mark.parametrize("data", [b"", b"\x93NUMPY\x01\x00\xff\xff{", b"not a file of NumPy's"])
def test_what_is_no_array_is_a_row(tmp_path, data, score):
    (tmp_path / "given.npy").write_bytes(data)
    (row,) = score(tmp_path / "given.npy")
    assert row["status"] == "failed"
    assert row["reason"].startswith("unreadable: ")


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((2, 512), np.float32), r"given\.npy has the shape \(2, 512\), and .* \(n, 768\)"),
        (np.zeros(768, np.float32), r"shape \(768,\)"),
        (np.zeros((2, 768), np.int8), "int8, and embeddings are float16, float32 or float64"),
        (np.zeros((2, 768), np.uint16), "uint16, .* save bfloat16 as float32"),
        (np.zeros((2, 768), np.float32, "F"), "stored column by column; save it again with numpy.ascontiguousarray"),
    ],
)
def test_another_shape_or_type_is_an_error_that_names_the_file(tmp_path, array, message, score):
    np.save(tmp_path / "given.npy", array)
    with pytest.raises(errors.ModelError, match=message):
        score(tmp_path / "given.npy")
    assert not (tmp_path / "out").exists()


def test_a_damaged_archive_gives_the_rows_before_the_damage(tmp_path, score):
    path = tmp_path / "given.npz"
    np.savez(path, l14_img=unit_vectors(20_000))
    data = bytearray(path.read_bytes())
    data[-1_000_000] ^= 0xFF
    path.write_bytes(data)
    rows = score(path)
    assert rows[-1]["status"] == "failed"
    assert "CRC" in rows[-1]["reason"]
    assert sum(row["status"] == "kept" for row in rows) >= 16_384
    path.write_bytes(data[:1000])
    (row,) = score_again(path, tmp_path, score)
    assert "not a zip file" in row["reason"]


def score_again(path, tmp_path, score):
    for rows in (tmp_path / "out").glob("rows/*.parquet"):
        rows.unlink()
    return score(path)


def test_an_archive_that_unpacks_to_terabytes_is_read_as_far_as_its_rows_go(tmp_path, score):
    """A zip bomb behind a small header: only the rows that it promises are unpacked."""
    path = tmp_path / "given.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("embedding.npy", "w") as file:
        file.write(npy(unit_vectors(2)))
        for _ in range(50):
            file.write(bytes(1 << 20))
    rows = score(path)
    assert [row["status"] for row in rows] == ["kept", "kept", "failed"]


def test_damaged_tables_are_rows(tmp_path, score):
    column = pa.FixedSizeListArray.from_arrays(unit_vectors(30_000).ravel(), 768)
    path = tmp_path / "given.parquet"
    pq.write_table(pa.table({"embedding": column}), path, row_group_size=5000, compression="snappy")
    data = bytearray(path.read_bytes())
    middle = len(data) * 3 // 4
    data[middle : middle + 4096] = bytes(4096)
    path.write_bytes(data)
    rows = score(path)
    assert rows[-1]["status"] == "failed"
    assert {row["status"] for row in rows[:-1]} == {"kept"}
    path.write_bytes(data[: len(data) // 2])
    (row,) = score_again(path, tmp_path, score)
    assert row["reason"].startswith("unreadable: damaged")

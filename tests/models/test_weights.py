import json
import re
import struct

import numpy as np
import pytest
from safetensors.numpy import save_file

from tastemaker.errors import ModelError
from tastemaker.models.weights import WeightsFile


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.safetensors"


def write_raw(path, header, data=bytes(64), header_size=None):
    """Write a file whose header may be anything."""
    header = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(header) if header_size is None else header_size) + header + data)
    return path


def entry(shape, start, end, dtype="F32"):
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


def test_bfloat16_is_converted_bit_for_bit(path):
    every = np.arange(2**16, dtype=np.uint16)
    write_raw(path, {"a": entry([2**16], 0, 2**17, "BF16")}, every.tobytes())
    tensor = WeightsFile(path).tensor("a")
    assert tensor.dtype == np.float32
    assert np.array_equal(tensor.view(np.uint32), every.astype(np.uint32) << 16)


def test_a_missing_tensor_is_named_with_the_file(path):
    save_file({"a": np.ones(1, np.float32)}, path)
    with pytest.raises(ModelError, match=re.escape(str(path)) + ".*'b' is not in it"):
        WeightsFile(path).tensor("b")


@pytest.mark.parametrize("dtype", [np.int64, np.float64])
def test_other_types_are_refused_only_when_they_are_asked_for(path, dtype):
    save_file({"a": np.ones(2, dtype), "b": np.ones(2, np.float32)}, path)
    assert WeightsFile(path).tensor("b").sum() == 2
    with pytest.raises(ModelError, match=r"'a' is .* must be F32 or F16 or BF16"):
        WeightsFile(path).tensor("a")


def _twice(first, second):
    return b'{"a": %s, "a": %s}' % (json.dumps(first).encode(), json.dumps(second).encode())


HOSTILE = {
    "beyond the end": {"a": entry([32], 0, 128)},
    "shape larger than the data": {"a": entry([17], 0, 64)},
    "the same name twice": _twice(entry([16], 0, 64), entry([1000], 0, 4000)),
    "not JSON": b"<html>",
}


@pytest.mark.parametrize("header", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_hostile_header_is_refused(path, header):
    write_raw(path, header)
    with pytest.raises(ModelError, match=re.escape(f"{path} cannot be read as safetensors")):
        WeightsFile(path)


def test_a_truncated_or_missing_file_and_one_of_another_kind_are_refused(path):
    save_file({"a": np.ones(100, np.float32)}, path)
    whole = path.read_bytes()
    for content in (b"", b"version https://git-lfs.github.com", whole[:40], whole[:-1]):
        path.write_bytes(content)
        with pytest.raises(ModelError, match="cannot be read as safetensors"):
            WeightsFile(path)
    for other in (path.parent, path.with_name("nowhere.safetensors")):
        with pytest.raises(ModelError, match=re.escape(str(other))):
            WeightsFile(other)

"""Files that torch wrote, read without torch: tensors come out as torch reads them, and all else is refused."""

import pickle
import random
import zipfile

import numpy as np
import pytest

from tastemaker.errors import ModelError
from tastemaker.models.pth import read_pth

torch = pytest.importorskip("torch")


@pytest.fixture
def save(tmp_path):
    """Return a function that saves an object as torch does, and returns the file."""

    def write(content):
        path = tmp_path / "weights.pth"
        torch.save(content, path)
        return path

    return write


def assert_read_as_torch_reads(path):
    expected = torch.load(path, weights_only=True)
    expected = {name: tensor.detach().float().numpy() for name, tensor in expected.get("state_dict", expected).items()}
    found = read_pth(path)
    assert list(found) == list(expected)
    for name, array in found.items():
        assert array.dtype == np.float32
        np.testing.assert_array_equal(array, expected[name])


def test_the_state_of_a_module_and_of_a_checkpoint(save):
    module = torch.nn.Sequential(torch.nn.Linear(5, 7), torch.nn.BatchNorm1d(7), torch.nn.Linear(7, 1))
    assert_read_as_torch_reads(save(module.state_dict()))
    notes = {"epoch": 3, "loss": 0.5, "done": True, "names": ["a", None], "shape": (1, 2, 3, 4)}
    assert_read_as_torch_reads(save({"state_dict": module.state_dict(), "optimizer": {"step": torch.ones(3)}, **notes}))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64", "uint8"])
def test_numbers_of_other_types_become_float32(save, dtype):
    tensor = (torch.rand(3, 4, generator=torch.manual_seed(0)) * 100).to(getattr(torch, dtype))
    assert_read_as_torch_reads(save({"a": tensor, "b": tensor[0, 0]}))


def test_views_empty_tensors_parameters_and_tied_weights(save):
    whole = torch.arange(60, dtype=torch.float32).reshape(3, 4, 5)
    views = {"part": whole[1:, ::2, 3], "turned": whole.permute(2, 0, 1), "whole": whole, "again": whole}
    assert_read_as_torch_reads(save({**views, "none": torch.empty(0, 3), "of": torch.nn.Parameter(whole[0])}))


def test_the_layout_of_torch_before_1_6_is_refused(tmp_path):
    torch.save({"a": torch.ones(3)}, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    with pytest.raises(
        ModelError, match=r"old\.pth cannot be .*damaged, or not what torch.save writes since PyTorch 1\.6"
    ):
        read_pth(tmp_path / "old.pth")


def test_tensors_that_would_take_far_more_memory_than_the_file_are_refused(save):
    with pytest.raises(ModelError, match=r"impossible shape|many times its size"):
        read_pth(save({"bomb": torch.ones(1).expand(30_000, 30_000)}))
    with pytest.raises(ModelError, match="many times its size"):
        read_pth(save({"bomb": torch.ones(1).expand(200, 200)}))


@pytest.mark.parametrize(
    "content", ["text", 7, [torch.ones(1)], {"a": 1}, {"a": {"b": torch.ones(1)}}, {"a": range(3)}]
)
def test_what_is_no_dictionary_of_tensors_is_refused(save, content):
    with pytest.raises(ModelError, match="cannot be read as plain weights"):
        read_pth(save(content))


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        (pickle.dumps({1, 2}, 4), "has the instruction FRAME"),
        (b"\x80\x02\x86.", "is damaged"),  # a pair of nothing
        (b"\x80\x02]Q.", "has a list in a place where it does not belong"),
        (b"\x80\x02cos\nsystem\n.", "holds a os.system, and objects are never loaded"),
    ],
)
def test_a_program_of_other_instructions_is_refused_with_its_reason(tmp_path, program, reason):
    with zipfile.ZipFile(tmp_path / "weights.pth", "w") as archive:
        archive.writestr("archive/data.pkl", program)
    with pytest.raises(ModelError, match=f"cannot be read as plain weights: .*{reason}"):
        read_pth(tmp_path / "weights.pth")


@pytest.mark.filterwarnings("ignore:invalid escape sequence")  # pickletools' own, of texts that are damaged
def test_a_damaged_file_is_refused_or_read_whatever_is_damaged(save):
    path = save({"weight": torch.arange(8, dtype=torch.float32), "state_dict": {"bias": torch.ones(2)}})
    original, rng = path.read_bytes(), random.Random(0)
    refusals = []
    for _ in range(300):
        content = bytearray(original)
        for _ in range(rng.choice([1, 1, 2, 8])):
            content[rng.randrange(len(content))] = rng.randrange(256)
        path.write_bytes(content[: rng.choice([len(content)] * 3 + [rng.randrange(len(content))])])
        refusals.append(refusal_of(path))
    assert not any("\n" in refusal for refusal in refusals)
    assert 50 < sum(refusal != "" for refusal in refusals) < 300


def refusal_of(path):
    """Return why a file is refused; nothing for one that is read."""
    try:
        arrays = read_pth(path).values()
    except ModelError as error:
        return str(error)
    assert all(array.dtype == np.float32 and array.size < 1000 for array in arrays)
    return ""

"""The tower's arithmetic and its kernels: on a processor, and traced for a GPU that is not there."""

import gc
import weakref
from itertools import pairwise

import pytest

from tastemaker.errors import ConfigurationError, ModelError
from tastemaker.models.hub import weights_path
from tastemaker.models.published.openai_clip import CLIP_VIT_L14
from tastemaker.models.vit import VitDimensions, read_dimensions
from tastemaker.testing import write_random_models

torch = pytest.importorskip("torch")

from torch._subclasses.fake_tensor import FakeTensorMode  # noqa: E402
from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402
from torch.utils._pytree import tree_leaves  # noqa: E402

from tastemaker.models.clip_torch import TorchClip  # noqa: E402
from tastemaker.models.torch_tower import TorchTower  # noqa: E402

SMALL = VitDimensions(width=128, layers=11, heads=2, mlp=512, patch=14, image_size=224, dimension=768)
"""The real heads of 64 and the real 257 tokens."""


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return weights_path(CLIP_VIT_L14, write_random_models(tmp_path_factory.mktemp("small"), SMALL))


class Trace(TorchDispatchMode):
    """Notes each operation that writes memory, and so is no view: its name, and what it returns."""

    def __init__(self):
        super().__init__()
        self.operations = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        name = str(function).split(".")[1]
        taken = {storage_of(value) for value in tree_leaves((args, kwargs)) if isinstance(value, torch.Tensor)}
        made = [value for value in tree_leaves(result) if isinstance(value, torch.Tensor)]
        if name.endswith("_") or not {storage_of(value) for value in made} <= taken:
            self.operations.append((name, result))
        return result


def storage_of(tensor):
    return tensor.untyped_storage()._cdata


def load_tower(weights, device, dtype):
    return TorchTower(weights, CLIP_VIT_L14, read_dimensions(weights, CLIP_VIT_L14), device, dtype)


def trace_on_gpu(weights, dtype, count=4):
    """Return the result of a batch on a GPU, with shapes and types and no numbers, and the operations on the way."""
    with FakeTensorMode(), torch.inference_mode():
        tower = load_tower(weights, torch.device("cuda", 0), dtype)
        pixels = torch.empty((count, 224, 224, 3), dtype=torch.uint8, device="cuda:0")
        with Trace() as trace:
            return tower(pixels), trace.operations


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_everything_happens_on_the_gpu_in_the_precision_asked_for(weights, dtype):
    result, operations = trace_on_gpu(weights, dtype)
    assert (result.shape, result.dtype, str(result.device)) == ((4, SMALL.dimension), torch.float32, "cuda:0")
    made = [tensor for _, tensor in operations if isinstance(tensor, torch.Tensor)]
    assert {str(tensor.device) for tensor in made} == {"cuda:0"}
    assert {tensor.dtype for tensor in made} <= {torch.uint8, dtype, torch.float32}
    big = [tensor.dtype for tensor in made if tensor.numel() >= 4 * 256 * SMALL.width]
    assert torch.float32 not in big or dtype == torch.float32
    assert not [name for name, _ in operations if "item" in name or "nonzero" in name]  # what would wait for the GPU


def test_a_layer_is_four_products_one_attention_two_norms_and_quickgelu(weights):
    """Each kernel passes over all tokens: what only copies or adds costs as much as a twentieth of the products."""
    _, operations = trace_on_gpu(weights, torch.float16)
    names = [name for name, _ in operations if name != "flatten"]  # attention without a GPU leaves another order
    attention = [number for number, name in enumerate(names) if name == "scaled_dot_product_attention"]
    assert len(attention) == SMALL.layers
    norm, quick_gelu = ["add", "layer_norm"], ["mul", "sigmoid", "mul"]  # a compiler makes one kernel of each
    expected = ["linear", "scaled_dot_product_attention", "addmm_", *norm, "linear", *quick_gelu, "addmm_", *norm]
    for start, end in pairwise(attention[:-1]):
        assert names[start - 1 : end - 1] == expected


def test_the_memory_of_a_tower_that_is_dropped_is_free_at_once(weights):
    gc.collect()
    gc.disable()
    try:
        tower = TorchClip(weights, "cpu")
        held = weakref.ref(tower._runner._lane)
        del tower
        assert held() is None
    finally:
        gc.enable()


def test_a_processor_takes_32_images_at_a_time_unless_told(weights):
    tower = TorchClip(weights, "cpu")
    assert (tower.batch_size, tower.concurrency, tower.mode) == (32, 1, "eager")
    assert TorchClip(weights, "cpu", batch_size=5).batch_size == 5


def test_an_unknown_mode_is_refused_with_the_known_ones(weights):
    with pytest.raises(ConfigurationError, match="mode='fast' is not one of eager, compiled, graph"):
        TorchClip(weights, "cpu", mode="fast")


def test_a_gpu_too_full_for_the_model_is_an_error_with_a_way_on(weights, monkeypatch):
    def run_out(*_):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")

    monkeypatch.setattr(TorchTower, "_place", run_out)
    with pytest.raises(ModelError, match="does not suffice for the model; free some, or use device='cpu'"):
        TorchClip(weights, "cpu")

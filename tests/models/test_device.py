import logging
import subprocess
import sys

import pytest

from tastemaker.errors import ConfigurationError, MissingExtraError
from tastemaker.models.device import INSTALL_TORCH, choose_device, find_gpu, system_shows_gpu
from tastemaker.runs.options import RunOptions
from tastemaker.runs.recipe import make_stages
from tastemaker.storage.place import Place


@pytest.fixture
def no_torch(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)


@pytest.fixture
def torch_without_gpu():
    torch = pytest.importorskip("torch")
    if torch.cuda.is_available() or torch.backends.mps.is_available():
        pytest.skip("this machine has a GPU")


def test_auto_is_the_processor_where_no_gpu_shows(no_torch):
    if system_shows_gpu():
        pytest.skip("this machine has a GPU")
    assert choose_device("auto") == "cpu"
    assert choose_device() == "cpu"


def test_without_a_gpu_in_the_system_torch_is_not_imported():
    code = (
        "import sys; from tastemaker.models.device import find_gpu\n"
        "print(find_gpu(lambda: False), 'torch' in sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.split() == ["None", "False"]


def test_a_gpu_without_torch_says_once_how_to_install_it(no_torch, caplog):
    def shows_gpu():
        return True

    for _ in range(3):
        assert find_gpu(shows_gpu) is None
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert INSTALL_TORCH in record.getMessage()


def test_a_gpu_that_torch_cannot_use_is_a_warning(torch_without_gpu, caplog):
    assert find_gpu(lambda: True) is None
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "PyTorch cannot use it" in record.getMessage()


def test_a_gpu_whose_kernels_this_torch_lacks_is_not_used(torch_without_gpu, monkeypatch, caplog):
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)  # so it is; the first kernel fails

    def ones(*_args, device):
        raise RuntimeError(f"CUDA error: no kernel image is available for execution on the device ({device})\nhelp")

    monkeypatch.setattr(torch, "ones", ones)
    assert find_gpu(lambda: True) is None
    assert "(CUDA error: no kernel image is available" in caplog.text
    with pytest.raises(ConfigurationError, match=r"no kernel image .* \(cuda:1\)\); use device='cpu'"):
        choose_device("cuda:1")


@pytest.mark.parametrize("device", ["cuda", "cuda:0", "cuda:1"])
def test_a_run_on_a_named_gpu_resizes_as_gpus_do_and_fills_its_batches(
    torch_without_gpu, monkeypatch, tmp_path, device
):
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    zeros = torch.zeros
    monkeypatch.setattr(torch, "ones", lambda *_args, device: zeros(1))  # a kernel that works
    reader, embedder, *_ = make_stages(Place.of(tmp_path), RunOptions(device=device))
    assert reader.resize == "torch"
    assert reader.batch_size == 256
    assert embedder.resources.gpus == 1


@pytest.mark.parametrize("wanted", ["gpu", "cuda:", "cuda:x"])
def test_a_device_that_there_is_not_is_refused_by_name(wanted):
    with pytest.raises(ConfigurationError, match=f"device='{wanted}'"):
        choose_device(wanted)


@pytest.mark.parametrize("wanted", ["cuda", "cuda:7", "mps"])
def test_a_gpu_that_is_not_there_is_refused_with_a_way_on(torch_without_gpu, wanted):
    with pytest.raises(ConfigurationError, match=f"device='{wanted}': PyTorch cannot use it .* device='cpu'"):
        choose_device(wanted)


@pytest.mark.parametrize("wanted", ["cuda", "mps"])
def test_a_gpu_asked_for_without_torch_names_the_extra(no_torch, wanted):
    with pytest.raises(MissingExtraError, match=r"pip install \"tastemaker\[torch\]\""):
        choose_device(wanted)

"""The resize by matrix products against Pillow's."""

import numpy as np
import pytest

from tastemaker.imaging.decode import decode_image
from tastemaker.imaging.preprocess import PREPROCESSINGS, plan_resize, preprocess

torch = pytest.importorskip("torch")

from tastemaker.imaging.matrix_resize import MatrixResize  # noqa: E402

DEVICES = [torch.device("cpu"), pytest.param(torch.device("cuda", 0), marks=pytest.mark.gpu)]
SIZES = [(224, 224), (225, 224), (640, 480), (427, 640), (500, 1000), (1920, 1080), (2689, 1793), (7000, 300)]


@pytest.fixture(params=DEVICES, ids=str)
def device(request):
    if request.param.type == "cuda" and not torch.cuda.is_available():
        pytest.skip("this machine has no CUDA GPU")
    return request.param


def resize(pixels, kind, device, size=224):
    plan = plan_resize(*pixels.shape[:2], kind, size)
    return MatrixResize(device)(torch.from_numpy(np.array(pixels)).to(device), plan, size).cpu().numpy()


@pytest.mark.parametrize("kind", PREPROCESSINGS)
def test_noise_of_any_size_is_within_2_of_255_of_pillow(device, kind):
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (height, width, 3), np.uint8) for width, height in SIZES]
    found = np.array([np.abs(resize(image, kind, device).astype(int) - preprocess(image, kind)) for image in images])
    assert found.max() <= 2
    assert found.mean() < 0.005


def test_photographs_are_within_2_of_255_of_pillow(device, photographs):
    images = [decode_image(data).pixels for data in photographs.values()]
    found = np.array([np.abs(resize(image, "openai", device).astype(int) - preprocess(image)) for image in images])
    assert found.max() <= 2
    assert found.mean() < 0.005


def test_one_colour_stays_one_colour(device):
    expected = np.full((224, 224, 3), (10, 200, 90), np.uint8)
    assert np.array_equal(resize(np.full((300, 500, 3), (10, 200, 90), np.uint8), "openai", device), expected)


def test_the_result_has_the_size_asked_for(device):
    assert resize(np.zeros((700, 900, 3), np.uint8), "openai", device, 336).shape == (336, 336, 3)

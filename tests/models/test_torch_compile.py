"""The compiled layer against the plain one, on a processor. The compiler takes seconds for each shape."""

import numpy as np
import pytest

from tastemaker.errors import ConfigurationError
from tastemaker.models.hub import weights_path
from tastemaker.models.published.openai_clip import CLIP_VIT_L14

torch = pytest.importorskip("torch")

from tastemaker.models.clip_torch import TorchClip  # noqa: E402


@pytest.fixture(scope="module")
def weights(model_dir):
    return weights_path(CLIP_VIT_L14, model_dir)


@pytest.fixture(scope="module")
def pixels():
    return np.random.default_rng(0).integers(0, 256, (23, 224, 224, 3), np.uint8)


@pytest.fixture(scope="module")
def compiled(weights):
    torch.compiler.reset()  # it gives up after 8 shapes in a process
    return TorchClip(weights, "cpu", "f32", batch_size=8, mode="compiled")


@pytest.mark.slow
def test_the_compiled_layer_gives_what_the_plain_one_gives(weights, compiled, pixels, caplog):
    plain = TorchClip(weights, "cpu", "f32", batch_size=8)
    for count in (8, 7, 1, 16, 23):  # 23: two full batches and one that is filled up
        assert np.abs(compiled.embed(pixels[:count]) - plain.embed(pixels[:count])).max() < 1e-6, count
    assert not [record for record in caplog.records if record.name.startswith("tastemaker")]  # it did not give up


@pytest.mark.slow
def test_a_compiled_batch_that_is_filled_up_gives_what_a_full_one_gives(compiled, pixels):
    full = compiled.embed(pixels[:8])
    for count in (6, 7):
        compiled.embed(pixels[8:16])  # other images stood where the filling is
        assert np.array_equal(compiled.embed(pixels[:count]), full[:count])


def test_a_processor_takes_32_images_at_a_time_unless_told(weights):
    tower = TorchClip(weights, "cpu")
    assert (tower.batch_size, tower.concurrency, tower.mode) == (32, 1, "eager")
    assert TorchClip(weights, "cpu", batch_size=5).batch_size == 5


def test_an_unknown_mode_is_refused_with_the_known_ones(weights):
    with pytest.raises(ConfigurationError, match="mode='fast' is not one of auto, eager, compiled, graph"):
        TorchClip(weights, "cpu", mode="fast")

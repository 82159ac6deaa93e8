import os
import re
import subprocess
import sys
import threading
import warnings
from dataclasses import replace

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from tastemaker.errors import ConfigurationError, ModelError
from tastemaker.models.clip import load_clip
from tastemaker.models.clip_openvino import MICRO_BATCH, OpenVinoClip, choose_precision
from tastemaker.models.hub import weights_path
from tastemaker.models.published.laion_v2 import AESTHETIC_PREDICTOR
from tastemaker.models.published.openai_clip import CLIP_VIT_L14
from tastemaker.models.records import VitConfig
from tastemaker.models.vit import VitDimensions, read_dimensions
from tastemaker.testing import TINY, random_tower

OTHER_PROCESSOR = ["FP32", "INT8"]


@pytest.fixture(scope="module")
def weights(model_dir):
    return weights_path(CLIP_VIT_L14, model_dir)


@pytest.fixture(scope="module")
def tower(weights):
    return OpenVinoClip(weights, precision="f32")


@pytest.fixture(scope="module")
def pixels():
    return np.random.default_rng(0).integers(0, 256, (41, 224, 224, 3), np.uint8)


@pytest.fixture(scope="module")
def torch_clip():
    """The class TorchClip, where torch is installed."""
    pytest.importorskip("torch")
    from tastemaker.models.clip_torch import TorchClip

    return TorchClip


@pytest.fixture(params=["openvino", "torch"])
def load(request):
    """A function that loads a backend on the processor, in f32 unless told otherwise."""
    if request.param == "openvino":
        return lambda path, **options: OpenVinoClip(path, **{"precision": "f32", **options})
    torch_clip = request.getfixturevalue("torch_clip")
    return lambda path, **options: torch_clip(path, **{"device": "cpu", "precision": "f32", **options})


@pytest.fixture
def changed(tmp_path, weights):
    """A function that writes the tiny checkpoint with some tensors changed; None removes one."""

    def write(changes=None):
        tensors = load_file(weights) | (changes or {})
        path = tmp_path / "model.safetensors"
        save_file({name: tensor for name, tensor in tensors.items() if tensor is not None}, path)
        return path

    return write


# What comes out


@pytest.mark.parametrize("count", [0, 3])
def test_an_embedding_is_a_float32_unit_vector(load, weights, pixels, count):
    embeddings = load(weights).embed(pixels[:count])
    assert embeddings.dtype == np.float32
    assert embeddings.shape == (count, 768)
    np.testing.assert_allclose(np.linalg.norm(embeddings, axis=1), 1, atol=1e-6)


def test_pixels_in_any_memory_layout_are_read(load, weights, pixels):
    clip, some = load(weights), pixels[:9]
    expected = clip.embed(some)
    read_only = some.copy()
    read_only.flags.writeable = False
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # torch warns of memory that it cannot write to
        for layout in (np.asfortranarray(some), np.repeat(some, 2, axis=2)[:, :, ::2], read_only):
            assert np.array_equal(clip.embed(layout), expected)
        # In torch the place in a batch may move the last bit; see docs/decisions/0003-batch-invariance.md.
        assert np.abs(clip.embed(some[::-1])[::-1] - expected).max() < 1e-6


def test_pixels_are_left_as_they_were_and_embeddings_outlive_the_next_call(load, weights, pixels):
    clip, some = load(weights), pixels[:2].copy()
    first = clip.embed(some)
    kept = first.copy()
    clip.embed(pixels[2:4])
    assert np.array_equal(some, pixels[:2])
    assert np.array_equal(first, kept)


# The images around an image do not matter


@pytest.mark.parametrize("precision", ["f32", "auto", "int8"])
def test_an_embedding_is_the_same_bit_for_bit_in_a_batch_of_any_size_and_order(weights, pixels, precision):
    tower = OpenVinoClip(weights, precision=precision)
    alone = np.concatenate([tower.embed(image[None]) for image in pixels])
    for size in (7, MICRO_BATCH, len(pixels)):
        together = np.concatenate([tower.embed(pixels[i : i + size]) for i in range(0, len(pixels), size)])
        assert np.array_equal(together, alone), size
    order = np.random.default_rng(1).permutation(len(pixels))
    assert np.array_equal(tower.embed(pixels[order]), alone[order])


def test_an_embedding_is_the_same_bit_for_bit_with_any_number_of_threads(weights, tower, pixels):
    assert np.array_equal(OpenVinoClip(weights, precision="f32", threads=1).embed(pixels), tower.embed(pixels))


def test_threads_share_a_tower(load, weights, pixels):
    clip, results = load(weights), []
    expected = clip.embed(pixels)
    threads = [threading.Thread(target=lambda: results.append(clip.embed(pixels))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 4
    assert all(np.array_equal(result, expected) for result in results)


def test_cancel_ends_an_embed_in_another_thread_and_every_later_one(load, weights, pixels):
    clip, errors, started = load(weights), [], threading.Event()

    def embed():
        try:
            while True:
                clip.embed(pixels)
                started.set()
        except ModelError as error:
            errors.append(str(error))

    thread = threading.Thread(target=embed, daemon=True)
    thread.start()
    started.wait(30)
    clip.cancel()
    thread.join(30)
    assert errors == ["the inference was cancelled"]
    with pytest.raises(ModelError, match="the inference was cancelled"):
        clip.embed(pixels[:1])


INTERRUPTED = """
import sys, threading
from pathlib import Path
import numpy as np
import tastemaker

openvino = sys.argv[2] == "openvino"
path = Path(sys.argv[1])
tower = tastemaker.OpenVinoClip(path) if openvino else tastemaker.TorchClip(path, "cpu")
pixels, started = np.zeros((64, 224, 224, 3), np.uint8), threading.Event()

def embed_forever():
    while True:
        tower.embed(pixels)
        started.set()

threading.Thread(target=embed_forever, daemon=True).start()
started.wait()
raise SystemExit(3)
"""


def test_a_process_may_end_while_a_thread_embeds(load, weights):
    command = [sys.executable, "-c", INTERRUPTED, weights, load(weights).describe()["backend"]]
    result = subprocess.run(command, capture_output=True, text=True)
    assert (result.returncode, result.stderr) == (3, "")


# What is refused


def test_other_pixels_are_refused_with_the_way_to_make_them(load, weights):
    tower = load(weights)
    for wrong in (np.zeros((1, 224, 224, 3), np.float32), np.zeros((1, 3, 224, 224), np.uint8)):
        with pytest.raises(ModelError, match=re.escape(f"{wrong.dtype} {wrong.shape}; tastemaker.preprocess")):
            tower.embed(wrong)
    with pytest.raises(ModelError, match="not list"):
        tower.embed([])


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        (
            {"vision_model.encoder.layers.1.mlp.fc2.bias": None},
            "the tensor vision_model.encoder.layers.1.mlp.fc2.bias is missing",
        ),
        (
            {"visual_projection.weight": np.zeros((512, 128), np.float32)},
            "visual_projection.weight has the shape (512, 128)",
        ),
        (
            {"vision_model.embeddings.position_embedding.weight": np.zeros((16, 128), np.float32)},
            "16 positions are not a class token and the patches of an input of 224",
        ),
        ({"vision_model.post_layernorm.bias": np.zeros(128, np.int32)}, "vision_model.post_layernorm.bias is I32"),
    ],
)
def test_a_tensor_that_does_not_fit_is_named(changed, changes, problem):
    path = changed(changes)
    with pytest.raises(ModelError, match=f"{re.escape(str(path))}.*{re.escape(problem)}"):
        read_dimensions(path, CLIP_VIT_L14)


def test_a_predictor_is_no_tower(load, model_dir):
    with pytest.raises(ModelError, match="no vision tower of openai/clip-vit-large-patch14: the tensor vision_model"):
        load(weights_path(AESTHETIC_PREDICTOR, model_dir))


# Dimensions


@pytest.mark.parametrize(
    ("config", "vit"),
    [
        (TINY, VitConfig()),
        (
            VitDimensions(width=64, layers=3, heads=8, mlp=256, patch=14, image_size=75, dimension=9),
            VitConfig(head_width=8),
        ),
    ],
)
def test_dimensions_are_read_from_the_file(tmp_path, config, vit):
    path = tmp_path / "model.safetensors"
    how = replace(CLIP_VIT_L14.preprocess, size=config.image_size)
    backbone = replace(CLIP_VIT_L14, preprocess=how, dimension=config.dimension, vit=vit)
    save_file(random_tower(config, np.random.default_rng(0)), path)
    assert read_dimensions(path, backbone) == config


def test_heads_that_do_not_divide_the_width_are_refused(load, weights):
    with pytest.raises(ModelError, match="128 cannot be split into heads of 48"):
        load(weights, backbone=replace(CLIP_VIT_L14, vit=VitConfig(head_width=48)))


# Types of weights


def test_weights_stored_in_float16_agree_with_float32(load, changed, weights, pixels):
    halves = {name: tensor.astype(np.float16) for name, tensor in load_file(weights).items()}
    expected = load(weights).embed(pixels[:4])
    assert np.abs(load(changed(halves)).embed(pixels[:4]) - expected).max() < 1e-3


# The text half


def test_text_tensors_of_any_kind_are_not_looked_at(load, changed, weights, pixels):
    path = changed(
        {
            "text_model.embeddings.token_embedding.weight": np.full((10, 8), np.nan, np.float32),
            "text_model.encoder.layers.0.self_attn.q_proj.weight": np.zeros(3, np.uint8),
            "vision_model.embeddings.position_ids": np.arange(17, dtype=np.int64)[None],
            "text_model.embeddings.position_ids": np.arange(77, dtype=np.int64)[None],
            "logit_scale": np.array(4.6, np.float32),
        }
    )
    assert np.array_equal(load(path).embed(pixels[:2]), load(weights).embed(pixels[:2]))


# Devices and precisions


@pytest.mark.parametrize(
    "options",
    [
        *({"device": device} for device in ("gpu", "cuda:", "cpu:0")),
        {"precision": "BF16"},
    ],
)
def test_an_unknown_choice_is_refused_with_the_known_ones(weights, options):
    (name, value), *_ = options.items()
    with pytest.raises(ConfigurationError, match=f"{name}={value!r} is not one of auto, "):
        load_clip(weights, **options)


def test_a_processor_needs_no_torch(weights, monkeypatch, pixels):
    monkeypatch.setitem(sys.modules, "torch", None)
    assert load_clip(weights, device="cpu").embed(pixels[:1]).shape == (1, 768)


def test_auto_is_bf16_where_the_processor_multiplies_it_and_what_it_lacks_is_refused():
    assert choose_precision("auto", ["FP32", "BF16", "INT8"]) == "bf16"
    assert choose_precision("auto", OTHER_PROCESSOR) == "f32"
    with pytest.raises(ConfigurationError, match="no bf16 arithmetic; use precision='f32'"):
        choose_precision("bf16", OTHER_PROCESSOR)


def test_every_precision_of_this_processor_agrees_with_f32(weights, tower, pixels):
    import openvino as ov

    capabilities = ov.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    for precision, capability in (("bf16", "BF16"), ("fp16", "FP16"), ("int8", "INT8")):
        if capability in capabilities:
            reduced = OpenVinoClip(weights, precision=precision)
            assert reduced.precision == precision
            assert 0 < np.abs(reduced.embed(pixels[:8]) - tower.embed(pixels[:8])).max() < 5e-3


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_torch_computes_in_the_precision_asked_for(weights, tower, pixels, precision, torch_clip):
    reduced = torch_clip(weights, "cpu", precision)
    assert reduced.precision == precision
    assert 0 < np.abs(reduced.embed(pixels[:8]) - tower.embed(pixels[:8])).max() < 5e-3


def test_torch_takes_f32_on_a_processor_and_refuses_int8_and_batches_of_nothing(weights, torch_clip):
    assert torch_clip(weights, "cpu").precision == "f32"
    with pytest.raises(ConfigurationError, match="'int8' is not offered on cpu"):
        torch_clip(weights, "cpu", "int8")
    with pytest.raises(ConfigurationError, match="batch_size=0 is less than 1"):
        torch_clip(weights, "cpu", batch_size=0)


def test_fewer_than_one_thread_is_refused(weights):
    with pytest.raises(ConfigurationError, match="threads=0 is less than 1"):
        load_clip(weights, device="cpu", threads=0)


WITHOUT_TELEMETRY = """
import sys
from tastemaker.models.clip_openvino import processor_capabilities
assert "FP32" in processor_capabilities()
assert "openvino_telemetry" not in sys.modules
import openvino_telemetry  # whoever wants it has it
"""


def test_importing_openvino_sends_and_notes_nothing_about_the_user(tmp_path):
    pytest.importorskip("openvino_telemetry")
    environment = {name: value for name, value in os.environ.items() if name != "CI"} | {"HOME": str(tmp_path)}
    subprocess.run([sys.executable, "-c", WITHOUT_TELEMETRY], env=environment, timeout=60, check=True)
    assert not (tmp_path / "intel").exists()


def test_nothing_but_the_torch_backend_imports_torch(weights):
    code = (
        "import sys; from pathlib import Path; import numpy as np\n"
        "import tastemaker, tastemaker.models.clip_openvino, tastemaker.models.aesthetic, tastemaker.testing\n"
        f"tower = tastemaker.load_clip(Path({str(weights)!r}), device='cpu')\n"
        "tower.embed(np.zeros((1, 224, 224, 3), np.uint8))\n"
        "print({'torch', 'transformers', 'torchvision', 'ray', 'duckdb'} & set(sys.modules))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "set()"

"""Decoding by nvImageCodec: on a machine without a GPU by its decoder for processors, which takes the same path."""

import io
import logging
import random
import sys
from collections import Counter

import numpy as np
import pytest
import simplejpeg
from conftest import make_tar
from PIL import Image
from threads import run_in_threads

from tastemaker import FileGroupTask, ImageReaderStage
from tastemaker.cli.options import Decode
from tastemaker.errors import ConfigurationError, MissingExtraError
from tastemaker.imaging.decode import DECODES, decode_image
from tastemaker.imaging.preprocess import PREPROCESSINGS, preprocess
from tastemaker.runs.fingerprint import make_fingerprint
from tastemaker.runs.options import RunOptions

torch = pytest.importorskip("torch")
pytest.importorskip("nvidia.nvimgcodec", reason="nvImageCodec is not installed")

from tastemaker.imaging import gpu_decode  # noqa: E402
from tastemaker.imaging.gpu_decode import FACTOR, MAX_FAILURES, MIN_SIDE, GpuDecoder  # noqa: E402

HAS_GPU = torch.cuda.is_available()
SMALL = 800  # the short side from which the tests let JPEGs go to the decoder


@pytest.fixture(scope="module", params=["cpu", pytest.param("cuda:0", marks=pytest.mark.gpu)])
def decoder(request):
    if request.param != "cpu" and not HAS_GPU:
        pytest.skip("this machine has no CUDA GPU")
    return GpuDecoder(request.param, SMALL)


@pytest.fixture(scope="module")
def picture(photographs):
    return Image.open(io.BytesIO(photographs["astronaut.png"])).convert("RGB").resize((1024, 1024))


def jpeg(picture, size=None, **options):
    file = io.BytesIO()
    (picture.resize(size) if size else picture).save(file, "JPEG", **{"quality": 90, **options})
    return file.getvalue()


# Pixels


@pytest.mark.parametrize("kind", PREPROCESSINGS)
def test_the_model_input_is_that_of_the_processor(decoder, picture, kind):
    sizes = [None, (1200, 801), (801, 1400), (2062, 803)]
    sources = [jpeg(picture, size, subsampling=number) for size in sizes for number in (0, 1, 2)]
    sources += [jpeg(picture, restart_marker_blocks=8), jpeg(picture, quality=30)]
    for data in sources:
        made = decoder.make_input(data, kind)
        assert made.shape == (224, 224, 3)
        assert made.dtype == np.uint8
        differences = np.abs(made.astype(int) - preprocess(decode_image(data).pixels, kind))
        if decoder._device.type == "cpu":
            assert differences.max() <= 2
        assert differences.mean() < 0.75  # so little is left of plain chroma upsampling, even at half the size


def test_4k_pictures_are_within_3_of_255(decoder, picture):
    data = jpeg(picture, (3840, 2160))
    differences = np.abs(decoder.make_input(data, "openai").astype(int) - preprocess(decode_image(data).pixels))
    assert differences.max() <= 3
    assert differences.mean() < 0.25


def test_threads_get_what_one_thread_gets(decoder, picture):
    sources = [jpeg(picture, (900 + 9 * number, 870 + 5 * number)) for number in range(12)]
    together = run_in_threads(12, lambda number: decoder.make_input(sources[number], "openai"))
    for data, made in zip(sources, together, strict=True):
        assert np.array_equal(made, decoder.make_input(data, "openai"))


def test_no_result_keeps_those_of_others_in_memory(decoder, picture):
    made = decoder.make_input(jpeg(picture), "openai")
    assert made.base is None or made.base.nbytes <= made.nbytes


# What is left to the processor


def test_what_is_damaged_is_left_to_the_processor(decoder, picture):
    sound = jpeg(picture)
    middle = len(sound) // 2
    damaged = {
        "cut": sound[:middle],
        "no end": sound[:-2],
        "a hole of zeros": sound[:middle] + bytes(300) + sound[middle + 300 :],
        "a piece missing": sound[:middle] + sound[middle + 100 :],
        "a marker in the picture": sound[:middle] + b"\xff\xc4" + sound[middle + 2 :],
    }
    assert decoder.make_input(sound, "openai") is not None
    assert [name for name, data in damaged.items() if decoder.make_input(data, "openai") is not None] == []


def test_an_eighth_of_the_sides_shows_all_damage_that_the_whole_picture_shows(picture):
    """What the check rests on: libjpeg reads every bit at any size, and warns of the same."""
    rng = random.Random(0)
    small = picture.resize((192, 160))
    sources = [jpeg(small, subsampling=number) for number in (0, 1, 2)] + [jpeg(small, restart_marker_blocks=4)]
    verdicts = Counter()
    for _ in range(1500):
        data = bytearray(rng.choice(sources))
        at, length = rng.randrange(20, len(data)), rng.randrange(1, 200)
        kind = rng.randrange(5)
        if kind == 0:
            del data[at:]
        elif kind == 1:
            del data[at : at + length]
        elif kind == 2:
            data[at] ^= 1 << rng.randrange(8)
        else:
            data[at : at + length] = bytes(length) if kind == 3 else rng.randbytes(length)
        verdicts[decodes(data), decodes(data, min_height=1, min_width=1, min_factor=FACTOR)] += 1
    assert set(verdicts) == {(True, True), (False, False)}
    assert min(verdicts.values()) > 100


def decodes(data, **options):
    try:
        simplejpeg.decode_jpeg(bytes(data), strict=True, **options)
    except ValueError:
        return False
    return True


def test_other_kinds_of_images_are_left_to_the_processor(decoder, picture):
    png = io.BytesIO()
    picture.save(png, "PNG")
    others = {
        "progressive": jpeg(picture, progressive=True),
        "grey": jpeg(picture.convert("L")),
        "CMYK": jpeg(picture.convert("CMYK")),
        "RGB as it is": jpeg(picture, keep_rgb=True),
        "tall": jpeg(picture, (801, 1603)),
        "a strip": jpeg(picture, (6500, 801)),
        "small": jpeg(picture, (SMALL - 1, 900)),
        "PNG": png.getvalue(),
        "empty": b"",
        "text": b"no image at all",
        "the start of one": b"\xff\xd8\xff",
    }
    assert [name for name, data in others.items() if decoder.make_input(data, "openai") is not None] == []


def test_sizes_beyond_the_limit_are_the_processors_to_refuse(decoder, picture):
    data = jpeg(picture)
    assert decoder.make_input(data, "openai", max_pixels=1024 * 1024) is not None
    assert decoder.make_input(data, "openai", max_pixels=1024 * 1024 - 1) is None


def test_images_that_have_to_be_turned_are_left_to_the_processor(decoder, picture):
    exif = Image.Exif()
    exif[0x112] = 6
    data = jpeg(picture, (1100, 900), exif=exif)
    assert decoder.make_input(data, "openai", apply_exif_rotation=True) is None
    made = decoder.make_input(data, "openai")  # not told to turn: as it lies, whatever nvImageCodec likes to do
    assert np.abs(made.astype(int) - preprocess(decode_image(data).pixels)).mean() < 0.75


# Failures of the GPU


class Broken:
    """nvImageCodec's decoder, spoiled from the second call on."""

    def __init__(self, sound, spoil):
        self.sound, self.spoil, self.calls = sound, spoil, 0

    def decode(self, sources, **options):
        self.calls += 1
        images = self.sound.decode(sources, **options)
        return images if self.calls == 1 else self.spoil(images)


class BrokenDecoder(GpuDecoder):
    """One on the processor whose results are spoiled after its first, the trial."""

    def __init__(self, spoil):
        self.spoil = spoil
        super().__init__("cpu", SMALL)

    def _open(self):
        return Broken(super()._open(), self.spoil)


def run_out_of_memory(_images):
    raise torch.OutOfMemoryError("CUDA out of memory")


def blacken_the_end(images):
    pixels = [np.array(image) for image in images]
    for array in pixels:
        array[-len(array) // 8 :] = 0
    return pixels


def swap_colours(images):
    return [np.ascontiguousarray(np.asarray(image)[:, :, ::-1]) for image in images]


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (run_out_of_memory, "OutOfMemoryError: CUDA out of memory"),
        (lambda images: [None] * len(images), "could not decode 1 of 1"),
        (lambda images: images[:-1], "ValueError"),
        (blacken_the_end, "differ by"),
        (swap_colours, "differ by"),
    ],
)
def test_what_fails_on_the_gpu_is_left_to_the_processor_and_said_once(picture, caplog, spoil, said):
    broken = BrokenDecoder(spoil)
    data = jpeg(picture)
    for _ in range(MAX_FAILURES + 3):
        assert broken.make_input(data, "openai") is None
    first, last = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert said in first
    assert "no more is tried" in last
    assert broken._codec.calls == 1 + MAX_FAILURES


def test_a_failure_now_and_then_does_not_end_decoding_on_the_gpu(picture, caplog):
    broken = BrokenDecoder(lambda images: [None] * len(images))
    broken.spoil = broken._codec.spoil = lambda images: images if broken._codec.calls % 3 else [None]
    data = jpeg(picture)
    made = [broken.make_input(data, "openai") for _ in range(2 * MAX_FAILURES + 2)]
    assert [pixels is None for pixels in made[:6]] == [False, True, False] * 2
    assert sum(pixels is None for pixels in made) >= 4
    assert broken._codec.calls == 1 + len(made)


def test_threads_all_go_on_when_a_batch_fails(picture):
    broken = BrokenDecoder(run_out_of_memory)
    data = jpeg(picture)
    assert run_in_threads(12, lambda _: broken.make_input(data, "openai")) == [None] * 12
    assert not broken._jobs


def test_a_decoder_that_decodes_nothing_is_refused_at_once():
    class Empty(GpuDecoder):
        def _open(self):
            return Broken(super()._open(), None)

        def _decode(self, jobs):
            for job in jobs:
                job.done = True

    with pytest.raises(MissingExtraError, match=r"needs nvJPEG .*tastemaker\[gpu-decode\]"):
        Empty("cpu")


# In the stages


@pytest.fixture
def shard(tmp_path, picture):
    large = jpeg(picture, (MIN_SIDE + 200, MIN_SIDE))
    members = [("large.jpg", large), ("cut.jpg", large[: len(large) // 2]), ("small.jpg", jpeg(picture))]
    return make_tar(tmp_path / "a.tar", [*members, ("progressive.jpg", jpeg(picture, progressive=True))])


class Reader(ImageReaderStage):
    """One whose GPU is the processor, and that notes what it decoded there."""

    def _open_gpus(self):
        made = []

        class Noting(GpuDecoder):
            def make_input(self, data, kind, **options):
                pixels = super().make_input(data, kind, **options)
                made.append(pixels is not None)
                return pixels

        self.made = made
        return [Noting("cpu"), Noting("cpu")]


def test_the_reader_decodes_large_jpegs_there_and_all_others_as_before(shard):
    task = FileGroupTask(data=[str(shard)])
    reader = Reader(decode="gpu", resize="pillow")
    [expected], [batch] = ImageReaderStage(resize="pillow").process(task), reader.process(task)
    reader.teardown()
    assert sum(reader.made) == 1
    assert [image.image_id for image in batch.data] == ["large", "small", "progressive"]
    assert [image.reason for image in batch.dropped] == [image.reason for image in expected.dropped]
    assert "damaged or truncated JPEG" in batch.dropped[0].reason
    shown = [[(i.width, i.height, i.format, i.orientation) for i in batch.data] for batch in (expected, batch)]
    assert shown[0] == shown[1]
    differences = [
        np.abs(a.model_input.astype(int) - b.model_input) for a, b in zip(batch.data, expected.data, strict=True)
    ]
    assert differences[0].max() <= 2
    assert not any(difference.any() for difference in differences[1:])
    made_by = batch._metadata["provenance"]
    assert (made_by["decode"], expected._metadata["provenance"]["decode"]) == ("gpu", "cpu")
    assert "torch" in made_by
    assert "nvidia-nvimgcodec-cu13" in made_by or "nvidia-nvimgcodec-cu12" in made_by
    assert reader.resources.gpus == 0.25
    assert ImageReaderStage().resources.gpus == 0


@pytest.mark.gpu
@pytest.mark.skipif(not HAS_GPU, reason="this machine has no CUDA GPU")
def test_the_reader_takes_the_gpus_of_this_machine(shard, caplog):
    reader = ImageReaderStage(decode="gpu")
    reader.check()
    [batch] = reader.process(FileGroupTask(data=[str(shard)]))
    assert [gpu._device.type for gpu in reader._gpus] == ["cuda"] * torch.cuda.device_count()
    reader.teardown()
    assert [image.image_id for image in batch.data] == ["large", "small", "progressive"]
    assert "damaged or truncated JPEG" in batch.dropped[0].reason
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


# What is asked for and is not there


def test_an_unknown_decoder_is_refused_with_the_known_ones():
    with pytest.raises(ConfigurationError, match="decode='dali' is not one of cpu, gpu"):
        ImageReaderStage(decode="dali")
    assert [choice.value for choice in Decode] == list(DECODES)


def test_nvimagecodec_that_is_not_there_is_named_before_anything_runs(monkeypatch):
    monkeypatch.setitem(sys.modules, "nvidia.nvimgcodec", None)
    monkeypatch.delattr("nvidia.nvimgcodec")
    with pytest.raises(MissingExtraError, match=r"tastemaker\[gpu-decode\]"):
        ImageReaderStage(decode="gpu").check()


def test_torch_that_is_not_there_is_named_before_anything_runs(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(MissingExtraError, match=r"needs PyTorch and nvImageCodec: .*tastemaker\[gpu-decode\]"):
        ImageReaderStage(decode="gpu").check()


@pytest.mark.skipif(HAS_GPU, reason="this machine has a GPU")
def test_a_gpu_that_is_not_there_is_a_configuration_error():
    with pytest.raises(ConfigurationError, match=r"needs an NVIDIA GPU that PyTorch can use .* use decode='cpu'"):
        ImageReaderStage(decode="gpu").check()
    with pytest.raises(ConfigurationError, match="nvImageCodec cannot use cuda:0"):
        GpuDecoder("cuda:0")
    assert gpu_decode.import_nvimgcodec().__version__


def test_rows_that_processors_decoded_keep_their_fingerprint(model_dir):
    options = {"model_dir": str(model_dir), "device": "cpu"}
    assert "decode" not in make_fingerprint(RunOptions(**options))
    assert make_fingerprint(RunOptions(**options, decode="gpu"))["decode"] == "gpu"

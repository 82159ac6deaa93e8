"""Large JPEGs decoded and resized on a GPU by nvImageCodec, each of them checked by the processor.

A decoder on a GPU does not say that a file is damaged: it says that the work was handed over. So the processor decodes
each JPEG as well, to an eighth of its sides, which takes a fraction of the time: it reads every coded bit, and libjpeg
gives the same warnings as for the whole picture. And what comes back has to look like that small picture. Whatever is
damaged, unusual, too large, or comes back otherwise is left to `tastemaker.imaging.decode`, which has the last word.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections import deque
from dataclasses import dataclass
from typing import Any

import numpy as np
import simplejpeg
import torch
from PIL import Image
from torch.utils.dlpack import from_dlpack

from tastemaker.errors import ConfigurationError, MissingExtraError
from tastemaker.imaging.decode import MAX_IMAGE_PIXELS, read_orientation
from tastemaker.imaging.jpeg_metadata import read_segments
from tastemaker.imaging.matrix_resize import MatrixResize
from tastemaker.imaging.preprocess import INPUT_SIZE, Pixels, ResizePlan, plan_resize
from tastemaker.imaging.room import LARGE_PIXELS
from tastemaker.machine import usable_cores
from tastemaker.models.device import INSTALL_GPU_DECODE, cuda_devices

FACTOR = 8
"""The processor's picture is smaller by this: one pixel for each block of a JPEG, its mean."""

MIN_SIDE = FACTOR * INPUT_SIZE
"""Short side from which JPEGs go to the GPU: there the small picture still is no smaller than the model's input."""

MAX_TOGETHER = 16
"""JPEGs in one call of the decoder: of the largest that are let through, 2 GB of pixels."""

MAX_DIFFERENCE = 8.0
"""Of 255, between the means of parts of both pictures: sound ones differ by 3 at most, on noise (decision 0027)."""

MAX_FAILURES = 5
"""So many in a row, and the GPU is left alone from then on."""

_PARTS = 14
"""So many parts each way: 16 by 16 pixels of the model's input."""

_HOST_THREADS = 4
"""Of nvImageCodec's own; each keeps buffers for whole pictures on the GPU."""

_SEQUENTIAL, _FRAMES = frozenset({0xC0, 0xC1}), frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
"""Markers of the frame of a JPEG: those of one scan, coded with Huffman's codes; and all."""

logger = logging.getLogger(__name__)


@dataclass
class _Job:
    """A JPEG on its way through the GPU; ``pixels`` stays None where it failed there."""

    data: bytes
    plan: ResizePlan
    pixels: Pixels | None = None
    done: bool = False


class GpuDecoder:
    """Makes the model's input of large JPEGs on one GPU. Any number of threads may call it.

    nvImageCodec's decoder is not for several threads. Whoever comes while it works waits, and the next one in takes
    the JPEGs of all who wait along in one call, as the GPU likes them.

    Args:
        device: ``cuda:N``; or ``cpu``, with which nvImageCodec decodes without a GPU, as tests do.
        min_side: Smaller JPEGs are left to the processor, by their short side.

    Raises:
        MissingExtraError: nvImageCodec is not installed, or nvJPEG is not.
        ConfigurationError: It cannot use the device.
    """

    def __init__(self, device: str, min_side: int = MIN_SIDE) -> None:
        self._device = torch.device(device)
        self._min_side = min_side
        self._nvimgcodec = import_nvimgcodec()
        self._codec = self._open()
        self._params = self._nvimgcodec.DecodeParams(
            apply_exif_orientation=False, color_spec=self._nvimgcodec.ColorSpec.SRGB
        )
        self._stream = torch.cuda.Stream(self._device) if self._device.type == "cuda" else None
        self._resize = MatrixResize(self._device)
        self._lock = threading.Lock()
        self._jobs: deque[_Job] = deque()
        self._failures = 0
        self._try_out()

    def make_input(
        self, data: bytes, kind: str, *, max_pixels: int = MAX_IMAGE_PIXELS, apply_exif_rotation: bool = False
    ) -> Pixels | None:
        """Return the model's input, uint8 (224, 224, 3), RGB, or None where the processor is to decode the image.

        Args:
            data: The whole encoded file, of any format.
            kind: ``openai`` or ``transformers``: how the offset of the crop is rounded.
            max_pixels: Larger ones are for the processor to refuse.
            apply_exif_rotation: Images that would have to be turned are left to the processor.
        """
        if self._failures >= MAX_FAILURES or not self._suits(data, max_pixels):
            return None
        if apply_exif_rotation and read_orientation(data, "JPEG") != 1:
            return None
        try:
            height, width, _, _ = simplejpeg.decode_jpeg_header(data, strict=False)
            small = simplejpeg.decode_jpeg(data, strict=True, min_height=1, min_width=1, min_factor=FACTOR)
        except (ValueError, MemoryError):
            return None  # damaged, or harmless: the processor's decoder knows which
        job = _Job(data, plan_resize(height, width, kind, INPUT_SIZE))
        self._do(job)
        if job.pixels is None:
            return None
        difference = compare_with_small(job.pixels, small, job.plan, height, width)
        if difference > MAX_DIFFERENCE:
            self._note_failure(f"its pixels differ by {difference:.0f} of 255 from the processor's in one part")
            return None
        self._failures = 0
        return job.pixels

    def _suits(self, data: bytes, max_pixels: int) -> bool:
        """Return whether this is a JPEG of the common kind, of a size that pays on the GPU."""
        if data[:3] != b"\xff\xd8\xff":
            return False
        frame = next((segment.marker for segment in read_segments(data) if segment.marker in _FRAMES), None)
        if frame not in _SEQUENTIAL:
            return False  # of a progressive one the processor reads all scans for its small picture: nothing is gained
        try:
            height, width, colorspace, _ = simplejpeg.decode_jpeg_header(data, strict=False)
        except (ValueError, KeyError):
            return False
        is_large = min(height, width) >= self._min_side and width * height <= min(max_pixels, LARGE_PIXELS)
        return bool(is_large and colorspace == "YCbCr" and height <= 2 * width <= 2 * FACTOR * height)

    def _do(self, job: _Job) -> None:
        """Wait until the job is done, and do it with those of others where nobody else does."""
        self._jobs.append(job)
        with self._lock:
            while not job.done:
                self._decode([self._jobs.popleft() for _ in range(min(MAX_TOGETHER, len(self._jobs)))])

    def _decode(self, jobs: list[_Job]) -> None:
        """Set the pixels of those jobs that the GPU can do."""
        try:
            with torch.cuda.stream(self._stream) if self._stream else contextlib.nullcontext():
                self._fill(jobs)
        except Exception as error:  # noqa: BLE001 - no memory, a driver's error: the processor does these
            self._note_failure(f"{type(error).__name__}: {error}")
        finally:
            for job in jobs:
                job.done = True

    def _fill(self, jobs: list[_Job]) -> None:
        sources = [self._nvimgcodec.CodeStream(job.data) for job in jobs]
        stream = 0
        if self._stream is not None:
            self._stream.synchronize()  # nvJPEG's hardware writes without a wait for what an error left in the stream
            stream = self._stream.cuda_stream
        images = self._codec.decode(sources, params=self._params, cuda_stream=stream)
        decoded = [(job, image) for job, image in zip(jobs, images, strict=True) if image is not None]
        if len(decoded) < len(jobs):
            self._note_failure(f"nvImageCodec could not decode {len(jobs) - len(decoded)} of {len(jobs)} JPEGs")
        if not decoded:
            return
        crops = torch.stack([self._resize(self._pixels_of(image), job.plan) for job, image in decoded])
        for (job, _), pixels in zip(decoded, crops.cpu().numpy(), strict=True):  # `cpu` waits for the stream
            job.pixels = pixels.copy()  # a view keeps all of them

    def _pixels_of(self, image: Any) -> torch.Tensor:  # noqa: ANN401 - nvImageCodec has no types
        return torch.from_numpy(np.asarray(image)) if self._stream is None else from_dlpack(image)

    def _note_failure(self, reason: str) -> None:
        self._failures += 1
        if self._failures == 1:
            logger.warning("decoding on %s: %s; the processor decodes these images", self._device, reason)
        elif self._failures == MAX_FAILURES:
            logger.warning("decoding on %s failed %d times in a row; no more is tried", self._device, MAX_FAILURES)

    def _open(self) -> Any:  # noqa: ANN401
        codec = self._nvimgcodec
        kinds, device = codec.BackendKind, codec.NVIMGCODEC_DEVICE_CPU_ONLY
        wanted = [kinds.CPU_ONLY]
        if self._device.type == "cuda":  # not CPU_ONLY: what the GPU cannot do is for our own decoder
            wanted, device = [kinds.HW_GPU_ONLY, kinds.GPU_ONLY, kinds.HYBRID_CPU_GPU], self._device.index or 0
        threads = max(1, min(_HOST_THREADS, usable_cores() - 1))  # with more it complains
        try:
            return codec.Decoder(
                device_id=device, max_num_cpu_threads=threads, backends=[codec.Backend(kind) for kind in wanted]
            )
        except RuntimeError as error:
            raise ConfigurationError(
                f"decode='gpu': nvImageCodec cannot use {self._device} ({error}); use decode='cpu'"
            ) from error

    def _try_out(self) -> None:
        """Raise unless a sound JPEG comes back as it should: without nvJPEG every image would fail, one by one."""
        picture = np.full((256, 256, 3), 128, np.uint8)
        data = simplejpeg.encode_jpeg(picture)
        job = _Job(data, plan_resize(256, 256, "openai", INPUT_SIZE))
        self._do(job)
        if job.pixels is None or np.abs(job.pixels.astype(int) - 128).max() > MAX_DIFFERENCE:
            raise MissingExtraError(
                f"decode='gpu': nvImageCodec does not decode a JPEG on {self._device}; it needs nvJPEG "
                f"({INSTALL_GPU_DECODE}), or use decode='cpu'"
            )


def compare_with_small(pixels: Pixels, small: Pixels, plan: ResizePlan, height: int, width: int) -> float:
    """Return the largest difference, of 255, between the means of equal parts of the model's input and a small picture.

    Args:
        pixels: The model's input, uint8 (224, 224, 3).
        small: The source at an eighth of its sides, uint8 (height / 8, width / 8, 3), rounded up.
        plan: How the source became the model's input.
        height: Of the source in pixels.
        width: The same.
    """
    size = len(pixels)
    part_of_last_block = (0, 0, width / FACTOR, height / FACTOR)  # the rest of it is outside of the picture
    resized = Image.fromarray(small).resize((plan.width, plan.height), Image.Resampling.BICUBIC, part_of_last_block)
    expected = resized.crop((plan.left, plan.top, plan.left + size, plan.top + size))
    means = [
        np.asarray(picture).reshape(_PARTS, size // _PARTS, _PARTS, size // _PARTS, 3).mean((1, 3), np.float32)
        for picture in (pixels, expected)
    ]
    return float(np.abs(means[0] - means[1]).max())


def open_gpu_decoders(device: str = "auto") -> list[GpuDecoder]:
    """Return a decoder for each GPU that may be used.

    Args:
        device: ``cuda:N``; ``auto`` or ``cuda`` for all of this process.

    Raises:
        MissingExtraError: nvImageCodec is not installed, or nvJPEG is not.
        ConfigurationError: There is no such GPU, or nvImageCodec cannot use it.
    """
    return [GpuDecoder(name) for name in find_decoding_gpus(device)]


def find_decoding_gpus(device: str = "auto") -> list[str]:
    """Return the names of the GPUs that `open_gpu_decoders` would use, and use none. Raises as it does."""
    import_nvimgcodec()
    found = cuda_devices() if torch.cuda.is_available() else []
    wanted = found if device in ("auto", "cuda") else [device]
    if not wanted or not set(wanted) <= set(found):
        raise ConfigurationError(
            f"decode='gpu' needs an NVIDIA GPU that PyTorch can use (device={device!r}), found "
            f"{', '.join(found) or 'none'}; use decode='cpu'"
        )
    return wanted


def import_nvimgcodec() -> Any:  # noqa: ANN401 - it has no types
    """Return the module.

    Raises:
        MissingExtraError: It is not installed.
    """
    try:
        from nvidia import nvimgcodec
    except ImportError as error:
        raise MissingExtraError(f"decode='gpu' needs nvImageCodec: {INSTALL_GPU_DECODE} ({error})") from None
    return nvimgcodec

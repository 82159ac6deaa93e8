"""The loop around a CLIP model in PyTorch, as people write it: tar, Pillow, DataLoader, model, LAION's head."""

import io
import os
import tarfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

import torch
from PIL import Image
from safetensors.torch import load_file
from torch import nn
from torch.utils.data import DataLoader, Dataset

BATCH_SIZE = 32

Prepare = Callable[[list[Image.Image]], torch.Tensor]
"""Pictures in, float32 (n, 3, 224, 224) out."""
ScoreBatch = Callable[[torch.Tensor], torch.Tensor]
"""Pixels on the device in, scores (n,) out."""


def pick_device() -> str:
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def device_name() -> str:
    return torch.cuda.get_device_name() if torch.cuda.is_available() else pick_device()


def reduced_dtype() -> torch.dtype:
    """Return the short type that this machine multiplies in hardware; float32 where it has none."""
    if pick_device() != "cpu":
        return torch.float16
    info = Path("/proc/cpuinfo")
    flags = info.read_text() if info.exists() else ""
    return torch.bfloat16 if "avx512_bf16" in flags or "amx_bf16" in flags else torch.float32


class Head(nn.Module):
    """The predictor as LAION published it."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(768, 1024),
            nn.Dropout(0.2),
            nn.Linear(1024, 128),
            nn.Dropout(0.2),
            nn.Linear(128, 64),
            nn.Dropout(0.1),
            nn.Linear(64, 16),
            nn.Linear(16, 1),
        )
        self.load_state_dict(load_file(file))
        self.eval()

    def forward(self, embeddings: torch.Tensor) -> torch.Tensor:
        unit = nn.functional.normalize(embeddings.float(), dim=-1)  # (n, 768)
        return self.layers(unit)[:, 0]


class TarPictures(Dataset):
    """The JPEGs of a folder of shards, each read by its place in its tar."""

    def __init__(self, folder: Path) -> None:
        self.places = []
        for shard in sorted(folder.glob("*.tar")):
            with tarfile.open(shard) as tar:
                jpegs = [member for member in tar if member.name.endswith(".jpg")]
            self.places += [(shard, member.offset_data, member.size, Path(member.name).stem) for member in jpegs]

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, number: int) -> tuple[str, Image.Image]:
        shard, offset, size, key = self.places[number]
        with shard.open("rb") as file:
            file.seek(offset)
            return key, Image.open(io.BytesIO(file.read(size))).convert("RGB")


def make_scorer(prepare: Prepare, score_batch: ScoreBatch) -> Callable[[Path], dict[str, float]]:
    """Return the loop over the shards of a folder."""
    device = pick_device()

    @cache  # workers stay from run to run
    def batches(folder: Path) -> DataLoader:
        # A processor is busy with the model: pictures are read between batches. A GPU needs all cores to be fed.
        workers = (os.cpu_count() or 1) if device != "cpu" else 0
        return DataLoader(
            TarPictures(folder),
            BATCH_SIZE,
            num_workers=workers,
            collate_fn=lambda pairs: ([key for key, _ in pairs], prepare([picture for _, picture in pairs])),
            pin_memory=device == "cuda",
            persistent_workers=workers > 0,
            multiprocessing_context="fork" if workers else None,
        )

    def score(folder: Path) -> dict[str, float]:
        keys, scores = [], []
        with torch.inference_mode():
            for names, pixels in batches(folder):
                keys += names
                scores.append(score_batch(pixels.to(device, non_blocking=True)))
        return dict(zip(keys, torch.cat(scores).tolist(), strict=True))

    return score


def declare_torchvision_operators() -> str:
    """Make ``import torchvision`` work where its compiled half does not fit this PyTorch; return words on it.

    There may be no build of torchvision for a PyTorch without CUDA. Its transforms of pictures are Python and
    PyTorch, and only the import fails, on two operators for object detection. They are declared here, not made.
    """
    try:
        import torchvision
    except RuntimeError:
        library = torch.library.Library("torchvision", "DEF")
        library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        KEEP.append(library)
        import torchvision  # noqa: F401

        return ", torchvision's detection operators only declared"
    return ""


KEEP: list[object] = []
"""A library's operators go when it is freed."""

"""The pictures and weights that all peers get, each weight under the names that a peer reads."""

import io
import json
import tarfile
from pathlib import Path

import numpy as np
from common import photographs
from PIL import Image
from safetensors.numpy import load_file, save_file

from tastemaker.imaging.preprocess import preprocess
from tastemaker.models.aesthetic import AestheticPredictor
from tastemaker.models.hub import file_sha256, weights_path
from tastemaker.models.published.laion_v2 import AESTHETIC_PREDICTOR
from tastemaker.models.published.openai_clip import CLIP_VIT_L14
from tastemaker.testing import VIT_L14, write_random_models

HOW = CLIP_VIT_L14.preprocess

Tensors = dict[str, np.ndarray]

IMAGES_PER_SHARD = 64
LAION_STEEPNESS = 17.996
"""Length of the published predictor's weights, folded into one layer."""

TIMM_NAMES = {
    "embeddings.class_embedding": "cls_token",
    "embeddings.position_embedding.weight": "pos_embed",
    "embeddings.patch_embedding": "patch_embed.proj",
    "pre_layrnorm": "norm_pre",
    "post_layernorm": "norm",
    "encoder.layers": "blocks",
    "layer_norm": "norm",
    "self_attn.out_proj": "attn.proj",
    "self_attn.in_proj_": "attn.qkv.",
}
OPEN_CLIP_NAMES = {
    "embeddings.class_embedding": "class_embedding",
    "embeddings.position_embedding.weight": "positional_embedding",
    "embeddings.patch_embedding": "conv1",
    "pre_layrnorm": "ln_pre",
    "post_layernorm": "ln_post",
    "encoder.layers": "transformer.resblocks",
    "layer_norm": "ln_",
    "self_attn": "attn",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
}
VISION_CONFIG = {
    "hidden_size": VIT_L14.width,
    "intermediate_size": VIT_L14.mlp,
    "num_hidden_layers": VIT_L14.layers,
    "num_attention_heads": VIT_L14.heads,
    "image_size": VIT_L14.image_size,
    "patch_size": VIT_L14.patch,
    "projection_dim": VIT_L14.dimension,
    "hidden_act": "quick_gelu",
    "model_type": "clip_vision_model",
}
PROCESSOR_CONFIG = {
    "image_processor_type": "CLIPImageProcessor",
    "size": {"shortest_edge": 224},
    "crop_size": {"height": 224, "width": 224},
    "resample": Image.Resampling.BICUBIC.value,
    "image_mean": HOW.mean,
    "image_std": HOW.std,
}

# Pictures


def write_shards(folder: Path, images: int) -> Path:
    """Write tar shards of different JPEGs with a longer side of 512, and return the folder.

    Only pictures of a size on which OpenAI's centre crop and transformers' are the same: elsewhere these differ by a
    pixel, and so do the scores.
    """
    folder.mkdir(parents=True, exist_ok=True)
    encoded = distinct_pictures(images)
    for start in range(0, images, IMAGES_PER_SHARD):
        with tarfile.open(folder / f"{start // IMAGES_PER_SHARD:05d}.tar", "w") as tar:
            for number in range(start, min(start + IMAGES_PER_SHARD, images)):
                for extension, content in (("jpg", encoded[number % len(encoded)]), ("txt", b"a caption")):
                    info = tarfile.TarInfo(f"{number:06d}.{extension}")
                    info.size = len(content)
                    tar.addfile(info, io.BytesIO(content))
    return folder


def distinct_pictures(count: int) -> list[bytes]:
    """Return up to ``count`` JPEGs: the photographs, then the same mirrored and turned."""
    pictures = [Image.open(io.BytesIO(jpeg)) for jpeg in photographs(512, 6)]
    encoded: list[bytes] = []
    for way in (None, *Image.Transpose):
        for picture in pictures:
            changed = picture if way is None else picture.transpose(way)
            if len(encoded) < count and has_one_centre(changed):
                file = io.BytesIO()
                changed.save(file, "JPEG", quality=90)
                encoded.append(file.getvalue())
    return encoded


def has_one_centre(picture: Image.Image) -> bool:
    pixels = np.asarray(picture)
    return np.array_equal(preprocess(pixels, HOW), preprocess(pixels, HOW.with_rounding("transformers")))


# Weights


def write_weights(folder: Path) -> dict[str, Path]:
    """Write random weights once, and return each layout's folder; ``head`` is the predictor's file."""
    places = {name: folder / name for name in ("tastemaker", "transformers", "predictor", "open_clip", "timm")}
    clip = weights_path(CLIP_VIT_L14, places["tastemaker"])
    places["head"] = weights_path(AESTHETIC_PREDICTOR, places["tastemaker"])
    if not (folder / "complete").exists():
        write_random_models(places["tastemaker"], VIT_L14)
        scale_head(places["head"])
        vision = {n: t for n, t in load_file(clip).items() if not n.startswith("text_model.")}
        head = load_file(places["head"])
        save_as_hub_does(places["transformers"], vision, "CLIPVisionModelWithProjection")
        save_as_hub_does(places["predictor"], vision | head, "AestheticsPredictorV2Linear")
        for name, convert in (("open_clip", to_open_clip), ("timm", to_timm)):
            places[name].mkdir(exist_ok=True)
            save_file(convert(vision), places[name] / "model.safetensors")
        (folder / "complete").touch()
    for file in (clip, places["head"]):
        file_sha256(file)  # tastemaker reads each file once to know it; that is no part of a usual start
    return places


def scale_head(file: Path) -> None:
    """Make a random predictor as steep as LAION's, so that an error in an embedding moves a score as far."""
    steepness = np.linalg.norm(AestheticPredictor.from_file(file).weight)
    tensors = load_file(file)
    tensors["layers.7.weight"] *= np.float32(LAION_STEEPNESS / steepness)
    save_file(tensors, file)


def save_as_hub_does(folder: Path, tensors: Tensors, architecture: str) -> None:
    folder.mkdir(exist_ok=True)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps({"architectures": [architecture], **VISION_CONFIG}))
    (folder / "preprocessor_config.json").write_text(json.dumps(PROCESSOR_CONFIG))


def to_open_clip(vision: Tensors) -> Tensors:
    """Return the tower under the names of open_clip's ``model.visual``."""
    tensors = renamed(fuse_attention(vision), OPEN_CLIP_NAMES)
    tensors["proj"] = np.ascontiguousarray(tensors.pop("visual_projection.weight").T)
    return tensors


def to_timm(vision: Tensors) -> Tensors:
    """Return the tower under timm's names. Its head has a bias, zero here as in its own conversion of CLIP."""
    tensors = renamed(fuse_attention(vision), TIMM_NAMES)
    tensors["cls_token"] = tensors["cls_token"].reshape(1, 1, -1)
    tensors["pos_embed"] = tensors["pos_embed"][None]
    tensors["head.weight"] = tensors.pop("visual_projection.weight")
    tensors["head.bias"] = np.zeros(len(tensors["head.weight"]), np.float32)
    return tensors


def fuse_attention(tensors: Tensors) -> Tensors:
    """Return the tensors with queries, keys and values of each layer one below the other, in one."""
    fused = dict(tensors)
    for name in tensors:
        if ".q_proj." in name:
            parts = [fused.pop(name.replace(".q_proj.", f".{part}_proj.")) for part in "qkv"]
            fused[name.replace(".q_proj.", ".in_proj_")] = np.concatenate(parts)
    return fused


def renamed(tensors: Tensors, names: dict[str, str]) -> Tensors:
    changed = {}
    for name, tensor in tensors.items():
        short = name.removeprefix("vision_model.")
        for old, new in names.items():
            short = short.replace(old, new)
        changed[short] = tensor
    return changed

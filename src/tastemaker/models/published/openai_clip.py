"""OpenAI's CLIP, the vision half. Source of the constants: ``clip/clip.py`` and ``clip/model.py`` in openai/CLIP."""

from __future__ import annotations

from tastemaker.imaging.model_input import Preprocess
from tastemaker.models.records import Backbone, TextConfig, Tokenizer

PREPROCESS = Preprocess(
    size=224,
    mean=(0.48145466, 0.4578275, 0.40821073),
    std=(0.26862954, 0.26130258, 0.27577711),
)


def _text_of(repository: str, revision: str | None = None) -> TextConfig:
    description = "tokenizer of CLIP, text to tokens"
    return TextConfig(tokenizer=Tokenizer(id=repository, description=description, revision=revision, licence="MIT"))


CLIP_VIT_L14 = Backbone(
    id="openai/clip-vit-large-patch14",
    description="CLIP ViT-L/14, images to embeddings",
    revision="32bd642",
    sha256="a2bf730a0c7debf160f7a6b50b3aaf3703e7e88ac73de7a314903141db026dcb",
    size_bytes=1_710_540_580,
    licence="MIT",
    preprocess=PREPROCESS,
    dimension=768,
    text=_text_of("openai/clip-vit-large-patch14", "32bd642"),
)

CLIP_VIT_B16 = Backbone(  # no revision is known that has the weights as safetensors: the newest is asked for
    id="openai/clip-vit-base-patch16",
    description="CLIP ViT-B/16, images to embeddings",
    licence="MIT",
    preprocess=PREPROCESS,
    dimension=512,
    text=_text_of("openai/clip-vit-base-patch16"),
)

CLIP_VIT_B32 = Backbone(
    id="openai/clip-vit-base-patch32",
    description="CLIP ViT-B/32, images to embeddings",
    revision="c237dc49a33fc61debc9276459120b7eac67e7ef",  # Hugging Face's conversion to safetensors (pull request 66)
    size_bytes=605_157_884,
    licence="MIT",
    preprocess=PREPROCESS,
    dimension=512,
    text=_text_of("openai/clip-vit-base-patch32", "c237dc49a33fc61debc9276459120b7eac67e7ef"),
)

"""LAION's detector of images that are not safe for work, 2022, for CLIP ViT-L/14.

Source: LAION-AI/CLIP-based-NSFW-Detector on GitHub, in the file for PyTorch that NeMo Curator loads, too. An embedding
is normalised by fixed numbers; then come layers of 64, 512, 256 and 1 with ReLUs between, and a sigmoid.
"""

from __future__ import annotations

from functools import partial

from tastemaker.models.published.layers import load_layers
from tastemaker.models.published.openai_clip import CLIP_VIT_L14
from tastemaker.models.records import Head, Scorer

NSFW_DETECTOR = Head(
    id="laion/clip-autokeras-binary-nsfw",
    description="LAION's NSFW detector, embeddings to probabilities",
    filename="clip_autokeras_binary_nsfw.pth",
    url="https://github.com/LAION-AI/CLIP-based-NSFW-Detector/files/10250461/clip_autokeras_binary_nsfw.zip",
    licence="MIT",
    dimension=768,
    load=partial(load_layers, kind="detector"),
)

NSFW = Scorer(
    name="nsfw",
    column="nsfw_score",  # NeMo Curator's name; higher is less safe
    backbone=CLIP_VIT_L14,
    head=NSFW_DETECTOR,
    score_range=(0.0, 1.0),
    customary_cutoffs=(0.5,),  # NeMo Curator's, which keeps what is below
)

"""LAION's "improved aesthetic predictor", 2022: five linear layers, trained on the sets SAC, Logos and AVA."""

from __future__ import annotations

from tastemaker.models.published.linear import load_linear
from tastemaker.models.published.openai_clip import CLIP_VIT_L14
from tastemaker.models.records import Head, Scorer

AESTHETIC_PREDICTOR = Head(
    id="ttj/sac-logos-ava1-l14-linearMSE",
    description="LAION aesthetic predictor v2, embeddings to scores",
    revision="1e77fa0",
    sha256="83dabcfc852cf0d6919c398d4f9891ec8be231e29f41d300f820ab21b5e40027",
    size_bytes=3_700_000,
    dimension=768,
    load=load_linear,
)

LAION_V2 = Scorer(
    name="laion-v2",
    backbone=CLIP_VIT_L14,
    head=AESTHETIC_PREDICTOR,
    score_range=(1.0, 10.0),
    customary_cutoffs=(4.5, 5.0, 6.0, 6.5),  # of LAION-Aesthetics V2
)

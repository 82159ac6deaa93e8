"""LAION's "improved aesthetic predictors", 2022: five linear layers each, for CLIP ViT-L/14.

Source: christophschuhmann/improved-aesthetic-predictor on GitHub. The default was trained on the sets SAC, Logos and
AVA, the two others on Logos and AVA; one of those has a ReLU after each of its first four layers.
"""

from __future__ import annotations

from functools import partial
from urllib.parse import quote

from tastemaker.models.published.layers import load_layers
from tastemaker.models.published.openai_clip import CLIP_VIT_L14
from tastemaker.models.records import Head, Scorer

AESTHETIC_PREDICTOR = Head(
    id="ttj/sac-logos-ava1-l14-linearMSE",
    description="LAION aesthetic predictor v2, embeddings to scores",
    revision="1e77fa0",
    sha256="83dabcfc852cf0d6919c398d4f9891ec8be231e29f41d300f820ab21b5e40027",
    size_bytes=3_700_000,
    licence="Apache-2.0",
    dimension=768,
    load=partial(load_layers, kind="linear"),
)

LAION_V2 = Scorer(
    name="laion-v2",
    column="aesthetic_score",  # NeMo Curator's name
    backbone=CLIP_VIT_L14,
    head=AESTHETIC_PREDICTOR,
    score_range=(1.0, 10.0),
    customary_cutoffs=(4.5, 5.0, 6.0, 6.5),  # of LAION-Aesthetics V2
)


def _trained_on_ava(kind: str) -> Scorer:
    filename = f"ava+logos-l14-{kind}MSE.pth"
    head = Head(
        id="christophschuhmann/improved-aesthetic-predictor",
        description=f"LAION aesthetic predictor v2 trained on AVA and Logos, {kind}",
        filename=filename,
        url=f"https://github.com/christophschuhmann/improved-aesthetic-predictor/raw/main/{quote(filename)}",
        licence="Apache-2.0",
        dimension=768,
        load=partial(load_layers, kind=kind),
    )
    name = f"laion-v2-ava-{kind}"
    return Scorer(
        name=name,
        column=name.replace("-", "_"),
        backbone=CLIP_VIT_L14,
        head=head,
        score_range=(1.0, 10.0),
    )


LAION_V2_AVA_LINEAR = _trained_on_ava("linear")
LAION_V2_AVA_RELU = _trained_on_ava("relu")

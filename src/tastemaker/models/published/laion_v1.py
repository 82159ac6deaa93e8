"""LAION's first aesthetic predictors, 2022: one linear layer each, trained on the Simulacra captions.

Source: LAION-AI/aesthetic-predictor on GitHub. The files are small ``.pth``.
"""

from __future__ import annotations

from functools import partial

from tastemaker.models.published.layers import load_layers
from tastemaker.models.published.openai_clip import CLIP_VIT_B16, CLIP_VIT_B32, CLIP_VIT_L14
from tastemaker.models.records import Backbone, Head, Scorer


def _scorer(vit: str, backbone: Backbone, sha256: str | None) -> Scorer:
    filename = f"sa_0_4_vit_{vit}_linear.pth"
    head = Head(
        id="LAION-AI/aesthetic-predictor",
        description=f"LAION aesthetic predictor v1 for {backbone.id}",
        filename=filename,
        url=f"https://raw.githubusercontent.com/LAION-AI/aesthetic-predictor/main/{filename}",
        sha256=sha256,
        licence="MIT",
        dimension=backbone.dimension,
        load=partial(load_layers, kind="linear"),
    )
    name = f"laion-v1-{vit.replace('_', '')}"
    column = name.replace("-", "_")
    cutoffs = (7.0, 8.0)  # of LAION-Aesthetics V1
    return Scorer(
        name=name,
        column=column,
        backbone=backbone,
        head=head,
        score_range=(1.0, 10.0),
        customary_cutoffs=cutoffs,
    )


LAION_V1_L14 = _scorer("l_14", CLIP_VIT_L14, "2cd4e60f4f24ae3bcd57b847b13c1f3ba27edc28cc1a7f9ce74ee9f421243cba")
LAION_V1_B16 = _scorer("b_16", CLIP_VIT_B16, None)
LAION_V1_B32 = _scorer("b_32", CLIP_VIT_B32, "c7b14cead230694acc7b9447974d3cad78003c72da032e402a303b6c2429e85f")

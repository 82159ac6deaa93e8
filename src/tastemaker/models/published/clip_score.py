"""CLIP score: how well a caption fits its image, by the text half of the model that embeds the images.

See `tastemaker.models.words`. The cut-offs are those of NeMo Curator's filter of interleaved data (0.15, ViT-L/14)
and of LAION-2B (0.28, ViT-B/32).
"""

from __future__ import annotations

from tastemaker.models.published.openai_clip import CLIP_VIT_B32, CLIP_VIT_L14
from tastemaker.models.records import Scorer, TextHead

CLIP_SCORE = Scorer(
    name="clip-score",
    column="clip_score",
    backbone=CLIP_VIT_L14,
    head=TextHead.of(CLIP_VIT_L14),
    score_range=(-1.0, 1.0),
    customary_cutoffs=(0.15,),
)

CLIP_SCORE_B32 = Scorer(
    name="clip-score-b32",
    column="clip_score_b32",
    backbone=CLIP_VIT_B32,
    head=TextHead.of(CLIP_VIT_B32),
    score_range=(-1.0, 1.0),
    customary_cutoffs=(0.28,),
)

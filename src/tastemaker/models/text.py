"""Text to embeddings that lie in the same space as a backbone's embeddings of images: CLIP's text half.

Source: A. Radford et al., "Learning Transferable Visual Models From Natural Language Supervision", 2021, and
``clip/model.py`` in openai/CLIP. Each token sees itself and those before it. The embedding is that of the token that
ends the text. Texts of more than 77 tokens are cut, as transformers' processor does with ``truncation=True``.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tastemaker.errors import ConfigurationError, ModelError
from tastemaker.models.openvino_graph import TransformerGraph, compile_graph, import_openvino
from tastemaker.models.published.openai_clip import CLIP_VIT_L14
from tastemaker.models.records import Backbone, TextConfig
from tastemaker.models.vit import Embeddings, make_inference_lock
from tastemaker.models.weights import WeightsFile

BATCH_TEXTS = 32
"""Texts in one inference."""


class TextTower:
    """The text half of a backbone, on a processor and in float32. Threads may share one.

    Args:
        weights: The backbone's file; read through a memory map.
        tokenizer: Its ``tokenizer.json``.
        backbone: What the file holds.
        threads: Threads for inference; None for all cores.

    Raises:
        ConfigurationError: The backbone has no text half, or there are fewer than 1 threads.
        ModelError: The files cannot be read, or do not fit.
    """

    def __init__(
        self, weights: Path, tokenizer: Path, backbone: Backbone = CLIP_VIT_L14, threads: int | None = None
    ) -> None:
        if backbone.text is None:
            raise ConfigurationError(f"{backbone.id} embeds images only, not text")
        self.backbone = backbone
        self._weights = WeightsFile(weights)
        problems = self._weights.find_misfits(backbone.required_text_tensors)
        if problems:
            raise ModelError(f"{weights} holds no text tower of {backbone.id}: {'; '.join(problems[:3])}")
        words, width = self._weights.shapes[backbone.text.names.vocabulary]
        self.max_tokens = self._weights.shapes[backbone.text.names.positions][0]
        self._tokenizer = backbone.text.tokenizer.load(tokenizer)
        if self._tokenizer.get_vocab_size() > words:
            raise ModelError(f"{tokenizer} has {self._tokenizer.get_vocab_size()} tokens, and {weights} knows {words}")
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(self.max_tokens)
        graph = _build_graph(self._weights, backbone.text, width)
        self._request = compile_graph(graph, "f32", threads).create_infer_request()
        self._lock = make_inference_lock()

    def embed(self, texts: Sequence[str]) -> Embeddings:
        """Return the embedding of each text.

        Args:
            texts: n texts of any length. An empty one has an embedding, too.

        Returns:
            float32 (n, d), each row of unit length.
        """
        tokens = [encoding.ids for encoding in self._tokenizer.encode_batch(list(texts))]
        embeddings = np.empty((len(tokens), self.backbone.dimension), np.float32)
        by_length = sorted(range(len(tokens)), key=lambda number: len(tokens[number]))  # little is padded then
        for start in range(0, len(tokens), BATCH_TEXTS):
            chosen = by_length[start : start + BATCH_TEXTS]
            embeddings[chosen] = self._infer([tokens[number] for number in chosen])
        return embeddings

    def _infer(self, tokens: list[list[int]]) -> Embeddings:
        ends: npt.NDArray[np.int32] = np.array([len(ids) - 1 for ids in tokens], np.int32)
        padded = np.zeros((len(tokens), int(ends.max()) + 1), np.int32)  # nothing before the end sees what is behind it
        for row, ids in zip(padded, tokens, strict=True):
            row[: len(ids)] = ids
        with self._lock:
            result: Embeddings = self._request.infer([padded, ends])[0].copy()
        return result


def _build_graph(weights: WeightsFile, config: TextConfig, width: int) -> Any:  # noqa: ANN401 - openvino ships no types
    """Return the tower as an OpenVINO model.

    It takes tokens, int32 (n, t), and the place of each text's last one, int32 (n,), and returns float32 (n, d).
    """
    ov = import_openvino()

    graph, names = TransformerGraph(weights, config, width), config.names
    op = graph.op
    ids = op.parameter([-1, -1], ov.Type.i32, name="tokens")
    ends = op.parameter([-1], ov.Type.i32, name="ends")
    length = op.slice(op.shape_of(ids), [1], [2], [1])
    positions = op.slice(graph.constant(names.positions), [0], length, [1], [0])  # (t, d)
    x = op.add(op.gather(graph.constant(names.vocabulary), ids, op.constant(np.int32(0))), positions)  # (n, t, d)
    for layer in range(names.count_layers(weights.shapes)):
        x = graph.transformer_layer(x, layer, is_causal=True)
    last = op.gather(x, op.unsqueeze(ends, [1]), op.constant(np.int32(1)), batch_dims=1)  # (n, 1, d)
    return ov.Model(
        [graph.project(graph.layer_norm(op.squeeze(last, [1]), names.last_norm))], [ids, ends], "text_tower"
    )

"""OpenVINO, and the parts of a transformer as its own operations, for vision and text alike."""

from __future__ import annotations

import importlib
import sys
from typing import Any

import numpy as np
import numpy.typing as npt

from tastemaker.errors import ConfigurationError
from tastemaker.machine import usable_cores
from tastemaker.models.records import TransformerConfig
from tastemaker.models.vit import QUICK_GELU_SLOPE, split_pool_attention
from tastemaker.models.weights import WeightsFile

QUANTIZATION_GROUP = 256
"""Numbers of one token that share a scale in int8: 128 is 5% slower, 512 as fast, the whole token slower."""

_TELEMETRY = "openvino_telemetry"


def import_openvino() -> Any:  # noqa: ANN401 - openvino ships no types
    """Return the module ``openvino``, imported without its telemetry.

    Its import would write an identifier of the user below ``~/intel`` and send an event to a server on the internet.
    Where the package for that is missing, a stand-in does nothing. So the package is hidden for that moment.
    """
    if "openvino" in sys.modules or _TELEMETRY in sys.modules:
        return importlib.import_module("openvino")
    sys.modules[_TELEMETRY] = None  # type: ignore[assignment]  # Python's way to say that there is none
    try:
        return importlib.import_module("openvino")
    finally:
        sys.modules.pop(_TELEMETRY, None)  # another thread may have done it


def compile_graph(graph: Any, precision: str, threads: int | None) -> Any:  # noqa: ANN401 - openvino ships no types
    """Return an OpenVINO model that is ready to run on this processor.

    Args:
        graph: The model.
        precision: ``f32``, ``bf16`` or ``fp16``.
        threads: For inference; None for all cores.

    Raises:
        ConfigurationError: There are fewer than 1 threads.
    """
    ov = import_openvino()

    if threads is not None and threads < 1:
        raise ConfigurationError(f"threads={threads} is less than 1; leave it out to use all cores")
    options: dict[str, Any] = {
        "INFERENCE_PRECISION_HINT": {"f32": ov.Type.f32, "bf16": ov.Type.bf16, "fp16": ov.Type.f16}[precision],
        "INFERENCE_NUM_THREADS": threads or usable_cores(),
        "PERFORMANCE_HINT": "LATENCY",
        "ENABLE_CPU_PINNING": False,  # two processes of one thread each would get the same core, and do half
        "DYNAMIC_QUANTIZATION_GROUP_SIZE": QUANTIZATION_GROUP,  # takes effect on 8-bit weights only
    }
    return ov.Core().compile_model(graph, "CPU", options)


class TransformerGraph:
    """Builds the parts. ``n`` inputs, ``t`` tokens each, ``d`` wide, ``h`` heads.

    Args:
        weights: Where its tensors are. The graph reads the mapped file, so it must stay open.
        config: How it computes.
        width: ``d``.
        is_int8: Multiply by weights in 8 bits (see `quantize_rows`).
    """

    def __init__(self, weights: WeightsFile, config: TransformerConfig, width: int, *, is_int8: bool = False) -> None:
        self.op: Any = import_openvino().opset13
        self.weights = weights
        self.config = config
        self.names = config.names
        self.width = width
        self.is_int8 = is_int8

    def layer_norm(self, x: Any, name: str) -> Any:  # noqa: ANN401
        """Return the norm of each token."""
        op = self.op
        x = op.mvn(x, op.constant(np.array([-1])), True, self.config.eps, "inside_sqrt")
        return op.add(op.multiply(x, self.constant(f"{name}.weight")), self.constant(f"{name}.bias"))

    def transformer_layer(self, x: Any, layer: int, *, first_only: bool = False, is_causal: bool = False) -> Any:  # noqa: ANN401
        """Return what a layer makes of tokens, (n, t, d).

        Args:
            x: (n, t, d).
            layer: Its number.
            first_only: Compute the first token only, (n, 1, d).
            is_causal: A token sees itself and those before it.
        """
        op, n = self.op, self.names
        query, key, value, out, fc1, fc2 = n.linears(layer)
        normed = self.layer_norm(x, f"{n.layers}.{layer}.{n.norm1}")
        keys, values = (self._linear(normed, name) for name in (key, value))
        if first_only:
            x, normed = self._first(x), self._first(normed)
        attended = self._attend(self._linear(normed, query), keys, values, is_causal=is_causal)
        x = op.add(x, self._linear(attended, out))
        return self._add_mlp(x, f"{n.layers}.{layer}.{n.norm2}", fc1, fc2)

    def pool(self, x: Any, pool: str) -> Any:  # noqa: ANN401
        """Return what a learned token makes of all tokens, (n, t, d) to (n, d).

        Args:
            x: (n, t, d), normed.
            pool: What stands before the names of the pooling's tensors.
        """
        probe, parts = split_pool_attention(self.weights, pool)
        queries = self.repeat(probe, x)  # (n, 1, d)
        keys, values = (self._affine(x, weight, bias) for weight, bias in parts)
        pooled = self._linear(self._attend(queries, keys, values), f"{pool}.attention.out_proj")
        pooled = self._add_mlp(pooled, f"{pool}.layernorm", f"{pool}.mlp.fc1", f"{pool}.mlp.fc2")
        return self.op.squeeze(pooled, [1])

    def repeat(self, token: npt.NDArray[np.float32], inputs: Any) -> Any:  # noqa: ANN401
        """Return a token, (1, 1, d), for each of n inputs: (n, 1, d)."""
        op = self.op
        count = op.slice(op.shape_of(inputs), [0], [1], [1])
        return op.broadcast(op.constant(token), op.concat([count, op.constant(np.array([1, self.width]))], 0))

    def project(self, x: Any) -> Any:  # noqa: ANN401
        """Return the embedding, (n, p) of unit length, of one normed token each, (n, d)."""
        op, projection = self.op, self.names.projection
        embedding = op.matmul(x, self.constant(projection), False, True) if projection else x
        return op.normalize_l2(embedding, op.constant(np.array([1])), 1e-12, "max")

    def constant(self, name: str) -> Any:  # noqa: ANN401
        """Return a tensor whose values stay in the mapped file."""
        return self.op.constant(self.weights.tensor(name), shared_memory=True)

    def _attend(self, queries: Any, keys: Any, values: Any, *, is_causal: bool = False) -> Any:  # noqa: ANN401
        op = self.op
        parts = (self._heads(part) for part in (queries, keys, values))  # (n, h, t, d / h)
        attended = op.scaled_dot_product_attention(*parts, causal=is_causal)
        return op.reshape(op.transpose(attended, [0, 2, 1, 3]), [0, 0, self.width], special_zero=True)

    def _add_mlp(self, x: Any, norm: str, fc1: str, fc2: str) -> Any:  # noqa: ANN401
        hidden = self._activate(self._linear(self.layer_norm(x, norm), fc1))
        return self.op.add(x, self._linear(hidden, fc2))

    def _activate(self, hidden: Any) -> Any:  # noqa: ANN401
        if self.config.activation == "quick_gelu":
            return self.op.swish(hidden, self.op.constant(np.float32(QUICK_GELU_SLOPE)))  # x * sigmoid(1.702 x)
        return self.op.gelu(hidden, "tanh" if self.config.activation == "gelu_tanh" else "erf")

    def _linear(self, x: Any, name: str) -> Any:  # noqa: ANN401
        return self._affine(x, self.weights.tensor(f"{name}.weight"), self.weights.tensor(f"{name}.bias"))

    def _affine(self, x: Any, weight: npt.NDArray[np.float32], bias: npt.NDArray[np.float32]) -> Any:  # noqa: ANN401
        product = self.op.matmul(x, self._weight(weight), False, True)
        return self.op.add(product, self.op.constant(bias, shared_memory=True))

    def _weight(self, weight: npt.NDArray[np.float32]) -> Any:  # noqa: ANN401
        if not self.is_int8:
            return self.op.constant(weight, shared_memory=True)
        integers, scale = quantize_rows(weight)
        return self.op.multiply(self.op.convert(self.op.constant(integers), "f32"), self.op.constant(scale))

    def _heads(self, x: Any) -> Any:  # noqa: ANN401
        split = self.op.reshape(x, [0, 0, -1, self.config.head_width], special_zero=True)
        return self.op.transpose(split, [0, 2, 1, 3])  # (n, h, t, d / h)

    def _first(self, x: Any) -> Any:  # noqa: ANN401
        return self.op.slice(x, [0], [1], [1], [1])  # (n, 1, d)


def quantize_rows(weight: npt.NDArray[np.float32]) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float32]]:
    """Return a matrix in 8 bits, and the scale of each row: ``weight`` is about ``quantized * scale``.

    Nothing is calibrated: activations are quantised while the model runs (docs/decisions/0009-int8.md).

    Args:
        weight: float32 (outputs, inputs).

    Returns:
        int8 (outputs, inputs), -127 to 127, and float32 (outputs, 1). Off by half a scale at most.

    Example:
        >>> quantize_rows(np.array([[1.0, -2.0], [0.0, 0.0]], np.float32))[0].tolist()
        [[64, -127], [0, 0]]
    """
    largest = np.maximum(weight.max(axis=1, keepdims=True), -weight.min(axis=1, keepdims=True))
    scale = np.where(largest > 0, largest / 127, 1).astype(np.float32)
    return np.rint(weight / scale).astype(np.int8), scale

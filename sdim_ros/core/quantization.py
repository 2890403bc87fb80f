"""Weights of the transformer layers in 8 or 4 bits, by torchao: less memory, nearly the answers."""

from __future__ import annotations

from torch import nn

from sdim_ros.core.model import SdimModel
from sdim_ros.core.types import ModelUnavailable


def quantize(model: SdimModel, kind: str) -> None:
    """Make the matrices of language and vision layers small, in place.

    Fusion, point tokens, embeddings and the head stay as they are: they are small, and digits
    hang on them. Products are computed in the model's number type.

    Args:
        kind: ``int8`` or ``int4``.

    Raises:
        ModelUnavailable: torchao is missing, or cannot do it on this machine.
    """
    try:
        from torchao.quantization import Int4WeightOnlyConfig, Int8WeightOnlyConfig, quantize_
    except ImportError as problem:
        raise ModelUnavailable(
            f"model.quantization={kind}: torchao cannot be imported ({problem}); pip install "
            "torchao, or set model.quantization to none") from problem
    config = {"int8": Int8WeightOnlyConfig, "int4": Int4WeightOnlyConfig}[kind]
    qwen = model.qwen.model
    try:
        for layers in (qwen.language_model.layers, qwen.visual.blocks):
            quantize_(layers, config(), filter_fn=lambda part, _: isinstance(part, nn.Linear))
    except Exception as problem:  # of many kinds, where kernels or packages are missing
        raise ModelUnavailable(
            f"model.quantization={kind}: torchao cannot do this here ({problem}); use int8 or "
            "none") from problem

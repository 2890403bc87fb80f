"""The sizes of Qwen2.5-VL-3B, to time and to test the real network without its weights."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from sdim_ros.core import checkpoint, model
from sdim_ros.core.config import ModelSettings
from sdim_ros.core.fusion import FusionConfig
from sdim_ros.core.model import SdimConfig, SdimModel
from sdim_ros.core.prompts import NumberFormat
from sdim_ros.core.quantization import quantize
from sdim_ros.tools.training import tiny

# The section "sdim" of config/train.yaml.
SDIM_3B = SdimConfig(
    number=NumberFormat(3, 3, "metres", decimal_point=False),
    fusion=FusionConfig(pyramid=(64, 96, 128), stride=2, fills=("nearest", "linear", "guided")),
    told="guess", hints=("nearest", "linear", "guided"))


def qwen_3b_config(text_layers: int = 36, vision_layers: int = 32, vocabulary: int = 151_936
                   ) -> dict[str, Any]:
    """For ``core.model.build``; the published sizes, unless fewer layers or words are wanted."""
    windowed = 8  # every eighth vision layer sees the whole image, the others 112 pixels
    return {
        "tie_word_embeddings": True,
        "text_config": {
            "vocab_size": vocabulary,
            "hidden_size": 2048, "intermediate_size": 11008, "num_hidden_layers": text_layers,
            "num_attention_heads": 16, "num_key_value_heads": 2,
            "max_position_embeddings": 128_000, "rms_norm_eps": 1e-6,
            "bos_token_id": None, "eos_token_id": None,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e6,
                                "mrope_section": [16, 24, 24]}},
        "vision_config": {
            "depth": vision_layers, "hidden_size": 1280, "out_hidden_size": 2048,
            "intermediate_size": 3420, "num_heads": 16, "patch_size": 14,
            "spatial_merge_size": 2, "temporal_patch_size": 2, "window_size": 112,
            "fullatt_block_indexes": [
                i for i in range(vision_layers) if i % windowed == windowed - 1]},
    }


def random_3b(settings: ModelSettings, layers: int | None = None) -> SdimModel:
    """The real configuration with random weights, made on the device that the settings name.

    Its text goes through the small vocabulary: about as many tokens as in the real one.

    Args:
        layers: of the language and of the vision model; None = 36 and 32.
    """
    with TemporaryDirectory() as folder:
        tiny.write_tokenizer(Path(folder))
        tokenizer = model.load_tokenizer(folder)
    device = checkpoint.find_device(settings.device)
    sizes = qwen_3b_config() if layers is None else qwen_3b_config(layers, layers)
    before = torch.get_default_dtype()
    # Born in its number type and place: four billion float32 would not fit everywhere.
    torch.set_default_dtype(checkpoint.find_dtype(settings.dtype, device))
    try:
        with device:
            made = model.build(sizes, SDIM_3B, tokenizer)
    finally:
        torch.set_default_dtype(before)
    made = made.to(device).eval().requires_grad_(False)
    if settings.quantization != "none":
        quantize(made, settings.quantization)
    return made

"""Small models with random weights of the real classes, and frames to ask them about."""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path

import numpy as np
import torch

from sdim_ros.core import model as network
from sdim_ros.core.fusion import FusionConfig
from sdim_ros.core.model import SdimConfig, SdimModel
from sdim_ros.core.prompts import NumberFormat
from sdim_ros.tools.training.tiny import write_tokenizer

CONFIG = SdimConfig(
    number=NumberFormat(2, 3, unit="median", decimal_point=False),
    fusion=FusionConfig(8, 8, 16, 8, norm="group"), max_pixels=6000, min_pixels=3000,
    neighbours=3)
QWEN = {
    "tie_word_embeddings": False,
    "text_config": {
        "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2,
        "bos_token_id": None, "eos_token_id": None,
        "rope_parameters": {"rope_type": "default", "rope_theta": 30.0,
                            "mrope_section": [2, 3, 3]}},
    "vision_config": {
        "depth": 2, "hidden_size": 48, "out_hidden_size": 64, "intermediate_size": 96,
        "num_heads": 4, "patch_size": 8, "spatial_merge_size": 2, "temporal_patch_size": 2,
        "window_size": 64, "fullatt_block_indexes": [1]},
}


def random_model(seed: int = 0, sharpen: float = 3.0, **changes: object) -> SdimModel:
    """A model whose answers differ from pixel to pixel, as plain small weights' would not.

    Args:
        sharpen: factor on all matrices; also makes the zero-initialised parts count.
        changes: of the checkpoint's configuration.
    """
    with tempfile.TemporaryDirectory() as folder:
        write_tokenizer(Path(folder))
        tokenizer = network.load_tokenizer(folder)
    torch.manual_seed(seed)
    qwen = {**QWEN, "text_config": {**QWEN["text_config"], "vocab_size": len(tokenizer)}}
    model = network.build(qwen, dataclasses.replace(CONFIG, **changes), tokenizer)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(sharpen)
                if sharpen != 1 and not parameter.any():
                    parameter.normal_(0, 0.05)
    return model.eval()


def frame(seed: int = 0, height: int = 96, width: int = 128, points: int = 120
          ) -> tuple[np.ndarray, np.ndarray]:
    """An image (H, W, 3) uint8 with structure, and sparse depth (H, W) float32 metres."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    depth = 2 + x / width + 1.5 * (x > width * rng.uniform(0.3, 0.7)) + 0.5 * y / height
    image = np.stack([40 * depth, 255 - 50 * depth, 128 + 60 * np.sin(x / 9)], axis=-1)
    image = np.clip(image + rng.normal(0, 8, image.shape), 0, 255).astype(np.uint8)
    sparse = np.zeros((height, width), np.float32)
    at = rng.choice(sparse.size, points, replace=False)
    sparse.flat[at] = depth.flat[at]
    return image, sparse

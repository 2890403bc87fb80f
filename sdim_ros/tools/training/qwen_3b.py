"""The sizes of Qwen2.5-VL-3B, to time and to test the real network without its weights."""

from __future__ import annotations

from typing import Any


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

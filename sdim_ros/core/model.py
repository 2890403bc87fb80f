"""The network: Qwen2.5-VL with SDIM's fusion and point tokens. The only import of transformers.

A frame goes through :meth:`SdimModel.encode` once; the queries over its prefix are in
``engine.py``. Positions are always passed explicitly and the language model is called directly:
transformers keeps position state between calls otherwise.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

# Where torchao is installed transformers imports it, and it tells of every kernel it does not find.
for _talker in ("torchao", "torch.utils._pytree"):
    logging.getLogger(_talker).setLevel(logging.ERROR)

from transformers import (
    AutoTokenizer,
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
)
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, sdpa_mask
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.utils.logging import disable_progress_bar

from sdim_ros.core import fill
from sdim_ros.core.attention import PrefixCache, with_shared_prefix
from sdim_ros.core.fusion import Fused, FusedPatchEmbed, FusionConfig, SoftFusion, patchify
from sdim_ros.core.passes import VisionPlan, prefix_pass, vision_pass
from sdim_ros.core.point_token import PixelQueries, PointTokens
from sdim_ros.core.prefix import ModelInput, Prefix
from sdim_ros.core.projection import scatter_resize
from sdim_ros.core.prompts import NumberFormat, Vocabulary
from sdim_ros.core.steps import PLAIN
from sdim_ros.core.transfer import constants, send

ATTENTION = "sdim_shared_prefix"
ALL_ATTENTION_FUNCTIONS.register(ATTENTION, with_shared_prefix(sdpa_attention_forward))
ALL_MASK_ATTENTION_FUNCTIONS.register(ATTENTION, sdpa_mask)

# Mean and deviation of CLIP's images, which Qwen2.5-VL was trained with.
IMAGE_MEAN = (0.48145466, 0.4578275, 0.40821073)
IMAGE_STD = (0.26862954, 0.26130258, 0.27577711)

# The unit of a frame without any measurement, where the format's unit is the median.
TYPICAL_DEPTH_M = 3.0


@dataclass(frozen=True)
class SdimConfig:
    """What a checkpoint fixes besides the sizes of Qwen2.5-VL.

    Attributes:
        number: how depths are spelled.
        fusion: sizes of the fusion network.
        addressing: ``point`` (one token names the pixel) or ``text`` (coordinates as text).
        max_pixels, min_pixels: area of the image that the model sees.
        neighbours: nearest measurements told to each query.
        hints: classical fills whose value is told to each query.
        prefix_points: measured points told once, in the prefix that all queries share.
        prompt: what a query is told of the mask: ``mask_value`` (the paper: 0, or 1 and the
            measured depth), ``mask`` alone, or ``none``.
        told: the numbers that stand before a pixel's token: ``tokens`` of the neighbours and
            hints, the ``guess`` that the fusion makes of the hints, or ``both``.
    """

    number: NumberFormat = field(default_factory=NumberFormat)
    fusion: FusionConfig = field(default_factory=FusionConfig)
    addressing: str = "point"
    max_pixels: int = 501_760
    min_pixels: int = 50_176
    neighbours: int = 4
    hints: tuple[str, ...] = ("linear", "edge_aware")
    prefix_points: int = 0
    prompt: str = "mask_value"
    told: str = "tokens"

    def unit_of(self, sparse: np.ndarray) -> float:
        """Metres of one unit of the number format in a frame; (H, W) metres, 0 = unknown."""
        if self.number.unit == "metres":
            return 1.0
        known = sparse[sparse > 0]
        return float(np.median(known)) if known.size else TYPICAL_DEPTH_M

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> SdimConfig:
        """The reverse of ``dataclasses.asdict``; raises TypeError on unknown keys."""
        values = dict(values)
        return cls(number=NumberFormat(**values.pop("number")),
                   fusion=FusionConfig.from_dict(values.pop("fusion")),
                   hints=tuple(values.pop("hints")), **values)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


class SdimModel(nn.Module):
    """Qwen2.5-VL, its fused patch embedding, the fusion network and the point tokens."""

    def __init__(self, qwen: Qwen2_5_VLForConditionalGeneration, config: SdimConfig,
                 tokenizer: PreTrainedTokenizerFast) -> None:
        super().__init__()
        self.config, self.tokenizer = config, tokenizer
        if config.fusion.fills and config.fusion.fills != config.hints:
            raise ValueError(f"hints {config.hints}: expected the fills that the fusion mixes, "
                             f"{config.fusion.fills}")
        self.vocabulary = Vocabulary.of(
            lambda text: tokenizer(text, add_special_tokens=False)["input_ids"], config.prompt)
        self.qwen = qwen
        qwen.set_attn_implementation({"text_config": ATTENTION, "vision_config": "sdpa"})
        visual = qwen.model.visual
        if not isinstance(visual.patch_embed, FusedPatchEmbed):
            visual.patch_embed = FusedPatchEmbed(visual.patch_embed)
        # Constants live where the weights live: a copy from the host would make a GPU wait.
        before, after = self.vocabulary.prefix()
        for name, ids in (("digit_ids", self.vocabulary.digits), ("text_before", before),
                          ("text_after", after)):
            self.register_buffer(name, torch.tensor(ids), persistent=False)
        self.steps = PLAIN
        self._last: tuple[np.ndarray, tuple[int, int], np.ndarray] | None = None
        self._plans: dict[tuple, tuple[VisionPlan, Tensor]] = {}
        self.fusion = SoftFusion(config.fusion)
        self.point = PointTokens(
            qwen.config.text_config.hidden_size, config.fusion.low_channels, len(config.hints),
            config.prompt, config.told, given=config.prefix_points > 0)

    def _apply(self, *args: Any, **settings: Any) -> SdimModel:
        """What moves or casts a module. The frequencies of positions stay float32 in any cast."""
        rotaries = [m for m in self.modules() if hasattr(m, "inv_freq")]
        exact = [m.inv_freq for m in rotaries]
        super()._apply(*args, **settings)
        for rotary, frequencies in zip(rotaries, exact):
            rotary.inv_freq = frequencies.to(rotary.inv_freq.device)
        return self

    @property
    def device(self) -> torch.device:
        return self.qwen.lm_head.weight.device

    @property
    def dtype(self) -> torch.dtype:
        return self.qwen.lm_head.weight.dtype

    def image_size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of the image that the model sees: near the aspect, in whole tokens."""
        vision = self.qwen.config.vision_config
        cell = vision.patch_size * vision.spatial_merge_size
        area = min(max(height * width, self.config.min_pixels), self.config.max_pixels)
        scale = math.sqrt(area / (height * width))
        # Rounded down where rounding up would go over the largest area.
        h, w = (max(cell, round(n * scale / cell) * cell) for n in (height, width))
        while h * w > self.config.max_pixels and max(h, w) > cell:
            h, w = (h - cell, w) if h > w else (h, w - cell)
        return h, w

    def takes_maps(self, height: int, width: int) -> bool:
        """Whether the fills that the fusion is shown may be those of the full image, resized.

        Where the model sees it much smaller, its own fills cost less and are finer.
        """
        h, w = self.image_size(height, width)
        return bool(self.config.fusion.fills) and 2 * h * w >= height * width

    def prepare(self, images: list[np.ndarray], sparses: list[np.ndarray],
                guides: list[np.ndarray] | None = None,
                maps: list[Mapping[str, np.ndarray] | None] | None = None) -> ModelInput:
        """Frames of one size -> tensors.

        Args:
            images: each (H, W, 3) uint8 RGB.
            sparses: each (H, W) float32 metres, 0 = unknown, cleaned.
            guides: the images that guide the fills, where the model is shown others.
            maps: of each frame the fills of the full image by name, (H, W) metres, where they
                exist already and ``takes_maps`` says that they serve.
        """
        size = self.image_size(*sparses[0].shape)
        different = {id(image): image for image in (*images, *(guides or ()))}
        small = {name: self._resized(image, size) for name, image in different.items()}
        units = np.array([self.config.unit_of(sparse) for sparse in sparses])
        depths, given = [], []
        for sparse, unit, guide, known in zip(
                sparses, units, guides or images, maps or [None] * len(images), strict=True):
            # Points are scattered, never interpolated: a resized map would invent depths.
            points = (scatter_resize(sparse, size) / unit).astype(np.float32)
            fills = self._fills(points, small[id(guide)]) if known is None else [
                cv2.resize(known[name], size[::-1]) / np.float32(unit)
                for name in self.config.fusion.fills]
            depths.append(np.stack([points, *fills]))
            given.append(_some_points(points, self.config.prefix_points))
        image = torch.from_numpy(np.stack([small[id(image)] for image in images]))
        image, depth, told = (send(x, self.device) for x in (
            image, *(torch.from_numpy(np.stack(parts)) for parts in (depths, given))))
        return ModelInput(normalised(image), _logarithms(depth), told, units)

    def _resized(self, image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        """The image at (h, w); that of the last call is kept, since a frame is encoded often."""
        # By its pixels: the same array may have been filled with the next frame.
        if self._last is None or self._last[1] != size or not np.array_equal(self._last[0], image):
            picture = Image.fromarray(image).resize(size[::-1], Image.Resampling.BICUBIC)
            self._last = image.copy(), size, np.asarray(picture)
        return self._last[2]

    def _fills(self, points: np.ndarray, guide: np.ndarray) -> list[np.ndarray]:
        """The fills that the fusion is shown, (h, w) each in the unit of the points."""
        return list(fill.several(self.config.fusion.fills, points, guide).values())

    def encode(self, inputs: ModelInput) -> Prefix:
        """Vision pass and language pass over what all pixels share; keeps the graph."""
        visual, fused = self.see(inputs)
        points = self.point.given(inputs.points, visual, fused.features) if len(
            inputs.points[0]) else None
        embeds, positions = self.shared_tokens(visual, points)
        if torch.is_grad_enabled():
            cache = PrefixCache()
            self.language(embeds, positions, cache)
        else:
            cache = prefix_pass(
                self.qwen.model.language_model, embeds, positions, self.steps)
        return Prefix(cache, positions, visual, fused.features, fused.mixing, inputs.unit)

    def fuse(self, inputs: ModelInput) -> Fused:
        """The fusion alone, in the model's number type; depths in float32, of which it takes
        small differences first."""
        return self.fusion(inputs.image.to(self.dtype), inputs.depth)

    def see(self, inputs: ModelInput) -> tuple[Tensor, Fused]:
        """The vision pass alone: image tokens in their grid, as in Prefix, and the fusion."""
        vision = self.qwen.config.vision_config
        merge = vision.spatial_merge_size
        fused = self.fuse(inputs)
        cut = (vision.patch_size, merge, vision.temporal_patch_size)
        rgb, (gh, gw) = patchify(inputs.image.to(self.dtype), *cut)
        patches = torch.cat([rgb, patchify(fused.residual, *cut)[0]], dim=-1)
        b = len(inputs.unit)
        if torch.is_grad_enabled():
            grid = torch.tensor([[1, gh, gw]] * b, device=self.device)
            tokens = self.qwen.model.visual(patches, grid_thw=grid).pooler_output
        else:
            plan, _ = self._plan(gh, gw, inputs.points.shape[1])
            tokens = vision_pass(self.qwen.model.visual, patches, plan, self.steps)
        tokens = tokens.view(b, (gh // merge) * (gw // merge), -1)
        return tokens.transpose(1, 2).reshape(b, -1, gh // merge, gw // merge), fused

    def _plan(self, gh: int, gw: int, points: int) -> tuple[VisionPlan, Tensor]:
        """That of a grid of patches, and the positions (3, P) of a prefix with so many points.

        All are kept: recorded passes read them where they are.
        """
        key = gh, gw, points, self.device
        if key not in self._plans:
            merge = self.qwen.config.vision_config.spatial_merge_size
            positions = prefix_positions(
                len(self.text_before), gh // merge, gw // merge, points + len(self.text_after))
            with torch.inference_mode(False):  # training takes the positions, too
                self._plans[key] = (VisionPlan(self.qwen.model.visual, (gh, gw), self.device),
                                    positions.to(self.device))
        return self._plans[key]

    def shared_tokens(self, visual: Tensor, points: Tensor | None = None
                      ) -> tuple[Tensor, Tensor]:
        """Text, image, points, text: the prefix as embeddings (B, P, C) at positions (3, P)."""
        b, width, rows, columns = visual.shape
        merge = self.qwen.config.vision_config.spatial_merge_size
        told = visual.new_zeros(b, 0, width) if points is None else points
        embeds = torch.cat([
            self.embed(self.text_before[None]).expand(b, -1, -1),
            visual.flatten(2).transpose(1, 2), told,
            self.embed(self.text_after[None]).expand(b, -1, -1)], dim=1)
        return embeds, self._plan(rows * merge, columns * merge, told.shape[1])[1]

    def language(self, embeds: Tensor, positions: Tensor, cache: Any,
                 prefix: PrefixCache | None = None) -> Tensor:
        """(N, L, C) embeddings at (3, L) positions -> (N, L, C) last hidden states."""
        return self.qwen.model.language_model(
            inputs_embeds=embeds,
            position_ids=positions.unsqueeze(1).expand(3, embeds.shape[0], -1),
            attention_mask={"full_attention": None}, past_key_values=cache, use_cache=True,
            shared_prefix=prefix).last_hidden_state

    def embed(self, ids: list[int] | Tensor) -> Tensor:
        """Token ids (L,) or (N, L) -> embeddings (1, L, C) or (N, L, C)."""
        ids = torch.as_tensor(ids, device=self.device)
        return self.qwen.model.language_model.embed_tokens(ids if ids.ndim == 2 else ids[None])

    def digit_logits(self, hidden: Tensor) -> Tensor:
        """(..., C) -> (..., 10) float32: the ten rows of the head that the grammar allows."""
        return (hidden @ self.qwen.lm_head.weight[self.digit_ids].T).float()

    def point_suffix(self, prefix: Prefix, queries: PixelQueries) -> Tensor:
        """The tokens of each query, (B, K, S, C)."""
        tokens = self.point(queries, prefix.visual, prefix.pixels, prefix.mixing)
        return tokens.to(prefix.visual.dtype)

    def parameter_count(self) -> int:
        return sum(p.numel() for p in self.parameters())


def _some_points(depth: np.ndarray, count: int) -> np.ndarray:
    """(count, 3) float32: x and y from 0 to 1, and the depth, of as many points of (h, w).

    Where there are fewer they repeat, so that frames of a batch have as many; 0 without any.
    """
    rows, cols = np.nonzero(depth)
    if count == 0 or len(rows) == 0:
        return np.zeros((count, 3), np.float32)
    at = np.resize(np.random.default_rng(0).permutation(len(rows)), count)
    rows, cols = rows[at], cols[at]
    height, width = depth.shape
    return np.stack([(cols + 0.5) / width, (rows + 0.5) / height, depth[rows, cols]],
                    axis=1).astype(np.float32)


def normalised(image: Tensor) -> Tensor:
    """(B, h, w, 3) uint8 -> (B, 3, h, w) float32."""
    mean, deviation = (constants(x, image.device) for x in (IMAGE_MEAN, IMAGE_STD))
    return ((image.float() / 255 - mean) / deviation).permute(0, 3, 1, 2).contiguous()


def _logarithms(depth: Tensor) -> Tensor:
    """Points and fills (B, 1 + fills, h, w), 0 or NaN = none -> the depth of a ModelInput."""
    points, fills = depth[:, :1], depth[:, 1:]
    known = points > 0
    return torch.cat([torch.where(known, points, 1).log(), known.float(),
                      fills.log().nan_to_num(0.0, 0.0, 0.0)], dim=1)


def prefix_positions(before: int, rows: int, columns: int, after: int) -> Tensor:
    """M-RoPE positions of text, one image, text: (3, L) float32 (time, height, width).

    Text counts up in all three; an image token (i, j) has (t, t + i, t + j), and the text after
    the image goes on behind the largest of them. float32: bfloat16 cannot tell 256 from 257.
    """
    def text(start: int, length: int) -> Tensor:
        return torch.arange(start, start + length, dtype=torch.float32).expand(3, -1)

    i, j = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    image = before + torch.stack([torch.zeros_like(i), i, j]).flatten(1).float()
    return torch.cat([text(0, before), image, text(before + max(rows, columns), after)], dim=1)


def build(qwen_config: dict[str, Any], config: SdimConfig,
          tokenizer: PreTrainedTokenizerFast) -> SdimModel:
    """A model with random weights from the configuration alone."""
    return SdimModel(Qwen2_5_VLForConditionalGeneration(Qwen2_5_VLConfig(**qwen_config)),
                     config, tokenizer)


def load_stock(folder: Path, *, dtype: torch.dtype, config: SdimConfig) -> SdimModel:
    """The stock Qwen2.5-VL of a folder, with untrained SDIM parts."""
    disable_progress_bar()
    qwen, found = Qwen2_5_VLForConditionalGeneration.from_pretrained(
        folder, local_files_only=True, dtype=dtype, use_safetensors=True,
        output_loading_info=True)
    lacking = sorted({*found["missing_keys"], *(key for key, *_ in found["mismatched_keys"])})
    if lacking:  # transformers would go on with random ones
        raise OSError(f"{len(lacking)} of its tensors are missing or of another size, first "
                      f"{lacking[0]}; get a good copy")
    return SdimModel(qwen, config, load_tokenizer(folder)).to(dtype)


def load_tokenizer(folder: str | Path) -> PreTrainedTokenizerFast:
    """The tokenizer of a folder; never runs remote code."""
    path = Path(folder) / "tokenizer.json"
    if path.is_file():
        return PreTrainedTokenizerFast(tokenizer_file=str(path))
    return AutoTokenizer.from_pretrained(str(folder), local_files_only=True)


def random_twin(model: SdimModel, seed: int) -> SdimModel:
    """The same architecture with random weights, on the same device."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        twin = SdimModel(type(model.qwen)(model.qwen.config), model.config, model.tokenizer)
    return twin.to(device=model.device, dtype=model.dtype).eval().requires_grad_(False)

"""Training batches: rendered scenes, sparse points drawn anew each time, and their questions."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.data import Dataset

from sdim_ros.core import fill, queries
from sdim_ros.core.model import SdimConfig
from sdim_ros.core.point_token import PixelQueries
from sdim_ros.tools.scene_cache import load_shard


@dataclass(frozen=True, slots=True)
class Batch:
    """B images of one size with K questions each.

    Attributes:
        images, sparses: what the model is shown, (H, W, 3) uint8 and (H, W) float32 metres.
        queries: of B images.
        digits: (B, K, D) int64, the true answers as spelled.
        truth, unit: (B, K) and (B,) metres.
    """

    images: list[np.ndarray]
    sparses: list[np.ndarray]
    queries: PixelQueries
    digits: np.ndarray
    truth: np.ndarray
    unit: np.ndarray


class SceneBatches(Dataset):
    """Batch ``i`` depends on the seed and on ``i`` alone, so training can resume anywhere."""

    def __init__(self, folder: Path, data: dict[str, Any], config: SdimConfig, images: int,
                 pixels: int, seed: int, length: int) -> None:
        self.data, self.config = data, config
        self.images, self.pixels, self.seed, self.length = images, pixels, seed, length
        self.shards = [sorted((folder / f"{w}x{h}").glob("scenes_*.npz"))
                       for w, h in data["sizes"]]

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Batch:
        rng = np.random.default_rng([self.seed, index])
        shards = self.shards[rng.integers(len(self.shards))]
        samples = []
        while len(samples) < self.images:
            frames = load_shard(shards[rng.integers(len(shards))])
            image, depth, _ = frames[rng.integers(len(frames))]
            samples.append(draw(image, depth, rng, self.data, self.config, self.pixels))
        return collate(samples, self.config)


def collate(samples: list[tuple], config: SdimConfig) -> Batch:
    """Samples of ``draw`` side by side."""
    images, sparses, asked, truths, units = zip(*samples)
    truth, unit = np.stack(truths), np.array(units)
    spelled = [config.number.spell(t / u) for t, u in zip(truth, unit)]
    return Batch(list(images), list(sparses), queries.stack(list(asked)), np.stack(spelled),
                 truth, unit)


def draw(image: np.ndarray, depth: np.ndarray, rng: np.random.Generator, data: dict[str, Any],
         config: SdimConfig, pixels: int) -> tuple:
    """One frame with new sparse points and ``pixels`` questions with their true depths."""
    image, depth = _augmented(image, depth, rng)
    sparse = _measured(depth, rng, data)
    unit = config.unit_of(sparse)
    told_count = round(pixels * data["mask_1"])
    askable = np.flatnonzero((sparse <= 0) & config.number.covers(depth / unit))
    tellable = np.flatnonzero(config.number.covers(sparse / unit))
    at = np.concatenate([
        rng.choice(tellable, told_count, replace=len(tellable) < told_count),
        rng.choice(askable, pixels - told_count, replace=len(askable) < pixels)])
    rows, cols = np.unravel_index(at, depth.shape)
    told = np.zeros(pixels, np.float32)
    told[:told_count] = sparse[rows, cols][:told_count]
    truth = np.where(told > 0, told, depth[rows, cols])
    hints = {name: _hint(name, sparse, image, rows, cols) for name in config.hints}
    asked = queries.describe(config, sparse, rows, cols, hints, unit, told)
    return image, sparse, asked, truth, unit


def _hint(name: str, sparse: np.ndarray, image: np.ndarray, rows: np.ndarray,
          cols: np.ndarray) -> np.ndarray:
    if name == "linear":  # only where it is asked: several times faster than the whole map
        return fill.linear_at(sparse, rows, cols)
    return fill.classical(name, sparse, image)[rows, cols]


def _augmented(image: np.ndarray, depth: np.ndarray,
               rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    if rng.random() < 0.5:
        image, depth = image[:, ::-1], depth[:, ::-1]
    if rng.random() < 0.3:
        image = image[..., rng.permutation(3)]
    if rng.random() < 0.5:
        gain = rng.uniform(0.6, 1.5, 3)
        image = np.clip(image * gain, 0, 255).astype(np.uint8)
    return np.ascontiguousarray(image), np.ascontiguousarray(depth)


def _measured(depth: np.ndarray, rng: np.random.Generator, data: dict[str, Any]) -> np.ndarray:
    """Sparse depth as a sensor might give it: random pixels or scan lines, with its faults."""
    height, width = depth.shape
    n = int(np.exp(rng.uniform(*np.log(data["points"]))))
    if rng.random() < 0.75:
        at = rng.choice(depth.size, n, replace=False)
        rows, cols = np.unravel_index(at, depth.shape)
    else:
        lines = rng.integers(6, 40)
        rows = rng.choice(np.linspace(height * rng.uniform(0, 0.4), height - 1, lines), n)
        rows = np.clip(rows + rng.normal(0, 0.4, n), 0, height - 1).astype(int)
        cols = rng.integers(0, width, n)
    source_rows, source_cols, factor = rows, cols, 1.0
    if rng.random() < data["noise"]:
        # A registration error: the value comes from a pixel next to the one it is put at.
        shift = rng.normal(0, rng.uniform(0, 1.0), (2, n)) + rng.normal(0, 0.5, (2, 1))
        source_rows = np.clip(np.round(rows + shift[0]), 0, height - 1).astype(int)
        source_cols = np.clip(np.round(cols + shift[1]), 0, width - 1).astype(int)
        factor = 1 + rng.normal(0, rng.uniform(0, 0.02), n)
        wrong = rng.random(n) < rng.uniform(0, data["outliers"])
        factor = np.where(wrong, np.exp(rng.normal(0, 0.5, n)), factor)
    sparse = np.zeros_like(depth)
    sparse[rows, cols] = np.maximum(depth[source_rows, source_cols] * factor, 0.05)
    return sparse

"""Rendered scenes on disk: shards of a few frames, made once and read by every training."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import lru_cache
from itertools import repeat
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from sdim_ros.core.types import Camera
from sdim_ros.tools.scenes import render

FRAMES_PER_SHARD = 50
# Frames that judge the training have seeds that no training run reaches.
VALIDATION_SEED = 900_000_000
_CODE_LOW, _CODE_SPAN = np.log(0.1), np.log(1600.0)


def render_cache(folder: Path, data: dict[str, Any], first_seed: int, workers: int) -> None:
    """Render the frames that are not in the cache yet, an equal share of each size."""
    share = data["frames"] // len(data["sizes"])
    for number, (width, height) in enumerate(data["sizes"]):
        save_shards(
            folder / f"{width}x{height}", -(-share // FRAMES_PER_SHARD), FRAMES_PER_SHARD,
            workers, first_seed + number * share, width, height)


def save_shards(folder: Path | str, shards: int, frames_per_shard: int, workers: int = 1,
                first_seed: int = 0, width: int = 320, height: int = 240) -> list[Path]:
    """Render many shards in parallel processes; shards that exist already are kept."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    starts = range(first_seed, first_seed + shards * frames_per_shard, frames_per_shard)
    paths = {Path(folder) / f"scenes_{start:08d}_{frames_per_shard}.npz":
             range(start, start + frames_per_shard) for start in starts}
    todo = {path: seeds for path, seeds in paths.items() if not path.exists()}
    # Fresh processes: a fork of one that has used OpenCV's threads can wait for them for ever.
    with ProcessPoolExecutor(workers, get_context("spawn"), cv2.setNumThreads, (1,)) as pool:
        list(pool.map(save_shard, todo, todo.values(), repeat(width), repeat(height)))
    return list(paths)


def save_shard(path: Path | str, seeds: Sequence[int], width: int = 320, height: int = 240
               ) -> Path:
    """Render frames into one .npz: images, depth as logarithmic uint16, intrinsics, seeds.

    The code of depth has a relative error of at most 6e-5. The file appears when it is complete.
    """
    path = Path(path)
    frames = [render(seed, width, height) for seed in seeds]
    codes = (np.log(np.stack([depth for _, depth, _ in frames])) - _CODE_LOW) / _CODE_SPAN * 65535
    partial_path = path.with_suffix(".partial.npz")
    np.savez(partial_path, images=np.stack([image for image, _, _ in frames]),
             depths=np.round(codes).astype(np.uint16), seeds=np.asarray(seeds, np.int64),
             intrinsics=np.array([(c.fx, c.fy, c.cx, c.cy) for _, _, c in frames]))
    return partial_path.replace(path)


@lru_cache(maxsize=None)
def load_shard(path: Path | str) -> list[tuple[np.ndarray, np.ndarray, Camera]]:
    """What ``render`` gave for every seed of a shard; depth within 6e-5 of it.

    A shard that was read stays in memory: its arrays are shared and not for writing.
    """
    with np.load(path) as stored:
        images, codes, intrinsics = stored["images"], stored["depths"], stored["intrinsics"]
    height, width = codes.shape[1:]
    table = np.exp(np.arange(65536) / 65535 * _CODE_SPAN + _CODE_LOW).astype(np.float32)
    return [(image, table[code], Camera(*values.tolist(), width, height))
            for image, code, values in zip(images, codes, intrinsics)]

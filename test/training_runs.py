"""Small frames, recipes and processes for the tests of the training."""

from __future__ import annotations

import copy
import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import yaml
from conftest import REPOSITORY
from models import QWEN

from sdim_ros.tools.training import recipe as recipes
from sdim_ros.tools.training.recipe import Recipe


def write_frames(folder: Path, count: int = 6) -> Path:
    """A frames folder of 96 x 64 pictures with dense depth."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:64, :96]
    for kind in ("rgb", "gt"):
        (folder / kind).mkdir(parents=True)
    for number in range(count):
        depth = 2 + x / 96 + 1.5 * (x > 96 * rng.uniform(0.3, 0.7)) + rng.uniform(0, 2) * y / 64
        image = np.stack([40 * depth, 255 - 50 * depth, 128 + 60 * np.sin(x / 9)], axis=-1)
        image = np.clip(image + rng.normal(0, 8, image.shape), 0, 255).astype(np.uint8)
        cv2.imwrite(str(folder / "rgb" / f"{number}.png"), image)
        cv2.imwrite(str(folder / "gt" / f"{number}.png"), (depth * 1000).astype(np.uint16))
    (folder / "frames.json").write_text(json.dumps(
        {"depth_scale": 1000.0, "frames": [{"name": str(n)} for n in range(count)]}))
    return folder


def small_values(frames: Path | str = "frames", **training: Any) -> dict[str, Any]:
    """The recipe of a small network as its YAML file has it."""
    return copy.deepcopy({
        "seed": 0,
        "qwen": QWEN,
        "sdim": {
            "number": {"integer_digits": 2, "decimals": 3, "unit": "median",
                       "decimal_point": False},
            "fusion": {"rgb_channels": 8, "depth_channels": 8, "high_channels": 16,
                       "low_channels": 8, "norm": "group"},
            "max_pixels": 6000, "min_pixels": 3000, "neighbours": 3,
            "hints": ["linear", "edge_aware"]},
        "data": {
            "sources": [{"kind": "frames", "folder": str(frames)}],
            "patterns": {"random": 1.0}, "points": [40, 300], "validation_frames": 1},
        "training": {"steps": 30, "images": 2, "pixels": 12, "warmup": 3,
                     "learning_rate": 1.5e-3, "checkpoint_every": 0, "validate_every": 0,
                     **training}})


def small_recipe(frames: Path | str = "frames", **training: Any) -> Recipe:
    return recipes.parse(small_values(frames, **training))


def write_recipe(path: Path, values: dict[str, Any]) -> Path:
    path.write_text(yaml.safe_dump(values))
    return path


def start(recipe: Path, out: Path, *more: str, **environment: str) -> subprocess.Popen:
    """A process of ``sdim train`` on the CPU."""
    return subprocess.Popen(
        [sys.executable, "-m", "sdim_ros.tools.cli", "train", "--config", str(recipe),
         "--out", str(out), "--threads", "1", "--workers", "0", "--device", "cpu", *more],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1", **environment},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def start_two(recipe: Path, out: Path, *more: str, **environment: str
              ) -> list[subprocess.Popen]:
    """Two processes that train together, as a launcher starts them."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    return [start(recipe, out, *more, RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2",
                  LOCAL_WORLD_SIZE="2", MASTER_ADDR="127.0.0.1", MASTER_PORT=port, **environment)
            for rank in range(2)]


def finish(process: subprocess.Popen) -> str:
    """What the process said; it must have gone well."""
    output, _ = process.communicate(timeout=240)
    assert process.returncode == 0, output
    return output


def figures(out: Path, name: str = "loss") -> dict[int, float]:
    """One figure of every step from log.jsonl."""
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    return {line["step"]: line[name] for line in lines if name in line}

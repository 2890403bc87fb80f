"""Rendered scenes on disk: shards of a few frames, made once and read by every training."""

from __future__ import annotations

import os
import signal
import threading
import time
import zipfile
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from sdim_ros.core.types import BadInput, Camera
from sdim_ros.tools.datasets.frames import Frames, Sample
from sdim_ros.tools.scenes import render, render_reserved

FRAMES_PER_SHARD = 50
# A half file that is older was left by a process that was killed.
WRITTEN_S = 600
# Part of every file name. To be raised when the renderer gives other frames for the same seed.
EDITION = 2
# Depth is stored as its logarithm in 16 bits, 0.1 to 160 m: a relative error of at most 6e-5.
_LOW, _SPAN = np.log(0.1), np.log(1600.0)
_DEPTH_OF_CODE = np.exp(np.arange(-1, 65535) / 65534 * _SPAN + _LOW).astype(np.float32)
_DEPTH_OF_CODE[0] = 0  # unknown


class ReservedScenes(Frames):
    """Scenes that judge a training, rendered when they are asked for: nothing of them trains."""

    SCENES, WIDTH, HEIGHT = 200, 640, 480

    def __init__(self) -> None:
        self.names = [f"reserved_{seed:03d}" for seed in range(self.SCENES)]

    def read(self, number: int) -> Sample:
        image, depth, camera = render_reserved(number, self.WIDTH, self.HEIGHT)
        return Sample(self.names[number], image, None, depth, camera)


class SceneFrames(Frames):
    """The rendered frames of one size; frame ``i`` has the seed ``first_seed + i``.

    ``render_missing`` makes the files; frames are read when they are asked for.

    Args:
        folder: of the cache, shared by all sizes and trainings.
        size: (width, height).
    """

    def __init__(self, folder: Path | str, size: tuple[int, int], frames: int,
                 first_seed: int = 0) -> None:
        self.size, self.frames, self.first_seed = size, frames, first_seed
        self.folder = Path(folder) / f"{size[0]}x{size[1]}"

    @property
    def names(self) -> list[str]:
        return [f"scene_{self.first_seed + i:09d}" for i in range(self.frames)]

    def __len__(self) -> int:
        return self.frames

    @property
    def shards(self) -> dict[Path, range]:
        """The file and the seeds of every shard."""
        return dict(self._shard(start) for start in range(0, self.frames, FRAMES_PER_SHARD))

    def read(self, number: int) -> Sample:
        path, seeds = self._shard(number - number % FRAMES_PER_SHARD)
        seed = self.first_seed + number
        image, depth, intrinsics = _read(path, seed - seeds.start)
        camera = Camera(*intrinsics.tolist(), *self.size)
        return Sample(f"scene_{seed:09d}", image, None, depth, camera)

    def _shard(self, start: int) -> tuple[Path, range]:
        count = min(FRAMES_PER_SHARD, self.frames - start)
        seed = self.first_seed + start
        return (self.folder / f"scenes{EDITION}_{seed:09d}_{count}.npz",
                range(seed, seed + count))


def render_missing(frames: Sequence[SceneFrames], workers: int,
                   report: Callable[[int, int], None] = lambda done, wanted: None) -> None:
    """Render all shards that are not on disk yet, in parallel processes.

    Args:
        report: called with the shards done and wanted, after each.
    """
    todo = [(path, seeds, part.size) for part in frames for path, seeds in part.shards.items()
            if not path.exists()]
    if not todo:
        return
    for folder in {path.parent for path, _, _ in todo}:
        folder.mkdir(parents=True, exist_ok=True)
        for left in folder.glob("*.partial.npz"):
            if time.time() - left.stat().st_mtime > WRITTEN_S:
                left.unlink(missing_ok=True)
    # Fresh processes: a fork of one that has used OpenCV's threads can wait for them for ever.
    context = get_context("spawn")
    given_up = context.RawValue("b", 0)  # without a lock: a process that was killed may hold it
    with ProcessPoolExecutor(workers, context, _serve, (os.getpid(), given_up)) as pool:
        try:
            made = [pool.submit(save_shard, *shard) for shard in todo]
            for done, shard in enumerate(as_completed(made), 1):
                shard.result()
                report(done, len(todo))
        except BaseException:  # Ctrl-C: nobody waits for the other shards
            given_up.value = 1
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _serve(parent: int, given_up: Any) -> None:
    """How a rendering process starts: one thread, Ctrl-C is the parent's, and so is its life."""
    cv2.setNumThreads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def follow() -> None:
        while os.getppid() == parent and not given_up.value:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()


def save_shard(path: Path, seeds: Sequence[int], size: tuple[int, int]) -> None:
    """Render frames into one file, which appears when it is complete; several may make the same.

    Each frame is an own entry, image and depth code as lossless PNG, so that one can be read
    without the others.
    """
    entries: dict[str, np.ndarray] = {}
    intrinsics = []
    for number, seed in enumerate(seeds):
        image, depth, camera = render(seed, *size)
        known = depth > 0
        code = np.zeros(depth.shape, np.uint16)
        code[known] = np.clip(
            np.round((np.log(depth[known]) - _LOW) / _SPAN * 65534 + 1), 1, 65535)
        entries[f"image_{number}"] = _png(image)
        entries[f"depth_{number}"] = _png(code)
        intrinsics.append((camera.fx, camera.fy, camera.cx, camera.cy))
    partial_path = path.with_suffix(f".{os.getpid()}.partial.npz")
    np.savez(partial_path, intrinsics=np.array(intrinsics), **entries)
    partial_path.replace(path)


def _read(path: Path, number: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Image (H, W, 3) uint8 RGB, depth (H, W) float32 metres, and fx, fy, cx, cy."""
    try:
        with np.load(path) as stored:
            image = cv2.imdecode(stored[f"image_{number}"], cv2.IMREAD_UNCHANGED)
            code = cv2.imdecode(stored[f"depth_{number}"], cv2.IMREAD_UNCHANGED)
            return image, _DEPTH_OF_CODE[code], stored["intrinsics"][number]
    except FileNotFoundError:
        raise BadInput(
            "scenes", f"{path} does not exist: start the training again, it renders the frames "
            "that are missing") from None
    except (KeyError, ValueError, OSError, zipfile.BadZipFile, cv2.error) as problem:
        raise BadInput(
            "scenes", f"{path} is damaged ({problem}): delete it and start the training again, "
            "which renders it anew") from problem


def _png(pixels: np.ndarray) -> np.ndarray:
    """(N,) uint8; channels in the order that they are in."""
    return cv2.imencode(".png", pixels, [cv2.IMWRITE_PNG_COMPRESSION, 1])[1].ravel()

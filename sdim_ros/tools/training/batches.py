"""Training batches: frames of the recipe's sources, points drawn anew, and their questions."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from torch.utils.data import Dataset

from sdim_ros.core.model import SdimConfig
from sdim_ros.core.supervision import Batch, Posed, collate
from sdim_ros.core.types import BadInput
from sdim_ros.tools.datasets.catalogue import open_source
from sdim_ros.tools.datasets.frames import Frames, Sample
from sdim_ros.tools.scene_cache import SceneFrames, render_missing
from sdim_ros.tools.training.data_recipe import DataRecipe, SourceRecipe
from sdim_ros.tools.training.questions import draw

# Seeds of rendered scenes: the sizes of a source have their own, and so have the frames that
# judge, which no training reaches.
SEEDS_PER_SIZE, VALIDATION_SEED = 10_000_000, 900_000_000
MOST_SKIPPED = 200  # frames of one batch that may turn out to be of no use


@dataclass(frozen=True, slots=True)
class Pool:
    """Frames that are drawn alike.

    Attributes:
        at: (N,) int64, those of the frames that are used.
        share: how often one of them is drawn, relative to other pools.
    """

    frames: Frames
    at: np.ndarray
    share: float


class TrainingBatches(Dataset):
    """Batch ``i`` depends on the seed and on ``i`` alone, so training can resume anywhere.

    Args:
        images, pixels: frames of a batch, and questions about each.
        seed: of every draw, and of the subsets of the sources.
        length: number of batches.
        cache: folder of the rendered scenes; ``prepare_scenes`` fills it.
        validation: draw frames that never train, as they are, and tell no question its own
            measurement.

    Raises:
        BadInput: a source is missing or too small; names the file and the remedy.
    """

    def __init__(self, data: DataRecipe, config: SdimConfig, images: int, pixels: int,
                 seed: int, length: int, cache: Path, validation: bool = False) -> None:
        self.data = dataclasses.replace(data, mask_1=0.0) if validation else data
        self.config, self.images, self.pixels = config, images, pixels
        self.seed, self.length, self.validation = seed, length, validation
        self.pools = open_pools(data, seed, cache, validation)
        shares = np.array([pool.share for pool in self.pools])
        self.shares = shares / shares.sum()

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Batch:
        rng = np.random.default_rng([self.seed, int(self.validation), index])
        drawn: list[Posed] = []
        skipped: Counter[str] = Counter()
        pool, crops = self._pool(rng), self.data.crops
        size = crops[rng.integers(len(crops))] if crops else None
        while len(drawn) < self.images:
            if crops:  # frames of all sources share a batch
                pool = self._pool(rng)
            sample = self._read(pool, rng)
            height, width = sample.image.shape[:2]
            size = size or (width, height)
            try:
                drawn.append(draw(sample, rng, self.data, self.config, self.pixels, size,
                                  augment=not self.validation))
            except BadInput as problem:
                skipped[problem.reason] += 1
                if skipped.total() >= MOST_SKIPPED:
                    raise BadInput(
                        "no_frames", f"{MOST_SKIPPED} frames of one batch could not be used "
                        f"({dict(skipped)}), the last because: {problem}") from problem
        return collate(drawn, self.config, skipped)

    def _pool(self, rng: np.random.Generator) -> Pool:
        return self.pools[rng.choice(len(self.pools), p=self.shares)]

    def _read(self, pool: Pool, rng: np.random.Generator) -> Sample:
        sample = pool.frames[int(rng.choice(pool.at))]
        if self.data.labels == "dense" and sample.truth is None:
            raise BadInput(
                "no_dense_depth", f"frame {sample.name} has no dense depth to ask for: set "
                "data.labels to sparse, which asks for hidden points instead")
        return sample


def open_pools(data: DataRecipe, seed: int, cache: Path, validation: bool) -> list[Pool]:
    """The frames of every source; each size of rendered scenes is a pool of its own.

    Raises:
        BadInput: a source is missing or too small; names the file and the remedy.
    """
    found = []
    for number, source in enumerate(data.sources):
        if source.kind == "scenes":
            parts = _scenes(data, source, cache, validation)
            found += [Pool(part, np.arange(len(part)), source.share / len(parts))
                      for part in parts]
        else:
            frames = _opened(source.kind, source.folder, tuple(source.topics.items()),
                             source.extrinsics)
            rng = np.random.default_rng([seed, number])
            found.append(Pool(frames, _subset(data, source, frames, rng, validation),
                              source.share))
    return found


@lru_cache(maxsize=16)
def _opened(kind: str, folder: Path, topics: tuple[tuple[str, str], ...],
            extrinsics: tuple[float, ...] | None) -> Frames:
    """One copy for training and judging: listing a large data set takes its time."""
    return open_source(SourceRecipe(
        kind, folder=folder, topics=dict(topics), extrinsics=extrinsics))


def prepare_scenes(data: DataRecipe, cache: Path, workers: int,
                   report: Callable[[int, int], None] = lambda done, wanted: None) -> None:
    """Render the scenes of the recipe that are not in the cache yet.

    Args:
        report: called with the shards done and wanted, after each.
    """
    render_missing([part for source in data.sources if source.kind == "scenes"
                    for validation in (False, True)
                    for part in _scenes(data, source, cache, validation)], workers, report)


def _scenes(data: DataRecipe, source: SourceRecipe, cache: Path, validation: bool
            ) -> list[SceneFrames]:
    """The frames of each size, an equal number of each."""
    wanted = _validation_frames(data, source) if validation else source.frames
    first = VALIDATION_SEED if validation else 0
    return [SceneFrames(cache, size, -(-wanted // len(source.sizes)),
                        first + number * SEEDS_PER_SIZE)
            for number, size in enumerate(source.sizes)]


def _subset(data: DataRecipe, source: SourceRecipe, frames: Frames, rng: np.random.Generator,
            validation: bool) -> np.ndarray:
    """(N,) sorted places of the frames to use."""
    usable = np.flatnonzero(frames.held_out == validation)
    if not len(usable):
        use = "validation" if validation else "training"
        raise BadInput("dataset", f"{source.folder}: of {len(frames)} frames none is left for "
                       f"{use}: expected at least two, and not all of them held out")
    if validation:
        wanted = min(_validation_frames(data, source), len(usable))
    else:
        wanted = len(usable) if source.frames is None else source.frames
    if wanted > len(usable):
        raise BadInput("dataset", f"{source.folder} has {len(usable)} frames for training, the "
                       f"recipe wants {wanted}: lower data.sources.frames, leave it out to use "
                       "all, or download the rest")
    return np.sort(rng.choice(usable, wanted, replace=False))


def _validation_frames(data: DataRecipe, source: SourceRecipe) -> int:
    share = source.share / sum(other.share for other in data.sources)
    return max(1, round(data.validation_frames * share))

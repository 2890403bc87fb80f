"""The part of a training recipe that says which frames, points and questions are drawn."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from sdim_ros.core.types import BadSetting

KINDS = ("scenes", "hypersim", "virtual_kitti", "frames", "bag")
PATTERNS = ("random", "lines", "corners", "stereo", "tiles")
LABELS = ("dense", "sparse")


@dataclass(frozen=True, slots=True)
class SourceRecipe:
    """One source of frames.

    Attributes:
        kind: one of ``KINDS``.
        share: how often a frame is drawn from it, relative to the other sources.
        folder: of the data set, of the frames folder or of the bag; None for scenes.
        frames: how many scenes are rendered, or the size of the seeded subset that is used;
            None = all frames of the folder.
        sizes: (width, height) of rendered scenes.
        topics: of a bag: ``image`` and ``sparse_depth``, or ``image``, ``camera_info`` and
            ``points``.
        extrinsics: of a bag's points: pose of their sensor in the camera's optical frame,
            x y z qx qy qz qw; None = they are in the optical frame.
    """

    kind: str
    share: float = 1.0
    folder: Path | None = None
    frames: int | None = None
    sizes: tuple[tuple[int, int], ...] = ()
    topics: Mapping[str, str] = field(default_factory=dict)
    extrinsics: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise BadSetting(
                f"data.sources: kind is {self.kind!r}: expected one of {', '.join(KINDS)}")
        key = f"data.sources: {self.kind}:"
        if not self.share > 0:
            raise BadSetting(f"{key} share is {self.share}: expected a number over 0")
        if self.frames is not None and self.frames < 1:
            raise BadSetting(f"{key} frames is {self.frames}: expected 1 or more")
        if self.kind == "scenes" and (self.frames is None or not self.sizes):
            raise BadSetting(
                f"{key} frames is {self.frames}, sizes is {self.sizes}: expected the number of "
                "frames to render and at least one [width, height]")
        if self.kind != "scenes" and self.folder is None:
            raise BadSetting(f"{key} folder is missing: expected the path of the data")
        if self.kind == "bag" and not (
                {"image", "sparse_depth"} <= set(self.topics)
                or {"image", "camera_info", "points"} <= set(self.topics)):
            raise BadSetting(
                f"{key} topics is {dict(self.topics)}: expected image and sparse_depth, or "
                "image, camera_info and points")


@dataclass(frozen=True, slots=True)
class PatternRecipe:
    """How sparse depth is drawn from a dense map.

    Attributes:
        shares: how often each of ``PATTERNS`` is drawn, relative to the others; absent = never.
        points: smallest and largest count of the random pattern, drawn log-uniformly.
        noise: share of the frames whose points carry a sensor's errors.
        outliers: largest share of wrong points in those frames.
    """

    shares: Mapping[str, float]
    points: tuple[int, int] = (5, 2000)
    noise: float = 0.5
    outliers: float = 0.05

    def __post_init__(self) -> None:
        shares = dict(self.shares)
        if set(shares) - set(PATTERNS) or not sum(shares.values()) > 0 or min(
                shares.values()) < 0:
            raise BadSetting(
                f"data.patterns is {shares}: expected shares of 0 or more, not all 0, of "
                f"{', '.join(PATTERNS)}")
        if not 1 <= self.points[0] <= self.points[1]:
            raise BadSetting(
                f"data.points is {list(self.points)}: expected a smallest count of 1 or more, "
                "then the largest")
        for key, share in (("noise", self.noise), ("outliers", self.outliers)):
            if not 0 <= share <= 1:
                raise BadSetting(f"data.{key} is {share}: expected a share from 0 to 1")


@dataclass(frozen=True, slots=True)
class DataRecipe:
    """What a model is trained on.

    Attributes:
        sources: frames are drawn from them by share.
        patterns: how sparse depth is drawn where a source has only dense depth.
        validation_frames: number of frames that only judge, over all sources.
        crops: (width, height) that frames are cropped and resized to, one of them for a batch;
            empty = the frames of a batch come from one source and take the size of the first.
        labels: ``dense``: pixels of the dense depth are asked; ``sparse``: a part of the
            measured points is hidden and asked.
        hidden: share of the points hidden for sparse labels.
        mask_1: share of the questions that are told the pixel's own measurement.
        restyle: share of the training images that get another look, for rendered frames.
    """

    sources: tuple[SourceRecipe, ...]
    patterns: PatternRecipe
    validation_frames: int
    crops: tuple[tuple[int, int], ...] = ()
    labels: str = "dense"
    hidden: float = 0.3
    mask_1: float = 0.05
    restyle: float = 0.0

    def __post_init__(self) -> None:
        if not self.sources:
            raise BadSetting("data.sources is empty: expected at least one source of frames")
        if self.validation_frames < 1:
            raise BadSetting(
                f"data.validation_frames is {self.validation_frames}: expected 1 or more")
        if any(min(size) < 16 for size in self.crops):
            raise BadSetting(
                f"data.crops is {[list(size) for size in self.crops]}: expected widths and "
                "heights of 16 or more")
        if self.labels not in LABELS:
            raise BadSetting(
                f"data.labels is {self.labels!r}: expected one of {', '.join(LABELS)}")
        if not 0 < self.hidden < 1:
            raise BadSetting(
                f"data.hidden is {self.hidden}: expected a share over 0 and under 1")
        for key, share in (("mask_1", self.mask_1), ("restyle", self.restyle)):
            if not 0 <= share <= 1:
                raise BadSetting(f"data.{key} is {share}: expected a share from 0 to 1")

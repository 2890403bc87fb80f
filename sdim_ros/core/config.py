"""Every setting with its default, range and description: the one source of all three.

The node declares its ROS parameters from these classes, ``config/completion.yaml`` is tested
against them, and the command line reads the same names.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from sdim_ros.core.model_settings import (
    ConfidenceSettings, DoubtSettings, FillSettings, ModelSettings, QuerySettings, setting,
)
from sdim_ros.core.types import BadSetting

SOURCES = ("sparse_depth", "points", "disparity")


@dataclass(frozen=True)
class InputSettings:
    image_transport: str = setting(
        "raw", "How images arrive: image, or image/compressed (JPEG or PNG).",
        choices=("raw", "compressed"), fixed=True)
    depth_transport: str = setting(
        "raw", "How sparse depth images arrive: sparse_depth/image, or "
        "sparse_depth/image/compressedDepth.", choices=("raw", "compressedDepth"), fixed=True)
    sources: str = setting(
        "", "Sparse sources that one frame takes together, separated by commas, of sparse_depth, "
        "points, disparity: the nearest depth counts; empty = whichever arrives.", fixed=True)
    rectify: bool = setting(
        False, "The image and the depth registered to it are raw: remove the lens distortion "
        "that camera_info describes.")
    min_depth_m: float = setting(
        0.1, "Measured depths under this are removed.", low=0.0, high=1000.0)
    max_depth_m: float = setting(
        250.0, "Measured depths over this are removed.", low=0.001, high=10000.0)
    on_empty_sparse: str = setting(
        "skip", "A frame without any measured depth: skip it, or answer with confidence 0.",
        choices=("skip", "answer"))
    max_pixels: int = setting(
        8_000_000, "Larger images are refused before anything is allocated.",
        low=64, high=100_000_000)
    max_age_s: float = setting(
        0.0, "An image older than this when its turn comes is dropped; 0 = never.",
        low=0.0, high=3600.0)


@dataclass(frozen=True)
class ProjectionSettings:
    extrinsics: tuple[float, ...] = setting(
        (), "Pose of the LiDAR in the camera's optical frame: x y z in metres, then the "
        "quaternion qx qy qz qw; empty = from TF, by the frames of cloud and image.")
    tf_timeout_s: float = setting(
        0.1, "How long a frame waits for a transform that is not there yet.", low=0.0, high=10.0)
    fixed_frame: str = setting(
        "", "A frame that does not move, such as odom: points are carried along it from the time "
        "of the cloud to that of the image; empty = the robot stands still between them, as with "
        "projection.extrinsics.")
    min_range_m: float = setting(
        0.1, "LiDAR points nearer than this along the optical axis are dropped.",
        low=0.0, high=1000.0)
    max_range_m: float = setting(
        250.0, "LiDAR points farther than this along the optical axis are dropped.",
        low=0.001, high=10000.0)
    occlusion_window_px: int = setting(
        7, "A point is dropped when one in this window is much nearer; 0 or 1 = off.",
        low=0, high=101)
    occlusion_tolerance_m: float = setting(
        1.5, "How much nearer the other point must be, in metres ...", low=0.0, high=100.0)
    occlusion_tolerance_ratio: float = setting(
        0.0, "... plus this share of its depth.", low=0.0, high=1.0)


@dataclass(frozen=True)
class SyncSettings:
    slop_s: float = setting(
        0.05, "Largest difference of the stamps of an image and its depth.", low=0.0, high=10.0)
    offset_s: float = setting(
        0.0, "Added to the stamps of the sparse depth before pairing.", low=-10.0, high=10.0)
    queue_size: int = setting(
        10, "Messages kept of each input while they wait for their partner.",
        low=1, high=1000, fixed=True)
    timeout_s: float = setting(
        0.0, "An image whose depth has not come after this, or after sync.queue_size newer "
        "images, goes on with the sources that have, or alone (see input.on_empty_sparse); 0 = it "
        "waits for its depth.",
        low=0.0, high=60.0)
    warn_after_s: float = setting(
        5.0, "Time without a pair after which the silent topic is named.", low=0.1, high=3600.0)


@dataclass(frozen=True)
class OutputSettings:
    encoding: str = setting(
        "32FC1", "Depth image: 32FC1 in metres with NaN = unknown, or 16UC1 in millimetres with "
        "0 = unknown or over 65.535 m.", choices=("32FC1", "16UC1"))
    min_confidence: float = setting(
        0.0, "Depths of lower confidence are published as unknown.", low=0.0, high=1.0)
    max_rate_hz: float = setting(
        0.0, "At most so many results a second; 0 = as fast as the model is.",
        low=0.0, high=1000.0)


@dataclass(frozen=True)
class PointsSettings:
    stride_px: int = setting(
        2, "The cloud takes every n-th pixel of every n-th row.", low=1, high=64)
    organized: bool = setting(
        False, "The cloud keeps rows and columns, with NaN where nothing is known; false = only "
        "the known points, as costmaps want it.")
    min_range_m: float = setting(
        0.0, "Pixels nearer than this stay out of the cloud.", low=0.0, high=10000.0)
    max_range_m: float = setting(
        100.0, "Pixels farther than this stay out of the cloud.", low=0.001, high=10000.0)


@dataclass(frozen=True)
class WorkerSettings:
    watchdog_s: float = setting(
        60.0, "A frame without progress for longer than this means that the worker hangs.",
        low=0.1, high=3600.0)
    max_restarts_per_minute: int = setting(
        3, "Restarts of a dead worker before the node gives up with exit code 3.",
        low=0, high=100)


@dataclass(frozen=True)
class AdaptationSettings:
    enabled: bool = setting(
        False, "Learn from the measured points of the frames that are completed.")
    parts: str = setting(
        "fusion+point", "What learns: the fusion network, with the point tokens, with LoRA of "
        "the language model's last layers.",
        choices=("fusion", "fusion+point", "fusion+point+lora"), fixed=True)
    lora_layers: int = setting(
        4, "Last layers of the language model that LoRA adapts.", low=1, high=128, fixed=True)
    learning_rate: float = setting(
        7e-4, "Of AdamW, at most: it is halved whenever weights had to be thrown away.",
        low=1e-7, high=0.1)
    frames: int = setting(
        4, "Frames that a step learns from.", low=1, high=256)
    pixels: int = setting(
        64, "Hidden points asked of each of them.", low=1, high=4096)
    hidden: float = setting(
        0.3, "Share of a frame's points that is hidden and asked.", low=0.01, high=0.9)
    max_share: float = setting(
        0.3, "Share of the worker's time that learning may take.", low=0.0, high=0.95)
    buffer_mb: int = setting(
        128, "Memory for frames to learn from.", low=1, high=100_000, fixed=True)
    judge_every: int = setting(
        10, "Steps between two judgements at points that never train.", low=1, high=10_000)
    average: float = setting(
        0.95, "Weight of the past in the moving average of the weights that is judged and then "
        "used.", low=0.0, high=0.9999)
    max_drift: float = setting(
        0.3, "Largest change of the weights, as a share of their own length.",
        low=0.0, high=10.0)
    folder: str = setting(
        "", "Where this camera's adapters are kept: the newest is used from the start, also while "
        "nothing is learnt; empty = nothing is loaded or saved.", fixed=True)
    autosave_minutes: float = setting(
        0.0, "What was learnt is saved so often, and when the node stops; 0 = only then.",
        low=0.0, high=10_000.0)


@dataclass(frozen=True)
class DiagnosticsSettings:
    period_s: float = setting(1.0, "Time between two messages on /diagnostics.",
                              low=0.05, high=60.0)


@dataclass(frozen=True)
class Settings:
    """Everything that can be set. Nested names join with a dot: ``queries.budget``."""

    autostart: bool = setting(
        True, "Configure and activate at start; false = wait for a lifecycle manager.",
        fixed=True)
    model: ModelSettings = field(default_factory=ModelSettings)
    queries: QuerySettings = field(default_factory=QuerySettings)
    fill: FillSettings = field(default_factory=FillSettings)
    confidence: ConfidenceSettings = field(default_factory=ConfidenceSettings)
    doubt: DoubtSettings = field(default_factory=DoubtSettings)
    input: InputSettings = field(default_factory=InputSettings)
    projection: ProjectionSettings = field(default_factory=ProjectionSettings)
    sync: SyncSettings = field(default_factory=SyncSettings)
    output: OutputSettings = field(default_factory=OutputSettings)
    points: PointsSettings = field(default_factory=PointsSettings)
    worker: WorkerSettings = field(default_factory=WorkerSettings)
    adaptation: AdaptationSettings = field(default_factory=AdaptationSettings)
    diagnostics: DiagnosticsSettings = field(default_factory=DiagnosticsSettings)


@dataclass(frozen=True, slots=True)
class Setting:
    """One leaf of the settings tree, for whoever declares, prints or checks it."""

    name: str
    value: Any
    description: str
    low: float | None
    high: float | None
    choices: tuple[str, ...] | None
    fixed: bool


def leaves(settings: Any, prefix: str = "") -> Iterator[Setting]:
    """Every setting of the tree with its dotted name, in the order of definition."""
    for item in dataclasses.fields(settings):
        value = getattr(settings, item.name)
        if dataclasses.is_dataclass(value):
            yield from leaves(value, f"{prefix}{item.name}.")
        else:
            yield Setting(name=prefix + item.name, value=value, **item.metadata)


def with_values(settings: Settings, values: Mapping[str, Any]) -> Settings:
    """A new tree with some leaves changed: all of them, or none.

    Raises:
        BadSetting: naming every unknown name, wrong type and value out of range at once.
    """
    known = {leaf.name: leaf for leaf in leaves(settings)}
    problems, checked = [], {}
    for name, value in values.items():
        if name not in known:
            problems.append(f"{name}: unknown setting; known are {', '.join(sorted(known))}")
            continue
        try:
            checked[name] = _checked(known[name], value)
        except BadSetting as problem:
            problems.append(str(problem))
    if problems:
        raise BadSetting("; ".join(problems))
    changed = _replace(settings, checked)
    _check_order(changed)
    return changed


def _check_order(settings: Settings) -> None:
    """A minimum under its maximum, wherever there are both."""
    values = {leaf.name: leaf.value for leaf in leaves(settings)}
    for low in ("input.min_depth_m", "projection.min_range_m", "points.min_range_m"):
        high = low.replace("min", "max")
        if values[low] >= values[high]:
            raise BadSetting(
                f"{low}={values[low]} must be smaller than {high}={values[high]}")


def _checked(leaf: Setting, value: Any) -> Any:
    """``value`` in the type of the leaf, or BadSetting with name, value and what was expected."""
    default = leaf.value
    if isinstance(default, tuple):
        try:
            value = tuple(float(v) for v in value)
        except (TypeError, ValueError):
            raise BadSetting(f"{leaf.name}={value!r}: expected a list of numbers, such as "
                             "[1.0, 2.0]") from None
        if leaf.name.endswith("extrinsics"):
            _check_extrinsics(leaf.name, value)
        return value
    if leaf.name == "input.sources":
        sources_of(value)
    if isinstance(default, float) and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if type(value) is not type(default):
        raise BadSetting(
            f"{leaf.name}={value!r}: expected a value of type {type(default).__name__}")
    if leaf.choices is not None and value not in leaf.choices:
        raise BadSetting(f"{leaf.name}={value!r}: expected one of {', '.join(leaf.choices)}")
    # Written so that NaN fails as well.
    if leaf.low is not None and not value >= leaf.low:
        raise BadSetting(f"{leaf.name}={value}: expected at least {leaf.low}")
    if leaf.high is not None and not value <= leaf.high:
        raise BadSetting(f"{leaf.name}={value}: expected at most {leaf.high}")
    return value


def sources_of(value: str) -> tuple[str, ...]:
    """The names in ``input.sources``.

    Raises:
        BadSetting: a name that is none, or that stands there twice.
    """
    names = tuple(name.strip() for name in str(value).split(",")) if value else ()
    if not set(names) <= set(SOURCES) or len(set(names)) < len(names):
        raise BadSetting(f"input.sources={value!r}: expected different names of "
                         f"{', '.join(SOURCES)}, separated by commas")
    return names


def _check_extrinsics(name: str, value: tuple[float, ...]) -> None:
    if not value:
        return
    norm = sum(v * v for v in value[3:]) ** 0.5
    if len(value) != 7 or not all(map(math.isfinite, value)) or not abs(norm - 1) < 0.01:
        raise BadSetting(
            f"{name}={list(value)}: expected 7 finite numbers, x y z qx qy qz qw with a unit "
            f"quaternion (its length is {norm:.3f})")


def _replace(settings: Any, values: Mapping[str, Any], prefix: str = "") -> Any:
    changes = {}
    for item in dataclasses.fields(settings):
        value, name = getattr(settings, item.name), prefix + item.name
        if dataclasses.is_dataclass(value):
            changes[item.name] = _replace(value, values, f"{name}.")
        elif name in values:
            changes[item.name] = values[name]
    return dataclasses.replace(settings, **changes)

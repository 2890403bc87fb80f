"""The settings of a frame's way through the model; ``config.py`` holds them all."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


def setting(
    default: Any,
    description: str,
    *,
    low: float | None = None,
    high: float | None = None,
    choices: tuple[str, ...] | None = None,
    fixed: bool = False,
) -> Any:
    """One dataclass field that knows its description and range.

    Args:
        fixed: the value cannot change while the node is configured.
    """
    metadata = {
        "description": description, "low": low, "high": high, "choices": choices, "fixed": fixed,
    }
    if isinstance(default, tuple):
        return field(default_factory=lambda: default, metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass(frozen=True)
class ModelSettings:
    checkpoint: str = setting(
        "", "Folder or Hugging Face id of the model; empty = the embedded tiny checkpoint.",
        fixed=True)
    device: str = setting(
        "auto", "Where the model runs: auto, cpu, cuda or cuda:N.", fixed=True)
    dtype: str = setting(
        "auto", "Number type of the weights; auto = bfloat16 on a GPU, float32 on a CPU.",
        choices=("auto", "float32", "bfloat16"), fixed=True)
    quantization: str = setting(
        "none", "Weights of the transformer layers in 8 or 4 bits: less memory, nearly the same "
        "answers; needs torchao, and int4 a GPU.", choices=("none", "int8", "int4"), fixed=True)
    compile: bool = setting(
        False, "Fuse the small steps of a pass on a GPU (a CPU goes without): faster, after "
        "about a minute at the start; needs a C compiler.", fixed=True)
    allow_download: bool = setting(
        False, "Fetch a Hugging Face id that is not in the local cache.", fixed=True)
    allow_untrained: bool = setting(
        False, "Load a stock model whose SDIM parts were never trained (for timing only).",
        fixed=True)


@dataclass(frozen=True)
class QuerySettings:
    preset: str = setting(
        "balanced", "How many pixels are asked: fast 500, balanced 1500, exact every missing "
        "pixel, paper = exact with greedy digits; whether pixels are named by a token or by "
        "text is the checkpoint's.",
        choices=("fast", "balanced", "exact", "paper"))
    budget: int = setting(
        0, "Pixels asked per frame; 0 = what the preset says.", low=0, high=4_000_000)
    budget_ms: float = setting(
        0.0, "Time that a frame may take, in milliseconds: fewer pixels are asked where that many "
        "would take longer; 0 = it takes what it takes.", low=0.0, high=3_600_000.0)
    refined: float = setting(
        0.0, "Share of the pixels that is asked after a first grid, where the answers are unsure, "
        "depths differ and nothing known is near; the embedded model gains nothing from it.",
        low=0.0, high=0.9)
    tile: int = setting(
        0, "Queries per pass of the language model, smaller needs less memory; 0 = 512 on a CPU, "
        "4096 on a GPU, halved where memory runs out.", low=0, high=65536)
    readout: str = setting(
        "median", "How digits become a number: the median of the model's distribution, or "
        "greedy (the paper's way).", choices=("median", "greedy"))
    stop_early: bool = setting(
        True, "Leave the last digit to where the median lies within the digit before it: one pass "
        "less. Not with greedy digits.")


@dataclass(frozen=True)
class FillSettings:
    method: str = setting(
        "auto", "Classical fill under the answers; auto = the blend that predicts hidden "
        "measured points best.", choices=("auto", "nearest", "linear", "edge_aware", "guided"))
    trust: float = setting(
        -1.0, "Weight of the model's answers; negative = calibrated on hidden measured points.",
        low=-1.0, high=1.0)
    folds: int = setting(
        5, "Cross-validation folds of the calibration.", low=2, high=20)
    calibration_points: int = setting(
        200, "Measured points hidden and asked per frame to calibrate, at most.",
        low=0, high=20000)


@dataclass(frozen=True)
class ConfidenceSettings:
    recent_frames: int = setting(
        10, "Frames whose hidden points help those of a frame to calibrate its confidence; 0 = "
        "each frame by itself.", low=0, high=1000)
    exact_quantiles: bool = setting(
        False, "Read the model's own 10 and 90 % quantiles exactly, at about three times the "
        "cost of an answer, instead of from its median's digits.")


@dataclass(frozen=True)
class DoubtSettings:
    mode: str = setting(
        "warn", "Measured points that their neighbours and the model contradict: ignore = not "
        "looked for, warn = counted and shown, reject = counted, shown and not used.",
        choices=("ignore", "warn", "reject"))
    spreads: float = setting(
        1.0, "A suspicious point is wrong when the model, which is not shown it, answers at least "
        "so many times its own uncertainty away from it: less rejects more.",
        low=0.0, high=1000.0)
    budget: int = setting(
        300, "Suspicious points asked of the model per frame, at most; the neighbours alone "
        "decide on the others.", low=0, high=20000)

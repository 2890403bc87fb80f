"""Depth errors of one image, their mean over images, and how far that mean can be trusted.

Metrics are computed per image and then averaged, as in Marigold-DC (Viola et al., 2024); no
depth is clipped and no border is cropped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sdim_ros.core.types import BadInput

# Share of the pixels that count as the most confident, and ranges of the confidence.
CONFIDENT, LEVELS = 0.8, 10
DRAWN_AT_ONCE = 4_000_000  # values of a bootstrap
METRICS = ("mae", "rmse", "imae", "irmse", "rel", "delta1", "delta105")


def protocol_mask(reference: np.ndarray) -> np.ndarray:
    """Every pixel with a reference depth (finite and > 0), as published protocols judge.

    Returns:
        bool array of the shape of ``reference``.
    """
    return np.isfinite(reference) & (reference > 0)


def held_out_mask(reference: np.ndarray, given: np.ndarray) -> np.ndarray:
    """The pixels with a reference depth that were not given as input.

    Points given are often a part of the reference: a method that copies them scores them free.

    Args:
        reference: (H, W) metres; NaN, inf and <= 0 = no reference.
        given: (H, W) the sparse input, metres; NaN, inf and <= 0 = not given.

    Returns:
        (H, W) bool.
    """
    return protocol_mask(reference) & ~protocol_mask(given)


def evaluate(
    prediction: np.ndarray, reference: np.ndarray, mask: np.ndarray
) -> dict[str, float]:
    """The errors of one image.

    Args:
        prediction: depth in metres, any shape; NaN, inf and <= 0 = missing.
        reference: metres, same shape.
        mask: bool, same shape: the pixels to judge, all with a reference depth.

    Returns:
        ``mae``, ``rmse`` [m]; ``imae``, ``irmse`` [1/m], of inverse depth; ``rel``, the mean of
        |prediction - reference| / reference; ``delta1``, the share with
        max(prediction / reference, reference / prediction) < 1.25; ``delta105``, that with
        < 1.05; and ``missing``, the share of the judged pixels without a prediction. The metrics
        before it cover the others only, and are NaN where nothing is predicted: a comparison is
        fair only between equal ``missing``.

    Raises:
        BadInput: ``size_mismatch``; ``no_reference`` when the mask is empty or holds a pixel
            without a reference depth.
    """
    if not prediction.shape == reference.shape == mask.shape:
        raise BadInput(
            "size_mismatch",
            f"prediction {prediction.shape}, reference {reference.shape} and mask {mask.shape}: "
            "expected the same shape")
    truth = np.asarray(reference[mask], dtype=np.float64)
    if not protocol_mask(truth).all() or truth.size == 0:
        raise BadInput(
            "no_reference",
            f"{truth.size} pixels to judge, {int(protocol_mask(truth).sum())} of them with a "
            "reference depth: expected at least one, and all with one; intersect the mask with "
            "protocol_mask(reference)")
    guess = np.asarray(prediction[mask], dtype=np.float64)
    covered = np.isfinite(guess) & (guess > 0)
    missing = 1.0 - float(covered.mean())
    if not covered.any():
        return {**dict.fromkeys(METRICS, float("nan")), "missing": missing}
    return {**_errors(guess[covered], truth[covered]), "missing": missing}


def _errors(guess: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """The metrics of (N,) positive depths, N > 0."""
    error = guess - truth
    inverse_error = 1 / guess - 1 / truth
    ratio = np.maximum(guess / truth, truth / guess)
    return {
        "mae": float(np.abs(error).mean()),
        "rmse": float(np.sqrt((error**2).mean())),
        "imae": float(np.abs(inverse_error).mean()),
        "irmse": float(np.sqrt((inverse_error**2).mean())),
        "rel": float((np.abs(error) / truth).mean()),
        "delta1": float((ratio < 1.25).mean()),
        "delta105": float((ratio < 1.05).mean()),
    }


def error_by_range(
    prediction: np.ndarray, reference: np.ndarray, mask: np.ndarray, edges: Sequence[float]
) -> tuple[np.ndarray, np.ndarray]:
    """Absolute errors of one image, summed by how far away the reference is.

    Args:
        prediction, reference, mask: as in `evaluate`.
        edges: (B,) metres, ascending: bin b begins at ``edges[b]``, the last has no end. What
            is nearer than the first edge counts in no bin.

    Returns:
        (B,) the sums [m], and (B,) the numbers of predicted pixels they come from.
    """
    judged = mask & protocol_mask(prediction)
    truth = np.asarray(reference[judged], dtype=np.float64)
    error = np.abs(np.asarray(prediction[judged], dtype=np.float64) - truth)
    bins = np.digitize(truth, edges)
    sums, counts = (np.bincount(bins, weights, len(edges) + 1)[1:] for weights in (error, None))
    return sums, counts


def certainty(
    depth: np.ndarray, reference: np.ndarray, confidence: np.ndarray, interval: np.ndarray
) -> dict[str, Any]:
    """How far confidence and 80 % interval of one image hold.

    Args:
        depth, reference: (N,) metres, N > 0, all known.
        confidence: (N,) probability that the depth is within 5 % of the reference.
        interval: (N,) metres, half width of the interval around the depth; inf = anything.

    Returns:
        ``coverage``, the share of the references inside of their interval; ``interval``, the
        mean half width [m]; ``mae``, and ``mae_confident``, that of the ``CONFIDENT`` share of
        the pixels with the highest confidence [m]; and for each of ``LEVELS`` equal ranges of
        the confidence ``pixels``, ``promised`` and ``kept``: their number, the sum of their
        confidences, and how many of them are within 5 %.
    """
    truth, sure = np.asarray(reference, np.float64), np.asarray(confidence, np.float64)
    error = np.abs(np.asarray(depth, np.float64) - truth)
    confident = np.argsort(-sure, kind="stable")[:max(round(CONFIDENT * len(error)), 1)]
    level = np.minimum((LEVELS * sure).astype(int), LEVELS - 1)
    counts = (np.bincount(level, weights, LEVELS).tolist()
              for weights in (None, sure, error <= 0.05 * truth))
    return {
        "coverage": float((error <= interval).mean()), "interval": float(np.mean(interval)),
        "mae": float(error.mean()), "mae_confident": float(error[confident].mean()),
        **dict(zip(("pixels", "promised", "kept"), counts, strict=True)),
    }


def calibration_error(pixels: np.ndarray, promised: np.ndarray, kept: np.ndarray) -> float:
    """Expected calibration error (Naeini et al., AAAI 2015) of ``certainty``'s counts.

    The mean over all pixels of how far a range's confidence is from the share that it kept;
    NaN without any pixel.
    """
    total = np.sum(pixels)
    return float(np.abs(np.subtract(promised, kept)).sum() / total) if total else float("nan")


def mean_of(images: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The mean over images of each metric; every image counts the same.

    Images whose metric is NaN (nothing predicted) are left out of that metric's mean, which is
    NaN when none is left; their ``missing`` still counts.

    Raises:
        BadInput: ``no_images``.
    """
    if not images:
        raise BadInput("no_images", "no image to average over: expected at least one")
    return {name: _mean([image[name] for image in images]) for name in images[0]}


def _mean(values: Sequence[float]) -> float:
    known = _without_nan(values)
    return float(known.mean()) if known.size else float("nan")


def bootstrap_ci(
    values: Sequence[float], seed: int = 0, resamples: int = 2000
) -> tuple[float, float]:
    """95 % interval of the mean over images, by percentile bootstrap (Efron, 1979).

    It takes the images as independent. Frames that follow each other in a video are not, and the
    interval is then too narrow.

    Args:
        values: one metric, one value per image; NaN is left out as in ``mean_of``.
        seed: the same seed gives the same interval.

    Returns:
        Lower and upper end; NaN when fewer than two images leave nothing to resample.
    """
    known = _without_nan(values)
    if known.size < 2:
        return float("nan"), float("nan")
    rng = np.random.default_rng(seed)
    # In parts, as so many images do not fit into memory as often.
    rows = max(1, DRAWN_AT_ONCE // known.size)
    means = np.concatenate([
        rng.choice(known, (min(rows, resamples - start), known.size)).mean(axis=1)
        for start in range(0, resamples, rows)])
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


def paired_difference(
    ours: Sequence[float], theirs: Sequence[float], seed: int = 0
) -> dict[str, Any]:
    """How much one method's errors differ from another's on the same images.

    Pairs cancel what makes an image hard for both, so the interval is narrower than those of the
    two means.

    Args:
        ours, theirs: one metric, one value per image, in the same order; pairs with a NaN are
            left out.

    Returns:
        ``difference``, the mean of ours - theirs; ``ci95``, its bootstrap interval;
        ``relative``, the difference as a share of the mean of theirs; ``images``, the number of
        pairs. NaN where there is no pair.
    """
    pairs = np.stack([np.asarray(ours, np.float64), np.asarray(theirs, np.float64)])
    ours_known, theirs_known = pairs[:, ~np.isnan(pairs).any(axis=0)]
    differences = ours_known - theirs_known
    difference, base = _mean(differences), _mean(theirs_known)
    return {
        "difference": difference, "ci95": list(bootstrap_ci(differences, seed)),
        "relative": difference / base if base else float("nan"), "images": len(differences),
    }


def _without_nan(values: Sequence[float]) -> np.ndarray:
    known = np.asarray(values, dtype=np.float64)
    return known[~np.isnan(known)]

"""One real scene that comes with a package: Middlebury 2014 "Motorcycle"."""

from __future__ import annotations

import numpy as np

from sdim_ros.core.projection import disparity_to_depth
from sdim_ros.core.types import BadInput, Camera
from sdim_ros.tools.datasets.frames import Sample

# Middlebury 2014 "Motorcycle" at a quarter of its size, as scikit-image ships it: D. Scharstein
# et al., "High-resolution stereo datasets with subpixel-accurate ground truth", GCPR 2014.
MOTORCYCLE_FOCAL_PX = 994.978
MOTORCYCLE_BASELINE_M = 0.193001
MOTORCYCLE_DOFFS_PX = 31.086
MOTORCYCLE_CENTRE_PX = (311.193, 254.877)


def motorcycle() -> Sample:
    """The left view of Middlebury's Motorcycle with the depth of its structured light scan."""
    return motorcycle_stereo()[0]


def motorcycle_stereo() -> tuple[Sample, np.ndarray]:
    """Motorcycle and its right image, (H, W, 3) uint8 RGB."""
    try:
        from skimage.data import stereo_motorcycle
    except ImportError as problem:
        raise BadInput(
            "dataset", "the motorcycle scene comes with scikit-image, which is not installed: "
            "pip install scikit-image") from problem
    left, right, disparity = stereo_motorcycle()
    truth = disparity_to_depth(
        disparity, MOTORCYCLE_FOCAL_PX, MOTORCYCLE_BASELINE_M, MOTORCYCLE_DOFFS_PX)
    height, width = truth.shape
    camera = Camera(
        MOTORCYCLE_FOCAL_PX, MOTORCYCLE_FOCAL_PX, *MOTORCYCLE_CENTRE_PX, width, height)
    return Sample("motorcycle", left, None, truth, camera), right

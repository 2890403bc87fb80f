"""Which measured points are wrong: those that their neighbours and the model both contradict.

See-through points, flying pixels and multi-path spoil what is filled from them. The neighbours
speak first: either points near it explain a point, or chance does, and how often it takes chance
is learnt on the frame itself. Whatever may be chance is then put to the model, which sees
neither it nor any other suspect.

``sparse`` is (H, W) float32 in metres with 0 = not measured, ``image`` is (H, W, 3) uint8 RGB.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from scipy.spatial import cKDTree

from sdim_ros.core.config import DoubtSettings
from sdim_ros.core.types import Answers

# Fewer points do not tell what is usual in a frame.
MIN_POINTS = 50
# Of more points only those are judged that few of the pixels around them agree with, by what is
# measured in a square of this side around them.
MANY, CLOSE = 30_000, 31
# A point is a suspect from this probability of being wrong, and without the model wrong from that.
SUSPECT, SURE = 0.05, 0.9
NEIGHBOURS = 12
# How far the logarithm of a right depth is from a neighbour's, or from the plane through them
# all: on smooth surfaces, on rough ones, and where things are small.
SCALES = (0.005, 0.015, 0.03, 0.06)
# A wrong depth may be any of the frame's; in logarithms these span at least so much.
LEAST_SPAN = 0.5
# Difference of colours, 0 to 255, with which a neighbour counts half.
COLOUR_TOLERANCE = 5.0
# Evidence that stands beside a frame's own: so many points, this share of them wrong.
PRIOR_POINTS, PRIOR_SHARE = 50.0, 0.02
# Right points that are alone on what they lie on look wrong, too: so many, by the root of the
# number of points. Where no more look wrong, they hardly are. Once the model has spoken, those
# count that it is so many of its spreads away from.
LONE, CONFIRMED = 0.25, 10.0
ROUNDS = 15


@dataclass(frozen=True, slots=True)
class Suspects:
    """Measured points that may be wrong; those to be asked of the model come first.

    Attributes:
        rows, cols: (N,) int64.
        chance: (N,) float32, how probable it is that the point is wrong.
        asked: how many of them are put to the model.
        total: measured points, those that nobody suspects as well.
    """

    rows: np.ndarray
    cols: np.ndarray
    chance: np.ndarray
    asked: int
    total: int

    def __len__(self) -> int:
        return len(self.rows)

    def without(self, sparse: np.ndarray) -> np.ndarray:
        """A copy of the measurements that shows none of the suspects."""
        return without(sparse, (self.rows, self.cols))

    def contradicted(
        self, sparse: np.ndarray, said: Answers | None, spreads: float,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Those that stay suspicious once the model has spoken.

        Args:
            said: the model at the suspects asked; None where none is.
            spreads: how many of its spreads the model must be away from a point that is wrong
                by all that its neighbours tell; the less they tell, the more.

        Returns:
            Rows and columns, (D,) int64 each.
        """
        away = np.zeros(0) if said is None else np.abs(
            sparse[said.rows, said.cols] - said.depth) / said.spread
        asked = len(away)
        counts = self.chance >= SURE
        counts[:asked] = away > CONFIRMED
        chance = _unless_lone(self.chance, np.count_nonzero(counts), self.total)
        wrong = chance >= SURE
        wrong[:asked] = away * chance[:asked] > spreads
        return self.rows[wrong], self.cols[wrong]


def without(sparse: np.ndarray, at: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """A copy of the measurements with these rows and columns unknown."""
    rest = sparse.copy()
    rest[at] = 0
    return rest


def suspects(sparse: np.ndarray, image: np.ndarray, settings: DoubtSettings) -> Suspects:
    """The measured points that their neighbours contradict; none where they are to be ignored."""
    points, chance = np.zeros((0, 2), np.int64), np.zeros(0, np.float32)
    if settings.mode != "ignore":
        points, chance = chances(sparse, image)
    total = np.count_nonzero(sparse)
    found = _unless_lone(chance, np.count_nonzero(chance >= SUSPECT), total) >= SUSPECT
    points, chance = points[found], chance[found]
    # What is least certain gains most from a second opinion.
    order = np.argsort(np.abs(chance - 0.5), kind="stable")
    return Suspects(*points[order].T, chance[order], min(settings.budget, len(points)), total)


def _unless_lone(chance: np.ndarray, found: int, total: int) -> np.ndarray:
    """How probable it is that points are wrong, and not merely alone on what they lie on.

    Args:
        chance: (N,) float32, how much they look wrong.
        found: how many points look wrong in the whole frame.
        total: measured points of the frame.
    """
    return chance / np.float32(1 + (LONE * np.sqrt(total) / max(found, 1e-6)) ** 4)


def chances(sparse: np.ndarray, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How probable it is that a measured point is wrong, from its neighbours alone.

    The depth of a right point lies near that of one of its neighbours, or on the plane through
    them; a wrong one lies anywhere. How much of each a frame has is fitted to it.

    Returns:
        (N, 2) int64 rows and columns, and (N,) float32 probabilities. All measured points are
        there; of over ``MANY`` only those that stand out, of under ``MIN_POINTS`` none.
    """
    judged = points = np.argwhere(sparse > 0)
    total = len(points)
    if total > MANY:
        alone = _stands_out(sparse)
        near = cv2.dilate(alone.astype(np.uint8), np.ones((CLOSE, CLOSE)))
        judged, points = np.argwhere(alone), np.argwhere((sparse > 0) & (near > 0))
    if min(total, len(points)) < MIN_POINTS:
        return np.zeros((0, 2), np.int64), np.zeros(0, np.float32)
    distance, index = cKDTree(points).query(
        judged, k=np.arange(2, min(NEIGHBOURS + 1, len(points)) + 1))
    beside, distance = points[index], distance.astype(np.float32)
    around, own = sparse[beside[..., 0], beside[..., 1]], sparse[tuple(judged.T)]
    weights = _alike(image, judged, beside) / (1 + np.square(distance / np.median(distance)))
    plane = _plane_at(judged, beside, 1 / own, 1 / around, weights)
    off_plane = np.log(own * np.maximum(plane, np.float32(1e-4)))
    off = np.log(own[:, None] / around)
    by_neighbours = [_normal(off, scale) for scale in SCALES]
    by_plane = [_normal(off_plane, scale) for scale in SCALES]
    nearest, farthest = np.percentile(np.log(sparse[sparse > 0]), (2, 98))
    mixture = _Mixture(total, 1 / max(farthest - nearest, LEAST_SPAN))
    wrong = np.zeros(sparse.shape, np.float32)
    for _ in range(2):  # the second time those that are wrong vouch for nobody
        trusted = weights * (1 - wrong[beside[..., 0], beside[..., 1]]) + np.float32(1e-9)
        trusted /= trusted.sum(axis=1, keepdims=True)
        likely = [(trusted * density).sum(axis=1) for density in by_neighbours]
        chance = mixture.fit(np.stack(likely + by_plane))
        wrong[tuple(judged.T)] = chance
    return judged, chance.astype(np.float32)


class _Mixture:
    """How often depths follow each explanation, by expectation maximisation.

    Dempster, Laird and Rubin, "Maximum likelihood from incomplete data via the EM algorithm",
    1977.

    Args:
        total: measured points; those that are not judged count as right.
        evenly: density of a wrong point's logarithm.
    """

    def __init__(self, total: int, evenly: float) -> None:
        self._total, self._evenly = total, np.float32(evenly)
        self._wrong = PRIOR_SHARE
        self._right = np.full(2 * len(SCALES), (1 - PRIOR_SHARE) / (2 * len(SCALES)))

    def fit(self, likely: np.ndarray) -> np.ndarray:
        """Probability (N,) float32 that a point is wrong.

        Args:
            likely: (E, N) float32, density of each point by each explanation of right ones.
        """
        # Of points that were not judged nothing is known but that they are right.
        unseen = self._total - likely.shape[1]
        prior = ((1 - PRIOR_SHARE) * PRIOR_POINTS + unseen) / len(likely)
        for _ in range(ROUNDS):
            right = self._right.astype(np.float32)[:, None] * likely
            wrong = np.float32(self._wrong) * self._evenly
            everything = wrong + right.sum(axis=0)
            chance = wrong / everything
            counts = (right / everything).sum(axis=1, dtype=np.float64) + prior
            self._wrong = float((chance.sum(dtype=np.float64) + PRIOR_SHARE * PRIOR_POINTS)
                                / (self._total + PRIOR_POINTS))
            self._right = counts / counts.sum() * (1 - self._wrong)
        return chance


def _normal(off: np.ndarray, scale: float) -> np.ndarray:
    """Density of the normal distribution around 0."""
    scale = np.float32(scale)
    return np.exp(np.square(off / scale) / np.float32(-2)) / (scale * np.float32(2.5066))


def _alike(image: np.ndarray, judged: np.ndarray, beside: np.ndarray) -> np.ndarray:
    """How much the colours of neighbours (N, K, 2) are those of the points (N, 2), from 0 to 1."""
    smooth = cv2.GaussianBlur(image, (0, 0), 1).astype(np.int16)
    own = smooth[tuple(judged.T)]
    differ = np.zeros(beside.shape[:2], np.float32)
    for channel in range(3):  # one at a time: a third of the memory
        others = smooth[beside[..., 0], beside[..., 1], channel]
        differ = np.maximum(differ, np.abs(others - own[:, channel, None]))
    return 1 / (1 + np.square(differ / np.float32(COLOUR_TOLERANCE)))


def _plane_at(judged: np.ndarray, beside: np.ndarray, own: np.ndarray, around: np.ndarray,
              weights: np.ndarray) -> np.ndarray:
    """Inverse depth of each point if it lay on the plane of its neighbours, (N,) float32.

    In an image the inverse depth of a plane is linear. The fit counts neighbours that are off
    the plane less and less, and holds steep planes for unlikely.

    Args:
        judged, beside: (N, 2) and (N, K, 2) rows and columns of points and neighbours.
        own, around: (N,) and (N, K) float32, inverse depths.
        weights: (N, K) float32.
    """
    y, x = np.moveaxis((beside - judged[:, None]).astype(np.float32), -1, 0)
    steep = np.float32(0.03) * np.square(np.maximum(np.abs(x), np.abs(y)).max(axis=1))
    counted = weights
    for _ in range(3):
        share = counted / counted.sum(axis=1, keepdims=True)
        mean_x, mean_y, mean = ((share * values).sum(axis=1) for values in (x, y, around))
        dx, dy, change = x - mean_x[:, None], y - mean_y[:, None], around - mean[:, None]
        share_x, share_y = share * dx, share * dy
        xx, yy = (share_x * dx).sum(axis=1) + steep, (share_y * dy).sum(axis=1) + steep
        xy = (share_x * dy).sum(axis=1)
        x_change, y_change = (share_x * change).sum(axis=1), (share_y * change).sum(axis=1)
        scale = xx * yy - xy * xy
        slope_x = (x_change * yy - y_change * xy) / scale
        slope_y = (y_change * xx - x_change * xy) / scale
        off = np.abs(change - slope_x[:, None] * dx - slope_y[:, None] * dy)
        usual = np.median(off, axis=1) + np.float32(0.01) * own
        counted = weights / (1 + np.square(off / (2 * usual[:, None])))
    return mean - slope_x * mean_x - slope_y * mean_y


def _stands_out(sparse: np.ndarray) -> np.ndarray:
    """(H, W) bool: measured, and few of those in the 5 x 5 pixels around it have its depth."""
    padded = np.pad(sparse, 2)
    height, width = sparse.shape
    agreeing = np.zeros(sparse.shape, np.uint8)
    for down in range(5):
        for right in range(5):
            other = padded[down:down + height, right:right + width]
            agreeing += np.abs(other - sparse) < 0.05 * sparse
    known = cv2.boxFilter((sparse > 0).astype(np.float32), -1, (5, 5), normalize=False,
                          borderType=cv2.BORDER_CONSTANT)
    return (sparse > 0) & (agreeing <= np.maximum(3, known / 3))  # itself is one of them

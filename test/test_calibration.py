"""Intrinsics follow region, binning and size; raw images become pinhole images."""

from __future__ import annotations

from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from sdim_ros.core.calibration import Rectifier, is_distorted, is_rescaled, read_camera
from sdim_ros.core.types import BadInput, Camera

K = np.array([[300, 0, 160], [0, 310, 118], [0, 0, 1.0]])
BENT = {"plumb_bob": [-0.4, 0.15, 0.001, -0.0005, 0.01],
        "rational_polynomial": [-0.3, 0.1, 0.001, 0.0005, 0.01, 0.1, 0.05, 0.02],
        "equidistant": [-0.05, 0.01, -0.005, 0.001]}
# A stereo camera's rectification turns it a little.
TURN = cv2.Rodrigues(np.array([0.02, -0.03, 0.01]))[0]


def make_info(width=320, height=240, model="plumb_bob", **changes):
    roi = {"x_offset": 0, "y_offset": 0, "width": 0, "height": 0, **changes.pop("roi", {})}
    values = {"k": K, "p": np.zeros((3, 4)), "r": np.eye(3), "d": np.zeros(5), "binning_x": 0,
              "binning_y": 0, **changes}
    for name in "kprd":
        values[name] = np.asarray(values[name], float).ravel()
    return SimpleNamespace(width=width, height=height, distortion_model=model,
                           roi=SimpleNamespace(**roi), **values)


def projection(fx=280.0, fy=280.0, cx=158.0, cy=121.0):
    return [fx, 0, cx, 0, 0, fy, cy, 0, 0, 0, 1, 0]


def test_camera_comes_from_p_when_filled_and_from_k_otherwise():
    assert read_camera(make_info(), 320, 240) == Camera(300, 310, 160, 118, 320, 240)
    assert read_camera(make_info(p=projection()), 320, 240) == Camera(280, 280, 158, 121, 320, 240)


@pytest.mark.parametrize(("changes", "reason", "words"), [
    ({"k": [0] * 9}, "uncalibrated", "all zero"),
    ({"k": [-1, 0, 1, 0, 11, 0.5, 0, 0, 1]}, "uncalibrated", "fx=-1.0"),
    ({"k": [np.nan, 0, 1, 0, 11, 0.5, 0, 0, 1]}, "uncalibrated", "fx=nan"),
    ({"width": 321}, "camera_size", "321x240 for an image of 320x240"),
    ({"width": 0, "height": 0}, "camera_size", "0x0 for an image of 320x240"),
    ({"width": 640}, "camera_size", "640x240 for an image of 320x240"),
    ({"binning_x": 2}, "camera_size", r"320x240 \(region 320x240, binning 2x1\)"),
    ({"roi": {"width": 100, "height": 50}}, "camera_size", "region 100x50"),
])
def test_unusable_camera_info_is_refused(changes, reason, words):
    with pytest.raises(BadInput, match=words) as caught:
        read_camera(make_info(**changes), 320, 240)
    assert caught.value.reason == reason


@pytest.mark.parametrize(("image", "info", "first_px", "step"), [
    ((160, 120), {"binning_x": 2, "binning_y": 2}, (0, 0), 2),
    ((160, 120), {}, (0, 0), 2),
    ((640, 480), {}, (0, 0), 0.5),
    ((100, 60), {"roi": {"x_offset": 40, "y_offset": 30, "width": 100, "height": 60}},
     (40, 30), 1),
    ((50, 30), {"roi": {"x_offset": 40, "y_offset": 30, "width": 100, "height": 60},
                "binning_x": 2, "binning_y": 2}, (40, 30), 2),
])
def test_a_part_or_a_smaller_image_sees_the_same_points(image, info, first_px, step):
    """A pixel's left edge lies where it lies in the full image."""
    full, part = read_camera(make_info(), 320, 240), read_camera(make_info(**info), *image)
    assert (part.width, part.height) == image
    x, y = 0.1, -0.2
    u, v = full.fx * x + full.cx + 0.5, full.fy * y + full.cy + 0.5
    assert part.fx * x + part.cx + 0.5 == pytest.approx((u - first_px[0]) / step)
    assert part.fy * y + part.cy + 0.5 == pytest.approx((v - first_px[1]) / step)


def test_the_second_camera_of_a_stereo_pair_is_refused():
    shifted = projection()
    shifted[3] = -33.6  # fx times the baseline
    with pytest.raises(BadInput, match=r"-33\.6.*left camera") as caught:
        read_camera(make_info(p=shifted), 320, 240)
    assert caught.value.reason == "right_camera"


def test_only_an_image_that_the_driver_scaled_counts_as_rescaled():
    assert is_rescaled(make_info(), 160, 120)
    assert is_rescaled(make_info(roi={"width": 320, "height": 240}), 160, 120)
    assert not is_rescaled(make_info(), 320, 240)
    assert not is_rescaled(make_info(binning_x=2, binning_y=2), 160, 120)


def test_camera_info_of_ros_1_has_capital_letters():
    info = make_info(p=projection())
    old = SimpleNamespace(**{name.upper() if name in "kprd" else name: value
                             for name, value in vars(info).items()})
    assert read_camera(old, 320, 240) == read_camera(info, 320, 240)
    assert not is_distorted(old)


def raw_pixels(points, model, turn=np.eye(3)):
    """Where the raw camera sees points that are given in the rectified frame, (N, 2)."""
    lens = cv2.fisheye if model == "equidistant" else cv2
    inverse, _ = cv2.Rodrigues(turn.T)
    seen, _ = lens.projectPoints(points[:, None], inverse, np.zeros(3), K, np.array(BENT[model]))
    return seen[:, 0]


@pytest.mark.parametrize("turn", [np.eye(3), TURN], ids=["straight", "turned"])
@pytest.mark.parametrize("model", BENT)
def test_points_move_to_where_the_pinhole_camera_sees_them(model, turn):
    rng = np.random.default_rng(0)
    points = rng.uniform([-1, -0.7, 2], [1, 0.7, 6], (200, 3))
    pixels = np.rint(raw_pixels(points, model, turn)).astype(int)
    raw_depth = (points @ turn)[:, 2]  # planar depth of the camera that is not turned
    sparse = np.zeros((240, 320), np.float32)
    sparse[pixels[:, 1], pixels[:, 0]] = raw_depth
    rectifier = Rectifier(make_info(model=model, d=BENT[model], r=turn, p=projection()), 320, 240)
    moved, camera = rectifier.sparse(sparse), rectifier.camera
    u = camera.fx * points[:, 0] / points[:, 2] + camera.cx
    v = camera.fy * points[:, 1] / points[:, 2] + camera.cy
    found = 0
    for col, row, z in zip(u, v, points[:, 2], strict=True):
        # The raw pixel was a rounding away from the true place, and lenses stretch.
        near = moved[int(row + 0.5) - 1:int(row + 0.5) + 2, int(col + 0.5) - 1:int(col + 0.5) + 2]
        found += np.isclose(near[near > 0], z, rtol=0.01).any()
    assert found > 190  # a few share a pixel with a nearer one
    assert not rectifier.sparse(np.zeros_like(sparse)).any()


@pytest.mark.parametrize(("row", "col"), [(3, 5), (4, 310), (230, 8), (235, 316), (120, 2)])
def test_points_find_their_place_in_a_lens_that_bends_much(row, col):
    k = np.array([[250, 0, 160], [0, 250, 120], [0, 0, 1.0]])
    bent, view = np.array([-0.37, 0.2, 0.002, 0.001, -0.07]), (150, 150, 160, 120)
    raw_x, raw_y = cv2.initUndistortRectifyMap(
        k, bent, np.eye(3), Camera(*view, 320, 240).matrix(), (320, 240),
        cv2.CV_32FC1)  # exact: it goes from the rectified to the raw pixels
    nearest = np.hypot(raw_x - col, raw_y - row).argmin()
    sparse = np.zeros((240, 320), np.float32)
    sparse[row, col] = 3
    rectifier = Rectifier(make_info(k=k, d=bent, p=projection(*view)), 320, 240)
    (there,) = np.argwhere(rectifier.sparse(sparse))
    assert np.abs(there - np.unravel_index(nearest, sparse.shape)).max() <= 1


def test_an_ideal_fisheye_is_no_pinhole():
    info = make_info(model="equidistant", d=[0, 0, 0, 0], p=projection())
    assert is_distorted(info) and not is_distorted(make_info(d=[0, 0, 0, 0, 0]))
    sparse = np.zeros((240, 320), np.float32)
    sparse[118, 310] = 2  # 150 px are half a radian, of which the tangent is 0.546
    (there,) = np.argwhere(Rectifier(info, 320, 240).sparse(sparse))
    assert there[1] == round(280 * np.tan(0.5) + 158)


@pytest.mark.parametrize("model", BENT)
def test_straight_edges_of_a_raw_image_become_straight(model):
    """A wall of two colours whose border is a vertical line in the world."""
    rows, cols = np.mgrid[:240, :320]
    lens = cv2.fisheye if model == "equidistant" else cv2
    pixels = np.stack([cols, rows], axis=-1).reshape(-1, 1, 2).astype(float)
    world_x = lens.undistortPoints(pixels, K, np.array(BENT[model]))[:, 0, 0].reshape(240, 320)
    raw = np.where(world_x[..., None] < 0.4, np.uint8(0), np.uint8(255)).repeat(3, axis=2)
    rectifier = Rectifier(make_info(model=model, d=BENT[model], p=projection()), 320, 240)
    straight = rectifier.image(raw)[40:200, :, 0] > 127
    border = straight.argmax(axis=1)
    assert abs(border - (rectifier.camera.fx * 0.4 + rectifier.camera.cx)).max() < 1.5
    bent = (raw[40:200, :, 0] > 127).argmax(axis=1)
    assert np.ptp(bent) > np.ptp(border)


def test_an_ideal_camera_is_left_as_it_is():
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (240, 320, 3), dtype=np.uint8)
    sparse = np.where(rng.random((240, 320)) < 0.05, rng.uniform(1, 9, (240, 320)), 0)
    sparse = sparse.astype(np.float32)
    rectifier = Rectifier(make_info(d=[], r=np.zeros(9)), 320, 240)
    assert np.array_equal(rectifier.image(image), image)
    assert np.allclose(rectifier.sparse(sparse), sparse, rtol=1e-6)


@pytest.mark.parametrize(("model", "numbers"), [("mei", 5), ("equidistant", 5), ("plumb_bob", 3)])
def test_an_unknown_lens_is_refused_by_name(model, numbers):
    with pytest.raises(BadInput, match=f"'{model}' with {numbers} numbers.*rectify") as caught:
        Rectifier(make_info(model=model, d=[0.1] * numbers), 320, 240)
    assert caught.value.reason == "distortion_model"

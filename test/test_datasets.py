from __future__ import annotations

import json
import shutil

import cv2
import numpy as np
import pytest
from PIL import Image

from sdim_ros.core.types import BadInput
from sdim_ros.tools import sampling
from sdim_ros.tools.datasets.catalogue import open_source
from sdim_ros.tools.datasets.files import read_depth, read_image, write_depth_png
from sdim_ros.tools.datasets.frames import frame_names
from sdim_ros.tools.datasets.frames_folder import FramesFolder
from sdim_ros.tools.datasets.motorcycle import motorcycle_stereo
from sdim_ros.tools.training.data_recipe import SourceRecipe

CAMERA = {"fx": 20.0, "fy": 20.0, "cx": 8.0, "cy": 6.0, "width": 16, "height": 12}


@pytest.fixture
def folder(tmp_path):
    """Frame a has sparse and gt, frame b only gt."""
    for kind in ("rgb", "sparse", "gt"):
        (tmp_path / kind).mkdir()
    for name in "ab":
        image = np.zeros((12, 16, 3), np.uint8)
        image[..., 0] = 255  # blue, as OpenCV writes
        cv2.imwrite(str(tmp_path / "rgb" / f"{name}.png"), image)
        cv2.imwrite(str(tmp_path / "gt" / f"{name}.png"), np.full((12, 16), 512, np.uint16))
    sparse = np.zeros((12, 16), np.uint16)
    sparse[3, 4] = 640
    cv2.imwrite(str(tmp_path / "sparse" / "a.png"), sparse)
    write_index(tmp_path, depth_scale=256.0, frames=[
        {"name": "a", "stamp": 0.1, "camera": CAMERA}, {"name": "b"}])
    return tmp_path


def write_index(folder, **index):
    (folder / "frames.json").write_text(json.dumps(index))


def test_a_frames_folder_gives_metres_rgb_camera_and_stamp(folder):
    a, b = FramesFolder(folder)
    assert a.sparse[3, 4] == 2.5 and np.count_nonzero(a.sparse) == 1
    assert (a.truth == 2.0).all()
    assert tuple(a.image[0, 0]) == (0, 0, 255)
    assert a.camera.cx == 8.0 and a.stamp_ns == 100_000_000
    assert b.sparse is None and b.camera is None


def test_points_come_from_sparse_and_the_reference_from_gt(folder):
    a, b = FramesFolder(folder)
    assert a.measured is a.sparse and a.reference is a.truth
    assert b.reference is b.truth
    with pytest.raises(BadInput, match="frame b has no sparse/b.png: expected one as other"):
        b.measured  # the whole reference would be given to it, and to no other


def test_points_come_from_the_reference_where_no_frame_has_a_sensor(folder):
    shutil.rmtree(folder / "sparse")
    for sample in FramesFolder(folder):
        assert sample.measured is sample.truth


def test_names_are_known_without_reading_the_frames(folder):
    (folder / "rgb" / "a.png").unlink()
    assert frame_names(FramesFolder(folder)) == ["a", "b"]
    assert frame_names([FramesFolder(folder)[1]]) == ["b"]


def test_each_frame_can_be_read_by_slice_of_every_second(folder):
    assert [sample.name for sample in FramesFolder(folder)[::2]] == ["a"]


@pytest.mark.parametrize("frames, held", [(1, 0), (2, 1), (25, 2)])
def test_the_last_tenth_of_a_folder_is_held_out_and_at_least_one_of_two(folder, frames, held):
    write_index(folder, depth_scale=256, frames=[{"name": "a"}] * frames)
    source = open_source(SourceRecipe("frames", folder=folder))
    assert source.held_out.tolist() == [False] * (frames - held) + [True] * held


@pytest.mark.parametrize("spoil, expected", [
    (lambda f: (f / "frames.json").unlink(), "frames.json does not exist"),
    (lambda f: (f / "frames.json").write_text("{"), "not valid JSON"),
    (lambda f: write_index(f, depth_scale=0, frames=[{"name": "a"}]), "depth_scale is 0"),
    (lambda f: write_index(f, depth_scale=256, frames=[]), '"frames"'),
    (lambda f: (f / "rgb" / "a.png").unlink(), "a.jpg"),
    (lambda f: (f / "rgb" / "a.png").write_text("no image"), "not an image"),
    (lambda f: cv2.imwrite(str(f / "gt" / "a.png"), np.zeros((12, 16), np.uint8)), "16 bits"),
    (lambda f: cv2.imwrite(str(f / "gt" / "a.png"), np.zeros((6, 8), np.uint16)), "8x6"),
    (lambda f: write_index(f, depth_scale=1, frames=[{"name": "a", "camera": {"fx": 1}}]),
     "camera of frame a"),
    (lambda f: write_index(f, depth_scale=1, frames=[{"name": "a", "stamp": None}]),
     "stamp of frame a is None"),
    (lambda f: write_index(f, depth_scale=1, frames=[{"name": "a", "stamp_ns": 1.5}]),
     "stamp_ns of frame a is 1.5"),
])
def test_a_spoilt_folder_is_refused_with_the_file_and_what_was_expected(folder, spoil, expected):
    spoil(folder)
    with pytest.raises(BadInput, match=str(folder)) as error:
        list(FramesFolder(folder))
    assert expected in str(error.value)


def test_a_frame_without_any_depth_says_which_files_it_needs(folder):
    (folder / "gt" / "b.png").unlink()
    with pytest.raises(BadInput, match="sparse/b.png or gt/b.png"):
        FramesFolder(folder)[1].measured


def test_depth_png_round_trip_keeps_a_millimetre_and_counts_what_is_too_far(tmp_path):
    depth = np.array([[1.234, np.nan, 65.535, 65.6]], np.float32)
    assert write_depth_png(tmp_path / "d.png", depth, 1000.0) == 1
    np.testing.assert_allclose(
        read_depth(tmp_path / "d.png", 1000.0), [[1.234, 0, 65.535, 0]], atol=5e-4)


def test_npy_depth_is_in_metres_whatever_the_scale_and_never_unpickled(tmp_path):
    np.save(tmp_path / "d.npy", np.array([[1.5, np.nan]]))
    np.testing.assert_array_equal(
        read_depth(tmp_path / "d.npy", 1000.0), np.array([[1.5, np.nan]], np.float32))
    np.save(tmp_path / "p.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(BadInput, match="p.npy"):
        read_depth(tmp_path / "p.npy", 1.0)


def test_motorcycle_has_the_depths_of_its_publication():
    sample, right = motorcycle_stereo()
    known = sample.truth[sample.truth > 0]
    assert sample.image.shape == right.shape == (500, 741, 3)
    assert known.min() == pytest.approx(2.11, abs=0.01)
    assert known.max() == pytest.approx(5.02, abs=0.01)
    assert (sample.truth > 0).mean() == pytest.approx(0.9265, abs=0.001)


DEPTH = np.where(np.arange(2000).reshape(40, 50) % 4 > 0, 2.0, 0.0).astype(np.float32)


@pytest.mark.parametrize("amount, count", [("500", 500), ("20%", 300), ("9999", 1500)])
def test_the_wanted_number_of_known_pixels_is_drawn(amount, count):
    sparse = sampling.sample_points(DEPTH, amount, 0)
    assert np.count_nonzero(sparse) == count
    assert (sparse[sparse > 0] == DEPTH[sparse > 0]).all()


def test_the_draw_is_that_of_the_published_recipe():
    drawn = np.random.default_rng(7).choice(np.flatnonzero(DEPTH), 500, replace=False)
    sparse = sampling.sample_points(DEPTH, "500", 7)
    assert set(np.flatnonzero(sparse)) == set(drawn)


@pytest.mark.parametrize("amount", ["0", "-3", "0%", "101%", "many", "1.5", ""])
def test_a_senseless_amount_is_refused(amount):
    with pytest.raises(BadInput, match="500"):
        sampling.sample_points(DEPTH, amount, 0)


def test_outliers_spoil_their_share_within_the_percentiles_and_nothing_else():
    sparse = DEPTH * np.linspace(1, 2, 50, dtype=np.float32)
    spoilt = sampling.add_outliers(sparse, "10%", 0)
    changed = spoilt != sparse
    low, high = np.percentile(sparse[sparse > 0], (10, 90))
    assert changed.sum() == 150
    assert ((spoilt > 0) == (sparse > 0)).all()
    assert low <= spoilt[changed].min() and spoilt[changed].max() <= high


def test_images_are_read_as_8_bits_in_the_order_of_their_pixels(tmp_path):
    colour = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    for name, image in (("grey", colour[..., 0]), ("clear", np.dstack([colour, colour[..., 0]]))):
        cv2.imwrite(str(tmp_path / f"{name}.png"), image)
    assert (read_image(tmp_path / "grey.png") == colour[..., :1]).all()
    assert (read_image(tmp_path / "clear.png") == colour[..., ::-1]).all()
    cv2.imwrite(str(tmp_path / "deep.png"), colour.astype(np.uint16) * 100)
    with pytest.raises(BadInput, match="deep.png is of uint16: expected 8 bits a channel"):
        read_image(tmp_path / "deep.png")
    # A note to turn it by 180 degrees, which a depth map beside it has not.
    turned = Image.Exif()
    turned[0x0112] = 3
    half = np.zeros((8, 16, 3), np.uint8)
    half[:, :8] = 255
    Image.fromarray(half).save(tmp_path / "turned.jpg", exif=turned, quality=100)
    assert read_image(tmp_path / "turned.jpg")[:, :6].min() > 200

"""Messages of one moment become one frame, whatever camera measured the depth."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

pytest.importorskip("rclpy")

import ros_process
from stereo_msgs.msg import DisparityImage
from test_transforms import MovingRobot, header

from sdim_ros.core.config import Settings, with_values
from sdim_ros.core.frame_reader import BadMessage, FrameReader, Job, Stages
from sdim_ros.ros.messages import camera_info_message, cloud_message
from sdim_ros.ros.transforms import Transforms

HEIGHT, WIDTH, TIME_NS = 96, 128, 12 * 10**9
TOPICS = {name: f"/{name}" for name in (
    "image", "camera_info", "sparse_depth", "sparse_camera_info", "points", "disparity")}


class Reader:
    """A frame reader, and what it warned of."""

    def __init__(self, buffer=None):
        self.warned = []
        self.reader = FrameReader(
            TOPICS, Transforms(buffer), lambda *text: self.warned.append(text))

    def read(self, job):
        return self.reader.read(job, Stages(0.0))

    @property
    def doubts(self):
        """Topic and reason of every warning."""
        return [(topic, reason) for topic, reason, _ in self.warned]


def job_of(info=None, sparse_info=None, settings=None, frame="camera_optical", **sparse):
    image = ros_process.stamped(ros_process.colour_image(HEIGHT, WIDTH), TIME_NS, frame)
    return Job(image, sparse, info or ros_process.camera_info(HEIGHT, WIDTH), sparse_info,
               with_values(Settings(), settings or {}), 0.0)


def cloud_in(frame, points=((0.1, 0.2, 2.0),)):
    return cloud_message(np.array(points, np.float32), None, header(frame, 12))


def depth_of(metres, frame="camera_optical"):
    return ros_process.stamped(ros_process.depth_image(metres), TIME_NS, frame)


def bent_lens():
    info = ros_process.camera_info(HEIGHT, WIDTH)
    info.d = [-0.3, 0.05, 0.0, 0.0, 0.0]
    return info


@pytest.fixture
def scattered():
    rng = np.random.default_rng(0)
    depth = np.zeros((HEIGHT, WIDTH), np.float32)
    depth.flat[rng.choice(depth.size, 100, replace=False)] = rng.uniform(1, 5, 100)
    return depth


def test_a_cloud_is_moved_by_tf_and_a_wrong_pose_is_suspected():
    """A point is given in the LiDAR's frame, and lands where TF says."""
    in_camera = np.array([[0.1, 0.2, 2.0]])
    in_lidar = MovingRobot.TURN.inv().apply(in_camera + [0, 0, 1.0])
    cloud = cloud_message(in_lidar.astype(np.float32), None, header("lidar", 12))
    reader, job = Reader(MovingRobot()), job_of(points=cloud)
    sparse = reader.read(job).frame.sparse
    k = job.info.k
    row, col = (int(k[4] * 0.2 / 2 + k[5] + 0.5), int(k[0] * 0.1 / 2 + k[2] + 0.5))
    assert np.argwhere(sparse > 0).tolist() == [[row, col]]
    assert sparse[row, col] == pytest.approx(2.0, abs=1e-5) and not reader.warned
    behind = cloud_message(-in_lidar.astype(np.float32), None, header("lidar", 12))
    reader.read(dataclasses.replace(job, sparse={"points": behind}))
    [(topic, reason, text)] = reader.warned
    assert (topic, reason) == ("/points", "few_inside") and "0 of 1 points" in text


def test_raw_depth_is_rectified_with_or_without_its_own_camera_info(scattered):
    settings = {"input.rectify": True}
    reader = Reader()
    alone = reader.read(job_of(bent_lens(), None, settings, sparse_depth=depth_of(scattered)))
    beside = reader.read(
        job_of(bent_lens(), bent_lens(), settings, sparse_depth=depth_of(scattered)))
    np.testing.assert_array_equal(alone.frame.sparse, beside.frame.sparse)
    assert not np.array_equal(alone.frame.sparse, scattered)
    assert list(camera_info_message(alone).d) == [0.0] * 5 and not reader.warned


def test_a_distorted_lens_is_mentioned_once(scattered):
    reader = Reader()
    for _ in range(3):
        reading = reader.read(job_of(bent_lens(), sparse_depth=depth_of(scattered)))
    [(topic, reason, text)] = reader.warned
    assert (topic, reason) == ("/camera_info", "distortion") and "input.rectify" in text
    np.testing.assert_array_equal(reading.frame.sparse, scattered)
    assert list(camera_info_message(reading).d) == list(bent_lens().d)


def test_depth_in_another_frame_without_intrinsics_is_doubted(scattered):
    reader = Reader()
    reader.read(job_of(sparse_depth=depth_of(scattered, "depth_optical")))
    [(topic, reason, text)] = reader.warned
    assert (topic, reason) == ("/sparse_depth", "frame")
    assert "'depth_optical'" in text and "/sparse_camera_info" in text


def test_camera_info_of_a_scaled_image_is_scaled_on_the_way_out(scattered):
    reader, info = Reader(), ros_process.camera_info(2 * HEIGHT, 2 * WIDTH)
    reading = reader.read(job_of(info, sparse_depth=depth_of(scattered)))
    out = camera_info_message(reading)
    assert (out.width, out.height) == (WIDTH, HEIGHT)
    assert out.k[0] == info.k[0] / 2
    assert [reason for _, reason, _ in reader.warned] == ["rescaled"]


def test_camera_info_of_another_frame_is_doubted_once(scattered):
    reader, info = Reader(), ros_process.camera_info(HEIGHT, WIDTH)
    for frame in ("", "camera_optical", "depth_optical", "depth_optical"):
        info.header.frame_id = frame
        reader.read(job_of(info, sparse_depth=depth_of(scattered)))
    [(topic, reason, text)] = reader.warned
    assert (topic, reason) == ("/camera_info", "frame")
    assert "'depth_optical'" in text and "'camera_optical'" in text


def test_a_missing_frame_of_the_image_is_mentioned_once(scattered):
    reader = Reader()
    for _ in range(2):
        reader.read(job_of(frame="", sparse_depth=depth_of(scattered, "")))
    assert reader.doubts == [("/image", "no_frame")]


def test_a_missing_frame_of_the_cloud_matters_only_without_extrinsics():
    pose = {"projection.extrinsics": (0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0)}
    reader = Reader(MovingRobot())
    reader.read(job_of(settings=pose, points=cloud_in("")))
    assert not reader.warned
    for _ in range(2):
        reader.read(job_of(points=cloud_in("")))
    assert reader.doubts.count(("/points", "no_frame")) == 1
    assert "projection.extrinsics" in reader.warned[0][2]


def test_a_frame_that_may_not_be_optical_is_doubted_only_where_tf_is_used(scattered):
    """Of a camera_link the z axis points up, and TF would put the points over the image."""
    reader = Reader(MovingRobot())
    pose = {"projection.extrinsics": (0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0)}
    for job in (job_of(frame="camera_link", settings=pose, points=cloud_in("lidar")),
                job_of(frame="camera_link", sparse_depth=depth_of(scattered, "camera_link")),
                job_of(frame="camera_link", points=cloud_in("camera_link")),
                job_of(frame="camera_color_optical_frame", points=cloud_in("lidar"))):
        reader.read(job)
    assert ("/image", "no_optical_frame") not in reader.doubts
    own = ros_process.camera_info(HEIGHT, WIDTH)
    for job in (job_of(frame="camera_link", points=cloud_in("lidar")),
                job_of(None, own, frame="camera_link", sparse_depth=depth_of(scattered, "tof"))):
        reader.read(job)
    assert reader.doubts.count(("/image", "no_optical_frame")) == 1
    assert "'camera_link'" in reader.warned[-1][2] and "z forward" in reader.warned[-1][2]


def disparity_of(height, width, row, col):
    disparity = np.zeros((height, width), np.float32)
    disparity[row, col] = 5.0
    return ros_process.stamped(DisparityImage(
        image=ros_process.depth_image(disparity), f=100.0, t=0.1, min_disparity=0.5,
        max_disparity=64.0), TIME_NS)


@pytest.mark.parametrize(
    ("height", "width"), [(HEIGHT // 2, WIDTH // 2), (HEIGHT // 5, WIDTH // 5)])
def test_disparity_of_smaller_images_lands_where_it_was_seen(height, width):
    sparse = Reader().read(
        job_of(disparity=disparity_of(height, width, height - 1, 3))).frame.sparse
    [(row, col)] = np.argwhere(sparse > 0)
    assert sparse[row, col] == pytest.approx(2.0)
    assert row == pytest.approx((height - 0.5) * HEIGHT / height - 0.5, abs=0.51)
    assert col == pytest.approx(3.5 * WIDTH / width - 0.5, abs=0.51)


@pytest.mark.parametrize(("height", "width"), [(HEIGHT * 3 // 4, WIDTH), (HEIGHT, WIDTH // 2)])
def test_disparity_of_another_ratio_shows_another_view_and_is_refused(height, width):
    with pytest.raises(BadMessage, match=f"{width}x{height} for an image of .*ratio") as caught:
        Reader().read(job_of(disparity=disparity_of(height, width, 1, 3)))
    assert (caught.value.topic, caught.value.reason) == ("/disparity", "size_mismatch")

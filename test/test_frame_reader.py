"""Messages of one moment become one frame, whatever camera measured the depth."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

pytest.importorskip("rclpy")

import ros_process
from test_transforms import MovingRobot, header

from sdim_ros.core.config import Settings, with_values
from sdim_ros.core.frame_reader import FrameReader, Job, Stages
from sdim_ros.ros.messages import camera_info_message, cloud_message
from sdim_ros.ros.transforms import Transforms

HEIGHT, WIDTH, TIME_NS = 96, 128, 12 * 10**9
TOPICS = {name: f"/{name}" for name in (
    "image", "camera_info", "sparse_depth", "sparse_camera_info", "points")}


class Reader:
    """A frame reader, and what it warned of."""

    def __init__(self, buffer=None):
        self.warned = []
        self.reader = FrameReader(
            TOPICS, Transforms(buffer), lambda *text: self.warned.append(text))

    def read(self, job):
        return self.reader.read(job, Stages(0.0))


def job_of(info=None, sparse_info=None, settings=None, **sparse):
    image = ros_process.stamped(ros_process.colour_image(HEIGHT, WIDTH), TIME_NS, "camera")
    return Job(image, sparse, info or ros_process.camera_info(HEIGHT, WIDTH), sparse_info,
               with_values(Settings(), settings or {}), 0.0)


def depth_of(metres, frame="camera"):
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

"""The node builds what somebody listens to, and nothing else."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("rclpy")

from ros_process import FakeCompleter, camera_info
from std_msgs.msg import Header

from sdim_ros.core.calibration import read_camera
from sdim_ros.core.config import Settings
from sdim_ros.core.frame_reader import Reading
from sdim_ros.core.topics import OUTPUTS
from sdim_ros.core.types import Frame
from sdim_ros.ros.outputs import TOPICS, Outputs

SIZE = (24, 32)


@pytest.mark.parametrize("heard", [(), ("depth/completed",), ("debug/overlay", "depth/points"),
                                   tuple(OUTPUTS)])
def test_a_message_is_built_only_for_a_listener(heard):
    sparse = np.zeros(SIZE, np.float32)
    sparse[::5, ::5] = 3
    frame = Frame(np.zeros((*SIZE, 3), np.uint8), sparse, read_camera(camera_info(), 32, 24))
    outputs = Outputs(lambda kind, topic: SimpleNamespace(
        topic=topic, get_subscription_count=lambda: int(topic in heard)), print)
    built = outputs.messages(
        Reading(frame, Header(frame_id="camera"), None), FakeCompleter(Settings()).complete(frame),
        Settings())
    assert [publisher.topic for publisher, _ in built] == [t for t in OUTPUTS if t in heard]
    assert all(isinstance(message, TOPICS[publisher.topic]) for publisher, message in built)
    assert outputs.any_listener() == bool(heard)

"""The node reports what it waits for, and outlives a worker thread that dies or hangs."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

pytest.importorskip("rclpy")

import ros_process
from conftest import PROFILE_VARIABLE, REPOSITORY
from ros_process import NodeProcess
from rosgraph_msgs.msg import Clock

FAST_REPORTS = {"diagnostics.period_s": 0.1}
IMPATIENT = {**FAST_REPORTS, "sync.warn_after_s": 1.0}
# Images of 3 MB, as a driver publishes them.
CAMERA = """
import time
import rclpy, ros_process
from rclpy.qos import qos_profile_sensor_data
rclpy.init()
publisher = rclpy.create_node("camera").create_publisher(
    ros_process.Image, "image", qos_profile_sensor_data)
image = ros_process.colour_image(1000, 1000)
for number in range(1, 10**6):
    publisher.publish(ros_process.stamped(image, number * 10**8))
    time.sleep(0.05)
"""


def sparse_image():
    return ros_process.depth_image(ros_process.sparse_depth())


def publish_until(peer, *pairs, condition, timeout_s=20.0):
    """Publish (publisher, message) under new stamps, ten times a second, until the condition."""
    def step():
        time_ns = peer.next_ns()
        for publisher, message in pairs:
            publisher.publish(ros_process.stamped(message, time_ns))
        peer.spin_until(lambda: False, 0.1)
        return condition()

    return peer.spin_until(step, timeout_s)


def dropped(peer, reason):
    return int(peer.diagnosed("inputs").get(f"dropped: {reason}", 0))


def test_missing_camera_info_is_reported_by_topic_and_frames_wait_for_it(peer):
    with NodeProcess(parameters=IMPATIENT) as node:
        assert publish_until(
            peer, (peer.image, ros_process.colour_image()), (peer.sparse, sparse_image()),
            condition=lambda: "/camera_info: no message" in node.log()
            and dropped(peer, "no_camera_info") > 0), node.log()
        assert peer.results == []
        peer.warm_up()


def test_first_pair_waits_for_a_camera_info_that_comes_after_it(peer):
    with NodeProcess(parameters=FAST_REPORTS) as node:
        assert publish_until(
            peer, (peer.image, ros_process.colour_image()), (peer.sparse, sparse_image()),
            condition=lambda: int(peer.diagnosed("sync").get("pairs", 0)) > 0), node.log()
        assert peer.results == []
        peer.info.publish(ros_process.camera_info())
        assert peer.spin_until(lambda: peer.results), node.log()


def test_silent_topic_is_named(peer):
    with NodeProcess(parameters=IMPATIENT) as node:
        assert publish_until(
            peer, (peer.info, ros_process.camera_info()), (peer.image, ros_process.colour_image()),
            condition=lambda: re.search(
                "nothing arrives on /sparse_depth/image or /points or /disparity;",
                node.log())), node.log()
        assert peer.spin_until(lambda: peer.diagnosed("sync").get("level") == 1)
        peer.warm_up()
        assert peer.spin_until(lambda: peer.diagnosed("sync").get("level") == 0)


def test_clock_that_jumps_back_empties_the_queues(peer):
    clock = peer.node.create_publisher(Clock, "/clock", 10)

    def tick(seconds):
        message = Clock()
        message.clock.sec = seconds
        clock.publish(message)

    def resets():
        return int(peer.diagnosed("sync").get("resets", 0))

    with NodeProcess(parameters={**FAST_REPORTS, "use_sim_time": True}) as node:
        peer.warm_up()  # diagnostics and timers go on without a clock
        assert peer.spin_until(lambda: (tick(100), peer.spin_until(lambda: False, 0.1),
                                        clock.get_subscription_count())[-1]), node.log()
        before = resets()
        tick(101)
        tick(5)
        assert peer.spin_until(lambda: resets() == before + 1), node.log()
        assert peer.result_of(peer.send_good()) is not None


def test_dead_worker_is_restarted_and_too_many_deaths_end_the_node_with_3(peer):
    with NodeProcess(parameters={**FAST_REPORTS, "worker.max_restarts_per_minute": 1}) as node:
        peer.warm_up()
        peer.send(ros_process.colour_image(first=ros_process.DIE), sparse_image())
        assert peer.spin_until(lambda: peer.diagnosed("worker").get("level") == 2), node.log()
        assert peer.result_of(peer.send_good()) is not None, node.log()
        peer.send(ros_process.colour_image(first=ros_process.DIE), sparse_image())
        assert node.process.wait(10) == 3
        assert "worker.max_restarts_per_minute" in node.log()


def test_a_lost_gpu_ends_the_node_with_3_so_that_launch_starts_a_new_one(peer):
    with NodeProcess(parameters=FAST_REPORTS) as node:
        peer.warm_up()
        peer.send(ros_process.colour_image(first=ros_process.LOSE), sparse_image())
        assert node.process.wait(10) == 3
        assert "lose its GPU; giving up" in node.log()


def test_messages_lost_in_transport_are_named_with_their_number_and_the_remedy(peer):
    """The camera's process has Fast DDS's default segment, smaller than one of its images."""
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY / "test")}
    del environment[PROFILE_VARIABLE]
    with NodeProcess(parameters=FAST_REPORTS) as node:
        peer.warm_up()
        camera = subprocess.Popen([sys.executable, "-c", CAMERA], env=environment)
        try:
            assert peer.spin_until(lambda: dropped(peer, "lost_in_transport") >= 20, 20), node.log()
        finally:
            camera.kill()
            camera.wait()
        lines = re.findall(r"/image: messages lost on the way here: \d+, expected none; .*"
                           "FASTDDS_DEFAULT_PROFILES_FILE.*fastdds_shm.xml", node.log())
        assert lines and len(lines) < 20  # now and then, not for each


def test_stamps_of_the_future_are_doubted_and_still_used(peer):
    with NodeProcess(parameters=FAST_REPORTS) as node:
        peer.warm_up()
        later_ns = peer.node.get_clock().now().nanoseconds + 3600 * 10**9
        sent = peer.send(ros_process.colour_image(), sparse_image(), time_ns=later_ns)
        assert peer.result_of(sent) is not None
        assert re.search("/image: stamp of 3[56]\\d\\d s in the future", node.log()), node.log()


def test_a_second_node_of_the_same_name_is_reported(peer):
    with NodeProcess() as node, NodeProcess():
        assert peer.spin_until(
            lambda: "/completion_node: another node has this name" in node.log(), 20), node.log()


def test_hung_worker_is_replaced(peer):
    parameters = {**FAST_REPORTS, "worker.watchdog_s": 0.3}
    with NodeProcess(parameters=parameters, FAKE_DELAY_S="1.5") as node:
        assert publish_until(
            peer, (peer.info, ros_process.camera_info()), (peer.sparse, sparse_image()),
            (peer.image, ros_process.colour_image()),
            condition=lambda: dropped(peer, "hung") > 0), node.log()
        assert re.search(
            "frame lost: no sign of life for .* every 0.3 s; raise worker.watchdog_s", node.log())
        # The abandoned thread ends at its next beat, which is no new problem.
        peer.spin_until(lambda: False, 2.0)
        assert "please report" not in node.log() and dropped(peer, "model_failed") == 0


def test_frame_longer_than_the_watchdog_is_served_while_it_makes_progress(peer):
    parameters = {**FAST_REPORTS, "worker.watchdog_s": 1.0}
    with NodeProcess(parameters=parameters, FAKE_DELAY_S="0.25", FAKE_STEPS="12") as node:
        peer.warm_up()
        assert dropped(peer, "hung") == 0, node.log()
        assert peer.spin_until(lambda: int(peer.diagnosed("worker").get("restarts", -1)) == 0)

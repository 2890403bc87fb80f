"""A ROS graph of its own for every test run, with the shipped shared-memory profile."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
# Several processes run side by side: each with one thread, read when PyTorch loads.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ["OMP_NUM_THREADS"] = "1"
# Each process of a run has its own. Domains over 101 use ports that Linux gives away to others;
# those over 50 are of live runs.
RUN = int(os.environ.get("PYTEST_XDIST_TESTRUNUID", f"{os.getpid():x}"), 16)
WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
os.environ["ROS_DOMAIN_ID"] = str(1 + (RUN + WORKER) % 50)
os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
LOGS = tempfile.TemporaryDirectory(prefix="sdim_ros_log_")
os.environ["ROS_LOG_DIR"] = LOGS.name
# Read once, when the first participant is made; Fast DDS 2 of Jazzy has another name for it.
PROFILE_VARIABLE = ("FASTRTPS_DEFAULT_PROFILES_FILE" if os.environ.get("ROS_DISTRO") == "jazzy"
                    else "FASTDDS_DEFAULT_PROFILES_FILE")
os.environ[PROFILE_VARIABLE] = str(REPOSITORY / "config" / "fastdds_shm.xml")

# Their tests take longest. Begun last, one of these files would leave the other processes idle.
LONG_FILES = (
    "test_parallel.py", "test_node.py", "test_train.py", "test_node_adaptation.py",
    "test_adapt.py", "test_node_health.py", "test_node_inputs.py", "test_live_replay.py",
    "test_evaluate_runs.py", "test_lifecycle.py", "test_packaging.py", "test_throughput.py",
    "test_scene_cache.py", "test_lora.py", "test_node_bag.py", "test_quality.py",
    "test_node_memory.py", "test_node_listeners.py", "test_demo.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The files that take longest come first; ``make test`` hands out files in this order."""
    place = {name: number for number, name in enumerate(LONG_FILES)}
    items.sort(key=lambda item: place.get(item.path.name, len(place)))


@pytest.fixture
def peer():
    """The other side of the node's topics and services, in this process."""
    pytest.importorskip("rclpy")
    from ros_process import Peer

    with Peer() as opened:
        yield opened


@pytest.fixture
def one_thread():
    """As the node's process has: sums of more threads are rounded otherwise."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)

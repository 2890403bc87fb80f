"""A ROS graph of its own for every test run, with the shipped shared-memory profile."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
# As many processes as cores run side by side: each with one thread, read when PyTorch loads.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ["OMP_NUM_THREADS"] = "1"
# Domains over 101 use ports that Linux gives away to others; those over 50 are of live runs.
os.environ["ROS_DOMAIN_ID"] = str(1 + os.getpid() % 50)
os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
LOGS = tempfile.TemporaryDirectory(prefix="sdim_ros_log_")
os.environ["ROS_LOG_DIR"] = LOGS.name
# Read once, when the first participant is made: by Fast DDS 3, or by Fast DDS 2.
PROFILE_VARIABLES = ("FASTDDS_DEFAULT_PROFILES_FILE", "FASTRTPS_DEFAULT_PROFILES_FILE")
os.environ |= dict.fromkeys(PROFILE_VARIABLES, str(REPOSITORY / "config" / "fastdds_shm.xml"))


@pytest.fixture
def peer():
    """The other side of the node's topics and services, in this process."""
    pytest.importorskip("rclpy")
    from ros_process import Peer

    with Peer() as opened:
        yield opened

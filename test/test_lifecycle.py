"""The transitions over their services: up and down without end, and configure that may fail."""

from __future__ import annotations

import pytest

pytest.importorskip("rclpy")

from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from ros_process import NodeProcess
from std_srvs.srv import SetBool


def test_twenty_times_up_and_down_and_it_still_works(peer, tmp_path):
    with NodeProcess(parameters={"autostart": False}) as node:
        for _ in range(20):
            for transition in ("configure", "activate", "deactivate", "cleanup"):
                assert peer.transition(transition), (transition, node.log())
        assert peer.state() == "unconfigured"
        assert peer.set_parameters(model__checkpoint=str(tmp_path)).successful
        assert peer.transition("configure") and peer.transition("activate")
        peer.warm_up()
        assert node.stop() == 0, node.log()


def test_states_are_those_of_the_documentation(peer):
    with NodeProcess(parameters={"autostart": False}):
        assert peer.state() == "unconfigured"
        assert peer.node.count_publishers("depth/completed") == 0
        assert peer.transition("configure")
        assert peer.state() == "inactive"
        assert peer.node.count_subscribers("image") == 0
        assert peer.transition("activate")
        assert peer.state() == "active"
        peer.warm_up()
        assert peer.transition("deactivate")
        assert peer.spin_until(lambda: peer.node.count_subscribers("image") == 0)
        assert peer.transition("activate")
        peer.warm_up()
        assert peer.transition("active_shutdown")
        assert peer.state() == "finalized"


def test_who_disables_an_inactive_node_finds_it_disabled_when_it_is_active(peer):
    def enable(wanted):
        return peer.call(SetBool, "/completion_node/enable", SetBool.Request(data=wanted)).success

    reports = {"autostart": False, "diagnostics.period_s": 0.1}
    with NodeProcess(parameters=reports) as node:
        assert peer.transition("configure") and enable(False) and peer.transition("activate")
        assert peer.spin_until(
            lambda: "disabled" in peer.diagnosed("sync").get("message", "")), node.log()
        assert peer.node.count_subscribers("image") == 0
        assert enable(True)
        peer.warm_up()


def test_an_impossible_transition_changes_nothing_or_ends_the_process(peer):
    with NodeProcess(parameters={"autostart": False}) as node:
        assert peer.state() == "unconfigured"
        client = peer.node.create_client(ChangeState, "/completion_node/change_state")
        assert peer.spin_until(client.service_is_ready)
        client.call_async(ChangeState.Request(
            transition=Transition(id=Transition.TRANSITION_ACTIVATE)))
        peer.spin_until(lambda: node.process.poll() is not None, 2.0)
        if node.process.poll() is None:
            assert peer.state() == "unconfigured"
            assert peer.transition("configure") and peer.transition("activate")
            peer.warm_up()
        else:  # rclpy before Kilted raises; what counts is that the launch file can respawn it
            assert node.process.returncode == 1


def test_deactivate_during_a_frame_discards_its_result(peer):
    with NodeProcess(FAKE_DELAY_S="1.0", parameters={"diagnostics.period_s": 0.1}) as node:
        peer.warm_up()
        assert peer.worker_is("idle")
        sent = peer.send_good()
        assert peer.worker_is("busy"), node.log()
        assert peer.transition("deactivate")
        assert peer.transition("activate")
        peer.warm_up()
        assert peer.result_of(sent, timeout_s=0) is None


def test_bad_checkpoint_fails_configure_by_name_and_a_good_one_works_later(peer, tmp_path):
    with NodeProcess(parameters={"model.checkpoint": "/no/such/folder"}) as node:
        assert peer.spin_until(lambda: "cannot configure" in node.log(), 20)
        assert "checkpoint /no/such/folder: no such folder" in node.log()
        assert peer.state() == "unconfigured"
        assert peer.spin_until(lambda: peer.diagnosed("model").get("level") == 2)
        assert not peer.transition("configure")
        assert peer.set_parameters(model__checkpoint=str(tmp_path)).successful
        assert peer.transition("configure") and peer.transition("activate")
        peer.warm_up()
        assert "Traceback" not in node.log()


def test_node_is_renamed_and_remapped_like_any_other(peer):
    remapped = ("-r", "__ns:=/front", "-r", "image:=/image", "-r", "camera_info:=/camera_info",
                "-r", "sparse_depth/image:=/sparse_depth/image", "-r", "points:=/points",
                "-r", "depth/completed:=/depth/completed")
    with NodeProcess(*remapped):
        peer.warm_up()
        assert peer.spin_until(lambda: peer.node.count_publishers("/front/depth/points") == 1)

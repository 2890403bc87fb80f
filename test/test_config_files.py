"""The files in config/ name what the node has, and nothing else."""

from __future__ import annotations

import ast
import json
import re
from xml.etree import ElementTree

import pytest
import yaml
from conftest import REPOSITORY

from sdim_ros.core.config import Settings, with_values
from sdim_ros.core.topics import INPUTS, OUTPUTS

CONFIG = REPOSITORY / "config"
RIGS = ("realsense", "lidar_camera", "stereo")
# What is heard only where the parameters or the machine say so.
OPTIONAL = {"/image/compressed", "/sparse_depth/image/compressedDepth", "/tf", "/tf_static",
            "/clock", "/parameter_events"}


def flat(tree, prefix=""):
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


@pytest.mark.parametrize("name", RIGS)
def test_the_parameters_of_every_rig_are_known_and_in_range(name):
    text = (CONFIG / f"{name}.yaml").read_text()
    given = dict(flat(yaml.safe_load(text)["/**"]["ros__parameters"]))
    assert given and with_values(Settings(), given) != Settings()
    arguments = set(re.findall(r"(\w+):=/", text))
    described = (REPOSITORY / "launch" / "completion.launch.py").read_text()
    assert arguments and all(f'"{argument}":' in described for argument in arguments)


def constant(file, name):
    """What a launch file, which needs ROS to be imported, assigns to a name."""
    module = ast.parse((REPOSITORY / "launch" / file).read_text())
    return next(ast.literal_eval(line.value) for line in module.body
                if isinstance(line, ast.Assign) and line.targets[0].id == name)


def test_the_launch_files_know_the_topics_of_the_node():
    assert constant("completion.launch.py", "INPUTS") == INPUTS
    assert set(constant("replay.launch.py", "RECORDED")) == {*OUTPUTS, "/diagnostics"}


def test_the_costmap_example_reads_the_cloud():
    text = yaml.safe_load((CONFIG / "nav2_costmap.yaml").read_text())
    layer = text["local_costmap"]["local_costmap"]["ros__parameters"]["voxel_layer"]
    assert layer[layer["observation_sources"]]["topic"] == "/depth/points"


def test_the_manager_of_nav2_waits_for_no_bond_of_the_node():
    text = yaml.safe_load((CONFIG / "nav2_costmap.yaml").read_text())
    manager = text["lifecycle_manager_depth"]["ros__parameters"]
    assert manager["node_names"] == ["completion_node"] and manager["bond_timeout"] == 0.0


def test_rviz_shows_topics_that_exist_by_displays_of_their_type():
    known = {**OUTPUTS, INPUTS["image"]: "Image"}
    described = yaml.safe_load((CONFIG / "completion.rviz").read_text())
    displays = [d for d in described["Visualization Manager"]["Displays"] if "Topic" in d]
    assert len(displays) == 5
    for display in displays:
        kind = known[display["Topic"]["Value"]]
        assert display["Class"] == f"rviz_default_plugins/{kind}"
        wanted = "Reliable" if display["Topic"]["Value"] in OUTPUTS else "Best Effort"
        assert display["Topic"]["Reliability Policy"] == wanted


def test_the_foxglove_layout_shows_topics_that_exist():
    text = (CONFIG / "foxglove_layout.json").read_text()
    panels = set(json.loads(text)["configById"])
    shown = set(re.findall(r'"/((?:depth|debug)/\w+)"', text))
    assert shown and shown <= set(OUTPUTS)
    layout = json.dumps(json.loads(text)["layout"])
    assert set(re.findall(r'"(\w+!\w+)"', layout)) == panels


def test_the_sros2_policy_lists_exactly_the_interfaces_of_the_node(peer):
    from ros_process import NodeProcess

    profile = ElementTree.parse(CONFIG / "sros2_policy.xml").find(".//profile")

    def listed(path):
        names = {item.text for item in profile.findall(path)}
        return {name.replace("~", "/completion_node") if name[0] == "~"
                else "/" + name.lstrip("/") for name in names}

    def found():
        """What the graph knows by now; a node is discovered after its topics, piece by piece."""
        asked = ("completion_node", "/")
        node = peer.node
        try:
            return [{name for name, _ in ask(*asked)} for ask in (
                node.get_subscriber_names_and_types_by_node,
                node.get_publisher_names_and_types_by_node,
                node.get_service_names_and_types_by_node)]
        except RuntimeError:  # not even its name is known
            return [set(), set(), set()]

    with NodeProcess():
        peer.warm_up()
        wanted = [listed(f"topics[@{kind}='ALLOW']/topic") for kind in ("subscribe", "publish")]
        wanted.append(listed("services[@reply='ALLOW']/service"))
        peer.spin_until(lambda: found()[1:] == wanted[1:] and wanted[0] - found()[0] <= OPTIONAL)
        heard, told, served = found()
    assert heard <= wanted[0] and wanted[0] - heard <= OPTIONAL
    assert (told, served) == (wanted[1], wanted[2])

"""Parameters are the settings of the core: declared with ranges, set all or none."""

from __future__ import annotations

import dataclasses

import pytest
import yaml

pytest.importorskip("rclpy")

import rclpy
from conftest import REPOSITORY
from rclpy.parameter import Parameter

from sdim_ros.core.config import Settings, leaves, with_values
from sdim_ros.core.types import BadSetting
from sdim_ros.ros.parameters import NodeParameters, parameter_file

FILE = REPOSITORY / "config" / "completion.yaml"
EXTRINSICS = [0.1, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0]


class Owner:
    """A node with parameters, given on a command line."""

    def __init__(self, *arguments: str, configured: bool = False) -> None:
        self.context = rclpy.Context()
        rclpy.init(context=self.context, args=["--ros-args", *arguments])
        self.node = rclpy.create_node("owner", context=self.context)
        self.configured, self.changes = configured, []
        self.parameters = NodeParameters(
            self.node, lambda: self.configured, self.changes.append)

    def set(self, **values):
        return self.node.set_parameters_atomically([
            Parameter(name.replace("__", "."), value=value) for name, value in values.items()])


@pytest.fixture
def owner():
    made = []

    def make(*arguments, **options):
        made.append(Owner(*arguments, **options))
        return made[-1]

    yield make
    for one in made:
        one.node.destroy_node()
        rclpy.shutdown(context=one.context)


def test_parameter_file_is_the_generated_one():
    assert FILE.read_text() == parameter_file(), (
        "run: python -m sdim_ros.ros.parameters > config/completion.yaml")


def test_parameter_file_holds_every_default():
    tree = yaml.safe_load(FILE.read_text())["/**"]["ros__parameters"]
    for leaf in leaves(Settings()):
        value = tree
        for part in leaf.name.split("."):
            value = value[part]
        assert value == (list(leaf.value) if isinstance(leaf.value, tuple) else leaf.value)


def test_parameter_file_is_accepted_and_gives_the_defaults(owner):
    assert owner("--params-file", str(FILE)).parameters.settings == Settings()


def test_every_setting_is_declared_with_description_and_range(owner):
    node = owner().node
    for leaf in leaves(Settings()):
        described = node.describe_parameter(leaf.name)
        assert described.description == leaf.description
        ranges = list(described.integer_range) + list(described.floating_point_range)
        if leaf.low is not None:
            assert (ranges[0].from_value, ranges[0].to_value) == (leaf.low, leaf.high)
        for choice in leaf.choices or ():
            assert choice in described.additional_constraints


def test_start_values_of_every_type_reach_the_settings(owner):
    settings = owner(
        "-p", "queries.budget:=700", "-p", "sync.slop_s:=0.2", "-p", "model.device:=cpu",
        "-p", "autostart:=false", "-p", f"projection.extrinsics:={EXTRINSICS}",
    ).parameters.settings
    assert settings == with_values(Settings(), {
        "queries.budget": 700, "sync.slop_s": 0.2, "model.device": "cpu", "autostart": False,
        "projection.extrinsics": tuple(EXTRINSICS)})


def test_all_bad_start_values_are_listed_at_once(owner):
    with pytest.raises(BadSetting) as caught:
        owner("-p", "queries.budget:=-1", "-p", "fill.method:=magic", "-p", "sync.slop_s:=fast",
              "-p", "projection.extrinsics:=[1.0, 2.0]", "-p", "input.min_depth_m:=2000.0")
    for part in ("queries.budget", "-1", "fill.method", "magic", "sync.slop_s", "fast",
                 "projection.extrinsics", "expected 7", "input.min_depth_m", "2000"):
        assert part in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("given", "expected"), [
    ("sync.slop_s:=1", "sync.slop_s=1: ROS takes it with a decimal point alone, 1.0"),
    ("projection.extrinsics:=[0, 0, 0, 0, 0, 0, 1]", "points alone, [0.0, 0.0, 0.0, 0.0, 0.0, 0.0,"),
    ("queries.budget:=many", "queries.budget='many': expected")])
def test_what_ros_refuses_by_its_type_is_told_with_the_remedy(owner, given, expected):
    with pytest.raises(BadSetting) as caught:
        owner("-p", given)
    assert expected in str(caught.value) and str(caught.value).count(given.partition(":")[0]) == 1


def test_a_good_set_swaps_the_whole_settings(owner):
    one = owner()
    before = one.parameters.settings
    assert one.set(queries__budget=900, output__encoding="16UC1",
                   projection__extrinsics=EXTRINSICS).successful
    expected = with_values(before, {
        "queries.budget": 900, "output.encoding": "16UC1",
        "projection.extrinsics": tuple(EXTRINSICS)})
    assert one.parameters.settings == expected
    assert one.changes == [expected]
    assert before == Settings()


@pytest.mark.parametrize(("values", "words"), [
    ({"queries__budget": -5}, "queries.budget"),
    ({"queries__budget": 1.5}, "type"),
    ({"output__encoding": "8UC1"}, "expected one of 32FC1, 16UC1"),
    ({"input__min_depth_m": 300.0}, "must be smaller"),
    ({"projection__extrinsics": [1.0] * 7}, "unit quaternion"),
    ({"queries__budget": 900, "fill__method": "magic"}, "fill.method='magic'"),
])
def test_a_bad_set_is_rejected_with_a_reason_and_changes_nothing(owner, values, words):
    one = owner()
    result = one.set(**values)
    assert not result.successful
    assert words in result.reason
    assert one.parameters.settings == Settings() and one.changes == []
    for leaf in leaves(Settings()):
        if leaf.value != ():
            assert one.node.get_parameter(leaf.name).value == leaf.value


def test_fixed_settings_change_only_while_unconfigured(owner):
    one = owner(configured=True)
    result = one.set(model__checkpoint="/else")
    assert not result.successful and "model.checkpoint" in result.reason
    assert "cleanup" in result.reason
    assert one.set(queries__budget=5).successful
    one.configured = False
    assert one.set(model__checkpoint="/else").successful
    assert one.parameters.settings.model == dataclasses.replace(
        Settings().model, checkpoint="/else")


def test_unknown_names_are_reported(owner, capfd):
    of_image = "qos_overrides./image.subscription"
    wrong = ["qos_overrides./imge.subscription.depth", f"{of_image}.deadline",
             f"{of_image}.reliabilty", "qos_overrides.image.subscription.depth", "queries.buget"]
    good = [f"{of_image}.depth", "qos_overrides./image/compressed.subscription.depth",
            "qos_overrides./depth/completed.publisher.depth", "qos_overrides./tf.subscription.depth"]
    owner(*(word for name in wrong + good for word in ("-p", f"{name}:=5")),
          "-p", "use_sim_time:=false")
    logged = capfd.readouterr().err
    assert f"unknown parameters are ignored: {', '.join(sorted(wrong))};" in logged

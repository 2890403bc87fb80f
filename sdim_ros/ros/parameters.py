"""The settings of the core as ROS parameters: declared, described, checked and swapped as a whole.

``python -m sdim_ros.ros.parameters > config/completion.yaml`` writes the parameter file anew.
"""

from __future__ import annotations

import json
import textwrap
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rcl_interfaces.msg import (
    FloatingPointRange, IntegerRange, ParameterDescriptor, SetParametersResult)
from rclpy.exceptions import InvalidParameterTypeException, InvalidParameterValueException
from rclpy.node import Node
from rclpy.parameter import Parameter

from sdim_ros.core.config import Setting, Settings, leaves, with_values
from sdim_ros.core.topics import INPUTS, OUTPUTS, TRANSPORTS
from sdim_ros.core.types import BadSetting
from sdim_ros.ros import qos_overrides

# What rclpy itself reads from a parameter file.
RCLPY_NAMES = ("use_sim_time", "start_type_description_service")


class NodeParameters:
    """Declares every setting on a node and keeps ``settings`` equal to the parameters.

    Args:
        node: where the parameters live.
        is_configured: whether the fixed settings are in use now, so that they must not change.
        on_change: takes the new settings after a successful set.

    Raises:
        BadSetting: listing every start value that is unusable.
    """

    def __init__(
        self, node: Node, is_configured: Callable[[], bool],
        on_change: Callable[[Settings], None],
    ) -> None:
        self._is_configured, self._on_change = is_configured, on_change
        self._leaves = {leaf.name: leaf for leaf in leaves(Settings())}
        self.settings = self._declare(node)
        self._warn_of_unknown_names(node)
        node.add_on_set_parameters_callback(self._check)
        node.add_post_set_parameters_callback(self._swap)

    def _declare(self, node: Node) -> Settings:
        values, problems = {}, qos_overrides.complaints(_given(node).values())
        for leaf in self._leaves.values():
            try:
                values[leaf.name] = _declare_one(node, leaf)
            except BadSetting as problem:
                problems.append(str(problem))
        try:
            settings = with_values(Settings(), values)
        except BadSetting as problem:
            problems.append(str(problem))
        if problems:
            raise BadSetting("; ".join(problems))
        return settings

    def _warn_of_unknown_names(self, node: Node) -> None:
        topics = [node.resolve_topic_name(base) + form for base in (*INPUTS.values(), *OUTPUTS)
                  for form in ("", *(f"/{name}" for name in TRANSPORTS.values()))]
        unknown = sorted(  # rclpy ignores names that nobody declares
            name for name in _given(node)
            if name not in self._leaves and not name.startswith(RCLPY_NAMES)
            and not qos_overrides.has_use(name, topics))
        if unknown:
            node.get_logger().warning(
                f"unknown parameters are ignored: {', '.join(unknown)}; known are the names in "
                "config/completion.yaml, and qos_overrides./TOPIC.subscription.POLICY or "
                ".publisher.POLICY with history, depth, reliability or durability")

    def _check(self, parameters: list[Parameter]) -> SetParametersResult:
        values = self._own(parameters)
        try:
            with_values(self.settings, values)
        except BadSetting as problem:
            return SetParametersResult(successful=False, reason=str(problem))
        current = {leaf.name: leaf.value for leaf in leaves(self.settings)}
        fixed = [name for name, value in values.items()
                 if self._leaves[name].fixed and value != current[name]]
        if fixed and self._is_configured():
            return SetParametersResult(
                successful=False, reason=f"{', '.join(fixed)} cannot change while the node is "
                "configured; run the transition cleanup first, then set, then configure")
        return SetParametersResult(successful=True)

    def _swap(self, parameters: list[Parameter]) -> None:
        values = self._own(parameters)
        if values:
            self.settings = with_values(self.settings, values)
            self._on_change(self.settings)

    def _own(self, parameters: list[Parameter]) -> Mapping[str, Any]:
        return {p.name: _value(p) for p in parameters if p.name in self._leaves}


def descriptor(leaf: Setting) -> ParameterDescriptor:
    """Description, range and choices of one setting, as ``ros2 param describe`` shows them."""
    described = ParameterDescriptor(name=leaf.name, description=leaf.description)
    constraints = []
    if leaf.choices:
        constraints.append(f"one of {', '.join(leaf.choices)}")
    if leaf.fixed:
        constraints.append("only while unconfigured")
    described.additional_constraints = "; ".join(constraints)
    if leaf.low is not None and leaf.high is not None:
        if isinstance(leaf.value, int):
            described.integer_range = [
                IntegerRange(from_value=int(leaf.low), to_value=int(leaf.high), step=1)]
        else:
            described.floating_point_range = [
                FloatingPointRange(from_value=float(leaf.low), to_value=float(leaf.high))]
    return described


def parameter_file() -> str:
    """The text of ``config/completion.yaml``: every parameter with its default, described."""
    lines = [
        "# Every parameter of completion_node with its default. The range stands in brackets;",
        "# (fixed) = changes only while the node is unconfigured.",
        "/**:", "  ros__parameters:"]
    groups: list[str] = []
    for leaf in leaves(Settings()):
        *parents, name = leaf.name.split(".")
        if parents != groups:
            groups = parents
            lines += ["", f"    {groups[-1]}:"]
        indent = " " * (4 + 2 * len(parents))
        lines += textwrap.wrap(
            _comment(leaf), width=99, initial_indent=f"{indent}# ",
            subsequent_indent=f"{indent}#   ")
        value = list(leaf.value) if isinstance(leaf.value, tuple) else leaf.value
        lines.append(f"{indent}{name}: {json.dumps(value)}")
    return "\n".join(lines) + "\n"


def _comment(leaf: Setting) -> str:
    notes = [leaf.description]
    if leaf.choices:
        notes.append(f"[{' | '.join(leaf.choices)}]")
    if leaf.low is not None:
        notes.append(f"[{leaf.low} to {leaf.high}]")
    if leaf.fixed:
        notes.append("(fixed)")
    return " ".join(notes)


def _given(node: Node) -> Mapping[str, Parameter]:
    """What was given at the start, by name; rclpy offers no public way to list it."""
    return getattr(node, "_parameter_overrides", {})


def _declare_one(node: Node, leaf: Setting) -> Any:
    # The type of an empty list cannot be inferred: declared by type, unset means empty.
    default = Parameter.Type.DOUBLE_ARRAY if isinstance(leaf.value, tuple) else leaf.value
    try:
        return _value(node.declare_parameter(leaf.name, default, descriptor(leaf)))
    except (InvalidParameterTypeException, InvalidParameterValueException, TypeError,
            ValueError) as problem:
        raise BadSetting(_complaint(leaf, _given(node).get(leaf.name), problem)) from problem


def _complaint(leaf: Setting, given: Parameter | None, problem: Exception) -> str:
    """What rclpy refused, in the words that every other way to set it has."""
    if given is None:
        return f"{leaf.name}: {problem}"
    value = given.value
    try:
        with_values(Settings(), {leaf.name: value})
    except BadSetting as known:
        return str(known)
    if isinstance(value, int):
        return f"{leaf.name}={value}: ROS takes it with a decimal point alone, {float(value)}"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return (f"{leaf.name}={list(value)}: ROS takes it with decimal points alone, "
                f"{[float(number) for number in value]}")
    return f"{leaf.name}: {problem}"


def _value(parameter: Parameter) -> Any:
    if parameter.type_ == Parameter.Type.NOT_SET:
        return ()
    if parameter.type_ == Parameter.Type.DOUBLE_ARRAY:
        return tuple(parameter.value)
    return parameter.value


if __name__ == "__main__":
    print(parameter_file(), end="")

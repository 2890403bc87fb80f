"""What users may set by ``qos_overrides.<topic>.<subscription or publisher>.<policy>``.

rclpy reads them when it creates a subscription or a publisher, and forbids to change them later:
one that it cannot use must be refused at the start, where all other parameters are.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable

from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSPolicyKind, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions

PREFIX = "qos_overrides."
QOS_OVERRIDES = QoSOverridingOptions(policy_kinds=(
    QoSPolicyKind.HISTORY, QoSPolicyKind.DEPTH, QoSPolicyKind.RELIABILITY,
    QoSPolicyKind.DURABILITY))
# rclpy knows "unknown" too, and can create nothing with it.
CHOICES = {policy: [name for name in choices.short_keys() if name != "unknown"]
           for policy, choices in (("history", HistoryPolicy), ("reliability", ReliabilityPolicy),
                                   ("durability", DurabilityPolicy))}
MOST_DEPTH = 2**31 - 1
# Topics beside the node's own for which rclpy, tf2_ros and diagnostics know overrides.
OF_LIBRARIES = ("/parameter_events", "/rosout", "/clock", "/tf", "/tf_static", "/diagnostics")
_NAME = re.compile(r"qos_overrides\.(/[^.]+)\.(?:subscription|publisher)(?:_[^.]+)?"
                   rf"\.(?:{'|'.join((*CHOICES, 'depth'))})")


def has_use(name: str, topics: Collection[str]) -> bool:
    """Whether a parameter of this name is an override of one of the topics, or of a library's."""
    found = _NAME.fullmatch(name)
    return found is not None and found[1] in (*topics, *OF_LIBRARIES)


def complaints(parameters: Iterable[Parameter]) -> list[str]:
    """One sentence for each override that rclpy cannot use, with what was expected.

    Args:
        parameters: as they were given at the start, of any name.
    """
    problems = []
    for parameter in parameters:
        policy, value = parameter.name.rpartition(".")[2], parameter.value
        if not parameter.name.startswith(PREFIX):
            continue
        if policy in CHOICES and (
                not isinstance(value, str) or value.lower() not in CHOICES[policy]):
            problems.append(f"{parameter.name}={value!r}: expected one of "
                            f"{', '.join(CHOICES[policy])}")
        elif policy == "depth" and (type(value) is not int or not 0 <= value <= MOST_DEPTH):
            problems.append(f"{parameter.name}={value!r}: expected a whole number from 0 to "
                            f"{MOST_DEPTH}")
    return problems

"""ROS packages that exist on a robot but not on PyPI: the real one, or a minimal equivalent.

``message_filters`` and ``tf2_ros`` are used where they can be imported. There is no equivalent of
``tf2_ros``: without it, poses come from parameters.
"""

from __future__ import annotations

from typing import Any

try:
    from message_filters import ApproximateTimeSynchronizer as Synchronizer
    from message_filters import SimpleFilter as Filter
except ImportError:
    from sdim_ros.core.matcher import MinimalFilter as Filter
    from sdim_ros.core.matcher import MinimalSynchronizer as Synchronizer


def tf_buffer(node: Any) -> Any | None:
    """A ``tf2_ros.Buffer`` that the node's executor fills, or None where there is no tf2_ros."""
    try:
        from tf2_ros import Buffer, TransformListener
    except ImportError:
        node.get_logger().info(
            "tf2_ros cannot be imported: poses of sensors come from projection.extrinsics alone")
        return None
    buffer = Buffer()
    # The listener lives as long as the buffer that it fills.
    buffer.listener = TransformListener(buffer, node)
    return buffer

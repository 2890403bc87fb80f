"""Where a sensor sits in the camera's frame: by parameter, or by TF at the times of both."""

from __future__ import annotations

from typing import Any

import numpy as np
from rclpy.duration import Duration
from rclpy.time import Time
from std_msgs.msg import Header

from sdim_ros.core.config import Settings
from sdim_ros.core.projection import pose_matrix
from sdim_ros.core.sensor_data import stamp_ns
from sdim_ros.core.types import BadInput


class Transforms:
    """Poses from a TF buffer. Waits, so the worker's thread asks, never the executor's.

    Args:
        buffer: ``tf2_ros.Buffer`` or what has its two lookups; None = there is none here.
    """

    def __init__(self, buffer: Any | None) -> None:
        self._buffer = buffer

    def clear(self) -> None:
        """Forget what was heard: time has jumped."""
        if self._buffer is not None:
            self._buffer.clear()

    def pose(self, image: Header, sensor: Header, settings: Settings) -> np.ndarray | None:
        """The (4, 4) pose of the sensor in the image's frame; None = they are the same.

        With ``projection.fixed_frame`` it is the pose of where the sensor was when it measured,
        in the frame of the camera at the image's stamp. It measured at its stamp, moved by
        ``sync.offset_s``.

        Raises:
            BadInput: ``no_transform``.
        """
        how = settings.projection
        measured = Time.from_msg(sensor.stamp) + Duration(seconds=settings.sync.offset_s)
        carried = bool(how.fixed_frame) and measured.nanoseconds != stamp_ns(image)
        if sensor.frame_id == image.frame_id and not carried:
            return None
        if self._buffer is None:
            raise BadInput(
                "no_transform", f"it is in frame '{sensor.frame_id}', the image in "
                f"'{image.frame_id}': expected the same frame and no projection.fixed_frame, or "
                "the pose in projection.extrinsics, since tf2_ros cannot be imported here")
        wait = Duration(seconds=how.tf_timeout_s)
        try:
            if carried:
                found = self._buffer.lookup_transform_full(
                    image.frame_id, Time.from_msg(image.stamp), sensor.frame_id,
                    measured, how.fixed_frame, wait)
            else:
                found = self._buffer.lookup_transform(
                    image.frame_id, sensor.frame_id, measured, wait)
        except Exception as problem:  # tf2 has one class for each kind, with no other base
            raise BadInput(
                "no_transform", f"no transform from frame '{sensor.frame_id}' to "
                f"'{image.frame_id}' within projection.tf_timeout_s = {how.tf_timeout_s} s "
                f"({problem}): expected both in one TF tree; check its publishers and stamps, "
                "or set projection.extrinsics") from problem
        moved, turned = found.transform.translation, found.transform.rotation
        return pose_matrix((moved.x, moved.y, moved.z, turned.x, turned.y, turned.z, turned.w))

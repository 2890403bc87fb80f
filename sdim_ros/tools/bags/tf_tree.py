"""A tree of frames from the transforms in a bag: what ``tf2_ros.Buffer`` is to a node.

Between two samples the translation is interpolated linearly and the rotation by slerp; outside of
them nothing is guessed. Each moving frame keeps the last 10 s, as tf2 does.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation, Slerp

from sdim_ros.core.config import Settings
from sdim_ros.core.projection import pose_matrix
from sdim_ros.core.sensor_data import stamp_ns
from sdim_ros.core.types import BadInput, BadSetting

STATIC, MOVING = "/tf_static", "/tf"
KEPT_NS = 10_000_000_000
JUMP_BACK_NS = 500_000_000  # transforms may overtake each other by less


@dataclass
class _Track:
    """Poses of one frame in its parent, by stamp; a static one has a single pose."""

    parent: str
    is_static: bool
    stamps: list[int] = field(default_factory=list)
    poses: list[np.ndarray] = field(default_factory=list)

    def add(self, time_ns: int, pose: np.ndarray) -> None:
        at = bisect_left(self.stamps, time_ns)
        if at < len(self.stamps) and self.stamps[at] == time_ns:
            return  # as tf2: the first of two with one stamp counts
        self.stamps.insert(at, time_ns)
        self.poses.insert(at, pose)
        old = bisect_left(self.stamps, self.stamps[-1] - KEPT_NS)
        del self.stamps[:old], self.poses[:old]

    def at(self, time_ns: int) -> np.ndarray | None:
        """The (4, 4) pose at this time; None outside of the samples."""
        if self.is_static:
            return self.poses[-1]
        after = bisect_left(self.stamps, time_ns)
        if after == len(self.stamps):
            return None
        if self.stamps[after] == time_ns:
            return self.poses[after]
        return None if after == 0 else self._between(after - 1, after, time_ns)

    def _between(self, before: int, after: int, time_ns: int) -> np.ndarray:
        first, last = self.poses[before], self.poses[after]
        # From the first stamp on: nanoseconds since 1970 are more than a float can tell apart.
        span = self.stamps[after] - self.stamps[before]
        share = (time_ns - self.stamps[before]) / span
        turns = Rotation.from_matrix([first[:3, :3], last[:3, :3]])
        pose = np.eye(4)
        pose[:3, :3] = Slerp([0.0, 1.0], turns)(share).as_matrix()
        pose[:3, 3] = first[:3, 3] + share * (last[:3, 3] - first[:3, 3])
        return pose


class TfTree:
    """Frames and how they move. It implements ``core.frame_reader.Poses``.

    Attributes:
        ignored: transforms that are none: not finite, or a quaternion of length zero.
    """

    def __init__(self) -> None:
        self._tracks: dict[str, _Track] = {}
        self.ignored = 0

    def add(self, message: Any, is_static: bool) -> None:
        """Take a ``tf2_msgs/TFMessage``."""
        for moved in message.transforms:
            shift, turn = moved.transform.translation, moved.transform.rotation
            try:
                pose = pose_matrix((shift.x, shift.y, shift.z, turn.x, turn.y, turn.z, turn.w))
            except BadSetting:
                self.ignored += 1
                continue
            child, parent = _name(moved.child_frame_id), _name(moved.header.frame_id)
            track = self._tracks.get(child)
            if track is None or (track.parent, track.is_static) != (parent, is_static) or \
                    self._jumps(moved):
                track = self._tracks[child] = _Track(parent, is_static)
            if is_static:
                track.stamps, track.poses = [0], [pose]
            else:
                track.add(stamp_ns(moved.header), pose)

    def jumps_back(self, message: Any) -> bool:
        """Whether a message is of an earlier time, as where a bag loops: what came is forgotten."""
        return any(self._jumps(moved) for moved in message.transforms)

    def pose(self, image: Any, sensor: Any, settings: Settings) -> np.ndarray | None:
        """The (4, 4) pose of the sensor in the image's frame, as the node gets it from tf2.

        With ``projection.fixed_frame`` it is the pose of where the sensor was when it measured,
        in the frame of the camera at the image's stamp.

        Raises:
            BadInput: ``no_transform``.
        """
        fixed, shown_ns = settings.projection.fixed_frame, stamp_ns(image)
        measured_ns = stamp_ns(sensor) + round(settings.sync.offset_s * 1e9)
        carried = bool(fixed) and measured_ns != shown_ns
        if sensor.frame_id == image.frame_id and not carried:
            return None
        if not carried:
            return self.lookup(image.frame_id, sensor.frame_id, measured_ns)
        return self.lookup(image.frame_id, fixed, shown_ns) @ self.lookup(
            fixed, sensor.frame_id, measured_ns)

    def lookup(self, target: str, source: str, time_ns: int) -> np.ndarray:
        """The (4, 4) pose of the frame ``source`` in the frame ``target`` at a time.

        Raises:
            BadInput: ``no_transform``; says which step is missing.
        """
        target, source = _name(target), _name(source)
        up, down = self._ancestors(source), self._ancestors(target)
        common = next((frame for frame in up if frame in down), None)
        if common is None:
            raise self._refused(target, source, self._why_apart(up, down))
        return np.linalg.inv(self._climb(target, common, time_ns, (target, source))) @ \
            self._climb(source, common, time_ns, (target, source))

    def _climb(self, frame: str, ancestor: str, time_ns: int, asked: tuple[str, str]
               ) -> np.ndarray:
        """The (4, 4) pose of a frame in one of its ancestors."""
        pose = np.eye(4)
        while frame != ancestor:
            track = self._tracks[frame]
            step = track.at(time_ns)
            if step is None:
                raise self._refused(*asked, _why_not_at(frame, track, time_ns))
            pose = step @ pose
            frame = track.parent
        return pose

    def _ancestors(self, frame: str) -> list[str]:
        """The frame, its parent and so on."""
        line = [frame]
        while line[-1] in self._tracks and self._tracks[line[-1]].parent not in line:
            line.append(self._tracks[line[-1]].parent)
        return line

    def _jumps(self, moved: Any) -> bool:
        track = self._tracks.get(_name(moved.child_frame_id))
        return track is not None and not track.is_static and bool(track.stamps) and (
            stamp_ns(moved.header) < track.stamps[-1] - JUMP_BACK_NS)

    def _why_apart(self, up: list[str], down: list[str]) -> str:
        known = {*self._tracks, *(track.parent for track in self._tracks.values())}
        if not known:
            return f"the bag has no transform on {STATIC} or {MOVING}"
        missing = [frame for frame in (up[0], down[0]) if frame not in known]
        if missing:
            return f"there is no frame '{missing[0]}', only {', '.join(sorted(known))}"
        return f"they hang from different roots, '{up[-1]}' and '{down[-1]}'"

    def _refused(self, target: str, source: str, why: str) -> BadInput:
        return BadInput(
            "no_transform", f"no transform from frame '{source}' to '{target}' ({why}): expected "
            "both in one tree at the stamps of the messages; give the sensor's pose with "
            "--extrinsics, or wait longer with --set projection.tf_timeout_s=SECONDS")


def _why_not_at(frame: str, track: _Track, time_ns: int) -> str:
    return (f"'{frame}' in '{track.parent}' is known from {track.stamps[0] / 1e9:.3f} to "
            f"{track.stamps[-1] / 1e9:.3f} s, not at {time_ns / 1e9:.3f} s")


def _name(frame: str) -> str:
    return frame.lstrip("/")

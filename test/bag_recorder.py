"""Small bags as a robot's recorder writes them: a scene with a step, seen by a camera that moves.

Messages are recorded at any time, which may differ from their stamps, as in bags that loop.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

HEIGHT, WIDTH = 48, 64
FOCAL, CX, CY = 60.0, 32.0, 24.0
START_NS, PERIOD_NS = 1_700_000_000_000_000_000, 100_000_000
OPTICAL = "camera_optical"
STORE = get_typestore(Stores.ROS2_KILTED)
TYPES = STORE.types
FLOAT32 = 7
# What keeps a frame of the test model under 0.2 s.
FAST = ("--set", "queries.budget=20", "--set", "fill.calibration_points=0", "--set",
        "fill.folds=2")


def stamp_of(number: int) -> int:
    """The stamp of a set, nanoseconds."""
    return START_NS + number * PERIOD_NS


def scene(number: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Image (H, W, 3) uint8 and depth (H, W) float32 metres, which differ from set to set."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    depth = 2 + 0.1 * number + x / WIDTH + 1.5 * (x > 30 + number) + 0.5 * y / HEIGHT
    image = np.stack([40 * depth, 255 - 50 * depth, 128 + 60 * np.sin(x / 9)], axis=-1)
    return np.clip(image, 0, 255).astype(np.uint8), depth.astype(np.float32)


def sparse(number: int = 0, points: int = 60) -> np.ndarray:
    """A part of the depth, (H, W) float32, 0 elsewhere."""
    depth, kept = scene(number)[1], np.zeros((HEIGHT, WIDTH), np.float32)
    at = np.random.default_rng(number).choice(depth.size, points, replace=False)
    kept.flat[at] = depth.flat[at]
    return kept


def header(stamp_ns: int, frame_id: str = OPTICAL) -> Any:
    return TYPES["std_msgs/msg/Header"](
        TYPES["builtin_interfaces/msg/Time"](*divmod(stamp_ns, 10**9)), frame_id)


def image(stamp_ns: int, pixels: np.ndarray, encoding: str, frame_id: str = OPTICAL) -> Any:
    data = np.ascontiguousarray(pixels).view(np.uint8).reshape(pixels.shape[0], -1)
    return TYPES["sensor_msgs/msg/Image"](
        header(stamp_ns, frame_id), pixels.shape[0], pixels.shape[1], encoding, 0, data.shape[1],
        data.ravel())


def colour(number: int) -> Any:
    return image(stamp_of(number), scene(number)[0], "rgb8")


def compressed(number: int, ending: str = ".png") -> Any:
    _, data = cv2.imencode(ending, scene(number)[0][..., ::-1])
    return TYPES["sensor_msgs/msg/CompressedImage"](
        header(stamp_of(number)), ending[1:], data.ravel())


def depth_of(number: int) -> Any:
    return image(stamp_of(number), sparse(number), "32FC1")


def truth_of(number: int) -> Any:
    return image(stamp_of(number), scene(number)[1], "32FC1")


def info(number: int, k: tuple[float, ...] = (FOCAL, 0, CX, 0, FOCAL, CY, 0, 0, 1)) -> Any:
    return TYPES["sensor_msgs/msg/CameraInfo"](
        header(stamp_of(number)), HEIGHT, WIDTH, "plumb_bob", np.zeros(5), np.array(k, float),
        np.eye(3).ravel(), np.zeros(12), 0, 0,
        TYPES["sensor_msgs/msg/RegionOfInterest"](0, 0, 0, 0, False))


def cloud(stamp_ns: int, points: np.ndarray, frame_id: str) -> Any:
    """A cloud of (N, 3) metres."""
    packed = np.ascontiguousarray(points, np.float32)
    fields = [TYPES["sensor_msgs/msg/PointField"](name, 4 * i, FLOAT32, 1)
              for i, name in enumerate("xyz")]
    return TYPES["sensor_msgs/msg/PointCloud2"](
        header(stamp_ns, frame_id), 1, len(packed), fields, False, 12, 12 * len(packed),
        packed.view(np.uint8).ravel(), True)


def points_of(number: int) -> np.ndarray:
    """The measured pixels as (N, 3) points in the camera's optical frame."""
    kept = sparse(number)
    rows, cols = np.nonzero(kept)
    z = kept[rows, cols].astype(np.float64)
    return np.stack([(cols - CX) / FOCAL * z, (rows - CY) / FOCAL * z, z], axis=1)


def transform(stamp_ns: int, parent: str, child: str, *pose: float) -> Any:
    """A TFMessage with one transform: x y z qx qy qz qw."""
    shift = TYPES["geometry_msgs/msg/Vector3"](*map(float, pose[:3]))
    turn = TYPES["geometry_msgs/msg/Quaternion"](*map(float, pose[3:]))
    return TYPES["tf2_msgs/msg/TFMessage"]([TYPES["geometry_msgs/msg/TransformStamped"](
        header(stamp_ns, parent), child, TYPES["geometry_msgs/msg/Transform"](shift, turn))])


def moments(count: int = 3, **topics: Any) -> list[tuple[str, Any, int]]:
    """Messages of several sets, each recorded at its stamp.

    Args:
        topics: makers by topic, ``__`` for a slash; default: image, its intrinsics and depth.
    """
    makers = topics or {"image": colour, "camera_info": info, "sparse_depth__image": depth_of}
    return [("/" + topic.replace("__", "/"), make(number), stamp_of(number))
            for number in range(count) for topic, make in makers.items()]


def record(path: Path, messages: list[tuple[str, Any, int]],
           storage: StoragePlugin = StoragePlugin.MCAP, prepare: Any = None) -> Path:
    """Write a bag of topic, message and time of recording.

    Args:
        prepare: takes the writer before it is opened.
    """
    writer = Writer(path, version=9, storage_plugin=storage)
    if prepare is not None:
        prepare(writer)
    with writer:
        connections: dict[str, Any] = {}
        for topic, message, time_ns in messages:
            kind = message.__msgtype__
            if topic not in connections:
                connections[topic] = writer.add_connection(topic, kind, typestore=STORE)
            writer.write(connections[topic], time_ns, STORE.serialize_cdr(message, kind))
    return path

"""Which topics of a bag are the image, its camera and its depth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sdim_ros.core.sensor_data import COLOUR_ENCODINGS, CONVERTED_ENCODINGS, DEPTH_ENCODINGS
from sdim_ros.core.types import BadInput
from sdim_ros.tools.bags.reading import Bag, Topic

# What the node listens to unless it is told otherwise, and the reference of converted datasets.
NODE_TOPICS = {"image": "/image", "camera_info": "/camera_info",
               "sparse_depth": "/sparse_depth/image", "points": "/points"}
GROUND_TRUTH = "/ground_truth/depth"
ROLES = (*NODE_TOPICS, "ground_truth")
NAMES = {"sensor_msgs/msg/CameraInfo": "camera_info", "sensor_msgs/msg/PointCloud2": "points"}


def parse_topics(text: str | None) -> dict[str, str]:
    """``"image=/a,points=/b"`` as a topic by its role.

    Raises:
        BadInput: another form, or a role that does not exist.
    """
    topics: dict[str, str] = {}
    for part in filter(None, (text or "").split(",")):
        role, equals, topic = part.strip().partition("=")
        if not equals or not topic or role not in ROLES:
            raise BadInput("arguments", f"--topics {text}: expected ROLE=TOPIC, separated by "
                           f"commas; the roles are {', '.join(ROLES)}")
        topics[role] = topic
    if {"sparse_depth", "points"} <= set(topics):
        raise BadInput("arguments", f"--topics {text}: expected either sparse_depth or points")
    return topics


def find_topics(path: str | Path, given: Mapping[str, str]) -> dict[str, str]:
    """The topics that `BagFrames` takes, of those that a bag has.

    A role that is not given gets the topic that the node listens to, or else the only one of its
    type. The camera info is preferably the one beside the image.

    Args:
        path: folder of a rosbag2, one of its files, or a .bag file of ROS 1.
        given: topics by role, which are taken as they are.

    Raises:
        BadInput: ``bag`` when it cannot be read, or when a role has no topic or several; lists
            what the bag has.
    """
    with Bag(path) as bag:
        there = _by_role(bag)
    found = _Choice(Path(path), given, there)
    topics = {"image": found.one("image", there["image"])}
    if "points" not in given and ("sparse_depth" in given or found.default("sparse_depth")):
        topics["sparse_depth"] = found.one("sparse_depth", there["sparse_depth"])
    elif "points" in given or found.default("points"):
        topics["points"] = found.one("points", there["points"])
    else:
        depths = [t for t in there["sparse_depth"] if t != GROUND_TRUTH]
        topic = found.one("sparse_depth or points", depths + there["points"])
        topics["points" if topic in there["points"] else "sparse_depth"] = topic
    infos = there["camera_info"]
    if infos or "camera_info" in given or "points" in topics:
        namespace = topics["image"].removesuffix("/compressed").rpartition("/")[0]
        beside = f"{namespace}/camera_info"
        topics["camera_info"] = beside if beside in infos and "camera_info" not in given else (
            found.one("camera_info", infos))
    if "ground_truth" in given or GROUND_TRUTH in there["sparse_depth"]:
        topics["ground_truth"] = given.get("ground_truth", GROUND_TRUTH)
    return topics


@dataclass(frozen=True, slots=True)
class _Choice:
    path: Path
    given: Mapping[str, str]
    there: Mapping[str, Sequence[str]]

    def default(self, role: str) -> bool:
        """Whether the bag has the topic that the node listens to."""
        return NODE_TOPICS[role] in self.there[role]

    def one(self, role: str, candidates: Sequence[str]) -> str:
        """The topic that is given, the node's, or the only candidate."""
        if role in self.given:
            return self.given[role]
        if NODE_TOPICS.get(role) in candidates:
            return NODE_TOPICS[role]
        if len(candidates) == 1:
            return candidates[0]
        everything = "; ".join(f"{name}: {', '.join(topics) or 'none'}"
                               for name, topics in self.there.items())
        raise BadInput(
            "bag", f"{self.path} has {len(candidates)} topics that may be {role}: expected one, or "
            f"--topics ROLE=TOPIC to choose; it holds {everything}")


def _by_role(bag: Bag) -> dict[str, list[str]]:
    """All topics of a bag that may play a role, by the role."""
    there: dict[str, list[str]] = {role: [] for role in NODE_TOPICS}
    for topic in bag.topics.values():
        role = _role(bag, topic)
        if role is not None:
            there[role].append(topic.name)
    return there


def _role(bag: Bag, topic: Topic) -> str | None:
    """What a topic may be, by its type and, of an image, by its first message."""
    if topic.kind in NAMES:
        return NAMES[topic.kind]
    if topic.kind not in ("sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage"):
        return None
    message = bag.first(topic.name)
    if hasattr(message, "format"):
        return None if "compressedDepth" in message.format else "image"
    encoding = getattr(message, "encoding", "")
    if encoding in DEPTH_ENCODINGS:
        return "sparse_depth"
    return "image" if encoding in {*COLOUR_ENCODINGS, *CONVERTED_ENCODINGS} else None

"""Which topics of a bag are the image, its intrinsics and its measured depth."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from sdim_ros.core.config import SOURCES
from sdim_ros.core.sensor_data import COLOUR_ENCODINGS, CONVERTED_ENCODINGS, DEPTH_ENCODINGS
from sdim_ros.core.topics import INPUTS, OUTPUTS, TRANSPORTS
from sdim_ros.core.types import BadInput
from sdim_ros.tools.bags.reading import Bag, Topic

IMAGE, COMPRESSED = "sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage"
CAMERA_INFO = "sensor_msgs/msg/CameraInfo"
KINDS = {
    "image": (IMAGE, COMPRESSED), "camera_info": (CAMERA_INFO,),
    "points": ("sensor_msgs/msg/PointCloud2",), "sparse_depth": (IMAGE, COMPRESSED),
    "disparity": ("stereo_msgs/msg/DisparityImage",), "sparse_camera_info": (CAMERA_INFO,),
}
COLOUR = {*COLOUR_ENCODINGS, *CONVERTED_ENCODINGS}
MONO = {"mono8", "8UC1"}
GROUND_TRUTH = "/ground_truth/depth"  # where converted datasets have their reference
# How topics end that are no input: what the node publishes, and references of converted data.
NO_INPUTS = tuple(f"/{topic}" for topic in OUTPUTS) + (GROUND_TRUTH,)
# How the node calls its inputs: of several topics of one type these are meant.
NODE_NAMES = tuple(f"/{INPUTS[role]}" for role in ("image", *SOURCES))


class Reference(NamedTuple):
    """Where the ground truth of a bag is.

    Attributes:
        topic: None = there is none.
        same_stamp: a frame of a converted dataset has its own reference or none, never a
            neighbour's; otherwise the one nearest in time is meant.
    """

    topic: str | None = None
    same_stamp: bool = False

    @classmethod
    def of(cls, bag: Bag, named: str | None) -> Reference:
        """The topic that the user named, or else that of a converted dataset."""
        is_converted = named is None and GROUND_TRUTH in bag.topics
        return cls(GROUND_TRUTH if is_converted else named, is_converted)


def parse_topics(text: str | None) -> dict[str, str]:
    """``"image=/a,points=/b"`` as topics by role.

    Raises:
        BadInput: ``arguments``.
    """
    topics: dict[str, str] = {}
    for part in filter(None, (text or "").split(",")):
        role, equals, topic = (word.strip() for word in part.partition("="))
        if not equals or not topic or role not in KINDS or role in topics:
            raise BadInput("arguments", f"--topics {text}: expected ROLE=/TOPIC, separated by "
                           f"commas, each role once; the roles are {', '.join(KINDS)}")
        topics[role] = topic if topic.startswith("/") else f"/{topic}"
    return topics


def choose_topics(bag: Bag, named: Mapping[str, str], reference: str | None = None,
                  wanted: Sequence[str] = ()) -> dict[str, str]:
    """Topics by role: ``image``, ``camera_info``, one source or more, and perhaps
    ``sparse_camera_info``, where the depth image is of another camera.

    Args:
        named: by the user, taken as they are; the others are found by type and encoding.
        reference: topic of the ground truth, which is no input.
        wanted: sources that a set must have, as ``input.sources`` names them; empty = any.

    Raises:
        BadInput: ``topics``: one is missing, is of another type, or may be several; the bag's
            topics are listed.
    """
    for role, topic in named.items():
        _check(bag, topic, KINDS[role], f"--topics {role}={topic}")
        if wanted and role in SOURCES and role not in wanted:
            raise BadInput("topics", f"--topics {role}={topic}: input.sources = "
                           f"{','.join(wanted)} leaves it out: expected it in both or in neither")
    if reference is not None:
        _check(bag, reference, KINDS["sparse_depth"], f"--gt-topic {reference}")
    found = _Finder(bag, reference)
    chosen = dict(named)
    if "image" not in chosen:
        chosen["image"] = found.image()
    if "camera_info" not in chosen:
        chosen["camera_info"] = found.camera_info(chosen["image"])
    if not wanted and not set(SOURCES) & set(chosen):
        source, topic = found.source({*chosen.values()}, SOURCES)
        chosen[source] = topic
    for source in wanted:
        if source not in chosen:
            _, chosen[source] = found.source({*chosen.values()}, [source])
    if "sparse_depth" in chosen and "sparse_camera_info" not in chosen:
        beside = _camera_info_beside(chosen["sparse_depth"])
        if beside in bag.topics and beside != chosen["camera_info"]:
            chosen["sparse_camera_info"] = beside
    return chosen


class _Finder:
    """Looks for topics by what they hold."""

    def __init__(self, bag: Bag, reference: str | None) -> None:
        self._bag = bag
        self._candidates = [topic for topic in bag.topics.values() if topic.name != reference
                            and not topic.name.endswith(NO_INPUTS)]
        self._encodings = {topic.name: self._encoding(topic) for topic in self._candidates}

    def image(self) -> str:
        colour = [t for t in self._candidates if self._encodings[t.name] in COLOUR]
        return self._one("image", "image in colour", _narrowed(
            colour,
            lambda t: self._encodings[t.name] not in MONO,
            lambda t: _camera_info_beside(t.name) in self._bag.topics,
            _has_node_name))

    def camera_info(self, image: str) -> str:
        beside = _camera_info_beside(image)
        if beside in self._bag.topics:
            return beside
        return self._one("camera_info", f"CameraInfo of {image}", [
            t for t in self._candidates if t.kind == CAMERA_INFO])

    def source(self, taken: set[str], among: Sequence[str]) -> tuple[str, str]:
        """The name of one of these sources, and its topic."""
        sources = {t.name: source for t in self._candidates if t.name not in taken
                   for source in among if self._is(t, source)}
        candidates = [t for t in self._candidates if t.name in sources]
        kinds = {"points": "PointCloud2", "disparity": "DisparityImage",
                 "sparse_depth": f"Image in {', '.join(DEPTH_ENCODINGS)}"}
        topic = self._one("points" if len(among) > 1 else among[0], "measured depth ("
                          f"{' or '.join(kinds[source] for source in among)})",
                          _narrowed(candidates, _has_node_name))
        return sources[topic], topic

    def _is(self, topic: Topic, source: str) -> bool:
        if source == "sparse_depth":
            return self._encodings[topic.name] in DEPTH_ENCODINGS
        return topic.kind in KINDS[source]

    def _encoding(self, topic: Topic) -> str:
        """Of the first image; compressed ones count as what they hold."""
        message = self._bag.first(topic.name) if topic.kind in KINDS["image"] else None
        if message is None:
            return ""
        if topic.kind == IMAGE:
            return message.encoding
        return message.format.partition(";")[0] if "compressedDepth" in message.format else "rgb8"

    def _one(self, role: str, what: str, candidates: Sequence[Topic]) -> str:
        """The only candidate; an image and its compressed copy count as one."""
        names = {t.name for t in candidates}
        kept = [t for t in candidates if not (_base(t.name) != t.name and _base(t.name) in names)]
        if len(kept) == 1:
            return kept[0].name
        seen = f"no {what}" if not kept else \
            f"several topics that may be the {what}: {', '.join(map(str, kept))}"
        raise BadInput(
            "topics", f"{self._bag.path} has {seen}; name the right one with --topics "
            f"{_example(role, kept)}; there {_listed(self._bag)}")


def _check(bag: Bag, topic: str, kinds: Sequence[str], flag: str) -> None:
    found = bag.topics.get(topic)
    short = " or ".join(kind.rpartition("/")[2] for kind in kinds)
    if found is None:
        raise BadInput("topics", f"{flag}: {bag.path} has no message there: expected {short}; "
                       f"there {_listed(bag)}")
    if found.kind not in kinds:
        raise BadInput("topics", f"{flag}: it holds {found.kind}, expected {short}; there "
                       f"{_listed(bag)}")


def _narrowed(topics: Sequence[Topic], *tests: Callable[[Topic], bool]) -> list[Topic]:
    """Those that pass each test, which is left out where none does."""
    kept = list(topics)
    for test in tests:
        kept = [t for t in kept if test(t)] or kept
    return kept


def _has_node_name(topic: Topic) -> bool:
    return _base(topic.name).endswith(NODE_NAMES)


def _base(topic: str) -> str:
    """The name without that of the transport."""
    base, _, transport = topic.rpartition("/")
    return base if transport in TRANSPORTS.values() else topic


def _camera_info_beside(topic: str) -> str:
    """Where drivers publish the intrinsics of an image topic."""
    return f"{_base(topic).rpartition('/')[0]}/camera_info"


def _example(role: str, candidates: Sequence[Topic]) -> str:
    if role == "points":
        return f"{'=... or '.join(SOURCES)}=..."
    return f"{role}={candidates[0].name if candidates else '/TOPIC'}"


def _listed(bag: Bag) -> str:
    return f"{'is' if len(bag.topics) == 1 else 'are'} {bag.describe()}"

"""Opens bags of ROS without ROS, and goes through them as far as they can be read."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any

from sdim_ros.core.types import BadInput

ENDINGS = (".mcap", ".db3")
ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"  # no message begins with it
EXPECTED = "expected the folder of a rosbag2, an .mcap, a .db3 or a .bag file"


@dataclass(frozen=True, slots=True)
class Topic:
    """What a bag holds of one topic.

    Attributes:
        kind: of its messages, e.g. ``sensor_msgs/msg/Image``.
    """

    name: str
    kind: str
    count: int

    def __str__(self) -> str:
        return f"{self.name} ({self.kind.rpartition('/')[2]}, {self.count})"


class Bag:
    """A bag that is open; to be used in a ``with`` block, or closed.

    A file that was cut off, as by a recorder that was killed, is read up to the cut.

    Args:
        path: folder of a rosbag2, with or without metadata.yaml, one of its files, or a .bag file
            of ROS 1.

    Attributes:
        topics: by name, of those that have messages.
        start_ns, end_ns: times at which the first and the last message were recorded.
        damage: what cannot be read, for people; None = everything can, as far as is known.

    Raises:
        BadInput: ``bag``: it cannot be opened, or holds no message.
    """

    def __init__(self, path: str | Path) -> None:
        _check_rosbags()
        self.path = Path(path)
        self.damage: str | None = None
        self._unreadable: set[tuple[str, int]] = set()
        self._parts = self._open()
        counts: Counter[tuple[str, str]] = Counter()
        for part in self._parts:
            for connection in part.connections:
                counts[connection.topic, connection.msgtype] += connection.msgcount
        self.topics = {
            name: Topic(name, kind, count) for (name, kind), count in sorted(counts.items())
            if count}
        if not self.topics:
            self.close()
            raise BadInput("bag", f"{self.path} holds no message: expected images and depth; "
                           "record it again")
        filled = [part for part in self._parts if part.message_count]
        self.start_ns = min(part.start_time for part in filled)
        self.end_ns = max(part.end_time for part in filled)

    def __enter__(self) -> Bag:
        return self

    def __exit__(self, kind: type[BaseException] | None, problem: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the files."""
        for part in self._parts:
            part.close()
        self._parts = []

    @property
    def unreadable(self) -> Counter[str]:
        """Messages by topic whose bytes are not what their type says, of those read so far."""
        return Counter(topic for topic, _ in self._unreadable)

    def describe(self) -> str:
        """All topics with their types and numbers of messages, for people."""
        return ", ".join(map(str, self.topics.values()))

    def messages(self, topics: Collection[str], start_ns: int | None = None,
                 stop_ns: int | None = None) -> Iterator[tuple[str, int, Any]]:
        """Topic, time of recording in nanoseconds and message, in the order of time.

        One message after the other is read from the files. Where that fails, the rest of the
        file is left out and ``damage`` says so.

        Args:
            start_ns, stop_ns: first time taken, and first time not taken any more.
        """
        for topic, time_ns, message, _ in self.serialized(topics, start_ns, stop_ns):
            yield topic, time_ns, message

    def serialized(self, topics: Collection[str], start_ns: int | None = None,
                   stop_ns: int | None = None) -> Iterator[tuple[str, int, Any, bytes]]:
        """What `messages` gives, each with its bytes as its publisher serialised it."""
        for part in self._parts:
            wanted = [c for c in part.connections if c.topic in topics]
            if not wanted:
                continue
            source = part.messages(wanted, start_ns, stop_ns)
            last_ns = None
            while True:
                try:
                    connection, last_ns, raw = next(source)
                except StopIteration:
                    break
                except Exception as problem:  # damaged bytes raise whatever their parser met
                    self._note_damage(part.path, last_ns, problem)
                    break
                try:
                    raw = unpacked(raw)
                    message = part.deserialize(raw, connection.msgtype)
                except Exception:  # damaged bytes raise whatever their parser met
                    self._unreadable.add((connection.topic, last_ns))
                else:
                    yield connection.topic, last_ns, message, raw

    def first(self, topic: str) -> Any | None:
        """The first message of a topic that can be read."""
        return next((message for _, _, message in self.messages([topic])), None)

    def _note_damage(self, path: Path, last_ns: int | None, problem: Exception) -> None:
        reached = "from its first message on" if last_ns is None else \
            f"after {(last_ns - self.start_ns) / 1e9:.3f} s of the bag"
        self._add_damage(f"{path.name} is damaged {reached} ({problem or type(problem).__name__})")

    def _add_damage(self, text: str) -> None:
        if self.damage is None or text not in self.damage:
            self.damage = text if self.damage is None else f"{self.damage}; {text}"

    def _open(self) -> list[Any]:
        """The parts of the bag in the order of time, each with what rosbags' readers have."""
        if not self.path.exists():
            raise BadInput("bag", f"{self.path} cannot be opened as a bag: there is no such file "
                           f"or folder; {EXPECTED}")
        if self.path.suffix == ".bag" or self.path.suffix in ENDINGS:
            return [self._open_file(self.path)]
        if not self.path.is_dir():
            raise BadInput("bag", f"{self.path} cannot be opened as a bag; {EXPECTED}")
        why = "it has no metadata.yaml"
        if (self.path / "metadata.yaml").exists():
            try:
                return [_Whole(self.path)]
            except Exception as problem:  # rosbags has no base for its errors
                why = str(problem)
        files = sorted(f for f in self.path.iterdir() if f.suffix in ENDINGS)
        if not files:
            raise BadInput("bag", f"{self.path} cannot be opened as a bag ({why}), nor does it "
                           f"hold files {' or '.join(ENDINGS)}; {EXPECTED}")
        parts, problem = [], None
        for file in files:
            try:
                parts.append(self._open_file(file))
            except BadInput as found:  # as the last file of a recorder that was killed
                problem = found
                self._add_damage(str(found))
        if not parts:
            raise problem
        return sorted(parts, key=lambda part: part.start_time)

    def _open_file(self, path: Path) -> Any:
        try:
            return _Whole(path)
        except Exception as problem:  # rosbags has no base for its errors
            if path.suffix not in ENDINGS:
                raise BadInput("bag", f"{path} cannot be opened as a bag ({problem}); {EXPECTED}"
                               ) from problem
            from sdim_ros.tools.bags.cut import open_cut
            part = open_cut(path, str(problem))
        self._add_damage(f"{path.name} is cut off or damaged: {part.message_count} messages of "
                         f"{(part.end_time - part.start_time) / 1e9:.3f} s could be read")
        return part


def _check_rosbags() -> None:
    """Under apt's ROS it may not be there."""
    try:
        import rosbags.highlevel  # noqa: F401
    except ImportError as problem:
        raise BadInput("bag", f"reading a bag needs rosbags ({problem}): pip install rosbags"
                       ) from problem


class _Whole:
    """A bag, or a file of one, that rosbags can open."""

    def __init__(self, path: Path) -> None:
        from rosbags.highlevel import AnyReader
        from rosbags.rosbag2 import Reader

        self.path = path
        is_ros1 = path.suffix == ".bag"
        # Messages of ROS 2 are read by the standard definitions: those in a bag, of topics that
        # nobody asked for, cannot keep it from being opened.
        self._reader = AnyReader([path]) if is_ros1 else Reader(path)
        self._reader.open()
        self.connections = list(self._reader.connections)
        self.message_count = self._reader.message_count
        self.start_time, self.end_time = self._reader.start_time, self._reader.end_time
        self.messages = self._reader.messages
        self.close = self._reader.close
        self.deserialize = self._reader.deserialize if is_ros1 else read_message


def read_message(raw: bytes, kind: str) -> Any:
    """A serialised message of ROS 2, perhaps compressed by itself where no metadata says so."""
    return store().deserialize_cdr(unpacked(raw), kind)


def unpacked(raw: bytes) -> bytes:
    """A serialised message that may be compressed by itself."""
    return zstd().decompress(raw) if raw[:len(ZSTD_MAGIC)] == ZSTD_MAGIC else raw


@cache
def store() -> Any:
    """The standard message types of ROS 2."""
    from rosbags.typesys import Stores, get_typestore

    return get_typestore(Stores.LATEST)


def zstd() -> Any:
    """The module that unpacks zstd; rosbags needs the same."""
    if sys.version_info >= (3, 14):
        from compression import zstd as module
    else:
        from backports import zstd as module
    return module

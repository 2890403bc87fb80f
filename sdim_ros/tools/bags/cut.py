"""Reads what is left of a bag's file that lacks its end: a killed recorder, a full disk, a copy
that broke off.

MCAP is read by its records (mcap.dev/spec): each stands for itself, only the index is at the end.
In an SQLite file the table of messages grows towards the end.
"""

from __future__ import annotations

import io
import sqlite3
import struct
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import quote

from sdim_ros.core.types import BadInput
from sdim_ros.tools.bags.reading import read_message, zstd

MCAP_MAGIC = b"\x89MCAP0\r\n"
SCHEMA, CHANNEL, MESSAGE, CHUNK = 3, 4, 5, 6
_RECORD = struct.Struct("<BQ")      # opcode, length
_MESSAGE = struct.Struct("<HIQQ")   # channel, sequence, log time, publish time
_CHUNK = struct.Struct("<QQQI")     # first and last time, size, checksum
_SIZE = struct.Struct("<I")
_ID, _IDS = struct.Struct("<H"), struct.Struct("<HH")


@dataclass
class Connection:
    """A topic of one type, with the names that rosbags has."""

    id: int
    topic: str
    msgtype: str
    msgcount: int = 0


class CutFile(ABC):
    """The messages before the cut, in the order in which they were written.

    Attributes:
        connections, message_count, start_time, end_time: as a reader of rosbags has them.
    """

    deserialize = staticmethod(read_message)

    def __init__(self, path: Path) -> None:
        self.path = path
        self._known: dict[int, Connection] = {}
        self.message_count, self.start_time, self.end_time = 0, 2**63 - 1, 0
        for identity, time_ns, _ in self._rows():
            self._known[identity].msgcount += 1
            self.message_count += 1
            self.start_time = min(self.start_time, time_ns)
            self.end_time = max(self.end_time, time_ns + 1)
        self.connections = list(self._known.values())

    def messages(self, connections: Collection[Connection], start: int | None = None,
                 stop: int | None = None) -> Iterator[tuple[Connection, int, bytes]]:
        """Connection, time of recording in nanoseconds and serialised message."""
        wanted = {connection.id: connection for connection in connections}
        for identity, time_ns, raw in self._rows():
            if identity in wanted and (start is None or time_ns >= start) and (
                    stop is None or time_ns < stop):
                yield wanted[identity], time_ns, raw

    def close(self) -> None:
        """Nothing stays open."""

    @abstractmethod
    def _rows(self) -> Iterator[tuple[int, int, bytes]]:
        """Identity of the connection, which is known by then, time and message."""


class CutMcap(CutFile):
    """An MCAP file without index."""

    def _rows(self) -> Iterator[tuple[int, int, bytes]]:
        schemas: dict[int, str] = {}
        with self.path.open("rb") as stream:
            if stream.read(len(MCAP_MAGIC)) != MCAP_MAGIC:
                return
            try:
                for code, body in _all_records(stream):
                    if code == SCHEMA:
                        schemas[_ID.unpack_from(body)[0]] = _text(body, _ID.size)[0]
                    elif code == CHANNEL:
                        identity, schema = _IDS.unpack_from(body)
                        self._known.setdefault(identity, Connection(
                            identity, _text(body, _IDS.size)[0], schemas.get(schema, "")))
                    elif code == MESSAGE:
                        identity, _, time_ns, _ = _MESSAGE.unpack_from(body)
                        if identity in self._known:
                            yield identity, time_ns, body[_MESSAGE.size:]
            except struct.error:
                return  # damaged, not only cut


class CutSqlite(CutFile):
    """An SQLite file that is shorter than it says."""

    def _rows(self) -> Iterator[tuple[int, int, bytes]]:
        try:
            database = sqlite3.connect(f"file:{quote(str(self.path))}?immutable=1", uri=True)
        except sqlite3.Error:
            return
        try:
            # Without it SQLite refuses a file that is shorter than its header says.
            database.execute("PRAGMA writable_schema=ON")
            for identity, topic, kind in database.execute("SELECT id, name, type FROM topics"):
                self._known.setdefault(identity, Connection(identity, topic, kind))
            # By the table itself: the index of the times may be behind the cut.
            for identity, time_ns, raw in database.execute(
                    "SELECT topic_id, timestamp, data FROM messages ORDER BY id"):
                if identity in self._known:
                    yield identity, time_ns, raw
        except sqlite3.DatabaseError:
            return  # the cut
        finally:
            database.close()


def open_cut(path: Path, why: str) -> CutFile:
    """What can be read of a file that rosbags refuses.

    Args:
        why: it refuses it.

    Raises:
        BadInput: ``bag``: there is no message before the cut.
    """
    part = CutMcap(path) if path.suffix == ".mcap" else CutSqlite(path)
    if not part.message_count:
        raise BadInput("bag", f"{path} cannot be opened as a bag ({why}), and no message before "
                       "the damage could be read; record it again")
    return part


def _all_records(stream: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """Opcode and content of all records, those within chunks in their place."""
    for code, body, is_whole in _records(stream):
        if code == CHUNK:
            yield from _inside(body)
        elif is_whole:
            yield code, body


def _records(stream: BinaryIO) -> Iterator[tuple[int, bytes, bool]]:
    """Opcode, content, and whether all of it is there."""
    at = stream.tell()
    left = stream.seek(0, io.SEEK_END) - at
    stream.seek(at)
    while left >= _RECORD.size:
        code, size = _RECORD.unpack(stream.read(_RECORD.size))
        left -= _RECORD.size
        yield code, stream.read(min(size, left)), size <= left
        left -= size


def _inside(chunk: bytes) -> Iterator[tuple[int, bytes]]:
    """The whole records of a chunk, of which the end may lack."""
    if len(chunk) < _CHUNK.size + _SIZE.size:
        return
    compression, end = _text(chunk, _CHUNK.size)
    packed = chunk[end + 8:]  # behind its length
    try:
        plain = _UNPACK[compression](packed)
    except Exception:  # damaged bytes raise whatever their unpacker has
        return
    for code, body, is_whole in _records(io.BytesIO(plain)):
        if is_whole:
            yield code, body


def _text(data: bytes, at: int) -> tuple[str, int]:
    """A string with its length before it, and where it ends."""
    (size,) = _SIZE.unpack_from(data, at)
    end = at + _SIZE.size + size
    return data[at + _SIZE.size:end].decode(errors="replace"), end


def _unpack_lz4(packed: bytes) -> bytes:
    import lz4.frame

    return lz4.frame.LZ4FrameDecompressor().decompress(packed)


# All give what they have where the end lacks.
_UNPACK: dict[str, Callable[[bytes], Any]] = {
    "": bytes, "lz4": _unpack_lz4,
    "zstd": lambda packed: zstd().ZstdDecompressor().decompress(packed)}

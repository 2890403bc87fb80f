"""What goes wrong with bags: each gives a result as far as there is one, or one clear sentence."""

from __future__ import annotations

import json
import re
import shutil
import sqlite3
from pathlib import Path

import numpy as np
import pytest
from bag_recorder import (
    PERIOD_NS, colour, compressed, depth_of, image, info, moments, record, scene, stamp_of,
    transform, truth_of)
from models import random_model
from rosbags.highlevel import AnyReader
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin
from test_replay import cloud_of, lidar_moments, run, small_model  # noqa: F401 (autouse)

from sdim_ros.core.completer import Completer
from sdim_ros.core.sensor_data import stamp_ns
from sdim_ros.core.types import ModelLost
from sdim_ros.tools import replay
from sdim_ros.tools.bags.reading import Bag


def facts_of(out: Path) -> dict:
    return json.loads((out / "report.json").read_text())["replay"]


def written(out: Path) -> list[int]:
    """The stamps of the completed maps, in the order in which they were written."""
    with AnyReader([out / "completed"]) as reader:
        return [stamp_ns(reader.deserialize(raw, c.msgtype).header)
                for c, _, raw in reader.messages() if c.topic == "/depth/completed"]


def sentence(capsys) -> str:
    """The one line for the user; nothing of a traceback."""
    lines = [line for line in capsys.readouterr().err.splitlines()
             if line.startswith("sdim replay: ")]
    assert len(lines) == 1
    return lines[0]


def cut(path: Path, share: float) -> None:
    with path.open("r+b") as file:
        file.truncate(int(path.stat().st_size * share))


def large(number):
    """An image that makes a small bag of several chunks and pages."""
    return image(stamp_of(number), np.repeat(scene(number)[0], 20, axis=1), "rgb8")


@pytest.mark.parametrize(("storage", "mode"), [
    (StoragePlugin.MCAP, CompressionMode.NONE), (StoragePlugin.MCAP, CompressionMode.STORAGE),
    (StoragePlugin.SQLITE3, CompressionMode.NONE), (StoragePlugin.SQLITE3, CompressionMode.MESSAGE),
], ids=["mcap", "mcap with zstd", "sqlite3", "sqlite3 with zstd"])
def test_a_bag_that_breaks_off_gives_what_is_before_the_cut(tmp_path, capsys, storage, mode):
    bag = record(tmp_path / "bag", moments(
        8, image=colour, camera_info=info, sparse_depth__image=depth_of, other=large), storage,
        lambda writer: writer.set_compression(mode, CompressionFormat.ZSTD))
    cut(next(f for f in bag.iterdir() if f.suffix in (".mcap", ".db3")), 0.5)
    assert run(bag, tmp_path / "out") == 2
    text = sentence(capsys)
    assert "could not be read as a whole" in text and "messages of 0." in text
    assert "results so far are in" in text
    stamps = written(tmp_path / "out")
    assert 2 <= len(stamps) <= 6
    assert stamps == [stamp_of(number) for number in range(len(stamps))]
    assert facts_of(tmp_path / "out")["damage"] in text
    assert facts_of(tmp_path / "out")["completed"] == len(stamps)


def test_a_cut_that_leaves_no_message_is_one_sentence(tmp_path, capsys):
    for storage in StoragePlugin:
        bag = record(tmp_path / storage.name, moments(2), storage)
        file = next(f for f in bag.iterdir() if f.suffix in (".mcap", ".db3"))
        cut(file, 0.01)
        assert run(bag, tmp_path / "out") == 2
        assert "no message before the damage could be read" in sentence(capsys)
        assert run(file, tmp_path / "out") == 2
        assert "record it again" in sentence(capsys)


def test_a_file_without_any_message_costs_a_bag_without_metadata_only_itself(tmp_path, capsys):
    """As a recorder leaves it that was killed just after it had begun the next file."""
    folder = record(tmp_path / "bag", moments(4))
    (folder / "metadata.yaml").unlink()
    next_file = folder / "bag_1.mcap"
    shutil.copy(folder / "bag.mcap", next_file)
    cut(next_file, 0.01)
    assert run(folder, tmp_path / "out") == 2
    text = sentence(capsys)
    assert "bag_1.mcap cannot be opened" in text and "results so far are in" in text
    assert written(tmp_path / "out") == [stamp_of(number) for number in range(4)]


def test_damaged_bytes_in_the_middle_keep_what_was_before(tmp_path, capsys):
    bag = record(tmp_path / "bag", moments(
        12, image=colour, camera_info=info, sparse_depth__image=depth_of, other=large),
        prepare=lambda w: w.set_compression(CompressionMode.STORAGE, CompressionFormat.ZSTD))
    file = bag / "bag.mcap"
    data = bytearray(file.read_bytes())
    data[len(data) // 2:len(data) // 2 + 300] = bytes(300)
    file.write_bytes(data)
    assert run(bag, tmp_path / "out") == 2
    assert "is damaged after 0." in sentence(capsys)
    assert 1 <= len(written(tmp_path / "out")) < 12


def test_a_bag_without_metadata_is_read_from_its_files(tmp_path):
    first, second = (record(tmp_path / name, [
        m for m in moments(4) if (m[2] >= stamp_of(2)) == later])
        for name, later in (("first", False), ("second", True)))
    whole = tmp_path / "whole"
    whole.mkdir()
    shutil.copy(first / "first.mcap", whole / "bag_10.mcap")
    shutil.copy(second / "second.mcap", whole / "bag_9.mcap")
    assert run(whole, tmp_path / "out") == 0
    assert written(tmp_path / "out") == [stamp_of(number) for number in range(4)]


def test_a_split_bag_whose_last_file_breaks_off_keeps_the_others(tmp_path, capsys):
    parts = [record(tmp_path / f"bag_{n}", [
        m for m in moments(4) if (m[2] >= stamp_of(2)) == bool(n)]) for n in (0, 1)]
    whole = tmp_path / "whole"
    shutil.copytree(parts[0], whole)
    shutil.copy(parts[1] / "bag_1.mcap", whole)
    metadata = (whole / "metadata.yaml").read_text()
    (whole / "metadata.yaml").write_text(
        metadata.replace("- bag_0.mcap\n", "- bag_0.mcap\n  - bag_1.mcap\n"))
    cut(whole / "bag_1.mcap", 0.6)
    assert run(whole, tmp_path / "out") == 2
    assert "bag_1.mcap is cut off" in sentence(capsys)
    assert written(tmp_path / "out")[:2] == [stamp_of(0), stamp_of(1)]


def test_a_bag_that_loops_is_completed_in_its_order_and_the_jumps_are_counted(tmp_path):
    looped = [(topic, make(number), stamp_of(number) + round_ * 16 * PERIOD_NS)
              for round_ in range(2) for number in (0, 8) for topic, make in (
                  ("/image", colour), ("/camera_info", info), ("/depth", depth_of))]
    assert run(record(tmp_path / "bag", looped), tmp_path / "out") == 0
    facts = facts_of(tmp_path / "out")
    assert facts["completed"] == 4 and facts["resets"] == 1 and facts["skipped"] == {}
    assert sorted(written(tmp_path / "out")) == sorted(2 * [stamp_of(0), stamp_of(8)])


@pytest.mark.parametrize(("messages", "flags", "words"), [
    (moments(2, image=colour, camera_info=info), (),
     "has no measured depth .*--topics sparse_depth=... or points=... or disparity=...; there are "
     r"/camera_info \(CameraInfo, 2\), /image \(Image, 2\)"),
    (moments(1, image=colour), (), "has no CameraInfo of /image; .*there is /image"),
    (moments(1, camera_info=info, points=cloud_of), (), "has no image in colour; name the right"),
    (moments(2, a__image=colour, a__camera_info=info, b__image=colour, b__camera_info=info,
             depth=depth_of), (), r"several topics that may be the image in colour: /a/image "
     r"\(Image, 2\), /b/image .*--topics image=/a/image"),
    (lidar_moments(1, depth=depth_of), ("--topics", "points=/depth"),
     "--topics points=/depth: it holds sensor_msgs/msg/Image, expected PointCloud2; there are"),
    (lidar_moments(1), ("--topics", "image=/nowhere"),
     "--topics image=/nowhere: .* has no message there: expected Image or CompressedImage"),
    (lidar_moments(1), ("--topics", "images=/image"), "expected ROLE=/TOPIC.*the roles are image"),
    (lidar_moments(1), ("--gt-topic", "/points"), "--gt-topic /points: it holds .*PointCloud2"),
    (moments(1), ("--points", "0"), "--points '0'"),
    (moments(1), ("--every", "0"), "--every 0"),
    (moments(1), ("--extrinsics", "1,2,3"), "--extrinsics 1,2,3: expected 7"),
    (moments(1), ("--extrinsics", "a"), "--extrinsics a: expected 7 numbers"),
    (moments(1), ("--extrinsics", "-1,2"), "--extrinsics -1,2: expected 7 numbers"),
], ids=["images only", "one message", "no image", "two cameras", "wrong type", "no such topic",
        "no such role", "wrong type of truth", "points", "every", "pose", "numbers", "minus"])
def test_what_cannot_be_replayed_is_one_sentence_and_exit_code_2(
        tmp_path, capsys, messages, flags, words):
    bag = record(tmp_path / "bag", messages)
    assert run(bag, tmp_path / "out", *flags) == 2
    text = sentence(capsys)
    assert re.search(words, text), text
    assert not (tmp_path / "out" / "report.json").exists()


def test_topics_are_told_apart_by_what_they_hold(tmp_path):
    """A gray infrared camera, the node's own results and a map do not stand in the way."""
    gray = lambda n: image(stamp_of(n), scene(n)[0][..., 0], "mono8")  # noqa: E731
    bag = record(tmp_path / "bag", moments(
        1, cam__image_raw=colour, cam__image_raw__compressed=compressed, cam__camera_info=info,
        infra__image_raw=gray, infra__camera_info=info, depth__completed=truth_of,
        depth__camera_info=info, depth__points=cloud_of, aligned__image_raw=depth_of,
        aligned__camera_info=info))
    assert run(bag, tmp_path / "out") == 0
    assert facts_of(tmp_path / "out")["topics"] == {
        "image": "/cam/image_raw", "camera_info": "/cam/camera_info",
        "sparse_depth": "/aligned/image_raw", "sparse_camera_info": "/aligned/camera_info"}


def test_an_empty_bag_and_no_bag_are_one_sentence(tmp_path, capsys):
    empty = record(tmp_path / "empty", [])
    (tmp_path / "folder").mkdir()
    (tmp_path / "note.txt").write_text("no bag")
    for path, words in ((empty, "holds no message"), (tmp_path / "gone", "no such file"),
                        (tmp_path / "folder", "no metadata.yaml"),
                        (tmp_path / "note.txt", "expected the folder of a rosbag2")):
        assert run(path, tmp_path / "out") == 2
        assert words in sentence(capsys)


@pytest.mark.parametrize(("change", "words"), [
    (lambda bag: cut(bag / "bag.db3.zstd", 0.5), "Compressed file ended"),
    (lambda bag: (bag / "metadata.yaml").write_text(
        (bag / "metadata.yaml").read_text().replace("compression_format: zstd",
                                                    "compression_format: lz4")),
     "Compression format 'lz4' is not supported"),
], ids=["cut", "another compressor"])
def test_compressed_files_that_cannot_be_unpacked_are_one_sentence(
        tmp_path, capsys, change, words):
    bag = record(tmp_path / "bag", moments(1), StoragePlugin.SQLITE3, lambda writer:
                 writer.set_compression(CompressionMode.FILE, CompressionFormat.ZSTD))
    change(bag)
    assert run(bag, tmp_path / "out") == 2
    assert words in sentence(capsys)


def test_frames_that_the_core_refuses_are_counted_by_reason_and_the_rest_goes_on(tmp_path):
    def broken(number):
        if number == 1:
            return image(stamp_of(1), scene(1)[0], "hsv8")
        return colour(number) if number != 3 else image(0, scene(3)[0], "rgb8")

    def empty(number):
        return depth_of(number) if number else image(
            stamp_of(0), np.zeros((48, 64), np.float32), "32FC1")

    bag = record(tmp_path / "bag", moments(
        5, image=broken, camera_info=info, sparse_depth__image=empty))
    assert run(bag, tmp_path / "out") == 0
    facts = facts_of(tmp_path / "out")
    assert {reason: found["count"] for reason, found in facts["skipped"].items()} == {
        "no_points": 1, "encoding": 1, "zero_stamp": 1}
    assert "/image: image encoding 'hsv8'" in facts["skipped"]["encoding"]["first"]
    assert written(tmp_path / "out") == [stamp_of(2), stamp_of(4)]


def test_nothing_completed_says_the_first_reason(tmp_path, capsys):
    for name, messages, words in (
            ("apart", [(t, m, n) for t, m, n in moments(2, image=colour, camera_info=info)]
             + [("/depth", depth_of(n), stamp_of(n)) for n in (5, 6)],
             "the smallest gap between stamps is 0.400 s"),
            ("adrift", lidar_moments(1), "no transform from frame 'lidar' to 'camera_optical' (the "
             "bag has no transform on /tf_static or /tf)"),
            ("lost", lidar_moments(1) + [("/tf_static", transform(
                0, "map", "lidar", 0, 0, 0, 0, 0, 0, 1), stamp_of(0))],
             "there is no frame 'camera_optical', only lidar, map")):
        assert run(record(tmp_path / name, messages), tmp_path / f"{name}_out") == 2
        text = sentence(capsys)
        assert "no set of" in text and words in text
        assert facts_of(tmp_path / f"{name}_out")["completed"] == 0
        assert not (tmp_path / f"{name}_out" / "completed").exists()  # for a corrected command


@pytest.mark.parametrize(("problem", "code"), [
    (KeyboardInterrupt(), 130), (ModelLost("the GPU failed"), 2)], ids=["Ctrl-C", "lost GPU"])
def test_what_is_done_is_kept_when_a_replay_is_ended(
        tmp_path, capsys, monkeypatch, problem, code):
    calls = []

    class Ends(Completer):
        def complete(self, frame, **how):
            calls.append(frame)
            if len(calls) == 3:
                raise problem
            return super().complete(frame, **how)

    monkeypatch.setattr(replay, "load_completer", lambda s: Ends(s, random_model()))
    assert run(record(tmp_path / "bag", moments(5)), tmp_path / "out") == code
    assert written(tmp_path / "out") == [stamp_of(0), stamp_of(1)]
    assert facts_of(tmp_path / "out")["stopped"]
    assert sentence(capsys)


def test_a_disk_that_is_full_costs_the_bag_but_not_the_numbers(tmp_path, capsys, monkeypatch):
    raw = replay.BagWriter.raw

    def until_full(writer, *how):
        if sum(writer.counts.values()) == 6:
            raise writer._unwritable(OSError(28, "No space left on device"))
        raw(writer, *how)

    monkeypatch.setattr(replay.BagWriter, "raw", until_full)
    assert run(record(tmp_path / "bag", moments(4)), tmp_path / "out", "--points", "30") == 2
    assert "No space left on device; nothing of it is left" in sentence(capsys)
    assert facts_of(tmp_path / "out")["completed"] == 1
    assert not list((tmp_path / "out").glob("completed*"))


def test_results_are_never_written_over_others(tmp_path, capsys):
    bag = record(tmp_path / "bag", moments(1))
    assert run(bag, tmp_path / "out") == 0
    assert run(bag, tmp_path / "out") == 2
    assert "never written over another" in sentence(capsys)


def test_unreadable_messages_are_counted_and_left_out(tmp_path):
    bag = record(tmp_path / "bag", moments(3), StoragePlugin.SQLITE3)
    with sqlite3.connect(next(bag.glob("*.db3"))) as database:
        database.execute("UPDATE messages SET data = x'0001000003000000' WHERE id = 1")
    assert run(bag, tmp_path / "out") == 0
    facts = facts_of(tmp_path / "out")
    assert facts["completed"] == 2 and facts["skipped"]["unreadable"]["count"] == 1


def test_memory_holds_one_set_at_a_time(tmp_path):
    """Messages are read while sets are made of them, not before."""
    from sdim_ros.core.config import Settings
    from sdim_ros.tools.bags.sets import BagSets

    bag = record(tmp_path / "bag", moments(6))
    with Bag(bag) as opened:
        read = []
        whole = opened.messages
        opened.messages = lambda *how: (read.append(m) or m for m in whole(*how))
        topics = {"image": "/image", "camera_info": "/camera_info",
                  "sparse_depth": "/sparse_depth/image"}
        for number, _ in enumerate(BagSets(opened, topics, Settings())):
            assert len(read) <= 3 * (number + 1)
        assert number == 5

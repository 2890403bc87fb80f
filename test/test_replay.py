"""What sdim replay makes of a bag: results under the images' stamps, errors, and other topics."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import bag_recorder
import numpy as np
import pytest
from bag_recorder import (
    FAST, cloud, colour, compressed, depth_of, info, moments, points_of, record, stamp_of,
    transform, truth_of)
from models import random_model
from rosbags.highlevel import AnyReader
from rosbags.rosbag1 import Writer as Writer1
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin
from rosbags.typesys import Stores, get_typestore

from sdim_ros.core.completer import Completer
from sdim_ros.core.config import Settings, with_values
from sdim_ros.core.projection import pose_matrix, project_points
from sdim_ros.core.sensor_data import read_depth, read_points, stamp_ns
from sdim_ros.core.types import Camera, Frame
from sdim_ros.tools import cli, replay

# A LiDAR with x forward, y left and z up, 0.3 m before and 0.1 m over the camera.
EXTRINSICS = (0.0, -0.1, 0.3, 0.5, -0.5, 0.5, 0.5)


@pytest.fixture(autouse=True)
def small_model(monkeypatch):
    """The real completer with a model of the real class that is quick."""
    model = random_model()
    monkeypatch.setattr(replay, "load_completer", lambda settings: Completer(settings, model))


def run(bag, out, *flags) -> int:
    return cli.main(
        ["replay", str(bag), "--out", str(out), "--pictures", "0", *FAST, *flags])


def report_of(out: Path) -> dict:
    return json.loads((out / "report.json").read_text())


def results(out: Path) -> dict[str, list]:
    """The messages of the bag that was written, by topic."""
    found: dict[str, list] = {}
    with AnyReader([out / "completed"]) as reader:
        for connection, time_ns, raw in reader.messages():
            message = reader.deserialize(raw, connection.msgtype)
            assert time_ns == stamp_ns(message.header)
            found.setdefault(connection.topic, []).append(message)
    return found


def in_lidar(points: np.ndarray) -> np.ndarray:
    """Points of the optical frame in that of the LiDAR."""
    pose = np.linalg.inv(pose_matrix(EXTRINSICS))
    return points @ pose[:3, :3].T + pose[:3, 3]


def cloud_of(number: int):
    return cloud(stamp_of(number), in_lidar(points_of(number)), "lidar")


def lidar_moments(count=2, **more):
    return moments(count, image=colour, camera_info=info, points=cloud_of, **more)


def test_every_set_comes_out_under_the_stamp_and_frame_of_its_image(tmp_path):
    bag = record(tmp_path / "bag", moments(3))
    assert run(bag, tmp_path / "out") == 0
    found = results(tmp_path / "out")
    assert sorted(found) == ["/depth/camera_info", "/depth/completed", "/depth/confidence",
                             "/depth/points"]
    for messages in found.values():
        assert [stamp_ns(m.header) for m in messages] == [stamp_of(n) for n in range(3)]
        assert {m.header.frame_id for m in messages} == {bag_recorder.OPTICAL}
    for number, message in enumerate(found["/depth/completed"]):
        given = bag_recorder.sparse(number)
        depth = read_depth(message, 10**6)
        assert np.array_equal(depth[given > 0], given[given > 0])
    assert found["/depth/camera_info"][0].k.tolist() == info(0).k.tolist()
    assert len(read_points(found["/depth/points"][0])) > 100
    facts = report_of(tmp_path / "out")["replay"]
    assert (facts["images"], facts["sets"], facts["completed"]) == (3, 3, 3)
    assert facts["skipped"] == {} and facts["damage"] is None
    assert facts["first_stamp_s"] == stamp_of(0) / 1e9
    assert {"read", "decode", "project", "complete", "write"} <= set(facts["stages_ms"])
    assert (tmp_path / "out" / "overview.png").stat().st_size > 1000
    assert not (tmp_path / "out" / "error_over_time.png").exists()  # nothing to judge by


def test_the_depth_is_that_of_the_core_bit_by_bit(tmp_path):
    assert run(record(tmp_path / "bag", moments(1)), tmp_path / "out", "--storage",
               "sqlite3") == 0
    settings = with_values(Settings(), {
        "queries.budget": 20, "fill.calibration_points": 0, "fill.folds": 2})
    frame = Frame(bag_recorder.scene(0)[0], bag_recorder.sparse(0), stamp_ns=stamp_of(0))
    expected = Completer(settings, random_model()).complete(frame)
    found = results(tmp_path / "out")
    for topic, values in (("completed", expected.depth), ("confidence", expected.confidence)):
        assert found[f"/depth/{topic}"][0].data.tobytes() == values.tobytes()


def test_hidden_points_judge_and_their_draw_depends_on_seed_and_stamp_alone(tmp_path):
    bag = record(tmp_path / "bag", moments(4))
    maes = {}
    for name, flags in (("all", ()), ("half", ("--every", "2")), ("other", ("--seed", "1"))):
        assert run(bag, tmp_path / name, "--points", "30", *flags) == 0
        content = report_of(tmp_path / name)
        maes[name] = {entry["stamp_s"]: entry["mae"] for entry in content["over_time"]}
        assert {frame["points"] for frame in content["frames"]} == {30}
        assert set(content["methods"]) == {
            "sdim", "fill_only", "nearest", "linear", "edge_aware"}
        assert content["methods"]["sdim"]["held_out"]["mae"] == pytest.approx(
            np.mean(list(maes[name].values())))
    assert len(maes["all"]) == 4 and len(maes["half"]) == 2
    assert maes["half"].items() <= maes["all"].items()
    assert maes["other"] != maes["all"]
    assert (tmp_path / "all" / "error_over_time.png").stat().st_size > 1000


def test_a_topic_of_ground_truth_judges_whatever_the_order_of_the_messages(tmp_path):
    late = [(topic, message, time_ns + (400_000_000 if topic == "/truth" else 0))
            for topic, message, time_ns in moments(
                3, image=colour, camera_info=info, depth=depth_of, truth=truth_of)]
    bag = record(tmp_path / "bag", sorted(late, key=lambda entry: entry[2]))
    assert run(bag, tmp_path / "out", "--gt-topic", "/truth", "--limit", "2") == 0
    content = report_of(tmp_path / "out")
    assert content["replay"]["completed"] == len(content["over_time"]) == 2
    frame = Frame(bag_recorder.scene(0)[0], bag_recorder.sparse(0))
    hidden = frame.sparse == 0
    depth = read_depth(results(tmp_path / "out")["/depth/completed"][0], 10**6)
    error = np.abs(depth - bag_recorder.scene(0)[1])[hidden].mean()
    assert content["over_time"][0]["mae"] == pytest.approx(error, rel=1e-5)


def test_the_reference_of_a_converted_dataset_judges_without_being_named(tmp_path):
    bag = record(tmp_path / "bag", moments(
        2, image=colour, camera_info=info, depth=depth_of, ground_truth__depth=truth_of))
    assert run(bag, tmp_path / "out") == 0
    assert report_of(tmp_path / "out")["replay"]["gt_topic"] == "/ground_truth/depth"
    assert len(report_of(tmp_path / "out")["over_time"]) == 2


def test_a_frame_of_a_converted_dataset_is_never_judged_by_the_reference_of_another(tmp_path):
    """Two frames 0.1 s apart, of which the second has no reference of its own."""
    messages = [entry for entry in moments(
        2, image=colour, camera_info=info, depth=depth_of, ground_truth__depth=truth_of)
        if entry[0] != "/ground_truth/depth" or entry[2] == stamp_of(0)]
    bag = record(tmp_path / "bag", messages)
    wide = ("--set", "sync.slop_s=0.5")
    assert run(bag, tmp_path / "out", *wide) == 0
    content = report_of(tmp_path / "out")["replay"]
    assert content["completed"] == 2 and content["unjudged"]["no_reference"]["count"] == 1
    assert "with the stamp of its image" in content["unjudged"]["no_reference"]["first"]
    assert run(bag, tmp_path / "named", *wide, "--gt-topic", "/ground_truth/depth") == 0
    assert len(report_of(tmp_path / "named")["over_time"]) == 2  # a topic of the user's may differ


@pytest.mark.parametrize("how", ["static", "moving", "extrinsics"])
def test_a_lidar_is_projected_by_the_transforms_of_the_bag_or_by_extrinsics(tmp_path, how):
    """All three ways give the map of the points that were projected by hand."""
    messages, flags = lidar_moments(), ()
    if how == "extrinsics":
        flags = ("--extrinsics", ",".join(map(str, EXTRINSICS)))
    else:
        messages.insert(0, ("/tf_static", transform(
            0, "base" if how == "moving" else bag_recorder.OPTICAL, "lidar", *EXTRINSICS),
            stamp_of(0)))
    if how == "moving":  # known 50 ms later than the set that needs it
        messages += [("/tf", transform(stamp_of(0) + at_ns, bag_recorder.OPTICAL, "base",
                                       at_ns / 1e9 - 0.05, 0, 0, 0, 0, 0, 1),
                      stamp_of(0) + at_ns + 50_000_000) for at_ns in (0, 100_000_000)]
        messages.sort(key=lambda entry: entry[2])
    assert run(record(tmp_path / "bag", messages), tmp_path / "out", *flags) == 0
    facts = report_of(tmp_path / "out")["replay"]
    assert facts["completed"] == 2 and facts["topics"]["points"] == "/points"
    depth = read_depth(results(tmp_path / "out")["/depth/completed"][0], 10**6)
    given = bag_recorder.sparse(0)
    if how == "moving":  # 5 cm to the left of where it is at 50 ms
        camera = Camera(bag_recorder.FOCAL, bag_recorder.FOCAL, bag_recorder.CX, bag_recorder.CY,
                        bag_recorder.WIDTH, bag_recorder.HEIGHT)
        given = project_points(points_of(0) - [0.05, 0, 0], camera, None, 0, np.inf)
    kept = (given > 0) & (np.abs(depth - given) < 1e-4)
    assert kept.sum() > 0.8 * (given > 0).sum()  # the others are hidden by nearer ones


@pytest.mark.parametrize("ending", [".png", ".jpg"])
def test_compressed_images_are_taken_too(tmp_path, ending):
    bag = record(tmp_path / "bag", moments(
        1, cam__image__compressed=lambda n: compressed(n, ending), cam__camera_info=info,
        depth=depth_of))
    assert run(bag, tmp_path / "out") == 0
    assert report_of(tmp_path / "out")["replay"]["topics"] == {
        "image": "/cam/image/compressed", "camera_info": "/cam/camera_info",
        "sparse_depth": "/depth"}


def _compress(mode):
    return lambda writer: writer.set_compression(mode, CompressionFormat.ZSTD)


@pytest.mark.parametrize(("storage", "mode"), [
    (StoragePlugin.SQLITE3, CompressionMode.NONE), (StoragePlugin.SQLITE3, CompressionMode.FILE),
    (StoragePlugin.SQLITE3, CompressionMode.MESSAGE), (StoragePlugin.MCAP, CompressionMode.FILE),
    (StoragePlugin.MCAP, CompressionMode.MESSAGE), (StoragePlugin.MCAP, CompressionMode.STORAGE),
], ids=lambda value: value.name.lower())
def test_storages_and_compressions_are_read(tmp_path, storage, mode):
    bag = record(tmp_path / "bag", moments(1), storage, _compress(mode))
    assert run(bag, tmp_path / "out") == 0
    assert report_of(tmp_path / "out")["replay"]["completed"] == 1


def test_bags_of_ros_1_are_read(tmp_path):
    store = get_typestore(Stores.ROS1_NOETIC)
    head = store.types["std_msgs/msg/Header"](
        0, store.types["builtin_interfaces/msg/Time"](*divmod(stamp_of(0), 10**9)), "camera")
    with Writer1(tmp_path / "old.bag") as writer:
        for topic, new in (("/image", colour(0)), ("/camera_info", info(0)),
                           ("/depth", depth_of(0))):
            kind = new.__msgtype__
            values = {name: getattr(new, name.lower() if name in "DKRP" else name)
                      for name in store.types[kind].__dataclass_fields__ if name[0] != "_"}
            old = store.types[kind](**values | {"header": head})
            connection = writer.add_connection(topic, kind, typestore=store)
            writer.write(connection, stamp_of(0), store.serialize_ros1(old, kind))
    assert run(tmp_path / "old.bag", tmp_path / "out") == 0
    assert run(tmp_path / "old.bag", tmp_path / "ideal", "--set", "input.rectify=true") == 0
    found = results(tmp_path / "out")
    assert found["/depth/camera_info"][0].k.tolist() == info(0).k.tolist()
    assert stamp_ns(found["/depth/completed"][0].header) == stamp_of(0)


def test_several_sources_are_merged_as_the_settings_say(tmp_path):
    bag = record(tmp_path / "bag", lidar_moments(1, depth=depth_of))
    assert run(bag, tmp_path / "out", "--topics", "points=/points,sparse_depth=/depth", "--set",
               "input.sources=points,sparse_depth", "--extrinsics",
               ",".join(map(str, EXTRINSICS))) == 0
    given = bag_recorder.sparse(0)
    depth = read_depth(results(tmp_path / "out")["/depth/completed"][0], 10**6)
    assert np.allclose(depth[given > 0], given[given > 0], atol=1e-5)


def test_only_the_sources_that_the_settings_name_are_looked_for_and_read(tmp_path, capsys):
    bag = record(tmp_path / "bag", lidar_moments(1, depth=depth_of))
    assert run(bag, tmp_path / "lidar", "--set", "input.sources=points", "--extrinsics",
               ",".join(map(str, EXTRINSICS))) == 0
    assert report_of(tmp_path / "lidar")["replay"]["topics"].keys() >= {"points"}
    assert "sparse_depth" not in report_of(tmp_path / "lidar")["replay"]["topics"]
    for flags, said in (
            (["--set", "input.sources=disparity"], "has no measured depth (DisparityImage)"),
            (["--set", "input.sources=points", "--topics", "sparse_depth=/depth"],
             "--topics sparse_depth=/depth: input.sources = points leaves it out")):
        assert run(bag, tmp_path / "refused", *flags) == 2
        assert said in capsys.readouterr().err


def test_the_clock_of_patience_is_that_of_the_bag(tmp_path):
    """With sync.timeout_s an image goes on alone, however fast the bag is read."""
    messages = [m for m in moments(4) if m[0] != "/sparse_depth/image" or m[2] < stamp_of(2)]
    bag = record(tmp_path / "bag", messages)
    assert run(bag, tmp_path / "out", "--set", "sync.timeout_s=0.15", "--set",
               "input.on_empty_sparse=answer") == 0
    assert report_of(tmp_path / "out")["replay"]["completed"] == 4
    confidence = results(tmp_path / "out")["/depth/confidence"]
    assert [m.data.any() for m in confidence] == [True, True, False, False]


def test_a_recording_for_rerun_needs_its_sdk(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "rerun", None)
    bag = record(tmp_path / "bag", moments(1))
    assert run(bag, tmp_path / "out", "--rerun", str(tmp_path / "a.rrd")) == 2
    assert "pip install rerun-sdk" in capsys.readouterr().err
    assert not (tmp_path / "a.rrd").exists()


def test_a_recording_for_rerun_holds_the_frames(tmp_path):
    pytest.importorskip("rerun")
    bag = record(tmp_path / "bag", moments(2))
    path = tmp_path / "a.rrd"
    assert run(bag, tmp_path / "out", "--points", "30", "--rerun", str(path)) == 0
    assert path.read_bytes()[:4] == b"RRF2"
    assert path.stat().st_size > 2 * bag_recorder.WIDTH * bag_recorder.HEIGHT * 4

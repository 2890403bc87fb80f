"""Datasets and bags become folders and bags that hold the same frames."""

from __future__ import annotations

import json
import os
import signal

import cv2
import numpy as np
import pytest
from bag_recorder import STORE, transform
from rosbags.highlevel import AnyReader
from test_nyuv2 import write_prepared
from test_void import write_release

from sdim_ros.core.config import Settings
from sdim_ros.core.types import Camera
from sdim_ros.tools import cli, conversion, frame_sources, sampling
from sdim_ros.tools.bag_writer import BagWriter
from sdim_ros.tools.datasets.catalogue import open_dataset
from sdim_ros.tools.datasets.frames import Sample
from sdim_ros.tools.datasets.frames_folder import FramesFolder
from sdim_ros.tools.datasets.frames_writer import FramesWriter, exact_scale
from sdim_ros.tools.datasets.motorcycle import motorcycle
from sdim_ros.tools.frame_sources import BagSource

HEIGHT, WIDTH = 12, 16
CAMERA = Camera(fx=20.0, fy=21.5, cx=8.25, cy=6.0, width=WIDTH, height=HEIGHT)
STAMP_NS = 1_700_000_000_123_456_789


def image(number):
    return np.random.default_rng(number).integers(0, 255, (HEIGHT, WIDTH, 3), np.uint8)


def depth(number, scale=1000, share=0.3):
    """(H, W) float32 metres, as a PNG of this scale gives them."""
    rng = np.random.default_rng(number)
    values = rng.integers(500, 9000, (HEIGHT, WIDTH)) * (rng.random((HEIGHT, WIDTH)) < share)
    return (values / scale).astype(np.float32)


def sample(number, **changes):
    values = dict(name=f"{number:05d}", image=image(number), sparse=depth(number),
                  truth=depth(number + 50, share=0.9), camera=CAMERA,
                  stamp_ns=STAMP_NS + number * 33_333_333)
    return Sample(**values | changes)


def folder_of(path, samples, scale=1000.0):
    with FramesWriter(path) as writer:
        writer.begin(scale)
        for one in samples:
            writer.add(one)
    return path


def run(*words):
    return cli.main(["convert", *map(str, words)])


def frames_of(bag):
    return [read() for _, read in BagSource(bag, {}, Settings(), None).frames(1, None, print)]


def same(frames, expected, but=()):
    assert len(frames) == len(expected)
    for ours, theirs in zip(frames, expected):
        assert np.array_equal(ours.image, theirs.image)
        for kind in {"sparse", "truth"} - set(but):
            a, b = getattr(ours, kind), getattr(theirs, kind)
            assert (a is None) == (b is None) and (a is None or np.array_equal(a, b))
        assert ours.camera == theirs.camera
        assert "stamp_ns" in but or ours.stamp_ns == theirs.stamp_ns


@pytest.mark.parametrize("scale", [1000, 256, 100])
@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_frames_come_back_from_a_bag_bit_by_bit(tmp_path, scale, storage, capsys):
    frames = [sample(i, sparse=depth(i, scale), truth=depth(i, scale, 0.9)) for i in range(3)]
    frames.append(sample(3, sparse=depth(3, scale), truth=None))
    folder_of(tmp_path / "in", frames, scale)
    same(list(FramesFolder(tmp_path / "in")), frames)
    assert run("--data", tmp_path / "in", "--to", "bag", "--out", tmp_path / "bag", "--storage",
               storage, *(["--compress"] if scale == 256 else [])) == 0
    assert run("--bag", tmp_path / "bag", "--to", "frames", "--out", tmp_path / "out") == 0
    same(list(FramesFolder(tmp_path / "out")), frames)
    assert json.loads((tmp_path / "out" / "frames.json").read_text())["depth_scale"] == scale
    said = capsys.readouterr().out
    assert "4 /image" in said and "3 /ground_truth/depth" in said
    assert f"4 of 4 frames written to {tmp_path}/out (metres = PNG value / {scale})" in said


def test_a_bag_has_the_topics_of_the_node_and_one_stamp_for_each_frame(tmp_path):
    folder_of(tmp_path / "in", [sample(0), sample(1)])
    run("--data", tmp_path / "in", "--to", "bag", "--out", tmp_path / "bag")
    with AnyReader([tmp_path / "bag"]) as reader:
        found = [(c.topic, at, reader.deserialize(data, c.msgtype))
                 for c, at, data in reader.messages()]
    assert {topic for topic, _, _ in found} == {
        "/image", "/camera_info", "/sparse_depth/image", "/ground_truth/depth"}
    assert {at for _, at, _ in found} == {STAMP_NS, STAMP_NS + 33_333_333}
    assert {m.header.frame_id for _, _, m in found} == {"camera_optical"}
    depths = [m for topic, _, m in found if topic == "/sparse_depth/image"]
    assert {m.encoding for m in depths} == {"32FC1"}


def test_the_motorcycle_becomes_a_bag_with_points_as_evaluate_draws_them(tmp_path):
    assert run("--dataset", "motorcycle", "--points", "500", "--seed", "3", "--to", "bag",
               "--out", tmp_path / "bag") == 0
    (ours,), theirs = frames_of(tmp_path / "bag"), motorcycle()
    drawn = sampling.sample_points(theirs.measured, "500", 3)
    assert np.array_equal(ours.sparse, drawn) and np.array_equal(ours.image, theirs.image)
    assert np.array_equal(ours.truth, theirs.truth) and ours.camera == theirs.camera


LIDAR_POSE = (0.0, 0.0, 0.5, 0.5, -0.5, 0.5, 0.5)  # x forward becomes z forward


def lidar_bag(path, *transforms):
    points = np.array([[3.0, 0, 0], [3.0, -0.3, 0]], np.float32)
    with BagWriter(path) as bag:
        for parent, child, pose in transforms:
            message = transform(STAMP_NS, parent, child, *pose)
            bag.raw("/tf_static", message.__msgtype__, STAMP_NS,
                    STORE.serialize_cdr(message, message.__msgtype__))
        for number in range(4):
            stamp_ns = STAMP_NS + number * 100_000_000
            bag.camera_info("/camera/camera_info", stamp_ns, "optical", CAMERA)
            bag.image("/camera/image", stamp_ns, "optical", image(number))
            bag.cloud("/lidar", stamp_ns + 7_000_000, "lidar", points + 0.5 * number)
    return path


@pytest.mark.parametrize("transforms, flags", [
    ([("optical", "lidar", LIDAR_POSE)], []),
    ([], [f"--extrinsics={','.join(map(str, LIDAR_POSE))}"]),
])
def test_the_cloud_of_a_lidar_becomes_a_sparse_map(tmp_path, transforms, flags):
    lidar_bag(tmp_path / "bag", *transforms)
    assert run("--bag", tmp_path / "bag", *flags, "--every", "2", "--to", "frames",
               "--out", tmp_path / "out") == 0
    first, third = FramesFolder(tmp_path / "out")
    # x = 0.3 m to the right at 3.5 m: 20 * 0.3 / 3.5 = 1.7 pixels from 8.25.
    assert np.argwhere(first.sparse).tolist() == [[6, 8], [6, 10]]
    assert (first.sparse[6, [8, 10]] == np.float32(3.5)).all()
    assert third.stamp_ns == STAMP_NS + 200_000_000 and np.array_equal(third.image, image(2))
    assert first.camera == CAMERA and first.truth is None


def test_a_lidar_without_a_pose_is_refused_and_not_taken_as_the_camera(tmp_path, capsys):
    lidar_bag(tmp_path / "bag")
    assert run("--bag", tmp_path / "bag", "--to", "frames", "--out", tmp_path / "out") == 2
    error = capsys.readouterr().err
    assert "none of 4 frames can be converted" in error and "lidar" in error


def test_frames_that_lack_something_are_named_and_left_out(tmp_path, capsys):
    folder_of(tmp_path / "in", [
        sample(0), sample(1, sparse=None, truth=None), sample(2), sample(3, sparse=None),
        sample(4, camera=None), sample(5, stamp_ns=STAMP_NS), sample(6, stamp_ns=0)])
    (tmp_path / "in" / "rgb" / "00002.png").unlink()
    assert run("--data", tmp_path / "in", "--to", "bag", "--out", tmp_path / "bag") == 0
    out, err = capsys.readouterr()
    assert "1 of 7 frames written" in out and "6 left out" in out
    for name, reason in {1: "neither a sparse nor a gt", 2: "has no image", 3: "no sparse map",
                         4: "no camera", 5: f"its stamp is {STAMP_NS} ns", 6: "stamp is 0"}.items():
        assert f"{name:05d}: left out, " in err and reason in err
    assert run("--data", tmp_path / "in", "--to", "frames", "--out", tmp_path / "out") == 0
    assert [frame.name for frame in FramesFolder(tmp_path / "out")] == [
        "00000", "00003", "00004", "00005", "00006"]


def test_a_camera_can_be_given_to_frames_without(tmp_path):
    folder_of(tmp_path / "in", [sample(0, camera=None), sample(1)])
    run("--data", tmp_path / "in", "--to", "frames", "--out", tmp_path / "out",
        "--camera", "10,11,7,5")
    first, second = FramesFolder(tmp_path / "out")
    assert first.camera == Camera(10, 11, 7, 5, WIDTH, HEIGHT) and second.camera == CAMERA


@pytest.mark.parametrize("stamps, expected", [
    ((0, 0, 0), (conversion.FIRST_STAMP_NS, conversion.FIRST_STAMP_NS + 50_000_000,
                 conversion.FIRST_STAMP_NS + 100_000_000)),
    ((0, 7, 9), (1, 7, 9)),
])
def test_frames_without_stamps_get_them_at_a_rate(tmp_path, stamps, expected):
    folder_of(tmp_path / "in", [sample(i, stamp_ns=ns) for i, ns in enumerate(stamps)])
    for to in ("bag", "frames"):
        run("--data", tmp_path / "in", "--to", to, "--out", tmp_path / to, "--rate", "20")
    assert tuple(frame.stamp_ns for frame in frames_of(tmp_path / "bag")) == expected
    assert tuple(frame.stamp_ns for frame in FramesFolder(tmp_path / "frames")) == expected
    run("--data", tmp_path / "in", "--to", "frames", "--out", tmp_path / "plain")
    assert tuple(frame.stamp_ns for frame in FramesFolder(tmp_path / "plain")) == stamps


def far(number, metres):
    depths = np.full((HEIGHT, WIDTH), 2.03, np.float32)
    depths[0, 0] = metres + 1 / 3
    return sample(number, name=f"street/{number}", sparse=depths, truth=None)


def converted(tmp_path, samples, *flags, monkeypatch):
    monkeypatch.setattr(frame_sources, "open_dataset", lambda *_: samples)
    code = run("--dataset", "motorcycle", "--to", "frames", "--out", tmp_path / "out", *flags)
    return code, FramesFolder(tmp_path / "out")


def test_a_scale_that_holds_the_farthest_is_taken_for_all_frames(tmp_path, monkeypatch, capsys):
    samples = [far(0, 10), far(1, 64), far(2, 80), far(3, 10)]
    _, frames = converted(tmp_path, samples, monkeypatch=monkeypatch)
    assert frames.depth_scale == 256 and frames.names == [f"street__{i}" for i in range(4)]
    for ours, theirs in zip(frames, samples):
        assert np.abs(ours.sparse - theirs.sparse).max() <= 0.5 / 256 + 1e-6
    out, err = capsys.readouterr()
    assert "street/2 has depths over 65.5 m" in err and "farther" not in out


def test_depths_over_the_given_scale_are_counted_and_said(tmp_path, monkeypatch, capsys):
    _, frames = converted(tmp_path, [far(0, 10), far(1, 64), far(2, 80)], "--depth-scale", "1000",
                          monkeypatch=monkeypatch)
    assert frames[2].sparse[0, 0] == 0 and frames[1].sparse[0, 0] == np.float32(64.333)
    assert ("1 pixels of 1 frames, first street__2, are farther than 16 bits reach (65.5 m)"
            in capsys.readouterr().out)


def test_the_scale_is_the_one_that_keeps_the_depths(tmp_path):
    assert [exact_scale(sample(0, sparse=depth(0, s), truth=depth(1, s, 0.9)))
            for s in (1000, 256, 100)] == [1000, 256, 100]
    assert exact_scale(sample(0, sparse=np.full((2, 2), np.float32(np.pi)))) == 1000
    assert exact_scale(sample(0, sparse=np.full((2, 2), np.float32(600 + np.pi)))) == 100
    assert exact_scale(sample(0, sparse=np.full((2, 2), np.float32(9000)))) == 100


class StopsItself(list):
    """Frames of which the third one sends a signal, as Ctrl-C does."""

    def __getitem__(self, index):
        if index == 2:
            os.kill(os.getpid(), signal.SIGINT)
        return super().__getitem__(index)


@pytest.mark.parametrize("to", ["frames", "bag"])
def test_ctrl_c_leaves_the_frames_that_are_complete(tmp_path, monkeypatch, capfd, to):
    samples = StopsItself(sample(i) for i in range(5))
    monkeypatch.setattr(frame_sources, "frame_names", lambda frames: [f"{i:05d}" for i in range(5)])
    monkeypatch.setattr(frame_sources, "open_dataset", lambda *_: samples)
    out = tmp_path / "out"
    assert run("--dataset", "motorcycle", "--to", to, "--out", out) == 130
    frames = FramesFolder(out) if to == "frames" else frames_of(out)
    same(list(frames), list.__getitem__(samples, slice(3)))
    said, err = capfd.readouterr()
    assert "3 of 5 frames written" in said and "stopped before the end" in err
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_folder_that_breaks_off_lists_what_is_complete(tmp_path):
    with pytest.raises(RuntimeError), FramesWriter(tmp_path / "out") as writer:
        writer.begin(1000)
        writer.add(sample(0))
        writer.add(sample(1))
        raise RuntimeError
    same(list(FramesFolder(tmp_path / "out")), [sample(0), sample(1)])


@pytest.mark.parametrize("to", ["frames", "bag"])
def test_existing_results_are_kept_and_empty_folders_are_filled(tmp_path, capsys, to):
    folder_of(tmp_path / "in", [sample(0)])
    (tmp_path / "out").mkdir()
    words = ("--data", tmp_path / "in", "--to", to, "--out", tmp_path / "out")
    assert run(*words) == 0 and run(*words) == 2
    assert f"{tmp_path}/out" in capsys.readouterr().err


def test_a_bag_with_several_images_asks_which_one_in_one_sentence(tmp_path, capsys):
    with BagWriter(tmp_path / "bag") as bag:
        for side in ("left", "right"):
            bag.image(f"/{side}/image", STAMP_NS, "c", image(len(side)))
            bag.camera_info(f"/{side}/camera_info", STAMP_NS, "c", CAMERA)
        bag.depth("/depth", STAMP_NS, "c", depth(0))
    words = ("--bag", tmp_path / "bag", "--to", "frames", "--out", tmp_path / "out")
    assert run(*words) == 2
    error = capsys.readouterr().err
    assert "/left/image" in error and "/right/image" in error and error.count("\n") == 1
    assert run(*words, "--topics", "image=/right/image") == 0
    (frame,) = FramesFolder(tmp_path / "out")
    assert np.array_equal(frame.image, image(5)) and frame.camera == CAMERA


@pytest.mark.parametrize("words, named", [
    (["--dataset", "motorcycle", "--every", "0"], "--every 0: expected at least 1"),
    (["--dataset", "motorcycle", "--rate", "0"], "--rate 0.0: expected a number over 0"),
    (["--dataset", "motorcycle", "--points", "x"], "--points 'x'"),
    (["--dataset", "motorcycle", "--bag", "b"], "--bag stands alone"),
    (["--dataset", "motorcycle", "--topics", "image=/a"], "--topics is for --bag"),
    (["--dataset", "motorcycle", "--storage", "mcap"], "--storage is for --to bag"),
    (["--dataset", "motorcycle", "--camera", "1,2"], "--camera 1,2: expected 4 numbers"),
    (["--bag", "nowhere"], "nowhere cannot be opened as a bag"),
    (["--bag", "b", "--topics", "depth=/a"], "the roles are image, camera_info"),
    (["--bag", "b", "--extrinsics", "1,2"], "--extrinsics 1,2: expected 7 numbers"),
    (["--bag", "b", "--set", "sync.slop=1"], "sync.slop"),
    (["--dataset", "motorcycle", "--set", "sync.slop_s=1"], "--set is for --bag"),
    (["--dataset", "motorcycle", "--seed", "-1"], "--seed -1: expected at least 0"),
    (["--data", "nowhere"], "frames.json does not exist"),
])
def test_what_cannot_be_done_is_one_sentence(tmp_path, capsys, words, named):
    assert run(*words, "--to", "frames", "--out", tmp_path / "out") == 2
    error = capsys.readouterr().err
    assert named in error and error.count("\n") == 1


def test_when_no_frame_can_be_used_the_first_reason_is_said(tmp_path, capsys):
    folder_of(tmp_path / "in", [sample(0, sparse=None), sample(1, sparse=None)])
    assert run("--data", tmp_path / "in", "--to", "bag", "--out", tmp_path / "bag") == 2
    assert "none of 2 frames can be converted; first 00000" in capsys.readouterr().err
    assert not (tmp_path / "bag").exists()


def test_the_node_answers_every_frame_of_a_converted_bag_without_remapping(tmp_path, peer):
    from ros_process import NodeProcess

    from sdim_ros.core.sensor_data import read_depth, stamp_ns

    frames = [sample(number) for number in range(3)]
    folder_of(tmp_path / "in", frames)
    run("--data", tmp_path / "in", "--to", "bag", "--out", tmp_path / "bag")
    publishers = {"/image": peer.image, "/camera_info": peer.info,
                  "/sparse_depth/image": peer.sparse}
    with NodeProcess() as node, AnyReader([tmp_path / "bag"]) as reader:
        peer.warm_up()
        for connection, _, data in reader.messages():
            if connection.topic in publishers:
                publishers[connection.topic].publish(bytes(data))
            if connection.topic == "/sparse_depth/image":
                peer.result_of(stamp_ns(reader.deserialize(data, connection.msgtype).header))
        log = node.log()
    # A second result of the warm-up, whose stamps are old, may come late.
    results = [result for result in peer.results if stamp_ns(result.header) >= STAMP_NS]
    assert [stamp_ns(result.header) for result in results] == [
        frame.stamp_ns for frame in frames], log
    assert {result.header.frame_id for result in results} == {"camera_optical"}
    for result, frame in zip(results, frames):
        dense, measured = read_depth(result, 10**6), frame.sparse > 0
        assert np.array_equal(dense[measured], frame.sparse[measured])


def test_all_frames_of_a_training_set_are_taken_and_the_sky_is_unknown(tmp_path):
    for scene in ("Scene01", "Scene02"):
        for kind, pixels in (("rgb/Camera_0/rgb_00000.jpg", image(0)),
                             ("depth/Camera_0/depth_00000.png",
                              np.full((HEIGHT, WIDTH), 30_007, np.uint16))):
            path = tmp_path / "vkitti" / scene / "clone" / "frames" / kind
            path.parent.mkdir(parents=True)
            if kind.startswith("depth"):
                pixels[0] = 65535
            cv2.imwrite(str(path), pixels)
    assert run("--dataset", "virtual_kitti", "--data", tmp_path / "vkitti", "--to", "frames",
               "--out", tmp_path / "out") == 0
    frames = FramesFolder(tmp_path / "out")
    assert frames.names == [
        f"Scene0{number}__clone__frames__rgb__Camera_0__00000" for number in (1, 2)]
    assert frames.depth_scale == 100  # 300 m are too far for the others
    assert not frames[0].truth[0].any() and (frames[0].truth[1:] == np.float32(300.07)).all()


def test_what_is_left_of_a_cut_bag_is_converted_and_the_rest_is_named(tmp_path, capsys):
    folder_of(tmp_path / "in", [sample(number) for number in range(200)])
    run("--data", tmp_path / "in", "--to", "bag", "--out", tmp_path / "bag")
    file = tmp_path / "bag" / "bag.mcap"
    os.truncate(file, file.stat().st_size * 2 // 3)
    capsys.readouterr()
    assert run("--bag", file, "--to", "frames", "--out", tmp_path / "out") == 2
    error = capsys.readouterr().err
    assert "could not be read as a whole: bag.mcap is cut off" in error
    assert f"what could is in {tmp_path}/out" in error
    frames = FramesFolder(tmp_path / "out")
    # The cut may lie within the last one.
    same(list(frames)[:-1], [sample(number) for number in range(len(frames) - 1)])
    assert 1 < len(frames) < 200


@pytest.mark.parametrize("name, write", [("void_150", write_release), ("nyuv2", write_prepared)])
def test_benchmarks_keep_what_they_are_judged_by(tmp_path, name, write):
    (tmp_path / "data").mkdir()
    write(tmp_path / "data")
    for to in ("frames", "bag"):
        assert run("--dataset", name, "--data", tmp_path / "data", "--to", to, "--out",
                   tmp_path / to) == 0
    expected = list(open_dataset(str(tmp_path / "data"), name))
    same(frames_of(tmp_path / "bag"), expected, but=("stamp_ns",))
    folder = FramesFolder(tmp_path / "frames")
    assert len(folder) == len(expected)
    for ours, theirs in zip(folder, expected):
        assert np.array_equal(ours.image, theirs.image) and ours.camera == theirs.camera
        for kind in ("sparse", "truth"):
            error = np.abs(getattr(ours, kind) - getattr(theirs, kind))
            assert error.max() <= (0 if name == "void_150" else 0.5e-3 + 1e-6)

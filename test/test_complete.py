from __future__ import annotations

import errno
import json
import shutil

import cv2
import numpy as np
import pytest
from test_evaluate import FakeCompleter

from sdim_ros.core.types import ModelFailed, ModelLost
from sdim_ros.tools import cli, complete


@pytest.fixture
def files(tmp_path, monkeypatch):
    """An image and its sparse depth, 0.5 m to 90 m, as PNG and NPY; a model that needs no time."""
    monkeypatch.setattr(complete, "load_completer", FakeCompleter)
    return write_files(tmp_path)


def write_files(tmp_path):
    rng = np.random.default_rng(0)
    cv2.imwrite(str(tmp_path / "room.png"), rng.integers(0, 255, (20, 30, 3), dtype=np.uint8))
    sparse = np.zeros((20, 30), np.float32)
    sparse[::5, ::5] = rng.uniform(0.5, 60, (4, 6)).round(3)
    cv2.imwrite(str(tmp_path / "sparse.png"), np.round(sparse * 1000).astype(np.uint16))
    sparse[0, 0] = 90.0
    np.save(tmp_path / "sparse.npy", sparse)
    return tmp_path


def run(folder, sparse, *more):
    return cli.main(["complete", "--image", str(folder / "room.png"), "--sparse",
                     str(folder / sparse), "--out", str(folder / "out"), *more])


def test_the_result_never_replaces_its_own_input(tmp_path, capsys):
    cv2.imwrite(str(tmp_path / "room.png"), np.zeros((24, 32, 3), np.uint8))
    given = tmp_path / "room_depth.png"
    cv2.imwrite(str(given), np.full((24, 32), 2000, np.uint16))
    before = given.read_bytes()
    assert cli.main(["complete", "--image", str(tmp_path / "room.png"), "--sparse", str(given),
                     "--out", str(tmp_path)]) == 2
    assert "would replace the input" in capsys.readouterr().err
    assert given.read_bytes() == before


def test_png_input_gives_all_result_files_in_metres(files):
    assert run(files, "sparse.png", "--depth-scale", "1000") == 0
    out = files / "out"
    depth, confidence = np.load(out / "room_depth.npy"), np.load(out / "room_confidence.npy")
    assert depth.shape == (20, 30) and depth.dtype == confidence.dtype == np.float32
    png = cv2.imread(str(out / "room_depth.png"), cv2.IMREAD_UNCHANGED)
    np.testing.assert_allclose(png / 1000, depth, atol=6e-4)
    share = cv2.imread(str(out / "room_confidence.png"), cv2.IMREAD_UNCHANGED)
    np.testing.assert_allclose(share / 65535, confidence, atol=1e-4)
    assert (out / "room_overview.png").is_file()
    report = json.loads((out / "report.json").read_text())
    assert report["depth_scale"] == 1000 and report["frames"][0]["points"] == 24


def test_depths_beyond_16_bits_are_unknown_in_the_png_and_said_so(files, capsys):
    assert run(files, "sparse.npy") == 0
    depth = np.load(files / "out" / "room_depth.npy")
    png = cv2.imread(str(files / "out" / "room_depth.png"), cv2.IMREAD_UNCHANGED)
    assert depth[0, 0] == 90.0 and png[0, 0] == 0
    assert "farther than a PNG" in capsys.readouterr().out


@pytest.fixture
def folder(files):
    """Frame b without a point, c without an image, d without sparse depth, e like a."""
    for kind in ("rgb", "sparse", "gt"):
        (files / kind).mkdir()
    for name in "abcde":
        for kind, source in (("rgb", "room"), ("sparse", "sparse"), ("gt", "sparse")):
            (files / kind / f"{name}.png").write_bytes((files / f"{source}.png").read_bytes())
    cv2.imwrite(str(files / "sparse" / "b.png"), np.zeros((20, 30), np.uint16))
    (files / "rgb" / "c.png").write_text("no image")
    (files / "sparse" / "d.png").unlink()
    (files / "frames.json").write_text(json.dumps(
        {"depth_scale": 1000, "frames": [{"name": name} for name in "abcde"]}))
    return files


def run_folder(folder):
    code = cli.main(["complete", "--data", str(folder), "--out", str(folder / "out")])
    return code, {path.name[0] for path in (folder / "out").glob("*_depth.npy")}


def test_a_frames_folder_completes_what_it_can_and_names_what_it_skips(folder, capsys):
    assert run_folder(folder) == (0, {"a", "e"})
    skipped = json.loads((folder / "out" / "report.json").read_text())["skipped"]
    error = capsys.readouterr().err
    for name, reason in (("b", "without a point"), ("c", "not an image"), ("d", "is missing")):
        assert reason in skipped[name]
        assert f"{name}: skipped, {skipped[name]}" in error
    assert list(skipped) == ["b", "c", "d"]


def test_the_depth_scale_of_a_frames_folder_is_its_own_and_that_of_one_image_1000(folder, capsys):
    assert cli.main(["complete", "--data", str(folder), "--out", str(folder / "out"),
                     "--depth-scale", "256"]) == 2
    assert capsys.readouterr().err == (
        "sdim complete: --depth-scale 256 with --data: frames.json says the scale, in and out; "
        "leave it out\n")
    assert run(folder, "sparse.png") == 0
    assert json.loads((folder / "out" / "report.json").read_text())["depth_scale"] == 1000
    assert run(folder, "sparse.npy", "--depth-scale", "256") == 0
    png = cv2.imread(str(folder / "out" / "room_depth.png"), cv2.IMREAD_UNCHANGED)
    assert png[0, 0] == 90 * 256


def test_a_folder_with_no_frame_that_works_ends_with_code_2_and_a_report(
        folder, monkeypatch, capsys):
    class Fails(FakeCompleter):
        def complete(self, frame, **_):
            raise ModelFailed("out of memory")

    monkeypatch.setattr(complete, "load_completer", Fails)
    assert run_folder(folder) == (2, set())
    report = json.loads((folder / "out" / "report.json").read_text())
    assert len(report["skipped"]) == 5 and report["skipped"]["a"] == "out of memory"
    assert "none of 5 frames could be completed" in capsys.readouterr().err


def test_a_lost_gpu_ends_it_at_once(folder, monkeypatch, capsys):
    class Loses(FakeCompleter):
        def complete(self, frame, **more):
            if frame.name == "e":
                raise ModelLost("the GPU failed")
            return super().complete(frame, **more)

    monkeypatch.setattr(complete, "load_completer", Loses)
    assert run_folder(folder) == (2, {"a"})
    assert "sdim complete: the GPU failed" in capsys.readouterr().err


def test_a_frame_in_a_folder_of_its_own_is_completed_like_the_others(folder, capsys):
    for kind in ("rgb", "sparse"):
        (folder / kind / "left").mkdir()
        (folder / kind / "a.png").rename(folder / kind / "left" / "0.png")
    index = {"depth_scale": 1000, "frames": [{"name": "left/0"}]}
    (folder / "frames.json").write_text(json.dumps(index))
    assert cli.main(["complete", "--data", str(folder), "--out", str(folder / "out")]) == 0
    assert (folder / "out" / "left__0_depth.npy").is_file()
    index["frames"].append({"name": "left__0"})
    (folder / "frames.json").write_text(json.dumps(index))
    assert cli.main(["complete", "--data", str(folder), "--out", str(folder / "out")]) == 2
    assert "2 frames" in (said := capsys.readouterr().err) and "left__0" in said


def test_ground_truth_is_never_the_input(folder, capsys):
    shutil.rmtree(folder / "sparse")
    assert run_folder(folder) == (2, set())
    error = capsys.readouterr().err
    assert "sparse is missing" in error and "sdim evaluate --data" in error
    assert "--points" in error and error.count("\n") == 1


@pytest.mark.parametrize("sparse, flags, expected", [
    ("missing.png", [], "missing.png does not exist"),
    ("room.png", [], "16 bits"),
    (".", [], "is a folder: expected a file"),
    ("sparse.png", ["--depth-scale", "inf"], "--depth-scale inf"),
    ("sparse.png", ["--depth-scale", "0"], "--depth-scale"),
    ("sparse.png", ["--set", "fill.trust=["], "--set fill.trust=["),
    ("sparse.png", ["--set", "worker.watchdog_s=3"], "--set worker.watchdog_s: nothing here reads"),
    ("sparse.png", ["--data", "folder"], "either --image with --sparse, or --data"),
])
def test_wrong_input_ends_with_one_line_and_code_2(files, capsys, sparse, flags, expected):
    assert run(files, sparse, *flags) == 2
    error = capsys.readouterr().err
    assert expected in error and error.count("\n") == 1


def test_a_file_that_cannot_be_written_is_one_line(files, monkeypatch, capsys):
    def full(path, _):
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(complete.np, "save", full)
    assert run(files, "sparse.png") == 2
    error = capsys.readouterr().err
    assert "room_depth.npy cannot be read or written: No space left" in error
    assert error.count("\n") == 1


def test_a_result_folder_that_cannot_be_is_told_before_the_model_loads(files, monkeypatch, capsys):
    monkeypatch.setattr(complete, "load_completer", lambda _: pytest.fail("loaded"))
    (files / "out").write_text("a file")
    assert run(files, "sparse.png") == 2
    assert "out cannot be written to: File exists; choose another" in capsys.readouterr().err


def test_depth_that_nobody_is_sure_of_is_left_out_where_the_user_wants_that(files):
    for minimum in ("0.0", "0.9"):
        assert run(files, "sparse.png", "--set", f"output.min_confidence={minimum}") == 0
        confidence = np.load(files / "out" / "room_confidence.npy")
        known = np.isfinite(np.load(files / "out" / "room_depth.npy"))
        assert (known == (confidence >= float(minimum))).all()
    assert not known.all()


def test_image_and_depth_of_different_size_are_refused(files, capsys):
    np.save(files / "small.npy", np.ones((5, 5), np.float32))
    assert run(files, "small.npy") == 2
    assert "(5, 5)" in capsys.readouterr().err


def test_an_image_alone_keeps_its_own_error(files, capsys):
    np.save(files / "empty.npy", np.zeros((20, 30), np.float32))
    assert run(files, "empty.npy") == 2
    assert capsys.readouterr().err == "sdim complete: sparse depth without a point\n"


def test_the_embedded_model_fills_every_pixel_and_keeps_the_measured_ones(tmp_path):
    write_files(tmp_path)
    assert run(tmp_path, "sparse.npy", "--preset", "fast") == 0
    depth = np.load(tmp_path / "out" / "room_depth.npy")
    sparse = np.load(tmp_path / "sparse.npy")
    assert np.isfinite(depth).all()
    np.testing.assert_array_equal(depth[sparse > 0], sparse[sparse > 0])
    frame = json.loads((tmp_path / "out" / "report.json").read_text())["frames"][0]
    assert frame["queries"] > 0

"""The offline twin of learning on the robot: what it writes, and that its figures are fair."""

from __future__ import annotations

import json
import math
from pathlib import Path

import cv2
import numpy as np
import pytest
from bag_recorder import moments, record, stamp_of
from models import frame as scene

from sdim_ros.core.types import BadInput, Frame
from sdim_ros.tools import cli
from sdim_ros.tools.adaptation_course import LiveError, course_of
from sdim_ros.tools.adaptation_report import sentences
from sdim_ros.tools.poison import parse_poison

FRAMES = 6
FAST = ["--preset", "fast", "--set", "queries.budget=60", "--set", "fill.calibration_points=30",
        "--set", "adaptation.frames=1", "--set", "adaptation.judge_every=2"]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Dense frames of small scenes."""
    folder = tmp_path_factory.mktemp("frames")
    for kind in ("rgb", "gt"):
        (folder / kind).mkdir()
    for number in range(FRAMES):
        image, depth = scene(number, 72, 96, points=72 * 96)
        cv2.imwrite(str(folder / "rgb" / f"{number}.png"), image)
        cv2.imwrite(str(folder / "gt" / f"{number}.png"), (depth * 1000).astype(np.uint16))
    (folder / "frames.json").write_text(json.dumps(
        {"depth_scale": 1000, "frames": [{"name": str(n)} for n in range(FRAMES)]}))
    return folder


def adapt(data: Path, out: Path, *more: str) -> dict:
    assert cli.main(["adapt", "--data", str(data), "--points", "150", "--out", str(out), *FAST,
                     *more]) == 0
    return json.loads((out / "report.json").read_text())


def test_the_first_frames_adapt_and_the_others_measure(data: Path, tmp_path: Path) -> None:
    report = adapt(data, tmp_path, "--adapt", "3", "--steps", "4")
    assert [frame["name"] for frame in report["frames"]] == ["3", "4", "5"]
    assert {"sdim", "sdim_adapted", "answers", "answers_adapted"} <= set(report["methods"])
    gain = report["adaptation"]["sdim_adapted"]["median"]
    before, after = (report["methods"][name]["held_out"]["mae"]
                     for name in ("sdim", "sdim_adapted"))
    assert gain == pytest.approx(1 - after / before)
    [run] = report["adaptation"]["runs"]
    assert run["steps_with_rolled_back"] == 4 and run["judged"]
    assert "sdim_adapted" in report["paired"]["against"]
    assert "before and after" in (tmp_path / "report.html").read_text()
    assert (tmp_path / "adaptation.png").is_file() and list((tmp_path / "adapter").iterdir())


def test_what_was_learnt_offline_is_used_where_its_folder_is_named(
        data: Path, tmp_path: Path, capsys) -> None:
    report = adapt(data, tmp_path / "tuned", "--adapt", "3", "--steps", "4")
    assert cli.main(["complete", "--image", str(data / "rgb" / "0.png"), "--sparse",
                     str(data / "gt" / "0.png"), "--out", str(tmp_path / "one"), "--set",
                     f"adaptation.folder={tmp_path / 'tuned'}"]) == 2
    assert f"holds no adapter: expected {tmp_path}/tuned/adapter" in capsys.readouterr().err
    assert cli.main(["evaluate", "--data", str(data), "--points", "150", "--methods", "sdim",
                     "--out", str(tmp_path / "out"), *FAST, "--set",
                     f"adaptation.folder={tmp_path / 'tuned' / 'adapter'}"]) == 0
    frames = json.loads((tmp_path / "out" / "report.json").read_text())["frames"]
    measured = {f["name"]: f["metrics"]["sdim"]["held_out"]["mae"] for f in frames}
    for frame in report["frames"]:
        assert measured[frame["name"]] == pytest.approx(
            frame["metrics"]["sdim_adapted"]["held_out"]["mae"], rel=0.05)


def test_online_every_frame_is_measured_before_it_is_learnt_from(
        data: Path, tmp_path: Path) -> None:
    report = adapt(data, tmp_path, "--online", "--steps", "6")
    live = report["adaptation"]["runs"][0]["live"]
    assert [frame["name"] for frame in live["frames"]] == [str(n) for n in range(FRAMES)]
    first = live["frames"][0]
    assert first["now"] == first["before"]  # nothing was learnt yet
    assert live["second_half"]["frames"] == FRAMES // 2
    assert live["worst_window"]["frames"] == FRAMES


def test_spoilt_frames_reach_both_weights_and_are_told_apart_from_the_sound_ones(
        data: Path, tmp_path: Path, capsys) -> None:
    sound = adapt(data, tmp_path / "sound", "--online", "--steps", "1")
    report = adapt(data, tmp_path / "spoilt", "--online", "--steps", "1", "--poison", "unit:2:2")
    frames, same = (r["adaptation"]["runs"][0]["live"]["frames"] for r in (report, sound))
    assert [frame["before"] > 2 * other["before"] for frame, other in zip(frames, same)] == [
        False, False, True, True, False, False]
    [poison] = report["adaptation"]["runs"][0]["live"]["poison"]
    assert [poison[part]["frames"] for part in ("before", "during", "after")] == [2, 2, 2]
    assert poison["during"]["loaded_mae"] == pytest.approx(
        np.mean([frames[n]["before"] for n in (2, 3)]))
    assert poison["lasting"] == pytest.approx(
        poison["after"]["ratio"] / poison["before"]["ratio"] - 1)
    assert "unit in 2 frames from 2 on" in " ".join(capsys.readouterr().out.split())


def test_seeds_repeat_the_draw_from_the_loaded_weights(data: Path, tmp_path: Path, capsys
                                                       ) -> None:
    both = adapt(data, tmp_path / "both", "--adapt", "4", "--steps", "2", "--seeds", "0,1")
    alone = adapt(data, tmp_path / "alone", "--adapt", "4", "--steps", "2", "--seeds", "1")

    def of_seed_1(report: dict) -> list[dict]:
        return [frame["metrics"] for frame in report["frames"] if frame["seed"] == 1]

    assert of_seed_1(both) == of_seed_1(alone)
    learnt = [run["seed"] for run in both["adaptation"]["runs"] if run["steps"]]
    said = " ".join(capsys.readouterr().out.split())
    if learnt:  # the first draw that helped is kept
        assert f"holds what was learnt with seed {learnt[0]}" in said
    else:
        assert "no adapter was written" in said
    assert len(both["adaptation"]["sdim_adapted"]["lower_by"]) == 2


@pytest.mark.parametrize("flags, expected", [
    (["--adapt", "6"], "--adapt 6: expected 1 to 5"),
    (["--poison", "magic:1:2"], "magic:1:2: expected KIND:START:LENGTH"),
    (["--steps", "0"], "--steps 0"),
    (["--seeds", "a"], "--seeds a"), (["--seeds", "-1"], "--seeds -1"),
    (["--set", "adaptation.folder=x"], "adaptation.folder"),
    (["--poison", "unit:6:2"], "unit:6:2: expected a first frame from 0 to 5: 6 adapt"),
    (["--adapt", "4", "--poison", "unit:4:2"], "unit:4:2: expected a first frame from 0 to 3"),
    (["--points", "abc"], "--points 'abc'"), (["--bag", "b"], "--bag beside --data"),
    (["--gt-topic", "/depth"], "--gt-topic is for --bag"),
    (["--online", "--adapt", "2"], "--adapt 2 beside --online")])
def test_a_wrong_flag_ends_with_one_line_and_code_2(
        data: Path, tmp_path: Path, capsys, flags: list[str], expected: str) -> None:
    assert cli.main(["adapt", "--data", str(data), "--out", str(tmp_path), *flags]) == 2
    error = capsys.readouterr().err
    assert expected in error and error.count("\n") == 1


def test_without_a_frame_that_measures_it_says_why_and_keeps_what_a_robot_has_learnt(
        tmp_path: Path, capsys) -> None:
    (tmp_path / "data" / "rgb").mkdir(parents=True)
    cv2.imwrite(str(tmp_path / "data" / "rgb" / "0.png"), scene(0)[0])
    (tmp_path / "data" / "frames.json").write_text(json.dumps(
        {"depth_scale": 1000, "frames": [{"name": "0"}]}))
    (tmp_path / "out" / "adapter" / "000007").mkdir(parents=True)
    assert cli.main(["adapt", "--data", str(tmp_path / "data"), "--out", str(tmp_path / "out"),
                     *FAST]) == 2
    said = capsys.readouterr()
    assert "no frame could be measured: frame 0 has neither" in said.err
    assert "no adapter was written" in said.out
    assert [path.name for path in (tmp_path / "out" / "adapter").iterdir()] == ["000007"]


def test_all_points_may_teach_where_nothing_is_left_to_judge(tmp_path: Path, capsys) -> None:
    """A robot's own recording, over night: no reference, and no point is kept back."""
    bag = record(tmp_path / "bag", moments(1))
    assert cli.main(["adapt", "--bag", str(bag), "--steps", "1", "--out", str(tmp_path / "out"),
                     *FAST]) == 0
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["adaptation"]["runs"][0]["steps_with_rolled_back"] == 1
    assert "nothing is left that judges" in (tmp_path / "out" / "report.html").read_text()
    assert cli.main(["adapt", "--bag", str(bag), "--steps", "1", "--online", "--out",
                     str(tmp_path / "live"), *FAST]) == 0


def test_the_frames_of_a_bag_are_the_sets_that_come_together_and_get_all_steps(
        tmp_path: Path) -> None:
    """Three images for each depth, of which one is near enough in time."""
    messages = [m for m in moments(9) if m[0] != "/sparse_depth/image" or m[2] in (
        stamp_of(1), stamp_of(4), stamp_of(7))]
    bag = record(tmp_path / "bag", messages)
    assert cli.main(["adapt", "--bag", str(bag), "--points", "50%", "--steps", "6", "--adapt", "2",
                     "--out", str(tmp_path / "out"), *FAST]) == 0
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert len(report["frames"]) == 1
    assert report["adaptation"]["runs"][0]["steps_with_rolled_back"] == 6


def spoilt(text: str) -> tuple[Frame, Frame, list[Frame]]:
    frames = [Frame(*scene(number)) for number in range(4)]
    poison = parse_poison(text)
    return frames[0], frames[1], [poison.apply(n, f, frames[0], 0)
                                  for n, f in enumerate(frames)]


def test_poison_spoils_its_frames_and_no_others() -> None:
    before, sound, found = spoilt("outliers:1:2")
    changed = [(f.sparse != Frame(*scene(n)).sparse).sum() for n, f in enumerate(found)]
    assert changed[0] == changed[3] == 0
    assert changed[1] == changed[2] == round(0.3 * np.count_nonzero(sound.sparse))
    assert not spoilt("lens_cap:1:1")[2][1].image.any()
    np.testing.assert_array_equal(spoilt("frozen:1:1")[2][1].image, before.image)
    np.testing.assert_allclose(spoilt("unit:1:1")[2][1].sparse, sound.sparse * 3.28084, rtol=1e-5)


@pytest.mark.parametrize("text", ["outliers", "outliers:1", "outliers:1:0", "unit:-1:3", "x:1:1"])
def test_poison_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(BadInput, match="KIND:START:LENGTH"):
        parse_poison(text)


def test_the_result_is_said_in_both_directions() -> None:
    class Learner:
        total_steps = 9

        class status:  # noqa: N801
            state, steps, rollbacks, dropped_steps = "learning", 8, 1, 0
            refused = {"static": 2}

    errors = [LiveError(n, str(n), 1.0, 0.9 if n > 14 else 1.02) for n in range(30)]
    course = course_of(0, Learner, [], errors, [parse_poison("outliers:5:10")])
    live = course["live"]
    assert live["second_half"]["ratio"] == pytest.approx(0.9)
    assert live["worst_window"]["ratio"] == pytest.approx(1.02)
    assert live["poison"][0]["lasting"] == pytest.approx(0.9 / 1.02 - 1)
    lines = sentences({"adaptation": {
        "runs": [course],
        "sdim_adapted": {"lower_by": [-0.02], "median": -0.02,
                         "paired": {"images": 30, "ci95": [0.001, 0.003]}},
        "answers_adapted": {"lower_by": [0.1, 0.3], "median": 0.2,
                            "paired": {"images": 60, "ci95": [-0.02, -0.01]}}}})
    assert "raises the MAE of the map by 2.0 %" in lines[0] and "+0.00100 to" in lines[0]
    assert "lowers the MAE of the answers by 20.0 % (median of 2 seeds)" in lines[1]
    assert "1 rollbacks; frames refused: 2 static" in lines[2]
    assert "(10.0 % lower than as loaded)" in lines[3]
    assert "0 to 9: 2.0 % higher" in lines[4]
    assert "is 11.8 % better after it than before" in lines[5]


def test_of_one_frame_nobody_knows_how_sure_its_gain_is() -> None:
    change = {"median": 0.03, "lower_by": [0.03], "paired": {"images": 1, "ci95": [math.nan] * 2}}
    [line] = sentences({"adaptation": {"sdim_adapted": change, "runs": []}})
    assert line == "adaptation lowers the MAE of the map by 3.0 % (median of 1 seeds)"

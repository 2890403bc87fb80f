from __future__ import annotations

import dataclasses
import json

import cv2
import numpy as np
import pytest
from rich.console import Console

from sdim_ros.core.types import Stats
from sdim_ros.tools import overview, report, report_tables
from sdim_ros.tools.results import FrameResult, judge, judge_by_range, judge_doubts


def result(error_m: float, name: str = "a", method: str = "linear") -> FrameResult:
    reference = np.full((4, 5), 2.0, np.float32)
    given = np.zeros_like(reference)
    given[0, :] = 2.0
    prediction = np.where(given > 0, 2.0, 2.0 + error_m).astype(np.float32)
    return FrameResult(name, 0, 5, {method: judge(prediction, reference, given)}, {method: 3.0})


def test_given_pixels_count_in_protocol_but_not_in_held_out():
    errors = result(0.4).errors["linear"]
    assert errors["protocol"]["mae"] == pytest.approx(0.3)
    assert errors["held_out"]["mae"] == pytest.approx(0.4)


def test_held_out_is_left_out_when_every_reference_pixel_was_given():
    depth = np.ones((2, 2), np.float32)
    assert set(judge(depth, depth, depth)) == {"protocol"}


def test_methods_are_averaged_over_frames_with_an_interval():
    built = report.build({}, [result(0.1), result(0.3, "b")])
    held_out = built["methods"]["linear"]["held_out"]
    assert held_out["mae"] == pytest.approx(0.2)
    low, high = held_out["ci95"]["mae"]
    assert 0.1 - 1e-6 <= low < 0.2 < high <= 0.3 + 1e-6
    assert built["methods"]["linear"]["ms_per_frame"]["median"] == 3.0


def test_draws_of_one_image_are_no_images_of_their_own():
    draws = [dataclasses.replace(result(error, name), seed=seed)
             for name, errors in (("a", (0.1, 0.2)), ("b", (0.5, 0.6)))
             for seed, error in enumerate(errors)]
    held_out = report.build({}, draws)["methods"]["linear"]["held_out"]
    assert held_out["images"] == 2 and held_out["mae"] == pytest.approx(0.35)
    alone = report.build({}, [result(0.15), result(0.55, "b")])["methods"]["linear"]["held_out"]
    assert held_out["ci95"]["mae"] == pytest.approx(alone["ci95"]["mae"])
    one = report.build({}, draws[:2])["methods"]["linear"]["held_out"]
    assert one["images"] == 1 and np.isnan(one["ci95"]["mae"]).all()


def test_a_map_with_holes_is_neither_best_nor_the_measure_of_others():
    def both(error_m: float, name: str) -> FrameResult:
        reference = np.full((4, 5), 2.0, np.float32)
        given, holes = np.zeros_like(reference), np.full_like(reference, 2.1)
        given[0, :], holes[3, :] = 2.0, 0  # where it would be hard
        return FrameResult(name, 0, 5, {
            "sdim": judge(reference + error_m, reference, given),
            "other": judge(holes, reference, given)}, {})

    built = report.build({}, [both(0.2, "a"), both(0.3, "b")])
    assert built["methods"]["other"]["held_out"]["missing"] == pytest.approx(1 / 3)
    assert built["paired"]["against"]["other"] == {}
    table = report_tables.errors(built["methods"], "held_out")
    assert not [cell for group in table.groups for _, cells in group.rows for cell in cells
                if cell.kind == "best"]


def test_doubted_points_are_held_against_those_that_were_replaced():
    before = np.full((1, 8), 2.0, np.float32)
    given = np.array([[3, 3, 1, 2.1, 2, 2, 2, 2]], np.float32)  # three far off, one nearly right
    found = judge_doubts(before, given, (np.zeros(3, int), np.array([0, 1, 5])))
    assert found == {"replaced": 4, "found": 2, "far": 3, "found_far": 2}
    results = [dataclasses.replace(result(0.1, name), doubt=found, stats=Stats(doubted=3))
               for name in ("a", "b")]
    built = report.build({"doubt_mode": "reject"}, results)
    assert built["doubt"] == pytest.approx({
        "points_per_frame": 3, "precision": 2 / 3, "recall": 0.5, "recall_far": 2 / 3})
    assert built["frames"][0]["doubted"] == 3
    text = report.doubts(built)
    assert text.startswith("3.0 points a frame doubted (reject): 67 % of them were replaced")
    assert "50 % were found, 67 % of those over 10 % off" in text
    clean = report.build({"doubt_mode": "warn"}, [
        dataclasses.replace(result(0.1), stats=Stats(doubted=1))])
    assert report.doubts(clean) == "1.0 points a frame doubted (warn)"


def test_report_json_is_strict_json_with_null_for_nan(tmp_path):
    report.write_json(tmp_path / "r.json", {"a": float("nan"), "b": np.float32(0.5),
                                            "c": [np.int64(3), (float("inf"),)]})
    text = (tmp_path / "r.json").read_text()
    assert json.loads(text, parse_constant=pytest.fail) == {"a": None, "b": 0.5, "c": [3, [None]]}


def test_the_table_marks_the_best_of_the_whole_maps_only():
    results = [FrameResult("a", 0, 5, {
        **result(0.2).errors, **result(0.3, method="nearest").errors,
        **result(0.1, method="answers").errors})]
    table = report.table(report.build({}, results))
    console = Console(width=80, record=True, file=open("/dev/null", "w"))
    console.print(table)
    text = console.export_text()
    assert all(number in text for number in ("0.2000", "0.3000", "0.1000"))
    cells = {name: mae for name, mae in zip(table.columns[0].cells, table.columns[1].cells)}
    assert "green" in cells["linear"]
    assert "green" not in cells["nearest"] + cells["answers"]


def compared(sdim, fill_only, linear, trust=0.5):
    """A report with these (MAE, RMSE); the other classical fills are far off."""
    pairs = {"sdim": sdim, "fill_only": fill_only, "linear": linear,
             "nearest": (9, 9), "edge_aware": (9, 9)}
    methods = {name: {"held_out": {"mae": mae, "rmse": rmse}} for name, (mae, rmse) in
               pairs.items()}
    methods["sdim"]["trust"] = trust
    return {"methods": methods}


@pytest.mark.parametrize("sdim, trust, expected", [
    ((0.969, 0.98), 0.5, "lowers MAE by 3.1 % and lowers RMSE by 2.0 %"),
    ((0.99, 1.04), 0.5, "lowers MAE by 1.0 % and raises RMSE by 4.0 %"),
    ((1.5, 1.0), 0.5, "raises MAE by 50.0 % and leaves RMSE as it is"),
    ((1.0, 1.0), 0.0, "adds nothing here (trust 0)"),
])
def test_what_the_model_adds_is_said_in_both_directions(sdim, trust, expected):
    assert expected in report.contribution(compared(sdim, (1, 1), (1, 1), trust))


@pytest.mark.parametrize("sdim, met, expected", [
    ((0.9, 1.019), True, "met[/]: MAE 10.0 % lower than linear, RMSE 1.9 % higher than linear"),
    ((1.03, 0.5), False, "MISSED[/]: MAE 3.0 % higher than linear, RMSE 50.0 % lower than linear"),
    ((0.5, 1.021), False, "MISSED"),
])
def test_a_map_over_2_percent_worse_than_the_best_fill_misses_the_bar(sdim, met, expected):
    keeps_up, text = report.against_classical(compared(sdim, (1, 1), (1, 1)))
    assert keeps_up is met and expected in text


@pytest.mark.parametrize("size", [(40, 60), (30, 120)])
@pytest.mark.parametrize("points", [0, 1, 300])
@pytest.mark.parametrize("with_reference", [True, False])
def test_an_overview_is_drawn_for_every_shape_and_density(tmp_path, size, points, with_reference):
    rng = np.random.default_rng(0)
    image = rng.integers(0, 255, (*size, 3), dtype=np.uint8)
    reference = rng.uniform(1, 5, size).astype(np.float32)
    sparse = np.zeros(size, np.float32)
    drawn = rng.choice(sparse.size, points, replace=False)
    sparse.flat[drawn] = reference.flat[drawn]
    depth = reference.copy() if points else np.full(size, np.nan, np.float32)
    overview.draw(tmp_path / "o.png", "name", image, sparse, depth, np.ones(size, np.float32),
                  reference if with_reference else None, "a note")
    drawn_page = cv2.imread(str(tmp_path / "o.png"))
    assert drawn_page.shape[1] == 1600 and drawn_page.std() > 10


def harder(error_m: float, axis: str, level: str) -> FrameResult:
    return dataclasses.replace(result(error_m), axis=axis, level=level)


def test_levels_of_an_axis_are_a_curve_and_stay_out_of_the_means():
    results = [result(0.1), harder(0.2, "noise", "1%"), harder(0.4, "noise", "5%"),
               harder(0.3, "points", "0")]
    built = report.build({}, results)
    assert built["methods"]["linear"]["held_out"]["mae"] == pytest.approx(0.1)
    noise, points = built["axes"]
    assert (noise["name"], noise["levels"]) == ("noise", ["1%", "5%"])
    assert noise["methods"]["linear"]["mae"] == pytest.approx([0.2, 0.4])
    assert points["methods"]["linear"]["missing"] == [0.0]
    assert [frame.get("level") for frame in built["frames"]] == [None, "1%", "5%", "0"]


def test_every_other_map_is_paired_with_sdim_frame_by_frame():
    frames = []
    for number, (ours, theirs) in enumerate([(0.1, 0.2), (0.3, 0.5)]):
        frames.append(FrameResult(f"{number}", 0, 5, {
            **result(ours, method="sdim").errors, **result(theirs).errors,
            **result(0.1, method="answers").errors}))
    frames.append(result(9.0, "only linear"))
    paired = report.build({}, frames)["paired"]
    assert set(paired["against"]) == {"linear"}
    mae = paired["against"]["linear"]["held_out"]["mae"]
    assert mae["difference"] == pytest.approx(-0.15) and mae["images"] == 2
    assert mae["relative"] == pytest.approx(-0.15 / 0.35)


def test_the_error_by_range_is_that_of_all_pixels_together():
    reference = np.array([[0.5, 1.5, 1.5, 30.0]], np.float32)
    given = np.array([[0.5, 0.0, 0.0, 0.0]], np.float32)
    results = [FrameResult(name, 0, 1, {"linear": judge(reference + e, reference, given)},
                           by_range={"linear": judge_by_range(reference + e, reference, given)})
               for name, e in (("a", np.float32(0.1)), ("b", np.float32(0.3)))]
    found = report.build({}, results)["by_range"]
    assert dict(zip(found["edges_m"], found["pixels"])) == {
        0: 0, 1: 4, 2: 0, 3: 0, 5: 0, 10: 0, 20: 2, 40: 0, 80: 0}
    mae = dict(zip(found["edges_m"], found["mae"]["linear"]))
    assert [mae[1], mae[20]] == pytest.approx([0.2, 0.2], abs=1e-5)
    assert np.isnan(mae[0]) and np.isnan(mae[80])


def test_a_result_is_the_same_after_it_was_written_down():
    stats = Stats(points=3, queries=7, fill="linear", trust=0.5, ms={"fill": 1.5})
    before = dataclasses.replace(harder(0.2, "noise", "1%"), stats=stats,
                                 by_range={"linear": {"sum_m": [1.0], "pixels": [2.0]}})
    assert FrameResult.from_row(json.loads(json.dumps(before.as_row()))) == before

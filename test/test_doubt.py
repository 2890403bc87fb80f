"""Wrong points are found by their neighbours and the model, and right ones are left alone."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from models import random_model

from sdim_ros.core import doubt, engine
from sdim_ros.core.adaptation import Adaptation
from sdim_ros.core.completer import Completer
from sdim_ros.core.config import DoubtSettings, Settings, with_values
from sdim_ros.core.types import Answers, Frame
from sdim_ros.tools import sampling
from sdim_ros.tools.datasets.motorcycle import motorcycle_stereo
from sdim_ros.tools.robustness import draw_lines
from sdim_ros.tools.scenes import render_reserved

HEIGHT, WIDTH = 120, 160
GREY = np.full((HEIGHT, WIDTH, 3), 128, np.uint8)


def drawn(depth: np.ndarray, points: int, seed: int = 0) -> np.ndarray:
    return sampling.sample_points(depth.astype(np.float32), str(points), seed)


def floor() -> np.ndarray:
    """Depth of a slanted plane, (H, W) metres from 1.5 to 9: inverse depth is linear."""
    rows = np.linspace(0, 1, HEIGHT)[:, None] + np.zeros((1, WIDTH))
    return 1 / (0.11 + 0.55 * rows)


def with_wrong_ones(sparse: np.ndarray, share: str = "10%") -> tuple[np.ndarray, np.ndarray]:
    """Some of the points at 1.3 to 3 times their depth, and which, (H, W) bool."""
    wrong = sampling.sample_points(sparse, share, 1) > 0
    factor = np.random.default_rng(2).uniform(1.3, 3, sparse.shape).astype(np.float32)
    return np.where(wrong, sparse * factor, sparse), wrong


def chance_map(sparse: np.ndarray, image: np.ndarray) -> np.ndarray:
    found = np.zeros(sparse.shape)
    points, chance = doubt.chances(sparse, image)
    found[tuple(points.T)] = chance
    return found


@pytest.mark.parametrize("points", [60, 300, 5000])
def test_nobody_is_suspected_on_a_clean_plane(points):
    sparse = drawn(floor(), points)
    assert len(doubt.suspects(sparse, GREY, DoubtSettings())) == 0
    noisy = sparse * np.random.default_rng(0).normal(1, 0.01, sparse.shape).astype(np.float32)
    suspects = doubt.suspects(noisy, GREY, DoubtSettings())
    # Of very few points one may stand out enough to be asked of the model.
    assert len(suspects) <= (1 if points < 100 else 0)
    assert len(suspects.contradicted(noisy, None, 1.0)[0]) == 0


@pytest.mark.parametrize("count, doubted", [(1, 0), (30, 30)])
def test_a_point_alone_is_believed_where_thirty_like_it_are_not(count, doubted):
    at = np.arange(count), np.zeros(count, np.int64)
    suspects = doubt.Suspects(*at, np.full(count, 0.5, np.float32), asked=count, total=500)
    sparse = np.full((HEIGHT, WIDTH), 2, np.float32)
    said = Answers(*at, np.full(count, 1, np.float32), np.full(count, 0.05, np.float32))
    assert len(suspects.contradicted(sparse, said, 1.0)[0]) == doubted


@pytest.mark.parametrize("points", [300, 5000])
def test_points_off_a_plane_are_found_and_only_they(points):
    sparse = drawn(floor(), points)
    spoilt, wrong = with_wrong_ones(sparse)
    chance = chance_map(spoilt, GREY)
    assert (chance[wrong] > 0.5).mean() > 0.9
    assert (chance[(sparse > 0) & ~wrong] > 0.5).mean() < 0.01


def test_both_sides_of_a_depth_edge_are_believed():
    depth = np.full((HEIGHT, WIDTH), 5.0)
    depth[40:80, 50:100] = 1.0
    sparse = drawn(depth, 400)
    assert len(doubt.suspects(sparse, GREY, DoubtSettings())) == 0
    # ... while what floats between both surfaces is not.
    between = sampling.sample_points(sparse, "30", 1) > 0
    floating = np.random.default_rng(0).uniform(1.5, 3.5, sparse.shape).astype(np.float32)
    chance = chance_map(np.where(between, floating, sparse), GREY)
    assert (chance[between] > 0.5).mean() > 0.8


def test_very_few_points_are_all_believed():
    sparse = drawn(floor(), doubt.MIN_POINTS - 1)
    sparse[sparse > 0] = np.random.default_rng(0).uniform(1, 50, doubt.MIN_POINTS - 1)
    assert len(doubt.chances(sparse, GREY)[0]) == 0
    assert len(doubt.chances(np.zeros_like(sparse), GREY)[0]) == 0


@pytest.fixture(scope="module")
def scene():
    """A rendered room with furniture: image, and depth (H, W) in metres."""
    image, depth, camera = render_reserved(3, 320, 240)
    return Frame(image, depth, camera)


def spoilt(frame: Frame, share: str = "5%") -> tuple[np.ndarray, np.ndarray]:
    """Its points with some replaced by noise, and which of these are off by over 10 %."""
    sparse = sampling.add_outliers(frame.sparse, share, 0)
    return sparse, np.abs(sparse - frame.sparse) > 0.1 * frame.sparse


def test_scan_lines_are_judged_by_the_line_and_its_neighbours(scene):
    lines = draw_lines(scene, 32, 0)
    assert 1000 < np.count_nonzero(lines.sparse) < doubt.MANY
    sparse, far = spoilt(lines)
    chance = chance_map(sparse, scene.image)
    assert (chance[far] > 0.5).mean() > 0.7
    right = (sparse > 0) & (sparse == lines.sparse)
    assert (chance[right] > 0.5).mean() < 0.01
    assert (chance_map(lines.sparse, scene.image)[right] > 0.5).mean() < 0.003


def test_of_a_dense_map_few_points_are_looked_at_and_most_wrong_ones_found(scene):
    assert np.count_nonzero(scene.sparse) > doubt.MANY
    sparse, far = spoilt(scene, "2%")
    points, chance = doubt.chances(sparse, scene.image)
    assert len(points) < 0.1 * np.count_nonzero(sparse)
    found = far[tuple(points[chance > 0.5].T)]
    assert found.sum() > 0.6 * far.sum() and found.mean() > 0.95


def test_the_model_has_the_last_word_on_those_that_it_is_asked_about():
    settings = DoubtSettings(budget=3)
    sparse, _ = with_wrong_ones(drawn(floor(), 300))
    suspects = doubt.suspects(sparse, GREY, settings)
    assert len(suspects) > 20 and suspects.asked == 3
    at = suspects.rows[:3], suspects.cols[:3]
    assert not suspects.without(sparse)[suspects.rows, suspects.cols].any()
    # The first it confirms, of the second it is not sure, the third it would place elsewhere.
    depth = sparse[at] * np.array([1, 2, 2], np.float32)
    spread = depth * np.array([0.01, 5, 0.01], np.float32)
    rows, cols = suspects.contradicted(sparse, Answers(*at, depth, spread), settings.spreads)
    doubted = set(zip(rows.tolist(), cols.tolist(), strict=True))
    assert [(r, c) in doubted for r, c in zip(*at, strict=True)] == [False, False, True]
    sure = suspects.chance[3:] >= doubt.SURE
    assert len(doubted) == 1 + sure.sum()


@pytest.fixture(scope="module")
def motorcycle():
    """Real: an image, 500 points of its reference, and the reference itself."""
    sample, _ = motorcycle_stereo()
    return sample.frame(sampling.sample_points(sample.truth, "500", 0)), sample.truth


@pytest.fixture(scope="module")
def results(motorcycle):
    """What the embedded checkpoint makes of it, and of it with wrong points, mode by mode."""
    completer = Completer(with_values(Settings(), {"queries.budget": 100}))
    clean, _ = motorcycle
    wrong = dataclasses.replace(clean, sparse=spoilt(clean)[0])
    return {(name, mode): completed(completer, frame, mode)
            for name, frame, mode in (("clean", clean, "ignore"), ("clean", clean, "reject"),
                                      ("wrong", wrong, "warn"), ("wrong", wrong, "reject"))}


def completed(completer: Completer, frame: Frame, mode: str, **options: bool):
    completer.reconfigure(with_values(completer.settings, {"doubt.mode": mode}))
    return completer.complete(frame, **options)


def test_without_the_wrong_points_a_real_map_is_nearly_what_it_was(motorcycle, results):
    clean, truth = motorcycle
    sparse, far = spoilt(clean)
    held_out = (truth > 0) & (clean.sparse == 0)
    error = {name: np.abs(dense.depth - truth)[held_out].mean()
             for name, dense in results.items()}
    assert error["clean", "reject"] < 1.01 * error["clean", "ignore"]
    assert error["wrong", "reject"] < 1.15 * error["clean", "ignore"] < error["wrong", "warn"]
    doubted = results["wrong", "reject"].doubted
    assert far[doubted].sum() > 0.5 * far.sum()
    assert (sparse != clean.sparse)[doubted].mean() > 0.8


def test_what_is_rejected_is_counted_and_gets_the_depth_of_its_surroundings(motorcycle, results):
    sparse, _ = spoilt(motorcycle[0])
    dense, warned = results["wrong", "reject"], results["wrong", "warn"]
    at, stats = dense.doubted, dense.stats
    assert stats.doubted == stats.cleaned["doubted"] == len(at[0]) > 10
    assert stats.points == 500 - stats.doubted
    assert stats.doubted_share == stats.doubted / 500
    assert (dense.depth[at] != sparse[at]).all() and (dense.confidence[at] < 1).all()
    kept = sparse > 0
    np.testing.assert_array_equal(warned.depth[kept], sparse[kept])
    np.testing.assert_array_equal(warned.doubted, at)
    assert warned.stats.points == 500 and "doubted" not in warned.stats.cleaned
    kept[at] = False
    np.testing.assert_array_equal(dense.depth[kept], sparse[kept])


def test_off_asks_nothing_and_blind_changes_nothing_of_what_is_doubted(monkeypatch):
    monkeypatch.setattr(doubt, "LONE", 0.0)  # random weights are sure of nothing
    sparse, _ = with_wrong_ones(drawn(floor(), 300))
    frame = Frame(GREY + np.arange(WIDTH, dtype=np.uint8)[:, None] // 4, sparse)
    completer = Completer(with_values(Settings(), {"queries.budget": 20, "doubt.spreads": 0.01}),
                          random_model())
    seeing, blind = completed(completer, frame, "warn"), completed(
        completer, frame, "warn", blind=True)
    assert len(seeing.doubted[0]) > 5
    np.testing.assert_array_equal(seeing.doubted, blind.doubted)
    passes = []
    spell = engine.spell
    monkeypatch.setattr(engine, "spell", lambda *args: (passes.append(1), spell(*args))[1])
    monkeypatch.setattr(doubt, "chances", None)
    off = completed(completer, frame, "ignore")
    folds = -(-200 // 60)
    assert len(passes) == 1 + folds and not len(off.doubted[0])


def test_what_is_rejected_neither_teaches_nor_judges(monkeypatch):
    monkeypatch.setattr(doubt, "LONE", 0.0)  # random weights are sure of nothing
    sparse, _ = with_wrong_ones(drawn(floor(), 300))
    frame = Frame(GREY + np.arange(WIDTH, dtype=np.uint8)[:, None] // 4, sparse, stamp_ns=10**8)
    completer = Completer(with_values(Settings(), {
        "queries.budget": 20, "doubt.spreads": 0.01, "doubt.mode": "reject"}), random_model())
    rejected = np.ravel_multi_index(completer.complete(frame).doubted, sparse.shape)
    assert len(rejected) > 5
    learner = Adaptation(completer, completer.settings.adaptation)
    learner.observe(frame)
    learner.work()
    [kept] = learner.memory.frames
    assert not kept.sparse().flat[rejected].any()
    assert not np.isin(kept.judge, rejected).any()

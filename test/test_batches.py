"""Training batches: what the model is shown, and what it is asked."""

from __future__ import annotations

import dataclasses
import json
import pickle
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from models import CONFIG, random_model

from sdim_ros.core import fill
from sdim_ros.core.prompts import NumberFormat
from sdim_ros.core.supervision import (
    Batch, LossWeights, Posed, split_points, supervised_loss)
from sdim_ros.core.types import BadInput, BadSetting
from sdim_ros.tools import scene_cache
from sdim_ros.tools.datasets.frames import Sample
from sdim_ros.tools.training.batches import TrainingBatches, prepare_scenes
from sdim_ros.tools.training.data_recipe import DataRecipe, PatternRecipe, SourceRecipe
from sdim_ros.tools.training.questions import draw

WIDTH, HEIGHT = 64, 48
SIZE = (WIDTH, HEIGHT)
RANDOM = PatternRecipe({"random": 1.0}, points=(30, 300), noise=0.0)


def write_folder(path: Path, frames: int = 10, sparse_points: int = 0, size=SIZE,
                 dense: bool = True, nearest: int = 1) -> Path:
    """A frames folder; at its left edge frame i is i m deeper than the nearest, at its right
    edge twice as deep."""
    for kind in ("rgb", "sparse", "gt"):
        (path / kind).mkdir(parents=True)
    rng = np.random.default_rng(0)
    width, height = size
    names = [f"{number:03d}" for number in range(frames)]
    (path / "frames.json").write_text(json.dumps(
        {"depth_scale": 1000.0, "frames": [{"name": name} for name in names]}))
    for number, name in enumerate(names):
        depth = np.tile((number + nearest) * 1000 * np.linspace(1, 2, width), (height, 1))
        image = rng.integers(0, 256, (height, width, 3)).astype(np.uint8)
        image[..., 0] = number  # blue as OpenCV writes: tells frames apart
        cv2.imwrite(str(path / "rgb" / f"{name}.png"), image)
        if dense:
            cv2.imwrite(str(path / "gt" / f"{name}.png"), depth.astype(np.uint16))
        if sparse_points:
            drawn = np.zeros_like(depth)
            at = rng.choice(depth.size, sparse_points, replace=False)
            drawn.flat[at] = depth.flat[at]
            cv2.imwrite(str(path / "sparse" / f"{name}.png"), drawn.astype(np.uint16))
    return path


def recipe(*sources: SourceRecipe, **changes) -> DataRecipe:
    changes = {"patterns": RANDOM, "validation_frames": 4, **changes}
    return DataRecipe(sources, **changes)


def frames(folder: Path, **changes) -> SourceRecipe:
    return SourceRecipe("frames", folder=folder, **changes)


def batches(data: DataRecipe, images: int = 2, pixels: int = 12, seed: int = 0, config=CONFIG,
            cache: Path = Path("nowhere"), validation: bool = False) -> TrainingBatches:
    return TrainingBatches(data, config, images, pixels, seed, 100, cache, validation)


def asked_at(batch: Batch | Posed, number: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns of the questions about one image."""
    height, width = (batch.sparse if isinstance(batch, Posed) else batch.sparses[number]).shape
    xy = batch.queries.position[number].numpy()
    return (xy[:, 1] * height).astype(int), (xy[:, 0] * width).astype(int)


def same(a: Batch, b: Batch) -> bool:
    return all((
        np.array_equal(a.images, b.images), np.array_equal(a.sparses, b.sparses),
        np.array_equal(a.digits, b.digits), np.array_equal(a.truth, b.truth),
        all(getattr(a.queries, name).equal(getattr(b.queries, name))
            for name in a.queries.__dataclass_fields__)))


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return write_folder(tmp_path_factory.mktemp("frames") / "data")


@pytest.fixture(scope="module")
def measured(tmp_path_factory) -> Path:
    """Frames with a sensor's own sparse depth and no dense depth."""
    return write_folder(tmp_path_factory.mktemp("frames") / "data", 4, 200, dense=False)


@pytest.mark.parametrize("labels", ["dense", "sparse"])
def test_a_batch_depends_on_the_seed_and_its_number_alone(folder, labels):
    data = recipe(frames(folder), labels=labels, patterns=PatternRecipe(
        {"random": 1, "lines": 1, "corners": 1, "stereo": 1, "tiles": 1}, noise=0.5))
    first = batches(data)
    expected = [first[i] for i in range(6)]
    later = pickle.loads(pickle.dumps(batches(data)))  # as in a worker, from the middle
    assert all(same(later[i], expected[i]) for i in (5, 3))
    assert not same(expected[0], expected[1])
    assert not same(batches(data, seed=1)[3], expected[3])


def test_a_batch_has_one_size_and_the_wanted_numbers(folder):
    batch = batches(recipe(frames(folder)), images=3, pixels=7)[0]
    assert len(batch.images) == len(batch.sparses) == 3
    assert batch.digits.shape == (3, 7, CONFIG.number.digits) and batch.truth.shape == (3, 7)
    assert all(image.shape == (HEIGHT, WIDTH, 3) for image in batch.images)
    np.testing.assert_allclose(
        CONFIG.number.value(batch.digits), batch.truth / batch.unit[:, None], atol=5.1e-4)


def test_dense_labels_are_the_dense_depth_where_nothing_is_shown(folder):
    rng = np.random.default_rng(0)
    depth = rng.uniform(1, 3, (HEIGHT, WIDTH)).astype(np.float32)
    depth[:, :9] = 0  # unknown: not asked
    image = rng.integers(0, 256, (HEIGHT, WIDTH, 3)).astype(np.uint8)
    for seed in range(6):
        drawn = draw(Sample("a", image, None, depth), np.random.default_rng(seed),
                     recipe(frames(folder), mask_1=0.0), CONFIG, 300, SIZE, augment=False)
        rows, cols = asked_at(drawn)
        assert not drawn.sparse[rows, cols].any() and cols.min() >= 9
        np.testing.assert_array_equal(drawn.truth, depth[rows, cols])
        np.testing.assert_array_equal(drawn.labels, depth)
        shown = drawn.sparse > 0
        assert (drawn.sparse[shown] == depth[shown]).all() and 30 <= shown.sum() <= 300


def test_sparse_labels_are_hidden_measurements_that_are_not_shown(folder):
    given = np.zeros((HEIGHT, WIDTH), np.float32)
    rng = np.random.default_rng(0)
    given.flat[rng.choice(given.size, 200, replace=False)] = rng.uniform(1, 3, 200)
    image = rng.integers(0, 256, (HEIGHT, WIDTH, 3)).astype(np.uint8)
    data = recipe(frames(folder), labels="sparse", hidden=0.3, mask_1=0.0)
    for seed in range(6):
        drawn = draw(Sample("a", image, given, None), np.random.default_rng(seed), data, CONFIG,
                     500, SIZE, augment=False)
        rows, cols = asked_at(drawn)
        assert np.count_nonzero(drawn.sparse) == 140
        shown = drawn.sparse > 0
        assert (drawn.sparse[shown] == given[shown]).all() and not shown[rows, cols].any()
        np.testing.assert_array_equal(drawn.truth, given[rows, cols])
        np.testing.assert_array_equal(drawn.labels + drawn.sparse, given)
        assert (drawn.truth > 0).all() and len(set(zip(rows, cols))) > 50


@pytest.mark.parametrize("labels", ["dense", "sparse"])
def test_mask_1_questions_tell_a_shown_measurement_and_ask_for_it(folder, labels):
    batch = batches(recipe(frames(folder), labels=labels, mask_1=0.25), images=2, pixels=40)[0]
    for number, sparse in enumerate(batch.sparses):
        rows, cols = asked_at(batch, number)
        told = batch.queries.measured[number].numpy() * batch.unit[number]
        assert np.count_nonzero(told) == 10
        np.testing.assert_array_equal(sparse[rows, cols] > 0, told > 0)
        np.testing.assert_allclose(told[told > 0], batch.truth[number][told > 0], rtol=1e-6)
        np.testing.assert_array_equal(batch.truth[number][told > 0], sparse[rows, cols][told > 0])


def test_one_pixel_an_image_works_and_is_told_at_times(folder):
    source = batches(recipe(frames(folder), mask_1=0.3), images=4, pixels=1)
    told = np.concatenate([source[i].queries.measured[:, 0].numpy() > 0 for i in range(40)])
    assert 0.15 < told.mean() < 0.45


@pytest.mark.parametrize("source, labels", [
    ("folder", "dense"), ("folder", "sparse"), ("measured", "sparse")])
def test_hints_come_from_exactly_what_the_model_is_shown(source, labels, request):
    data = recipe(frames(request.getfixturevalue(source)), labels=labels)
    batch = batches(data)[0]
    for number, (image, sparse) in enumerate(zip(batch.images, batch.sparses)):
        rows, cols = asked_at(batch, number)
        for k, name in enumerate(CONFIG.hints):
            expected = fill.classical(name, sparse, image)[rows, cols] / batch.unit[number]
            np.testing.assert_allclose(batch.queries.hints[number, :, k], expected, rtol=1e-5)
        assert batch.unit[number] == np.median(sparse[sparse > 0])


def test_the_fills_come_along_where_the_model_sees_the_whole_crop(folder, monkeypatch):
    model = random_model(fusion=dataclasses.replace(CONFIG.fusion, fills=CONFIG.hints))
    batch = batches(recipe(frames(folder)), config=model.config)[0]
    brought = model.prepare(batch.images, batch.sparses, maps=batch.maps)
    own = model.prepare(batch.images, batch.sparses)
    np.testing.assert_allclose(brought.depth, own.depth, rtol=1e-4, atol=1e-5)
    monkeypatch.setattr(model, "_fills", None)  # the loss has no need to fill again
    assert torch.isfinite(supervised_loss(model, batch, LossWeights())[0])
    smaller = dataclasses.replace(model.config, max_pixels=WIDTH * HEIGHT // 4)
    assert batches(recipe(frames(folder)), config=smaller)[0].maps == [None, None]


@pytest.mark.parametrize("points", [2, 3])
def test_two_or_three_points_are_enough_for_sparse_labels(tmp_path, points):
    data = recipe(frames(write_folder(tmp_path / "few", 3, points)), labels="sparse")
    batch = batches(data, images=3)[0]
    assert not batch.skipped
    assert all(1 <= np.count_nonzero(sparse) <= points - 1 for sparse in batch.sparses)


def test_frames_that_cannot_be_used_are_skipped_and_counted(tmp_path):
    path = write_folder(tmp_path / "data", 8, 100)
    for name in ("000", "001", "002"):
        one = np.zeros((HEIGHT, WIDTH), np.uint16)
        one[4, 5] = 2000
        cv2.imwrite(str(path / "sparse" / f"{name}.png"), one)
    cv2.imwrite(str(path / "sparse" / "003.png"), np.zeros((HEIGHT, WIDTH), np.uint16))
    cv2.imwrite(str(path / "rgb" / "004.png"), np.full((HEIGHT, WIDTH, 3), 9, np.uint8))
    source = batches(recipe(frames(path), labels="sparse"), images=6)
    skipped = [source[i].skipped for i in range(8)]
    assert {reason for counts in skipped for reason in counts} == {
        "too_few_points", "no_depth", "no_contrast"}
    total = {reason: sum(s.get(reason, 0) for s in skipped) for reason in skipped[0]}
    assert total["too_few_points"] > total["no_depth"]


def test_a_source_without_any_usable_frame_stops_with_the_reasons(tmp_path):
    path = write_folder(tmp_path / "data", 3, 1)
    with pytest.raises(BadInput, match="'too_few_points': 200.*1 measured points: expected two"):
        batches(recipe(frames(path), labels="sparse"))[0]


def test_depths_that_the_number_format_cannot_spell_are_never_asked(tmp_path):
    metres = dataclasses.replace(CONFIG, number=NumberFormat(1, 3))  # up to 9.999 m
    batch = batches(recipe(frames(write_folder(tmp_path / "data", 20))), images=8, pixels=30,
                    config=metres)[0]
    assert batch.truth.max() < 10 and batch.skipped.get("nothing_to_ask", 0) > 0
    assert max(sparse.max() for sparse in batch.sparses) > 10  # shown all the same


def test_dense_labels_without_dense_depth_name_the_remedy(measured):
    with pytest.raises(BadInput, match="no dense depth.*set data.labels to sparse"):
        batches(recipe(frames(measured)))[0]


def test_a_sensors_own_points_are_shown_as_they_are(tmp_path):
    path = write_folder(tmp_path / "data", 4, 200)  # with dense depth as well
    batch = batches(recipe(frames(path)), images=4)[0]
    assert [np.count_nonzero(sparse) for sparse in batch.sparses] == [200] * 4


def test_restyled_frames_keep_depth_and_points_and_judging_ones_their_looks(folder):
    plain, other = (batches(recipe(frames(folder), restyle=share)) for share in (0.0, 1.0))
    changed = [not np.array_equal(a, b)
               for i in range(4) for a, b in zip(plain[i].images, other[i].images)]
    assert np.mean(changed) > 0.8
    depths = np.unique(np.concatenate([np.ravel(plain[i].labels) for i in range(30)]))
    assert np.isin(np.ravel(other[0].labels), depths).mean() > 0.95
    judged = (batches(recipe(frames(folder), restyle=share), validation=True)[0]
              for share in (0.0, 1.0))
    assert same(*judged)


def test_sources_are_mixed_by_share_in_every_batch_of_one_crop(folder, tmp_path):
    far = write_folder(tmp_path / "far", 4, size=(160, 100), nearest=30)
    data = recipe(frames(folder, share=3.0), frames(far, share=1.0), crops=((40, 40),))
    source = batches(data, images=8, pixels=2)
    found = [source[i] for i in range(30)]
    assert {image.shape for batch in found for image in batch.images} == {(40, 40, 3)}
    from_far = np.array([batch.unit > 25 for batch in found])
    assert 0.15 < from_far.mean() < 0.35
    assert sum(0 < batch.sum() < 8 for batch in from_far) > 20


def test_batches_have_one_of_the_crops_each(folder):
    source = batches(recipe(frames(folder), crops=((40, 40), (48, 32))))
    sizes = [{image.shape[:2] for image in source[i].images} for i in range(12)]
    assert all(len(size) == 1 for size in sizes)
    assert set.union(*sizes) == {(40, 40), (32, 48)}


def test_without_a_crop_a_batch_has_one_source_and_its_size(folder, tmp_path):
    far = write_folder(tmp_path / "far", 4, size=(160, 100), nearest=30)
    source = batches(recipe(frames(folder), frames(far)), images=4, pixels=2)
    shapes = set()
    for index in range(12):
        batch = source[index]
        shapes.add(frozenset(image.shape[:2] for image in batch.images))
        assert len({unit > 25 for unit in batch.unit}) == 1
    assert shapes == {frozenset({(48, 64)}), frozenset({(100, 160)})}


def test_a_crop_keeps_depth_and_image_together_and_never_mixes_depths(tmp_path):
    image = np.zeros((90, 120, 3), np.uint8)
    depth = np.full((90, 120), 2, np.float32)
    image[:, 60:], depth[:, 60:] = 255, 5
    data = recipe(frames(tmp_path), crops=((40, 40),), patterns=dataclasses.replace(
        RANDOM, points=(800, 800)))
    for seed in range(8):
        drawn = draw(Sample("a", image, None, depth), np.random.default_rng(seed), data, CONFIG,
                     200, (40, 40), augment=seed > 0)
        assert drawn.image.shape == (40, 40, 3) and set(np.unique(drawn.truth)) <= {2, 5}
        at = drawn.sparse > 0
        bright = drawn.image.max(axis=-1) > 127
        agree = (drawn.sparse[at] > 3) == bright[at]
        assert agree.mean() > 0.93  # but for the blurred edge


def test_a_subset_is_seeded_and_of_the_wanted_size(folder):
    def used(seed: int) -> list[int]:
        return batches(recipe(frames(folder, frames=4)), seed=seed).pools[0].at.tolist()

    assert len(set(used(0))) == 4 and used(0) == used(0)
    assert len({tuple(used(seed)) for seed in range(5)}) > 1
    with pytest.raises(BadInput, match="9 frames for training, the recipe wants 50"):
        batches(recipe(frames(folder, frames=50)))


def test_frames_that_judge_never_train_and_are_told_nothing(folder):
    data = recipe(frames(folder), mask_1=0.5)
    training, judge = batches(data), batches(data, validation=True)
    assert training.pools[0].at.tolist() == list(range(9))
    assert judge.pools[0].at.tolist() == [9]
    assert not judge[0].queries.measured.any()
    assert judge[0].images[0][0, 0, 2] == 9  # neither flipped nor coloured
    assert same(judge[1], batches(data, validation=True)[1])


def test_one_frame_alone_cannot_train_and_judge(tmp_path):
    path = write_folder(tmp_path / "data", 1)
    with pytest.raises(BadInput, match="none is left for validation"):
        batches(recipe(frames(path)), validation=True)


def test_scenes_are_rendered_once_for_training_and_judging(tmp_path, monkeypatch):
    monkeypatch.setattr(scene_cache, "FRAMES_PER_SHARD", 2)
    sizes = ((64, 48), (48, 64))
    data = recipe(SourceRecipe("scenes", frames=4, sizes=sizes), validation_frames=2)
    with pytest.raises(BadInput, match="does not exist: start the training again"):
        batches(data, cache=tmp_path)[0]
    prepare_scenes(data, tmp_path, workers=1)
    training, judge = (batches(data, cache=tmp_path, validation=v) for v in (False, True))
    shapes = set()
    for index in range(8):
        batch = training[index]
        assert len({image.shape for image in batch.images}) == 1
        shapes.add(batch.images[0].shape[:2])
    assert shapes == {(48, 64), (64, 48)}
    names = [{name for pool in part.pools for name in pool.frames.names}
             for part in (training, judge)]
    assert len(names[0]) == 4 and len(names[1]) == 2 and not names[0] & names[1]
    assert judge[0].truth.shape == (2, 12)


@pytest.mark.parametrize("hidden", [0.001, 0.5, 0.999])
def test_at_least_one_point_is_hidden_and_one_stays(hidden):
    sparse = np.zeros((48, 64), np.float32)
    sparse[::6, ::8] = np.arange(1, 65).reshape(8, 8)
    for seed in range(9):
        shown, labels = split_points(sparse, hidden, np.random.default_rng(seed))
        np.testing.assert_array_equal(shown + labels, sparse)
        assert not (shown * labels).any()
        assert np.count_nonzero(labels) == min(max(1, round(hidden * 64)), 63)


def test_hidden_points_are_single_or_in_blocks_or_in_lines():
    sparse = np.ones((48, 64), np.float32)
    alone = []
    for seed in range(30):
        _, labels = split_points(sparse, 0.2, np.random.default_rng(seed))
        neighbours = cv2.boxFilter((labels > 0).astype(np.float32), -1, (3, 3), normalize=False)
        alone.append(neighbours[labels > 0].mean())
    assert min(alone) < 3.5 and max(alone) > 6


@pytest.mark.parametrize("changes, named", [
    ({"kind": "photos", "folder": Path("x")}, "kind is 'photos'"),
    ({"kind": "frames"}, "folder is missing"),
    ({"kind": "frames", "folder": Path("x"), "share": 0.0}, "share is 0"),
    ({"kind": "frames", "folder": Path("x"), "frames": 0}, "frames is 0"),
    ({"kind": "scenes", "frames": 5}, "sizes is ()"),
    ({"kind": "bag", "folder": Path("x"), "topics": {"image": "/i"}}, "topics is {'image'"),
])
def test_a_senseless_source_names_key_and_value(changes, named):
    with pytest.raises(BadSetting) as error:
        SourceRecipe(**changes)
    assert named in str(error.value)


@pytest.mark.parametrize("changes, named", [
    ({"labels": "guessed"}, "data.labels is 'guessed'"), ({"hidden": 1.0}, "data.hidden is 1.0"),
    ({"mask_1": -0.1}, "data.mask_1"), ({"crops": ((8, 200),)}, "data.crops is [[8, 200]]"),
    ({"validation_frames": 0}, "data.validation_frames is 0"),
])
def test_a_senseless_recipe_names_key_and_value(changes, named):
    with pytest.raises(BadSetting) as error:
        recipe(SourceRecipe("frames", folder=Path("x")), **changes)
    assert named in str(error.value)
    with pytest.raises(BadSetting, match="data.sources is empty"):
        recipe()

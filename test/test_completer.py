"""What a completed frame promises, on any weights; test_quality judges the embedded ones."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from models import CONFIG, frame, random_model

from sdim_ros.core import asking, engine, fill
from sdim_ros.core.completer import Completer, with_random_weights
from sdim_ros.core.config import Settings, with_values
from sdim_ros.core.evidence import RecentErrors
from sdim_ros.core.fusion import FusionConfig
from sdim_ros.core.model import ModelInput, Prefix
from sdim_ros.core.types import BadInput, Frame, ModelFailed, ModelLost, OutOfMemory


@pytest.fixture(scope="module")
def completer() -> Completer:
    return Completer(with_values(Settings(), {"queries.budget": 200}), random_model())


def scene(**options: int) -> Frame:
    return Frame(*frame(**options))


def test_every_pixel_gets_a_depth_and_measured_ones_keep_theirs_to_the_bit(
        completer: Completer) -> None:
    given = scene()
    dense = completer.complete(given)
    measured = given.sparse > 0
    np.testing.assert_array_equal(dense.depth[measured], given.sparse[measured])
    assert np.isfinite(dense.depth).all() and (dense.depth > 0).all()
    assert dense.depth.dtype == dense.confidence.dtype == np.float32
    assert (dense.confidence[measured] == 1).all()
    assert ((dense.confidence >= 0) & (dense.confidence <= 1)).all()
    assert (dense.interval[measured] == 0).all() and (dense.interval[~measured] > 0).all()
    assert np.isfinite(dense.interval).all() and dense.interval.dtype == np.float32
    assert dense.stats.points == measured.sum()


def test_the_same_frame_gives_the_same_map(completer: Completer) -> None:
    first, second = (completer.complete(scene()) for _ in range(2))
    np.testing.assert_array_equal(first.depth, second.depth)
    np.testing.assert_array_equal(first.confidence, second.confidence)


def test_the_input_is_not_changed(completer: Completer) -> None:
    given = scene()
    given.sparse[0, 0] = np.nan
    image, sparse = given.image.copy(), given.sparse.copy()
    completer.complete(given)
    np.testing.assert_array_equal(given.image, image)
    np.testing.assert_array_equal(given.sparse, sparse)


def test_unusable_depths_are_removed_counted_and_filled(completer: Completer) -> None:
    image, sparse = frame()
    sparse[0, :4] = [np.nan, np.inf, -1.0, 9999.0]
    dense = completer.complete(Frame(image, sparse))
    assert dense.stats.cleaned == {"not_finite": 2, "negative": 1, "range": 1}
    assert np.isfinite(dense.depth[0, :4]).all()
    assert dense.depth.max() < 100


@pytest.mark.parametrize("points", [1, 2, 3, 9])
def test_very_few_points_still_give_a_map(completer: Completer, points: int) -> None:
    dense = completer.complete(scene(points=points))
    assert np.isfinite(dense.depth).all()


def test_no_point_is_bad_input_or_an_answer_without_confidence(completer: Completer) -> None:
    image, _ = frame()
    empty = Frame(image, np.zeros(image.shape[:2], np.float32))
    with pytest.raises(BadInput, match="without a usable point.*on_empty_sparse") as problem:
        completer.complete(empty)
    assert problem.value.reason == "no_points"
    willing = Completer(with_values(completer.settings, {"input.on_empty_sparse": "answer"}),
                        completer.model)
    dense = willing.complete(empty)
    assert np.isfinite(dense.depth).any()
    assert not dense.confidence.any()


@pytest.mark.parametrize(("metres", "words"), [
    (1234.0, "median 1234 m; millimetres in 32FC1\\?\\)"), (0.05, "median 0.05 m\\)"),
    (-1.0, r"\(removed: \d+ negative\)")])
def test_no_point_left_tells_what_was_removed_and_doubts_the_unit(
        completer: Completer, metres: float, words: str) -> None:
    image, _ = frame()
    removed = Frame(image, np.full(image.shape[:2], metres, np.float32))
    with pytest.raises(BadInput, match=f"without a usable point.*{words}: expected depths"):
        completer.complete(removed)


def test_a_complete_map_comes_back_as_it_was(completer: Completer) -> None:
    image, _ = frame()
    full = np.full(image.shape[:2], 2.5, np.float32)
    dense = completer.complete(Frame(image, full))
    np.testing.assert_array_equal(dense.depth, full)
    assert dense.stats.queries == dense.stats.calibration_queries


def test_an_image_that_is_too_large_is_refused_before_any_work(completer: Completer) -> None:
    small = Completer(with_values(Settings(), {"input.max_pixels": 1000}), completer.model)
    with pytest.raises(BadInput, match="12288 pixels: expected at most 1000"):
        small.complete(scene())


def test_with_trust_fixed_at_zero_the_map_is_the_fill_alone(completer: Completer) -> None:
    alone = Completer(with_values(completer.settings, {"fill.trust": 0.0}), completer.model)
    dense = alone.complete(scene())
    np.testing.assert_array_equal(dense.depth, dense.fill_only)
    assert dense.stats.trust == 0


def test_a_model_that_knows_nothing_is_not_trusted(completer: Completer) -> None:
    dense = completer.complete(scene(points=400))
    assert dense.stats.trust <= 0.1


def test_a_fixed_fill_is_used(completer: Completer) -> None:
    fixed = Completer(with_values(completer.settings, {"fill.method": "nearest"}),
                      completer.model)
    assert fixed.complete(scene()).stats.fill == "1.0 nearest"


def test_blind_changes_the_answers_and_nothing_before_them(completer: Completer) -> None:
    seeing, blind = completer.complete(scene()), completer.complete(scene(), blind=True)
    assert (seeing.answers.depth != blind.answers.depth).any()
    grid = seeing.stats.first_queries  # the rest is chosen by the answers
    assert grid == blind.stats.first_queries > 80
    np.testing.assert_array_equal(seeing.answers.rows[:grid], blind.answers.rows[:grid])
    np.testing.assert_array_equal(seeing.fill_only, blind.fill_only)


def test_ask_gives_the_same_answers_as_complete(completer: Completer) -> None:
    dense = completer.complete(scene())
    answers = completer.ask(scene(), dense.answers.rows, dense.answers.cols)
    np.testing.assert_array_equal(answers.depth, dense.answers.depth)


def test_exact_quantiles_change_how_sure_the_model_is_and_not_what_it_says(
        completer: Completer) -> None:
    exact = Completer(with_values(completer.settings, {"confidence.exact_quantiles": True}),
                      completer.model)
    read, paths = exact.complete(scene()), completer.complete(scene())
    np.testing.assert_array_equal(read.depth, paths.depth)
    assert (read.answers.spread > 0).all() and (read.answers.spread != paths.answers.spread).any()
    # Of these untrained weights the digits beside the path tell the quantiles only roughly.
    assert np.corrcoef(read.answers.spread, paths.answers.spread)[0, 1] > 0.3


def test_recent_frames_count_where_the_caller_remembers_them_and_for_the_confidence_alone(
        completer: Completer) -> None:
    settings = with_values(completer.settings, {
        "confidence.recent_frames": 2, "queries.budget": 20, "fill.folds": 2})
    pooling, single = (Completer(settings, completer.model) for _ in range(2))
    pooling.recent = RecentErrors()
    given = [Frame(*frame(seed, points=30), stamp_ns=seed) for seed in range(4)]
    pooled, alone = ([c.complete(each) for each in given] for c in (pooling, single))
    for one, other in zip(pooled, alone, strict=True):
        np.testing.assert_array_equal(one.depth, other.depth)
    np.testing.assert_array_equal(pooled[0].interval, alone[0].interval)
    assert (pooled[3].interval != alone[3].interval).any() and len(pooling.recent) == 2
    pooling.complete(dataclasses.replace(given[3], stamp_ns=9), blind=True)
    assert pooling.recent.before(9) is not None and len(pooling.recent.before(10)) == 60
    pooling.reconfigure(with_values(pooling.settings, {"confidence.recent_frames": 0}))
    np.testing.assert_array_equal(pooling.complete(given[3]).interval, alone[3].interval)
    assert len(pooling.recent) == 0


def test_random_weights_have_the_same_architecture_and_other_answers(
        completer: Completer) -> None:
    twin = with_random_weights(completer)
    assert twin.model.parameter_count() == completer.model.parameter_count()
    rows, cols = np.array([5, 50]), np.array([7, 90])
    assert (twin.ask(scene(), rows, cols).depth
            != completer.ask(scene(), rows, cols).depth).any()


def test_a_setting_takes_effect_at_the_next_frame(completer: Completer) -> None:
    changed = Completer(completer.settings, completer.model)
    assert len(changed.complete(scene()).answers) > 100
    changed.reconfigure(with_values(Settings(), {"queries.budget": 20}))
    assert len(changed.complete(scene()).answers) <= 20


def test_the_beat_comes_between_passes_and_may_end_the_frame(completer: Completer) -> None:
    small = Completer(with_values(completer.settings, {"queries.tile": 20}), completer.model)
    beats = []
    small.complete(scene(), beat=lambda: beats.append(1))
    assert len(beats) >= 200 // 20

    def stop() -> None:
        raise KeyError("stop")

    with pytest.raises(KeyError):
        small.complete(scene(), beat=stop)
    assert np.isfinite(small.complete(scene()).depth).all()


def test_without_points_the_answers_count_even_if_trust_is_fixed_at_zero(
        completer: Completer) -> None:
    image, _ = frame()
    willing = Completer(with_values(completer.settings, {
        "input.on_empty_sparse": "answer", "fill.trust": 0.0}), completer.model)
    dense = willing.complete(Frame(image, np.zeros(image.shape[:2], np.float32)))
    assert np.isfinite(dense.depth).any() and not dense.confidence.any()


def test_a_model_that_is_not_finite_fails_with_a_sentence() -> None:
    broken = random_model()
    with torch.no_grad():
        broken.qwen.lm_head.weight.fill_(float("nan"))
    with pytest.raises(ModelFailed, match="not finite"):
        Completer(Settings(), broken).complete(scene())


def test_the_literal_text_mode_answers_too() -> None:
    literal = Completer(with_values(Settings(), {"queries.budget": 30}),
                        random_model(addressing="text"))
    dense = literal.complete(scene())
    assert len(np.unique(dense.answers.depth)) > 1


def test_a_model_without_classical_hints_answers_too() -> None:
    plain = Completer(with_values(Settings(), {"queries.budget": 30}), random_model(hints=()))
    assert np.isfinite(plain.complete(scene()).depth).all()


def test_the_description_names_model_size_and_device(completer: Completer) -> None:
    assert "M parameters, cpu, float32" in completer.description


def test_an_untrained_fusion_guesses_the_mean_of_its_fills() -> None:
    fusion = dataclasses.replace(CONFIG.fusion, fills=("nearest", "edge_aware"))
    model = random_model(sharpen=1.0, fusion=fusion, hints=fusion.fills)
    given = scene()
    expected = np.sqrt(fill.nearest(given.sparse) * fill.edge_aware(given.sparse, given.image))
    np.testing.assert_allclose(Completer(Settings(), model).guess(given), expected, rtol=1e-5)
    assert Completer(Settings(), random_model()).guess(given) is None


@pytest.mark.parametrize(("words", "kind", "remedy"), [
    ("CUDA out of memory. Tried to allocate 2 GiB", OutOfMemory, "queries.tile"),
    ("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate(handle)", OutOfMemory,
     "queries.tile"),
    ("CUDA error: device-side assert triggered", ModelLost, "device-side assert"),
    ("CUDA error: an illegal memory access was encountered", ModelLost, "illegal"),
])
def test_a_gpu_without_memory_is_told_from_one_that_is_lost(
        monkeypatch: pytest.MonkeyPatch, words: str, kind: type, remedy: str) -> None:
    """Simulated by the words of PyTorch's errors, which are all that tells them apart."""
    completer = Completer(Settings(), random_model())

    def failing(*_: object) -> None:
        raise RuntimeError(words)

    monkeypatch.setattr(completer.model, "encode", failing)
    with pytest.raises(kind, match=remedy) as caught:
        completer.complete(scene())
    assert type(caught.value) is kind


def test_a_cpu_goes_without_compiled_steps() -> None:
    model = random_model()
    before = model.steps
    Completer(with_values(Settings(), {"model.compile": True}), model)
    assert model.steps is before


def test_passes_that_do_not_fit_into_memory_are_halved_and_the_answers_stay(
        monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory is simulated: a pass of more than 40 queries fails as PyTorch's do."""
    completer, spell, sizes = Completer(Settings(), random_model()), engine.spell, []
    expected, too_large = completer.complete(scene()), []

    def small_memory(model: object, prefix: object, suffix: torch.Tensor, *rest: object) -> object:
        if len(suffix) > 40:
            too_large.append(len(suffix))
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        sizes.append(len(suffix))
        return spell(model, prefix, suffix, *rest)

    monkeypatch.setattr(engine, "spell", small_memory)
    got = completer.complete(scene())
    np.testing.assert_allclose(got.answers.depth, expected.answers.depth, rtol=1e-5)
    assert len(sizes) > 1
    # The next frame begins with what fitted, also where settings come anew with each, as the
    # node's do.
    failed, refused = len(sizes), len(too_large)
    completer.reconfigure(Settings())
    completer.complete(scene())
    assert 20 <= max(sizes[failed:]) <= 40 and len(too_large) == refused


def test_more_queries_are_tried_again_some_time_after_memory_ran_out(
        monkeypatch: pytest.MonkeyPatch) -> None:
    """As where another process had the memory for a moment."""
    few = with_values(Settings(), {"queries.budget": 150, "fill.calibration_points": 20})
    completer, spell, sizes = Completer(few, random_model()), engine.spell, []
    most = 20

    def small_memory(model: object, prefix: object, suffix: torch.Tensor, *rest: object) -> object:
        if len(suffix) > most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        sizes.append(len(suffix))
        return spell(model, prefix, suffix, *rest)

    monkeypatch.setattr(engine, "spell", small_memory)
    monkeypatch.setattr(asking, "PATIENCE", 1)
    completer.complete(scene())
    most = 10_000
    for _ in range(5):
        completer.complete(scene())
    assert max(sizes) > 100


def test_a_frame_without_memory_is_tried_once_more_with_as_little_at_a_time_as_possible(
        monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory is simulated: two frames at once do not fit, as on a GPU with all folds together."""
    completer = Completer(Settings(), random_model())
    expected, encode = completer.complete(scene()), completer.model.encode
    completer._together = True

    def small_memory(inputs: ModelInput) -> Prefix:
        if len(inputs.unit) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        return encode(inputs)

    monkeypatch.setattr(completer.model, "encode", small_memory)
    np.testing.assert_array_equal(completer.complete(scene()).depth, expected.depth)


def test_all_folds_together_give_what_each_alone_gives() -> None:
    """As a GPU asks them; on a CPU they come one by one."""
    completer = Completer(Settings(), random_model())
    alone = completer.complete(scene())
    completer._together = True
    together = completer.complete(scene())
    assert alone.stats.trust == together.stats.trust
    np.testing.assert_allclose(together.depth, alone.depth, rtol=1e-4)


def test_asked_alone_the_model_says_what_it_says_in_a_map() -> None:
    """At a size where the fusion is shown the fills of the full image, reduced."""
    fusion = FusionConfig(8, 8, 16, 8, norm="group", fills=("nearest", "linear"))
    model = random_model(fusion=fusion, hints=fusion.fills, told="guess")
    image, sparse = frame(height=88, width=110)
    assert model.takes_maps(*sparse.shape) and model.image_size(*sparse.shape) != sparse.shape
    completer = Completer(with_values(Settings(), {"queries.budget": 100}), model)
    dense = completer.complete(Frame(image, sparse))
    alone = completer.ask(Frame(image, sparse), dense.answers.rows, dense.answers.cols)
    np.testing.assert_allclose(alone.depth, dense.answers.depth, rtol=1e-5)


@pytest.mark.parametrize("tile", [30, 100, 4096])
def test_passes_that_are_recorded_have_few_sizes_and_never_more_queries_than_fit(
        monkeypatch: pytest.MonkeyPatch, tile: int) -> None:
    """A GPU's recorder is replaced by one that records nothing."""
    few = with_values(Settings(), {"queries.budget": 150, "fill.calibration_points": 20})
    completer, spell, sizes = Completer(few, random_model()), engine.spell, set()
    expected = completer.complete(scene())

    class Plain:
        def run(self, function, inputs, name):
            return tuple(function(*inputs))

        def forget(self):
            pass

    def noting(model: object, prefix: object, suffix: torch.Tensor, *rest: object) -> object:
        sizes.add(len(suffix))
        return spell(model, prefix, suffix, *rest)

    monkeypatch.setattr(engine, "spell", noting)
    completer._recorder = Plain()
    completer.reconfigure(with_values(few, {"queries.tile": tile}))
    got = completer.complete(scene())
    np.testing.assert_allclose(got.answers.depth, expected.answers.depth, rtol=1e-5)
    assert max(sizes) <= tile
    assert tile < 4096 or all(size % 64 == 0 for size in sizes)
    assert len(sizes) <= 2

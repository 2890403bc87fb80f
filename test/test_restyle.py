"""Restyled training images: other looks, the same scene."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from sdim_ros.tools.training import restyle


@pytest.fixture
def scene() -> tuple[np.ndarray, np.ndarray]:
    """A dark box in front of a bright wall."""
    depth = np.full((96, 128), 5, np.float32)
    depth[30:70, 40:90] = 2
    image = np.where(depth[..., None] > 3, 200, 60).repeat(3, axis=2).astype(np.uint8)
    return image, depth


def test_equal_seeds_give_equal_images_and_the_input_stays(scene) -> None:
    before = scene[0].copy()
    one, two = (restyle.restyle(*scene, np.random.default_rng(5)) for _ in range(2))
    assert one.dtype == np.uint8 and one.shape == scene[0].shape
    assert (one == two).all() and (scene[0] == before).all()


def test_images_differ_from_draw_to_draw(scene) -> None:
    images = [restyle.restyle(*scene, np.random.default_rng(seed), blind=0) for seed in range(20)]
    distance = [np.abs(a.astype(int) - b).mean() for a, b in zip(images, images[1:])]
    assert np.median(distance) > 10


def test_the_share_of_blind_images_is_kept(scene) -> None:
    rng = np.random.default_rng(0)
    blind = [(restyle.restyle(*scene, rng, blind=0.5) == restyle.GREY).all() for _ in range(200)]
    assert 0.35 < np.mean(blind) < 0.65


def test_depth_edges_stay_visible_in_most_images(scene) -> None:
    def contrast(image: np.ndarray) -> float:
        grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(float)
        return abs(grey[45:55, 42:48].mean() - grey[45:55, 32:38].mean())

    rng = np.random.default_rng(1)
    seen = [contrast(restyle.restyle(*scene, rng, blind=0)) > 10 for _ in range(100)]
    assert np.mean(seen) > 0.7


def test_unknown_depth_is_no_obstacle(scene) -> None:
    for seed in range(20):
        image = restyle.restyle(scene[0], np.zeros_like(scene[1]), np.random.default_rng(seed))
        assert image.shape == scene[0].shape


def test_the_scene_that_measures_the_model_is_not_among_the_photographs() -> None:
    assert not any("motorcycle" in name for name in restyle.PHOTOGRAPHS)

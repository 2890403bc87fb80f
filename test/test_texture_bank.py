"""Texture tiles: always the same, looked up without aliasing, and others for evaluation."""

from __future__ import annotations

import numpy as np
import pytest

from sdim_ros.tools.procedural import patterns, reserved_patterns
from sdim_ros.tools.procedural.bank import TILES_PER_KIND, TextureBank, reserved_bank
from sdim_ros.tools.procedural.materials import FAMILIES, PLAIN, draw_material
from sdim_ros.tools.procedural.reserved import RESERVED
from sdim_ros.tools.procedural.rooms import ROOMS
from sdim_ros.tools.procedural.streets import STREETS

KINDS = {**patterns.MIXED, **patterns.COLOURED}
RESERVED_KINDS = {**reserved_patterns.MIXED, **reserved_patterns.COLOURED}


def grid(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Centres (u, v) of size x size texels, in the order of an image from its top."""
    v, u = np.indices((size, size)) + 0.5
    return (u / size).ravel(), (1 - v / size).ravel()


def look_up(bank: TextureBank, place: int, size: int, level: int) -> np.ndarray:
    u, v = grid(size)
    values = bank.sample(np.full(len(u), place), u, v, np.full(len(u), level))
    return values.reshape(size, size, 3)


@pytest.fixture(scope="module")
def bank() -> TextureBank:
    return TextureBank(7, patterns.MIXED, patterns.COLOURED)


@pytest.mark.parametrize("name", [*KINDS, *RESERVED_KINDS])
def test_a_pattern_fills_a_tile_with_something(name):
    pattern = {**KINDS, **RESERVED_KINDS}[name]
    tiles = [np.asarray(pattern(np.random.default_rng(seed)), np.float32) for seed in range(4)]
    for tile in tiles:
        assert tile.shape[:2] == (256, 256) and tile.shape[2] in (1, 2, 3)
        assert np.isfinite(tile).all()
    assert np.median([tile.std() for tile in tiles]) > 0.03
    assert any(not np.array_equal(tile, tiles[0]) for tile in tiles[1:])


def test_a_tile_depends_on_block_kind_and_number_alone(bank):
    first = look_up(bank, bank.tile("bricks", 3), 256, 0)
    other = TextureBank(7, patterns.MIXED, patterns.COLOURED)
    other.tile("weave", 0)
    np.testing.assert_array_equal(look_up(other, other.tile("bricks", 3), 256, 0), first)
    np.testing.assert_array_equal(
        look_up(other, other.tile("bricks", 3 + TILES_PER_KIND), 256, 0), first)
    another = TextureBank(8, patterns.MIXED, patterns.COLOURED)
    assert (look_up(another, another.tile("bricks", 3), 256, 0) != first).any()


def test_a_look_up_at_a_texel_gives_its_value_and_coarse_levels_their_mean(bank):
    place = bank.tile("collage", 0)
    full = look_up(bank, place, 256, 0)
    made = np.clip(patterns.collage(np.random.default_rng(
        [7, bank.names.index("collage"), 0])), 0, 1)
    np.testing.assert_allclose(full, made, atol=0.003)
    blocks = full.reshape(32, 8, 32, 8, 3).mean((1, 3))
    np.testing.assert_allclose(look_up(bank, place, 32, 3), blocks, atol=0.01)


def test_tiles_repeat(bank):
    place, (u, v) = np.full(100, bank.tile("dots", 1)), np.random.default_rng(0).random((2, 100))
    level = np.zeros(100, int)
    np.testing.assert_allclose(bank.sample(place, u + 3, v - 5, level),
                               bank.sample(place, u, v, level), atol=1e-3)


def test_every_family_names_patterns_that_exist(bank):
    for family, source in FAMILIES.items():
        assert set(source.kinds) <= {"plain", *bank.names}, family


def test_colours_stay_between_black_and_white(bank):
    rng = np.random.default_rng(0)
    for family in FAMILIES:
        for _ in range(10):
            material = draw_material(rng, bank, family)
            assert (material.bias >= 0).all() and (material.bias <= 1).all()


def test_reserved_patterns_and_layouts_are_none_of_the_training():
    assert not set(KINDS) & set(RESERVED_KINDS)
    assert not set(KINDS.values()) & set(RESERVED_KINDS.values())
    training = {layout for layout, _ in (*ROOMS, *STREETS)}
    assert not training & {layout for layout, _ in RESERVED}


def test_materials_of_the_reserved_bank_never_fall_back_on_training_patterns():
    reserved, rng = reserved_bank(), np.random.default_rng(1)
    for family in FAMILIES:
        for _ in range(5):
            tile = draw_material(rng, reserved, family).tile
            assert tile == PLAIN or reserved.names[tile // TILES_PER_KIND] in RESERVED_KINDS


def test_reserved_tiles_do_not_look_like_training_tiles(bank):
    """No reserved tile is a training tile with other colours, moved by any number of texels."""
    def flat(kinds, source):
        tiles = [look_up(source, source.tile(kind, number), 64, 2).mean(-1)
                 for kind in kinds for number in (0, 1)]
        tiles = np.stack(tiles) - np.mean(tiles, (1, 2), keepdims=True)
        spectra = np.fft.fft2(tiles)
        return spectra / np.sqrt((tiles ** 2).sum((1, 2)))[:, None, None]
    ours, theirs = flat(KINDS, bank), flat(RESERVED_KINDS, reserved_bank())
    likeness = [np.abs(np.fft.ifft2(ours * spectrum.conj()).real).max() for spectrum in theirs]
    assert max(likeness) < 0.9

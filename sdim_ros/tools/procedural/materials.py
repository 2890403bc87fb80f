"""What surfaces look like: families of materials, each with its patterns, colours and gloss."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from sdim_ros.tools.procedural.bank import TILES_PER_KIND, TextureBank

PLAIN = -1


@dataclass
class Material:
    """One surface.

    Attributes:
        tile: place in the texture bank, or PLAIN.
        bias, mixing: colour = bias (3,) + texel (3,) @ mixing (3, 3); linear RGB, 0-1.
        size: (2,) metres that a tile covers.
        angle, offset: turn (radians) and shift (2,) (tiles) on the surface.
        gloss, sharpness: strength and exponent of the highlights of lights.
        mirror: share of the surroundings that is reflected at right angles.
        glow: light that the surface gives by itself.
        known: whether a depth sensor measures it; not glass, for one.
    """

    tile: int
    bias: np.ndarray
    mixing: np.ndarray
    size: np.ndarray
    angle: float = 0.0
    offset: np.ndarray = field(default_factory=lambda: np.zeros(2))
    gloss: float = 0.0
    sharpness: float = 20.0
    mirror: float = 0.0
    glow: float = 0.0
    known: bool = True


@dataclass(frozen=True)
class Family:
    """Where the materials of one use are drawn from.

    Attributes:
        kinds: patterns; repeated ones are more likely, "plain" has none.
        hue, saturation, value: ranges of the first colour.
        size: metres of a tile, drawn from its half to its double.
        gloss, mirror: largest strengths.
        odd: probability of a colour out of these ranges.
    """

    kinds: tuple[str, ...]
    hue: tuple[float, float] = (0, 1)
    saturation: tuple[float, float] = (0, 0.9)
    value: tuple[float, float] = (0.05, 0.9)
    size: float = 1.0
    gloss: float = 0.1
    mirror: float = 0.0
    odd: float = 0.15


# Patterns that have an upper side.
_UPRIGHT = {"facade", "bricks", "page", "poster", "label", "spines", "scene_picture"}
_PLAIN4 = ("plain",) * 4
FAMILIES = {
    "wall": Family(_PLAIN4 * 2 + ("plaster", "plaster", "cloudy", "worn", "worn", "bricks",
                                  "planks", "bars", "dots", "tiles", "stones", "weave"),
                   (0.02, 0.7), (0, 0.35), (0.3, 1.0), 1.2, 0.1),
    "floor": Family(("planks", "planks", "tiles", "tiles", "carpet", "carpet", "terrazzo",
                     "cloudy", "asphalt", "checks", "marble", "worn", "plain"),
                    (0.03, 0.65), (0, 0.6), (0.08, 0.8), 1.3, 0.3, 0.15),
    "ceiling": Family(_PLAIN4 + ("plaster", "tiles", "planks"), (0.05, 0.2), (0, 0.15),
                      (0.5, 0.95), 1.2, 0, odd=0.05),
    "wood": Family(("planks", "planks", "planks", "plain", "worn"), (0.04, 0.11), (0.25, 0.8),
                   (0.03, 0.7), 0.8, 0.4, 0.08),
    "metal": Family(("brushed", "brushed", "plain", "worn"), (0.5, 0.7), (0, 0.12), (0.1, 0.7),
                    0.4, 1.5, 0.7),
    "paint": Family(_PLAIN4 + ("worn",), value=(0.03, 0.8), size=1.0, gloss=1.5, mirror=0.3),
    "plastic": Family(_PLAIN4 + ("plaster", "label"), value=(0.02, 0.9), size=0.3, gloss=0.8,
                      mirror=0.06),
    "fabric": Family(("weave", "weave", "plain", "plain", "carpet", "bars", "dots", "checks",
                      "cloudy"), saturation=(0, 0.8), size=0.3, gloss=0),
    "picture": Family(("scene_picture", "scene_picture", "collage", "poster", "poster"),
                      size=0.8, gloss=0.3, mirror=0.03),
    "paper": Family(("page", "page", "poster", "label", "plain"), (0.1, 0.17), (0, 0.15),
                    (0.7, 0.95), 0.3, 0),
    "package": Family(("label", "label", "label", "poster", "plain", "worn"), size=0.3, gloss=0.4,
                      mirror=0.03),
    "cardboard": Family(("plain", "worn", "label", "plaster"), (0.07, 0.1), (0.3, 0.6),
                        (0.3, 0.65), 0.5, 0),
    "books": Family(("spines",), size=0.5, gloss=0.2),
    "leaf": Family(("plain", "plain", "cloudy"), (0.16, 0.36), (0.3, 0.85), (0.1, 0.6), 0.3, 0.3,
                   odd=0.08),
    "hedge": Family(("foliage",), (0.16, 0.36), (0.3, 0.8), (0.03, 0.2), 0.8, 0, odd=0.08),
    "grass": Family(("foliage", "carpet", "cloudy", "pebbles"), (0.14, 0.33), (0.25, 0.7),
                    (0.06, 0.35), 1.2, 0),
    "ground": Family(("asphalt", "pebbles", "cloudy", "stones", "plaster", "tiles"), (0.05, 0.15),
                     (0, 0.4), (0.1, 0.6), 1.5, 0),
    "road": Family(("asphalt", "asphalt", "asphalt", "plaster", "cloudy"), (0.05, 0.65),
                   (0, 0.12), (0.06, 0.4), 2.0, 0.2),
    "pavement": Family(("tiles", "tiles", "asphalt", "stones", "checks", "plaster"), (0.05, 0.65),
                       (0, 0.2), (0.15, 0.65), 1.5, 0),
    "facade": Family(("facade", "facade", "facade", "bricks", "plaster", "worn", "stones"),
                     (0.0, 0.65), (0, 0.45), (0.15, 0.9), 7.0, 0.1, 0.05),
    "bark": Family(("brushed", "stones", "planks", "worn"), (0.05, 0.12), (0.1, 0.5), (0.04, 0.35),
                   0.4, 0),
    "skin": Family(("plain",), (0.02, 0.09), (0.25, 0.65), (0.1, 0.8), 0.3, 0.2),
    "rubber": Family(("plain", "plaster"), saturation=(0, 0.1), value=(0.01, 0.08), size=0.1,
                     gloss=0.2, odd=0.02),
    "dark_glass": Family(("plain",), (0.45, 0.65), (0, 0.5), (0.01, 0.06), 1, 1.5, 0.5, odd=0.0),
}


def colour(rng: np.random.Generator, hue: Sequence[float] = (0, 1),
           saturation: Sequence[float] = (0, 0.9), value: Sequence[float] = (0.05, 0.9)
           ) -> np.ndarray:
    """Linear RGB (3,) with hue, saturation and value in these ranges; grey is more likely."""
    random = rng.random(4)
    turn, strength, level = (low + (high - low) * share for share, (low, high) in zip(
        random, (hue, saturation, value)))
    if random[3] < 0.5:  # as much per octave as between them: many things are dark
        level = value[0] * (value[1] / value[0]) ** random[2]
    ramp = [min(max(abs((turn * 6 + shift) % 6 - 3) - 1, 0), 1) for shift in (0, 4, 2)]
    return np.array([level * (1 - strength + strength * part) for part in ramp])


def draw_material(rng: np.random.Generator, bank: TextureBank, family: str,
                  fit: Sequence[float] | None = None, size: float | None = None) -> Material:
    """A material of a family.

    Args:
        bank: holds the patterns; kinds that it does not have are replaced by any that it has.
        fit: (width, height) of a flat surface around its middle that one tile has to cover.
        size: metres of a tile, in place of the family's.
    """
    source = FAMILIES[family]
    kind = source.kinds[rng.integers(len(source.kinds))]
    # Few surfaces are of one colour altogether: most of the plain ones are a little uneven.
    uneven = kind == "plain" and rng.random() < 0.6
    if uneven:
        kind = ("cloudy", "plaster", "worn", "carpet")[rng.integers(4)]
    if kind != "plain" and kind not in bank.kinds:
        kind = bank.names[rng.integers(len(bank.names))]
    odd, stretch, share, rise, gloss = rng.random(5)
    ranges = ((source.hue, source.saturation, source.value) if odd >= source.odd
              else ((0, 1), (0, 1), (0.02, 0.95)))
    first, plain, pictured = colour(rng, *ranges), kind == "plain", kind in bank.coloured
    scale = (size or source.size) * np.exp(1.5 * stretch - 0.95) * np.ones(2)
    angle = 0.0
    if kind not in _UPRIGHT:
        angle = (0.0, 0.5 * np.pi)[rng.integers(2)] if rng.random() < 0.9 else rng.uniform(0, 3)
    offset = rng.uniform(0, 8, 2)
    if fit is not None:
        scale, angle, offset = np.asarray(fit, float), 0.0, np.full(2, 0.5)
    return Material(
        PLAIN if plain else bank.tile(kind, int(rng.integers(TILES_PER_KIND))),
        np.zeros(3) if pictured else first,
        np.zeros((3, 3)) if plain else _twist(rng) if pictured else _mixing(
            rng, kind, first, ranges, rng.uniform(0.05, 0.25) if uneven else None),
        scale, angle, offset, gloss=source.gloss * gloss ** 2,
        sharpness=np.exp(1.5 + 3.5 * rise), mirror=source.mirror * share)


def _twist(rng: np.random.Generator) -> np.ndarray:
    """(3, 3) that gives a picture other colours."""
    turned = np.eye(3)[rng.permutation(3)] if rng.random() < 0.5 else np.eye(3)
    return turned * rng.uniform(0.6, 1.0, 3)


def _mixing(rng: np.random.Generator, kind: str, first: np.ndarray,
            ranges: tuple[Sequence[float], ...], contrast: float | None) -> np.ndarray:
    """(3, 3): how the channels of a texel lead from the first colour to others."""
    contrast = contrast or (0.2, 0.5, 0.8, 1.0)[rng.integers(4)]
    others = [colour(rng, *ranges) if rng.random() < 0.6
              else first * (0.2, 0.5, 1.7)[rng.integers(3)] for _ in range(3)]
    if kind in ("foliage", "pebbles"):  # light over dark: the first colour is the shade
        others[0], contrast = first * rng.uniform(2.5, 6), 1.0
    return contrast * (np.clip(others, 0, 1) - first)

"""How the parts of a scene look: materials, patterns, light and sensor."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import lru_cache

import cv2
import numpy as np

from sdim_ros.tools.raycast import DOME, PLATE, Part, intersect, surface

_TEXELS = 512
_PERIOD_TEXELS = 48.0


@dataclass
class Material:
    """A pattern of two colours.

    Attributes:
        pattern: plain, mosaic or a name of PATTERNS.
        first, second: (3,) linear RGB, 0-1.
        size: (2,) period of the pattern in metres.
        angle, offset: turn (radians) and shift (2,) (periods) of the pattern on the surface.
        grain: strength of the fine unevenness over the pattern.
        gloss, glow: strength of highlights, and of light that the surface gives by itself.
    """

    pattern: str
    first: np.ndarray
    second: np.ndarray
    size: np.ndarray
    angle: float = 0.0
    offset: np.ndarray = field(default_factory=lambda: np.zeros(2))
    grain: float = 0.0
    gloss: float = 0.0
    glow: float = 0.0


@lru_cache(maxsize=1)
def _noise_tiles() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Wrapping noise in 0-1, fractal and fine, (512, 512) each, and (4096, 3) cell colours."""
    rng = np.random.default_rng(20240)
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(_TEXELS), np.fft.rfftfreq(_TEXELS),
                                      indexing="ij"))
    frequency[0, 0] = np.inf

    def shaped(gain: np.ndarray) -> np.ndarray:
        white = rng.standard_normal((_TEXELS, _TEXELS))
        tile = np.fft.irfft2(np.fft.rfft2(white) * gain, s=white.shape)
        return np.clip(0.5 + 0.22 * tile / tile.std(), 0, 1).astype(np.float32)

    octaves = 1 / np.maximum(frequency, 4 / _TEXELS) ** 1.4
    octaves[0, 0] = 0
    fine = np.exp(-((np.log(frequency / 0.12)) / 0.5) ** 2)
    return shaped(octaves), shaped(fine), rng.random((4096, 3)).astype(np.float32)


def _sample(tile: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Bilinear look-up at (N,) periods."""
    # cv2.remap keeps coordinates as 16-bit integers and limits the length of a row: hence the
    # modulo, and the rows of 256.
    shape = (-(-len(a) // 256), 256)
    x, y = (np.resize(np.mod(item * _PERIOD_TEXELS, _TEXELS).astype(np.float32), shape)
            for item in (a, b))
    return cv2.remap(tile, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP).ravel()[:len(a)]


def _fractal(a, b, noise, fine, cell):
    return noise


def _blobs(a, b, noise, fine, cell):
    return np.clip((noise - 0.5) * 12 + 0.5, 0, 1)


def _speckle(a, b, noise, fine, cell):
    return np.clip((fine - 0.68) * 8, 0, 1)


def _checker(a, b, noise, fine, cell):
    return np.mod(np.floor(a) + np.floor(b), 2)


def _stripes(a, b, noise, fine, cell):
    return (np.mod(a, 1) < 0.45).astype(np.float32)


def _wood(a, b, noise, fine, cell):
    return 0.5 + 0.35 * np.sin(6.283 * (3 * a + 4 * noise)) + 0.3 * (fine - 0.5)


def _bricks(a, b, noise, fine, cell):
    shifted = a + 0.5 * np.mod(np.floor(b), 2)
    mortar = (np.mod(shifted, 1) < 0.05) | (np.mod(b, 1) < 0.1)
    return np.where(mortar, 1, 0.4 * cell(np.floor(shifted), np.floor(b)))


def _tiles(a, b, noise, fine, cell):
    joint = (np.mod(a, 1) < 0.04) | (np.mod(b, 1) < 0.04)
    return np.where(joint, 1, 0.25 * cell(np.floor(a), np.floor(b)))


def _windows(a, b, noise, fine, cell):
    pane = (np.mod(a, 1) > 0.3) & (np.mod(b, 1) > 0.4)
    return np.where(pane, 0.6 + 0.4 * cell(np.floor(a), np.floor(b)), 0.15 * noise)


# How much of the second colour shows, (N,), at a and b periods along the surface; noise and fine
# are 0-1, and cell gives a random number 0-1 for a cell of the pattern.
PATTERNS = {
    "fractal": _fractal, "blobs": _blobs, "speckle": _speckle, "checker": _checker,
    "stripes": _stripes, "wood": _wood, "bricks": _bricks, "tiles": _tiles, "windows": _windows,
}
_ANY = ("plain",) * 5 + ("mosaic",) + tuple(PATTERNS)[:-1]
_STRETCH = {"bricks": [2, 1], "wood": [1, 5]}


def _colour(rng: np.random.Generator) -> np.ndarray:
    value = rng.uniform(0.04, 0.95)
    saturation = rng.choice([rng.uniform(0, 0.15), rng.uniform(0.1, 0.5), rng.uniform(0.4, 0.95)],
                            p=[0.4, 0.4, 0.2])
    hue = np.clip(np.abs((rng.random() * 6 + np.array([0, 4, 2])) % 6 - 3) - 1, 0, 1)
    return value * (1 - saturation + saturation * hue)


def random_material(rng: np.random.Generator, patterns: tuple[str, ...] = (),
                    period: float = 0.3) -> Material:
    """A material with one of some patterns.

    Args:
        patterns: names to choose from; empty = any but windows, with a large share of plain.
        period: typical size of the pattern in metres.
    """
    name = (patterns or _ANY)[rng.integers(len(patterns or _ANY))]
    first, contrast = _colour(rng), rng.choice([0.15, 0.5, 1.0])
    size = period * np.exp(rng.normal(0, 0.6) + rng.normal(0, 0.4) * np.array([0, 1]))
    turned = rng.random() < 0.3 and name not in ("windows", "bricks")
    quarter = rng.choice([0, np.pi / 2]) * (name not in ("windows", "bricks"))
    return Material(
        name, first, first * (1 - contrast) + contrast * _colour(rng),
        size * _STRETCH.get(name, [1, 1]),
        angle=rng.uniform(0, np.pi) if turned else quarter, offset=rng.uniform(0, 20, 2),
        grain=rng.choice([0.0, 0.02, 0.06, 0.3], p=[0.3, 0.3, 0.3, 0.1]),
        gloss=rng.choice([0, 0, 0.15, 0.5]))


def paint(material: Material, uv: np.ndarray, footprint: np.ndarray, salt: int) -> np.ndarray:
    """Colour of the points of one surface.

    Args:
        uv: (N, 2) metres along the surface.
        footprint: (N,) size of a pixel on the surface in metres: patterns finer than that fade
            to their mean instead of aliasing.
        salt: makes two surfaces of the same material differ.

    Returns:
        (N, 3) float32, linear RGB, about 0-1.
    """
    cosine, sine = np.cos(material.angle), np.sin(material.angle)
    a = (cosine * uv[:, 0] + sine * uv[:, 1]) / material.size[0] + material.offset[0]
    b = (cosine * uv[:, 1] - sine * uv[:, 0]) / material.size[1] + material.offset[1]
    fractal, fine, table = _noise_tiles()
    noise = _sample(fractal, a, b)
    fade = np.clip(material.size.min() / footprint / 3 - 0.3, 0, 1)

    def cell(i: np.ndarray, j: np.ndarray) -> np.ndarray:
        key = i.astype(np.int64) * 73856093 ^ j.astype(np.int64) * 19349663 ^ salt * 83492791
        return (key ^ key >> 13) & 4095

    if material.pattern == "mosaic":
        mean = (material.first + material.second) / 2
        colour = mean + (table[cell(np.floor(a), np.floor(b))] - mean) * 0.8 * fade[:, None]
    elif material.pattern == "plain":
        colour = np.broadcast_to(material.first, (len(a), 3))
    else:
        speckles = _sample(fine, a, b) if material.pattern in ("speckle", "wood") else noise
        mix = PATTERNS[material.pattern](a, b, noise, speckles,
                                         lambda i, j: table[cell(i, j), 0])
        mix = 0.35 + (mix - 0.35) * fade
        colour = material.first + (material.second - material.first) * mix[:, None]
    return (colour * (1 + material.grain * 2 * (noise - 0.5) * fade)[:, None]).astype(np.float32)


def shade(parts: list[Part], index: np.ndarray, points: np.ndarray, camera: np.ndarray,
          pixel: float, lights: np.ndarray, ambient: np.ndarray, shadows: bool) -> np.ndarray:
    """Radiance of the points that a camera sees.

    Args:
        index: (H, W) int, the part seen.
        points: (H, W, 3), metres, world axes, relative to the camera.
        camera: (3,) its centre in the world.
        pixel: width of a pixel at one metre.
        lights: (L, 7): position in the world, fall-off distance (inf = none), RGB power.
        ambient: (3,) RGB power.
        shadows: whether the parts block the first light.

    Returns:
        (H, W, 3) float32, linear RGB, not limited to 1.
    """
    # Relative to the camera float32 is exact enough.
    parts = [replace(part, center=part.center - camera) for part in parts]
    lights = lights - [*camera, 0, 0, 0, 0]
    grid, points = points.shape, points.reshape(-1, 3).astype(np.float32)
    distance = np.sqrt(_dot(points, points))
    view = -points / distance[:, None]
    normals, colour = np.empty_like(points), np.empty_like(points)
    gloss, glow = (np.array([getattr(part.material, name) for part in parts], np.float32)[
        index.ravel()] for name in ("gloss", "glow"))
    order = np.argsort(index.ravel().astype(np.int16), kind="stable")
    ends = np.cumsum(np.bincount(index.ravel(), minlength=len(parts)))
    for number, (part, at) in enumerate(zip(parts, np.split(order, ends[:-1]))):
        if len(at) == 0:
            continue
        turn = part.turn.astype(np.float32)
        normal, uv = surface(part.shape, (points[at] - part.center.astype(np.float32)) @ turn,
                             part.half.astype(np.float32))
        normal = normal @ turn.T
        facing = _dot(normal, view[at]) / np.sqrt(_dot(normal, normal))
        normals[at] = normal * (np.sign(facing) / np.sqrt(_dot(normal, normal)))[:, None]
        footprint = distance[at] * pixel / np.sqrt(np.maximum(np.abs(facing), 0.02))
        colour[at] = paint(part.material, uv, footprint, number)
    free = np.ones(len(points), np.float32)
    if shadows:
        start = (points + normals * 2e-3 * distance[:, None]).reshape(grid)
        free = _light_that_arrives(parts, start, lights[0, :3]).ravel()
    result = colour * (ambient.astype(np.float32) * (0.75 + 0.25 * normals[:, 2:]) + glow[:, None])
    for light in lights.astype(np.float32):
        to_light = light[:3] - points
        away = np.sqrt(_dot(to_light, to_light))
        to_light /= away[:, None]
        strength = free * np.maximum(_dot(normals, to_light), 0) / (1 + (away / light[3]) ** 2)
        half = to_light + view  # Blinn-Phong
        half /= np.sqrt(_dot(half, half) + 1e-9)[:, None]
        shine = gloss * np.maximum(_dot(normals, half), 0) ** 32
        result += (colour + shine[:, None]) * (strength[:, None] * light[4:])
        free = 1.0
    return result.reshape(grid).astype(np.float32)


def _light_that_arrives(parts: list[Part], start: np.ndarray, light: np.ndarray,
                        stride: int = 3) -> np.ndarray:
    """Share of a light that reaches points (H, W, 3), 0-1, with soft borders."""
    size = start.shape[1::-1]
    start = start[::stride, ::stride].reshape(-1, 3).astype(float)
    way = light - start
    length = _dot(way, way)
    free = np.ones(len(start), np.float32)
    for part in parts:
        if part.shape in (PLATE, DOME):
            continue
        # A way that stays outside of the bounding sphere needs no exact test.
        offset = start - part.center
        closest = offset + np.clip(-_dot(offset, way) / length, 0, 1)[:, None] * way
        near = np.flatnonzero((_dot(closest, closest) < (part.half ** 2).sum()) & (free > 0))
        inverse = part.turn / part.half
        hit = intersect(part.shape, (offset[near] @ inverse).T, (way[near] @ inverse).T)
        free[near] = hit >= 1
    free = free.reshape(-(-size[1] // stride), -(-size[0] // stride))
    return cv2.resize(cv2.GaussianBlur(free, (0, 0), 0.8), size)


def _dot(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    return np.einsum("nc,nc->n", first, second)


def sensor_look(radiance: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Exposure, white balance, vignette, blur, noise, tone curve and sometimes JPEG.

    Args:
        radiance: (H, W, 3) float32, linear RGB.

    Returns:
        (H, W, 3) uint8 RGB.
    """
    height, width = radiance.shape[:2]
    level = np.percentile(radiance[::4, ::4].mean(-1), 80)
    image = radiance * (np.exp(rng.normal(-0.75, 0.35)) / max(level, 1e-4))
    image *= np.exp(rng.normal(0, 0.06, 3)).astype(np.float32)
    y, x = np.ogrid[-1:1:height * 1j, -1:1:width * 1j]
    image *= (1 - rng.uniform(0, 0.25) * (x ** 2 + y ** 2) / 2)[..., None].astype(np.float32)
    image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.35, 1.2))
    noise = rng.standard_normal(image.shape, dtype=np.float32)
    shot, read = rng.uniform(0, 0.03), rng.uniform(0, 0.012)
    image += noise * np.sqrt(shot ** 2 * np.clip(image, 0, 1) + read ** 2)
    image = np.clip(image, 0, 1) ** (1 / rng.uniform(1.7, 2.5))
    image = np.round(image * 255).astype(np.uint8)
    if rng.random() < 0.4:
        quality = int(rng.integers(50, 96))
        coded = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
        image = cv2.imdecode(coded, cv2.IMREAD_COLOR)[..., ::-1]
    return np.ascontiguousarray(image)

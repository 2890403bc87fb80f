"""The recipe of a training: YAML -> frozen dataclasses, every mistake named with its remedy."""

from __future__ import annotations

import dataclasses
import difflib
import json
import math
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from sdim_ros.core.fill import FILLS
from sdim_ros.core.fusion import STYLES
from sdim_ros.core.lora import LoraSettings
from sdim_ros.core.model import SdimConfig
from sdim_ros.core.point_token import TOLD
from sdim_ros.core.prompts import PROMPTS
from sdim_ros.core.types import BadSetting
from sdim_ros.tools.training.data_recipe import DataRecipe, PatternRecipe

PRECISIONS = ("auto", "float32", "bfloat16")
STORED = ("float32", "float16")
# These say where, how long and how often, not what is learned: a run may go on with others.
FREE_KEYS = ("training.steps", "training.accumulate", "training.gradient_checkpointing",
             "training.checkpoint_every", "training.validate_every", "training.picture_every",
             "training.stored")


@dataclass(frozen=True, slots=True)
class TrainingRecipe:
    """How the model is trained.

    Attributes:
        steps: optimiser steps.
        images: of a step, in each process and each part of an accumulated step.
        pixels: questions about each image, in one pass; 1 is the paper's mode.
        learning_rate: the highest.
        accumulate: passes whose gradients make one step.
        precision: of the matrix products, ``float32``, ``bfloat16``, or ``auto``: bfloat16 where
            the hardware has instructions for it.
        gradient_checkpointing: compute activations twice to save memory.
        warmup: steps over which the learning rate rises; then it falls to 1 % as a cosine.
        weight_decay: of AdamW.
        clip: largest norm of the gradient.
        metric_weight: lambda of the L1 error through text.
        slot_weights: of each digit in the cross-entropy; None = equal.
        guess_weight: of the loss of the fusion's guess, where it makes one.
        guess_against_fills: count the guess's error of each image against that of its fills.
        spelling: steps before the first, in which a model from nothing learns to write the
            number that it is told, without pictures.
        checkpoint_every, validate_every, picture_every: in steps; 0 = only at the end, for
            pictures never.
        stored: number type of the weights of a whole model on disk; an adapter's are float32.
    """

    steps: int
    images: int
    pixels: int
    learning_rate: float
    accumulate: int = 1
    precision: str = "float32"
    gradient_checkpointing: bool = False
    warmup: int = 0
    weight_decay: float = 0.01
    clip: float = 1.0
    metric_weight: float = 0.3
    slot_weights: tuple[float, ...] | None = None
    guess_weight: float = 10.0
    guess_against_fills: bool = False
    spelling: int = 0
    checkpoint_every: int = 200
    validate_every: int = 400
    picture_every: int = 0
    stored: str = "float32"


@dataclass(frozen=True, slots=True)
class Recipe:
    """One training from its YAML file.

    Attributes:
        seed: of the first weights and of every batch.
        sdim: what the checkpoint fixes besides the sizes of Qwen2.5-VL.
        qwen: sizes of a model that is trained from nothing, or None.
        base: Hugging Face id or folder of the stock model that is adapted, or None.
        lora: adaptation of the base's language model; None = only the SDIM parts train.
    """

    seed: int
    data: DataRecipe
    sdim: SdimConfig
    training: TrainingRecipe
    qwen: Mapping[str, Any] | None = None
    base: str | None = None
    lora: LoraSettings | None = None

    def content(self) -> dict[str, Any]:
        """Every leaf by its dotted name, as JSON knows it."""
        tree = json.loads(json.dumps(dataclasses.asdict(self), default=str, sort_keys=True))
        return dict(_leaves(tree))


def read(path: Path) -> Recipe:
    """The recipe in a YAML file.

    Raises:
        BadSetting: names the file, the key, the value, what was expected and the remedy.
    """
    if not path.is_file():
        raise BadSetting(f"recipe {path}: there is no such file; try config/train_tiny.yaml")
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as problem:
        raise BadSetting(f"recipe {path}: this is not YAML ({_one_line(problem)}); correct "
                         "that place, or start from config/train_tiny.yaml") from None
    try:
        return parse(values)
    except BadSetting as problem:
        raise BadSetting(f"recipe {path}: {problem}") from None


def parse(values: Any) -> Recipe:
    """The recipe of nested dictionaries, checked.

    Raises:
        BadSetting: names key, value and what was expected.
    """
    if not isinstance(values, Mapping):
        raise BadSetting(f"the whole file is {_shown(values)}: expected sections such as data: "
                         "and training:, as in config/train_tiny.yaml")
    values = dict(values)
    if isinstance(values.get("data"), Mapping):
        values["data"] = _with_patterns(dict(values["data"]))
    recipe = _build(Recipe, values, "")
    _check(recipe)
    return recipe


def _with_patterns(data: dict[str, Any]) -> dict[str, Any]:
    """What the file says beside ``patterns`` about the points belongs to them."""
    beside = {f.name for f in dataclasses.fields(PatternRecipe)} - {"shares"}
    patterns = {key: data.pop(key) for key in beside if key in data}
    if "patterns" in data:
        patterns["shares"] = data["patterns"]
        data["patterns"] = patterns
    return data


def _build(kind: type, values: Any, name: str) -> Any:
    """A dataclass from a dictionary; ``name`` is its dotted name, empty for the whole file."""
    where = f"{name}." if name else ""
    if not isinstance(values, Mapping):
        raise BadSetting(f"{name} is {_shown(values)}: expected keys and values")
    fields = {f.name: f for f in dataclasses.fields(kind)}
    for key in values:
        if key not in fields:
            raise BadSetting(f"{where}{key} is unknown; {_known(str(key), fields)}")
    missing = [f"{where}{n}" for n, f in fields.items() if n not in values
               and f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING]
    if missing:
        raise BadSetting(f"{', '.join(missing)} missing; add it, see config/train_tiny.yaml")
    hints = typing.get_type_hints(kind)
    if kind is PatternRecipe:  # its keys stand in the data section of the file
        where = "data."
    return kind(**{key: _typed(hints[key], value, _in_file(where + key))
                   for key, value in values.items()})


def _in_file(name: str) -> str:
    return "data.patterns" if name == "data.shares" else name


def _typed(kind: Any, value: Any, name: str) -> Any:
    """``value`` as the type of its field, or BadSetting."""
    origin, inside = typing.get_origin(kind), typing.get_args(kind)
    if origin in (types.UnionType, typing.Union):  # only "X | None" is used
        return None if value is None else _typed(inside[0], value, name)
    if dataclasses.is_dataclass(kind):
        return _build(kind, value, name)
    if origin is tuple:
        return _tuple(inside, value, name)
    if origin is not None:  # a mapping
        if not isinstance(value, Mapping):
            raise BadSetting(f"{name} is {_shown(value)}: expected keys and values")
        return {str(k): v if inside[1] is Any else _typed(inside[1], v, f"{name}.{k}")
                for k, v in value.items()}
    if kind is float:
        return _number(value, name)
    if kind is Path and isinstance(value, str):
        return Path(value)
    if type(value) is not kind:
        expected = {int: "a whole number", bool: "true or false", Path: "a path"}
        raise BadSetting(f"{name} is {_shown(value)}: expected {expected.get(kind, 'text')}")
    return value


def _tuple(inside: tuple, value: Any, name: str) -> tuple:
    if not isinstance(value, list):
        raise BadSetting(f"{name} is {_shown(value)}: expected a list")
    if inside[-1] is Ellipsis:
        inside = (inside[0],) * len(value)
    if len(value) != len(inside):
        raise BadSetting(f"{name} is {_shown(value)}: expected {len(inside)} values")
    return tuple(_typed(k, v, f"{name}[{i}]") for i, (k, v) in enumerate(zip(inside, value)))


def _number(value: Any, name: str) -> float:
    # YAML 1.1 takes 1e-3 for text; only 1.0e-3 is a number to it.
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise BadSetting(f"{name} is {_shown(value)}: expected a number")
    return number


def _check(recipe: Recipe) -> None:
    """Values that no single type can refuse."""
    if (recipe.qwen is None) == (recipe.base is None):
        raise BadSetting(
            f"{'both' if recipe.base else 'neither'} of qwen and base given: expected exactly "
            "one, qwen (sizes of a model from nothing) or base (a stock model to adapt)")
    if recipe.lora is not None and recipe.base is None:
        raise BadSetting("lora is given without base: expected it only with a stock model; "
                         "remove it, a model from nothing trains whole")
    _check_ranges(recipe)
    t, sdim = recipe.training, recipe.sdim
    _choice("training.precision", t.precision, PRECISIONS)
    _choice("training.stored", t.stored, STORED)
    if t.slot_weights is not None and len(t.slot_weights) != sdim.number.digits:
        raise BadSetting(
            f"training.slot_weights has {len(t.slot_weights)} values: expected one for each of "
            f"the {sdim.number.digits} digits of sdim.number")
    _choice("sdim.number.unit", sdim.number.unit, ("metres", "median"))
    _choice("sdim.fusion.norm", sdim.fusion.norm, ("batch", "group"))
    _choice("sdim.fusion.style", sdim.fusion.style, STYLES)
    _choice("sdim.addressing", sdim.addressing, ("point", "text"))
    _choice("sdim.prompt", sdim.prompt, PROMPTS)
    _choice("sdim.told", sdim.told, TOLD)
    if sdim.told != "tokens" and not sdim.fusion.fills:
        raise BadSetting(f"sdim.told is {sdim.told!r} but sdim.fusion.fills is empty: expected "
                         "fills that the fusion can make its guess from, or told: tokens")
    for name, fills in (("sdim.hints", sdim.hints), ("sdim.fusion.fills", sdim.fusion.fills)):
        for fill in fills:
            _choice(name, fill, FILLS)
    if sdim.fusion.fills and sdim.fusion.fills != sdim.hints:
        raise BadSetting(f"sdim.hints is {list(sdim.hints)}: expected the fills that the fusion "
                         f"mixes, sdim.fusion.fills {list(sdim.fusion.fills)}")
    if sdim.fusion.stride not in (1, 2, 4):  # what divides the sides of every image it is shown
        raise BadSetting(f"sdim.fusion.stride is {sdim.fusion.stride}: expected 1, 2 or 4")
    if t.spelling and (recipe.base is not None or sdim.addressing == "text"):
        raise BadSetting(f"training.spelling is {t.spelling}: expected 0 with a base, which can "
                         "spell, and with sdim.addressing text, which tells no number")
    if sdim.min_pixels > sdim.max_pixels:
        raise BadSetting(f"sdim.min_pixels is {sdim.min_pixels}: expected at most "
                         f"sdim.max_pixels, {sdim.max_pixels}")


def _check_ranges(recipe: Recipe) -> None:
    ranges = {
        "seed": (0, 2**31), "training.steps": (1, 1e9), "training.images": (1, 4096),
        "training.pixels": (1, 1e6), "training.accumulate": (1, 1e5),
        "training.learning_rate": (1e-12, 10), "training.warmup": (0, 1e9),
        "training.weight_decay": (0, 1), "training.clip": (1e-9, 1e9),
        "training.metric_weight": (0, 1e6), "training.checkpoint_every": (0, 1e9),
        "training.validate_every": (0, 1e9), "training.picture_every": (0, 1e9),
        "lora.rank": (1, 4096), "lora.alpha": (1e-6, 1e6), "lora.dropout": (0, 0.99),
        "sdim.number.integer_digits": (1, 4), "sdim.number.decimals": (0, 5),
        "sdim.min_pixels": (1, 1e8), "sdim.max_pixels": (1, 1e8), "sdim.neighbours": (0, 64),
        "sdim.prefix_points": (0, 1e5), "training.guess_weight": (0, 1e6),
        "training.spelling": (0, 1e6),
    }
    content = recipe.content()
    for name, (low, high) in ranges.items():
        value = content.get(name)
        if value is not None and not low <= value <= high:
            raise BadSetting(f"{name} is {value}: expected {low:g} to {high:g}")


def _choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise BadSetting(f"{name} is {value!r}: expected {' or '.join(choices)}")


def _known(key: str, known: Mapping[str, Any]) -> str:
    near = difflib.get_close_matches(key, known, n=1, cutoff=0.75)
    return f"did you mean {near[0]}?" if near else f"known are {', '.join(known)}"


def _leaves(tree: Any, name: str = "") -> typing.Iterator[tuple[str, Any]]:
    if isinstance(tree, dict) and tree:
        for key, value in tree.items():
            yield from _leaves(value, f"{name}.{key}" if name else key)
    else:
        yield name, tree


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) < 80 else f"{text[:76]} ..."


def _one_line(problem: Exception) -> str:
    return " ".join(str(problem).split())

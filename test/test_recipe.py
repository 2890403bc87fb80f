"""A recipe is read as it is meant, or refused with file, key, value and remedy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from conftest import REPOSITORY
from training_runs import small_recipe, small_values, write_recipe

from sdim_ros.core.types import BadSetting
from sdim_ros.tools.training import recipe as recipes


def changed(name: str, value: Any) -> dict[str, Any]:
    """The small recipe with one dotted name set to a value; ``None`` takes the key away."""
    values = small_values()
    *sections, key = name.split(".")
    place = values
    for section in sections:
        place = place[section]
    place[key] = value
    if value is None:
        del place[key]
    return values


@pytest.mark.parametrize("path", sorted((REPOSITORY / "config").glob("train*.yaml")),
                         ids=lambda p: p.name)
def test_the_shipped_recipes_are_good(path: Path) -> None:
    assert recipes.read(path).training.steps > 100


def test_a_recipe_keeps_what_the_file_says(tmp_path: Path) -> None:
    recipe = recipes.read(write_recipe(tmp_path / "recipe.yaml", changed(
        "training.slot_weights", [1, 1.0, 1, 0.5, 0.25])))
    assert recipe.training.slot_weights == (1.0, 1.0, 1.0, 0.5, 0.25)
    assert recipe.data.sources[0].folder == Path("frames")
    assert recipe.data.patterns.points == (40, 300)
    assert recipe.sdim.fusion.high_channels == 16
    assert recipe.training.accumulate == 1


def test_a_number_without_a_point_is_a_number_although_yaml_says_text(tmp_path: Path) -> None:
    path = write_recipe(tmp_path / "recipe.yaml", small_values())
    path.write_text(path.read_text().replace("learning_rate: 0.0015", "learning_rate: 2e-4"))
    assert recipes.read(path).training.learning_rate == 2e-4


@pytest.mark.parametrize(("name", "value", "said"), [
    ("training.stepz", 3, r"training\.stepz is unknown; did you mean steps\?"),
    ("colour", 3, "colour is unknown; known are seed, data"),
    ("training.steps", None, r"training\.steps missing"),
    ("data.patterns", None, r"data\.patterns missing"),
    ("training.steps", 2.5, r"training\.steps is 2\.5: expected a whole number"),
    ("training.steps", True, r"training\.steps is True: expected a whole number"),
    ("training.steps", 0, r"training\.steps is 0: expected 1 to"),
    ("training.learning_rate", "fast", r"training\.learning_rate is 'fast': expected a number"),
    ("training.learning_rate", float("nan"), r"learning_rate is nan: expected a number"),
    ("training.learning_rate", -1.0, r"training\.learning_rate is -1\.0: expected"),
    ("sdim.fusion.stride", 3, "sdim.fusion.stride is 3: expected 1, 2 or 4"),
    ("training.precision", "float16", "precision is 'float16': expected auto or float32 or bfloat16"),
    ("training.slot_weights", [1.0], "slot_weights has 1 values: expected one for each of the 5"),
    ("training.gradient_checkpointing", "yes", "is 'yes': expected true or false"),
    ("training", 5, "training is 5: expected keys and values"),
    ("data.points", [5], r"data\.points is \[5\]: expected 2 values"),
    ("data.points", [9, 3], r"data\.points is \[9, 3\]: expected a smallest count"),
    ("data.noise", "much", r"data\.noise is 'much': expected a number"),
    ("data.patterns", {"spiral": 1.0}, r"data\.patterns is .*: expected shares"),
    ("data.patterns", 3, r"data\.patterns is 3: expected keys and values"),
    ("data.sources", {"kind": "frames"}, r"data\.sources is .*: expected a list"),
    ("data.sources", [{"kind": "film"}], "kind is 'film': expected one of scenes"),
    ("data.crops", [[640]], r"data\.crops\[0\] is \[640\]: expected 2 values"),
    ("sdim.fusion.norm", "layer", r"sdim\.fusion\.norm is 'layer': expected batch or group"),
    ("sdim.addressing", "name", r"sdim\.addressing is 'name': expected point or text"),
    ("sdim.hints", ["cubic"], r"sdim\.hints is 'cubic': expected nearest or linear"),
    ("sdim.number.unit", "feet", r"sdim\.number\.unit is 'feet': expected metres or median"),
    ("sdim.number.decimals", 9, r"sdim\.number\.decimals is 9: expected 0 to 5"),
    ("sdim.min_pixels", 9000, r"sdim\.min_pixels is 9000: expected at most sdim\.max_pixels"),
    ("base", "Qwen/Qwen2.5-VL-3B-Instruct", "both of qwen and base given: expected exactly one"),
    ("qwen", None, "neither of qwen and base given"),
    ("lora", {"rank": 4}, "lora is given without base"),
])
def test_a_mistake_is_named_with_file_key_value_and_what_was_expected(
        name: str, value: Any, said: str, tmp_path: Path) -> None:
    path = write_recipe(tmp_path / "recipe.yaml", changed(name, value))
    with pytest.raises(BadSetting, match=f"^recipe {path}: .*{said}"):
        recipes.read(path)


@pytest.mark.parametrize("text", ["a: [1", "\tseed: 0", "seed: 0\nseed", "\xff\xfe"])
def test_a_file_that_is_not_yaml_is_named(text: str, tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(BadSetting, match=f"^recipe {path}: this is not YAML .* correct"):
        recipes.read(path)


@pytest.mark.parametrize("text", ["", "- 1", "hello"])
def test_a_file_without_sections_is_named(text: str, tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(text)
    with pytest.raises(BadSetting, match="the whole file is .*: expected sections"):
        recipes.read(tmp_path / "recipe.yaml")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadSetting, match="there is no such file"):
        recipes.read(tmp_path / "none.yaml")


@pytest.mark.parametrize("name", ["rank", "alpha", "dropout"])
def test_lora_needs_sizes_that_can_be(name: str) -> None:
    values = {**small_values(), "base": "some/base", "lora": {name: -1}}
    del values["qwen"]
    with pytest.raises(BadSetting, match=rf"lora\.{name} is -1"):
        recipes.parse(values)

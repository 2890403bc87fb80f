"""Settings: good defaults, all or nothing, and every bad value named."""

from __future__ import annotations

import math
from typing import Any

import pytest

from sdim_ros.core.config import Setting, Settings, leaves, with_values
from sdim_ros.core.types import BadSetting

LEAVES = {leaf.name: leaf for leaf in leaves(Settings())}
NUMBERS = [leaf for leaf in LEAVES.values() if leaf.low is not None]


def value_of(settings: Settings, name: str) -> Any:
    return {leaf.name: leaf.value for leaf in leaves(settings)}[name]


def test_names_join_with_a_dot_and_are_unique() -> None:
    names = [leaf.name for leaf in leaves(Settings())]
    assert len(names) == len(set(names))
    assert {"autostart", "queries.budget", "model.checkpoint"} <= set(names)


@pytest.mark.parametrize("leaf", LEAVES.values(), ids=LEAVES)
def test_every_setting_has_a_description_and_a_valid_default(leaf: Setting) -> None:
    assert leaf.description.endswith(".")
    assert value_of(with_values(Settings(), {leaf.name: leaf.value}), leaf.name) == leaf.value


@pytest.mark.parametrize("leaf", LEAVES.values(), ids=LEAVES)
def test_every_number_has_a_range(leaf: Setting) -> None:
    is_number = type(leaf.value) in (int, float)
    assert is_number == (leaf.low is not None) == (leaf.high is not None)


@pytest.mark.parametrize("leaf", NUMBERS, ids=lambda leaf: leaf.name)
def test_values_outside_of_the_range_are_refused_with_name_value_and_limit(
    leaf: Setting,
) -> None:
    kind = type(leaf.value)
    for value, limit in [(leaf.low - 1, leaf.low), (leaf.high + 1, leaf.high)]:
        with pytest.raises(BadSetting) as caught:
            with_values(Settings(), {leaf.name: kind(value)})
        assert f"{leaf.name}={kind(value)}" in str(caught.value)
        assert f"{limit}" in str(caught.value)


@pytest.mark.parametrize(
    "leaf", [leaf for leaf in NUMBERS if isinstance(leaf.value, float)],
    ids=lambda leaf: leaf.name)
def test_numbers_that_are_not_finite_are_refused(leaf: Setting) -> None:
    for value in (math.nan, math.inf, -math.inf):
        with pytest.raises(BadSetting, match=leaf.name):
            with_values(Settings(), {leaf.name: value})


@pytest.mark.parametrize(
    "leaf", [leaf for leaf in LEAVES.values() if leaf.choices], ids=lambda leaf: leaf.name)
def test_unknown_choice_is_refused_and_the_known_ones_named(leaf: Setting) -> None:
    with pytest.raises(BadSetting) as caught:
        with_values(Settings(), {leaf.name: "no such thing"})
    assert all(choice in str(caught.value) for choice in leaf.choices)


@pytest.mark.parametrize(
    "name,value",
    [
        ("queries.budget", 1.5),
        ("queries.budget", "many"),
        ("queries.budget", True),
        ("input.min_depth_m", True),
        ("input.min_depth_m", "0.1"),
        ("autostart", 1),
        ("model.checkpoint", 3),
        ("model.checkpoint", None),
    ],
)
def test_wrong_type_is_refused_with_the_expected_one(name: str, value: Any) -> None:
    with pytest.raises(BadSetting, match=f"{name}=.*expected a value of type"):
        with_values(Settings(), {name: value})


def test_whole_number_is_taken_where_a_fraction_is_allowed() -> None:
    value = with_values(Settings(), {"input.max_depth_m": 80}).input.max_depth_m
    assert (value, type(value)) == (80.0, float)


def test_values_change_what_is_named_and_nothing_else() -> None:
    before = Settings()
    after = with_values(before, {"queries.budget": 900, "autostart": False})
    changed = {name for name in LEAVES if value_of(before, name) != value_of(after, name)}
    assert changed == {"queries.budget", "autostart"}
    assert after.queries.budget == 900
    assert before == Settings()


def test_every_problem_is_named_at_once() -> None:
    with pytest.raises(BadSetting) as caught:
        with_values(
            Settings(), {"queries.tile": -1, "fill.methode": "auto", "output.encoding": "16UC3"})
    for name in ("queries.tile", "fill.methode", "output.encoding", "fill.method,"):
        assert name in str(caught.value)


@pytest.mark.parametrize(
    "values",
    [
        {"input.min_depth_m": 10.0, "input.max_depth_m": 10.0},
        {"input.min_depth_m": 300.0},
        {"projection.max_range_m": 0.05},
    ],
)
def test_empty_depth_range_is_refused(values: dict[str, float]) -> None:
    with pytest.raises(BadSetting, match="must be smaller than"):
        with_values(Settings(), values)


def test_extrinsics_are_seven_numbers_or_none() -> None:
    pose = (0.1, 0.2, 0.3, 0.5, -0.5, 0.5, 0.5)
    for given in (pose, list(pose)):
        settings = with_values(Settings(), {"projection.extrinsics": given})
        assert settings.projection.extrinsics == pose
    assert with_values(settings, {"projection.extrinsics": ()}).projection.extrinsics == ()


@pytest.mark.parametrize(
    "value",
    [
        (0, 0, 0, 1),
        (0, 0, 0, 0, 0, 0, 0),
        (0, 0, 0, 0, 0, 0, 2),
        (0, 0, 0, 0, 0, 0, math.nan),
        (math.inf, 0, 0, 0, 0, 0, 1),
        "identity",
        7,
        (None,) * 7,
    ],
)
def test_extrinsics_that_are_no_pose_are_refused(value: Any) -> None:
    with pytest.raises(BadSetting, match="projection.extrinsics"):
        with_values(Settings(), {"projection.extrinsics": value})

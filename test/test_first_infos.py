"""Pairs wait for the camera infos that they need, in their order and not for ever."""

from __future__ import annotations

from sdim_ros.core.first_infos import PATIENCE_S, FirstInfos


class Gate:
    """`FirstInfos` with a clock that is set, and what became of the pairs."""

    def __init__(self, has_own_info: bool = False) -> None:
        self.now_s, self.sent, self.dropped = 0.0, [], []
        self.infos = FirstInfos(lambda image, _: self.sent.append(image), self.dropped.append,
                                lambda: has_own_info, lambda: self.now_s)

    def add(self, image: str, source: str = "sparse_depth") -> None:
        self.infos.add(image, {source: None})


def test_the_newest_image_waits_for_the_first_camera_info() -> None:
    gate = Gate()
    gate.add("first")
    gate.add("second")
    assert gate.sent == [] and gate.dropped == ["camera_info"]
    gate.infos.add_info("camera_info", "info")
    gate.add("third")
    assert gate.sent == ["second", "third"] and gate.infos.latest == {"camera_info": "info"}


def test_depth_of_another_camera_waits_for_the_info_of_that_camera() -> None:
    gate = Gate(has_own_info=True)
    gate.infos.add_info("camera_info", "info")
    gate.add("cloud", "points")
    gate.add("first")
    gate.add("second")
    assert gate.sent == ["cloud"] and gate.dropped == ["sparse_camera_info"]
    gate.infos.add_info("sparse_camera_info", "own")
    assert gate.sent == ["cloud", "second"]


def test_depth_whose_info_does_not_come_goes_on_in_its_order() -> None:
    gate = Gate(has_own_info=True)
    gate.infos.add_info("camera_info", "info")
    gate.add("first")
    gate.now_s = PATIENCE_S
    gate.add("second")
    assert gate.sent == ["first", "second"] and gate.dropped == []


def test_at_the_end_depth_goes_on_without_its_info_and_no_image_without_the_intrinsics() -> None:
    for infos, sent in (["camera_info"], ["last"]), ([], []):
        gate = Gate(has_own_info=True)
        for role in infos:
            gate.infos.add_info(role, "info")
        gate.add("last")
        gate.infos.expire(patience=False)
        assert gate.sent == sent


def test_depth_without_an_own_info_waits_for_none() -> None:
    gate = Gate()
    gate.infos.add_info("camera_info", "info")
    gate.add("first")
    assert gate.sent == ["first"]


def test_what_is_given_up_is_said_once() -> None:
    gate = Gate()
    gate.add("first")
    gate.infos.drop()
    gate.infos.drop()
    gate.infos.add_info("camera_info", "info")
    assert gate.dropped == ["camera_info"] and gate.sent == []

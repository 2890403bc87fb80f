"""Several cameras share one model, a frame of each in turn."""

from __future__ import annotations

import gc
import threading
import time
import weakref

import numpy as np
import pytest

pytest.importorskip("rclpy")

import ros_process
from ros_process import FakeCompleter, NodeProcess, Peer
from test_worker import wait_until

from sdim_ros.core.config import Settings, with_values
from sdim_ros.core.evidence import RecentErrors
from sdim_ros.core.types import Frame, ModelFailed, ModelUnavailable
from sdim_ros.ros.shared_model import SharedModel

FRAME = Frame(np.zeros((4, 5, 3), np.uint8), np.ones((4, 5), np.float32))


class Slow(FakeCompleter):
    """Takes 20 ms and notes who was served."""

    def __init__(self, settings):
        super().__init__(settings)
        self.served, self.inside = [], 0

    def complete(self, frame, *, beat=None):
        self.inside += 1
        assert self.inside == 1, "two frames at once"
        time.sleep(0.02)
        self.served.append(self.settings.queries.budget)
        self.inside -= 1
        return super().complete(frame, beat=beat)


def test_the_model_is_loaded_once_and_freed_with_its_last_user():
    loads = []

    def load(settings):
        completer = FakeCompleter(settings)
        loads.append(weakref.ref(completer))
        return completer

    shared = SharedModel(load)
    first, second = shared.completer(Settings()), shared.completer(Settings())
    assert len(loads) == 1 and "shared" in first.description
    del first
    gc.collect()
    assert loads[0]() is not None
    del second
    gc.collect()
    assert loads[0]() is None
    shared.completer(Settings())
    assert len(loads) == 2


def test_cameras_take_turns_and_each_has_its_own_settings():
    models = []
    shared = SharedModel(lambda settings: models.append(Slow(settings)) or models[0])
    cameras = [shared.completer(with_values(Settings(), {"queries.budget": i})) for i in range(3)]
    beats = [0, 0, 0]

    def drive(i, frames):
        def beat():
            beats[i] += 1
        for _ in range(frames):
            with cameras[i].turn(beat) as living:
                cameras[i].complete(FRAME, beat=living)

    threads = [threading.Thread(target=drive, args=(i, 10)) for i in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    served = models[0].served
    assert sorted(served) == sorted([0, 1, 2] * 10)
    # Each has its turn again soon; one may be late to queue, so not to the frame.
    middle = served[3:-6]
    assert all(len(set(middle[i:i + 6])) == 3 for i in range(len(middle) - 5)), served
    assert all(beats)


def test_who_came_first_is_served_first():
    models = []
    shared = SharedModel(lambda settings: models.append(Slow(settings)) or models[0])
    cameras = [shared.completer(with_values(Settings(), {"queries.budget": i})) for i in range(4)]
    beats = [0, 0, 0]

    def wait(i):
        def beat():
            beats[i] += 1
        with cameras[i].turn(beat) as living:
            cameras[i].complete(FRAME, beat=living)

    threads = [threading.Thread(target=wait, args=(i,)) for i in range(3)]
    with cameras[3].turn(lambda: None) as living:
        for i in (2, 0, 1):
            threads[i].start()
            wait_until(lambda i=i: (living(), time.sleep(0.01), beats[i])[-1])  # it is queued
    for thread in threads:
        thread.join(10)
    assert models[0].served == [2, 0, 1]


def test_what_a_camera_remembers_of_its_frames_helps_no_other_camera():
    models = []
    shared = SharedModel(lambda settings: models.append(FakeCompleter(settings)) or models[0])
    cameras, used = [shared.completer(Settings()) for _ in range(2)], []
    for camera in (*cameras, *cameras):
        camera.complete(FRAME)
        used.append(models[0].recent)
    assert used[0] is used[2] and used[1] is used[3] and used[0] is not used[1]


def test_the_node_remembers_its_frames_and_an_evaluation_does_not():
    from sdim_ros.ros.node import load_completer
    from sdim_ros.tools.complete import load_completer as of_the_command_line

    assert isinstance(load_completer(Settings()).recent, RecentErrors)
    assert of_the_command_line(Settings()).recent is None


def test_a_camera_that_wants_another_model_is_refused():
    shared = SharedModel(FakeCompleter)
    first = shared.completer(Settings())
    with pytest.raises(ModelUnavailable, match="share one model"):
        shared.completer(with_values(Settings(), {"model.device": "cpu"}))
    assert first.complete(FRAME).stats.points == 20


def test_an_error_of_one_frame_does_not_block_the_others():
    shared = SharedModel(FakeCompleter)
    first, second = shared.completer(Settings()), shared.completer(Settings())
    bad = Frame(np.full((4, 5, 3), ros_process.FAIL, np.uint8), FRAME.sparse)
    with pytest.raises(ModelFailed, match="told to fail"), first.turn(lambda: None):
        first.complete(bad)
    with second.turn(lambda: None):
        assert second.complete(FRAME).stats.points == 20


def test_who_waits_for_a_model_that_hangs_shows_no_life():
    """Else no watchdog would ever notice that the model is lost to all cameras."""
    shared = SharedModel(FakeCompleter)
    first, second = shared.completer(Settings()), shared.completer(Settings())
    beats = []
    inside, hanging, hangs, done = (threading.Event() for _ in range(4))

    def hang():
        with first.turn(lambda: None) as living:
            inside.set()
            while not hanging.is_set():  # it works
                living()
                time.sleep(0.05)
            hangs.set()
            done.wait(30)

    def wait():
        with second.turn(lambda: beats.append(time.monotonic())):
            pass

    threads = [threading.Thread(target=hang), threading.Thread(target=wait)]
    threads[0].start()
    assert inside.wait(10)
    threads[1].start()
    wait_until(lambda: len(beats) >= 3)  # the first works, so the second waits in peace
    hanging.set()
    assert hangs.wait(10)
    time.sleep(1.0)  # a beat that was on its way
    before = len(beats)
    time.sleep(1.0)
    assert len(beats) == before
    done.set()
    for thread in threads:
        thread.join(10)
        assert not thread.is_alive()


def test_one_process_serves_two_cameras():
    command = ["-c", "import sys; sys.path[:0] = ['test']; from ros_process import FakeCompleter; "
               "from sdim_ros.ros.process import cameras_main; "
               "sys.exit(cameras_main(completer_factory=FakeCompleter))",
               "--cameras", "front", "rear"]
    with NodeProcess(command=command) as node:
        for name in ("front", "rear"):
            with Peer(target=f"/{name}/completion_node", namespace=name) as peer:
                peer.warm_up()
                assert peer.state() == "active"
                assert peer.result_of(peer.send_good()) is not None, node.log()
        code = node.stop()
        assert code == 0, node.log()
        assert node.log().count("loaded fake completer, shared") == 2

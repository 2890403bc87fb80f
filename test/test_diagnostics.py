"""What /diagnostics and the log say: rates, delays, levels; every stage, and no line twice."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

pytest.importorskip("rclpy")

import ros_process
from builtin_interfaces.msg import Time
from models import frame, random_model
from ros_process import NodeProcess

from sdim_ros.core.completer import Completer
from sdim_ros.core.config import Settings, with_values
from sdim_ros.core.frame_reader import FrameReader, Job
from sdim_ros.core.types import Stats
from sdim_ros.core.worker import Ticket
from sdim_ros.ros import diagnostics
from sdim_ros.ros.diagnostics import ERROR, OK, WARN, DropLog, Health, Timings
from sdim_ros.ros.outputs import Outputs
from sdim_ros.ros.pipeline import Pipeline

S = 10**9
TOPICS = {name: f"/{name}" for name in ("image", "camera_info", "sparse_depth")}
# By the completer, then by the node around it.
STAGES = ("prepare", "doubt", "encode", "query_passes", "calibrate", "fill", "confidence",
          "pair", "decode", "project", "complete", "pack", "publish")


class Clock:
    """Seconds that the test sets."""

    now = 100.0

    def __call__(self):
        return self.now


def test_percentiles_and_the_largest_are_those_of_the_last_hundred_frames():
    timings = Timings()
    timings.add({"fill": 9999.0})
    for ms in range(100, 0, -1):
        timings.add({"fill": float(ms)})
    timings.add({"rectify": 7.0})
    assert timings.summary() == {
        "fill ms p50": 50, "fill ms p95": 95, "fill ms max": 100,
        "rectify ms p50": 7, "rectify ms p95": 7, "rectify ms max": 7}


def test_rates_are_counted_between_two_reports_and_results_over_ten_seconds():
    clock = Clock()
    health = Health(print, clock)
    health.listen_to(["/image", "/points"])
    assert health.inputs_task().values == {"/image Hz": 0, "/points Hz": 0}
    for second in range(1, 21):
        clock.now = 100.0 + second
        for _ in range(30):
            health.count_message("/image")
        if second % 2:  # a model of two seconds
            health.add_result(Stats(), {})
    assert health.inputs_task().values == {"/image Hz": pytest.approx(30), "/points Hz": 0}
    assert health.model_task("tiny", None).values["results Hz"] == pytest.approx(0.5)
    clock.now += 10
    assert health.inputs_task().values["/image Hz"] == 0
    assert health.model_task("tiny", None).values["results Hz"] == 0


def test_the_log_takes_a_topic_and_reason_every_five_seconds_and_counts_them_all():
    clock, lines = Clock(), []
    drops = DropLog(lines.append, clock)
    for tenth in range(101):  # 10 s
        clock.now = 100 + tenth / 10
        drops.add("/image", "encoding", "it is wrong")
        if tenth == 1:
            drops.add("/points", "encoding", "it is wrong")
            drops.add("/image", "truncated", "it is short")
    assert lines == ["/image: it is wrong [encoding, 1 so far]",
                     "/points: it is wrong [encoding, 3 so far]",
                     "/image: it is short [truncated, 1 so far]",
                     "/image: it is wrong [encoding, 52 so far]",
                     "/image: it is wrong [encoding, 102 so far]"]
    assert drops.counts() == {"encoding": 102, "truncated": 1}


def test_new_drops_raise_the_inputs_once():
    health = Health([].append, Clock())
    health.drops.add("/image", "encoding", "it is wrong")
    task = health.inputs_task()
    assert (task.level, task.values["dropped: encoding"]) == (WARN, 1)
    assert health.inputs_task().level == OK


@pytest.mark.parametrize(("state", "silent_s", "level", "words"), [
    ("idle", 3600.0, OK, "idle"),  # nothing to do is no trouble
    ("busy", 9.9, OK, "busy"),
    ("busy", 10.1, WARN, "no sign of life for 10 s"),
    ("hung", 61.0, ERROR, "hung"),
    ("dead", 0.0, ERROR, "dead"),
    ("exhausted", 0.0, ERROR, "exhausted"),
])
def test_a_frame_without_a_sign_of_life_is_a_warning_before_it_is_an_error(
        state, silent_s, level, words):
    task = diagnostics.worker_task(state, {"submitted": 4, "failed": 1}, silent_s)
    assert task.level == level and words in task.message
    assert task.values["failed share"] == 0.25 and task.values["state"] == state


def test_the_sync_task_complains_only_while_it_listens():
    assert diagnostics.sync_task({}, "nothing arrives", None).level == WARN
    resting = diagnostics.sync_task({"pairs": 3}, None, "nobody listens")
    assert (resting.level, resting.message) == (OK, "nobody listens")


def test_the_model_task_tells_what_is_loaded_or_why_not():
    health = Health(print, Clock())
    assert health.model_task(None, "no such folder").level == ERROR
    health.add_result(Stats(points=5, fill="nearest", cleaned={"range": 2}, gpu_mb=812.4), {})
    health.add_result(Stats(points=6, fill="linear", cleaned={"range": 1}, gpu_mb=900.0), {})
    task = health.model_task("tiny", None)
    assert (task.level, task.message) == (OK, "tiny")
    assert task.values["points"] == 6 and task.values["cleaned: range"] == 3
    assert task.values["GPU MB"] == 900
    health.add_result(Stats(points=6), {})
    assert "GPU MB" not in health.model_task("tiny", None).values  # on a CPU


def test_points_that_contradict_each_other_are_counted_and_many_of_them_are_a_warning():
    lines: list[str] = []
    health = Health(lines.append, Clock())
    health.add_result(Stats(points=95, doubted=5, cleaned={"doubted": 5}), {})
    assert health.inputs_task().level == OK and not lines
    health.add_result(Stats(points=100, doubted=31), {})  # only warned of, so they still count
    task, model = health.inputs_task(), health.model_task("tiny", None)
    assert task.level == WARN and "31 % of the measured points" in task.message
    assert "extrinsics" in lines[0] and "stamps" in lines[0]
    assert model.values["doubted points"] == 31 and model.values["cleaned: doubted"] == 5
    health.add_result(Stats(points=100, doubted=2), {})
    assert health.inputs_task().level == OK


def heard_publisher(kind, topic):
    return SimpleNamespace(get_subscription_count=lambda: 1, publish=lambda message: None)


def run_frame(now_ns, image_ns):
    """Milliseconds by stage of one frame of the real completer."""
    image, sparse = frame(height=48, width=64, points=60)
    messages = {
        "image": ros_process.colour_image(48, 64), "sparse": ros_process.depth_image(sparse),
        "info": ros_process.camera_info(48, 64)}
    for message in messages.values():
        ros_process.stamped(message, image_ns)
    settings, results = with_values(Settings(), {"queries.budget": 50}), []
    Pipeline(
        Completer(settings, random_model()), TOPICS, FrameReader(TOPICS, None, print),
        Outputs(heard_publisher, print), lambda: now_ns, lambda: True,
        lambda stats, ms: results.append(ms),
    ).run(Job(messages["image"], {"sparse_depth": messages["sparse"]}, messages["info"], None,
              settings, 0.0), Ticket(Clock()))
    return results[0]


def test_every_stage_and_the_age_of_the_result_are_reported():
    ms = run_frame(now_ns=1_700_000_001 * S, image_ns=1_700_000_000 * S)
    assert ms["age"] == pytest.approx(1000)
    health = Health(print, Clock())
    health.add_result(Stats(), ms)
    shown = diagnostics.diagnostic_array(
        [health.model_task("tiny", None)], "completion_node", Time()).status[0].values
    assert {f"{stage} ms {of}" for stage in (*STAGES, "age")
            for of in ("p50", "p95", "max")} <= {pair.key for pair in shown}


@pytest.mark.parametrize(("now_ns", "image_ns"), [
    (0, 5 * S),  # use_sim_time, before the first /clock
    (1_700_000_000 * S, 5 * S),  # a recording of old, without use_sim_time
    (5 * S, 1_700_000_000 * S),
])
def test_an_age_that_no_clock_can_tell_is_left_out(now_ns, image_ns):
    assert "age" not in run_frame(now_ns, image_ns)


def test_the_node_shows_its_stages_and_rates_on_diagnostics(peer):
    with NodeProcess(parameters={"diagnostics.period_s": 0.1}) as node:
        peer.warm_up()
        now_ns = peer.node.get_clock().now().nanoseconds
        peer.send(ros_process.colour_image(),
                  ros_process.depth_image(ros_process.sparse_depth()), time_ns=now_ns)
        assert peer.spin_until(lambda: "age ms max" in peer.diagnosed("model")), node.log()
        model = peer.diagnosed("model")
    assert all(float(model[f"{stage} ms p95"]) >= 0 for stage in STAGES[7:])
    assert 0 < float(model["age ms p50"]) < 10_000 and float(model["results Hz"]) > 0
    assert peer.diagnosed("worker")["level"] == 0 and "/image Hz" in peer.diagnosed("inputs")


@pytest.mark.parametrize("state, level", [
    ("off", OK), ("learning", OK), ("paused: worse than the weights that were loaded", WARN)])
def test_learning_that_is_paused_is_a_warning_with_its_reason(state, level):
    task = diagnostics.adaptation_task(state, {"steps": 3})
    assert (task.level, task.message) == (level, state)
    assert task.values == {"state": state, "steps": 3}

"""Every image of a live replay has a result or a reason, whatever the node did."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from sdim_ros.tools.live_figures import Played, account, figures, rows, stages


def tasks(**values):
    """Diagnostics as they arrive: all text; a counter of 0 may be left out."""
    return {task: {name: str(value) for name, value in found.items()}
            for task, found in values.items()}


def played(images: int, results: int, before=None, after=None, settled=True) -> Played:
    found = Played(before=before or {}, after=after or {}, is_settled=settled, first_s=10.0)
    for number in range(images):
        found.add_image(1 + number, 10.0 + 0.1 * number)
        found.last_sent_s = 10.0 + 0.1 * number
    for number in range(results):
        found.add_result(1 + number, 10.05 + 0.1 * number)
    return found


def test_each_counter_of_the_node_becomes_a_reason():
    after = tasks(
        sync={"images": 95, "pairs": 70, "timed out": 5, "unpaired": 12, "overtaken": 3,
              "nobody listens": 2, "over output.max_rate_hz": 4},
        worker={"submitted": 66, "replaced": 20, "done": 40, "failed": 5},
        inputs={"/image Hz": 9.5, "dropped: encoding": 3, "dropped: model_failed": 1,
                "dropped: no_camera_info": 3, "dropped: lost_in_transport": 8})
    assert account(played(100, 39, after=after)).counts == {
        "not_received": 5, "unpaired": 17, "overtaken": 3, "no_camera_info": 3,
        "nobody listens": 2, "over output.max_rate_hz": 4, "replaced": 20, "encoding": 3,
        "model_failed": 1, "failed": 1, "unfinished": 1, "not_returned": 1}


def test_what_a_running_node_counted_before_does_not_count():
    before = tasks(sync={"images": 1000, "pairs": 900, "unpaired": 100},
                   worker={"submitted": 900, "replaced": 500, "done": 390, "failed": 10},
                   inputs={"dropped: encoding": 10})
    after = tasks(sync={"images": 1010, "pairs": 909, "unpaired": 101},
                  worker={"submitted": 909, "replaced": 504, "done": 394, "failed": 11},
                  inputs={"dropped: encoding": 11})
    lost = account(played(10, 4, before, after)).counts
    assert lost == {"unpaired": 1, "replaced": 4, "encoding": 1}


def test_all_is_accounted_for_in_any_course_of_events():
    rng = random.Random(0)
    for _ in range(300):
        counts, sent = Counter(), rng.randrange(60)
        for _ in range(sent):
            counts[rng.choice((
                "lost", "unpaired", "overtaken", "nobody listens", "replaced", "encoding",
                "unfinished", "done", "done", "not_returned"))] += 1
        submitted = sum(counts[name] for name in (
            "replaced", "encoding", "unfinished", "done", "not_returned"))
        pairs = submitted + counts["nobody listens"]
        after = tasks(
            sync={"images": sent - counts["lost"], "pairs": pairs,
                  "unpaired": counts["unpaired"] // 2,  # the others still wait
                  "overtaken": counts["overtaken"], "nobody listens": counts["nobody listens"]},
            worker={"submitted": submitted, "replaced": counts["replaced"],
                    "done": counts["done"] + counts["not_returned"],
                    "failed": counts["encoding"]},
            inputs={"dropped: encoding": counts["encoding"]})
        found = account(played(sent, counts["done"], after=after)).counts
        expected = Counter(counts, not_received=counts["lost"])
        del expected["lost"], expected["done"]
        assert found == +expected


@pytest.mark.parametrize("settled", [False, True])
def test_a_report_that_is_too_old_leaves_no_image_without_a_reason(settled):
    """The node died: its last report is from before most of what was sent."""
    after = tasks(sync={"images": 3, "pairs": 3}, worker={"submitted": 3, "done": 1,
                                                          "replaced": 1})
    made = played(10, 4, after=after, settled=settled)
    live = figures(made, 1.0, None)
    assert live["unexplained"] == 0
    assert sum(found["count"] for found in live["drops"].values()) == 6
    assert live["drops"]["replaced"]["count"] == 1
    assert ("node_ended" in live["drops"]) != settled


def test_a_node_that_never_reported_leaves_what_is_known_from_outside():
    assert account(played(5, 0, settled=False)).counts == {"node_ended": 5}


def test_rates_and_round_trips_are_those_of_the_wire():
    live = figures(played(11, 5), 2.0, None)
    assert live["images_per_s"] == pytest.approx(10)
    assert live["results_per_s"] == pytest.approx(5 / 0.45)
    assert live["round_trip_ms"]["p50"] == pytest.approx(50, abs=0.01)
    assert dict(rows(live))["images sent"] == "11, 10.00 a second"
    nothing = figures(Played(), 1.0, None)
    assert nothing["images_per_s"] == 0 and nothing["round_trip_ms"] == {}
    assert rows(nothing)


def test_results_of_images_that_somebody_else_sent_do_not_count():
    found = played(2, 2)
    found.add_result(77, 20.0)
    assert sum(found.results.values()) == 2


def test_stages_are_read_from_the_diagnostics():
    assert stages(tasks(model={
        "results Hz": 1.5, "complete ms p50": 300.5, "complete ms p95": 310, "complete ms max": 311,
        "fill": "nearest", "age ms p50": 400})) == {
        "complete": {"p50": 300.5, "p95": 310, "max": 311}, "age": {"p50": 400}}


def test_a_reason_comes_with_what_the_log_says_first_of_it(tmp_path):
    log = tmp_path / "node.log"
    log.write_text(
        "[INFO] [17.5] [front.completion_node]: loaded\n"
        "[WARN] [17.6] [front.completion_node]: /image: bad 'a' [encoding, 1 so far]\n"
        "[WARN] [17.9] [front.completion_node]: /image: bad 'b' [encoding, 2 so far]\n")
    after = tasks(sync={"images": 2, "pairs": 2}, worker={"submitted": 2, "failed": 2},
                  inputs={"dropped: encoding": 2})
    lost = account(played(2, 0, after=after), log)
    assert lost.texts["encoding"] == "/image: bad 'a' [encoding, 1 so far]"

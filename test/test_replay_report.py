"""report.html of a replay: the frames that it shows, and what it says where nothing judges."""

from __future__ import annotations

from bag_recorder import FAST, moments, record, scene, sparse, stamp_of
from models import random_model
from test_evaluate import FakeCompleter

from sdim_ros.core.completer import Completer
from sdim_ros.core.config import Settings
from sdim_ros.core.types import Frame
from sdim_ros.tools import cli, replay
from sdim_ros.tools.frame_judge import FrameJudge
from sdim_ros.tools.replay_report import Gallery


def test_of_a_long_bag_only_the_worst_and_best_frames_are_kept():
    judge = FrameJudge(("sdim", "nearest"), FakeCompleter(Settings()))
    gallery = Gallery(1)
    errors = {}
    for number in range(6):
        image, depth = scene(number)
        frame = Frame(image, sparse(number), stamp_ns=stamp_of(number), name=f"f{number}")
        judged = judge(frame, depth, 0)
        gallery.add(frame, depth, judged)
        errors[frame.name] = judged.result.errors["sdim"]["held_out"]["mae"]
        assert len(gallery._kept) <= 2
    ranked = sorted(errors, key=errors.get)
    worst, best = gallery.pictures()
    assert (worst.title, best.title) == (f"worst 1: {ranked[-1]}", f"best 1: {ranked[0]}")
    assert worst.jpeg[:2] == best.jpeg[:2] == b"\xff\xd8"
    assert f"MAE {errors[ranked[-1]]:.3f} m" in worst.caption
    assert Gallery(3).pictures() == []


def test_the_page_says_what_became_of_the_sets_where_nothing_judges(tmp_path, monkeypatch):
    model = random_model()
    monkeypatch.setattr(replay, "load_completer", lambda settings: Completer(settings, model))
    apart = [(topic, message, time_ns) for topic, message, time_ns in moments(4)
             if (topic, time_ns) != ("/sparse_depth/image", stamp_of(2))]
    out = tmp_path / "out"
    bag = record(tmp_path / "bag", apart)
    assert cli.main(["replay", str(bag), "--out", str(out), *FAST]) == 0
    page = (out / "report.html").read_text()
    assert "3 of 3 sets completed; none was judged." in page
    assert "Sets without a result" in page and "1 unpaired" in page
    assert "Frames to look at" not in page

"""The report is one file that says the answer first, hides nothing and invents nothing."""

from __future__ import annotations

import copy
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from html_reports import HOSTILE, evaluated, pictures

from sdim_ros.tools import html_report, report, report_tables
from sdim_ros.tools.html_report import Picture


class Page(HTMLParser):
    """What a browser would find: elements, the text of each section, and all attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.sections: dict[str, str] = {}
        self.text = self._heading = ""
        self._in: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attributes]
        if tag in ("h2", "style"):
            self._in.append(tag)
            self._heading = "" if tag == "h2" else self._heading

    def handle_endtag(self, tag: str) -> None:
        if tag in ("h2", "style"):
            self._in.remove(tag)
        if tag == "h2":
            self.sections[self._heading] = ""

    def handle_data(self, data: str) -> None:
        if "style" in self._in:
            return
        self.text += data
        if "h2" in self._in:
            self._heading += data
        elif self._heading:
            self.sections[self._heading] += data


def written(tmp_path: Path, content: dict, shown: list[Picture] | tuple = ()) -> Page:
    html_report.write(tmp_path / "report.html", content, shown)
    return Page((tmp_path / "report.html").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def measured() -> dict:
    return evaluated()


@pytest.fixture
def content(measured: dict) -> dict:
    return copy.deepcopy(measured)


def test_the_page_needs_nothing_from_elsewhere(tmp_path, content):
    page = written(tmp_path, content, pictures())
    assert "script" not in page.tags and "@import" not in page.text
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "url(" not in text and "default-src 'none'" in text
    loads = [(tag, value) for tag, name, value in page.attributes if name in ("src", "srcset")]
    assert len(loads) == 2 and all(value.startswith("data:image/jpeg;base64,")
                                   for _, value in loads)
    links = {(tag, value) for tag, name, value in page.attributes if name == "href"}
    assert links == {("link", "data:,"), ("a", "https://arxiv.org/abs/2412.13389v2")}


def test_the_first_sentence_says_what_the_model_adds(tmp_path, content):
    page = written(tmp_path, content)
    said = report.contribution(content)
    assert said[1:] in page.text and page.text.index(said[1:]) < page.text.index("MAE m")
    assert "bar of at most"[1:] in page.text and "[/]" not in page.text
    assert f"{content['methods']['sdim']['held_out']['mae']:.3f}" in page.text


def test_without_the_model_the_best_fill_is_the_answer(tmp_path, content):
    for name in ("sdim", "fill_only"):
        del content["methods"][name]
    best = min(content["methods"], key=lambda n: content["methods"][n]["held_out"]["mae"])
    assert f"{best} has the lowest MAE of 3 methods" in written(tmp_path, content).text


def test_every_number_of_the_tables_is_that_of_the_report(tmp_path, content):
    page = written(tmp_path, content)
    held_out = page.sections["Errors where no point was given"]
    protocol = page.sections["Errors at all pixels, as published protocols count them"]
    for method in content["methods"].values():
        for text, kind in ((held_out, "held_out"), (protocol, "protocol")):
            assert report_tables.metres(method[kind]["mae"]) in text
            assert report_tables.metres(method[kind]["rmse"]) in text
        low, high = method["held_out"]["ci95"]["mae"]
        assert f"{report_tables.metres(low)} to {report_tables.metres(high)}" in held_out


def test_names_from_outside_cannot_become_part_of_the_page(tmp_path, content):
    content["frames"][0]["name"] = HOSTILE
    content["skipped"] = {HOSTILE: HOSTILE}
    content["command"] = HOSTILE
    content["axes"][0]["label"] = content["axes"][0]["levels"][0] = HOSTILE
    content["methods"][HOSTILE] = content["methods"]["linear"]
    content["published"]["rows"][0]["source"] = "javascript:alert(1)"
    content["published"]["caveats"] = [HOSTILE]
    page = written(tmp_path, content, [Picture(HOSTILE, HOSTILE, b"")])
    assert not {"script", "iframe"} & set(page.tags)
    assert not any(name.startswith("on") for _, name, _ in page.attributes)
    assert not any("javascript" in value for _, name, value in page.attributes if name == "href")
    assert page.text.count("<script>alert(1)</script>") >= 8 and "javascript:" in page.text


@pytest.mark.parametrize("key, heading", [
    ("axes", "Over number of points"), ("by_range", "Error by distance"),
    ("paired", "sdim against the others, image by image"),
    ("published", "Published, not measured here"), ("frames", "Every frame"),
    ("skipped", "Skipped"), ("methods", "Errors where no point was given")])
def test_what_is_missing_leaves_no_heading(tmp_path, content, key, heading):
    assert written(tmp_path, content).sections[heading].strip()
    for empty in (None, {}):
        content[key] = empty
        page = written(tmp_path, content)
        assert heading not in page.sections and len(page.sections) >= 6
        assert all(text.strip() for text in page.sections.values())


def test_how_far_intervals_and_confidence_hold_is_shown_where_it_was_judged(tmp_path, content):
    heading = "How sure the map of sdim is"
    found = content["methods"]["sdim"]["certainty"]
    shown = written(tmp_path, content).sections[heading]
    for share in (found["coverage"], found["calibration_error"]):
        assert report_tables.percent(share) in shown
    assert f"{report_tables.percent(-found['mae_reduction'], signed=True)} against all" in shown
    content["methods"]["sdim"]["certainty"] |= {"interval_m": None, "coverage_ci95": [None, None]}
    assert report_tables.UNKNOWN in written(tmp_path, content).sections[heading]
    del content["methods"]["sdim"]["certainty"]
    assert heading not in written(tmp_path, content).sections


def test_an_empty_report_is_still_a_page(tmp_path):
    page = written(tmp_path, {})
    assert not page.sections and "No frame could be judged" in page.text
    skipped = written(tmp_path, {"methods": {}, "skipped": {"a seed 0": "no_reference: why"}})
    assert list(skipped.sections) == ["Skipped"] and "no_reference: why" in skipped.text


@pytest.mark.parametrize("unknown", [None, float("nan"), float("inf"), np.float32("nan")])
def test_unknown_numbers_are_dashes(tmp_path, content, unknown):
    linear = content["methods"]["linear"]["held_out"]
    linear["mae"] = content["methods"]["linear"]["protocol"]["mae"] = unknown
    linear["ci95"]["mae"] = [unknown, unknown]
    content["frames"][0]["metrics"]["linear"]["held_out"]["mae"] = unknown
    content["paired"]["against"]["linear"]["held_out"]["mae"] = {
        "difference": unknown, "relative": unknown, "ci95": [unknown, unknown], "images": 0}
    content["axes"][0]["methods"]["linear"]["mae"] = [unknown, 0.2, 0.1]
    content["by_range"]["mae"]["linear"][0] = unknown
    content["published"]["rows"][0]["mae_m"] = unknown
    page = written(tmp_path, content)
    assert not any(word in page.text.split() for word in ("nan", "NaN", "None", "inf"))
    for heading in ("Errors where no point was given", "Published, not measured here"):
        assert "–" in page.sections[heading]
    assert "linear–––" in page.sections["sdim against the others, image by image"].replace(
        "not clear", "")


def test_published_numbers_are_marked_as_such(tmp_path, content):
    section = written(tmp_path, content).sections["Published, not measured here"]
    assert "Marigold-DC" in section and "0.048" in section and "other points" in section
    assert "on the 654 frames of the protocol" in " ".join(section.split())


def test_answers_at_asked_pixels_are_apart_and_never_the_best(content):
    methods = content["methods"]
    methods["answers"] = copy.deepcopy(methods["linear"])
    methods["answers"]["held_out"]["mae"] = 1e-6
    whole, asked = report_tables.errors(methods, "held_out").groups
    assert [name for name, _ in asked.rows] == ["answers"] and "asked" in asked.title
    assert not any(cell.kind or cell.bar for cell in asked.rows[0][1])
    best = min(methods, key=lambda n: methods[n]["held_out"]["mae"] + (n == "answers"))
    assert [name for name, cells in whole.rows if cells[0].kind == "best"] == [best]


def test_a_difference_is_called_one_only_where_its_interval_leaves_out_zero():
    def found(low, high):
        return {"held_out": {"mae": {"difference": (low + high) / 2, "relative": -0.1,
                                     "ci95": [low, high], "images": 9}}}

    rows = report_tables.paired({"method": "sdim", "against": {
        "linear": found(-0.2, -0.1), "nearest": found(0.1, 0.2), "edge_aware": found(-0.1, 0.1),
        "fill_only": found(float("nan"), float("nan"))}})["table"].groups[0].rows
    assert {name: cells[1].text for name, cells in rows} == {
        "linear": "better", "nearest": "worse", "edge_aware": "not clear",
        "fill_only": "not clear"}


@pytest.mark.parametrize("ends, images, said", [
    ([-0.2, -0.1], 94, "change in MAE on 94 images: −0.2000 to −0.1000 m."),
    ([-0.2, 0.1], 4, "MAE on 4 images: −0.2000 to +0.1000 m, so there may be none."),
    ([float("nan")] * 2, 1, "How far this holds on other images is not known"),
])
def test_below_the_answer_stands_how_far_it_can_be_trusted(tmp_path, content, ends, images, said):
    content["paired"]["against"]["fill_only"]["held_out"]["mae"] |= {
        "ci95": ends, "images": images}
    text = " ".join(written(tmp_path, content).text.split())
    assert said in text and text.index(said) < text.index("MAE m")


def test_of_many_frames_the_first_500_are_listed_and_the_rest_is_counted(tmp_path, content):
    harder = {**content["frames"][0], "axis": "points", "level": "50"}
    content["frames"] = [harder] + [{**content["frames"][0], "name": f"frame-{n}-"}
                                    for n in range(520)]
    text = " ".join(written(tmp_path, content).sections["Every frame"].split())
    assert "The first 500; 21 more are in report.json" in text
    assert "frame-499-" in text and "frame-500-" not in text and "(points 50)" not in text
    assert "520 frames" in written(tmp_path, content).text


def test_a_failed_write_leaves_the_report_that_was_there(tmp_path, content):
    written(tmp_path, content)
    before = (tmp_path / "report.html").read_text(encoding="utf-8")
    content["axes"] = [{"name": "broken"}]
    with pytest.raises(KeyError):
        written(tmp_path, content)
    with pytest.raises(UnicodeEncodeError):  # in the middle of writing
        written(tmp_path, {"command": "sdim \ud800"})
    assert (tmp_path / "report.html").read_text(encoding="utf-8") == before
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]

"""The report as a browser shows it: on a phone, on a desktop, and in the dark."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from html_reports import HOSTILE, evaluated, pictures
from PIL import Image

from sdim_ros.tools import html_report

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
BROWSER = next(filter(None, map(shutil.which, NAMES)), None)
pytestmark = pytest.mark.skipif(
    BROWSER is None, reason=f"no browser to look at the report with: none of {', '.join(NAMES)} "
    "is installed (Debian: apt-get install chromium)")
SIZES = {"phone": (360, 740), "desktop": (1280, 900)}
POLICY = re.compile(r"<meta http-equiv=\"Content-Security-Policy\"[^>]*>")
# Runs in a copy of the page: writes down where everything is, and then with all lists open.
LOOK = """<script>
onload = () => {
  const box = e => { const b = e.getBoundingClientRect();
    return [b.left, b.top, b.right, b.bottom].map(Math.round); };
  const all = s => [...document.querySelectorAll(s)];
  const text = e => [...e.childNodes].some(n => n.nodeType == 3 && n.data.trim());
  const scale = e => { const s = e.ownerSVGElement;
    return s ? s.getBoundingClientRect().width / s.viewBox.baseVal.width : 1; };
  const facts = {
    window: [innerWidth, innerHeight], width: document.documentElement.scrollWidth,
    height: document.documentElement.scrollHeight,
    answer: box(document.querySelector('.answer')),
    tables: all('table').map(box), pictures: all('.picture img').map(box),
    natural: all('.picture img').map(e => e.naturalWidth),
    charts: all('svg').map(box),
    foreign: all('script').length - 1 + all('img:not([src^="data:"]), iframe').length,
  };
  all('details').forEach(e => e.open = true);
  facts.opened = document.documentElement.scrollWidth;
  facts.font = Math.min(...all('body *').filter(text).filter(e => !e.closest('title,script'))
    .map(e => parseFloat(getComputedStyle(e).fontSize) * scale(e)));
  facts.cut = all('body *').filter(e => !e.closest('.scroll,pre,svg,input,script')
    && e.getBoundingClientRect().right > innerWidth + 1).map(e => e.outerHTML.slice(0, 80));
  all('.picture input').forEach(e => e.checked = true);
  facts.enlarged = document.documentElement.scrollWidth;
  all('details').forEach(e => e.open = false);
  all('.picture input').forEach(e => e.checked = false);
  parent.postMessage(facts, '*');
};
</script>"""
# A browser's own window has a least width that is more than a phone's; a frame in it has none.
FRAME = """<!DOCTYPE html><script>
onmessage = event => {
  const out = document.createElement('pre');
  out.id = 'facts'; out.textContent = JSON.stringify(event.data);
  document.body.append(out);
};
</script><body><iframe src="%s" width="%d" height="%d" frameborder="0"></iframe></body>"""


def browse(page: Path, size: tuple[int, int], *options: str) -> str:
    """Open a page without a screen; returns what the browser prints."""
    done = subprocess.run(
        [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
         f"--user-data-dir={page.parent / 'profile'}", "--window-size={},{}".format(*size),
         *options, page.as_uri()],
        capture_output=True, text=True, timeout=120, check=True, cwd=page.parent)
    return done.stdout


def seen(page: Path, size: tuple[int, int], *options: str) -> np.ndarray:
    """(H, W, 3): what the window shows."""
    shot = page.with_suffix(".png")
    browse(page, size, f"--screenshot={shot}", *options)
    return np.asarray(Image.open(shot).convert("RGB")).astype(int)


def crop(screen: np.ndarray, box: list[int]) -> np.ndarray:
    left, top, right, bottom = box
    return screen[top:bottom, left:right]


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    content = evaluated()
    content["frames"][0]["name"] = "a_very_long_name_without_any_space_" * 6
    content["skipped"] = {HOSTILE: "no_reference: " + "why" * 60}
    content["command"] += " --data /a/long/folder" * 10
    path = tmp_path_factory.mktemp("report") / "report.html"
    html_report.write(path, content, pictures())
    return path


@pytest.fixture(scope="module", params=SIZES)
def layout(request: pytest.FixtureRequest, page: Path) -> tuple[tuple[int, int], dict]:
    """The size of the window, and where everything is in it."""
    text, count = POLICY.subn("", page.read_text(encoding="utf-8"))
    assert count == 1
    copy = page.with_name(f"{request.param}.html")
    copy.write_text(text.replace("</body>", f"{LOOK}</body>"), encoding="utf-8")
    outer = copy.with_name(f"{request.param}_frame.html")
    outer.write_text(FRAME % (copy.name, *SIZES[request.param]), encoding="utf-8")
    dump = browse(outer, (1400, 1200), "--dump-dom", "--virtual-time-budget=5000")
    facts = re.search(r'<pre id="facts"[^>]*>(.*?)</pre>', dump, re.S)
    return SIZES[request.param], json.loads(html.unescape(facts[1]))


def test_the_page_is_as_wide_as_the_window(layout):
    (width, height), facts = layout
    assert facts["window"] == [width, height]
    assert max(facts["width"], facts["opened"], facts["enlarged"]) <= width
    assert facts["cut"] == []


def test_the_answer_and_the_first_table_are_on_the_first_screen(layout):
    (width, height), facts = layout
    left, top, right, bottom = facts["answer"]
    assert 0 <= left < right <= width and 0 <= top < bottom < height / 2
    assert facts["tables"][0][1] < height


def test_everything_can_be_read_and_seen(layout):
    (width, _), facts = layout
    assert facts["foreign"] == 0 and facts["font"] >= 13.99
    assert len(facts["pictures"]) == 2 and min(facts["natural"]) >= 600
    assert len(facts["charts"]) == 3
    for left, top, right, bottom in facts["pictures"] + facts["charts"]:
        assert right - left >= 280 and bottom - top >= 200 and right <= width


def test_table_charts_and_pictures_are_drawn(page, layout):
    (width, _), facts = layout
    screen = seen(page, (width, facts["height"]))
    assert screen.shape[1] == width
    left, top, right, bottom = facts["tables"][0]
    table = crop(screen, [left, top, min(right, width - 20), bottom])
    assert crop(screen, facts["answer"]).min() < 60
    assert table.min() < 60 and table.max() == 255  # dark text on white
    for colour in ((31, 95, 208), (11, 122, 62)):  # of sdim, and of what is best
        assert (np.abs(table - colour).max(axis=2) < 12).sum() > 20
    for box in facts["charts"]:
        assert (np.abs(crop(screen, box) - (31, 95, 208)).max(axis=2) < 12).sum() > 100
    for picture, box in zip(pictures(), facts["pictures"], strict=True):
        shown = crop(screen, box)
        wanted = Image.open(BytesIO(picture.jpeg)).convert("RGB").resize(shown.shape[1::-1])
        assert np.abs(shown - np.asarray(wanted)).mean() < 8
        assert shown.std() > 30


def test_in_the_dark_the_page_is_dark_and_its_text_is_light(page):
    screen = seen(page, (360, 740), "--blink-settings=preferredColorScheme=0")
    assert screen[2, 2].max() < 40
    assert (screen.min(axis=2) > 200).sum() > 500

"""A report in a real browser: it loads without complaints, its sliders and tables work, and people can read it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from chromium import Browser, browser, find_chromium
from report_samples import NAMES, sample_evaluation

from seg_perception.offboard.evaluation.page import write_evaluation_report

CHROMIUM = find_chromium()
pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium or Chrome on the PATH"),
    pytest.mark.timeout(120),
]

# Contrast of every piece of text with what lies under it, by WCAG 2; the worst first.
CONTRAST = """
(() => {
  const canvas = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
  const rgba = colour => {
    canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1);
    const [r, g, b, a] = canvas.getImageData(0, 0, 1, 1).data; return [r, g, b, a / 255];
  };
  const linear = v => v <= 0.04045 * 255 ? v / 255 / 12.92 : ((v / 255 + 0.055) / 1.055) ** 2.4;
  const light = ([r, g, b]) => 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
  const ratio = (a, b) => (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  const under = element => {
    const layers = [];
    for (let each = element; each; each = each.parentElement) layers.push(rgba(getComputedStyle(each).backgroundColor));
    return layers.reverse().reduce(
      (below, [r, g, b, a]) => [r, g, b].map((v, n) => v * a + below[n] * (1 - a)), [255, 255, 255]);
  };
  const found = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement, style = getComputedStyle(element);
    if (!walker.currentNode.data.trim() || ["title", "STYLE", "SCRIPT"].includes(element.tagName)) continue;
    const ink = element instanceof SVGElement ? style.fill : style.color;
    found.push([ratio(light(rgba(ink)), light(under(element))), walker.currentNode.data.trim().slice(0, 40)]);
  }
  return [found.length, ...found.sort((a, b) => a[0] - b[0]).slice(0, 3)];
})()
"""
# The same of what a plot draws, with the paper.
STROKES = (
    CONTRAST.split("  const found")[0]
    + """
  const paper = light(under(document.body));
  return [...document.querySelectorAll(".plot .curve, .plot .area, .plot .mark")].map(
    each => ratio(light(rgba(getComputedStyle(each).stroke)), paper));
})()
"""
)
CLIP = "getComputedStyle(document.querySelector('.layer.left')).clipPath"


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_evaluation_report(tmp_path_factory.mktemp("report") / "report.html", sample_evaluation())


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browser(str(CHROMIUM), tmp_path_factory.mktemp("chromium")) as one:
        yield one


def shown_share(page: Browser) -> float:
    """The share of the left image that is not clipped away."""
    clip: str = page.value(CLIP)
    assert clip.startswith("inset(0px "), clip
    # Some versions keep the sum `100% - 25%`.
    percentages = [float(each) for each in re.findall(r"([\d.]+)%", clip)]
    hidden = percentages[0] if len(percentages) == 1 else 100 - percentages[1]
    return 1 - hidden / 100


def test_it_loads_everything_without_complaints(report: Path, opened: Browser) -> None:
    opened.open(report)
    images = opened.value("Promise.all([...document.images].map(i => i.decode().then(() => i.naturalWidth)))")
    assert len(images) == 3 * 8
    assert min(images) > 0
    assert opened.complaints == []
    assert {address.split(":")[0] for address in opened.requests} == {"file", "data"}
    assert [each for each in opened.requests if each.startswith("file")] == [report.resolve().as_uri()]


def test_the_policy_lets_nothing_else_run(report: Path, tmp_path: Path, opened: Browser) -> None:
    """A page that could run what it should not would prove nothing by silence."""
    changed = tmp_path / "changed.html"
    added = '<script>document.title = "ran"</script><img src="http://127.0.0.1:9/x.png"></main>'
    changed.write_text(report.read_text(encoding="utf-8").replace("</main>", added), encoding="utf-8")
    opened.open(changed)
    assert opened.value("document.title") != "ran"
    assert [words for words in opened.complaints if "Content Security Policy" in words]
    opened.complaints.clear()


def test_the_slider_moves_the_divide_by_mouse_and_by_keys(report: Path, opened: Browser) -> None:
    opened.open(report)
    assert shown_share(opened) == pytest.approx(0.5)
    box = opened.value(
        "(() => { const s = document.querySelector('.stage'); s.scrollIntoView({ behavior: 'instant' });"
        " const b = s.getBoundingClientRect(); return [b.x, b.y, b.width, b.height]; })()"
    )
    x, y, width, height = box
    opened.drag((x + 0.5 * width, y + 0.6 * height), (x + 0.2 * width, y + 0.6 * height))
    assert shown_share(opened) == pytest.approx(0.2, abs=0.01)
    handle = opened.value("document.querySelector('.handle').getBoundingClientRect().x")
    assert handle == pytest.approx(x + 0.2 * width, abs=3)
    opened.press("End")
    assert shown_share(opened) == pytest.approx(1.0)
    opened.press("ArrowLeft", times=3)
    assert 0.5 < shown_share(opened) < 1.0
    assert opened.complaints == []


def test_one_can_flip_between_models(report: Path, opened: Browser) -> None:
    opened.open(report)
    visible = "[...document.querySelector('.stage').querySelectorAll('.layer')].filter(e => getComputedStyle(e)" \
              ".visibility === 'visible').map(e => e.querySelector('figcaption').textContent)"  # fmt: skip
    assert opened.value(visible) == ["truth", NAMES[0]]
    opened.value("document.querySelectorAll('.shot button')[4].click()")
    assert opened.value(visible) == ["truth", NAMES[2]]
    assert opened.value("document.querySelector('.shot [aria-pressed=true]').textContent") == NAMES[2]
    opened.value("(() => { const s = document.querySelector('.shot select'); s.value = 0; "
                 "s.dispatchEvent(new Event('input', { bubbles: true })); })()")  # fmt: skip
    assert opened.value(visible) == ["image", NAMES[2]]
    others = opened.value("document.querySelectorAll('.shot')[1].querySelectorAll('.layer')[1].className")
    assert others == "layer left"  # other frames stay as they were


def test_tables_sort_by_their_columns(report: Path, opened: Browser) -> None:
    opened.open(report)
    column = "[...document.querySelector('table').tBodies[0].rows].map(r => r.cells[{n}].textContent)"
    rates = [float(text) for text in opened.value(column.format(n=8))]
    assert rates == sorted(rates, reverse=True)
    opened.value("document.querySelectorAll('th')[8].firstChild.click()")
    opened.value("document.querySelectorAll('th')[8].firstChild.click()")
    assert [float(text) for text in opened.value(column.format(n=8))] == sorted(rates)
    assert opened.value("document.querySelectorAll('th')[8].ariaSort") == "ascending"
    opened.value("document.querySelectorAll('th')[0].firstChild.click()")
    names = opened.value(column.format(n=0))
    assert names[-1] == NAMES[2]
    assert sorted(names) == sorted(NAMES)


@pytest.mark.parametrize("dark", [False, True])
def test_it_can_be_read_in_light_and_dark(dark: bool, report: Path, opened: Browser) -> None:
    opened.open(report, dark=dark)
    opened.value("document.querySelectorAll('details').forEach(each => { each.open = true; })")
    count, *worst = opened.value(CONTRAST)
    assert count > 300
    assert worst[0][0] >= 4.5, worst
    strokes = opened.value(STROKES)
    assert len(strokes) > 20
    assert min(strokes) >= 3.0
    paper = opened.value("getComputedStyle(document.body).backgroundColor")
    assert (paper == "rgb(255, 255, 255)") == (not dark)


def test_it_fits_a_narrow_screen(report: Path, opened: Browser) -> None:
    opened.open(report, width=390)
    assert opened.value("document.documentElement.scrollWidth") == 390
    assert opened.value("Math.min(...[...document.querySelectorAll('.stage')].map(e => e.clientWidth))") > 300


def test_in_print_everything_is_there(report: Path, opened: Browser) -> None:
    opened.open(report, dark=True)
    # The page hears of another medium when it is drawn next.
    closed = (
        "new Promise(done => requestAnimationFrame(() => requestAnimationFrame("
        "() => done(document.querySelectorAll('details:not([open])').length))))"
    )
    before = opened.value(closed)
    assert before > 5
    opened.media("print", dark=True)
    assert opened.value(closed) == 0
    assert opened.value("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert opened.value(CLIP) == "none"
    layers = opened.value(
        "[...document.querySelector('.stage').querySelectorAll('.layer')].map(e => {"
        " const b = e.getBoundingClientRect(); return [b.x, b.y, getComputedStyle(e).visibility]; })"
    )
    assert len({(x, y) for x, y, _ in layers}) == len(layers) == 8
    assert {seen for *_, seen in layers} == {"visible"}
    assert opened.value("getComputedStyle(document.querySelector('.stage input')).display") == "none"
    opened.media("screen")
    assert opened.value(closed) == before
    assert opened.complaints == []

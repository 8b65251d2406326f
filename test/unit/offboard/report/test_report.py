"""Blocks of a report: text stays text, plots show what they are given, images stay within their budget."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pytest
from report_samples import FRAME_NAMES, NAMES, sample_evaluation

from seg_perception.core.errors import ConfigurationError
from seg_perception.offboard.evaluation.page import write_evaluation_report
from seg_perception.offboard.report.axes import Axis
from seg_perception.offboard.report.drawing import ONLY_FIRST, ONLY_SECOND, Pairing, draw_difference, draw_instances
from seg_perception.offboard.report.gallery import IMAGE_BYTES, Layer, Shot, data_uri, gallery, share_of_bytes
from seg_perception.offboard.report.html import MISSING, Html, element
from seg_perception.offboard.report.page import Section, comparison, number, page, paragraph, table, verdict, write_page
from seg_perception.offboard.report.plots import Bar, Series, bar_chart, cumulative, histogram, line_plot, time_line


class Markup(HTMLParser):
    """Tags, text by tag, headings, and whether every element is closed by its own end tag."""

    VOID = ("meta", "img", "input", "br")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.text: dict[str, list[str]] = {}
        self.headings: list[int] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag not in self.VOID:
            self.open.append(tag)
        if re.fullmatch("h[1-6]", tag):
            self.headings.append(int(tag[1]))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open:
            self.text.setdefault(self.open[-1], []).append(data)


EVIL = "<script>alert('1')</script> & \"quoted\""


def test_text_is_escaped_wherever_it_is_put():
    parts = [
        verdict(EVIL, False, [EVIL]), paragraph(EVIL), table([EVIL, EVIL], [[EVIL, EVIL]], caption=EVIL),
        comparison({EVIL: {EVIL: EVIL}}), line_plot(EVIL, [Series(EVIL, [0, 1], [0, 1], [EVIL, EVIL])], Axis(EVIL),
                                                    Axis(EVIL)),
        histogram(EVIL, {EVIL: [1, 2]}, EVIL), cumulative(EVIL, {EVIL: [1, 2]}, Axis(EVIL)),
        bar_chart(EVIL, [EVIL], {EVIL: [Bar(1)]}, Axis(EVIL)),
        time_line(EVIL, [Series(EVIL, [0, 1], [0, 1])], Axis(EVIL), Axis(EVIL)),
        gallery([Shot(EVIL, EVIL, [Layer(EVIL, np.zeros((9, 16, 3), np.uint8))] * 3)], 10_000),
    ]  # fmt: skip
    found = Markup(page(EVIL, EVIL, [Section(EVIL, parts)]))
    assert found.tags.count("script") == 1  # the page's own
    assert found.text["h1"] == found.text["h2"] == found.text["title"][:1] == [EVIL]
    assert found.text["caption"] == [EVIL]


def test_names_that_no_file_could_hold_are_shown():
    data = page("caf\udce9.png\0", element("p", "\ud83d", title="\udcff\x1b"), []).encode()
    assert b"caf\\xe9.png\\x00" in data
    assert b'<p title="\\xff\\x1b">\\ud83d</p>' in data


def test_a_page_fetches_nothing_and_only_its_own_script_may_run(tmp_path: Path):
    text = write_page(tmp_path / "page.html", "title", "lead", [Section("part", "text")]).read_text(encoding="utf-8")
    (policy,) = re.findall('Content-Security-Policy" content="([^"]*)"', text)
    assert policy.startswith("default-src &#x27;none&#x27;; img-src data:; script-src &#x27;sha256-")
    assert "unsafe" not in policy
    assert "://" not in text
    with pytest.raises(ConfigurationError, match="cannot be written"):
        write_page(tmp_path / "absent" / "page.html", "title", "", [])


def test_sections_without_content_are_left_out():
    text = page(
        "title", "", [Section("first", "x"), Section("second", []), Section("third", "y"), Section("last", "z")]
    )
    assert "second" not in text
    assert re.findall('<a href="#([^"]*)">', text) == re.findall('<h2 id="([^"]*)">', text) != []


def test_a_key_that_one_lacks_has_a_dash():
    text = comparison({"a": {"backend": "ort", "sha": "1"}, "b": {"sha": "2"}})
    assert re.findall("<td>([^<]*)</td>", text) == ["ort", MISSING, "1", "2"]
    assert number(float("nan")) == MISSING
    assert number(0.5, 2, sign=True) == "+0.50"


def points_of(markup: Html, kind: str) -> list[tuple[float, float]]:
    """The points of all paths whose class begins with `kind`."""
    drawings = re.findall(rf'<path d="([^"]*)" class="{kind}[^"]*">', markup)
    return [
        tuple(map(float, each.split())) for drawing in drawings for each in re.split("[ML]", drawing.strip("Z"))[1:]
    ]


def test_a_curve_runs_where_its_values_are():
    markup = line_plot("plot", [Series("a", [0, 0.5, 1], [0, 1, 0.25])], Axis("x", 0, 1), Axis("y", 0, 1))
    (x0, y0), (x1, y1), (x2, y2) = points_of(markup.split("legend")[0], "curve")
    assert x1 - x0 == pytest.approx(x2 - x1, abs=0.2)
    assert (y0 - y2) / (y0 - y1) == pytest.approx(0.25, abs=0.01)  # up is less
    assert "a: 0.5, 1<" in markup


def test_values_that_are_missing_are_gaps():
    markup = time_line("plot", [Series("a", range(5), [1, 2, np.nan, 3, np.inf])], Axis("x"), Axis("y"))
    assert [len(re.findall("[ML]", path)) for path in re.findall('<path d="([^"]*)" class="curve', markup)][:2] == [
        2,
        1,
    ]
    assert "nan" not in markup
    assert "inf" not in markup


@pytest.mark.parametrize("values", [[], [np.nan], [5.0], [0.0, 0.0], [-3.0, -3.0], [1e-9, 2e-9], [1e9, 1e9 + 1]])
def test_odd_values_can_be_drawn(values: list[float]):
    series = [Series("a", range(len(values)), values)]
    drawn = [
        line_plot("plot", series, Axis("x"), Axis("y")), time_line("plot", series, Axis("x"), Axis("y")),
        histogram("plot", {"a": values}, "x"), cumulative("plot", {"a": values}, Axis("x", log=True)),
        bar_chart("plot", [str(value) for value in values], {"a": [Bar(value) for value in values]}, Axis("x")),
    ]  # fmt: skip
    for markup in drawn:
        Markup(markup)
        assert "nan" not in "".join(re.findall(' (?:d|x|y|cx|cy|width)="([^"]*)"', markup))


def test_a_long_time_line_keeps_its_peaks_and_stays_small():
    values = np.ones(100_000)
    values[54_321] = 9.0
    markup = time_line("plot", [Series("a", np.arange(100_000), values)], Axis("frame"), Axis("ms", 0, 10))
    top = min(y for _, y in points_of(markup, "band"))
    assert top == pytest.approx(10 + 240 * 0.1, abs=1)
    assert len(markup) < 60_000


def test_bars_are_as_long_as_their_values():
    bars = {"a": [Bar(0.5, 0.4, 0.6), Bar(0.25)], "b": [Bar(-0.25), Bar(float("nan"))]}
    markup = bar_chart("plot", ["first", "a name that is much longer than there is room for"], bars, Axis("x", -1, 1))
    widths = [float(each) for each in re.findall(r'<rect x="[^"]*" y="[^"]*" width="([^"]*)" height="11"', markup)]
    assert [each / widths[0] for each in widths] == pytest.approx([1, 0.5, 0.5], abs=0.01)
    assert "a, first: 0.500 (0.400 to 0.600)" in markup
    assert "<title>a name that is much longer than there is room for</title>" in markup


def test_samples_beyond_the_histogram_are_said():
    markup = histogram("plot", {"a": [*[10.0] * 250, *[20.0] * 250, 5000.0]}, "ms")
    assert "1 of 501 are beyond the right end." in markup
    assert sum(map(float, re.findall(r"a: [\d.]+, ([\d.]+)<", markup))) == pytest.approx(99.8, abs=0.1)


def noise(width: int = 1600, height: int = 900) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (height, width, 3), np.uint8)


def test_images_stay_within_their_budget():
    image = cv2.resize(noise(200, 112), (1600, 900))
    large = data_uri(image, 1_000_000)
    most = len(large) // 4
    assert len("data:image/jpeg;base64,") < len(data_uri(image, most)) < most * 4 / 3 + 30
    # However many are asked for: the report of a long list has small images.
    image = cv2.resize(noise(64, 36), (1600, 900), interpolation=cv2.INTER_CUBIC)
    for images in (10, 100, 3000):
        assert images * len(data_uri(image, share_of_bytes(images))) < IMAGE_BYTES * 4 / 3 + 30 * images
    assert IMAGE_BYTES * 4 / 3 < 19e6


def test_a_shot_shows_two_layers_and_offers_the_others():
    image = np.zeros((90, 160, 3), np.uint8)
    layers = [Layer(name, image) for name in ("image", "truth", "f16")]
    markup = gallery([Shot("frame", "text", layers, 1, 2)], 10_000)
    assert re.findall('<figure class="([^"]*)">', markup) == ["layer", "layer left", "layer right"]
    assert re.findall('alt="([^"]*)"', markup) == ["frame: image", "frame: truth", "frame: f16"]
    assert "<select" not in gallery([Shot("frame", "text", layers[:2])], 10_000)
    assert "range" not in gallery([Shot("frame", "text", layers[:1], 0, 0)], 10_000)


def test_counterparts_have_one_colour_and_errors_their_own():
    (frame,) = [each for each in sample_evaluation(1).gallery if each.kind == "best"]
    image = np.full((frame.height, frame.width, 3), 90, np.uint8)
    truth, found = frame.truth, frame.instances[0]
    pairing = Pairing(np.array([[0, 0]]), np.array([1]), np.array([1]))
    first = draw_instances(image, truth, NAMES)
    second = draw_instances(image, found, NAMES, pairing.second, pairing.numbers(2))
    shared, other = (150, 100), (130, 300)  # row, column: within the first and the second instance of both
    assert np.array_equal(first[shared], second[shared])
    assert not np.array_equal(first[other], second[other])
    errors = draw_difference(image, truth, found, pairing, NAMES)
    missing, extra = (150, 49), (150, 194)  # along the left and right edge of the pair, 4 pixels apart
    assert tuple(errors[missing]) == ONLY_FIRST
    assert tuple(errors[extra]) == ONLY_SECOND
    assert tuple(errors[shared]) == (49, 49, 49)


def test_the_report_of_an_evaluation_says_what_was_found(tmp_path: Path):
    text = write_evaluation_report(tmp_path / "report.html", sample_evaluation()).read_text(encoding="utf-8")
    found = Markup(text)
    assert found.headings[0] == 1
    assert all(after - before <= 1 for before, after in zip(found.headings, found.headings[1:], strict=False))
    assert found.tags.count("script") == 1
    assert found.tags.count("img") == len(FRAME_NAMES) * (2 + 2 * len(NAMES))
    said = " ".join(part for parts in found.text.values() for part in parts)
    for words in (
        f"{NAMES[0]}: mask AP 0.300, box AP 0.300", "-1.20 (-2.00 to +0.10)", FRAME_NAMES["worst"], "na\\xefve.png",
        "1 image was skipped", "0123456789abcdef", "nested.sizes", "640, 384", "device.name", "<gpu>", "HOTA",
        "absent.png", "broken\\xff.png", "2024-05-06T07:08:09Z", "results_2.json",
    ):  # fmt: skip
        assert words in said, words
    titles = found.text["h2"]
    assert titles.index("Models") < titles.index("Precision and recall") < titles.index("Data and settings")


def test_the_report_of_one_model_without_extras_leaves_them_out(tmp_path: Path):
    whole = sample_evaluation(1)
    bare = replace(
        whole, strata=(), curves=(), gallery=(), notes=(),
        scores=tuple(replace(each, tracking=None, boundary={}) for each in whole.scores),
    )  # fmt: skip
    found = Markup(write_evaluation_report(tmp_path / "report.html", bare).read_text(encoding="utf-8"))
    assert found.text["h2"] == ["Models", "Average precision as COCO sums it up", "Speed", "Panoptic quality",
                                "What the models are", "Data and settings"]  # fmt: skip


def test_direction_marks_of_a_name_turn_nothing_around_on_a_page() -> None:
    data = page("a\u202egpj.exe", element("p", "b\u2066\x9b31m\u2029", title="\u200f"), []).encode()
    assert rb"a\u202egpj.exe" in data
    assert rb'<p title="\u200f">b\u2066\x9b31m\u2029</p>' in data

"""The plots of a report, drawn as SVG: lines, distributions, bars, and what happens from frame to frame.

    line_plot("Mask AP", [Series("f32", recall, precision)], Axis("recall", 0, 1), Axis("precision", 0, 1))
    histogram("Latency", {"f32": milliseconds}, "latency (ms)")
    cumulative("Latency", {"f32": milliseconds}, Axis("latency (ms)", log=True))
    bar_chart("Mask AP by size", ["small", "large"], {"f32": [Bar(0.21), Bar(0.54, 0.5, 0.58)]}, Axis("AP", 0, 1))
    time_line("Latency", [Series("f32", seconds, milliseconds)], Axis("time (s)"), Axis("latency (ms)"))

Each is a figure with title and legend, whose points say their values under the mouse. Several of them go into `plots`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite, nan

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .axes import BELOW, TOP, Across, Axis, Canvas, left_of, line, path, svg
from .html import MISSING, Content, Html, element

KINDS = 7  # colours in the style sheet
# Of a histogram.
_BINS = 40
_POINTS = 400  # of a curve, at most; a drawing has no more columns
_TOUCHED = 40  # points of a curve that say their values
_BAR, _GAP = 13, 10  # height of a bar, and between groups of bars
_VALUE = 55  # room for a value behind its bar
_NAME = 26  # letters of a category's name, at most


@dataclass(frozen=True, slots=True)
class Series:
    """A curve: points with a name.

    Attributes:
        name: for the legend.
        x, y: `[N]` each, in the order in which they are joined; NaN in y is a gap.
        says: what else each point says under the mouse; empty: nothing.
    """

    name: str
    x: ArrayLike
    y: ArrayLike
    says: Sequence[str] = ()

    def points(self) -> NDArray[np.float64]:
        """The points, float64 `[N, 2]`."""
        return np.stack([np.asarray(self.x, np.float64), np.asarray(self.y, np.float64)], axis=1)


@dataclass(frozen=True, slots=True)
class Bar:
    """A value, and the ends of its interval where it has one; NaN: there is none."""

    value: float
    low: float = nan
    high: float = nan


def plots(*figures: Html) -> Html:
    """Plots side by side, as many as the screen has room for."""
    return element("div", figures, class_="plots")


def line_plot(title: str, series: Sequence[Series], x: Axis, y: Axis) -> Html:
    """Curves over one pair of axes."""
    curves = [(each, each.points()) for each in series]
    points = np.concatenate([*(found for _, found in curves), np.zeros((0, 2))])
    points = points[np.isfinite(points).all(axis=1)]
    if not len(points):
        return _figure(title, _nothing(), ())
    canvas = Canvas.of(x.fitted(points[:, 0]), y.fitted(points[:, 1]))
    marks: list[Html] = []
    for n, (each, found) in enumerate(curves):
        seen = found.take(_spread(len(found), _POINTS), axis=0)
        runs = (line((canvas.at(*point) for point in run), f"curve s{n % KINDS}") for run in _runs(seen))
        marks += [*runs, *_touchable(canvas, each.name, found, each.says)]
    return _figure(title, canvas.drawing(title, marks), [each.name for each in series])


def histogram(title: str, samples: Mapping[str, ArrayLike], label: str) -> Html:
    """Return how values are spread: the share of the samples in each of equally wide bins.

    Args:
        title: of the plot.
        samples: values by name, each `[N]`.
        label: what the values are, with the unit.
    """
    values = {name: _finite(each) for name, each in samples.items()}
    everything = np.concatenate([*values.values(), np.zeros(0)])
    if not everything.size:
        return _figure(title, _nothing(), ())
    # A few late frames would squeeze all others into one bin.
    scale = Axis(label, float(everything.min()), float(np.percentile(everything, 99.5))).fitted(())
    edges = np.linspace(scale.low, scale.high, _BINS + 1)
    beyond = int(np.count_nonzero(everything > scale.high))
    shares = {name: 100 * np.histogram(each, edges)[0] / max(1, each.size) for name, each in values.items()}
    canvas = Canvas.of(scale, Axis("frames (%)", 0).fitted(np.concatenate([*shares.values()])))
    marks = [_steps(canvas, edges, share, n, name) for n, (name, share) in enumerate(shares.items())]
    note = f"{beyond} of {everything.size} are beyond the right end." if beyond else ""
    return _figure(title, canvas.drawing(title, marks), values, note, filled=True)


def cumulative(title: str, samples: Mapping[str, ArrayLike], x: Axis) -> Html:
    """The share of the samples up to each value."""
    shares = np.concatenate([np.linspace(0, 99, 100), np.linspace(99, 100, 41)[1:]])
    curves = [
        Series(name, np.percentile(values, shares), shares)
        for name, each in samples.items()
        if (values := _finite(each)).size
    ]
    return line_plot(title, curves, x, Axis("samples (%)", 0, 100))


def time_line(title: str, series: Sequence[Series], x: Axis, y: Axis) -> Html:
    """Values from frame to frame, however many: where several frames share a column, their median and their range.

    Args:
        title: of the plot.
        series: values by name; x ascends.
        x, y: the axes.
    """
    found = [(each.name, _columns(each.points())) for each in series]
    used = [table for _, table in found if len(table)]
    if not used:
        return _figure(title, _nothing(), ())
    joined = np.concatenate(used)
    canvas = Canvas.of(x.fitted(joined[:, 0]), y.fitted(joined[:, 1:].ravel()))
    drawn: list[Html] = []
    for n, (name, table) in enumerate(found):
        for run in _runs(table):
            if np.any(run[:, 2] != run[:, 3]):
                edge = [*zip(run[:, 0], run[:, 2], strict=True), *zip(run[::-1, 0], run[::-1, 3], strict=True)]
                drawn.append(
                    element("path", d=path(canvas.at(*point) for point in edge) + "Z", class_=f"band s{n % KINDS}")
                )
            drawn.append(line((canvas.at(*point) for point in run[:, :2]), f"curve s{n % KINDS}"))
        drawn += _touchable(canvas, name, table[:, :2])
    return _figure(title, canvas.drawing(title, drawn), [name for name, _ in found])


def bar_chart(
    title: str, categories: Sequence[str], bars: Mapping[str, Sequence[Bar]], axis: Axis, digits: int = 3
) -> Html:
    """Bars by category, those of one category together.

    Args:
        title: of the plot.
        categories: their names.
        bars: a value for each category, by the name of the series; whiskers show intervals.
        axis: of the values.
        digits: of the values as they are written.
    """
    values = [end for row in bars.values() for bar in row for end in (bar.value, bar.low, bar.high)]
    scale = axis.fitted([0.0, *values] if axis.low is None else values)
    names = [_short(each) for each in categories]
    across = Across(scale, left_of(names), _VALUE)
    step = _BAR * len(bars) + _GAP
    base = TOP + step * len(categories)
    zero = [line([(across.at(0), TOP), (across.at(0), base)], "zero")] if scale.low < 0 else []
    marks = [*across.marks(TOP, base), *zero]
    for row, (category, name) in enumerate(zip(categories, names, strict=True)):
        top = TOP + row * step + _GAP / 2
        label = element("text", element("title", category), name, x=across.left - 8, text_anchor="end",
                        y=top + _BAR * len(bars) / 2 + 4)  # fmt: skip
        marks.append(label)
        for n, (series, found) in enumerate(bars.items()):
            marks += _bar(across, found[row], top + n * _BAR, n, f"{series}, {category}", digits)
    return _figure(title, svg(title, base + BELOW, marks), bars, filled=True)


def _figure(title: str, drawing: Html, names: Iterable[str], note: Content = "", filled: bool = False) -> Html:
    """A plot with its title and legend. Filled plots have patches in the legend, the others pieces of line."""
    entries = [element("li", _key(n, filled), name) for n, name in enumerate(names)]
    legend = element("ul", entries, class_="legend") if entries else ""
    below = element("p", note, class_="faint") if note else ""
    return element("figure", element("figcaption", title), drawing, legend, below, class_="plot")


def _key(number: int, filled: bool) -> Html:
    kind = f"s{number % KINDS}"
    sample = (
        element("rect", x=0, y=0, width=28, height=12, class_=f"area {kind}")
        if filled
        else element("path", d="M0 6H28", class_=f"curve {kind}")
    )
    return element("svg", sample, viewBox="0 0 28 12", aria_hidden="true")


def _nothing() -> Html:
    return element("p", "There are no values to draw.", class_="faint")


def _bar(across: Across, bar: Bar, top: float, number: int, name: str, digits: int) -> Iterable[Html]:
    """One bar with its value behind it."""
    if not isfinite(bar.value):
        yield element("text", MISSING, x=across.at(max(0.0, across.scale.low)) + 5, y=top + _BAR - 2.5)
        return
    low, high = sorted((across.at(max(0.0, across.scale.low)), across.at(bar.value)))
    interval = isfinite(bar.low) and isfinite(bar.high)
    text = f"{bar.value:.{digits}f}"
    says = f"{name}: {text}" + (f" ({bar.low:.{digits}f} to {bar.high:.{digits}f})" if interval else "")
    yield element("rect", element("title", says), x=low, y=top + 1, width=max(1.0, high - low), height=_BAR - 2,
                  class_=f"area s{number % KINDS}")  # fmt: skip
    ends = [across.at(bar.low), across.at(bar.high)] if interval else [low, high]
    if interval:
        yield line([(end, top + _BAR / 2) for end in ends], "whisker")
    yield element("text", text, x=max(high, *ends) + 5, y=top + _BAR - 2.5)


def _steps(canvas: Canvas, edges: NDArray[np.floating], shares: NDArray[np.floating], number: int, name: str) -> Html:
    """A histogram's outline, filled, with what each bin holds."""
    outline = [(edges[0], 0.0)]
    for left, right, share in zip(edges, edges[1:], shares, strict=False):
        outline += [(left, share), (right, share)]
    outline.append((edges[-1], 0.0))
    shape = element("path", d=path(canvas.at(*point) for point in outline), class_=f"area s{number % KINDS}")
    middles = np.stack([(edges[:-1] + edges[1:]) / 2, shares], axis=1)
    return element("g", shape, _touchable(canvas, name, middles[shares > 0]))


def _touchable(canvas: Canvas, name: str, points: NDArray[np.floating], says: Sequence[str] = ()) -> list[Html]:
    """Spots that say their values under the mouse."""
    known = np.flatnonzero(np.isfinite(points).all(axis=1))
    spots = []
    for index in known[_spread(len(known), _TOUCHED)].tolist():
        x, y = points[index].tolist()
        across, up = canvas.at(x, y)
        text = ", ".join([f"{name}: {x:.6g}", f"{y:.4g}", *([says[index]] if says and says[index] else [])])
        spots.append(
            element("circle", element("title", text), cx=round(across, 1), cy=round(up, 1), r=4, class_="touch")
        )
    return spots


def _finite(values: ArrayLike) -> NDArray[np.float64]:
    array = np.asarray(values, np.float64).ravel()
    kept: NDArray[np.float64] = array[np.isfinite(array)]
    return kept


def _spread(length: int, most: int) -> NDArray[np.intp]:
    """Indices of at most `most` of `length` points, evenly spread, first and last included."""
    return np.unique(np.linspace(0, length - 1, min(most, length)).round().astype(np.intp))


def _columns(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Points as x, median, lowest and highest of each column of the drawing: float64 `[M, 4]`."""
    if len(points) <= _POINTS:
        return points[:, [0, 1, 1, 1]]
    rows = []
    for part in np.array_split(points, _POINTS):
        y = part[np.isfinite(part[:, 1]), 1]
        rows.append((float(part[:, 0].mean()), *((np.median(y), y.min(), y.max()) if y.size else (nan, nan, nan))))
    return np.array(rows)


def _runs(points: NDArray[np.float64]) -> list[NDArray[np.float64]]:
    """The points without those that have no value, parted where such were."""
    known = np.isfinite(points).all(axis=1)
    cuts = np.flatnonzero(np.diff(known.astype(np.int8))) + 1
    return [run for run in np.split(points, cuts) if len(run) and np.isfinite(run).all()]


def _short(name: str) -> str:
    return name if len(name) <= _NAME else f"{name[: _NAME - 1]}\N{HORIZONTAL ELLIPSIS}"

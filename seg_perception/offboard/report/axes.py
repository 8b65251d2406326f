"""The frame of a plot: where a value lies in the drawing, and ticks, grid and labels around it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import ceil, floor, isfinite, log10

from .html import Html, element

WIDTH = 520  # of every drawing, in its own units; shown at this width in pixels or less
TOP, BELOW = 10, 42  # room above and below the area within the axes
_BASE = 250  # height of the lower axis
_LETTER = 6.6  # width of an average letter
_PARTS = 6  # between the marks of an axis, at most


@dataclass(frozen=True, slots=True)
class Axis:
    """An axis of a plot.

    Attributes:
        label: what it shows, with the unit: `recall`, `latency (ms)`.
        low, high: its ends; None: those of the data.
        log: powers of ten are equally far apart; only for values above 0.
    """

    label: str
    low: float | None = None
    high: float | None = None
    log: bool = False

    def fitted(self, values: Iterable[float]) -> Scale:
        """The scale over all values; values that it has no place for (NaN, infinity) do not count."""
        kept = [float(value) for value in values if isfinite(value) and (value > 0 or not self.log)]
        low = min(kept, default=1.0 if self.log else 0.0) if self.low is None else self.low
        high = max(kept, default=10.0 if self.log else 1.0) if self.high is None else self.high
        if self.log:
            return Scale(self.label, low, max(high, low * 1.1), True)
        if high <= low:  # a single value
            low, high = (low - 0.5, low + 0.5) if self.low is None and low else (low, low + 1.0)
        step = nice_step(high - low)
        # Ends that nobody asked for are round numbers.
        low = floor(low / step + 1e-9) * step if self.low is None else low
        high = ceil(high / step - 1e-9) * step if self.high is None else high
        return Scale(self.label, low, high)


@dataclass(frozen=True, slots=True)
class Scale:
    """An axis with its ends.

    Attributes:
        label: what it shows.
        low, high: its ends.
        log: whether it is logarithmic.
    """

    label: str
    low: float
    high: float
    log: bool = False

    def share(self, value: float) -> float:
        """Return where a value lies between the ends: 0 to 1, or beyond."""
        if self.log:
            return log10(max(value, 1e-300) / self.low) / log10(self.high / self.low)
        return (value - self.low) / (self.high - self.low)

    def ticks(self) -> list[tuple[float, str]]:
        """Values to be named, with their names."""
        if self.log:
            return self._powers()
        step = nice_step(self.high - self.low)
        first, last = ceil(self.low / step - 1e-9), floor(self.high / step + 1e-9)
        digits = max(0, -floor(log10(step) + 1e-9))
        return [
            (n * step, f"{n * step + 0.0:,.{digits}f}".replace(",", "\N{THIN SPACE}")) for n in range(first, last + 1)
        ]

    def _powers(self) -> list[tuple[float, str]]:
        powers = range(floor(log10(self.low)), ceil(log10(self.high)) + 1)
        # Few powers are filled up with their multiples.
        for factors in ((1,), (1, 2, 5), range(1, 10)):
            values = [factor * 10.0**power for power in powers for factor in factors]
            inside = [value for value in values if self.low * 0.999 <= value <= self.high * 1.001]
            if len(inside) >= 3:
                break
        return [(value, f"{value:g}") for value in inside]


def nice_step(span: float) -> float:
    """Return the smallest step of 1, 2 or 5 times a power of ten that divides a span into at most `_PARTS` parts."""
    power = 10.0 ** floor(log10(span / _PARTS))
    return next(factor * power for factor in (1, 2, 5, 10) if span / (factor * power) <= _PARTS * (1 + 1e-9))


@dataclass(frozen=True, slots=True)
class Across:
    """The horizontal axis of a drawing.

    Attributes:
        scale: its values.
        left: where it begins in the drawing.
        right: room behind its end.
    """

    scale: Scale
    left: float
    right: float = 16

    @property
    def width(self) -> float:
        """Its length in the drawing."""
        return WIDTH - self.right - self.left

    def at(self, value: float) -> float:
        """Return where a value lies in the drawing."""
        return self.left + self.scale.share(value) * self.width

    def marks(self, top: float, base: float) -> Iterable[Html]:
        """Grid from `top` to `base`, names of the ticks and label below."""
        for value, name in self.scale.ticks():
            place = self.at(value)
            yield line([(place, top), (place, base)], "grid")
            yield element("text", name, x=place, y=base + 16, text_anchor="middle")
        yield element("text", self.scale.label, x=self.left + self.width / 2, y=base + 34, text_anchor="middle")


@dataclass(frozen=True, slots=True)
class Canvas:
    """A drawing with two axes.

    Attributes:
        x: the horizontal axis.
        y: values of the vertical one.
    """

    x: Across
    y: Scale

    @classmethod
    def of(cls, x: Scale, y: Scale) -> Canvas:
        """A canvas with room on the left for the names of the ticks and the label."""
        return cls(Across(x, left_of(name for _, name in y.ticks()) + 20), y)

    def at(self, x: float, y: float) -> tuple[float, float]:
        """A point in the drawing."""
        return self.x.at(x), self.up(y)

    def up(self, y: float) -> float:
        """Return where a value of y lies in the drawing."""
        return _BASE - self.y.share(y) * (_BASE - TOP)

    def drawing(self, title: str, marks: Iterable[Html]) -> Html:
        """The whole drawing, axes included."""
        turned = f"translate(12 {(_BASE + TOP) / 2:g}) rotate(-90)"
        label = element("text", self.y.label, text_anchor="middle", transform=turned)
        return svg(title, _BASE + BELOW, [*self.x.marks(TOP, _BASE), *self._grid(), label, *marks])

    def _grid(self) -> Iterable[Html]:
        for value, name in self.y.ticks():
            height, left = self.up(value), self.x.left
            yield line([(left, height), (left + self.x.width, height)], "grid")
            yield element("text", name, x=left - 6, y=height + 4, text_anchor="end")


def left_of(names: Iterable[str]) -> float:
    """Room that names need on the left of a drawing."""
    return 12 + max((len(name) for name in names), default=1) * _LETTER


def svg(title: str, height: float, marks: Iterable[Html]) -> Html:
    """A drawing with a name for people who do not see it."""
    return element("svg", marks, viewBox=f"0 0 {WIDTH} {height:g}", role="img", aria_label=title)


def line(points: Iterable[tuple[float, float]], kind: str) -> Html:
    """A line through points of the drawing."""
    return element("path", d=path(points), class_=kind)


def path(points: Iterable[tuple[float, float]]) -> str:
    """The path through points of the drawing."""
    return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points)

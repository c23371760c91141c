"""Drawing in SVG without a library: scales, axes, lines and labels. Colours come from the page's CSS."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

_LABEL_PIXELS = 15.0  # between the baselines of two labels
_NICE_STEPS = (1.0, 2.0, 2.5, 5.0, 10.0)


@dataclass(frozen=True, slots=True)
class Scale:
    """From data to pixels, linear or logarithmic; what lies outside is drawn at the edge."""

    low: float
    high: float
    begin: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        """The pixel of a value."""
        low, high, at = self.low, self.high, min(max(value, min(self.low, self.high)), max(self.low, self.high))
        if self.log:
            low, high, at = math.log(low), math.log(high), math.log(at)
        return self.begin + (at - low) / ((high - low) or 1.0) * (self.end - self.begin)


@dataclass(frozen=True, slots=True)
class Frame:
    """Where in a picture the data goes."""

    width: float = 960.0
    height: float = 300.0
    left: float = 58.0
    right: float = 16.0
    top: float = 12.0
    bottom: float = 30.0

    def x(self, low: float, high: float, *, log: bool = False) -> Scale:
        """The horizontal scale."""
        return Scale(low, high, self.left, self.width - self.right, log)

    def y(self, low: float, high: float, *, log: bool = False) -> Scale:
        """The vertical scale; up is more."""
        return Scale(low, high, self.height - self.bottom, self.top, log)


def picture(frame: Frame, title: str, *parts: str) -> str:
    """An SVG element that a screen reader can name."""
    return (
        f'<svg viewBox="0 0 {frame.width:g} {frame.height:g}" role="img" aria-label="{escape(title)}">'
        + "".join(parts)
        + "</svg>"
    )


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round numbers between two."""
    if high <= low:
        return [low]
    rough = (high - low) / about
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(nice * power for nice in _NICE_STEPS if nice * power >= rough * 0.999)
    return [step * i for i in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


def decades(low: float, high: float) -> list[float]:
    """1, 2, 5, 10, … between two; only powers of ten where those would be many."""
    found = [
        m * 10.0**e
        for e in range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        for m in (1, 2, 5)
        if low <= m * 10.0**e <= high * 1.0001
    ]
    tens = [value for value in found if abs(math.log10(value) - round(math.log10(value))) < 1e-9]
    return tens if len(found) > 8 and len(tens) > 1 else found


def y_axis(frame: Frame, scale: Scale, values: Sequence[float], text: Callable[[float], str]) -> str:
    """Grid lines with numbers at their left."""
    return "".join(
        f'<line class="grid" x1="{frame.left:g}" x2="{frame.width - frame.right:g}" y1="{y:.1f}" y2="{y:.1f}"/>'
        f'<text class="tick" x="{frame.left - 8:g}" y="{y + 4:.1f}" text-anchor="end">{escape(text(value))}</text>'
        for value in values
        for y in [scale(value)]
    )


def x_axis(
    frame: Frame, scale: Scale, values: Sequence[float], text: Callable[[float], str], *, grid: bool = False
) -> str:
    """Numbers below, on a line."""
    bottom = frame.height - frame.bottom
    marks = "".join(
        (f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{frame.top:g}" y2="{bottom:g}"/>' if grid else "")
        + f'<text class="tick" x="{x:.1f}" y="{bottom + 18:g}" text-anchor="middle">{escape(text(value))}</text>'
        for value in values
        for x in [scale(value)]
    )
    base = (
        f'<line class="axis" x1="{frame.left:g}" x2="{frame.width - frame.right:g}" y1="{bottom:g}" y2="{bottom:g}"/>'
    )
    return marks + base


def line(points: Sequence[tuple[float, float]], style: str, title: str = "") -> str:
    """A line through points in pixels."""
    if not points:
        return ""
    path = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
    return f'<path class="{style}" d="{path}">{_hover(title)}</path>'


def area(points: Sequence[tuple[float, float]], base: Sequence[tuple[float, float]], style: str) -> str:
    """What lies between two lines in pixels."""
    if not points:
        return ""
    path = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in [*points, *reversed(base)])
    return f'<path class="{style}" d="{path}Z"/>'


def dot(x: float, y: float, radius: float, style: str, title: str = "") -> str:
    """A point that says its numbers when one points at it."""
    return f'<circle class="{style}" cx="{x:.1f}" cy="{y:.1f}" r="{radius:g}">{_hover(title)}</circle>'


def label(x: float, y: float, text: str, style: str, anchor: str = "start") -> str:
    """Text."""
    return f'<text class="{style}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def apart(wanted: Sequence[float], low: float, high: float, pixels: float = _LABEL_PIXELS) -> list[float]:
    """Heights for labels, close to those wanted and not on top of each other."""
    order = sorted(range(len(wanted)), key=lambda i: wanted[i])
    placed = [min(max(wanted[i], low), high) for i in order]
    for i in range(1, len(placed)):
        placed[i] = max(placed[i], placed[i - 1] + pixels)
    if placed and placed[-1] > high:
        placed[-1] = high
        for i in range(len(placed) - 2, -1, -1):
            placed[i] = min(placed[i], placed[i + 1] - pixels)
    heights = [0.0] * len(wanted)
    for position, i in enumerate(order):
        heights[i] = placed[position]
    return heights


def averaged(seconds: Array, values: NDArray[np.generic], edges: Array) -> Array:
    """Means of what falls between each two edges; where nothing does, the value before, at first the one after."""
    numbers = np.asarray(values, dtype=np.float64)
    slot = np.searchsorted(edges, seconds, side="right") - 1
    inside = (slot >= 0) & (slot < len(edges) - 1)
    total = np.bincount(slot[inside], weights=numbers[inside], minlength=len(edges) - 1)
    count = np.bincount(slot[inside], minlength=len(edges) - 1)
    seen = np.flatnonzero(count > 0)
    if not len(seen):
        return np.zeros(len(count))
    last = np.maximum.accumulate(np.where(count > 0, np.arange(len(count)), seen[0]))
    return np.asarray((total / np.maximum(count, 1))[last])


def _hover(text: str) -> str:
    return f"<title>{escape(text)}</title>" if text else ""

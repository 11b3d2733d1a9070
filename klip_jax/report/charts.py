"""Small charts as inline SVG: axes, lines, bands, dots and bars, coloured by the page.

Marks carry names of classes and no colours, so that they follow light and dark. Every
text is escaped. Coordinates are those of a view box, a screen pixel on a phone each.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from markupsafe import Markup

LEFT, RIGHT, TOP, BOTTOM = 52.0, 8.0, 8.0, 36.0
"""Around the frame of a chart: numbers and names stand there."""


@dataclasses.dataclass(frozen=True)
class Chart:
    """A frame with two axes; marks are made in its units and then drawn together.

    Attributes:
      x, y: (low, high) of the axes.
      x_name, y_name: of them, with their units.
      size: (width, height) of the view box.
      log_x: whether x is logarithmic.
      left: room for the numbers or names of y.
    """

    x: tuple[float, float]
    y: tuple[float, float]
    x_name: str = ""
    y_name: str = ""
    size: tuple[float, float] = (360.0, 240.0)
    log_x: bool = False
    left: float = LEFT

    def line(self, x: Any, y: Any, kind: str) -> Markup:
        """Return a line through the points (x, y) that are finite."""
        return Markup('<path class="{}" d="{}"/>').format(kind, self._path(x, y))

    def band(self, x: Any, low: Any, high: Any, kind: str) -> Markup:
        """Return the area between `low` and `high`."""
        around = [*x, *reversed(list(x))], [*low, *reversed(list(high))]
        return Markup('<path class="{}" d="{}Z"/>').format(kind, self._path(*around))

    def dots(self, x: Any, y: Any, kind: str, radius: float = 2.2) -> Markup:
        """Return a dot a point: lines of no length, which are short to write."""
        places = zip(self._x(x), self._y(y), strict=True)
        path = "".join(
            f"M{a:.1f} {b:.1f}h0"
            for a, b in places
            if np.isfinite(a) and np.isfinite(b)
        )
        dot = Markup('<path class="dots {}" stroke-width="{}" d="{}"/>')
        return dot.format(kind, 2 * radius, path)

    def bar(self, x: tuple[float, float], y: tuple[float, float], kind: str) -> Markup:
        """Return a bar from (x[0], y[0]) to (x[1], y[1])."""
        (left, right), (low, high) = self._x(x), self._y(y)
        rectangle = Markup(
            '<rect class="{}" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}"/>'
        )
        return rectangle.format(
            kind, left, high, max(right - left, 0), max(low - high, 0)
        )

    def drawn(
        self,
        marks: Sequence[Markup],
        about: str,
        *,
        x_ticks: Sequence[float] = (),
        y_ticks: Sequence[float] | Sequence[str] = (),
    ) -> Markup:
        """Return the SVG.

        Args:
          marks: in the order in which they are drawn.
          about: what it shows, for those who do not see it.
          x_ticks: numbers; none: round ones are chosen.
          y_ticks: the same, or names of the rows 0, 1, ... from above.
        """
        width, height = self.size
        x_ticks = x_ticks or (log_ticks(self.x) if self.log_x else ticks(self.x))
        names: Sequence[Any] = y_ticks or ticks(self.y)
        rows = range(len(names)) if isinstance(names[0], str) else names
        right, base = width - RIGHT, height - BOTTOM
        parts = [
            Markup(
                '<svg class="chart" viewBox="0 0 {:g} {:g}" role="img" aria-label="{}">'
            ).format(width, height, about)
        ]
        for name, y in zip(names, self._y(list(rows)), strict=True):
            grid = Markup('<path class="grid" d="M{:.1f} {:.1f}H{:.1f}"/>')
            text = Markup('<text class="tick end" x="{:.1f}" y="{:.1f}">{}</text>')
            parts.append(grid.format(self.left, y, right))
            said = name if isinstance(name, str) else number(name)
            parts.append(text.format(self.left - 6, y + 3.5, said))
        for tick, x in zip(x_ticks, self._x(list(x_ticks)), strict=True):
            text = Markup('<text class="tick mid" x="{:.1f}" y="{:.1f}">{}</text>')
            parts.append(text.format(x, base + 14, number(tick)))
        parts += [
            Markup('<path class="axis" d="M{} {}H{}"/>').format(self.left, base, right)
        ]
        parts += list(marks)
        name = Markup('<text class="name mid" x="{:.1f}" y="{:.1f}">{}</text>')
        parts.append(name.format((self.left + right) / 2, height - 5, self.x_name))
        if self.y_name:
            middle = (TOP + base) / 2
            name = Markup(
                '<text class="name mid" transform="translate(10 {:.1f}) rotate(-90)">'
                "{}</text>"
            )
            parts.append(name.format(middle, self.y_name))
        return Markup("").join([*parts, Markup("</svg>")])

    def _path(self, x, y) -> str:
        points = zip(self._x(x), self._y(y), strict=True)
        places = [f"{a:.1f} {b:.1f}" for a, b in points if np.isfinite(a + b)]
        return f"M{'L'.join(places)}" if places else ""

    def _x(self, values):
        low, high = self.x
        values = np.asarray(values, np.float64)
        if self.log_x:
            low, high, values = math.log(low), math.log(high), np.log(values)
        share = (values - low) / ((high - low) or 1)
        return self.left + share * (self.size[0] - RIGHT - self.left)

    def _y(self, values):
        low, high = self.y
        share = (np.asarray(values, np.float64) - low) / ((high - low) or 1)
        return self.size[1] - BOTTOM - share * (self.size[1] - BOTTOM - TOP)


def ticks(limits: tuple[float, float], most: int = 5) -> list[float]:
    """Return at most `most` + 1 round numbers between the limits, of steps 1, 2, 5."""
    low, high = min(limits), max(limits)
    if not high > low:
        return [low]
    step = 10.0 ** math.floor(math.log10((high - low) / most))
    step *= next(k for k in (1, 2, 5, 10) if k * step >= (high - low) / most)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [float(f"{k * step:.12g}") for k in range(first, last + 1)]


def log_ticks(limits: tuple[float, float]) -> list[float]:
    """Return 1, 2 and 5 times the powers of ten between the limits."""
    low, high = limits
    tens = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    some = [float(f"{k}e{ten}") for ten in tens for k in (1, 2, 5)]
    return [t for t in some if low * (1 - 1e-9) <= t <= high * (1 + 1e-9)] or [low]


def number(value: float) -> str:
    """Return a tick as it is read, with a true minus."""
    return f"{value:g}".replace("-", "\N{MINUS SIGN}")

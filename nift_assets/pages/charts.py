"""Charts as SVG: points, lines and intervals over two axes, read as well on a phone as on paper.

A chart is 360 units wide, about a phone's width, so its letters are as large as the text around them. What would not
fit beside a point stands in the legend below, a line of its own for each name: nothing can overlap or be cut.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from markupsafe import Markup, escape

WIDTH, PLOT_HEIGHT = 360, 190
TOP, RIGHT, BOTTOM, LEGEND_LINE = 24, 14, 40, 17
# Of letters 11 units high; wider than nearly all of them, since nobody knows which font will be there.
LETTER = 6.6
MOST_LETTERS = 50
MOST_TICKS = 5
LINE = 14
COLOURS = 6

# Six colours that are told apart by the colour-blind, each with a shape of its own for who prints in black.
STYLE = (
    ".chart{display:block;width:100%;max-width:31rem;height:auto;font:11px system-ui,sans-serif;fill:currentColor}"
    ".chart .grid{stroke:currentColor;stroke-opacity:.16;stroke-width:.6}"
    ".chart .axis{stroke:currentColor;stroke-opacity:.55;stroke-width:.8}"
    ".chart .line{fill:none;stroke-width:1.6;stroke-linejoin:round}"
    ".chart .whisker{stroke:currentColor;stroke-width:1.2}"
    ".chart .hollow{fill:none;stroke-width:1.6}"
    + "".join(
        f".chart .s{n}{{stroke:{colour};color:{colour}}}.chart .s{n} .full{{fill:{colour};stroke:none}}"
        for n, colour in enumerate(("#3b78ad", "#d07812", "#23906b", "#b5566e", "#7d65c1", "#8a7a2c"))
    )
)


@dataclass(frozen=True, kw_only=True)
class Point:
    """A measurement at `x`: its value and, where it has one, its interval."""

    x: float
    y: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, kw_only=True)
class Series:
    """Points that belong together, called `name` in the legend; joined by a line, and hollow if they are not ours."""

    name: str
    points: Sequence[Point]
    joined: bool = True
    hollow: bool = False
    marked: bool = True


@dataclass(frozen=True, kw_only=True)
class Axis:
    """What an axis says, and whether equal factors rather than equal differences are equally long on it.

    It fits what is drawn, but never reaches beyond the scale from `least` to `limit`, where there is one: a rating from
    1 to 10 has no zero.
    """

    title: str
    log: bool = False
    least: float = -math.inf
    limit: float = math.inf
    ticks: Sequence[float] = field(default_factory=tuple)

    def place(self, value: float) -> float:
        """Where a value lies among the ticks: 0 at the first, 1 at the last."""
        low, high, here = (math.log10(v) if self.log else v for v in (self.ticks[0], self.ticks[-1], value))
        return (here - low) / (high - low)


@dataclass(frozen=True, kw_only=True)
class Dots:
    """Dots on scales, in groups: each group has one value for each of the names, or None where there is none."""

    title: str
    names: Sequence[str]
    groups: Mapping[str, Sequence[float | None]]
    least: float
    limit: float


def chart(series: Sequence[Series], x: Axis, y: Axis) -> Markup:
    """The SVG of the given series, or an empty text if none has a point. Axes begin and end at round numbers."""
    points = [point for line in series for point in line.points]
    if not points:
        return Markup("")
    x = _with_ticks(x, [point.x for point in points])
    y = _with_ticks(y, [v for p in points for v in (p.y, p.low, p.high) if v is not None])
    labels = [_label(tick) for tick in y.ticks]
    left = 6 + LETTER * max(map(len, labels))
    shown = [line for line in series if line.points]
    height = TOP + PLOT_HEIGHT + BOTTOM + LEGEND_LINE * len(shown)
    drawn = [
        *_axes(x, y, labels, left),
        *(_series(line, number, x, y, left) for number, line in enumerate(shown)),
        *(_legend(line, number, TOP + PLOT_HEIGHT + BOTTOM) for number, line in enumerate(shown)),
    ]
    return Markup('<svg class="chart" viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>').format(
        WIDTH, height, f"{y.title} by {x.title}", Markup("").join(drawn)
    )


def dots(drawn: Dots) -> Markup:
    """The SVG of dots in groups, each on a line that is the whole scale, or an empty text if there is none."""
    if not drawn.names or not drawn.groups:
        return Markup("")
    height, parts = TOP, [_text(0, 12, drawn.title)]
    for group, values in drawn.groups.items():
        parts.append(_text(0, height + 12, group))
        height += 18
        for number, value in enumerate(values):
            parts.append(_dot(number, height, value, drawn))
            height += LINE
        height += 6
    parts += [_legend(_named(name, n), n, height) for n, name in enumerate(drawn.names)]
    height += LEGEND_LINE * len(drawn.names) + 6
    return Markup('<svg class="chart" viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>').format(
        WIDTH, height, drawn.title, Markup("").join(parts)
    )


def as_image(svg: Markup, alt: str) -> str:
    """The chart as a Markdown image that holds the drawing itself, on white ground, so that nothing is loaded."""
    alone = (
        str(svg)
        .replace(
            '<svg class="chart"',
            '<svg xmlns="http://www.w3.org/2000/svg" class="chart" width="540" style="background:#fff;color:#1c1e21"',
            1,
        )
        .replace(">", f"><style>{STYLE}</style>", 1)
    )
    return f"![{alt}](data:image/svg+xml;base64,{base64.b64encode(alone.encode()).decode()})" if svg else ""


def ticks(low: float, high: float, *, log: bool = False) -> list[float]:
    """At most `MOST_TICKS` + 1 round numbers, the first at or below `low`, the last at or above `high`."""
    if log:
        return _log_ticks(low, high)
    if high - low <= 1e-9 * max(abs(low), abs(high)):
        low, high = low - (abs(low) or 1) / 2, high + (abs(high) or 1) / 2
    rough = (high - low) / MOST_TICKS
    power = 10.0 ** math.floor(math.log10(rough))
    for step in (step * power for step in (1, 2, 2.5, 5, 10, 20)):
        first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
        if last - first <= MOST_TICKS:
            break
    digits = 2 - math.floor(math.log10(step))
    return [round(number * step, digits) for number in range(first, last + 1)]


def _log_ticks(low: float, high: float) -> list[float]:
    first, last = math.floor(math.log10(low) + 1e-9), math.ceil(math.log10(high) - 1e-9)
    if last - first > 1:
        every = -(-(last - first) // MOST_TICKS)
        return [10.0**power for power in range(first, last + every, every)]
    steps = [number * 10.0**power for power in range(first, last + 1) for number in (1, 2, 5)]
    below = max((step for step in steps if step <= low * (1 + 1e-9)), default=steps[0])
    above = min((step for step in steps if step >= high * (1 - 1e-9)), default=steps[-1])
    if below == above:
        below, above = below / 2, above * 2
    ticks_ = [below, *(step for step in steps if below < step < above), above]
    return ticks_ if len(ticks_) <= MOST_TICKS + 1 else [below, *ticks_[2:-1:2], above]


def _with_ticks(axis: Axis, values: Sequence[float]) -> Axis:
    fitting = ticks(min(values), max(values), log=axis.log)
    within = sorted({min(max(tick, axis.least), axis.limit) for tick in fitting})
    return replace(axis, ticks=within if within[0] <= min(values) and max(values) <= within[-1] else fitting)


def _axes(x: Axis, y: Axis, labels: Sequence[str], left: float) -> list[Markup]:
    right, bottom = WIDTH - RIGHT, TOP + PLOT_HEIGHT
    drawn = [_text(0, 12, y.title)]
    for tick, label in zip(y.ticks, labels, strict=True):
        height = bottom - PLOT_HEIGHT * y.place(tick)
        drawn += [_line("grid", left, height, right, height), _text(left - 5, height + 4, label, "end")]
    for tick in x.ticks:
        across = left + (right - left) * x.place(tick)
        ends = {x.ticks[0]: "start", x.ticks[-1]: "end"} if len(_label(tick)) > 3 else {}
        drawn += [
            _line("axis", across, bottom, across, bottom + 4),
            _text(across, bottom + 16, _label(tick), ends.get(tick, "middle")),
        ]
    return [*drawn, _line("axis", left, bottom, right, bottom), _text(right, bottom + 32, x.title, "end")]


def _series(series: Series, number: int, x: Axis, y: Axis, left: float) -> Markup:
    def at(point: Point, value: float) -> tuple[float, float]:
        across = left + (WIDTH - RIGHT - left) * x.place(point.x)
        return across, TOP + PLOT_HEIGHT * (1 - y.place(value))

    points = sorted(series.points, key=lambda point: point.x)
    drawn = [Markup("")]
    if series.joined and len(points) > 1:
        path = " ".join("{:.1f},{:.1f}".format(*at(point, point.y)) for point in points)
        drawn.append(Markup('<polyline class="line" points="{}"/>').format(path))
    for point in points:
        if point.low is not None and point.high is not None:
            (across, lower), (_, upper) = at(point, point.low), at(point, point.high)
            drawn += [
                _line("whisker", across, lower, across, upper),
                _line("whisker", across - 3, lower, across + 3, lower),
                _line("whisker", across - 3, upper, across + 3, upper),
            ]
        if series.marked:
            drawn.append(_marker(number, *at(point, point.y), series.hollow))
    return Markup('<g class="s{}">{}</g>').format(number % COLOURS, Markup("").join(drawn))


def _legend(series: Series, number: int, top: float) -> Markup:
    height = top + LEGEND_LINE * number + 6
    mark = _marker(number, 6, height, series.hollow) if series.marked else _line("line", 0, height, 12, height)
    return Markup('<g class="s{}">{}</g>{}').format(
        number % COLOURS, mark, _text(18, height + 4, _shortened(series.name))
    )


def _dot(number: int, top: float, value: float | None, drawn: Dots) -> Markup:
    """A value on its scale with its number behind it; of one that is not there a dash."""
    middle, right = top + LINE / 2, WIDTH - 40
    label = "–" if value is None else f"{value:.2f}"
    parts = [_line("grid", 5, middle, right, middle), _text(right + 8, middle + 4, label)]
    if value is not None:
        share = max(0.0, min(1.0, (value - drawn.least) / (drawn.limit - drawn.least)))
        mark = _marker(number, 5 + (right - 5) * share, middle, _named("", number).hollow)
        parts.append(Markup('<g class="s{}">{}</g>').format(number % COLOURS, mark))
    return Markup("").join(parts)


def _named(name: str, number: int) -> Series:
    """What stands in the legend for one of many: with more names than colours each second round is hollow."""
    return Series(name=name, points=(), hollow=number // COLOURS % 2 == 1)


def _marker(number: int, x: float, y: float, hollow: bool) -> Markup:
    shapes = (
        "M{x},{t}a4,4 0 1 0 .01,0z",
        "M{l},{t}h8v8h-8z",
        "M{x},{t}l4.6,8h-9.2z",
        "M{x},{t}l5,4 -5,4 -5,-4z",
        "M{x},{b}l-4.6,-8h9.2z",
        "M{l},{t}l8,8m0,-8l-8,8",
    )
    shape = (number + number // COLOURS) % len(shapes)
    path = shapes[shape].format(
        **{name: f"{v:.1f}" for name, v in {"x": x, "t": y - 4, "b": y + 4, "l": x - 4}.items()}
    )
    return Markup('<path class="{}" d="{}"/>').format("hollow" if hollow or shape == len(shapes) - 1 else "full", path)


def _line(kind: str, x1: float, y1: float, x2: float, y2: float) -> Markup:
    numbers = (f"{value:.1f}" for value in (x1, y1, x2, y2))
    return Markup('<line class="{}" x1="{}" y1="{}" x2="{}" y2="{}"/>').format(kind, *numbers)


def _text(x: float, y: float, text: str, anchor: str = "start") -> Markup:
    return Markup('<text x="{:.1f}" y="{:.1f}" text-anchor="{}">{}</text>').format(x, y, anchor, escape(text))


def _label(value: float) -> str:
    """A tick as people write it: 80k, 1.5M, 0.02."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:g}{letter}".replace("-", "−")
    return f"{value:g}".replace("-", "−")


def _shortened(name: str) -> str:
    """A name without its middle if it would run out of the picture."""
    if len(name) <= MOST_LETTERS:
        return name
    return f"{name[: MOST_LETTERS // 2]}…{name[-MOST_LETTERS // 2 + 1 :]}"

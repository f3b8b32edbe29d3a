"""Pictures: what is drawn of which table, for the metadata of an asset and for the report.

A PNG shrunk to the width of a phone cannot be read, so on a page everything is SVG: charts, and bars that take width
and colour from the page around them, beside words in HTML.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Mapping, Sequence
from statistics import mean
from typing import TYPE_CHECKING, Any

import polars as pl
from markupsafe import Markup

from nift_assets.pages import charts
from nift_assets.pages.charts import Axis, Dots, Point, Series

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BAR_HEIGHT = 12
DOT_HEIGHT = 18
MOST_POINTS = 200
# From this ratio of the largest to the smallest on, equal factors are equally far apart.
WIDE = 4
MOST_CURVES = 6
MT_BENCH = Axis(title="MT-Bench, on its scale from 1 to 10", least=1, limit=10)
MOST_DOTS = 12


def funnel(steps: pl.DataFrame) -> bytes:
    """A PNG with a panel per teacher: how many documents are left at each step that drops any may."""
    import matplotlib.style
    from matplotlib.figure import Figure

    teachers = steps["teacher"].unique(maintain_order=True).to_list()
    across = min(len(teachers), 3)
    down = -(-len(teachers) // across)
    most = steps.group_by("teacher").len()["len"].to_list()
    with matplotlib.style.context("default"):
        figure = Figure(figsize=(3.4 * across, (0.22 * max(most) + 0.5) * down), dpi=80, layout="constrained")
        panels = figure.subplots(down, across, squeeze=False).flatten()
        for panel, teacher in zip(panels, teachers, strict=False):
            shown = steps.filter((pl.col("teacher") == teacher) & pl.col("drops"))
            bars = panel.barh(shown["step"].to_list(), shown["kept"].to_list(), color="#2b5f8f", height=0.7)
            panel.bar_label(bars, labels=[f"{kept:,}" for kept in shown["kept"]], padding=2, fontsize=7)
            panel.set_title(teacher, loc="left", fontsize=9)
            panel.tick_params(labelsize=7, length=0)
            panel.set_xticks([])
            panel.margins(x=0.2)
            panel.invert_yaxis()
            panel.spines[["top", "right", "bottom"]].set_visible(False)
        for panel in panels[len(teachers) :]:
            panel.set_visible(False)
        return _small_png(figure)


def figure_2(rows: pl.DataFrame) -> Markup:
    """A chart of the score by the pairs trained on, ours with its interval and the paper's, of each teacher's sets."""
    series: list[Series] = []
    for (backbone, teacher), sets in rows.group_by("backbone", "teacher", maintain_order=True):
        name = f"{backbone}, {teacher}"
        series.append(Series(name=name, points=_points(sets, "pairs", "score", low="low", high="high")))
        series.append(Series(name=f"{name}: the paper's", points=_points(sets, "pairs", "paper"), hollow=True))
    return charts.chart(series, _axis("pairs trained on", series), MT_BENCH)


def cost_against_score(rows: pl.DataFrame) -> Markup:
    """A chart of MT-Bench by what the pairs cost, a point per model; in tokens where none of them cost money."""
    paid = bool((rows["usd"].fill_null(0) > 0).any())
    cost, title = ("usd", "US dollars paid to the teacher") if paid else ("teacher_tokens", "the teacher's tokens")
    series = [
        Series(
            name=str(teacher),
            points=_points(models, cost, "mt_bench", low="mt_bench_low", high="mt_bench_high"),
            joined=False,
        )
        for (teacher,), models in rows.filter(pl.col("teacher").is_not_null()).group_by("teacher", maintain_order=True)
    ]
    return charts.chart(series, _axis(title, series), MT_BENCH)


def mt_bench_categories(rows: pl.DataFrame) -> Markup:
    """Dots of MT-Bench's mean rating by category, one for each of the first `MOST_DOTS` models."""
    models = rows["model"].unique(maintain_order=True).to_list()[:MOST_DOTS]
    ratings = {(row["model"], row["category"]): row["rating"] for row in rows.iter_rows(named=True)}
    groups = {
        category: [ratings.get((model, category)) for model in models]
        for category in rows["category"].unique(maintain_order=True).to_list()
    }
    return charts.dots(
        Dots(
            title="MT-Bench by category: each line is the scale, 1 to 10",
            names=models,
            groups=groups,
            least=1,
            limit=10,
        )
    )


def loss_curves(losses: Mapping[str, Sequence[tuple[int, float]]]) -> list[Markup]:
    """Charts of the loss per step, `MOST_CURVES` adapters in each; of many steps a point is the mean of some."""
    names = list(losses)
    return [
        charts.chart(
            [
                Series(name=name, points=_thinned(losses[name]), marked=False)
                for name in names[first : first + MOST_CURVES]
            ],
            Axis(title="step"),
            Axis(title="loss per token of the response"),
        )
        for first in range(0, len(names), MOST_CURVES)
    ]


def as_markdown(picture: bytes | Markup, alt: str) -> str:
    """A Markdown image that holds the picture itself, so that nothing is loaded; `alt` must be ours, not data."""
    if isinstance(picture, Markup):
        return charts.as_image(picture, alt)
    return f"![{alt}](data:image/png;base64,{base64.b64encode(picture).decode()})"


def bar(value: float, limit: float) -> str:
    """An SVG bar as long as `value` is of `limit`, on a track of the full width."""
    return _svg(f'<rect class="bar" width="{_percent(value, limit)}" height="{BAR_HEIGHT}" rx="2"/>')


def dot(
    value: float | None,
    least: float,
    limit: float,
    *,
    low: float | None = None,
    high: float | None = None,
    paper: float | None = None,
) -> str:
    """An SVG dot on a scale from `least` to `limit`, with a line from `low` to `high` and a diamond for the paper's."""
    middle = DOT_HEIGHT // 2
    drawn = [f'<line class="rule" x1="{x}" x2="{x}" y1="0" y2="{DOT_HEIGHT}"/>' for x in _ticks(least, limit).values()]
    if low is not None and high is not None:
        left, right = _at(low, least, limit), _at(high, least, limit)
        drawn.append(f'<line class="whisker" x1="{left}" x2="{right}" y1="{middle}" y2="{middle}"/>')
    if paper is not None:
        drawn.append(
            f'<svg class="mark-of-paper" x="{_at(paper, least, limit)}" overflow="visible">'
            f'<path class="diamond" d="M0 {middle - 6}l5 6-5 6-5-6z"/></svg>'
        )
    if value is not None:
        drawn.append(f'<circle class="dot" cx="{_at(value, least, limit)}" cy="{middle}" r="4.5"/>')
    return f'<svg class="dots" aria-hidden="true" width="100%" height="{DOT_HEIGHT}">{"".join(drawn)}</svg>'


def scale(least: float, limit: float) -> str:
    """The SVG of the numbers above such dots."""
    anchors = dict(zip(_ticks(least, limit), ("start", *["middle"] * 3, "end"), strict=False))
    labels = "".join(
        f'<text x="{x}" y="12" text-anchor="{"end" if tick == limit else anchors[tick]}">{tick:g}</text>'
        for tick, x in _ticks(least, limit).items()
    )
    return f'<svg class="scale" aria-hidden="true" width="100%" height="16">{labels}</svg>'


def _ticks(least: float, limit: float) -> dict[float, str]:
    """Round places on a scale with where they lie: thirds of one to ten, quarters of a hundred."""
    parts = 3 if (limit - least) % 3 == 0 else 4
    ticks = [least + (limit - least) * part / parts for part in range(parts + 1)]
    return {tick: _at(tick, least, limit) for tick in ticks}


def _at(value: float, least: float, limit: float) -> str:
    return _percent(value - least, limit - least)


def _small_png(figure: Figure) -> bytes:
    from PIL import Image

    drawn, png = io.BytesIO(), io.BytesIO()
    figure.savefig(drawn, format="png")
    # The event log keeps every picture: in 16 colours even pure noise takes less than 30 kB, in all of them 60.
    picture = Image.open(drawn).convert("RGB").quantize(16, dither=Image.Dither.NONE)
    picture.save(png, "PNG", optimize=True)
    return png.getvalue()


def _svg(drawn: str) -> str:
    # The numbers stand beside every bar, so a screen reader has nothing to gain from it.
    track = f'<rect class="track" width="100%" height="{BAR_HEIGHT}" rx="2"/>'
    return f'<svg aria-hidden="true" width="100%" height="{BAR_HEIGHT}">{track}{drawn}</svg>'


def _percent(value: float, limit: float) -> str:
    share = value / limit if limit else 0.0
    return f"{100 * min(max(share, 0.0), 1.0):.2f}%"


def _points(rows: pl.DataFrame, x: str, y: str, *, low: str | None = None, high: str | None = None) -> list[Point]:
    def value(row: Mapping[str, Any], column: str | None) -> Any:
        return row[column] if column else None

    return [
        Point(x=row[x], y=row[y], low=value(row, low), high=value(row, high))
        for row in rows.drop_nulls([x, y]).iter_rows(named=True)
    ]


def _axis(title: str, series: Iterable[Series]) -> Axis:
    values = [point.x for line in series for point in line.points]
    return Axis(title=title, log=bool(values) and min(values) > 0 and max(values) >= WIDE * min(values))


def _thinned(losses: Sequence[tuple[int, float]]) -> list[Point]:
    width = -(-len(losses) // MOST_POINTS) or 1
    parts = [losses[start : start + width] for start in range(0, len(losses), width)]
    return [Point(x=part[0][0], y=mean(loss for _, loss in part)) for part in parts]

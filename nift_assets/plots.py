"""Pictures: a PNG for the metadata of an asset, and bars of SVG that take width and colour from the page around them.

A PNG shrunk to the width of a phone cannot be read, so on a page the words are HTML and only the bars are drawn.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from statistics import mean
from typing import TYPE_CHECKING

import polars as pl

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BAR_HEIGHT = 12
MOST_POINTS = 200
FEW_POINTS = 60


def loss_curve(steps: Sequence[int], losses: Sequence[float]) -> bytes:
    """A PNG of the loss per step, the same bytes for the same numbers; its white ground can be read in any theme.

    Of a long run each point is the mean of as many steps as keep the points below `MOST_POINTS`: more would be a band.
    """
    import matplotlib.style
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    width = -(-len(steps) // MOST_POINTS)
    starts = range(0, len(steps), width)
    with matplotlib.style.context("default"):
        figure = Figure(figsize=(6, 2.6), dpi=100, layout="constrained")
        axes = figure.add_subplot()
        axes.plot(
            [mean(steps[start : start + width]) for start in starts],
            [mean(losses[start : start + width]) for start in starts],
            color="#2b5f8f",
            linewidth=1.4,
            marker="o" if len(starts) <= FEW_POINTS else "",
            markersize=3,
        )
        axes.set_xlabel("step" if width == 1 else f"step (each point the mean of {width})")
        axes.set_ylabel("loss")
        axes.set_title(f"first {losses[0]:.3f}, last {losses[-1]:.3f}", loc="left", fontsize=10)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(axis="y", color="#dddddd", linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
        return _small_png(figure)


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


def as_markdown(png: bytes, alt: str) -> str:
    """A Markdown image that holds the PNG itself, so that nothing is loaded; `alt` must be words of ours, not data."""
    return f"![{alt}](data:image/png;base64,{base64.b64encode(png).decode()})"


def bar(value: float, limit: float) -> str:
    """An SVG bar as long as `value` is of `limit`, on a track of the full width."""
    return _svg(f'<rect class="bar" width="{_percent(value, limit)}" height="{BAR_HEIGHT}" rx="2"/>')


def interval_bar(value: float, low: float | None, high: float | None, limit: float) -> str:
    """An SVG bar with a whisker from `low` to `high`, where there is an interval."""
    drawn = f'<rect class="bar" width="{_percent(value, limit)}" height="{BAR_HEIGHT}" rx="2"/>'
    if low is None or high is None:
        return _svg(drawn)
    left, right, middle = _percent(low, limit), _percent(high, limit), BAR_HEIGHT // 2
    return _svg(
        drawn
        + f'<line class="whisker" x1="{left}" x2="{right}" y1="{middle}" y2="{middle}"/>'
        + "".join(f'<line class="whisker" x1="{x}" x2="{x}" y1="2" y2="{BAR_HEIGHT - 2}"/>' for x in (left, right))
    )


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

"""Pictures: small, the same for the same numbers, and never longer than their track."""

import base64
import math
import re

import polars as pl
import pytest

from nift_assets.pages import plots


@pytest.mark.parametrize("steps", [1, 2, 12, 199, 1_875, 30_000])
def test_a_loss_curve_is_small_and_the_same_every_time(steps: int) -> None:
    losses = [(step + 1, 2 + math.sin(step * step)) for step in range(steps)]
    (curve,) = plots.loss_curves({"adapter": losses})
    assert len(curve) < 30_000
    assert [curve] == plots.loss_curves({"adapter": losses})


def test_a_picture_in_markdown_holds_its_own_bytes() -> None:
    text = plots.as_markdown(b"\x89PNG", "loss per step")
    head, _, content = text.partition(",")
    assert head == "![loss per step](data:image/png;base64"
    assert base64.b64decode(content.removesuffix(")")) == b"\x89PNG"


@pytest.mark.parametrize(
    ("value", "limit", "width"),
    [(0, 10, "0.00%"), (2.5, 10, "25.00%"), (11, 10, "100.00%"), (-1, 10, "0.00%"), (0, 0, "0.00%")],
)
def test_a_bar_is_as_long_as_its_share_and_stays_on_its_track(value: float, limit: float, width: str) -> None:
    assert f'class="bar" width="{width}"' in plots.bar(value, limit)


def test_a_dot_stands_on_the_scale_of_its_benchmark_with_its_interval_and_the_papers_number() -> None:
    drawn = plots.dot(5.5, 1, 10, low=4, high=10, paper=1)
    assert 'cx="50.00%"' in drawn
    assert 'class="whisker" x1="33.33%" x2="100.00%"' in drawn
    assert 'class="mark-of-paper" x="0.00%"' in drawn
    assert not {"whisker", "diamond", "circle"} & set(re.findall(r"\w+", plots.dot(None, 1, 10)))


def test_a_scale_begins_and_ends_where_its_benchmark_does() -> None:
    assert re.findall(r">(\d+)<", plots.scale(1, 10)) == ["1", "4", "7", "10"]
    assert re.findall(r">(\d+)<", plots.scale(0, 100)) == ["0", "25", "50", "75", "100"]


def test_a_funnel_is_a_small_png_with_a_panel_per_teacher_however_many_there_are() -> None:
    for teachers in (1, 2, 11):
        steps = pl.DataFrame(
            [
                {"teacher": f"teacher-{n}", "place": place, "step": step, "drops": step != "reports", "kept": kept}
                for n in range(teachers)
                for place, (step, kept) in enumerate([("sampled", 80_000), ("reports", 9), ("kept", 73_000)], start=1)
            ]
        )
        png = plots.funnel(steps)
        assert png.startswith(b"\x89PNG")
        assert len(png) < 60_000
        assert plots.funnel(steps) == png

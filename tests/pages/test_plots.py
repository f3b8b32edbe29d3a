"""Pictures: small, the same for the same numbers, and never longer than their track."""

import base64
import math

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


def test_a_whisker_reaches_from_low_to_high() -> None:
    drawn = plots.interval_bar(5, 4, 7.5, 10)
    assert 'x1="40.00%" x2="75.00%"' in drawn
    assert "whisker" not in plots.interval_bar(5, None, None, 10)


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

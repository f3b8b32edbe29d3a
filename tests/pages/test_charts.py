"""Charts: every mark and every letter in the picture, round numbers at the ends, and text that stays text."""

from __future__ import annotations

import base64
import xml.etree.ElementTree as ET
from itertools import pairwise

import polars as pl
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from nift_assets.pages import charts, plots
from nift_assets.pages.charts import Axis, Dots, Point, Series
from tests.page_reader import PAYLOADS, Reading

NUMBERS = st.floats(1e-3, 1e7)


def parsed(svg: str) -> ET.Element:
    return ET.fromstring(svg)


def texts(root: ET.Element) -> list[ET.Element]:
    return [element for element in root.iter() if element.tag.rpartition("}")[2] == "text"]


def extent(text: ET.Element) -> tuple[float, float]:
    """Where a text begins and ends, if its letters are as wide as is reckoned with."""
    x, width = float(text.attrib["x"]), charts.LETTER * len(text.text or "")
    return {"start": (x, x + width), "middle": (x - width / 2, x + width / 2), "end": (x - width, x)}[
        text.attrib["text-anchor"]
    ]


@settings(max_examples=60)
@given(st.lists(st.tuples(NUMBERS, NUMBERS, NUMBERS), min_size=1, max_size=12), st.booleans(), st.booleans())
def test_whatever_is_drawn_lies_in_the_picture_and_no_label_on_another(
    values: list[tuple[float, float, float]], log_x: bool, log_y: bool
) -> None:
    points = [Point(x=x, y=y, low=y - min(y / 2, more), high=y + more) for x, y, more in values]
    series = [Series(name="ours", points=points), Series(name="n" * 90, points=points[:1], hollow=True, joined=False)]
    root = parsed(charts.chart(series, Axis(title="pairs", log=log_x), Axis(title="score", log=log_y)))
    _, _, width, height = map(float, root.attrib["viewBox"].split())
    for line in root.iter("line"):
        assert all(-0.1 <= float(line.attrib[side]) <= width + 0.1 for side in ("x1", "x2"))
        assert all(-0.1 <= float(line.attrib[side]) <= height + 0.1 for side in ("y1", "y2"))
    by_line: dict[str, list[tuple[float, float]]] = {}
    for text in texts(root):
        left, right = extent(text)
        assert left >= -0.1
        assert right <= width + charts.LETTER, (text.text, right)
        by_line.setdefault(text.attrib["y"], []).append((left, right))
    for places in by_line.values():
        ordered = sorted(places)
        assert all(before[1] <= after[0] for before, after in pairwise(ordered)), ordered


@settings(max_examples=200)
@given(NUMBERS, NUMBERS, st.booleans())
@example(0.001, 0.0010000000000000002, False)
@example(0.0, 1e-13, False)
def test_ticks_are_few_and_hold_what_is_shown(one: float, other: float, log: bool) -> None:
    low, high = sorted((one, other))
    found = charts.ticks(low, high, log=log)
    assert 2 <= len(found) <= charts.MOST_TICKS + 1
    assert found == sorted(set(found))
    assert found[0] <= low * (1 + 1e-6)
    assert found[-1] >= high * (1 - 1e-6)


@pytest.mark.parametrize(
    ("low", "high", "log", "expected"),
    [
        (0, 10, False, [0, 2, 4, 6, 8, 10]),
        (0.3, 9.7, False, [0, 2, 4, 6, 8, 10]),
        (6.2, 7.3, False, [6, 6.5, 7, 7.5]),
        (1_000, 80_000, True, [1_000, 10_000, 100_000]),
        (12, 66, True, [10, 20, 50, 100]),
        (0.02, 4e6, True, [1e-2, 1, 1e2, 1e4, 1e6, 1e8]),
    ],
)
def test_ticks_are_round(low: float, high: float, log: bool, expected: list[float]) -> None:
    assert charts.ticks(low, high, log=log) == pytest.approx(expected)


@pytest.mark.parametrize("payload", PAYLOADS)
def test_a_name_stays_text(payload: str) -> None:
    def drawn(name: str) -> str:
        return charts.chart([Series(name=name, points=[Point(x=1, y=1)])], Axis(title="x"), Axis(title="y"))

    page, harmless = Reading(drawn(payload)), Reading(drawn("harmless"))
    assert [tag for tag, _ in page.tags] == [tag for tag, _ in harmless.tags]
    assert {name for _, found in page.tags for name, _ in found} == {name for _, f in harmless.tags for name, _ in f}


def test_nothing_to_show_is_no_picture() -> None:
    assert charts.chart([Series(name="none", points=[])], Axis(title="x"), Axis(title="y")) == ""
    nothing = charts.dots(Dots(title="t", names=[], groups={}, least=1, limit=10))
    assert nothing == ""
    assert plots.as_markdown(nothing, "none") == ""


def test_a_chart_in_markdown_is_an_image_that_stands_alone() -> None:
    drawn = plots.figure_2(
        pl.DataFrame(
            {
                "backbone": ["m", "m"],
                "teacher": ["gpt", "gpt"],
                "pairs": [1_000, 80_000],
                "score": [6.0, 7.0],
                "low": [5.5, 6.5],
                "high": [6.5, 7.5],
                "paper": [None, 7.29],
            }
        )
    )
    text = plots.as_markdown(drawn, "figure 2")
    head, _, content = text.partition(",")
    assert head == "![figure 2](data:image/svg+xml;base64"
    root = parsed(base64.b64decode(content.removesuffix(")")).decode())
    assert root.attrib["width"] == "540"
    assert [text.text for text in texts(root)][-2:] == ["m, gpt", "m, gpt: the paper's"]


def test_cost_is_in_tokens_where_nothing_costs_money() -> None:
    rows = {
        "teacher": ["a", "b", None],
        "usd": [0.0, 0.0, None],
        "teacher_tokens": [100, 900, None],
        "mt_bench": [4.0, 5.0, 6.0],
        "mt_bench_low": [3.0, 4.0, 5.0],
        "mt_bench_high": [5.0, 6.0, 7.0],
    }
    assert "the teacher's tokens" in str(plots.cost_against_score(pl.DataFrame(rows))).replace("&#39;", "'")
    assert "US dollars" in plots.cost_against_score(pl.DataFrame(rows | {"usd": [0.0, 2.5, None]}))


def test_a_dot_lies_on_its_scale_and_a_missing_one_is_a_dash() -> None:
    root = parsed(charts.dots(Dots(title="t", names=["a", "b"], groups={"g": [5.5, None]}, least=1, limit=10)))
    line, _ = root.iter("line")
    left, right = float(line.attrib["x1"]), float(line.attrib["x2"])
    dot, *legend = [path.attrib["d"] for path in root.iter("path")]
    assert dot.startswith(f"M{(left + right) / 2:.1f},")
    assert len(legend) == 2
    assert [text.text for text in texts(root)] == ["t", "g", "5.50", "–", "a", "b"]


@pytest.mark.parametrize(
    ("low", "high", "expected"), [(1.2, 9.7, ["1", "2", "4", "6", "8", "10"]), (6.2, 7.3, ["6", "6.5", "7", "7.5"])]
)
def test_an_axis_fits_what_is_drawn_and_ends_with_its_scale(low: float, high: float, expected: list[str]) -> None:
    drawn = charts.chart(
        [Series(name="ours", points=[Point(x=0, y=low), Point(x=1, y=high)])], Axis(title="x"), plots.MT_BENCH
    )
    labels = [text.text for text in texts(parsed(drawn)) if text.attrib["text-anchor"] == "end"]
    assert labels[: len(expected)] == expected


def test_many_losses_are_drawn_by_their_means_and_many_adapters_in_several_charts() -> None:
    losses = {f"adapter-{n}": [(step, 1 / step) for step in range(1, 3_517)] for n in range(7)}
    first, second = plots.loss_curves(losses)
    assert len(first) < 30_000
    assert first.count("<polyline") == 6
    assert second.count("<polyline") == 1
    assert plots.loss_curves({}) == []

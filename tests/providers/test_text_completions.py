"""A served base model: the first half alone is sent, its continuation is kept, other rows are refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from nift_assets import providers
from nift_assets.ledger import door
from nift_assets.ledger.book import Asker, Book
from nift_assets.prompts import completions
from nift_assets.rows import Limits, Teacher
from tests.ledger.scripted import Reply, serving

HALVES = pl.DataFrame(
    {
        "document_id": ["d", "e"],
        "sample_rank": [1, 2],
        "first_half": ["The bridge", "The mill"],
        "second_half": [" fell.", " burnt."],
    }
)
TEACHER = Teacher(
    name="served-base", provider="text_completions", model="m/base", base_url="http://127.0.0.1:1/v1", max_tokens=64
)


def reply(text: str, number: int) -> Reply:
    """What vLLM goes on with; it comes to its limit in the text about the mill."""
    ended = "length" if "mill" in text else "stop"
    return 200, {
        "object": "text_completion",
        "model": "m/base",
        "choices": [{"index": 0, "text": " stood for a year.", "finish_reason": ended}],
        "usage": {"prompt_tokens": 2, "completion_tokens": 5},
    }


def test_a_text_goes_out_bare_and_its_continuation_comes_back_once(tmp_path: Path) -> None:
    with serving(reply) as server:
        teacher = replace(TEACHER, base_url=f"{server.url}/v1", limits=Limits(backoff_seconds=0.05))
        requests = completions.requests(teacher, HALVES)
        book, asker = Book(f"sqlite:///{tmp_path}/ledger.sqlite"), Asker(study="s", who=teacher.name, writer="w")
        for _ in range(2):
            asked = door.ask(book, asker, requests, providers.load(teacher.provider).connect(teacher, None))
    rows = completions.rows(teacher, HALVES, requests, asked.answers)
    assert rows.select("status", "completion", "input_tokens", "output_tokens").rows() == [
        ("ok", " stood for a year.", 2, 5),
        ("truncated", " stood for a year.", 2, 5),
    ]
    assert server.asked == {"The bridge": 1, "The mill": 1}
    assert {path for path, _ in server.bodies} == {"/v1/completions"}
    assert all(body["max_tokens"] == 64 and "messages" not in body for _, body in server.bodies)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"base_url": None}, "name the server in base_url"),
        ({"system_prompt": "Go on."}, "a base model has no system prompt"),
        ({"max_tokens": None}, "often 16 tokens; set max_tokens"),
    ],
)
def test_a_row_without_a_place_in_the_protocol_is_refused(change: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        providers.load(TEACHER.provider).check(replace(TEACHER, **change))


@pytest.mark.parametrize(
    "choice", [{"finish_reason": "stop"}, {"text": "so on"}, {"text": "so on", "finish_reason": None}]
)
def test_half_a_response_is_no_answer(choice: dict[str, Any]) -> None:
    with pytest.raises((KeyError, ValueError)):
        providers.load(TEACHER.provider).read({"choices": [choice]})

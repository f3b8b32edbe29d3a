"""Whatever is done to a file of answers, judgments, responses or results, it is scored or refused in one line."""

from __future__ import annotations

import copy
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from expectations import contract
from nift_assets import studies
from nift_assets.benchmarks import mt_bench, open_llm_leaderboard
from nift_assets.benchmarks.scoring import answers, games, instructions
from tests.counting import Counts

SINGLE = {"question_id": 81, "model": "m", "judge": ["gpt-4", "single-v1"], "score": 8, "turn": 1, "judgment": "[[8]]"}
ANSWER = {"question_id": 81, "model_id": "m", "choices": [{"index": 0, "turns": ["One.", "Two."]}], "tstamp": 1.5}
GAMES = [{"user_prompt": "?", "judgment": "[[A>>B]]", "score": "A>>B"}, {"user_prompt": "?", "score": "B>A"}]
BATTLE = {"question_id": "q", "model": "m", "judge": "gpt-4", "games": GAMES}
V2 = {
    "uid": "q",
    "category": "hard_prompt",
    "judge": "gpt-4.1",
    "model": "m",
    "games": [{"score": "A>B"}, {"score": "A=B"}],
}
RESPONSE = {"prompt": "Say yes.", "response": "Yes."}
RESULTS = {
    "results": {"arc_challenge": {"acc_norm,none": 0.5, "alias": "arc"}, "gsm8k": {"exact_match,strict-match": 0.3}},
    "config": {"model": "hf", "model_args": "pretrained=org/m", "limit": None},
    "n-shot": {"arc_challenge": 25, "gsm8k": 5},
    "configs": {"gsm8k": {"num_fewshot": 5}},
}
Reader = Callable[[list[Path]], object]
READERS: dict[str, tuple[list[dict[str, Any]], str, Reader]] = {
    "MT-Bench judgments": (
        [SINGLE, {**SINGLE, "turn": 2}],
        "j.jsonl",
        lambda paths: mt_bench.of_files(mt_bench.judged_in(paths)),
    ),
    "Arena-Hard judgments": (
        [BATTLE, V2],
        "j.jsonl",
        lambda paths: games.of_files("arena_hard", games.judged_in(paths), baseline="gpt-4", number=500),
    ),
    "answers": ([ANSWER, {**ANSWER, "question_id": 82}], "a.jsonl", lambda paths: list(answers.read(paths))),
    "responses": ([RESPONSE, {**RESPONSE, "prompt": "Say no."}], "r.jsonl", instructions.responses),
    "leaderboard results": (
        [RESULTS],
        "results.json",
        lambda paths: open_llm_leaderboard.of_files(open_llm_leaderboard.results_in(paths)),
    ),
}
VALUES: list[Any] = [
    None,
    "",
    [],
    {},
    "8",
    -1,
    1e300,
    True,
    [None],
    {"a": None},
    "x" * 2_000,
    float("nan"),
    [[1]],
    "\ud800",
]
TRIED: Counter[str] = Counter()


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in a nest of lists and objects but the whole."""
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [found for key, below in inside for found in [(*path, key), *places(below, (*path, key))]]


def changed(rows: list[Any], place: tuple[Any, ...], how: str, value: Any) -> list[Any]:
    """The rows with one place dropped, doubled or given another value."""
    rows = copy.deepcopy(rows)
    *before, last = place
    holder: Any = rows
    for key in before:
        holder = holder[key]
    if how == "drop":
        del holder[last]
    elif how == "double" and isinstance(holder, list):
        holder.insert(last, holder[last])
    else:
        holder[last] = value
    return rows


@pytest.mark.parametrize("name", READERS)
@settings(max_examples=150)
@given(data=st.data())
def test_a_mutated_file_is_read_or_refused_in_a_line(
    name: str, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    rows, file, read = READERS[name]
    how = data.draw(st.sampled_from(["drop", "double", "value", "value"]))
    mutated = changed(rows, data.draw(st.sampled_from(places(rows))), how, data.draw(st.sampled_from(VALUES)))
    text = (
        json.dumps(mutated[0] if mutated else None) if file.endswith(".json") else "\n".join(map(json.dumps, mutated))
    )
    if data.draw(st.integers(0, 9)) == 0:
        text = text[: data.draw(st.integers(0, len(text)))]
    path = tmp_path_factory.getbasetemp() / file
    path.write_text(text)
    TRIED[name] += 1
    if (refused := refusal(read, path)) is not None:
        TRIED[f"{name} refused"] += 1
        assert "\n" not in refused
        assert refused


def refusal(read: Reader, path: Path) -> str | None:
    """Why a file is refused, None if it is read."""
    try:
        read([path])
    except ValueError as error:
        return str(error)
    return None


@settings(max_examples=150)
@given(data=st.data())
def test_a_mutated_contract_is_read_or_refused_in_a_line(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    import yaml

    whole = yaml.safe_load((contract.FOLDER / "halves_rejects.yml").read_text())
    how = data.draw(st.sampled_from(["drop", "double", "value", "value"]))
    (mutated,) = changed(
        [whole], (0, *data.draw(st.sampled_from(places(whole)))), how, data.draw(st.sampled_from(VALUES[:-1]))
    )
    folder = tmp_path_factory.mktemp("contracts")
    (folder / "mutated.yml").write_text(yaml.safe_dump({**mutated, "table": "mutated"}, allow_unicode=True))
    TRIED["contracts"] += 1
    if (refused := refusal(lambda paths: contract.load("mutated", folder), folder)) is not None:
        TRIED["contracts refused"] += 1
        assert refused.startswith("mutated.yml")
        assert "\n" not in refused


OF_DEMO = "import dataclasses\nfrom nift_assets import studies\nSTUDY = dataclasses.replace(studies.load('demo'), "


@pytest.mark.parametrize(
    "content",
    [
        "",
        "STUDY = None",
        "STUDY = {}",
        "study = 1",
        "STUDY = (",
        "import nothing_of_that_name",
        "raise KeyError('x')",
        "STUDY = [][0]",
        "STUDY = 'demo'",
        "from nift_assets.studies import Study\nSTUDY = Study",
        "\x00",
        OF_DEMO + "corpus=None)",
        OF_DEMO + "teachers=None)",
        OF_DEMO + "teachers=('a',))",
        OF_DEMO + "nothing=1)",
    ],
)
def test_a_file_that_is_no_study_is_refused_in_a_line(content: str, tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(content)
    TRIED["study files"] += 1
    TRIED["study files refused"] += 1
    refused = refusal(lambda paths: studies.load(str(paths[0])), tmp_path / "own.py")
    assert refused is not None
    assert str(tmp_path / "own.py") in refused
    assert "\n" not in refused


def test_a_file_of_the_leaderboards_second_version_is_named(tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text(json.dumps({"results": {"leaderboard_mmlu_pro": {"acc,none": 0.2}}}))
    with pytest.raises(ValueError, match="the Open LLM Leaderboard's second version"):
        list(open_llm_leaderboard.results_in([tmp_path / "results.json"]))


def test_responses_that_hold_thoughts_are_counted() -> None:
    said = {"m": {"a": "<think>Hm.</think>\nYes.", "b": "Yes."}}
    prompts = [{"key": place, "prompt": prompt} for place, prompt in enumerate("ab")]
    check = lambda rows: [{"strict": [True], "loose": [True]} for _ in rows]  # noqa: E731
    assert instructions.of_files("ifeval", said, prompts, check)[0].counts["answers that hold thoughts"] == 1


def test_how_many_files_were_mutated(counts: Counts) -> None:
    for name in [*READERS, "contracts", "study files"]:
        counts("fuzz", f"{name}: {TRIED[name]} files, {TRIED[f'{name} refused']} refused in a line, 0 tracebacks")

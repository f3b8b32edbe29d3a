"""Whatever is done to a file of answers, judgments, responses or results, it is scored or refused in one line."""

from __future__ import annotations

import copy
import dataclasses
import json
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from expectations import contract
from expectations.frames import conform
from nift_assets import benchmarks, studies
from nift_assets.benchmarks import arena_hard, arena_hard_v2, ifbench, mt_bench, open_llm_leaderboard
from nift_assets.benchmarks.scoring import answers, games, instructions
from nift_assets.benchmarks.scoring.interface import ScoredFiles
from nift_assets.rows import Benchmark
from tests.counting import Counts

DEMO = studies.load("demo")
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
V2_QUESTION = {"uid": "q", "category": "hard_prompt", "prompt": "How many gulls?"}
PROMPT = {
    "key": 1,
    "prompt": "Say yes.",
    "instruction_id_list": ["count:unique_word_count", "words:keywords_specific_position"],
    "kwargs": [{"N": 3.0}, {"keyword": "yes", "n": 1.0, "m": 2.0}],
}
STYLED = {"token_len": 9, "header_count": {"h1": 1}, "list_count": {"ordered": 1}, "bold_count": {"**": 1}}
STYLED_ANSWERS = [
    {"uid": "q", "model": model, "messages": [{"role": "assistant", "content": {"answer": "So."}}], "metadata": STYLED}
    for model in ("m", "gpt-4")
]
Reader = Callable[[list[Path]], object]


def beside(paths: list[Path], name: str, *rows: dict[str, Any]) -> Path:
    """Another file, which nothing was done to."""
    path = paths[0].with_name(f"whole-{name}")
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


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
    "Arena-Hard v2 judgments": (
        [V2, {**V2, "uid": "p"}],
        "j.jsonl",
        lambda paths: arena_hard_v2.read(
            ScoredFiles(judgments=paths, questions=beside(paths, "q.jsonl", V2_QUESTION), baseline="gpt-4")
        ),
    ),
    "Arena-Hard v2 questions": (
        [V2_QUESTION, {**V2_QUESTION, "uid": "p"}],
        "q.jsonl",
        lambda paths: arena_hard_v2.read(ScoredFiles(judgments=[beside(paths, "j.jsonl", V2)], questions=paths[0])),
    ),
    "answers with their style": (
        STYLED_ANSWERS,
        "a.jsonl",
        lambda paths: arena_hard_v2.read(
            ScoredFiles(judgments=[beside(paths, "j.jsonl", V2)], answers=paths, baseline="gpt-4", style=True)
        ),
    ),
    "MT-Bench questions": (
        [{"question_id": number, "category": "math", "turns": ["One?", "Two?"]} for number in (81, 82)],
        "q.jsonl",
        lambda paths: mt_bench.read(ScoredFiles(judgments=[beside(paths, "j.jsonl", SINGLE)], questions=paths[0])),
    ),
    "IFBench prompts": (
        [PROMPT, {**PROMPT, "key": 2, "prompt": "Say no."}],
        "p.jsonl",
        lambda paths: ifbench.read(ScoredFiles(answers=[beside(paths, "r.jsonl", RESPONSE)], questions=paths[0])),
    ),
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
    float("inf"),
    10**400,
    0,
    False,
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


@pytest.mark.parametrize("many", [50, pytest.param(1_000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", READERS)
def test_a_mutated_file_is_read_or_refused_in_a_line(name: str, many: int, tmp_path: Path) -> None:
    rows, file, read = READERS[name]

    @settings(max_examples=many)
    @given(st.data())
    def each(data: st.DataObject) -> None:
        how = data.draw(st.sampled_from(["drop", "double", "value", "value"]))
        mutated = changed(rows, data.draw(st.sampled_from(places(rows))), how, data.draw(st.sampled_from(VALUES)))
        one = file.endswith(".json")
        text = json.dumps(mutated[0] if mutated else None) if one else "\n".join(map(json.dumps, mutated))
        if data.draw(st.integers(0, 9)) == 0:
            text = text[: data.draw(st.integers(0, len(text)))]
        path = tmp_path / file
        path.write_text(text)
        TRIED[name] += 1
        if (refused := refusal(read, path)) is not None:
            TRIED[f"{name} refused"] += 1
            assert "\n" not in refused
            assert refused

    each()


@pytest.mark.parametrize(
    ("read", "files", "says"),
    [
        (mt_bench, {"judgments": [SINGLE], "questions": [{"question_id": 1}, {"question_id": "1"}]}, "has the id '1'"),
        (mt_bench, {"judgments": [SINGLE], "questions": [{"category": "math"}]}, "line 1 has no question_id"),
        (mt_bench, {"judgments": [{**SINGLE, "score": True}]}, "line 1 has the score True"),
        (mt_bench, {"judgments": [{**SINGLE, "score": float("inf")}]}, "line 1 has the score inf"),
        (mt_bench, {"judgments": [{**SINGLE, "score": 10**400}]}, "line 1 has the score 1000"),
        (
            arena_hard,
            {"judgments": [{**BATTLE, "games": [*GAMES, GAMES[0]]}]},
            "line 1 has games that are no list of 2",
        ),
        (arena_hard_v2, {"judgments": [{**V2, "category": None}]}, "has no category None"),
        (arena_hard_v2, {"judgments": [V2], "questions": [{"uid": "q"}]}, "line 1 has no uid and category"),
        (
            arena_hard_v2,
            {"judgments": [V2], "questions": [{**V2_QUESTION, "category": "creative_writing"}]},
            "has no question of 'hard_prompt'",
        ),
        (
            ifbench,
            {"answers": [RESPONSE], "questions": [{**PROMPT, "instruction_id_list": [], "kwargs": []}]},
            "prompt 1 in .* needs a text, a list of instructions",
        ),
        (
            ifbench,
            {"answers": [RESPONSE], "questions": [{**PROMPT, "kwargs": [{"N": "3"}, PROMPT["kwargs"][1]]}]},
            "prompt 1 gives count:unique_word_count the N '3', which is not a number",
        ),
    ],
)
def test_what_the_published_tools_stumble_over_is_named(
    read: Any, files: dict[str, list[dict[str, Any]]], says: str, tmp_path: Path
) -> None:
    given: dict[str, Any] = {"baseline": "gpt-4"}
    for name, rows in files.items():
        path = beside([tmp_path / "x"], f"{name}.jsonl", *rows)
        given[name] = path if name == "questions" else [path]
    with pytest.raises(ValueError, match=says) as refused:
        read.read(ScoredFiles(**given))
    assert "\n" not in str(refused.value)


def test_judgments_of_the_first_turn_alone_are_half_of_what_there_is(tmp_path: Path) -> None:
    """FastChat's `show_result` averages the rows that it finds."""
    rows = [{**SINGLE, "question_id": number, "score": 6 + number % 3} for number in range(80)]
    (one,) = mt_bench.read(ScoredFiles(judgments=[beside([tmp_path / "x"], "j.jsonl", *rows)]))
    assert one.published == pytest.approx(sum(row["score"] for row in rows) / 80)
    assert (one.parts["turn 2"], one.missing, one.expected, one.complete) == (None, 80, 160, False)


def refusal(read: Reader, path: Path) -> str | None:
    """Why a file is refused, None if it is read."""
    try:
        read([path])
    except ValueError as error:
        return str(error)
    return None


@pytest.mark.parametrize("many", [50, pytest.param(1_000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("table", ["halves_rejects", "ifbench"])
def test_a_mutated_contract_is_read_or_refused_in_a_line(
    table: str, many: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    import yaml

    whole = yaml.safe_load((contract.FOLDER / f"{table}.yml").read_text())

    @settings(max_examples=many)
    @given(st.data())
    def each(data: st.DataObject) -> None:
        how = data.draw(st.sampled_from(["drop", "double", "value", "value"]))
        (mutated,) = changed(
            [whole], (0, *data.draw(st.sampled_from(places(whole)))), how, data.draw(st.sampled_from(VALUES[:-1]))
        )
        folder = tmp_path_factory.mktemp("contracts")
        shutil.copy(contract.FOLDER / "ifeval.yml", folder)
        (folder / "mutated.yml").write_text(yaml.safe_dump({**mutated, "table": "mutated"}, allow_unicode=True))
        TRIED["contracts"] += 1
        if (refused := refusal(lambda paths: contract.load("mutated", folder), folder)) is not None:
            TRIED["contracts refused"] += 1
            assert refused.startswith("mutated.yml")
            assert "\n" not in refused

    each()


def judged(row: Benchmark) -> None:
    """What a study reads of a benchmark's files: its questions, what its answers are laid beside, what is judged."""
    file, judge = benchmarks.load(row.name), DEMO.judge(str(row.judge))
    file.options(row)
    ids = list(dict.fromkeys(question for question, _ in file.questions(row)))
    turns = 2 if row.name == "mt_bench" else 1
    said = {"run": 0, "turns": ["Gulls."] * turns, "tokens": [1] * turns, "stopped": ["eos"] * turns}
    asked = [{"question_id": int(own) if row.name == "mt_bench" else own, **said} for own in ids[:3]]
    made = conform(file.answers(row, "m", asked).rows, contract.load(benchmarks.answers_table(row.name)))
    benchmarks.judged(row.name).requests(row, judge, made)


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("mt_bench", "question.jsonl"),
        ("mt_bench", "judge_prompts.jsonl"),
        ("mt_bench", "reference_answer/gpt-4.jsonl"),
        ("arena_hard", "question.jsonl"),
        ("arena_hard", "model_answer/demo-baseline.jsonl"),
        ("arena_hard", "judge_config.yaml"),
    ],
)
@settings(max_examples=40)
@given(data=st.data())
def test_a_mutated_file_of_a_benchmark_is_read_or_refused_in_a_line(
    name: str, file: str, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    import yaml

    row = DEMO.benchmark(name)
    folder = tmp_path_factory.mktemp("benchmark") / name
    shutil.copytree(row.location, folder)
    text = (folder / file).read_text()
    rows = [yaml.safe_load(text)] if file.endswith(".yaml") else [json.loads(line) for line in text.splitlines()[:2]]
    how = data.draw(st.sampled_from(["drop", "double", "value", "value"]))
    rows = changed(rows, data.draw(st.sampled_from(places(rows))), how, data.draw(st.sampled_from(VALUES)))
    dump = (lambda row: yaml.safe_dump(row)) if file.endswith(".yaml") else json.dumps
    (folder / file).write_text("\n".join(map(dump, rows)), errors="replace")
    TRIED["benchmark files"] += 1
    mutated = dataclasses.replace(row, location=str(folder), judge_config="judge_config.yaml")
    if (refused := refusal(lambda _: judged(mutated), folder)) is not None:
        TRIED["benchmark files refused"] += 1
        assert "\n" not in refused
        assert file in refused or "judge's prompt" in refused or "the baseline has no answer" in refused, refused
    shutil.rmtree(folder)


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
    for name in [*READERS, "benchmark files", "contracts", "study files"]:
        counts("fuzz", f"{name}: {TRIED[name]} files, {TRIED[f'{name} refused']} refused in a line, 0 tracebacks")

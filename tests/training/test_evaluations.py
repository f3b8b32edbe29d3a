import json
import os
from pathlib import Path

import pytest

from nift_training import artifacts, generation, ifeval, leaderboard


def prompt(key: int, instruction: str, **arguments: object) -> dict[str, object]:
    return {"key": key, "prompt": "Write.", "instruction_id_list": [instruction], "kwargs": [arguments]}


def test_verdicts_are_strict_and_loose_with_or_without_a_language_prefix() -> None:
    rows = [
        prompt(1, "punctuation:no_comma") | {"response": "No comma here."},
        prompt(2, "en:punctuation:no_comma") | {"response": "Sure, here:\nNo comma here."},
        prompt(3, "en:change_case:english_lowercase") | {"response": "ALL OF THIS IS CAPITAL"},
    ]
    assert ifeval.check(rows) == [
        {"strict": [True], "loose": [True]},
        {"strict": [False], "loose": [True]},
        {"strict": [False], "loose": [False]},
    ]


def test_an_unknown_instruction_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="'dance:waltz'"):
        ifeval.check([prompt(1, "dance:waltz") | {"response": "x"}])


def test_a_missing_sentence_tokenizer_is_named_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    import nltk

    monkeypatch.setattr(nltk.data, "path", [])
    row = prompt(1, "change_case:capital_word_frequency", capital_relation="at least", capital_frequency=1)
    with pytest.raises(ValueError, match=r"prompt 1 needs .* nltk\.downloader punkt_tab"):
        ifeval.check([row | {"response": "A WORD. Another."}])
    assert nltk.data.path == []


def test_published_responses_get_the_published_verdicts() -> None:
    folder = os.environ.get("NIFT_TEST_DATA")
    if folder is None:
        pytest.skip("NIFT_TEST_DATA does not name the folder of published files")
    prompts = ifeval.read_prompts(Path(folder) / "ifeval" / "input_data.jsonl")
    published = artifacts.read_rows(Path(folder) / "ifeval" / "responses" / "gpt4_20231107.jsonl")
    said = {row["prompt"]: row["response"] for row in published}
    rows = [row | {"response": said[row["prompt"]]} for row in prompts if row["prompt"] in said]
    try:
        verdicts = ifeval.check(rows)
    except ValueError as missing:
        if "punkt_tab" not in str(missing):
            raise
        pytest.skip(str(missing))
    assert sum(all(verdict["strict"]) for verdict in verdicts) == 417
    assert sum(sum(verdict["strict"]) for verdict in verdicts) == 697
    assert sum(len(verdict["strict"]) for verdict in verdicts) == 832


def write_task(folder: Path, **changes: object) -> Path:
    task = {
        "task": "sums",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": "sums.jsonl"}},
        "output_type": "multiple_choice",
        "test_split": "test",
        "num_fewshot": 0,
        "doc_to_text": "{{question}}",
        "doc_to_choice": "{{choices}}",
        "doc_to_target": "{{answer}}",
        "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
    } | changes
    (folder / "sums.yaml").write_text(json.dumps(task))
    rows = [{"question": f"{a} + 1 =", "choices": [str(a), str(a + 1)], "answer": 1} for a in range(6)]
    (folder / "sums.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def test_a_task_of_a_folder_is_scored_with_its_samples_and_shots(tiny: Path, tmp_path: Path) -> None:
    tasks = leaderboard.read_tasks(write_task(tmp_path), "sums:0")
    rows = leaderboard.score(generation.load(tiny), tasks, batch_size=4, limit=5)
    assert [(row["task"], row["metric"], row["samples"], row["shots"]) for row in rows] == [("sums", "acc", 5, 0)]
    assert 0 <= rows[0]["value"] <= 1


@pytest.mark.parametrize("shots", [0, 2])
def test_the_score_is_what_lm_eval_says_when_it_is_called_by_hand(tiny: Path, tmp_path: Path, shots: int) -> None:
    import lm_eval
    from lm_eval.tasks import TaskManager

    tasks = leaderboard.read_tasks(write_task(tmp_path), f"sums:{shots}")
    by_hand = lm_eval.simple_evaluate(
        model="hf",
        model_args={"pretrained": str(tiny)},
        device="cpu",
        tasks=[dict(tasks[0])],
        task_manager=TaskManager(include_defaults=False),
    )
    rows = leaderboard.score(generation.load(tiny), tasks, batch_size=4)
    assert rows[0]["value"] == by_hand["results"]["sums"]["acc,none"]
    assert rows[0]["shots"] == shots


def test_a_task_that_is_missing_or_names_code_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="'products': it has sums"):
        leaderboard.read_task(write_task(tmp_path), "products")
    (tmp_path / "sums.jsonl").unlink()
    with pytest.raises(ValueError, match=r"sums\.jsonl, which is missing"):
        leaderboard.read_task(tmp_path, "sums")
    (tmp_path / "code.yaml").write_text("task: code\nprocess_docs: !function own.process\n")
    with pytest.raises(ValueError, match=r"code\.yaml is not plain YAML"):
        leaderboard.read_task(tmp_path, "code")

import hashlib
import json
import signal
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from nift_training import artifacts, sentences
from nift_training.evaluate import generation, ifeval, leaderboard


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

    nltk.tokenize._get_punkt_tokenizer.cache_clear()  # an earlier test may have read it
    monkeypatch.setattr(nltk.data, "path", [])
    row = prompt(1, "change_case:capital_word_frequency", capital_relation="at least", capital_frequency=1)
    with pytest.raises(ValueError, match=r"prompt 1 needs .*python -m nift_training\.sentences --out"):
        ifeval.check([row | {"response": "A WORD. Another."}])
    with pytest.raises(ValueError, match=r"NLTK_DATA"):
        ifeval.check_ready([row])
    ifeval.check_ready([prompt(1, "punctuation:no_comma")])
    assert nltk.data.path == []


def test_the_sentence_tokenizer_comes_out_of_the_one_wheel_that_is_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, _, version = sentences.WHEEL.partition("==")
    wheel = tmp_path / "index" / f"{name.replace('-', '_')}-{version}-py3-none-any.whl"
    wheel.parent.mkdir()
    with zipfile.ZipFile(wheel, "w") as made:
        made.writestr(f"{sentences.INSIDE}{sentences.PUNKT}collocations.tab", "a\tb")
        made.writestr(f"{sentences.INSIDE}tokenizers/punkt_tab/german/collocations.tab", "c\td")
        about = wheel.name.removesuffix("-py3-none-any.whl") + ".dist-info"
        made.writestr(f"{about}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        made.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        made.writestr(f"{about}/RECORD", "")
    (file,) = sentences.take(wheel, tmp_path / "out", hashlib.sha256(wheel.read_bytes()).hexdigest())
    assert file == tmp_path / "out" / "tokenizers" / "punkt_tab" / "english" / "collocations.tab"
    assert file.read_text() == "a\tb"
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(ValueError, match="pip cannot download"):
        sentences.fetch(tmp_path / "none")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheel.parent))
    with pytest.raises(ValueError, match="is another one than llama-index-core"):
        sentences.fetch(tmp_path / "none")
    assert not (tmp_path / "none").exists()


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


# -- answers that are kept as they are made

QUESTIONS = [
    {"question_id": 81 + i, "category": ["writing", "math"][i % 2], "turns": [f"Say {i} words.", "And again?"]}
    for i in range(40)
]


def write_rows(path: Path, rows: Sequence[object]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def evaluate(tiny: Path, folder: Path, out: str, *more: object) -> list[str]:
    questions = write_rows(folder / "question.jsonl", QUESTIONS)
    options = ["--model", tiny, "--template", "mistral", "--out", folder / out, "--threads", 1]
    options += ["--mt-bench", questions, "--mt-bench-runs", 2, "--mt-bench-tokens", 6]
    return [sys.executable, "-m", "nift_training.evaluate", *map(str, [*options, *more])]


@pytest.mark.slow
def test_a_killed_run_goes_on_where_it_was_and_answers_the_same(tiny: Path, tmp_path: Path) -> None:
    subprocess.run(evaluate(tiny, tmp_path, "whole"), check=True, capture_output=True)
    killed = subprocess.Popen(evaluate(tiny, tmp_path, "killed"), stderr=subprocess.PIPE, text=True)
    assert killed.stderr is not None
    for said in killed.stderr:
        if "answers (" in said:
            killed.send_signal(signal.SIGKILL)
            break
    killed.wait()
    kept = (tmp_path / "killed" / "mt_bench.jsonl.unfinished").read_text()
    assert 0 < kept.count("\n") - 1 < 80
    with (tmp_path / "killed" / "mt_bench.jsonl.unfinished").open("a") as torn:
        torn.write('{"question_id": 99, "ru')
    again = subprocess.run(evaluate(tiny, tmp_path, "killed"), check=True, capture_output=True, text=True)
    assert again.stderr.count("answers (") < 6
    files = [(tmp_path / name / "mt_bench.jsonl").read_bytes() for name in ("whole", "killed")]
    assert files[0] == files[1]
    assert not (tmp_path / "killed" / "mt_bench.jsonl.unfinished").exists()


def test_a_log_finds_what_was_kept_and_refuses_other_settings(tmp_path: Path) -> None:
    log = artifacts.RowLog(tmp_path / "rows.jsonl", {"seed": 0})
    log.keep([{"question_id": 1}, {"question_id": 2}])
    with log.partial.open("a") as torn:
        torn.write('{"question')
    again = artifacts.RowLog(tmp_path / "rows.jsonl", {"seed": 0})
    assert again.rows == [{"question_id": 1}, {"question_id": 2}]
    again.keep([{"question_id": 3}])
    assert len(artifacts.RowLog(tmp_path / "rows.jsonl", {"seed": 0}).rows) == 3
    with pytest.raises(ValueError, match="begun with other settings"):
        artifacts.RowLog(tmp_path / "rows.jsonl", {"seed": 1})
    again.finish(again.rows)
    assert artifacts.RowLog(tmp_path / "rows.jsonl", {"seed": 0}).done
    with pytest.raises(ValueError, match="made with other settings"):
        artifacts.RowLog(tmp_path / "rows.jsonl", {"seed": 1})


def test_any_file_of_questions_is_answered_by_its_name(tiny: Path, tmp_path: Path) -> None:
    """A benchmark that comes later needs no edit of the runner: whatever its ids and turns are called, it is asked."""
    from nift_training.evaluate import __main__ as verb

    rows = [{"uid": "a", "prompt": "What is one?"}, {"key": 7, "turns": ["And two?", {"content": "And three?"}]}]
    files = [write_rows(tmp_path / name, rows[: number + 1]) for number, name in enumerate(("one.jsonl", "two.jsonl"))]
    asked = ["--questions", f"first={files[0]}", "--questions", f"second={files[1]}", "--tokens", "second=3"]
    base = ["--model", str(tiny), "--template", "llama-3", "--out", str(tmp_path / "out"), "--threads", "1"]
    verb.main([*base, *asked, "--runs", "second=2", "--tokens", "first=2"])
    one, two = (artifacts.read_rows(tmp_path / "out" / f"{name}.jsonl") for name in ("first", "second"))
    assert [(row["question_id"], row["run"], len(row["turns"])) for row in one] == [("a", 0, 1)]
    assert [(row["question_id"], row["run"], len(row["turns"])) for row in two] == [
        *(("a", run, 1) for run in (0, 1)),
        *((7, run, 2) for run in (0, 1)),
    ]
    assert max(number for row in two for number in row["tokens"]) <= 3
    with pytest.raises(ValueError, match="no questions 'third'"):
        verb.main([*base, *asked, "--runs", "third=2"])
    rows[0].pop("prompt")
    with pytest.raises(ValueError, match="turns or a prompt"):
        verb.main([*base, "--questions", f"first={write_rows(tmp_path / 'one.jsonl', rows)}"])


class Broken:
    """A checker that fails, as a benchmark may after others are done."""

    def __init__(self, *_: object, **__: object) -> None:
        raise ValueError("broken on purpose")


def test_a_benchmark_that_fails_takes_none_of_those_before_it(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from nift_training.evaluate import __main__ as verb
    from nift_training.evaluate import conversations

    prompts = write_rows(tmp_path / "input_data.jsonl", [prompt(1, "punctuation:no_comma")])
    arguments = evaluate(tiny, tmp_path, "out", "--ifeval", prompts, "--ifeval-tokens", 6, "--mt-bench-runs", 1)[3:]
    asked: list[int] = []
    generate = generation.generate

    def counting(generator: Any, texts: Sequence[str], **options: Any) -> Any:
        asked.append(len(texts))
        return generate(generator, texts, **options)

    monkeypatch.setattr(generation, "generate", counting)
    with monkeypatch.context() as patch:
        patch.setattr(ifeval, "check", Broken)
        with pytest.raises(ValueError, match="on purpose"):
            verb.main(arguments)
    assert sum(asked) == 2 * 40 + 1
    asked.clear()
    verb.main(arguments)
    assert asked == []  # not even the response whose check had failed
    rows = artifacts.read_rows(tmp_path / "out" / "ifeval.jsonl")
    assert [row["instruction_ids"] for row in rows] == [["punctuation:no_comma"]]
    assert len(artifacts.read_rows(tmp_path / "out" / "mt_bench.jsonl")) == 40
    assert conversations.MT_BENCH == "mt-bench"


# -- the leaderboard's six tasks, in the columns of their published data sets

CHOICES = ["red", "green", "blue", "grey"]
SIX_DATA: dict[str, tuple[str, list[dict[str, Any]]]] = {
    "arc_challenge": (
        "test validation train",
        [
            {
                "id": str(i),
                "question": f"What is {i}?",
                "choices": {"text": CHOICES, "label": list("ABCD")},
                "answerKey": k,
            }
            for i, k in enumerate("ABCD")
        ],
    ),
    "hellaswag": (
        "validation train",
        [
            {"activity_label": "Rowing", "ctx_a": f"A boat {i}", "ctx_b": "it", "endings": CHOICES, "label": str(i % 4)}
            for i in range(4)
        ],
    ),
    "truthfulqa_mc2": (
        "validation",
        [
            {
                "question": f"Is {i} a number?",
                "mc1_targets": {"choices": ["Yes", "No"], "labels": [1, 0]},
                "mc2_targets": {"choices": ["Yes", "It is", "No"], "labels": [1, 1, 0]},
            }
            for i in range(3)
        ],
    ),
    "winogrande": (
        "validation train",
        [
            {
                "sentence": f"The cup {i} fell off the table as _ was small.",
                "option1": "it",
                "option2": "he",
                "answer": "1",
            }
            for i in range(4)
        ],
    ),
    "gsm8k": ("test train", [{"question": f"{i} + 1?", "answer": f"It is {i + 1}.\n#### {i + 1}"} for i in range(3)]),
}
SUBJECT = [{"question": f"Is it {i}?", "subject": "s", "choices": CHOICES, "answer": i % 4} for i in range(2)]
SHOTS = "arc_challenge:2,hellaswag:1,truthfulqa_mc2:0,winogrande:1,gsm8k:1,mmlu:1"


def write_six(folder: Path) -> Path:
    for name, (splits, rows) in SIX_DATA.items():
        (folder / name).mkdir(parents=True)
        for split in splits.split():
            write_rows(folder / name / f"{split}.jsonl", rows)
    for place, task in enumerate(leaderboard.MMLU_TASKS):
        (folder / "mmlu" / task).mkdir(parents=True)
        write_rows(folder / "mmlu" / task / "dev.jsonl", SUBJECT)
        write_rows(folder / "mmlu" / task / "test.jsonl", SUBJECT * (1 + place % 2))
    return folder


@pytest.mark.slow
def test_all_six_tasks_offline_are_what_lm_eval_says_by_hand(tiny: Path, tmp_path: Path) -> None:
    import lm_eval
    from lm_eval.tasks import TaskManager

    leaderboard.stay_offline()
    tasks = leaderboard.read_tasks(write_six(tmp_path / "data"), SHOTS)
    assert len(tasks) == 5 + 57
    generator = generation.load(tiny)
    rows = leaderboard.score(generator, tasks, batch_size=4)
    ours = {(row["task"], row["metric"], row["filter"]): row["value"] for row in rows}
    by_hand = lm_eval.simple_evaluate(
        model="hf",
        model_args={"pretrained": str(tiny)},
        device="cpu",
        tasks=leaderboard.read_tasks(tmp_path / "data", SHOTS),
        task_manager=TaskManager(include_defaults=False),
    )["results"]
    wanted = [
        (task, *rest)
        for name, *rest in leaderboard.SIX
        for task in ([name] if name != "mmlu" else leaderboard.MMLU_TASKS)
    ]
    for task, metric, filter_name in wanted:
        assert ours[task, metric, filter_name] == by_hand[task][f"{metric},{filter_name}"], task
    means = leaderboard.mean_of_subjects(rows)
    mmlu = next(row for row in means if row["task"] == "mmlu" and row["metric"] == "acc")
    assert mmlu["value"] == pytest.approx(sum(by_hand[t]["acc,none"] for t in leaderboard.MMLU_TASKS) / 57)
    assert (mmlu["samples"], mmlu["shots"]) == (28 * 4 + 29 * 2, 1)


def test_mmlu_is_the_plain_mean_of_57_or_nothing() -> None:
    rows = [
        {"task": t, "metric": "acc", "filter": "none", "value": i / 57, "stderr": 0.1, "samples": i + 1, "shots": 5}
        for i, t in enumerate(leaderboard.MMLU_TASKS)
    ]
    (mean,) = leaderboard.mean_of_subjects(rows)
    assert mean["value"] == pytest.approx(28 / 57)
    assert mean["stderr"] == pytest.approx(0.1 / 57**0.5)
    with pytest.raises(ValueError, match="57 subjects, and 1 are missing: mmlu_world_religions"):
        leaderboard.mean_of_subjects(rows[:-1])


def test_each_model_has_a_response_cache_of_its_own(tiny: Path, tmp_path: Path) -> None:
    tasks = leaderboard.read_tasks(write_task(tmp_path), "sums:0")
    loaded = generation.load(tiny)
    for digest in ("a" * 64, "b" * 64):
        generator = generation.Generator(loaded.model, loaded.tokenizer, digest)
        leaderboard.score(generator, tasks, batch_size=4, cache=tmp_path / "cache")
    kept = sorted(file.name[:17] for file in (tmp_path / "cache").iterdir())
    assert kept == ["responses-json-aa", "responses-json-bb"]

"""A task file of lm-eval read as data: what it may say, key by key, and nothing that lm-eval would run for it.

lm-eval takes a task for code of its user: it loads metrics and data sets that are Python files or pickles, and hands
its model whatever arguments stand there. Here everything is refused that is not known to be data.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

# How the files of a task's splits may be read. Others of `datasets` read pickles, or files that a row names.
DATASETS = ("csv", "json", "parquet", "text")
DATASET_OPTIONS = ("data_files", "delimiter", "field")
OUTPUTS = ("generate_until", "loglikelihood", "loglikelihood_rolling", "multiple_choice")
SAMPLERS = ("default", "first_n")

# lm-eval's own metrics. It looks for any other name in the package `evaluate`, where a folder is a Python file.
METRICS = (
    *("acc", "acc_all", "acc_bytes", "acc_mutual_info", "acc_norm", "bits_per_byte", "bleu", "brier_score", "bypass"),
    *("byte_perplexity", "chrf", "chrf++", "exact_match", "f1", "likelihood", "mcc", "perplexity", "ter"),
    "word_perplexity",
)
AGGREGATIONS = (
    *("bits_per_byte", "bleu", "brier_score", "bypass", "chrf", "chrf++", "f1", "matthews_corrcoef", "mean", "median"),
    *("nanmean", "perplexity", "ter", "weighted_perplexity"),
)
METRIC_KEYS = (
    *("metric", "aggregation", "higher_is_better"),
    *("ignore_case", "ignore_numbers", "ignore_punctuation", "regexes_to_ignore"),
)
FILTERS = (
    *("format_span", "lowercase", "majority_vote", "map", "multi_choice_regex", "regex", "regex_pos"),
    *("remove_whitespace", "take_first", "take_first_k", "uppercase"),
)
FILTER_KEYS = (
    *("function", "default_value", "fallback", "group_select", "ignore_case", "ignore_punctuation", "k"),
    *("mapping_dict", "regex_pattern", "regexes_to_ignore"),
)
# What goes on to transformers' `generate`, which runs a repository's code for some of its other arguments.
GENERATION = (
    *("do_sample", "max_gen_toks", "max_tokens", "max_new_tokens", "min_p", "num_beams", "repetition_penalty"),
    *("temperature", "top_k", "top_p", "typical_p", "until"),
)
# Texts, numbers, and templates, which lm-eval renders in a sandbox: see `lm_eval_internals`.
TEMPLATES = ("doc_to_choice", "doc_to_target", "doc_to_text", "fewshot_delimiter", "gen_prefix", "target_delimiter")
FEWSHOT_KEYS = ("sampler", "fewshot_indices", "samples", "split", *TEMPLATES)
PLAIN = (
    *("task", "task_alias", "tag", "metadata", "dataset_name", "description", "num_fewshot", "repeats"),
    *("training_split", "validation_split", "test_split", "fewshot_split"),
    *("should_decontaminate", "doc_to_decontamination_query"),
    *TEMPLATES,
)


def check(task: Mapping[str, Any], file: Path) -> None:
    """ValueError names the key of a task, or the value of one, that is none of those known to be data."""
    for key, said in task.items():
        if said in (None, False) or key in PLAIN:
            continue
        if key not in _CHECKS:
            raise ValueError(f"{file} says {key}, which a task file may not: a task is data; leave it out")
        _CHECKS[key](said, f"{key} in {file}")


def _one_of(known: tuple[str, ...]) -> Callable[[object, str], None]:
    def check(said: object, where: str) -> None:
        if said not in known:
            raise ValueError(f"{where} is {str(said)[:80]!r}: take one of {', '.join(known)}")

    return check


def _keys(known: tuple[str, ...]) -> Callable[[object, str], None]:
    def check(said: object, where: str) -> None:
        if not isinstance(said, Mapping):
            raise ValueError(f"{where} is no mapping of names to values: mend it")
        for key, value in said.items():
            if key not in known and value not in (None, False):
                raise ValueError(f"{where} says {key}, and may only say {', '.join(known)}: leave it out")

    return check


def _each(check_one: Callable[[object, str], None]) -> Callable[[object, str], None]:
    def check(said: object, where: str) -> None:
        if not isinstance(said, list):
            raise ValueError(f"{where} is no list: mend it")
        for one in said:
            check_one(one, where)

    return check


def _dataset_options(said: Any, where: str) -> None:
    _keys(DATASET_OPTIONS)(said, where)
    files = said.get("data_files", {})
    if not isinstance(files, dict) or not all(isinstance(file, str) for file in files.values()):
        raise ValueError(f"data_files of {where} is no mapping of splits to file names: write `test: rows.jsonl`")


def _metric(said: Any, where: str) -> None:
    _keys(METRIC_KEYS)(said, where)
    _one_of(METRICS)(said.get("metric"), where)
    if said.get("aggregation") is not None:
        _one_of(AGGREGATIONS)(said["aggregation"], where)


def _filter(said: Any, where: str) -> None:
    _keys(FILTER_KEYS)(said, where)
    _one_of(FILTERS)(said.get("function"), where)


def _pipeline(said: Any, where: str) -> None:
    _keys(("name", "filter"))(said, where)
    _each(_filter)(said.get("filter"), where)


def _fewshot(said: Any, where: str) -> None:
    _keys(FEWSHOT_KEYS)(said, where)
    _one_of(SAMPLERS)(said.get("sampler", "default"), where)


_CHECKS: Mapping[str, Callable[[Any, str], None]] = {
    "dataset_path": _one_of(DATASETS),
    "dataset_kwargs": _dataset_options,
    "output_type": _one_of(OUTPUTS),
    "metric_list": _each(_metric),
    "filter_list": _each(_pipeline),
    "generation_kwargs": _keys(GENERATION),
    "fewshot_config": _fewshot,
}

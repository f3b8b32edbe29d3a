"""The `NIFT_` variables, by which a person sets something from outside: each is read here and nowhere else.

They are read when they are asked for, and an empty one is none. `.env.example` says what each is for.
"""

from __future__ import annotations

import math
import os

# What picks the study of a process, and changes it.
STUDY, SCALE, BENCHMARKS = "NIFT_STUDY", "NIFT_SCALE", "NIFT_BENCHMARKS"
CORPUS, TEXT_COLUMN, DOCUMENTS = "NIFT_CORPUS", "NIFT_TEXT_COLUMN", "NIFT_DOCUMENTS"
CUT_AT = "NIFT_CUT_AT"
OF_THE_STUDY = (STUDY, SCALE, BENCHMARKS, CORPUS, TEXT_COLUMN, DOCUMENTS, CUT_AT)
# Where things lie, what they may cost, who answers and who is told.
WAREHOUSE, LEDGER_URL, BUDGET_USD = "NIFT_WAREHOUSE", "NIFT_LEDGER_URL", "NIFT_BUDGET_USD"
LEDGER_SPILL, PORTION = "NIFT_LEDGER_SPILL", "NIFT_PORTION"
SERVER, SERVER_KEY, UI_TOKEN = "NIFT_SERVER", "NIFT_SERVER_KEY", "NIFT_UI_TOKEN"
FAILURE_WEBHOOK, TRACKER = "NIFT_FAILURE_WEBHOOK", "NIFT_TRACKER"
# Where a test has a process killed.
CRASH = "NIFT_CRASH"


def study() -> str:
    """The study's name, or the path of its file."""
    return _given(STUDY) or "demo"


def scale() -> int | None:
    """What the study's sizes are divided by, for a rehearsal."""
    wanted = _given(SCALE)
    if wanted and not _is_positive(wanted):
        raise ValueError(f"{SCALE} is {wanted!r}; give what sizes are divided by, 1000 for a rehearsal in minutes")
    return int(wanted) if wanted else None


def benchmarks() -> str | None:
    """The folder of the benchmarks' published files."""
    return _given(BENCHMARKS)


def corpus() -> str | None:
    """Where somebody's own articles lie."""
    return _given(CORPUS)


def text_column() -> str | None:
    """The column of these with the text."""
    return _given(TEXT_COLUMN)


def documents() -> int | None:
    """How many of these are sampled."""
    wanted = _given(DOCUMENTS)
    if wanted and not _is_positive(wanted):
        raise ValueError(
            f"{DOCUMENTS} is {wanted!r}; give the number of documents to sample, 1 or more, or leave it out"
        )
    return int(wanted) if wanted else None


def portion() -> int | None:
    """How many documents a teacher is asked at a time by one process."""
    wanted = _given(PORTION)
    if wanted and not _is_positive(wanted):
        raise ValueError(f"{PORTION} is {wanted!r}; give how many documents are a portion, or leave it out for 5,000")
    return int(wanted) if wanted else None


def cut_at() -> str | None:
    """What these are cut at: spaces, words or sentences."""
    return _given(CUT_AT)


def of_the_study() -> dict[str, str]:
    """The variables that are set of those that pick the study, for a command that works on the same one."""
    return {name: value for name in OF_THE_STUDY if (value := _given(name))}


def warehouse() -> str:
    """The root of all tables, a folder or an address such as s3://bucket/nift."""
    return _given(WAREHOUSE) or "warehouse"


def ledger_url() -> str | None:
    """The database of requests and answers."""
    return _given(LEDGER_URL)


def ledger_spill() -> str | None:
    """The folder where answers wait that have come while the ledger cannot be written."""
    return _given(LEDGER_SPILL)


def budget_usd() -> float | None:
    """The most that a study may cost in US dollars."""
    text = (_given(BUDGET_USD) or "").strip()
    if not text:
        return None
    try:
        dollars = float(text)
    except ValueError:
        dollars = math.nan
    if not math.isfinite(dollars) or dollars < 0:
        raise ValueError(
            f"{BUDGET_USD} is {text!r}; give the most the study may cost in US dollars, such as 25 or 0.50, or "
            "leave it out"
        )
    return dollars


def server() -> str | None:
    """The address of the server that answers for all models in the place of their weights."""
    return _given(SERVER)


def server_key_variable() -> str | None:
    """The variable with that server's key, if it is set."""
    return SERVER_KEY if SERVER_KEY in os.environ else None


def ui_asks_for_no_token() -> bool:
    """Whether somebody has said that every account of this machine may use the UI."""
    return _given(UI_TOKEN) == "none"


def failure_webhook() -> str | None:
    """The address that is told of each failed run."""
    return _given(FAILURE_WEBHOOK)


def tracker() -> str | None:
    """Who is told of losses, scores and costs: mlflow, tensorboard or wandb, and after a colon where."""
    return _given(TRACKER)


def crash() -> str | None:
    """The point and the visit at which this process is killed: see `crash_points`."""
    return _given(CRASH)


def _given(name: str) -> str | None:
    return os.environ.get(name) or None


def _is_positive(number: str) -> bool:
    return number.isdecimal() and int(number) > 0

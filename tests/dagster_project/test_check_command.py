"""`nift check`: what is stored held against its contract, by somebody who wants nothing made."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from nift_assets.corpus import halves as cutting
from nift_assets.store import Store
from tests.conftest import nift_here
from tests.demo import STUDY
from tests.steps.test_guard import TEXTS, on_disk, sampled, without_its_last_word, write

ESCAPE = "\x1b[31m \u202e <b> from the web"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A sample and its halves, two of four of which do not rejoin."""
    made = Store(root=str(tmp_path_factory.mktemp("check") / "warehouse"), study=STUDY.name)
    rows = sampled([*TEXTS[:3], f"{ESCAPE} and some more words that go on and on for a while, and on."])
    write(made, "raw_sample", None, rows)
    write(made, "halves", None, without_its_last_word(cutting.halve(rows, seed=STUDY.corpus.seed)))
    return made


def check(store: Store, *arguments: str, tmp_path: Path) -> tuple[int, str, str]:
    environment = {"NIFT_WAREHOUSE": store.root, "NIFT_STUDY": "demo", "HOME": str(tmp_path), "COLUMNS": "80"}
    done = nift_here("check", *arguments, environment=environment)
    return done.returncode, done.stdout, done.stderr


def test_a_table_that_keeps_its_contract_passes_and_one_that_breaks_it_ends_with_one(
    store: Store, tmp_path: Path
) -> None:
    before = on_disk(store)
    status, said, _ = check(store, "raw_sample", tmp_path=tmp_path)
    assert status == 0
    assert "raw_sample: 4 rows, 14 tests, 14 passed" in said
    assert "\x1b" not in said
    status, said, _ = check(store, "halves", tmp_path=tmp_path)
    assert status == 1
    assert "✗  halves_rejoin_to_the_document" in said
    assert "2 rows came back" in said
    assert "halves_rejoin_to_the_document, the first 2 that fail:" in said
    assert " and then some more" in said, "the texts themselves are shown"
    assert on_disk(store) == before, "nothing is made"
    assert not store.folder(".failing").exists()


def test_the_same_as_json_has_the_rows_whole(store: Store, tmp_path: Path) -> None:
    status, said, _ = check(store, "halves", "--json", tmp_path=tmp_path)
    (table,) = json.loads(said)
    assert (status, table["table"], table["partition"], table["passed"]) == (1, "halves", None, False)
    (failed,) = [test for test in table["tests"] if not test["passed"]]
    assert [row["second_half"].endswith("more") for row in failed["failing_rows"]] == [True, True]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("halvs",), "there is no table 'halvs'; did you mean 'halves'?"),
        (("<b>",), "there is no table '<b>'; nift docs lists them"),
        (("halves", "--partition", "echo"), "halves has no partitions; leave --partition out"),
        (("completions", "--partition", "ecco"), "completions has no partition 'ecco'; did you mean 'echo'?"),
        (("completions",), "completions has not been made yet, so there is nothing to check"),
        (("completions", "--partition", "echo"), "completions/echo has not been made yet"),
    ],
)
def test_what_is_not_there_is_one_line(arguments: tuple[str, ...], says: str, store: Store, tmp_path: Path) -> None:
    status, said, error = check(store, *arguments, tmp_path=tmp_path)
    assert (status, said, error.count("\n")) == (1, "", 1)
    assert says in error

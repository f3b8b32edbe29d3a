"""What a commit over an earlier data set says of its rows, and the same read from the Hub by `nift diff`."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

import pytest
from huggingface_hub import constants

from expectations import contract
from nift_assets.differences import comparison, states, wording
from nift_assets.hub import commits, data_files, dataset_facts, published, repository
from nift_assets.hub.data_files import ShardSource
from nift_assets.hub.folders import Content
from nift_assets.rows import Publication
from nift_assets.store import Store
from nift_training import artifacts
from tests.conftest import nift_here
from tests.differences.small_study import SET, TEACHER, Document, SmallStudy, store
from tests.hub.pushing import CARD, TOKEN, publication, write
from tests.hub.server import Hub

BEFORE = SmallStudy(
    documents=[
        *(Document(id=f"stays {n}") for n in range(4)),
        Document(id="now refused"),
        Document(id="now found"),
        Document(id="no longer found", found="2 words"),
        Document(id="answered anew"),
        Document(id="not asked any more"),
    ]
)
AFTER = SmallStudy(
    documents=[
        *BEFORE.documents[:4],
        Document(id="now refused", status="refused", answer=""),
        Document(id="now found", found="2 words"),
        Document(id="no longer found"),
        Document(id="answered anew", answer="and so it ended."),
        Document(id="not asked any more", is_asked=False),
    ]
)
SAID = f"""\
requests: 1 row out (not asked), 1 row changed (another answer).
removals: 1 row out (2 words), 1 row in (2 words).
{SET}: 3 rows out (1 answer refused, 1 dropped by short, 1 not asked), 1 row in (before: dropped by short), \
1 row changed (another answer)."""


def sources(stored: Store) -> list[ShardSource]:
    """What is published of a teacher, as `dataset_facts` has it of a study."""

    def source(name: str, table: str, partition: str, columns: tuple[str, ...], *key: str) -> ShardSource:
        return ShardSource(
            name=name,
            title=name,
            paths=(stored.checked_path(table, partition),),
            contract=contract.load(table),
            columns=columns,
            key=key,
            prefix=table == "training_sets",
        )

    return [
        source(SET, "training_sets", SET, dataset_facts.PAIRS, "document_id"),
        source("removals", "short_removals", TEACHER, dataset_facts.DROPPED, "document_id", "filter"),
        source("requests", "completions", TEACHER, dataset_facts.REQUESTS, "document_id"),
    ]


def folder(out: Path, stored: Store, tag: str) -> Content:
    """The folder of a data set, with its card and its mark."""
    with artifacts.folder(out, "publication") as making:
        configurations = data_files.write(making.path, sources(stored))
        marker = {
            "made_by": "nift",
            "of": repository.of(stored.study, publication()),
            "configurations": {each.name: {"rows": each.rows, "files": each.files} for each in configurations},
        }
        (making.path / repository.MARKER).write_text(json.dumps(marker))
        (making.path / "README.md").write_text(CARD)
    return Content(tag, 0, configurations)


def push(out: Path, content: Content, row: Publication | None = None) -> str:
    """Pushes a folder as the assets do, and gives the commit's message."""
    manifest = artifacts.read_manifest(out)
    to = repository.find(repository.connect(TOKEN), "small", row or publication())
    remote = repository.state_of(to)
    changed = [change for change in repository.changes(out, manifest, remote) if change.action != "same"]
    message = commits.message(to, out, content, remote, changed)
    repository.push(to, out, manifest, remote, message=message, tag=content.tag)
    return message


@pytest.fixture
def both(tmp_path: Path, hub: Hub) -> tuple[Store, Store]:
    """The two states in two warehouses, and both on the Hub, one commit behind the other."""
    stored = store(tmp_path / "before", BEFORE), store(tmp_path / "after", AFTER)
    for place, tag in enumerate(("data-1", "data-2")):
        push(tmp_path / tag, folder(tmp_path / tag, stored[place], tag))
    return stored


def test_a_commit_over_an_earlier_one_says_which_rows_changed_and_why(both: tuple[Store, Store], hub: Hub) -> None:
    repo = hub.repos["dataset", "me/nift"]
    first, second = repo.commits[1:]
    assert "rows" not in first.title + first.description
    assert second.title == (
        f"data-2: requests: 1 row changed, 1 row removed; removals: 1 row added, 1 row removed; {SET}: 1 row changed, "
        "1 row added, 3 rows removed"
    )
    assert second.description.startswith(SAID)
    assert f"changed: {SET}/train-00000-of-00001.parquet" in second.description


def test_the_same_data_again_is_no_commit(both: tuple[Store, Store], tmp_path: Path, hub: Hub) -> None:
    commits_before = len(hub.repos["dataset", "me/nift"].commits)
    before = len(hub.log)
    push(tmp_path / "again", folder(tmp_path / "again", both[1], "data-2"))
    assert len(hub.repos["dataset", "me/nift"].commits) == commits_before
    assert [each for each in hub.log[before:] if each.path.endswith(".parquet")] == [], "nothing is fetched to be told"


def test_only_the_shards_that_are_replaced_are_fetched_to_say_why(
    both: tuple[Store, Store], tmp_path: Path, hub: Hub
) -> None:
    """Of the requests nothing has changed, and yet they say why a pair is gone."""
    fewer = store(tmp_path / "fewer", SmallStudy(documents=AFTER.documents, most=3))
    before = len(hub.log)
    message = push(tmp_path / "data-3", folder(tmp_path / "data-3", fewer, "data-3"))
    assert f"{SET}: 3 rows out (behind the last of the set)." in message
    assert [each for each in hub.log[before:] if "requests/" in each.path and each.method == "GET"] == []


@pytest.mark.filterwarnings("ignore:It seems that you are about to commit a data file")
def test_a_commit_over_earlier_weights_says_which_scores_are_others(tmp_path: Path, hub: Hub) -> None:
    row = publication(teacher=None, model="m")
    scores = {"m on ifeval": [50.0, 40.0, 60.5], "base on ifeval": [20.0, 10.0, 30.0]}
    said = []
    for now in (scores, {**scores, "m on ifeval": [75.0, 70.0, 80.0], "m on mt_bench": [5.25, 5.0, 5.5]}):
        marker = {"made_by": "nift", "of": repository.of("small", row), "scores": now}
        out = write(tmp_path / str(len(said)), changed={repository.MARKER: json.dumps(marker).encode()}, row=row)
        said.append(push(out, Content("weights-1", scores=now), row))
    lines = said[1].splitlines()
    assert lines[2:4] == [
        "m on ifeval: 50.00 [40.00, 60.50] before, 75.00 [70.00, 80.00] now.",
        "m on mt_bench: no score before, 5.25 [5.00, 5.50] now.",
    ]
    assert "base on ifeval" not in said[1]


def settings(hub: Hub, tmp_path: Path, warehouse: Path) -> Mapping[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("NIFT_", "HF_"))}
    places = {"NIFT_WAREHOUSE": str(warehouse), "NIFT_STUDY": "small", "HF_HOME": str(tmp_path / "home")}
    return kept | places | {"HF_TOKEN": TOKEN, "HF_ENDPOINT": hub.url}


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))


def test_two_commits_are_compared_by_their_tags(both: tuple[Store, Store], tmp_path: Path, hub: Hub) -> None:
    environment = dict(settings(hub, tmp_path, tmp_path / "after"))
    address = "hf://datasets/me/nift"
    private = nift_here("diff", address, environment={**environment, "HF_TOKEN": ""})
    assert private.stderr == "error: the Hub shows no data set me/nift to a stranger; set HF_TOKEN if it is private\n"
    shown = nift_here("diff", f"{address}@data-1", address, environment=environment)
    assert shown.returncode == 0, shown.stderr
    assert f"training_sets/{SET}: 3 rows out (1 answer refused, 1 dropped by short, 1 not asked)" in shown.stdout
    assert "  answered ane response: and so it [-went on.-] {+ended.+}" in shown.stdout.splitlines()
    unknown = nift_here("diff", f"{address}@data-3", environment=environment)
    assert unknown.stderr == "error: me/nift has no revision 'data-3'; did you mean 'data-2' or 'data-1'?\n"
    nobody = nift_here("diff", "hf://datasets/me/nothing", environment=environment)
    assert nobody.stderr == "error: the Hub shows no data set me/nothing to the token of HF_TOKEN; is it named so?\n"


def test_what_is_published_is_held_against_what_is_stored_now(
    both: tuple[Store, Store], tmp_path: Path, hub: Hub
) -> None:
    environment = dict(settings(hub, tmp_path, tmp_path / "after"))
    same = nift_here("diff", "hf://datasets/me/nift", environment=environment)
    assert same.stdout.startswith("Nothing differs between hf://datasets/me/nift and small in "), same.stderr
    earlier = nift_here("diff", "hf://datasets/me/nift@data-1", "--json", environment=environment)
    rows = {row["table"]: row for row in json.loads(earlier.stdout)["rows"]}
    assert rows["training_sets"]["why"]["out"] == {"answer refused": 1, "dropped by short": 1, "not asked": 1}
    assert rows.keys() == {"completions", "removals", "training_sets"}


def test_a_published_state_says_of_the_hub_what_its_tables_say(
    both: tuple[Store, Store], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    old, new = (states.of_folder(tmp_path / name, "small", name) for name in ("before", "after"))
    hub_states = [published.fetched(f"hf://datasets/me/nift@data-{n}") for n in (1, 2)]
    local = [state.as_published(TEACHER, [SET]) for state in (old, new)]
    place = ("training_sets", SET)
    said = []
    for one, other in (hub_states, local, (hub_states[0], local[1])):
        with comparison.opened(one, other) as opened:
            said.append(wording.sentence(opened.of(place)))
    assert len(set(said)) == 1

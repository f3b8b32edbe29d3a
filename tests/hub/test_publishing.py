"""`nift publish` on the finished demo: nothing without --yes, what is read back is what the tables hold, and no token
is found anywhere afterwards."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import dagster as dg
import polars as pl
import pytest

from expectations import contract
from nift_assets.pages.viewer import links
from nift_assets.pairs import reference_sets
from nift_assets.rows import ReferenceSet
from nift_assets.steps import check_results
from nift_assets.steps.check_results import refuse_unchecked
from nift_assets.steps.lineage import Partition
from nift_assets.store import Store
from nift_training.artifacts import verify
from tests import canaries
from tests.conftest import PROJECT, Demo, instance_at, nift, nift_here
from tests.counting import Counts
from tests.demo import GRAPH
from tests.hub.conftest import turn_to
from tests.hub.pushing import TOKEN
from tests.hub.server import Hub, person

SECTIONS = [
    *("Configurations", "How it was made", "From the sample to the data", "Examples", "Checks", "Decontamination"),
    *("Content audit", "Cost", "Lineage", "Licence and terms", "Limitations", "Citation"),
]
COLUMNS = ("document_id", "sample_rank", "prompt", "response")
LOADED = """
import sys
from datasets import load_dataset
repository, token, cache, out, *configurations = sys.argv[1:]
for name in configurations:
    rows = load_dataset(repository, name, split="train", token=token, cache_dir=cache)
    rows.to_parquet(f"{out}/{name}.parquet")
"""


@dataclass(frozen=True)
class Place:
    """A copy of the finished demo, and a Hub for it."""

    demo: Demo
    hub: Hub

    def environment(self, *, token: str | None = TOKEN) -> dict[str, str]:
        kept = {name: value for name, value in self.demo.environment().items() if not name.startswith("HF_")}
        settings = {"HF_ENDPOINT": self.hub.url, "HF_HOME": str(self.demo.home / "huggingface")}
        return kept | settings | ({"HF_TOKEN": token} if token else {})

    def publish(self, *arguments: str, token: str | None = TOKEN) -> subprocess.CompletedProcess[str]:
        return nift("publish", *arguments, environment=self.environment(token=token))

    def publish_here(self, *arguments: str, token: str | None = TOKEN) -> subprocess.CompletedProcess[str]:
        """The same without a process of its own."""
        with pytest.MonkeyPatch.context() as patch:
            turn_to(self.hub.url, patch)
            return nift_here("publish", *arguments, environment=self.environment(token=token))

    def table(self, name: str, partition: str | None) -> pl.DataFrame:
        return Store(root=str(self.demo.warehouse), study="demo").read(name, partition)


@pytest.fixture(scope="module")
def place(demo: Demo, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("publishing")
    shutil.copytree(demo.warehouse, folder / "warehouse")
    shutil.copytree(demo.home, folder / "home")
    with Hub({TOKEN: person("me")}) as hub:
        yield Place(Demo(folder / "warehouse", folder / "home"), hub)


def test_the_demo_publishes_nothing(demo: Demo) -> None:
    tables = {name for step in GRAPH.steps for name in step.tables}
    assert list((demo.warehouse / "demo").glob("hub_*")) == []
    with instance_at(demo.home) as instance:
        made = {name for name in tables if instance.get_latest_materialization_event(dg.AssetKey(name))}
    assert tables - made == {"hub_datasets", "hub_adapters", "hub_models"}


@pytest.mark.fault("E6")
def test_without_yes_everything_is_shown_and_nothing_sent(place: Place, counts: Counts) -> None:
    shown = place.publish_here("--dry-run", "echo")
    assert shown.returncode == 0, shown.stderr
    assert "echo: dataset me/nift-demo-echo (private, cc0-1.0, a new repository)" in shown.stdout
    assert "nothing was sent, --yes does it" in shown.stdout
    assert place.hub.writes == []
    assert {each.method for each in place.hub.log} == {"GET"}
    folder = re.search(r"from (\S+)", shown.stdout)
    assert folder is not None
    listed = set(re.findall(r"new +(\S+) +[\d,]+ bytes", shown.stdout))
    assert listed == {file.name for file in verify(place.demo.warehouse / "demo" / folder[1]).files}
    counts("E6", f"without --yes: {len(place.hub.log)} requests that read, 0 that write")


@pytest.mark.fault("E6")
def test_an_empty_token_is_refused_before_anybody_is_asked(place: Place) -> None:
    before = len(place.hub.log)
    refused = place.publish_here("--yes", "echo", token=" ")
    assert refused.returncode == 1
    assert "set HF_TOKEN in the environment" in refused.stderr
    assert len(place.hub.log) == before


def test_what_is_published_is_what_the_tables_hold(place: Place, tmp_path: Path, counts: Counts) -> None:
    pushed = place.publish("--yes", "echo")
    assert pushed.returncode == 0, pushed.stderr
    repo = place.hub.repos["dataset", "me/nift-demo-echo"]
    row = place.table("hub_datasets", "echo").row(0, named=True)
    assert repo.private
    assert row["revision"] == repo.head.oid == repo.tags[row["tag"]]
    assert row["files_read_back"] == row["files"] == len(repo.head.files) - 1
    assert row["rows_read_back"] == row["rows"]
    assert [commit.title.split(":")[0] for commit in repo.commits] == ["initial commit", "echo"]
    held = {"echo-filtered": ("training_sets", "echo-filtered"), "requests": ("completions", "echo")}
    arguments = ("me/nift-demo-echo", TOKEN, str(tmp_path / "cache"), str(tmp_path), *held)
    environment = place.environment(token=None) | {"HF_HOME": str(tmp_path / "home")}
    loaded = subprocess.run(
        [sys.executable, "-c", LOADED, *arguments], env=environment, cwd=PROJECT, capture_output=True, text=True
    )
    assert loaded.returncode == 0, loaded.stderr
    for configuration, (name, partition) in held.items():
        found = pl.read_parquet(tmp_path / f"{configuration}.parquet")
        assert found.equals(place.table(name, partition).select(found.columns))
    assert place.hub.asked(r"GET /xet/v1/reconstructions/\w+ 200")
    counts(
        "E6", f"pushed: 1 commit, {row['files']} files; datasets.load_dataset gives equal frames of 2 configurations"
    )


def test_its_card_says_what_it_is_and_how_it_was_made(place: Place) -> None:
    repo = place.hub.repos["dataset", "me/nift-demo-echo"]
    row = place.table("hub_datasets", "echo").row(0, named=True)
    card = place.hub.content(repo, "README.md").decode()
    assert re.findall(r"^## (.*)$", card, re.MULTILINE) == SECTIONS
    assert [name for name in repo.head.files if name.endswith(".parquet") and name not in card] == []
    halves, pairs = place.table("halves", None), place.table("training_sets", "echo-filtered")
    said = (
        row["tag"],
        f"the first {halves.height} in an order drawn with seed",
        f"| `echo-filtered` | {pairs.height} | all pairs, in sample order, without",
        "| `completions/echo` | `",
        *(f"| `{column.name}` |" for column in contract.load("training_sets").columns if column.name in COLUMNS),
        *(f"- {name}: " for name in ("This repository", "The articles", "The responses")),
        *(f"*prompt of document* `{document}`" for document in pairs["document_id"][:2]),
        f"with `nift look`; the first of these is at `{links.pair(pairs['document_id'][0])}`",
    )
    assert [each for each in said if each not in card] == []


def test_what_was_pushed_is_linked_in_the_ui(place: Place) -> None:
    with instance_at(place.demo.home) as instance:
        event = instance.get_latest_materialization_event(dg.AssetKey("hub_datasets"))
    assert event is not None
    assert event.asset_materialization is not None
    shown = event.asset_materialization.metadata
    revision = place.table("hub_datasets", "echo")["revision"][0]
    assert shown["revision"].value == revision
    assert shown["pushed"].value == f"{place.hub.url}/datasets/me/nift-demo-echo/tree/{revision}"
    assert json.loads(json.dumps(shown["plan"].value))["repository"] == "me/nift-demo-echo"


def test_another_project_reads_it_by_name_and_revision(
    place: Place, tmp_path: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reference sets of a study are such a project; its client is turned to the Hub that has it."""
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", place.hub.url)
    monkeypatch.setattr(
        "huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE",
        place.hub.url + "/{repo_id}/resolve/{revision}/{filename}",
    )
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    row = place.table("hub_datasets", "echo").row(0, named=True)
    reference = ReferenceSet(
        name="ours",
        location=f"hf://datasets/{row['repository']}",
        revision=row["tag"],
        file="echo-filtered/*.parquet",
        layout="pairs",
        licence="cc0-1.0",
    )
    published = reference_sets.read(reference)
    expected = place.table("training_sets", "echo-filtered")
    assert published.commit == row["revision"]
    assert published.rows.select("prompt", "response").equals(expected.select("prompt", "response"))


@pytest.mark.fault("X8")
def test_no_token_is_found_anywhere_afterwards(place: Place, counts: Counts) -> None:
    files = [path for root in (place.demo.warehouse, place.demo.home) for path in root.rglob("*") if path.is_file()]
    assert [path for path in files if canaries.inside(path, {"token": TOKEN})] == []
    assert (place.demo.home / "publish.log") in files
    for repo in place.hub.repos.values():
        for path in repo.head.files:
            content = place.hub.content(repo, path)
            assert canaries.standing([content, *canaries.unpacked(content)], {"token": TOKEN}) == [], path
    assert place.hub.tokens_elsewhere == 0
    counts("X8", f"the token of the pushes, looked for in {len(files):,} files and all that was pushed: 0 hits")


# ---------- only what has passed its checks


def test_a_failed_check_upstream_refuses(place: Place, tmp_path: Path) -> None:
    home, root = tmp_path / "home", tmp_path / "warehouse"
    shutil.copytree(place.demo.home, home)
    shutil.copytree(place.demo.warehouse, root)
    store = Store(root=str(root), study="demo")
    upstream = GRAPH.ancestors_of(Partition("hub_datasets", "echo"))
    assert {("halves", None), ("raw_sample", None), ("training_sets", "echo-filtered")} <= set(upstream)
    with instance_at(home) as instance:
        found = refuse_unchecked(instance, store, upstream)
        assert len(found) > 100
        evaluation = dg.AssetCheckEvaluation(
            asset_key=dg.AssetKey("completions"),
            check_name="most_are_answered",
            passed=False,
            severity=dg.AssetCheckSeverity.ERROR,
            metadata={
                check_results.MESSAGE: dg.MetadataValue.text("40% of 5 completions (2 rows), expected at most 20%")
            },
            partition="echo",
        )
        instance.report_runless_asset_event(evaluation)
        with pytest.raises(
            ValueError, match=r"completions/echo: the check most_are_answered failed \(40% of 5 completions .*expected"
        ):
            refuse_unchecked(instance, store, upstream)
        others = [each for each in upstream if each != ("completions", "echo")]
        refuse_unchecked(instance, store, others)
        path = store.path("training_sets", "echo-filtered")
        version = store.version("training_sets", "echo-filtered")
        assert version is not None
        planted = pl.read_parquet(path).with_columns(response=pl.lit("planted"))
        store.write("training_sets", "echo-filtered", planted, type(version)(data="0" * 64, inputs=version.inputs))
        with pytest.raises(ValueError, match="training_sets/echo-filtered on the disk is not what Dagster has seen"):
            refuse_unchecked(instance, store, others)


def test_a_check_that_never_ran_refuses(place: Place) -> None:
    store = Store(root=str(place.demo.warehouse), study="demo")
    with dg.instance_for_test() as empty:
        with pytest.raises(ValueError, match="halves on the disk is not what Dagster has seen being made"):
            refuse_unchecked(empty, store, [Partition("halves", None)])
        version = store.version("halves", None)
        assert version is not None
        tags = {"dagster/data_version": version.data[:16]}
        empty.report_runless_asset_event(dg.AssetMaterialization("halves", tags=tags))
        with pytest.raises(ValueError, match=r"halves: the check \w+ has never run on it; materialize halves again"):
            refuse_unchecked(empty, store, [Partition("halves", None)])


# ---------- again, and with another row

MAKE = """
import sys
import dagster as dg
from dagster_project.definitions import ACTIVE, defs
from nift_assets import filters
job = defs.resolve_implicit_global_asset_job_def()
of_teacher = ["completions", "filtered_completions", *(filters.table(row) for row in ACTIVE.study.filters)]
with dg.DagsterInstance.get() as instance:
    for tables, key in ((of_teacher, "echo"), (["training_sets"], "echo-filtered"), (["funnel"], None)):
        selection = [dg.AssetKey(name) for name in tables]
        job.execute_in_process(partition_key=key, asset_selection=selection, instance=instance)
"""
FEWER = """
import dataclasses
from nift_assets import studies
demo = studies.load("demo")
teachers = tuple(dataclasses.replace(t, documents=64) if t.name == "echo" else t for t in demo.teachers)
STUDY = dataclasses.replace(demo, teachers=teachers)
"""


@pytest.mark.slow
def test_again_is_no_commit_and_another_row_is_one_that_says_so(place: Place, tmp_path: Path, counts: Counts) -> None:
    place.publish("--yes", "echo")
    repo = place.hub.repos["dataset", "me/nift-demo-echo"]
    before, commits = len(place.hub.log), len(repo.commits)
    again = place.publish("--yes", "echo")
    assert "nothing has changed, no commit was made" in again.stdout
    assert len(repo.commits) == commits
    assert [
        each for each in place.hub.log[before:] if each.method in ("PUT", "DELETE") or "/commit/" in each.path
    ] == []

    (tmp_path / "fewer.py").write_text(FEWER)
    environment = place.environment() | {"NIFT_STUDY": str(tmp_path / "fewer.py")}
    made = subprocess.run([sys.executable, "-c", MAKE], env=environment, cwd=PROJECT, capture_output=True, text=True)
    assert made.returncode == 0, made.stderr
    pushed = nift("publish", "--yes", "echo", environment=environment)
    assert pushed.returncode == 0, pushed.stderr
    title = repo.head.title
    assert len(repo.commits) == commits + 1
    assert "requests: 2 rows removed" in title
    assert "README.md changed" in title
    assert len(repo.tags) == 2
    counts("E6", f"pushed again: 0 commits; with two documents fewer: 1 commit, {title!r}")


@pytest.mark.slow
def test_an_adapter_and_a_model_are_published_with_what_they_are(place: Place, counts: Counts) -> None:
    pushed = place.publish("--yes", "adapter", "model")
    assert pushed.returncode == 0, pushed.stderr
    for kind, partition, name in (
        ("adapters", "pico.echo-filtered", "me/nift-demo-echo-lora"),
        ("models", "pico.echo-filtered.lora", "me/nift-demo-echo-merged"),
    ):
        repo = place.hub.repos["model", name]
        row = place.table(f"hub_{kind}", partition).row(0, named=True)
        card = place.hub.content(repo, "README.md").decode()
        assert row["files_read_back"] == row["files"]
        assert "echo-filtered: " in card
        assert "| data version | " in card
        assert "| MT-Bench (1-10) |" in card
        assert "Demo scores mean nothing" in card
        assert "MT-Bench is judged by `" in card
        weights = next(path for path in repo.head.files if path.endswith(".safetensors"))
        of = place.table("lora_adapters", partition) if kind == "adapters" else place.table("merged_models", partition)
        folder = place.demo.warehouse / "demo" / of["folder"][0]
        assert place.hub.content(repo, weights) == (folder / weights).read_bytes()
    counts("E6", "an adapter and a merged model: 1 commit each, weights read back by their sha256")

"""Pushing: one commit or none, whatever breaks on the way, and never over what is somebody else's."""

from __future__ import annotations

import hashlib
import io
import re
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from huggingface_hub import constants

from nift_assets import crash_points
from nift_assets.hub import repository
from nift_assets.rows import Publication
from nift_training import artifacts
from tests.counting import Counts
from tests.hub import pushing
from tests.hub.conftest import WAYS
from tests.hub.pushing import CARD, PROJECT, ROWS, SHARDS, TAG, TOKEN, publication, push, write
from tests.hub.server import Fault, Hub, killing, person

POINTS = [point for point in crash_points.POINTS if point.startswith("hub_")]
KILLED = [
    pytest.param(point, way, marks=() if (point, way) == ("hub_after_upload", "xet") else pytest.mark.slow)
    for way in WAYS
    for point in POINTS
]
# What came in by xet is forgotten by its client until its storage has been told which files it is of.
AT_MOST = {"xet": 2, "lfs": 1}
SILENT = (
    *(("xet", path) for path in (r"GET /api/whoami", r"POST /api/repos/create", r"GET .*/tree", r"POST .*/preupload/")),
    *(("xet", path) for path in (r"GET .*/xet-write-token", r"POST /xet/v1/xorbs/", r"POST /xet/v1/shards")),
    *(("lfs", path) for path in (r"POST .*objects/batch", r"PUT /lfs/")),
    ("xet", r"POST .*/tag/"),
)


def ours(hub: Hub) -> Any:
    return hub.repos["dataset", "me/nift"]


# ---------- what a push is


@pytest.mark.fault("E6")
@pytest.mark.parametrize("way", WAYS, indirect=True)
def test_a_push_is_one_commit_with_everything_and_again_none(
    way: str, tmp_path: Path, hub: Hub, counts: Counts
) -> None:
    folder = write(tmp_path / "folder")
    revision, found = push(folder, publication())
    repo = ours(hub)
    assert repo.private
    assert [commit.title for commit in repo.commits] == ["initial commit", "a title"]
    assert repo.head.oid == revision == repo.tags[TAG]
    assert set(repo.head.files) == {*SHARDS, "README.md", repository.MARKER, ".gitattributes"}
    for file in artifacts.verify(folder).files:
        assert hub.content(repo, file.name) == (folder / file.name).read_bytes()
    assert (found.files, found.rows) == (5, 3 * ROWS)
    before = len(hub.log)
    assert push(folder, publication())[0] == revision
    assert len(repo.commits) == 2
    again = [each for each in hub.log[before:] if each.method != "GET" and each.method != "HEAD"]
    assert [each for each in again if "paths-info" not in each.path] == []
    assert hub.tokens_elsewhere == 0
    assert bool(hub.asked(r"POST /xet/v1/shards 200")) == (way == "xet") == (not hub.asked(r"PUT /lfs/"))
    assert hub.asked(r"telemetry") == []
    counts("E6", f"by {way}, the same again: {len(hub.log) - before} requests that read, 0 that write, 0 commits")


@pytest.mark.parametrize("way", ["lfs"], indirect=True)
def test_large_files_go_in_parts_where_the_hub_asks_for_it(way: str, tmp_path: Path, hub: Hub) -> None:
    hub.part_bytes = 500
    folder = write(tmp_path / "folder")
    push(folder, publication())
    assert len(hub.asked(r"^PUT /lfs/")) > 3
    for name in SHARDS:
        assert hub.content(ours(hub), name) == (folder / name).read_bytes()


@pytest.mark.parametrize("way", WAYS, indirect=True)
def test_what_changed_is_one_commit_and_alone_is_sent(way: str, tmp_path: Path, hub: Hub) -> None:
    push(write(tmp_path / "first"), publication())
    other = io.BytesIO()
    pl.DataFrame({"document_id": ["another"], "place": 0}).write_parquet(other)
    before = hub.arrived.copy()
    push(write(tmp_path / "second", changed={SHARDS[1]: other.getvalue()}), publication(), message="one row")
    assert [commit.title for commit in ours(hub).commits[1:]] == ["a title", "one row"]
    assert (hub.arrived - before) == {hashlib.sha256(other.getvalue()).hexdigest(): 1}
    assert hub.content(ours(hub), SHARDS[1]) == other.getvalue()


def test_what_is_gone_here_goes_there_in_the_same_commit(tmp_path: Path, hub: Hub) -> None:
    push(write(tmp_path / "first", changed={"old/notes.md": b"old"}), publication())
    push(write(tmp_path / "second"), publication())
    assert "old/notes.md" not in ours(hub).head.files
    assert ".gitattributes" in ours(hub).head.files
    assert len(ours(hub).commits) == 3


# ---------- killed


@pytest.mark.fault("E6")
@pytest.mark.parametrize(("point", "way"), KILLED, indirect=["way"])
def test_a_killed_push_goes_on_and_sends_nothing_twice(
    point: str, way: str, tmp_path: Path, hub: Hub, counts: Counts
) -> None:
    folder = write(tmp_path / "folder")
    killed = pushing.process(folder, publication(), hub.url, crash=f"{point}:1")
    printed, _ = killed.communicate(timeout=60)
    assert killed.returncode == -9, printed
    commits = len(ours(hub).commits) if hub.repos else 0
    revision, found = push(folder, publication())
    assert [commit.title for commit in ours(hub).commits] == ["initial commit", "a title"]
    assert ours(hub).tags == {TAG: revision}
    assert found.files == 5
    assert hub.most_arrivals == 1
    assert len(hub.asked(r"POST /api/repos/create 200")) == 1
    counts("E6", f"killed at {point} by {way}: {commits} commits there, 1 of ours after the next run, 0 sent twice")


@pytest.mark.parametrize(
    ("way", "request_"),
    [("lfs", r"^POST /lfs/verify"), pytest.param("xet", r"^POST /xet/v1/shards", marks=pytest.mark.slow)],
    indirect=["way"],
)
def test_a_push_killed_among_its_uploads_goes_on(
    way: str, request_: str, tmp_path: Path, hub: Hub, counts: Counts
) -> None:
    folder = write(tmp_path / "folder")
    process = pushing.process(folder, publication(), hub.url)
    with killing(hub, request_, 1, process.kill):
        process.communicate(timeout=60)
    assert len(ours(hub).commits) == 1
    push(folder, publication())
    assert len(ours(hub).commits) == 2
    assert hub.most_arrivals <= AT_MOST[way]
    counts("E6", f"killed among uploads by {way}: 1 commit after the next run, sent {hub.most_arrivals} times at most")


# ---------- what breaks on the way


@pytest.mark.fault("E6")
@pytest.mark.parametrize(
    ("way", "fault"),
    [
        ("xet", Fault(r"GET /api/whoami", times=2, status=503)),
        ("xet", Fault(r"POST /api/repos/create", times=2, status=500)),
        ("xet", Fault(r"POST /api/repos/create", done=True)),
        pytest.param("xet", Fault(r"GET /api/datasets/me/nift/tree", times=2, status=502), marks=pytest.mark.slow),
        ("xet", Fault(r"POST .*/preupload/", times=2, status=503)),
        ("xet", Fault(r"GET .*/xet-write-token/", times=2, status=503)),
        ("xet", Fault(r"POST /xet/v1/xorbs/", times=2, status=503)),
        ("xet", Fault(r"POST /xet/v1/xorbs/", times=2, after=100)),
        pytest.param("xet", Fault(r"POST /xet/v1/xorbs/", done=True), marks=pytest.mark.slow),
        ("xet", Fault(r"POST /xet/v1/shards", times=2, status=500)),
        pytest.param("xet", Fault(r"POST /xet/v1/shards", done=True), marks=pytest.mark.slow),
        pytest.param("lfs", Fault(r"POST .*objects/batch", times=2, status=504), marks=pytest.mark.slow),
        pytest.param("lfs", Fault(r"PUT /lfs/", times=2, status=500), marks=pytest.mark.slow),
        ("lfs", Fault(r"PUT /lfs/", times=2, after=100)),
        ("xet", Fault(r"POST /api/validate-yaml", times=1, status=503)),
        ("xet", Fault(r"POST /api/datasets/me/nift/commit", times=3, status=503)),
        pytest.param("xet", Fault(r"POST /api/datasets/me/nift/commit", times=1, after=10), marks=pytest.mark.slow),
        ("xet", Fault(r"POST /api/datasets/me/nift/commit", done=True)),
        ("xet", Fault(r"POST /api/datasets/me/nift/tag", times=2, status=500)),
        pytest.param("xet", Fault(r"POST /api/datasets/me/nift/tag", done=True), marks=pytest.mark.slow),
    ],
    ids=lambda value: (
        f"{value.pattern.split()[0]} {value.pattern.strip('/').split('/')[-1]} {value.status or value.after or 'lost'}"
        if isinstance(value, Fault)
        else value
    ),
    indirect=["way"],
)
def test_what_breaks_for_a_while_ends_in_one_commit(
    way: str, fault: Fault, tmp_path: Path, hub: Hub, waits: list[float], counts: Counts
) -> None:
    hub.faults.append(fault)
    revision, found = push(write(tmp_path / "folder"), publication())
    assert fault.times == 0
    assert [commit.title for commit in ours(hub).commits] == ["initial commit", "a title"]
    assert ours(hub).tags == {TAG: revision}
    assert found == repository.ReadBack(5, 3 * ROWS)
    counts("E6", f"{fault.pattern} {fault.status or 'cut'}: 1 commit, after {len(waits)} waits")


def test_the_hubs_own_wish_how_long_to_wait_is_followed(tmp_path: Path, hub: Hub, waits: list[float]) -> None:
    hub.faults.append(Fault(r"POST .*/commit/", status=429, headers={"Retry-After": "7"}))
    hub.faults.append(Fault(r"POST .*/tag/", status=429, headers={"Retry-After": "9999"}))
    push(write(tmp_path / "folder"), publication())
    assert 7.0 in waits
    assert max(waits) == repository.LONGEST_WAIT


@pytest.mark.fault("E6")
@pytest.mark.parametrize(
    ("way", "fault", "says"),
    [
        ("xet", Fault(r"POST .*/commit/", times=99, status=503), "answered 503 when we pushed to me/nift"),
        ("xet", Fault(r"POST /xet/v1/xorbs/", times=99, after=10), "run it again, what the Hub has taken"),
        ("xet", Fault(r"POST /xet/v1/shards", times=99, status=403, message="Storage quota exceeded"), "403"),
        ("lfs", Fault(r"PUT /lfs/", times=99, after=10), "run it again, what the Hub has taken"),
        (
            "lfs",
            Fault(r"POST .*objects/batch", times=99, status=403, message="Private storage limit reached"),
            "limit reached",
        ),
        ("xet", Fault(r"POST .*/commit/", times=99, status=403, message="Storage quota exceeded"), "quota exceeded"),
    ],
    indirect=["way"],
)
def test_what_does_not_stop_breaking_is_one_line_and_no_commit(
    way: str, fault: Fault, says: str, tmp_path: Path, hub: Hub, waits: list[float]
) -> None:
    hub.faults.append(fault)
    folder = write(tmp_path / "folder")
    with pytest.raises(ValueError, match=says) as refused:
        push(folder, publication())
    assert "\n" not in str(refused.value)
    assert TOKEN not in str(refused.value)
    assert len(ours(hub).commits) == 1
    hub.faults.clear()
    push(folder, publication())
    assert len(ours(hub).commits) == 2
    assert hub.most_arrivals <= AT_MOST[way]


@pytest.mark.parametrize(
    ("way", "asked"),
    [
        ("xet", r"POST /api/datasets/me/nift/commit"),
        *(pytest.param(*each, marks=pytest.mark.slow) for each in SILENT),
    ],
    indirect=["way"],
)
def test_a_hub_that_takes_a_request_and_never_answers_is_not_waited_for_without_end(
    way: str, asked: str, tmp_path: Path, hub: Hub, waits: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write(tmp_path / "folder")
    hub.faults.append(Fault(asked, times=99, silent=True))
    with monkeypatch.context() as hurried:
        hurried.setattr(repository, "SECONDS_TO_ANSWER", 2.0)
        hurried.setattr(repository, "SECONDS_TO_UPLOAD", 20.0)
        hurried.setenv("HF_XET_CLIENT_READ_TIMEOUT", "2s")
        said = r"to the end when we .*(ReadTimeout: timed out|error sending request|did not end within 20 s).*; run it"
        with pytest.raises(ValueError, match=said):
            push(folder, publication())
    hub.faults.clear()
    revision, found = push(folder, publication())
    assert [commit.title for commit in ours(hub).commits] == ["initial commit", "a title"]
    assert (ours(hub).tags, found.files) == ({TAG: revision}, 5)
    assert hub.most_arrivals <= AT_MOST[way]


def test_who_commits_meanwhile_is_not_overwritten(tmp_path: Path, hub: Hub, counts: Counts) -> None:
    push(write(tmp_path / "first"), publication())
    folder = write(tmp_path / "second", changed={"README.md": CARD.encode() + b"more"})
    manifest = artifacts.read_manifest(folder)
    to = repository.find(repository.connect(TOKEN), pushing.STUDY, publication())
    looked = repository.state_of(to)
    theirs = write(tmp_path / "third", changed={"README.md": CARD.encode() + b"theirs"})
    push(theirs, publication(), message="theirs")
    with pytest.raises(ValueError, match="somebody else has committed to me/nift meanwhile; nothing of this was"):
        repository.push(to, folder, manifest, looked, message="ours", tag=TAG)
    assert [commit.title for commit in ours(hub).commits[1:]] == ["a title", "theirs"]
    push(folder, publication(), message="ours")
    assert ours(hub).head.title == "ours"
    counts("E6", "a commit by somebody else between looking and pushing: refused, 0 overwritten")


# ---------- refused before anything is sent


@pytest.mark.fault("E6")
@pytest.mark.parametrize(
    ("row", "who", "says"),
    [
        (publication(), person("me", role="read"), "the token may only read"),
        (publication(repository="they/nift"), person("me"), "belongs to 'me', who is not in 'they'"),
        (publication(repository="ours/nift"), person("me", orgs={"ours": "read"}), "may only read in 'ours'"),
        (publication(), person("me", role="fineGrained", scoped=[]), "the token may not write to 'me'"),
        (
            publication(),
            person(
                "me",
                role="fineGrained",
                scoped=[{"entity": {"name": "me/other"}, "permissions": ["repo.write"]}],
            ),
            "the token may not write to 'me'",
        ),
        (publication(), None, "answered 401 when we asked who the token belongs to"),
    ],
)
def test_a_token_that_may_not_write_is_refused_before_anything_is_sent(
    row: Publication, who: Any, says: str, tmp_path: Path, hub: Hub, counts: Counts
) -> None:
    hub.tokens = {TOKEN: who} if who else {}
    with pytest.raises(ValueError, match=says) as refused:
        push(write(tmp_path / "folder"), row)
    assert TOKEN not in str(refused.value)
    assert hub.writes == []
    assert [each.path for each in hub.log] == ["/api/whoami-v2"]
    counts("E6", f"{says}: refused after 1 request, 0 writes")


@pytest.mark.fault("X8")
def test_a_fine_grained_token_for_the_repository_alone_is_enough(tmp_path: Path, hub: Hub) -> None:
    scope = {"entity": {"name": "me/nift"}, "permissions": ["repo.content.read", "repo.write"]}
    hub.tokens = {TOKEN: person("me", role="fineGrained", scoped=[scope])}
    assert push(write(tmp_path / "folder"), publication())[1].files == 5


@pytest.mark.fault("E6")
@pytest.mark.parametrize(
    ("files", "private", "says"),
    [
        ({"README.md": b"mine", "data.csv": b"1"}, True, "holds files and no nift.json of ours"),
        ({repository.MARKER: b"[]"}, True, "holds files and no nift.json of ours"),
        ({repository.MARKER: b'{"made_by": "nift", "of": {"teacher": "other"}}'}, True, "the teacher 'other'"),
        ({".gitattributes": b""}, False, "me/nift is public, and the row says private"),
    ],
)
def test_a_repository_that_is_not_ours_is_left_alone(
    files: dict[str, bytes], private: bool, says: str, tmp_path: Path, hub: Hub, counts: Counts
) -> None:
    hub.hold("me/nift", files, private=private)
    with pytest.raises(ValueError, match=says):
        push(write(tmp_path / "folder"), publication())
    assert hub.writes == []
    counts("E6", f"{says}: refused, 0 writes")


def test_a_renamed_repository_is_named_and_left_alone(tmp_path: Path, hub: Hub) -> None:
    push(write(tmp_path / "folder"), publication())
    repo = hub.repos.pop(("dataset", "me/nift"))
    repo.name = "me/nift-2"
    hub.repos["dataset", "me/nift-2"] = repo
    hub.renamed["dataset", "me/nift"] = "me/nift-2"
    before = len(hub.writes)
    with pytest.raises(ValueError, match="me/nift has been renamed to me/nift-2; write that into the row"):
        push(tmp_path / "folder", publication())
    assert len(hub.writes) == before
    assert push(tmp_path / "folder", publication(repository="me/nift-2"))[0] == repo.head.oid


def test_an_empty_repository_somebody_made_by_hand_is_used(tmp_path: Path, hub: Hub) -> None:
    hub.hold("me/nift", {".gitattributes": b""}, private=True)
    push(write(tmp_path / "folder"), publication())
    assert len(ours(hub).commits) == 2


@pytest.mark.parametrize("url", ["http://hub.example", "http://127.0.0.1.evil.example:80"])
def test_no_token_goes_over_plain_http_to_another_machine(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", url)
    with pytest.raises(ValueError, match="not sent over plain HTTP"):
        repository.connect(TOKEN)


def test_a_token_is_read_from_the_environment_or_a_file_and_an_empty_one_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", " ")
    assert repository.token() is None
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    monkeypatch.setenv("HF_TOKEN_FILE", str(tmp_path / "token"))
    assert repository.token() == TOKEN


@pytest.mark.fault("X8")
def test_nobody_logs_in() -> None:
    """A token is an argument: a login would write it to the disk."""
    for package in ("nift_assets", "nift_training", "dagster_project"):
        for path in (PROJECT / package).rglob("*.py"):
            assert not re.search(r"\b(login|save_token|set_access_token)\(|git_credential", path.read_text()), path

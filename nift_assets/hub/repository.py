"""One repository of the Hub: who may write to it, what lies there, what would change, and the commit that changes it.

A repository is ours if it holds a `nift.json` that names this publication; any other that has files is left alone. All
refusals come before the first byte is uploaded.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from nift_assets import crash_points, providers
from nift_assets.hub import huggingface_internals
from nift_assets.rows import Publication
from nift_assets.secrets import keys, redaction
from nift_training.artifacts import Manifest

if TYPE_CHECKING:
    import httpx2
    from huggingface_hub import HfApi

MARKER = "nift.json"
# What the Hub itself puts into a new repository.
THE_HUBS_OWN = frozenset({".gitattributes"})
TOKEN = "HF_TOKEN"
TRIES = 6
LONGEST_WAIT = 60.0
# huggingface_hub waits without end for a server that takes a request and never answers it. It asks six times for a
# listing or an upload by git LFS, so one that hangs ends after 13 minutes, any other call after two. By xet each part
# of an upload has an end but the last, so the whole of it gets one: an hour, and what the slowest of lines takes.
SECONDS_TO_CONNECT = 30.0
SECONDS_TO_ANSWER = 120.0
SECONDS_TO_UPLOAD = 3600.0
SLOWEST_BYTES_PER_SECOND = 100_000
PASSING = frozenset({429, 500, 502, 503, 504})
CONFLICTS = frozenset({409, 412})
# Files up to this size are fetched whole when a commit is read back; of larger ones the Hub's own sha256 counts.
SMALL = 2**20

Action = Literal["new", "changed", "removed", "same"]
T = TypeVar("T")


@dataclass(frozen=True)
class Repository:
    """Where a publication of a study goes, by its whole name, and the client that may write there."""

    api: HfApi
    study: str
    publication: Publication
    name: str

    @property
    def kind(self) -> str:
        return self.publication.kind


@dataclass(frozen=True)
class RemoteFile:
    """A file as the Hub lists it: its size, and the sha256 of its content or else git's name for it."""

    bytes: int
    oid: str
    sha256: str | None


@dataclass(frozen=True)
class RepositoryState:
    """What a repository holds at the commit `head`; `marker` is our `nift.json`, None if there is none."""

    head: str
    private: bool
    files: Mapping[str, RemoteFile]
    marker: Mapping[str, Any] | None
    tags: Mapping[str, str]


@dataclass(frozen=True)
class Change:
    """What a commit would do to one file."""

    path: str
    action: Action
    bytes: int


@dataclass(frozen=True)
class ReadBack:
    """How much of a commit was found as it was written: files, and rows of its Parquet files."""

    files: int
    rows: int


def of(study: str, publication: Publication) -> dict[str, str | None]:
    """Whose data a repository holds, as our `nift.json` says it."""
    row = publication
    return {"study": study, "teacher": row.teacher, "adapter": row.adapter, "model": row.model}


def token() -> str | None:
    """The token of the environment, None without one; it is passed on as an argument and kept nowhere."""
    return keys.read(TOKEN)


def connect(token: str | None) -> HfApi:
    """The Hub, or the server that `HF_ENDPOINT` names, as a stranger without a token; over plain HTTP no
    token travels to another machine."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")  # hf_xet reports on uploads that take minutes
    from huggingface_hub import HfApi, constants, set_client_factory

    if token and constants.ENDPOINT.startswith("http://") and providers.endpoint(constants.ENDPOINT) != "local":
        raise ValueError(f"HF_ENDPOINT is {constants.ENDPOINT}: a token is not sent over plain HTTP; use https://")
    set_client_factory(_client)
    return HfApi(token=token or False)  # and not the one that a person has logged in with


def _client() -> httpx2.Client:
    """huggingface_hub's own client, but that its patience ends, also where it asks for a patience without end."""
    client = huggingface_internals.default_client()
    client.event_hooks["request"].append(_limit_patience)
    return client


def _limit_patience(request: httpx2.Request) -> None:
    most = {"connect": SECONDS_TO_CONNECT, "read": SECONDS_TO_ANSWER, "write": SECONDS_TO_ANSWER}
    asked = request.extensions.get("timeout", {})
    request.extensions["timeout"] = most | {name: limit for name, limit in asked.items() if limit is not None}


def find(api: HfApi, study: str, publication: Publication) -> Repository:
    """The repository a publication goes to, whether it exists or not; ValueError if this token may not write there."""
    with _explained(publication, "asked who the token belongs to"):
        who = _persistently(api.whoami)
    owner, _, name = publication.repository.rpartition("/")
    owner = owner or who["name"]
    if reason := _may_not_write(who, owner, f"{owner}/{name}"):
        raise ValueError(
            f"publication {publication.name!r}: {reason}; make a fine-grained token that may write to {owner}/{name} "
            f"and set {TOKEN} to it"
        )
    return Repository(api, study, publication, f"{owner}/{name}")


def state_of(to: Repository) -> RepositoryState | None:
    """What lies in the repository now, None if there is none; ValueError if it is not this publication's to change."""
    from huggingface_hub.errors import RepositoryNotFoundError

    with _explained(to.publication, f"looked at {to.name}"):
        try:
            info = _persistently(lambda: to.api.repo_info(to.name, repo_type=to.kind))
        except RepositoryNotFoundError:
            return None
        if info.id != to.name:
            raise ValueError(
                f"publication {to.publication.name!r}: {to.name} has been renamed to {info.id}; write that into the "
                "row, or choose another repository"
            )
        head = str(info.sha)
        remote = RepositoryState(
            head=head,
            private=bool(info.private),
            files=_persistently(lambda: _listed(to, head)),
            marker=None,
            tags=_persistently(lambda: _tags(to)),
        )
        if MARKER in remote.files:
            content = _persistently(lambda: _fetched(to, head, MARKER))
            remote = RepositoryState(remote.head, remote.private, remote.files, _marker(content), remote.tags)
    _refuse_foreign(to, remote)
    return remote


def changes(folder: Path, manifest: Manifest, remote: RepositoryState | None) -> list[Change]:
    """What a commit of the folder does to each file, by path: what the Hub has with the same content stays."""
    remote_files = remote.files if remote else {}
    uploads: list[Change] = []
    for file in manifest.files:
        old = remote_files.get(file.name)
        action: Action = "new" if old is None else "same" if _same(folder / file.name, file.sha256, old) else "changed"
        uploads.append(Change(file.name, action, file.bytes))
    ours = {file.name for file in manifest.files} | THE_HUBS_OWN
    removed = [Change(path, "removed", old.bytes) for path, old in remote_files.items() if path not in ours]
    return sorted([*uploads, *removed], key=lambda change: change.path)


def push(
    to: Repository, folder: Path, manifest: Manifest, remote: RepositoryState | None, *, message: str, tag: str
) -> str:
    """The commit that holds the folder, made unless it is there, and tagged with the version of its data.

    What a killed push had uploaded is not sent again: the Hub says which contents it has.
    """
    with _explained(to.publication, f"pushed to {to.name}"):
        crash_points.reach("hub_before_create")
        if remote is None:
            _create(to)
            remote = state_of(to)
            assert remote is not None, "it has just been made"
        crash_points.reach("hub_after_create")
        revision = _commit(to, folder, manifest, remote, message)
        crash_points.reach("hub_after_commit")
        if tag not in remote.tags:
            _persistently(
                lambda: to.api.create_tag(to.name, tag=tag, revision=revision, repo_type=to.kind, exist_ok=True)
            )
        crash_points.reach("hub_after_tag")
    return revision


def read_back(to: Repository, revision: str, folder: Path, manifest: Manifest) -> ReadBack:
    """What the Hub gives back of a commit: its listing, the small files whole, and the footers of Parquet files."""
    with _explained(to.publication, f"read {to.name} back"):
        listed = _persistently(lambda: _listed(to, revision))
        files = rows = 0
        for file in manifest.files:
            remote = listed.get(file.name)
            if remote is None or not _same(folder / file.name, file.sha256, remote):
                continue
            if file.bytes <= SMALL:
                content = _fetched(to, revision, file.name)
                if hashlib.sha256(content).hexdigest() != file.sha256:
                    continue
            files += 1
            if file.name.endswith(".parquet"):
                rows += _persistently(lambda name=file.name: _rows(to, revision, name))  # type: ignore[misc]
    return ReadBack(files, rows)


def fetch(to: Repository, revision: str, paths: Sequence[str], into: Path) -> None:
    """Files of a commit, each under its path in a folder."""
    with _explained(to.publication, f"fetched what {to.name} holds"):
        for path in paths:
            _persistently(
                lambda path=path: to.api.hf_hub_download(  # type: ignore[misc]
                    to.name, path, repo_type=to.kind, revision=revision, local_dir=into
                )
            )


def url(to: Repository, revision: str) -> str:
    """The address of a commit as a person opens it."""
    kind = "datasets/" if to.kind == "dataset" else ""
    return f"{to.api.endpoint}/{kind}{to.name}/tree/{revision}"


def _create(to: Repository) -> None:
    """A repository that was made though its answer was lost is found by the next try, and used: it is still empty."""
    _persistently(lambda: to.api.create_repo(to.name, repo_type=to.kind, private=to.publication.private, exist_ok=True))


def _commit(to: Repository, folder: Path, manifest: Manifest, remote: RepositoryState, message: str) -> str:
    """One commit on top of what was looked at, or none if the same is there; the commit that holds the folder."""
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete
    from huggingface_hub.errors import HfHubHTTPError

    wanted = [change for change in changes(folder, manifest, remote) if change.action != "same"]
    if not wanted:
        return remote.head
    written = [change.path for change in wanted if change.action != "removed"]
    removed = [CommitOperationDelete(change.path) for change in wanted if change.action == "removed"]
    additions = [CommitOperationAdd(path, folder / path) for path in written]
    # On its own, so that what is sent is on the Hub before the commit is tried, however often that is.
    size = sum(change.bytes for change in wanted if change.action != "removed")
    with _ended_after(SECONDS_TO_UPLOAD + size / SLOWEST_BYTES_PER_SECOND):
        to.api.preupload_lfs_files(to.name, additions, repo_type=to.kind, free_memory=False)
    crash_points.reach("hub_after_upload")
    title, _, description = message.partition("\n")
    for tries in range(TRIES):
        try:
            commit = to.api.create_commit(
                to.name,
                [*additions, *removed],
                commit_message=title,
                commit_description=description.strip(),
                repo_type=to.kind,
                parent_commit=remote.head,
            )
            return str(commit.oid)
        except Exception as error:
            # It may have been made though the answer was lost: then it is there.
            now = state_of(to)
            if now is not None and not any(c.action != "same" for c in changes(folder, manifest, now)):
                return now.head
            status = error.response.status_code if isinstance(error, HfHubHTTPError) else None
            if status in CONFLICTS or (now is not None and now.head != remote.head):
                raise ValueError(
                    f"publication {to.publication.name!r}: somebody else has committed to {to.name} meanwhile; nothing "
                    "of this was published, run it again"
                ) from error
            wait = _wait(error, tries)
            if wait is None:
                raise
            time.sleep(wait)
    raise AssertionError("the last try raises")


@contextmanager
def _ended_after(seconds: float) -> Iterator[None]:
    """An upload by xet, which is given up after so many seconds."""
    over = threading.Event()

    def end() -> None:
        over.set()
        huggingface_internals.abort_uploads()

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()
    try:
        yield
    except RuntimeError:
        if over.is_set():
            raise TimeoutError(f"the upload did not end within {seconds:,.0f} s") from None
        raise
    finally:
        timer.cancel()


def _may_not_write(who: Mapping[str, Any], owner: str, repository: str) -> str | None:
    """Why a token may not write to a repository, as far as the Hub says; None if it may."""
    organisations = {organisation["name"]: organisation.get("roleInOrg") for organisation in who.get("orgs", [])}
    if owner != who["name"] and owner not in organisations:
        return f"the token belongs to {who['name']!r}, who is not in {owner!r}"
    if organisations.get(owner) == "read":
        return f"{who['name']!r} may only read in {owner!r}"
    access = (who.get("auth") or {}).get("accessToken") or {}
    if access.get("role") == "read":
        return "the token may only read"
    if access.get("role") == "fineGrained":
        scopes = (access.get("fineGrained") or {}).get("scoped") or []
        granted = {
            str(scope.get("entity", {}).get("name")) for scope in scopes if "repo.write" in scope.get("permissions", [])
        }
        if not granted & {owner, repository}:
            return f"the token may not write to {owner!r}"
    return None


def _refuse_foreign(to: Repository, remote: RepositoryState) -> None:
    if remote.private != to.publication.private:
        is_, should = ("private", "public") if remote.private else ("public", "private")
        raise ValueError(
            f"publication {to.publication.name!r}: {to.name} is {is_}, and the row says {should}; change one of them"
        )
    if not set(remote.files) - THE_HUBS_OWN:
        return
    if remote.marker is None:
        raise ValueError(
            f"publication {to.publication.name!r}: {to.name} holds files and no {MARKER} of ours, so it is somebody's "
            "work; choose another repository"
        )
    if remote.marker.get("of") != of(to.study, to.publication):
        raise ValueError(
            f"publication {to.publication.name!r}: {to.name} holds {_named(remote.marker)}; choose another repository"
        )


def _named(marker: Mapping[str, Any]) -> str:
    origin = marker.get("of")
    named = origin if isinstance(origin, dict) else {}
    return ", ".join(f"the {kind} {name!r}" for kind, name in named.items() if name) or "another publication"


def _marker(content: bytes) -> Mapping[str, Any] | None:
    try:
        marker = json.loads(content)
    except ValueError:
        return None
    return marker if isinstance(marker, dict) and marker.get("made_by") == "nift" else None


def _listed(to: Repository, revision: str) -> dict[str, RemoteFile]:
    from huggingface_hub import RepoFile

    tree = to.api.list_repo_tree(to.name, recursive=True, revision=revision, repo_type=to.kind)
    return {
        entry.path: RemoteFile(entry.size, entry.blob_id, entry.lfs.sha256 if entry.lfs else None)
        for entry in tree
        if isinstance(entry, RepoFile)
    }


def _tags(to: Repository) -> dict[str, str]:
    refs = to.api.list_repo_refs(to.name, repo_type=to.kind)
    return {tag.name: tag.target_commit for tag in refs.tags}


def _fetched(to: Repository, revision: str, name: str) -> bytes:
    with tempfile.TemporaryDirectory(prefix="nift-") as scratch:
        path = to.api.hf_hub_download(to.name, name, repo_type=to.kind, revision=revision, local_dir=scratch)
        return Path(path).read_bytes()


def _rows(to: Repository, revision: str, name: str) -> int:
    """The rows of a Parquet file on the Hub, from its footer alone."""
    from huggingface_hub import HfFileSystem
    from pyarrow import parquet

    files = HfFileSystem(endpoint=to.api.endpoint, token=to.api.token, skip_instance_cache=True)
    with files.open(f"datasets/{to.name}/{name}", "rb", revision=revision, block_size=2**16) as file:
        return int(parquet.read_metadata(file).num_rows)


def _same(path: Path, digest: str, remote: RemoteFile) -> bool:
    if remote.sha256 is not None:
        return remote.sha256 == digest
    if path.stat().st_size != remote.bytes:
        return False
    content = path.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest() == remote.oid


def _persistently(call: Callable[[], T]) -> T:
    """What a call answers, tried again while the Hub is overloaded or out of reach."""
    for tries in range(TRIES):
        try:
            return call()
        except Exception as error:
            wait = _wait(error, tries)
            if wait is None:
                raise
            time.sleep(wait)
    raise AssertionError("the last try raises")


def _wait(error: Exception, tries: int) -> float | None:
    """How long to wait before the next try; None where there is none: it would end the same way."""
    import httpx2
    from huggingface_hub.errors import HfHubHTTPError

    if tries == TRIES - 1:
        return None
    patient = float(min(2**tries, LONGEST_WAIT)) / 2
    if isinstance(error, HfHubHTTPError):
        if error.response.status_code not in PASSING:
            return None
        asked = error.response.headers.get("Retry-After", "")
        return min(float(asked), LONGEST_WAIT) if asked.isdecimal() else patient
    if isinstance(error, httpx2.ReadTimeout | httpx2.WriteTimeout):
        return None  # it has been waited for long enough
    # A proxy's page in the place of JSON, or a connection that broke.
    return patient if isinstance(error, httpx2.TransportError | json.JSONDecodeError) else None


@contextmanager
def _explained(publication: Publication, doing: str) -> Iterator[None]:
    """Whatever the Hub or the way to it says, as one line that names the publication and carries no key."""
    import httpx2
    from huggingface_hub.errors import HfHubHTTPError

    try:
        yield
    except HfHubHTTPError as error:
        reason = getattr(error, "server_message", None) or str(error).strip().split("\n")[0]
        message = f"publication {publication.name!r}: the Hub answered {error.response.status_code} when we {doing}: "
        raise ValueError(message + redaction.redact(" ".join(str(reason).split()))) from None
    except (httpx2.HTTPError, RuntimeError, OSError) as error:
        cause = error.__cause__ or error
        raise ValueError(
            f"publication {publication.name!r}: the Hub could not be reached to the end when we {doing} "
            f"({type(cause).__name__}: {redaction.safe(cause)}); run it again, what the Hub has taken is not sent again"
        ) from None

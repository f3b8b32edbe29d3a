"""A Hugging Face Hub on this machine: the part of its protocol that huggingface_hub and datasets speak, and faults.

Repositories have commits, tags and files; large files go the way of xet, or of git LFS in one piece or in parts, as the
client chooses. What the log says was asked is the evidence of the tests; the product knows of this server by
`HF_ENDPOINT` alone.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import yaml

from tests.corpus.loopback import Loopback
from tests.hub import xet

LARGE = re.compile(r"\.(parquet|safetensors|bin|arrow)$")
LARGE_BYTES = 10 * 2**20
GIT_ATTRIBUTES = b"*.parquet filter=lfs diff=lfs merge=lfs -text\n*.safetensors filter=lfs diff=lfs merge=lfs -text\n"
AT_ONCE = 2**20


@dataclass(frozen=True)
class File:
    """A file of a commit: git's name for it, its size, and the sha256 of a large one."""

    oid: str
    size: int
    sha256: str | None = None

    @property
    def blob(self) -> str:
        return self.sha256 or self.oid


@dataclass(frozen=True)
class Commit:
    oid: str
    title: str
    description: str
    files: Mapping[str, File]


@dataclass
class Repo:
    """A repository with its commits, the newest last, and its tags."""

    kind: str
    name: str
    private: bool
    commits: list[Commit]
    tags: dict[str, str] = field(default_factory=dict)

    @property
    def head(self) -> Commit:
        return self.commits[-1]

    def at(self, revision: str) -> Commit | None:
        wanted = self.tags.get(revision, revision)
        if wanted in ("main", "refs/heads/main"):
            return self.head
        return next((commit for commit in self.commits if commit.oid == wanted), None)


@dataclass(frozen=True)
class Asked:
    """A request as it was answered; status 0 where the connection was cut instead."""

    method: str
    path: str
    status: int
    received: int
    sent: int

    def __str__(self) -> str:
        return f"{self.method} {self.path} {self.status}"


@dataclass
class Fault:
    """What happens to the next `times` requests whose method and path a pattern finds.

    `status` is answered without anything being done; None cuts the connection: after `after` bytes of what is being
    sent, or with `done` when everything has been done and only the answer is lost. A `silent` one is taken and never
    answered, until the Hub ends.
    """

    pattern: str
    times: int = 1
    status: int | None = None
    message: str = "on purpose"
    headers: Mapping[str, str] = field(default_factory=dict)
    after: int = 0
    done: bool = False
    silent: bool = False


class Cut(Exception):
    """The connection ends here."""


class Answer(Exception):
    """The answer to a request, whoever of the handlers comes to it."""

    def __init__(self, status: int, body: Any = None, headers: Mapping[str, str] | None = None) -> None:
        self.status = status
        self.body = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.headers = {"Content-Type": "application/json", **(headers or {})}
        self.blob: tuple[Path, int, int] | None = None


def missing(code: str = "RepoNotFound") -> Answer:
    return Answer(404, {"error": "not found"}, {"X-Error-Code": code})


def person(
    name: str, *, role: str = "write", orgs: Mapping[str, str] | None = None, scoped: Any = None
) -> dict[str, Any]:
    """What whoami says of the owner of a token."""
    access: dict[str, Any] = {"displayName": "test", "role": role}
    if scoped is not None:
        access["fineGrained"] = {"global": [], "scoped": scoped}
    organisations = [{"type": "org", "name": org, "roleInOrg": mine} for org, mine in (orgs or {}).items()]
    auth = {"type": "access_token", "accessToken": access}
    return {"type": "user", "id": name, "name": name, "orgs": organisations, "auth": auth}


class Hub(Loopback):
    """The Hub, with the `tokens` it knows; files lie in a temporary folder for as long as it runs."""

    def __init__(self, tokens: Mapping[str, Mapping[str, Any]] | None = None, *, part_bytes: int | None = None) -> None:
        self.tokens = dict(tokens or {})
        self.part_bytes = part_bytes
        self.repos: dict[tuple[str, str], Repo] = {}
        self.renamed: dict[tuple[str, str], str] = {}
        self.log: list[Asked] = []
        self.faults: list[Fault] = []
        self.watch: Callable[[str], None] = lambda line: None
        self.tokens_elsewhere = 0
        self.lock = threading.RLock()
        self.ended = threading.Event()
        self.xorbs: dict[str, list[xet.Chunk]] = {}
        self.listed: dict[str, xet.Listed] = {}
        self.arrived: Counter[str] = Counter()
        self.blobs = Path(tempfile.mkdtemp(prefix="hub-"))
        super().__init__()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.ended.set()
        super().__exit__(kind, error, trace)
        shutil.rmtree(self.blobs, ignore_errors=True)

    # -- what a test sets up and reads ---------------------------------------------------------------------------------

    def hold(
        self, name: str, files: Mapping[str, bytes], *, kind: str = "dataset", private: bool = False, commit: str = ""
    ) -> Repo:
        """A repository somebody else has made, at one commit."""
        repo = Repo(kind, name, private, [])
        self._add(repo, {path: self._keep(path, content) for path, content in files.items()}, "theirs", "", commit)
        self.repos[kind, name] = repo
        return repo

    def content(self, repo: Repo, path: str, revision: str = "main") -> bytes:
        commit = repo.at(revision)
        assert commit is not None
        return (self.blobs / commit.files[path].blob).read_bytes()

    def asked(self, pattern: str) -> list[Asked]:
        """The requests whose line a pattern finds, in order."""
        return [each for each in self.log if re.search(pattern, str(each))]

    @property
    def writes(self) -> list[Asked]:
        """The requests that are meant to change something, validation and listings left out."""
        return self.asked(r"^(POST|PUT|DELETE) (?!/api/validate-yaml|.*/paths-info/|.*/preupload/|.*objects/batch)")

    @property
    def most_arrivals(self) -> int:
        """How often the file, part or chunk came in that came in most often."""
        return max(self.arrived.values())

    @property
    def sent(self) -> int:
        """The bytes of all answers."""
        return sum(each.sent for each in self.log)

    # -- what happens to files -----------------------------------------------------------------------------------------

    def _keep(self, path: str, content: bytes) -> File:
        oid = hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
        large = hashlib.sha256(content).hexdigest() if self.is_large(path, len(content)) else None
        kept = File(oid, len(content), large)
        (self.blobs / kept.blob).write_bytes(content)
        return kept

    def is_large(self, path: str, size: int) -> bool:
        return bool(LARGE.search(path)) or size > LARGE_BYTES

    def _add(self, repo: Repo, files: Mapping[str, File], title: str, description: str, oid: str = "") -> Commit:
        parent = repo.commits[-1].oid if repo.commits else ""
        listed = json.dumps([repo.name, parent, title, sorted((path, file.blob) for path, file in files.items())])
        commit = Commit(
            oid or hashlib.sha1(listed.encode(), usedforsecurity=False).hexdigest(), title, description, files
        )
        repo.commits.append(commit)
        return commit

    # -- the protocol --------------------------------------------------------------------------------------------------

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        hub = self

        class Handler(_Exchange):
            def answer(self) -> Answer:
                return hub.respond(self)

            @property
            def hub(self) -> Hub:
                return hub

        return Handler

    def respond(self, request: _Exchange) -> Answer:
        """The answer to a request, once its body has been read."""
        for pattern, act in ROUTES:
            found = re.fullmatch(pattern, f"{request.command.replace('HEAD', 'GET')} {request.path_only}")
            if found:
                return act(self, request, **found.groupdict())
        return Answer(404, {"error": f"no such address: {request.command} {request.path_only}"})

    def who(self, request: _Exchange) -> Mapping[str, Any] | None:
        token = (request.headers.get("authorization") or "").removeprefix("Bearer ")
        if token and token not in self.tokens:
            raise Answer(401, {"error": "Invalid credentials in Authorization header"})
        return self.tokens.get(token)

    def repo(self, request: _Exchange, kind: str, name: str, *, write: bool = False) -> Repo:
        """The repository a request is about; a private one is not there for strangers."""
        kind = (kind or "models").removesuffix("s").removeprefix("/") or "model"
        who = self.who(request)
        if new := self.renamed.get((kind, name)):
            raise Answer(307, {}, {"Location": request.path.replace(name, new, 1)})
        repo = self.repos.get((kind, name))
        owner = name.partition("/")[0]
        ours = who is not None and (owner == who["name"] or owner in [org["name"] for org in who["orgs"]])
        if repo is None or (repo.private and not ours):
            raise missing()
        if write and (not ours or who["auth"]["accessToken"]["role"] == "read"):
            raise Answer(403, {"error": "Forbidden: you must use a write token to upload to a repository."})
        return repo

    def commit_of(self, repo: Repo, revision: str) -> Commit:
        found = repo.at(unquote(revision))
        if found is None:
            raise missing("RevisionNotFound")
        return found

    def whoami(self, request: _Exchange) -> Answer:
        who = self.who(request)
        return Answer(200, who) if who else Answer(401, {"error": "Invalid username or password."})

    def create(self, request: _Exchange) -> Answer:
        who, wanted = self.who(request), request.json
        if who is None:
            return Answer(401, {"error": "Invalid username or password."})
        owner, kind = wanted.get("organization") or who["name"], wanted.get("type", "model")
        if who["auth"]["accessToken"]["role"] == "read":
            return Answer(403, {"error": "You don't have the rights to create a repository"})
        name = f"{owner}/{wanted['name']}"
        url = f"{self.url}/{'datasets/' if kind == 'dataset' else ''}{name}"
        if (kind, name) in self.repos:
            return Answer(409, {"error": "You already created this repo", "url": url})
        private = wanted.get("visibility") == "private" or bool(wanted.get("private"))
        repo = Repo(kind, name, private, [])
        self._add(repo, {".gitattributes": self._keep(".gitattributes", GIT_ATTRIBUTES)}, "initial commit", name)
        self.repos[kind, name] = repo
        return Answer(200, {"url": url, "name": name, "id": name})

    def info(self, request: _Exchange, kind: str, name: str, revision: str | None = None) -> Answer:
        repo = self.repo(request, kind, name)
        commit = self.commit_of(repo, revision or "main")
        siblings = [{"rfilename": path} for path in sorted(commit.files)]
        told = {"_id": name, "id": name, "sha": commit.oid, "private": repo.private, "siblings": siblings, "tags": []}
        return Answer(
            200, {**told, "author": name.partition("/")[0], "gated": False, "disabled": False, "downloads": 0}
        )

    def refs(self, request: _Exchange, kind: str, name: str) -> Answer:
        repo = self.repo(request, kind, name)
        main = {"name": "main", "ref": "refs/heads/main", "targetCommit": repo.head.oid}
        tags = [{"name": tag, "ref": f"refs/tags/{tag}", "targetCommit": oid} for tag, oid in repo.tags.items()]
        return Answer(200, {"branches": [main], "converts": [], "tags": tags})

    def tag(self, request: _Exchange, kind: str, name: str, revision: str) -> Answer:
        repo = self.repo(request, kind, name, write=True)
        commit, wanted = self.commit_of(repo, revision), request.json["tag"]
        if wanted in repo.tags:
            return Answer(409, {"error": f"Tag {wanted} already exists"})
        repo.tags[wanted] = commit.oid
        return Answer(200, {})

    def validate(self, request: _Exchange) -> Answer:
        head = re.match(r"---\n(.*?)\n---\n", request.json["content"], re.DOTALL)
        try:
            said = yaml.safe_load(head[1]) if head else {}
        except yaml.YAMLError as error:
            return Answer(400, {"errors": [{"message": str(error)}], "warnings": []}, {"X-Error-Code": "BadRequest"})
        warnings = [] if "license" in said else [{"message": "empty or missing yaml metadata in repo card"}]
        return Answer(200, {"errors": [], "warnings": warnings})

    def preupload(self, request: _Exchange, kind: str, name: str, revision: str) -> Answer:
        repo = self.repo(request, kind, name, write=True)
        there = self.commit_of(repo, revision).files
        modes = [
            {
                "path": file["path"],
                "uploadMode": "lfs" if self.is_large(file["path"], file["size"]) else "regular",
                "shouldIgnore": False,
                "oid": there[file["path"]].blob if file["path"] in there else None,
            }
            for file in request.json["files"]
        ]
        return Answer(200, {"files": modes})

    def batch(self, request: _Exchange, kind: str, name: str) -> Answer:
        """Where to send which contents; those that are there have no action."""
        self.repo(request, kind, name, write=True)
        return Answer(200, {"transfer": "basic", "objects": [self._action(each) for each in request.json["objects"]]})

    def _action(self, wanted: Mapping[str, Any]) -> dict[str, Any]:
        oid, size = wanted["oid"], wanted["size"]
        if (self.blobs / oid).exists():
            return {"oid": oid, "size": size}
        verify = {"href": f"{self.url}/lfs/verify"}
        if self.part_bytes is None or size <= self.part_bytes:
            return {
                "oid": oid,
                "size": size,
                "actions": {"upload": {"href": f"{self.url}/lfs/{oid}"}, "verify": verify},
            }
        parts = {str(n + 1): f"{self.url}/lfs/{oid}/{n + 1}" for n in range(-(-size // self.part_bytes))}
        header = {"chunk_size": str(self.part_bytes), **parts}
        upload = {"href": f"{self.url}/lfs/{oid}/complete", "header": header}
        return {"oid": oid, "size": size, "actions": {"upload": upload, "verify": verify}}

    def upload(self, request: _Exchange, oid: str, part: str | None = None) -> Answer:
        assert request.spooled is not None
        if part is None and request.digest != oid:
            return Answer(400, {"error": "the content has another sha256"})
        request.spooled.rename(self.blobs / (f"{oid}.{part}" if part else oid))
        self.arrived.update([request.digest])
        return Answer(200, {}, {"ETag": f'"{request.digest}"'})

    def complete(self, request: _Exchange, oid: str) -> Answer:
        hashed = hashlib.sha256()
        whole = self.blobs / f".{oid}"
        with whole.open("wb") as file:
            for part in request.json["parts"]:
                content = (self.blobs / f"{oid}.{part['partNumber']}").read_bytes()
                file.write(content)
                hashed.update(content)
        if hashed.hexdigest() != oid:
            return Answer(400, {"error": "the parts have another sha256"})
        whole.rename(self.blobs / oid)
        return Answer(200, {})

    def verify(self, request: _Exchange) -> Answer:
        path = self.blobs / request.json["oid"]
        whole = path.exists() and path.stat().st_size == request.json["size"]
        return Answer(200, {}) if whole else Answer(404, {"error": "the object is not here"})

    def xet_token(self, request: _Exchange, kind: str, name: str, scope: str, revision: str) -> Answer:
        self.repo(request, kind, name, write=scope == "write")
        # Another host, as xet's storage is, that is told a token of its own.
        cas, until = f"{self.url.replace('127.0.0.1', 'localhost')}/xet", int(time.time()) + 3600
        headers = {"X-Xet-Cas-Url": cas, "X-Xet-Access-Token": "xet_1", "X-Xet-Token-Expiration": str(until)}
        return Answer(200, {"casUrl": cas, "accessToken": "xet_1", "exp": until}, headers)

    def xorb(self, request: _Exchange, oid: str) -> Answer:
        self._check_xet(request)
        new = oid not in self.xorbs
        self.xorbs[oid] = xet.chunks(request.body)
        self.arrived.update(hashlib.sha256(chunk.content).hexdigest() for chunk in self.xorbs[oid])
        (self.blobs / f"xorb-{oid}").write_bytes(request.body)
        return Answer(200, {"was_inserted": new})

    def shard(self, request: _Exchange) -> Answer:
        """Files are there as of now, made of what was sent of them."""
        self._check_xet(request)
        for file in xet.files(request.body):
            hashed, path = hashlib.sha256(), self.blobs / f".{file.sha256}"
            with path.open("wb") as whole:
                for chunk in xet.whole(file.terms, self.xorbs):
                    whole.write(chunk)
                    hashed.update(chunk)
            if hashed.hexdigest() != file.sha256:
                return Answer(400, {"error": "the chunks have another sha256"})
            path.rename(self.blobs / file.sha256)
            self.listed[file.sha256] = file
        return Answer(200, {"result": 1})

    def reconstruction(self, request: _Exchange, oid: str) -> Answer:
        self._check_xet(request)
        file = next((each for each in self.listed.values() if each.hash == oid), None)
        if file is None:
            return missing("EntryNotFound")
        first = int((request.headers.get("range") or "bytes=0-").removeprefix("bytes=").partition("-")[0])
        if first >= (self.blobs / file.sha256).stat().st_size:
            return Answer(416, {"error": "Range Not Satisfiable"})
        return Answer(200, xet.reconstruction(file.terms, self.xorbs, first, f"{self.url}/xet/stored/"))

    def stored(self, request: _Exchange, oid: str) -> Answer:
        self.tokens_elsewhere += bool(request.headers.get("authorization"))
        return self._send(request, f"xorb-{oid}", {})

    def _check_xet(self, request: _Exchange) -> None:
        if request.headers.get("authorization") != "Bearer xet_1":
            self.tokens_elsewhere += bool(request.headers.get("authorization"))
            raise Answer(401, {"error": "Unauthorized"})

    def commit(self, request: _Exchange, kind: str, name: str, revision: str) -> Answer:
        repo = self.repo(request, kind, name, write=True)
        lines = [json.loads(line) for line in request.body.splitlines() if line]
        header = next(line["value"] for line in lines if line["key"] == "header")
        if header.get("parentCommit") not in (None, repo.head.oid):
            return Answer(412, {"error": "A commit has happened since. Please refresh and try again."})
        files = dict(repo.head.files)
        for line in lines:
            said = line["value"]
            if line["key"] == "file":
                files[said["path"]] = self._keep(said["path"], base64.b64decode(said["content"]))
            elif line["key"] == "lfsFile":
                if not (self.blobs / said["oid"]).exists():
                    return Answer(400, {"error": f"LFS object {said['oid']} is missing"})
                files[said["path"]] = File(hashlib.sha1(said["oid"].encode()).hexdigest(), said["size"], said["oid"])
            elif line["key"] == "deletedFile":
                del files[said["path"]]
        made = self._add(repo, files, header["summary"], header.get("description", ""))
        url = f"{self.url}/{name}/commit/{made.oid}"
        return Answer(200, {"success": True, "commitOid": made.oid, "commitUrl": url, "hookOutput": ""})

    def tree(self, request: _Exchange, kind: str, name: str, revision: str, path: str | None = None) -> Answer:
        commit = self.commit_of(self.repo(request, kind, name), revision)
        whole = request.query.get("recursive", ["false"])[0].lower() in ("true", "1")
        folder = PurePosixPath(unquote(path or "").strip("/"))
        entries = {str(p) for f in commit.files for p in (PurePosixPath(f), *PurePosixPath(f).parents[:-1])}
        inside = [p for p in map(PurePosixPath, sorted(entries)) if folder in p.parents]
        listed = [str(p) for p in inside if whole or p.parent == folder]
        if not listed and str(folder) != ".":
            return missing("EntryNotFound")
        return Answer(200, [self._entry(commit, each) for each in listed])

    def paths_info(self, request: _Exchange, kind: str, name: str, revision: str) -> Answer:
        commit = self.commit_of(self.repo(request, kind, name), revision)
        wanted = parse_qs(request.body.decode()).get("paths", [])
        folders = {str(parent) for path in commit.files for parent in PurePosixPath(path).parents}
        return Answer(200, [self._entry(commit, path) for path in wanted if path in commit.files or path in folders])

    def _entry(self, commit: Commit, path: str) -> dict[str, Any]:
        file = commit.files.get(path)
        if file is None:
            return {"type": "directory", "path": path, "oid": "0" * 40, "size": 0}
        large = {"lfs": {"oid": file.sha256, "size": file.size, "pointerSize": 134}} if file.sha256 else {}
        chunked = {"xetHash": self.listed[file.sha256].hash} if file.sha256 in self.listed else {}
        return {"type": "file", "path": path, "oid": file.oid, "size": file.size, **large, **chunked}

    def resolve(self, request: _Exchange, kind: str, name: str, revision: str, path: str) -> Answer:
        repo = self.repo(request, kind, name)
        commit = self.commit_of(repo, revision)
        file = commit.files.get(unquote(path))
        headers = {"X-Repo-Commit": commit.oid}
        if file is None:
            return Answer(404, {"error": "Entry not found"}, {"X-Error-Code": "EntryNotFound", **headers})
        headers |= {"X-Linked-ETag": f'"{file.blob}"', "X-Linked-Size": str(file.size), "ETag": f'"{file.blob}"'}
        if file.sha256 in self.listed:
            told = f"{self.url}/api/{repo.kind}s/{name}/xet-read-token/{commit.oid}"
            headers |= {"X-Xet-Hash": self.listed[file.sha256].hash, "Link": f'<{told}>; rel="xet-auth"'}
        if file.sha256:
            # Another host, as the Hub's is: no token may follow there.
            elsewhere = self.url.replace("127.0.0.1", "localhost")
            return Answer(302, {}, {**headers, "Location": f"{elsewhere}/cdn/{file.sha256}"})
        return self._send(request, file.oid, headers)

    def cdn(self, request: _Exchange, oid: str) -> Answer:
        self.tokens_elsewhere += bool(request.headers.get("authorization"))
        return self._send(request, oid, {"ETag": f'"{oid}"'})

    def _send(self, request: _Exchange, blob: str, headers: Mapping[str, str]) -> Answer:
        path = self.blobs / blob
        size = path.stat().st_size
        first, stop, status = 0, size, 200
        told = {**headers, "Content-Type": "application/octet-stream", "Accept-Ranges": "bytes"}
        if asked := request.headers.get("range"):
            begin, _, last = asked.removeprefix("bytes=").partition("-")
            first, stop, status = int(begin), min(int(last) + 1 if last else size, size), 206
            told["Content-Range"] = f"bytes {first}-{stop - 1}/{size}"
        answer = Answer(status, b"", told)
        answer.blob = (path, first, stop)
        return answer


KIND, NAME, REV = r"(?P<kind>datasets|models)", r"(?P<name>[\w.-]+/[\w.-]+)", r"(?P<revision>[^/]+)"
ROUTES: list[tuple[str, Callable[..., Answer]]] = [
    (r"GET /api/whoami-v2", Hub.whoami),
    (r"POST /api/repos/create", Hub.create),
    (r"POST /api/validate-yaml", Hub.validate),
    (rf"GET /api/{KIND}/{NAME}", Hub.info),
    (rf"GET /api/{KIND}/{NAME}/revision/{REV}", Hub.info),
    (rf"GET /api/{KIND}/{NAME}/refs", Hub.refs),
    (rf"POST /api/{KIND}/{NAME}/tag/{REV}", Hub.tag),
    (rf"POST /api/{KIND}/{NAME}/preupload/{REV}", Hub.preupload),
    (rf"POST /api/{KIND}/{NAME}/commit/{REV}", Hub.commit),
    (rf"GET /api/{KIND}/{NAME}/tree/{REV}(/(?P<path>.*))?", Hub.tree),
    (rf"POST /api/{KIND}/{NAME}/paths-info/{REV}", Hub.paths_info),
    (rf"POST /((?P<kind>datasets)/)?{NAME}\.git/info/lfs/objects/batch", Hub.batch),
    (r"PUT /lfs/(?P<oid>[0-9a-f]{64})(/(?P<part>\d+))?", Hub.upload),
    (r"POST /lfs/(?P<oid>[0-9a-f]{64})/complete", Hub.complete),
    (r"POST /lfs/verify", Hub.verify),
    (rf"GET /((?P<kind>datasets)/)?{NAME}/resolve/{REV}/(?P<path>.+)", Hub.resolve),
    (r"GET /cdn/(?P<oid>[0-9a-f]{64})", Hub.cdn),
    (rf"GET /api/{KIND}/{NAME}/xet-(?P<scope>read|write)-token/{REV}", Hub.xet_token),
    (r"POST /xet/v1/xorbs/default/(?P<oid>[0-9a-f]{64})", Hub.xorb),
    (r"POST /xet/v1/shards", Hub.shard),
    (r"GET /xet/v1/reconstructions/(?P<oid>[0-9a-f]{64})", Hub.reconstruction),
    (r"GET /xet/stored/(?P<oid>[0-9a-f]{64})", Hub.stored),
]


class _Exchange(BaseHTTPRequestHandler):
    """One request: its body, in memory or as a file, and the answer or fault it ends in."""

    protocol_version = "HTTP/1.1"

    @property
    def hub(self) -> Hub:
        raise NotImplementedError

    def answer(self) -> Answer:
        raise NotImplementedError

    @property
    def path_only(self) -> str:
        return urlsplit(self.path).path

    @property
    def query(self) -> dict[str, list[str]]:
        return parse_qs(urlsplit(self.path).query)

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    def do_GET(self) -> None:
        line = f"{self.command} {self.path_only}"
        fault = self._fault(line)
        self.hub.watch(line)
        self.body, self.spooled, self.digest, self.received = b"", None, "", 0
        try:
            self._read(fault)
            if fault and fault.silent:
                # Whoever would wait without end is cut off, and says something else than one whose patience ended.
                self.hub.ended.wait(60)
                raise Cut
            if fault and fault.status is not None:
                answer = Answer(fault.status, {"error": fault.message}, fault.headers)
            else:
                with self.hub.lock:
                    try:
                        answer = self.answer()
                    except Answer as said:
                        answer = said
            if fault and fault.status is None:
                raise Cut
            # Before the answer leaves: whoever has read it may look into the log at once.
            self._log(answer.status, 0 if self.command == "HEAD" else _span(answer)[1])
            self._write(answer)
        except Cut:
            self.close_connection = True
            self._log(0, 0)
        except ConnectionError:
            self.close_connection = True
        finally:
            if self.spooled:
                self.spooled.unlink(missing_ok=True)

    def _log(self, status: int, sent: int) -> None:
        self.hub.log.append(Asked(self.command, self.path_only, status, self.received, sent))

    do_HEAD = do_POST = do_PUT = do_DELETE = do_GET

    def _fault(self, line: str) -> Fault | None:
        with self.hub.lock:
            for fault in self.hub.faults:
                if fault.times > 0 and re.search(fault.pattern, line):
                    fault.times -= 1
                    return fault
        return None

    def _read(self, fault: Fault | None) -> None:
        """The body, of an upload into a file; one that is to be cut ends after so many bytes."""
        cut = fault is not None and fault.status is None and not fault.done and not fault.silent
        most = fault.after if fault and cut else None
        if self.command != "PUT":
            self.body = b"".join(self._chunks(most))
            return
        self.spooled = Path(tempfile.mkstemp(dir=self.hub.blobs, prefix=".upload-")[1])
        hashed = hashlib.sha256()
        with self.spooled.open("wb") as file:
            for chunk in self._chunks(most):
                file.write(chunk)
                hashed.update(chunk)
        self.digest = hashed.hexdigest()

    def _chunks(self, most: int | None) -> Iterator[bytes]:
        if self.headers.get("transfer-encoding", "").lower() == "chunked":
            while size := int(self.rfile.readline().split(b";")[0], 16):
                yield self._take(size, most)
                self.rfile.readline()
            self.rfile.readline()
            return
        left = int(self.headers.get("content-length") or 0)
        while left:
            chunk = self._take(min(left, AT_ONCE), most)
            left -= len(chunk)
            yield chunk
        if most is not None:
            raise Cut

    def _take(self, size: int, most: int | None) -> bytes:
        chunk = self.rfile.read(size)
        self.received += len(chunk)
        if len(chunk) < size or (most is not None and self.received >= most):
            raise Cut
        return chunk

    def _write(self, answer: Answer) -> None:
        first, size = _span(answer)
        self.send_response(answer.status)
        for name, value in {**answer.headers, "Content-Length": str(size)}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        if answer.blob is None:
            self.wfile.write(answer.body)
        else:
            with answer.blob[0].open("rb") as file:
                file.seek(first)
                shutil.copyfileobj(_Part(file, size), self.wfile, AT_ONCE)

    def log_message(self, format: str, *arguments: Any) -> None:
        pass


def _span(answer: Answer) -> tuple[int, int]:
    """Where what is sent begins, and how many bytes it is."""
    _, first, stop = answer.blob or (None, 0, len(answer.body))
    return first, stop - first


class _Part:
    """So many bytes of a file from where it stands."""

    def __init__(self, file: Any, size: int) -> None:
        self.file, self.left = file, size

    def read(self, size: int) -> bytes:
        chunk: bytes = self.file.read(min(size, self.left))
        self.left -= len(chunk)
        return chunk


@contextmanager
def killing(hub: Hub, pattern: str, visit: int, kill: Callable[[], None]) -> Iterator[None]:
    """Calls `kill` when the request a pattern finds comes in for the `visit`-th time."""
    seen = 0

    def watch(line: str) -> None:
        nonlocal seen
        seen += bool(re.search(pattern, line))
        if re.search(pattern, line) and seen == visit:
            kill()

    hub.watch = watch
    yield
    hub.watch = lambda line: None

"""The viewer over HTTP: `/study/look` and what lies below it, to be served behind the gate."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import cached_property
from typing import Any
from urllib.parse import quote, unquote

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from nift_assets.pages.viewer import links
from nift_assets.pages.viewer.conditions import parse
from nift_assets.pages.viewer.files import Changed
from nift_assets.pages.viewer.page import NotStored, PageAddress, Viewer, headers
from nift_assets.reviews import LONGEST_NAME
from nift_assets.store import Store
from nift_assets.study import Study
from nift_assets.table_files import DamagedTable

# A file may be replaced while it is read; the next reading is of the new one.
TRIES = 3
LARGEST_PLACE = 10**12
LARGEST_BODY = 100_000
REVIEWER, YEAR = "nift_reviewer", 365 * 24 * 3600
# In the place of a verdict, of who only says who she is.
NAME_ALONE = "name"


class Look:
    """The routes of one study's viewer. Nothing is opened before the first page is asked for."""

    def __init__(self, study: Callable[[], Study], root: str) -> None:
        self._study, self._root = study, root

    @cached_property
    def _viewer(self) -> Viewer:
        study = self._study()
        return Viewer(study, Store(root=self._root, study=study.name))

    def open(self) -> None:
        """Reads what the first page would wait for: the study, the templates, the footers of the files."""
        with suppress(ValueError, OSError, NotStored):  # who opens the page is told
            self._viewer.home()
            self._viewer.pairs(PageAddress())

    def routes(self) -> list[BaseRoute]:
        """What is answered below `/study/look`; a slash too many at the end leads to the page without it."""
        pages: dict[str, Callable[[Viewer, Request], str]] = {
            "": lambda viewer, request: viewer.home(),
            "/pairs": lambda viewer, request: viewer.pairs(_asked(request)),
            "/pairs/{document}": lambda viewer, request: viewer.pair(_part(request, "document"), _asked(request)),
            "/answers/{benchmark}": lambda viewer, request: viewer.answers(
                _part(request, "benchmark"), _asked(request)
            ),
            "/answers/{benchmark}/{question}": lambda viewer, request: viewer.question(
                _part(request, "benchmark"), _part(request, "question"), _asked(request)
            ),
            "/rejects": lambda viewer, request: viewer.rejects(),
            "/failing": lambda viewer, request: viewer.failing(),
            "/failing/{table}/{partition}/{test}": _failing,
            "/tables/{table}": _table,
            "/tables/{table}/{partition}": _table,
            "/rows/{table}/{partition}": _row,
        }
        return [
            *(Route(links.ROOT + path, self._page(page)) for path, page in pages.items()),
            Route(links.reviews(), self._review, methods=["POST"]),
            Route(links.ROOT + "/{rest:path}", self._elsewhere),
        ]

    def _page(self, page: Callable[[Viewer, Request], str]) -> Callable[[Request], Any]:
        async def answer(request: Request) -> Response:
            return await run_in_threadpool(self._answer, page, request)

        return answer

    def _answer(self, page: Callable[[Viewer, Request], str], request: Request) -> Response:
        viewer = self._viewer
        try:
            return HTMLResponse(_tried(page, viewer, request), headers=headers())
        except NotStored as missing:
            return _sentence(viewer, "Not there", str(missing), 404)
        except DamagedTable as damage:
            return _sentence(viewer, "Damaged", str(damage), 500)
        except ValueError as wrong:
            return _sentence(viewer, "That cannot be shown", str(wrong), 400)
        except (OSError, TimeoutError) as trouble:
            return _sentence(viewer, "That cannot be read now", str(trouble), 503)

    async def _review(self, request: Request) -> Response:
        """Keeps a verdict. That it comes from a page of ours and not from another site's, the gate has seen to: it
        takes JSON alone, which no form can send, of this very origin, with the token's cookie."""
        body = b""
        async for part in request.stream():
            body += part
            if len(body) > LARGEST_BODY:
                return PlainTextResponse("a verdict is a few words", 413)
        return await run_in_threadpool(self._keep, body, _reviewer(request))

    def _keep(self, body: bytes, known: str) -> Response:
        try:
            told = _verdict(body)
            reviewer = " ".join(unicodedata.normalize("NFC", told.get("reviewer") or known).split())
            if told["verdict"] != NAME_ALONE:
                self._keep_verdict(told, reviewer)
        except (NotStored, ValueError, OSError) as error:
            return PlainTextResponse(f"Nothing is kept: {' '.join(str(error).split())}", 409)
        answer = JSONResponse({"reviewer": reviewer})
        answer.set_cookie(REVIEWER, quote(reviewer), max_age=YEAR, path=links.ROOT, httponly=True, samesite="strict")
        return answer

    def _keep_verdict(self, told: Mapping[str, Any], reviewer: str) -> None:
        reason, content = str(told.get("reason") or ""), str(told.get("content") or "")
        if told.get("kind") == "pair":
            where = str(told.get("document_id")), str(told.get("teacher"))
            self._viewer.review_pair(reviewer, *where, str(told["verdict"]), reason, content)
            return
        key, models = told.get("key"), told.get("models")
        if not isinstance(key, dict) or not isinstance(models, list) or len(models) != 2:
            raise ValueError("a verdict on answers names the row and two models")
        models = (str(models[0]), str(models[1]))
        self._viewer.review_answers(
            reviewer, str(told.get("benchmark")), key, models, str(told["verdict"]), reason, content
        )

    async def _elsewhere(self, request: Request) -> Response:
        path = links.ROOT + "/" + request.path_params["rest"].strip("/")
        if request.url.path.endswith("/") and not path.endswith("/"):
            return RedirectResponse(request.url.replace(path=path.rstrip("/")).include_query_params(), 308)
        sentence = f"there is no page {path[:200]}; {links.ROOT} lists what there is"
        return await run_in_threadpool(_sentence, self._viewer, "Not there", sentence, 404)


def _verdict(body: bytes) -> Mapping[str, Any]:
    try:
        told = json.loads(body)
    except ValueError:  # of UTF-8 too
        told = None
    if not isinstance(told, dict) or not isinstance(told.get("verdict"), str):
        raise ValueError('a verdict is JSON such as {"kind": "pair", "verdict": "keep", …}')
    if not isinstance(told.get("reviewer") or "", str):
        raise ValueError("the reviewer's name is a text")
    return told


def _reviewer(request: Request) -> str:
    """Who reads, as the cookie of the first verdict says."""
    return unquote(request.cookies.get(REVIEWER, ""))[:LONGEST_NAME]


def _tried(page: Callable[[Viewer, Request], str], viewer: Viewer, request: Request) -> str:
    for _ in range(TRIES - 1):
        try:
            return page(viewer, request)
        except Changed:
            continue
    try:
        return page(viewer, request)
    except Changed:
        raise OSError("the table is being replaced again and again; look again when the run has ended") from None


def _failing(viewer: Viewer, request: Request) -> str:
    asked, where = _asked(request), (_part(request, "table"), _partition(request), _part(request, "test"))
    if asked.place is not None:
        return viewer.listed_row(*where, asked, asked.place)
    return viewer.failing_rows(*where, asked)


def _table(viewer: Viewer, request: Request) -> str:
    asked, table, partition = _asked(request), _part(request, "table"), _partition(request)
    if asked.place is not None:
        return viewer.listed_row(table, partition, None, asked, asked.place)
    return viewer.table(table, partition, asked)


def _row(viewer: Viewer, request: Request) -> str:
    number = _number(request, "row")
    version = request.query_params.get("version", "")
    return viewer.row(_part(request, "table"), _partition(request), _asked(request), number, version)


def _asked(request: Request) -> PageAddress:
    given = request.query_params
    return PageAddress(
        query=parse(given.multi_items()),
        start=_number(request, "start") or 0,
        place=_number(request, "place"),
        space=given.get("space") == "1",
        teachers=tuple(given.getlist("teacher")),
        models=(given.get("a") or None, given.get("b") or None),
        blind=given.get("blind") == "1",
        reviewer=_reviewer(request),
    )


def _number(request: Request, name: str) -> int | None:
    text = request.query_params.get(name)
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 13) or int(text) > LARGEST_PLACE:
        raise ValueError(f"{name} is a whole number from 0, not {text[:60]!r}")
    return int(text)


def _part(request: Request, name: str) -> str:
    """A part of the path that names something; a name can be no way to another folder."""
    part = links.part_of(request.path_params[name])
    if name in ("table", "partition", "test") and ("/" in part or "\\" in part or "\0" in part or part.startswith(".")):
        raise NotStored(f"there is no {name} {part[:80]!r}")
    return part


def _partition(request: Request) -> str | None:
    if "partition" not in request.path_params:
        return None
    part = _part(request, "partition")
    return None if part == links.WHOLE else part


def _sentence(viewer: Viewer, title: str, sentence: str, status: int) -> Response:
    return HTMLResponse(viewer.sentence(title, " ".join(sentence.split())), status, headers=headers())

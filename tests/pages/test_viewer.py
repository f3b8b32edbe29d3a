"""The viewer: every link leads somewhere, every text is shown letter by letter, and what is wrong is one sentence."""

from __future__ import annotations

import json
import re
import threading
import time
import unicodedata
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import quote, urlencode, urljoin

import polars as pl
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient

from nift_assets import benchmarks, reviews, table_files
from nift_assets.pages.viewer import conditions, files, links, reading, texts
from nift_assets.pages.viewer.conditions import Condition, Query
from nift_assets.steps import failing_rows
from nift_assets.steps.lineage import Partition
from nift_assets.store import Store
from tests.conftest import nift_here
from tests.page_reader import PAYLOADS, Reading
from tests.pages import viewer_store
from tests.pages.viewer_store import (
    ARABIC,
    CHINESE,
    DEMO,
    DOCUMENTS,
    MODELS,
    application,
    document,
    filled,
    frame,
    write,
)

JSON = {"Content-Type": "application/json"}
BENCHMARK = next(row.name for row in DEMO.benchmarks if benchmarks.is_judged(row.name))

# What differs between addresses of one kind of page.
SAME_KIND = r"[0-9a-f]{16,}|\d+|=[^&]*|(?<=/tables/)[^?]*|(?<=/rows/)[^?]*|(?<=/answers/)[^?/]*"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return filled(str(tmp_path_factory.mktemp("warehouse")))


@pytest.fixture(scope="module")
def client(store: Store) -> TestClient:
    return TestClient(application(store))


class Links(HTMLParser):
    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [value for name, value in attrs if tag == "a" and name == "href" and value]


def shown(page: str) -> str:
    """The text of a page, white space in order."""
    inside = re.sub(r"<(style|script)>.*?</\1>", "", page, flags=re.DOTALL)
    return " ".join(Reading(inside).text.split())


def ids(client: TestClient, path: str) -> list[str]:
    """The documents of a page of a table, in their order."""
    answer = client.get(path)
    assert answer.status_code == 200, shown(answer.text)
    return re.findall(r'<code title="([0-9a-f]{32})">', answer.text)


@pytest.mark.parametrize("place", [Partition("halves", None), Partition("completions", "echo")], ids=str)
def test_what_a_check_links_to_is_the_page_of_the_rows_it_has_kept(place: Partition, tmp_path: Path) -> None:
    kept_beside = filled(str(tmp_path))
    rows = pl.DataFrame({"document_id": ["0" * 32], "text": ["the row that failed"]})
    kept = failing_rows.keep(kept_beside, place, {"a_test": rows}, ["a_test"])
    answer = TestClient(application(kept_beside)).get(kept["a_test"].page)
    assert answer.status_code == 200, shown(answer.text)
    assert "the row that failed" in shown(answer.text)


def test_every_link_leads_to_a_page_that_says_what_it_shows(client: TestClient) -> None:
    seen: set[str] = set()
    kinds: set[str] = set()
    here = [links.home()]
    for _ in range(4):  # a list, a row of it, its permalink
        found: list[str] = []
        for path in here:
            answer = client.get(path)
            # What is not made yet is a page too, which says what makes it.
            assert answer.status_code == 200 or "nift run" in answer.text, (path, shown(answer.text)[:300])
            assert "sha256-" in answer.headers["Content-Security-Policy"]
            found += [urljoin(path, link) for link in Links(answer.text).found if not link.startswith("#")]
        seen |= set(here)
        # Of each kind of page one.
        by_kind = {re.sub(SAME_KIND, "…", link): link for link in reversed(found)}
        here = [link for kind, link in by_kind.items() if kind not in kinds]
        kinds |= set(by_kind)
    assert all(path.startswith(links.ROOT) for path in (*seen, *here))
    reached = {path.split("?")[0].split("/")[3] for path in seen if "/look/" in path}
    assert reached >= {"pairs", "answers", "rejects", "failing", "tables", "rows"}
    print(f"{len(seen)} pages were opened")


def test_a_pair_shows_both_halves_every_teacher_and_what_became_of_it(client: TestClient) -> None:
    page = shown(client.get(links.pair(document(1))).text)
    first, second, completion = (" ".join(text.split()) for text in viewer_store.texts(1))
    for text in (first, second, completion, "dropped by uppercase_start", "begins a new thought", "an-auditor", "$0"):
        assert text in page
    assert "not asked about this document" in page, "one teacher has nothing stored"
    assert "refused" in shown(client.get(links.pair(document(5))).text)


def test_payloads_are_text_on_every_page(client: TestClient) -> None:
    pages = [
        *(links.pair(document(number)) for number in range(len(PAYLOADS))),
        links.pairs(), links.table("halves"), links.rejects(), links.answers(BENCHMARK, *MODELS),
        links.failing("completions", "echo", "few_are_refused"), f"{links.pairs()}?search={quote(PAYLOADS[0])}",
    ]  # fmt: skip
    tags: set[tuple[str, ...]] = set()
    for number, path in enumerate(pages):
        page = client.get(path).text
        read = Reading(page)
        for payload in PAYLOADS[number : number + 1]:
            assert " ".join(payload.replace("\0", "␀").split()) in shown(page)
        tags |= {(tag, *(f"{name}" for name, _ in attributes)) for tag, attributes in read.tags}
    names = {tag[0] for tag in tags}
    assert not names & {"img", "svg", "iframe", "b2", "link", "base"}
    assert not [tag for tag in tags if any(name.startswith("on") or name == "style" for name in tag[1:])]


@settings(max_examples=60)
@given(st.text(max_size=60), st.text(max_size=5), st.booleans())
@example("a\r\nb\x00\u202e<b>&amp;", "&", True)
@example("<mark>", "mark", False)
def test_a_text_is_shown_letter_by_letter_whatever_is_searched(text: str, search: str, space: bool) -> None:
    pattern = re.compile(conditions.pattern(search), re.IGNORECASE) if search else None
    read = Reading(f"<div>{texts.shown(text, pattern, space=space)}</div>")
    assert {tag for tag, _ in read.tags} <= {"div", "mark", "span"}
    named = {sign: name for sign, name in texts.NAMED.items() if space}
    expected = "".join(named.get(sign, _picture(sign)) for sign in (text if space else text.replace("\r\n", "\n")))
    assert read.text == expected


def _picture(sign: str) -> str:
    if not texts.CONTROLS.fullmatch(sign):
        return sign
    return chr(0x2400 + ord(sign)) if ord(sign) < 0x20 else "␡" if sign == "\x7f" else f"U+{ord(sign):04X}"


WORDS = st.text(st.sampled_from("abXYéÉжЖ 本.()[]*+?\\|^$%_-'\"<&"), max_size=12)


@settings(max_examples=10)
@given(st.lists(WORDS, min_size=1, max_size=8), WORDS.filter(str.strip))
def test_a_search_finds_what_holds_the_text_in_any_case(found: list[str], search: str) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        store = Store(root=folder, study=DEMO.name)
        write(store, "t", None, pl.DataFrame({"n": range(len(found)), "text": found}))
        answer = TestClient(application(store)).get(f"{links.table('t')}?{urlencode({'search': search, 'sort': 'n'})}")
    rows = [int(number) for number in re.findall(r'data-head="n" class="n">\s*<span[^>]*>(\d+)<', answer.text)]
    assert rows == [number for number, text in enumerate(found) if search.lower() in text.lower()]


TEXTS = st.builds(" ".join, st.lists(WORDS | st.sampled_from([*PAYLOADS, ARABIC, CHINESE, "100%_sure", "O''Neil"])))


@pytest.fixture
def small_portions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files of a few rows in groups of two, searched in as many portions as large ones are."""
    monkeypatch.setattr(table_files, "ROWS_PER_GROUP", 2)
    monkeypatch.setattr(reading, "ROWS_PER_GROUP", 2)
    monkeypatch.setattr(reading, "FIRST_BYTES", 1)
    monkeypatch.setattr(reading, "MOST_BYTES", 1_000)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(TEXTS, TEXTS, TEXTS), min_size=1, max_size=9), st.data())
@pytest.mark.usefixtures("small_portions")
def test_a_search_finds_exactly_what_a_plain_scan_finds(
    texts_: list[tuple[str, str, str]], data: st.DataObject
) -> None:
    import tempfile

    def holds(text: str) -> bool:
        forms = {unicodedata.normalize(form, search) for form in ("NFC", "NFD")} | {search}
        return any(form.lower() in text.lower() for form in forms)

    whole = data.draw(st.sampled_from([text for row in texts_ for text in row]))
    start = data.draw(st.integers(0, len(whole)))
    part = whole[start : start + data.draw(st.integers(1, 12))].replace("\0", "")
    search = data.draw(st.sampled_from([part, part.upper(), part.swapcase(), unicodedata.normalize("NFD", part), "%_"]))
    search = search if search.strip() else "e"
    with tempfile.TemporaryDirectory() as folder:
        store = Store(root=folder, study=DEMO.name)
        ids_ = [document(number) for number in range(len(texts_))]
        halves = [
            {"document_id": id_, "sample_rank": int(id_, 16), "first_half": row[0], "second_half": row[1]}
            for id_, row in zip(ids_, texts_, strict=True)
        ]
        write(store, "halves", None, frame("halves", halves))
        # In another order, and one document that this teacher was not asked about.
        written = [{"document_id": id_, "completion": row[2]} for id_, row in zip(ids_, texts_, strict=True)][:0:-1]
        write(store, "completions", "echo", frame("completions", written))
        client = TestClient(application(store))
        tables = {name: found_rows(client, links.table(name), search) for name in ("halves", "completions")}
        documents = found_rows(client, links.pairs(), search)
        later = found_rows(client, links.pairs(Query(conditions=(Condition("sample_rank", "above", "3"),))), search)
    first, second, completion = (
        {id_ for id_, row in zip(ids_, texts_, strict=True) if holds(row[n])} for n in range(3)
    )
    completion -= set(ids_[:1])
    named = {id_ for id_ in ids_ if holds(id_)}
    assert tables == {"halves": first | second | named, "completions": completion | named - set(ids_[:1])}
    assert documents == first | second | completion | named
    assert later == {id_ for id_ in documents if int(id_, 16) > 3}


def found_rows(client: TestClient, path: str, search: str) -> set[str]:
    """The documents that the one page of a search has, each once."""
    answer = client.get(path + ("&" if "?" in path else "?") + urlencode({"search": search}))
    assert answer.status_code == 200, shown(answer.text)
    found = re.findall(r'(?:<h2><a href="/study/look/pairs/|<code title=")([0-9a-f]{32})', answer.text)
    assert len(found) == len(set(found))
    return set(found)


def test_composed_and_decomposed_letters_are_the_same_to_a_search(client: TestClient) -> None:
    for form in ("NFC", "NFD"):
        found = client.get(f"{links.pairs()}?{urlencode({'search': unicodedata.normalize(form, 'école')})}")
        assert "<mark>ÉCOLE</mark>" in found.text


def test_pages_together_show_every_row_once_in_the_order_asked_for(client: TestClient) -> None:
    path = links.table("halves")
    for query, order in (("", 1), ("&sort=words&order=down", -1), ("&sort=first_half&search=e", None)):
        found = [name for start in range(0, DOCUMENTS, 25) for name in ids(client, f"{path}?start={start}{query}")]
        assert len(found) == len(set(found))
        if order:
            assert found == [document(number) for number in range(DOCUMENTS)][::order]


def test_a_sample_is_the_same_for_its_seed_and_another_for_another(client: TestClient) -> None:
    one, again, other = (ids(client, f"{links.table('halves')}?sample=9&seed={seed}") for seed in (4, 4, 5))
    assert one == again != other
    assert len(one) == 9
    sampled = ids(client, f"{links.table('halves')}?sample=9&seed=4&column=words&relation=above&value=60")
    assert sampled
    assert all(int(name, 16) > 50 for name in sampled)


@pytest.mark.parametrize(
    ("conditions_", "numbers"),
    [
        ([("words", "is", "12")], [2]),
        ([("words", "above", "65"), ("words", "is-not", "67")], [56, 58, 59]),
        ([("document_id", "begins", "0" * 31), ("words", "below", "13")], [0, 1, 2]),
        ([("first_half", "contains", ARABIC[:5])], [22, 48]),
        ([("second_half", "empty", "")], []),
        ([("echo:found by filter", "is", "uppercase_start"), ("echo:status", "is", "ok")], [1, 2, 3]),
        ([("echo:found by filter", "filled", ""), ("original:audit: dialogue", "is", "no")], [2]),
        ([("echo:output_tokens", "above", "57")], [58, 59]),
        ([("echo:status", "is-not", "ok"), ("words", "below", "22")], [0, 5, 10]),
    ],
)
def test_a_filter_keeps_the_documents_of_which_it_is_true(
    client: TestClient, conditions_: list[tuple[str, str, str]], numbers: list[int]
) -> None:
    query = Query(conditions=tuple(Condition(*each) for each in conditions_))
    found = client.get(links.pairs(query))
    assert found.status_code == 200, shown(found.text)
    assert re.findall(r"document ([0-9a-f]{16})", found.text) == [document(n)[:16] for n in numbers]
    # Of the ids only the first 16 digits are shown, which are all alike here.
    assert sorted(int(n) for n in re.findall(r"(?:first|sample)?[^-\w]0-(\d+)", shown(found.text))) == numbers


def test_a_permalink_leads_to_its_row_when_the_table_was_made_anew(tmp_path: Path) -> None:
    store = filled(str(tmp_path), documents=5)
    client = TestClient(application(store))
    permalink = links.row("halves", None, {"document_id": document(3)})
    assert "0-3" in shown(client.get(permalink).text)
    rows = store.read("halves", None)
    write(store, "halves", None, rows.reverse())
    assert "0-3" in shown(client.get(permalink).text)
    write(store, "halves", None, rows.filter(pl.col("document_id") != document(3)))
    gone = client.get(permalink)
    assert gone.status_code == 404
    assert "made anew" in shown(gone.text)


def test_a_row_that_nothing_names_is_known_by_its_number_and_version(tmp_path: Path) -> None:
    store = Store(root=str(tmp_path), study=DEMO.name)
    write(store, "t", None, pl.DataFrame({"a": ["one", "two"]}))
    client = TestClient(application(store))
    page = client.get(f"{links.table('t')}?place=1").text
    (permalink,) = [link for link in Links(page).found if "version=" in link]
    assert "anew" not in shown(client.get(permalink).text)
    write(store, "t", None, pl.DataFrame({"a": ["other", "rows"]}))
    assert "made anew since" in shown(client.get(permalink).text)


def test_the_row_before_and_after_are_those_of_the_list(client: TestClient) -> None:
    path = f"{links.table('halves')}?column=words&relation=above&value=60&sort=words&order=down&place=1"
    page = client.get(path).text
    assert f"0-{DOCUMENTS - 2}" in shown(page)
    before, after = (re.search(rf'rel="{rel}" href="([^"]+)"', page) for rel in ("prev", "next"))
    assert before
    assert after
    assert f"0-{DOCUMENTS - 1}" in shown(client.get(before[1].replace("&amp;", "&")).text)
    assert f"0-{DOCUMENTS - 3}" in shown(client.get(after[1].replace("&amp;", "&")).text)


def test_a_damaged_partition_is_a_sentence_and_the_others_go_on(tmp_path: Path) -> None:
    store = filled(str(tmp_path), documents=5)
    falsify(store, "completions", "echo")
    client = TestClient(application(store))
    for page in (links.table("completions"), links.pairs(), links.pair(document(1))):
        answer = client.get(page)
        assert answer.status_code == 200
        assert "is damaged" in shown(answer.text)
        assert "nift run completions --partition echo" in shown(answer.text)
    assert "original" in ids_of_teachers(client)
    store.path("halves", None).write_bytes(b"PAR1 torn")
    answer = client.get(links.pairs())
    assert answer.status_code == 404
    assert "halves.parquet is damaged" in shown(answer.text)
    assert client.get(links.home()).status_code == 200


def falsify(store: Store, table: str, partition: str | None) -> None:
    """Puts other rows under the footer of a table: only the digest can tell."""
    rows, version = store.read(table, partition), store.version(table, partition)
    assert version is not None
    with store.path(table, partition).open("wb") as file:
        rows.reverse().write_parquet(file, metadata=version.as_metadata(f"{table}/{partition}" if partition else table))


def ids_of_teachers(client: TestClient) -> str:
    return shown(client.get(links.table("completions")).text)


def test_a_large_file_is_shown_first_and_its_damage_said_when_it_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = filled(str(tmp_path), documents=5)
    falsify(store, "halves", None)
    monkeypatch.setattr(files, "SMALL_BYTES", 0)
    client = TestClient(application(store))
    first = client.get(links.table("halves"))
    assert first.status_code == 200
    assert "being held against their digests" in shown(first.text)
    end = time.monotonic() + 30
    while "not what was written" not in (said := shown(client.get(links.table("halves")).text)):
        assert time.monotonic() < end, said[:500]
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("path", "status", "says"),
    [
        ("/tables/nothing", 404, "no table nothing is stored"),
        ("/tables/halves?column=nothing&relation=is&value=1", 400, "there is no column 'nothing'"),
        ("/tables/halves?column=words&relation=is&value=many", 400, "words is a number"),
        ("/tables/halves?column=words&relation=like&value=1", 400, "there is no filter 'like'"),
        ("/tables/halves?column=words", 400, "a filter has a column, a relation and a value"),
        ("/tables/halves?sort=nothing", 400, "no column 'nothing' to sort by"),
        ("/tables/halves?sample=-1", 400, "sample is a whole number"),
        ("/tables/halves?sample=99999999999", 400, "sample is a whole number"),
        ("/tables/halves?start=x", 400, "start is a whole number"),
        ("/tables/halves?place=99999", 404, "no row at place 99,999"),
        ("/tables/halves?search=" + "x" * 1001, 400, "1000 characters at most"),
        ("/tables/~..", 404, "there is no table '..'"),
        ("/tables/..%2f..%2fetc%2fpasswd", 404, "there is no"),
        ("/tables/completions/..%2f..%2fx", 404, "there is no"),
        ("/failing/halves/-/nothing", 404, "no rows of halves are kept"),
        ("/rows/halves/-", 404, "has no row without a key"),
        ("/rows/halves/-?row=99999", 404, "counted from 0"),
        ("/pairs/nothing", 404, "has no document 'nothing'"),
        ("/pairs?column=echo:nothing&relation=is&value=1", 400, "there is no column 'echo:nothing'"),
        ("/answers/nothing", 404, "has no benchmark 'nothing'"),
        (f"/answers/{BENCHMARK}?a=nothing", 404, "'nothing' has no answers"),
        (f"/answers/{BENCHMARK}/nothing?a=pico", 404, "no answer to 'nothing'"),
        (f"/answers/{BENCHMARK}?a=pico&sort=nothing", 400, "are not sorted by 'nothing'"),
        ("/nothing", 404, "there is no page"),
    ],
)  # fmt: skip
def test_what_cannot_be_shown_is_one_sentence(client: TestClient, path: str, status: int, says: str) -> None:
    answer = client.get(links.ROOT + path)
    assert answer.status_code == status
    assert says in shown(answer.text)


@settings(max_examples=20)
@given(
    st.sampled_from(["search", "column", "relation", "value", "sort", "sample", "seed", "start", "place", "teacher"]),
    st.text(max_size=20),
    st.text(max_size=20),
)
def test_no_address_is_an_error_of_ours(client: TestClient, name: str, value: str, rest: str) -> None:
    for path in ("/tables/halves", "/pairs", f"/answers/{BENCHMARK}"):
        asked = urlencode(
            [(name, value), ("column", rest), ("relation", "contains"), ("value", value)], errors="replace"
        )
        assert client.get(f"{links.ROOT}{path}?{asked}").status_code in (200, 400, 404)


def test_a_study_of_which_nothing_is_made_says_what_makes_it(tmp_path: Path) -> None:
    client = TestClient(application(Store(root=str(tmp_path), study=DEMO.name)))
    assert "Nothing is stored yet" in shown(client.get(links.home()).text)
    for path in (links.pairs(), links.answers(BENCHMARK), links.table("halves")):
        assert "nift run" in shown(client.get(path).text)
    assert client.get(links.rejects()).status_code == client.get(links.failing()).status_code == 200


def test_a_warehouse_elsewhere_is_read_as_one_here() -> None:
    store = filled("memory://looked-at", documents=5)
    client = TestClient(application(store))
    assert len(ids(client, links.table("halves"))) == 5
    assert "0-3" in shown(client.get(links.pair(document(3))).text)
    assert "without a check" in shown(client.get(links.table("halves")).text)
    assert '<form class="review"' not in client.get(links.pair(document(3))).text


def test_a_table_that_was_made_anew_is_shown_as_it_is_now(tmp_path: Path) -> None:
    store = Store(root=str(tmp_path / "a [b]*? 'c'"), study=DEMO.name)
    for word in ("first", "second"):
        write(store, "t", None, pl.DataFrame({"a": [f"{word} row {n}" for n in range(3)]}))
        if word == "first":
            client = TestClient(application(store))
        assert f"{word} row 2" in shown(client.get(f"{links.table('t')}?search=row").text).replace(" row", " row")


# -- what people say ---------------------------------------------------------------------------------------------------


@pytest.fixture
def reviewed(tmp_path: Path) -> tuple[Store, TestClient]:
    store = filled(str(tmp_path), documents=8)
    return store, TestClient(application(store))


def verdict_on(client: TestClient, number: int, teacher: str = "echo", **told: str) -> dict[str, str]:
    page = client.get(links.pair(document(number))).text
    content = re.search(rf'data-teacher="{teacher}" data-content="([0-9a-f]+)"', page)
    assert content
    return {"kind": "pair", "document_id": document(number), "teacher": teacher, "content": content[1], **told}


def test_two_people_at_once_lose_no_verdict(reviewed: tuple[Store, TestClient]) -> None:
    store, client = reviewed
    bodies = [verdict_on(client, n, verdict="drop", reason=f"why {n}") for n in range(1, 5)]
    answers: list[int] = []

    def judge(name: str) -> None:
        own = TestClient(client.app)
        for body in bodies:
            answers.append(own.post(links.reviews(), json={**body, "reviewer": name}).status_code)

    threads = [threading.Thread(target=judge, args=(name,)) for name in ("Ada", "José")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [200] * 8
    kept = reviews.read(store)
    assert {(each.reviewer, each.reason) for each in kept} == {
        (n, f"why {i}") for n in ("Ada", "José") for i in range(1, 5)
    }
    version = store.version("completions", "echo")
    assert version
    assert len(kept) == 8
    assert {each.version for each in kept} == {version.data}


def test_a_name_is_asked_once_and_others_verdicts_are_shown_after_ones_own(reviewed: tuple[Store, TestClient]) -> None:
    _, client = reviewed
    body = verdict_on(client, 1, verdict="unsure", reason="<b>hm</b>")
    assert client.post(links.reviews(), json={**body, "reviewer": "  José  "}).json() == {"reviewer": "José"}
    page = client.get(links.pair(document(1))).text
    assert "You said unsure: <b>hm</b>" in shown(page)
    assert 'name="reviewer"' not in page
    other = TestClient(client.app)
    before = shown(other.get(links.pair(document(1))).text)
    assert "1 other has judged this" in before
    assert "José" not in before
    assert other.post(links.reviews(), json={**body, "verdict": "keep", "reviewer": "Ada"}).status_code == 200
    assert "José said unsure" in shown(other.get(links.pair(document(1))).text)


def test_what_is_no_verdict_is_a_sentence_and_nothing_is_kept(reviewed: tuple[Store, TestClient]) -> None:
    store, client = reviewed
    good = verdict_on(client, 1, verdict="keep", reviewer="Ada")
    bad = {
        "for a reason": good | {"verdict": "drop"},
        "give one of": good | {"verdict": "maybe"},
        "give a name": good | {"reviewer": " "},
        "made anew since the page": good | {"content": "0" * 64},
        "has no completion": good | {"teacher": "nobody"},
        "has no document": good | {"document_id": "x"},
        "names the row and two models": good | {"kind": "answers"},
        "a verdict is JSON": [1],
    }
    for says, body in bad.items():
        answer = client.post(links.reviews(), json=body)
        assert (answer.status_code, says in answer.text) == (409, True), answer.text
    assert client.post(links.reviews(), content=b"\xff{", headers=JSON).status_code == 409
    assert client.post(links.reviews(), content=b"1" * 200_000, headers=JSON).status_code == 413
    assert list(reviews.read(store)) == []


def test_no_other_site_can_send_a_verdict(reviewed: tuple[Store, TestClient]) -> None:
    store, client = reviewed
    body = json.dumps(verdict_on(client, 1, verdict="keep", reviewer="Ada"))
    foreign = {**JSON, "Origin": "http://evil.example"}
    assert client.post(links.reviews(), content=body, headers=foreign).status_code == 403
    assert client.post(links.reviews(), content=body, headers={"Content-Type": "text/plain"}).status_code == 415
    locked = TestClient(application(store, token="0123456789abcdef"))
    assert locked.post(links.reviews(), content=body, headers=JSON).status_code == 401
    assert locked.get(links.home()).status_code == 401
    assert list(reviews.read(store)) == []


def test_answers_are_judged_blind_and_revealed_after_the_verdict(reviewed: tuple[Store, TestClient]) -> None:
    store, client = reviewed
    row = DEMO.benchmark(BENCHMARK)
    table = benchmarks.answers_table(BENCHMARK)
    # Answers that do not say who wrote them.
    for model in MODELS:
        rows = store.read(table, model).with_columns(answer=pl.lit(f"answer {MODELS.index(model)}"))
        write(store, table, model, rows)
    client.post(links.reviews(), json={"verdict": "name", "reviewer": "Ada"})
    lefts = []
    for question in dict.fromkeys(name for name, _ in benchmarks.load(BENCHMARK).questions(row)):
        path = links.question(BENCHMARK, question, *MODELS) + "&blind=1"
        answer = client.get(path)
        if answer.status_code == 404:
            continue
        inside = re.search(r'<div class="beside whole">(.*?)<form', answer.text, re.DOTALL)
        assert inside
        assert "judged" not in shown(inside[1])
        assert not [model for model in MODELS if model in inside[1]]
        lefts.append(re.findall(r"answer ([01])", shown(inside[1]))[0])
        form = re.search(r'data-key="({[^"]*)".*?data-content="([0-9a-f]+)"', answer.text, re.DOTALL)
        assert form
        key = json.loads(form[1].replace("&#34;", '"'))
        told = {"kind": "answers", "benchmark": BENCHMARK, "key": key, "models": list(MODELS), "content": form[2]}
        assert client.post(links.reviews(), json={**told, "verdict": "left", "reason": ""}).status_code == 200
        revealed = shown(client.get(path).text)
        assert f"A: {MODELS[int(lefts[-1])]}" in revealed
        kept = reviews.read(store)[-1]
        assert kept.shown[0] == MODELS[int(lefts[-1])]
        assert kept.verdict == "ab"[sorted(MODELS).index(kept.shown[0])]
    assert len(lefts) == 3


# -- the command -------------------------------------------------------------------------------------------------------


def test_the_command_refuses_in_one_line(tmp_path: Path) -> None:
    environment = {"NIFT_WAREHOUSE": str(tmp_path), "PATH": "/usr/bin:/bin"}
    for arguments, says in (
        (("look",), "nothing of the study demo is stored"),
        (("look", "--host", "0.0.0.0"), "nothing of the study"),
    ):
        refused = nift_here(*arguments, environment=environment)
        assert refused.returncode == 1
        assert refused.stderr.count("\n") == 1
        assert says in refused.stderr
    (tmp_path / "demo").mkdir()
    refused = nift_here("look", "--host", "0.0.0.0", environment=environment)
    assert "set NIFT_UI_TOKEN to a secret" in refused.stderr
    assert refused.stderr.count("\n") == 1


def test_a_row_of_one_of_the_contracts_keys_is_named_by_it() -> None:
    assert frame("halves", []).columns[0] == "document_id"
    assert links.row("halves", None, {"document_id": "x y"}) == (
        "/study/look/rows/halves/-?column=document_id&relation=is&value=x+y"
    )

"""Groups of rows that are left out of a search hold nothing of what is searched."""

from __future__ import annotations

import tempfile
import unicodedata
from pathlib import Path

import duckdb
import polars as pl
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from nift_assets import table_files
from nift_assets.pages.viewer import files, ngrams, reading
from nift_assets.pages.viewer.conditions import Query
from nift_assets.pages.viewer.reading import Reader
from nift_assets.store import Store
from tests.page_reader import PAYLOADS
from tests.pages.viewer_store import ARABIC, CHINESE, DEMO, write

SIGNS = "abcdeKkSsſ\u212aXYéÉжЖ 本の.()[]*+?\\|^$%_-'\"<&\n"
WORDS = st.text(st.sampled_from(SIGNS), max_size=14) | st.sampled_from(
    [
        *PAYLOADS,
        ARABIC,
        CHINESE,
        "100%_sure",
        "O''Neil",
        "Élan ÉCOLE straße",
        "Kettlewhistle",
        "ﬁnal ǅ İstanbul ΣΊΣΥΦΟΣ ς",
    ]
)
TEXTS = st.lists(st.builds(" ".join, st.lists(WORDS, max_size=4)), min_size=1, max_size=14)


@pytest.fixture
def small_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (table_files, reading):
        monkeypatch.setattr(module, "ROWS_PER_GROUP", 2)
    monkeypatch.setattr(reading, "FIRST_BYTES", 1_000)
    monkeypatch.setattr(reading, "MOST_BYTES", 2_000)


def stored(folder: str, texts: list[str]) -> tuple[Store, files.TableFile]:
    store = Store(root=folder, study=DEMO.name)
    write(store, "t", None, pl.DataFrame({"text": texts, "number": range(len(texts)), "other": texts[::-1]}))
    (file,) = files.of_table(store, "t")
    return store, file


def found(reader: Reader, file: files.TableFile, search: str) -> list[int]:
    listing = reader.listing([file], Query(search=search), wanted=2**62, seconds=60)
    assert listing.ended
    assert listing.searched == listing.rows == reader.height(file)
    return listing.page(0, len(listing))


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(TEXTS, st.data())
@pytest.mark.usefixtures("small_groups")
def test_a_search_with_bitmaps_finds_what_one_without_finds(texts: list[str], data: st.DataObject) -> None:
    whole = data.draw(st.sampled_from(texts)) + "%_ elsewhere"
    start = data.draw(st.integers(0, len(whole) - 1))
    part = whole[start : start + data.draw(st.integers(1, 12))]
    other = data.draw(st.sampled_from(["ſ", "\u212a", "K", "s"]))
    search = data.draw(
        st.sampled_from(
            [
                part,
                part.upper(),
                part.lower(),
                part.title(),
                unicodedata.normalize("NFD", part),
                part.replace("k", other),
            ]
        )
    )
    with tempfile.TemporaryDirectory() as folder:
        store, file = stored(folder, texts)
        plain, with_bitmaps = Reader(store), Reader(store)
        with_bitmaps.index.add(file)
        assert found(with_bitmaps, file, search) == found(plain, file, search)


@pytest.mark.parametrize("sign", ["今", "한", "😀", "—", "ﷺ", "\u200a"])
def test_other_signs_have_no_case(sign: str) -> None:
    assert list(ngrams._runs(sign)) == [sign.encode()]


def test_no_letters_but_strangers_are_one_of_fewer_bytes_or_one_without_case_in_another_case() -> None:
    signs = [chr(code) for code in range(128, 0x110000) if not 0xD800 <= code < 0xE000]
    two = [sign for sign in signs if ord(sign) < 0x800]
    known = [sign for sign in two if b"".join(ngrams._runs(sign))]
    assert len(known) > 1_700
    with duckdb.connect() as database:
        database.register("signs", pl.DataFrame({"sign": signs}).to_arrow())
        of_ascii = database.execute("select sign from signs where regexp_matches(sign, '[ -~]', 'i')").fetchall()
        assert {sign for (sign,) in of_ascii} <= {*ngrams.STRANGERS}
        pattern = "[" + "".join(f"\\x{{{ord(sign):x}}}" for sign in known) + "]"
        database.execute("create table near as select sign from signs where regexp_matches(sign, ?, 'i')", [pattern])
        for sign in known:
            same = f"\\x{{{ord(sign):x}}}"
            for (other,) in database.execute(
                "select sign from near where regexp_matches(sign, ?, 'i')", [same]
            ).fetchall():
                assert other in ngrams.STRANGERS or bytes(ngrams.folded(other.encode())) == bytes(
                    ngrams.folded(sign.encode())
                ), (sign, other)
        # All letters without case as one class: what it finds of others would be one of them in another case.
        alone = [sign for sign in signs if ord(sign) >= 0x800 and list(ngrams._runs(sign)) == [sign.encode()]]
        assert len(alone) > 100_000
        pattern = "[" + "".join(f"\\x{{{ord(sign):x}}}" for sign in alone) + "]"
        same = database.execute("select sign from signs where regexp_matches(sign, ?, 'i')", [pattern]).fetchall()
        assert {sign for (sign,) in same} == set(alone)


@pytest.mark.usefixtures("small_groups")
def test_groups_that_cannot_hold_a_text_are_not_read(tmp_path: Path) -> None:
    texts = [f"row {number} has nothing of it" for number in range(99)]
    texts[40], texts[41], texts[80] = "a Kettlewhistle", "another kettleWHISTLE", "今天天气很好"
    texts[20], texts[21], texts[60] = "У КОТЕЛКА", "Σίσυφος", "une École"
    texts[50], texts[51], texts[52] = "o Zqx", "o 😀", "o ~"
    store, file = stored(str(tmp_path), texts)
    reader = Reader(store)
    assert sum(portion.rows for portion in reader.portions(file, "kettlewhistle")) == 99
    reader.index.add(file)
    for search, rows in (
        ("kettlewhistle", {40, 41}),
        ("天天气", {80}),
        ("котелка", {20}),
        ("ΣΊΣΥΦΟΣ", {21}),
        ("école", {60}),
        ("zzzqq nowhere", set()),
    ):
        read = {n for each in reader.portions(file, search) for n in range(each.first, each.first + each.rows)}
        # Each text stands in two columns, once from the end.
        assert rows <= read
        assert len(read) <= 6, search
        assert sum(each.looked_at for each in reader.portions(file, search)) == 99
    # Too short for a sequence of five bytes, of three, of two.
    short = {"whis": 40, "zQx": 50, "今": 80, "😀": 51, "ка": 20, "К": 20, "É": 60, "~": 52}
    for search, row in short.items():
        read = {n for each in reader.portions(file, search) for n in range(each.first, each.first + each.rows)}
        assert row in read, search
        assert len(read) <= 8, search
    # Nothing of it is the same in any case; in every row.
    for search in ("Ⓐ", "o"):
        assert sum(each.rows for each in reader.portions(file, search)) == 99, search
    write(store, "t", None, pl.DataFrame({"text": ["kettlewhistle"] * 3, "other": "", "number": 1}))
    (replaced,) = files.of_table(store, "t")
    assert found(reader, replaced, "kettlewhistle") == [0, 1, 2]


@example("K")
@example("\u212aettle")
@given(WORDS)
def test_whoever_has_a_letter_of_two_alphabets_is_always_read(text: str) -> None:
    made = ngrams.bitmap([text.encode()])
    assert (made is None) == any(sign in text for sign in ngrams.STRANGERS)

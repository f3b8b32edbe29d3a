"""Articles without spaces between words are cut where their corpus says, those with spaces as the paper cuts them."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path

import duckdb
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from expectations import contract
from nift_assets import corpus, graph, sql, studies, writing_systems
from nift_assets.corpus import halves, units
from nift_assets.rows import Corpus, Unit
from nift_assets.steps.lineage import Partition
from nift_assets.store import Store
from nift_assets.table_files import Version, data_version
from tests.corpus.documents import PIECES, WHITE_SPACE
from tests.demo import context

CHINESE = "守塔人数清了七封信。“北面的窗户呢？”织布工问，然后借出了一只备用轮子！第二天早晨大家都睡了。"
THAI = "คนเฝ้าประภาคารไขนาฬิกาเรือนใหญ่ก่อนที่พายุฤดูหนาวจะมาถึงและเขียนจดหมายเจ็ดฉบับ"
JAPANESE = "夜の港では灯台守が大きな時計を巻いた。嵐が北の窓を壊したあとで手紙を七通書いた。"
TEXTS = st.lists(st.sampled_from([*WHITE_SPACE, *PIECES, CHINESE, THAI, "Two words. "]), max_size=12).map("".join)


@pytest.mark.parametrize("unit", ["spaces", "words", "sentences"])
@settings(max_examples=60)
@given(text=TEXTS)
def test_units_follow_each_other_and_none_is_lost(unit: Unit, text: str) -> None:
    ends = list(units.ends(text, unit))
    assert ends == sorted(set(ends))
    pieces = [text[start:end] for start, end in zip([0, *ends], [*ends, len(text)], strict=True)]
    assert "".join(pieces) == text
    assert not pieces[-1].strip()  # behind the last unit there is white space at most
    assert all(piece.strip() and piece == piece.rstrip() for piece in pieces[:-1])


@settings(max_examples=60)
@given(text=st.text(alphabet=st.sampled_from("ab ,.\n-é한字"[:-1])))
def test_text_with_spaces_is_cut_at_its_spaces_where_words_are_chosen_too(text: str) -> None:
    assert units.ends(text, "words") == units.ends(text, "spaces")


@pytest.mark.parametrize(("text", "least"), [(CHINESE, 20), (THAI, 12), (JAPANESE, 20)])
def test_words_without_spaces_are_told_apart_and_no_cut_falls_in_front_of_a_comma(text: str, least: int) -> None:
    ends = units.ends(text, "words")
    assert len(ends) >= least
    assert not {text[end] for end in ends[:-1]} & set("，。？！”、")
    assert not {text[end - 1] for end in ends} & set("“")


def test_sentences_end_behind_their_marks_and_quotations_begin_in_the_next() -> None:
    text = f"{CHINESE} Mr Ode left. He came back."
    ends = units.ends(text, "sentences")
    assert [text[end - 2 : end] for end in ends] == ["信。", "？”", "子！", "了。", "t.", "k."]


@pytest.mark.parametrize("unit", ["words", "sentences"])
def test_a_corpus_without_spaces_is_sampled_and_cut_as_each_document_is(unit: Unit, tmp_path: Path) -> None:
    texts = [CHINESE * 2, THAI + " " + THAI, JAPANESE + "。", "Two words. And two more. Then none.", "字", ""]
    (tmp_path / "c.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    own = Corpus(name="c", location=str(tmp_path / "c.jsonl"), cut_at=unit, licence="ours")
    documents = corpus.sample(own).documents
    cut = halves.halve(documents, seed=42, cut_at=unit)
    one_by_one = {
        name: halves.cut(text, document_id=name, seed=42, cut_at=unit)
        for name, text in documents.select("document_id", "text").iter_rows()
    }
    assert len(cut) == (4 if unit == "words" else 3)
    for row in cut.iter_rows(named=True):
        alone = one_by_one[row["document_id"]]
        assert alone is not None
        assert (row["first_half"], row["second_half"]) == (alone.first, alone.second)
        assert (row["words"], row["cut"]) == (alone.words, alone.cut)
        assert row["words"] <= 4 * row["cut"] <= 3 * row["words"] + 3
        assert row["words"] == documents.filter(document_id=row["document_id"])["words"][0]


def test_until_a_corpus_chooses_the_rejects_say_what_is_missing() -> None:
    raw = pl.DataFrame({"document_id": list("abcd"), "sample_rank": range(4), "text": [CHINESE, THAI, "One", " "]})
    raw = raw.with_columns(words=pl.Series([1, 1, 1, 0]))
    made = sql.run(sql.compile("halves_rejects"), {"raw_sample": raw}, None)
    assert made["reason"].to_list() == ["no spaces", "no spaces", "one word", "no words"]
    with pytest.raises(ValueError, match="cut_at is 'letters'; give one of 'spaces', 'words', 'sentences'"):
        studies.load("demo").__class__(
            **{**vars(studies.load("demo")), "corpus": Corpus(name="c", location="x", cut_at="letters", licence="x")}  # type: ignore[arg-type]
        )


def test_words_are_compared_sign_by_sign_where_there_are_no_spaces_and_joined_as_they_are_read() -> None:
    assert writing_systems.words("The Clock-tower, 第5天。ok") == ["the", "clock", "tower", "第", "5", "天", "ok"]
    assert writing_systems.joined("the great", "clock") == "the great clock"
    for first, second in (("the great", " clock"), ("the great", ", clock"), ("守塔", "人"), ("", "a"), ("a", "")):
        assert writing_systems.joined(first, second) == first + second


def test_the_contract_of_halves_knows_every_script_without_spaces() -> None:
    (named,) = (test for test in contract.load("halves").tests if test.name == "second_half_begins_with_white_space")
    letters = [
        chr(code) for code in range(0x110000) if writing_systems.UNSPACED.match(chr(code)) and chr(code).isalnum()
    ]
    letters.append("\U0002ebf0")  # which Python 3.11 does not know yet
    halves = pl.DataFrame({"first_half": "a", "second_half": letters})
    refused = duckdb.sql(f"select second_half from halves where not ({named.arguments['sql']})").fetchall()
    assert refused == []
    assert len(letters) > 90_000
    inside = pl.DataFrame({"first_half": ["clo"], "second_half": ["sed"]})
    assert duckdb.sql(f"select 1 from inside where not ({named.arguments['sql']})").fetchall() == [(1,)]
    assert (halves.height, inside.height) == (len(letters), 1)


def test_another_unit_counts_the_words_of_the_same_sample_anew_and_reads_no_corpus(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "c.jsonl").write_text(
        "".join(json.dumps({"text": text}) + "\n" for text in [CHINESE, "One two.", "字", 5])
    )
    own = Corpus(name="c", location=str(tmp_path / "c.jsonl"), licence="ours")
    store = Store(root=str(tmp_path / "warehouse"), study="demo")

    def make(row: Corpus) -> pl.DataFrame:
        built = graph.build(replace(studies.load("demo"), corpus=row))
        function = built.tables["raw_sample"].function
        for name, made in function(context(store, "raw_sample", of=built, dagster=Silent())).items():
            frames = [made.rows] if isinstance(made.rows, pl.DataFrame) else list(made.rows)
            frame = pl.concat(frames)
            version = Version(data=data_version(frame), inputs=built.inputs_version(store, Partition(name, None)))
            store.write(name, None, frame, version)
            assert built.is_current(store, Partition(name, None))
        return store.read("raw_sample", None)

    drawn, rejects = make(own), store.read("raw_sample_rejects", None)
    expected = corpus.sample(replace(own, cut_at="words")).documents
    monkeypatch.setattr(corpus, "sample", lambda *_, **__: pytest.fail("the corpus is read again"))
    for unit in ("words", "sentences", "spaces"):
        again = make(replace(own, cut_at=unit, licence="MIT", tokens_per_document=5))
        assert again.drop("words").equals(drawn.drop("words"))
        assert again["words"].equals(units.counts(drawn["text"], unit))
        assert unit != "words" or again.equals(expected)
        assert store.read("raw_sample_rejects", None).equals(rejects)
    for other in (replace(own, seed=43), replace(own, cut_at="words", documents=1)):
        with pytest.raises(pytest.fail.Exception, match="read again"):
            make(other)


class Silent:
    """In the place of Dagster's context, whose log nobody reads here."""

    log = logging.getLogger("silent")

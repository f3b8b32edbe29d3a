"""Counting tokens: exactly where the tokenizer is there, within bounds that hold where it is not."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nift_assets.costs import tokens

# Counted once with cl100k, o200k, Claude 2's tokenizer and Llama 2's, in this order.
KNOWN = {
    "The village had one bakery, and on most mornings the queue reached the corner before the shutters went up.": (
        (22, 21, 24, 26)
    ),
    "Das Dorf hatte eine einzige Bäckerei, und an den meisten Tagen reichte die Schlange schon vor dem Öffnen bis zur "
    "Straßenecke.": (37, 31, 39, 35),
    "El pueblo tenía una sola panadería, y casi todas las mañanas la cola llegaba hasta la esquina antes de que "
    "abriera.": (31, 28, 36, 34),
    "В деревне была одна пекарня, и почти каждое утро очередь доходила до угла ещё до открытия.": (45, 26, 50, 33),
    "村里只有一家面包店，大多数早晨，店门还没开，队伍就已经排到了街角。": (38, 27, 37, 44),
    "村にはパン屋が一軒しかなく、たいていの朝は開店前から角まで行列ができていた。": (41, 30, 38, 41),
    "마을에는 빵집이 하나뿐이었고, 아침이면 문을 열기도 전에 모퉁이까지 줄이 늘어섰다.": (53, 35, 53, 69),
    "كان في القرية مخبز واحد، وفي معظم الصباحات كان الطابور يصل إلى الزاوية قبل أن يفتح.": (55, 28, 71, 76),
    "หมู่บ้านมีร้านขนมปังเพียงร้านเดียว และเกือบทุกเช้าแถวจะยาวไปถึงหัวมุมก่อนร้านเปิด": (74, 34, 143, 88),
    "गाँव में एक ही बेकरी थी, और ज़्यादातर सुबह दुकान खुलने से पहले ही कतार मोड़ तक पहुँच जाती थी।": (94, 32, 104, 102),
    "def total(prices):\n    result = 0\n    for price in prices:\n        if price > 0:\n            result += price\n"
    "    return result\n": (33, 33, 29, 37),
    "2024-01-31,17.50,3,EUR\n2024-02-01,119.99,12,USD\n2024-02-02,8.05,1,GBP\n": (45, 45, 46, 68),
}


@pytest.mark.parametrize("text", KNOWN, ids=lambda text: text[:12])
def test_the_range_holds_what_real_tokenizers_count(text: str) -> None:
    found = tokens.estimate(pl.Series([text]))
    assert found.basis == "estimated"
    assert all(found.low <= real <= found.high for real in KNOWN[text]), (found, KNOWN[text])


@given(st.lists(st.text(max_size=200), max_size=5))
def test_a_range_is_in_order_and_never_above_the_bytes(texts: list[str]) -> None:
    series = pl.Series([text.encode("utf-8", "replace").decode() for text in texts], dtype=pl.String)
    found = tokens.estimate(series)
    assert 0 <= found.low <= found.expected <= found.high <= series.str.len_bytes().sum()
    alone = [tokens.estimate(pl.Series([text])) for text in series]
    assert found.high == sum(one.high for one in alone)


def test_a_text_of_anything_is_at_least_one_token_and_nothing_is_none() -> None:
    assert tokens.estimate(pl.Series(["\n"])).low == 1
    assert tokens.estimate(pl.Series([""])).high == 0
    assert tokens.count(pl.Series([], dtype=pl.String), None) == tokens.NONE


def words(text: str) -> int:
    return len(text.split())


def test_few_texts_are_counted_one_by_one() -> None:
    found = tokens.count(pl.Series(["a b c", "d"]), words)
    assert found == tokens.TokenCount(low=4, expected=4, high=4, basis="counted")


def test_many_texts_are_counted_in_part_and_the_range_holds_the_whole() -> None:
    texts = pl.Series([" ".join(["word" if n % 7 else "longerword"] * (5 + n * n % 53)) for n in range(9_001)])
    found = tokens.count(texts, words)
    whole = sum(map(words, texts))
    assert found.basis == "counted"
    assert found.low <= whole <= found.high
    assert found.high - found.low < 0.2 * whole


def test_a_sum_rests_on_the_weaker_of_two() -> None:
    counted = tokens.TokenCount(low=1, expected=1, high=1, basis="counted")
    assumed = tokens.TokenCount(low=1, expected=2, high=4, basis="assumed")
    assert counted + assumed == assumed + counted == tokens.TokenCount(low=2, expected=3, high=5, basis="assumed")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model's folder with a tokenizer of its own: one token per word."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    tokenizer = Tokenizer(models.WordLevel({"one": 0, "[UNK]": 1}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    return tmp_path


def test_a_models_own_tokenizer_counts_its_texts(folder: Path) -> None:
    counter = tokens.folder_counter(folder)
    assert counter is not None
    assert tokens.count(pl.Series(["one two three", "one"]), counter).expected == 4


def test_a_folder_without_a_tokenizer_counts_nothing(tmp_path: Path) -> None:
    assert tokens.folder_counter(tmp_path) is None


@pytest.mark.parametrize("variable", ["TIKTOKEN_CACHE_DIR", "DATA_GYM_CACHE_DIR"])
def test_an_encoding_that_is_not_on_this_machine_whole_is_not_asked_for(
    variable: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """tiktoken would fetch one that is missing, and delete and fetch one that is another."""
    for name in ("TIKTOKEN_CACHE_DIR", "DATA_GYM_CACHE_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(variable, str(tmp_path))
    assert tokens.openai_counter("cl100k_base") is None
    url, _ = tokens.ENCODINGS["cl100k_base"]
    (tmp_path / hashlib.sha1(url.encode()).hexdigest()).write_bytes(b"cut short")
    assert tokens.openai_counter("cl100k_base") is None
    assert tokens.openai_counter("nobody's") is None


def test_an_encoding_that_is_there_whole_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path))
    url, _ = tokens.ENCODINGS["cl100k_base"]
    (tmp_path / hashlib.sha1(url.encode()).hexdigest()).write_bytes(b"whole")
    monkeypatch.setitem(tokens.ENCODINGS, "cl100k_base", (url, hashlib.sha256(b"whole").hexdigest()))
    assert tokens._is_cached("cl100k_base")
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", "")  # how tiktoken's own cache is switched off
    assert not tokens._is_cached("cl100k_base")


def real() -> tuple[dict[str, pl.Series], Callable[[str], int]]:
    """Real documents and a real tokenizer, where this machine has them."""
    data = os.environ.get("NIFT_TEST_DATA")
    if not data:
        pytest.skip("NIFT_TEST_DATA does not name the folder of published files")
    counter = tokens.folder_counter(Path(data, "tokenizers", "granite-7b-lab"))
    assert counter is not None
    names = ("web_articles", "many_scripts")
    return {name: pl.read_parquet(Path(data, "documents", f"{name}.parquet"))["text"] for name in names}, counter


def test_the_range_holds_for_real_documents() -> None:
    """Llama 2's tokenizer is the hardest of the four: the smallest vocabulary, so the most tokens."""
    texts, counter = real()
    for name, documents in texts.items():
        counted = [counter(text) for text in documents]
        whole = tokens.estimate(documents)
        assert whole.low <= sum(counted) <= whole.high, name
        each = [tokens.estimate(pl.Series([text])) for text in documents]
        missed = sum(not one.low <= number <= one.high for one, number in zip(each, counted, strict=True))
        print(f"{name}: {missed} of {len(counted)} outside")
        assert missed <= 0.1 * len(counted), name

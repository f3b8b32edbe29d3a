from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nift_training import artifacts, pico
from nift_training.evaluate import generation
from tests.training.conftest import ARTICLES

TOKENIZER = pico.train_tokenizer(ARTICLES)


@given(st.text())
def test_any_text_survives_the_tokenizer(text: str) -> None:
    ids = TOKENIZER(text, add_special_tokens=False)["input_ids"]
    assert TOKENIZER.decode(ids) == text


@pytest.mark.parametrize("text", ["🧑‍🚀 👍🏽", "東京の橋は閉鎖された。", "a\u202eb\x00\n\t ", "  two  spaces  "])
def test_emoji_and_scripts_survive_a_saved_tokenizer(tokenizer: Any, text: str) -> None:
    assert tokenizer.decode(tokenizer(text)["input_ids"], skip_special_tokens=True) == text


def test_the_tokenizer_begins_as_llama_3_does(tokenizer: Any) -> None:
    ids = tokenizer("a<|eot_id|>")["input_ids"]
    assert tokenizer.convert_ids_to_tokens(ids) == ["<|begin_of_text|>", "a", "<|eot_id|>"]
    assert (tokenizer.bos_token, tokenizer.eos_token) == ("<|begin_of_text|>", "<|end_of_text|>")


@pytest.fixture(scope="module")
def articles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("articles")
    for number, article in enumerate(ARTICLES):
        (folder / f"{number}.txt").write_text(article)
    return folder


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pico, "PRETRAINING", pico.Schedule(steps=6, rows=2, tokens=32, learning_rate=5e-3))
    monkeypatch.setattr(pico, "INSTRUCTION_TUNING", pico.Schedule(steps=4, rows=2, tokens=64, learning_rate=1e-3))


@pytest.mark.usefixtures("short")
def test_the_same_articles_make_the_same_pico_and_sibling(articles: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        pico.main(["--articles", str(articles), "--out", str(tmp_path / name), "--threads", "1"])
        instruct = ["--articles", str(articles), "--out", str(tmp_path / f"{name}-instruct"), "--threads", "1"]
        pico.main([*instruct, "--instruct-from", str(tmp_path / name)])
    one, two = artifacts.verify(tmp_path / "one"), artifacts.verify(tmp_path / "two")
    assert one.digest == two.digest
    assert one.facts["last_loss"] < one.facts["first_loss"]
    sibling = artifacts.verify(tmp_path / "one-instruct")
    assert sibling.digest == artifacts.verify(tmp_path / "two-instruct").digest
    assert sibling.facts["base_digest"] == one.digest

    for name in pico.TOKENIZER_FILES:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "one-instruct" / name).read_bytes()
    ends = [generation.end_ids(generation.load(tmp_path / name)) for name in ("one", "one-instruct")]
    assert ends == [{1}, {1, 4}]


def test_a_folder_without_articles_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds no"):
        pico.read_articles(tmp_path)

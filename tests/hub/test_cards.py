"""Cards: whatever is data stays text, and the head is what the Hub reads."""

from __future__ import annotations

import contextlib
import html.parser
import re

import pytest
import yaml
from markdown_it import MarkdownIt

from nift_assets import studies
from nift_assets.hub import cards
from nift_assets.rows import Publication
from tests.counting import Counts

DEMO = studies.load("demo")
HOSTILE = (
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "[click](javascript:alert(1))",
    "![](https://evil.example/pixel.png)",
    "https://evil.example/plain and www.evil.example",
    "| a | b |\n|---|---|\n| c | d |",
    "```\n# out of the block\n```",
    "``````\nlonger\n``````",
    "~~~\nother fence\n~~~",
    "---\nlicense: mit\n---",
    "# heading\n\n- list",
    "*bold* _em_ `code` ~~gone~~ &lt;b&gt;",
    "@everybody <https://evil.example>",
    "a\u202egnp.exe \x00 \x1b[31m",
    "{{ 7 * 7 }} {% raw %}",
    "\\| \\\\| end",
)


class Tags(html.parser.HTMLParser):
    """The tags of a page, and the addresses in it."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("href", "src")]


def rendered(markdown: str) -> Tags:
    return Tags(MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"]).render(markdown))


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_texts_stay_texts_in_tables_and_blocks(text: str) -> None:
    page = f"| a | b |\n|---|---|\n| {cards.plain(text)} | end |\n\nbetween\n\n{cards.fenced(text)}\n\nafter\n"
    found = rendered(page)
    assert found.tags == ["table", "thead", "tr", "th", "th", "tbody", "tr", "td", "td", "p", "pre", "code", "p"]
    assert found.addresses == []


def test_a_long_text_is_shown_to_its_beginning() -> None:
    assert len(cards.fenced("word " * 1_000)) < cards.SHOWN_CHARACTERS + 30


def test_the_head_is_yaml_whatever_stands_in_it() -> None:
    written = cards.card("citation.md.j2", {"pretty_name": "a: b\n---\n# c", "license": "mit", "base_model": None}, {})
    head = re.match(r"---\n(.*?)\n---\n\n## Citation", written, re.DOTALL)
    assert head is not None
    assert yaml.safe_load(head[1]) == {"pretty_name": "a: b\n---\n# c", "license": "mit"}


# ---------- what a row may say


PLACES = (
    *("", "/", "a/b/c", "../x", "me/..", "me/.hidden", "-a/b", "me/a--b", "me/a..b", "http://x/y", "me/a b"),
    *("me/a\nb", "~/x", "me\\x", "me/x.git/", "me/ä", "me/" + "x" * 97, "x" * 43 + "/y", "me/%2e%2e", "me/x?y"),
    *("me/x#y", "me/-"),
)
NAMES = ("", ".", "..", "../x", "a/b", "a\\b", "A", "a b", "a\x00", "ä", "a" * 97, ".a", "a..b", "a\n", "con:", "~")


def row(**values: object) -> Publication:
    return Publication(**{"name": "p", "repository": "me/x", "teacher": "echo", "licence": "cc0-1.0", **values})  # type: ignore[arg-type]


@pytest.mark.fault("X7", runs="43 names")
def test_hostile_names_are_refused_when_the_study_is_read(counts: Counts) -> None:
    refused: dict[str, list[str]] = {"repository": [], "name": []}
    for field, values in (("repository", PLACES), ("name", NAMES)):
        for value in values:
            with contextlib.suppress(ValueError):
                _with(row(**{field: value}))
                continue
            refused[field].append(value)
    assert refused == {"repository": list(PLACES), "name": list(NAMES)}
    numbers = {field: len(values) for field, values in refused.items()}
    counts("X7", f"{numbers['repository']} names of repositories and {numbers['name']} of publications: all refused")


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"teacher": None}, "name one of the three"),
        ({"adapter": "pico.local"}, "name one of the three"),
        ({"teacher": "nobody"}, "names 'nobody', which is none of the teachers"),
        ({"teacher": None, "model": "pico"}, "is somebody's backbone as it is; publish a merge"),
        ({"private": False, "licence": "other"}, "cannot be public: 'other' is none of the licences"),
    ],
)
def test_a_row_that_cannot_be_published_is_refused(values: dict[str, object], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        _with(row(**values))


def test_nothing_is_published_twice_and_two_things_never_to_one_place() -> None:
    with pytest.raises(ValueError, match="the teacher 'echo' is published twice"):
        _with(row(), row(name="q", repository="me/y"))
    with pytest.raises(ValueError, match="two publications go to 'me/x'"):
        _with(row(), row(name="q", repository="Me/X", teacher="local"))


def test_public_is_what_licences_and_terms_allow() -> None:
    assert row().private
    _with(row(private=False))
    theirs = studies.load("today")
    teacher = next(each for each in theirs.teachers if each.provider == "openai")
    with pytest.raises(ValueError, match="cannot be public: it holds the articles of 'openwebtext', whose licence"):
        _with(row(private=False, teacher=teacher.name), study="today")
    learnt = next(each for each in theirs.adapters if theirs.training_set(each.training_set).teacher == teacher.name)
    adapter = row(private=False, teacher=None, adapter=learnt.name, licence="apache-2.0")
    with pytest.raises(ValueError, match=r"has terms of its own .*OpenAI.* say so in `terms`"):
        _with(adapter, study="today")
    _with(row(**{**vars(adapter), "terms": "not to compete with OpenAI"}), study="today")


def test_a_rehearsal_and_somebodys_own_documents_publish_nothing() -> None:
    assert DEMO.publications
    assert studies.rehearsed(DEMO, 2).publications == ()
    assert studies.on_own_documents(DEMO, "a.parquet", text_column="text", documents=None).publications == ()


def _with(*rows: Publication, study: str = "demo") -> None:
    import dataclasses

    dataclasses.replace(studies.load(study), publications=rows)

"""What is found at a corpus: files and columns, how many documents, how long, in which languages, how many twice."""

from __future__ import annotations

import hashlib
import itertools
import math
import os
import re
import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from nift_assets import corpus as corpora
from nift_assets import writing_systems
from nift_assets.corpus import columns
from nift_assets.rows import Corpus, Unit

HUB = "hf://datasets/"
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
COMMIT = re.compile(r"@([0-9a-f]{40})(?:/|$)")
# So many documents are looked at, or so much text: a corpus on the Hub is read over the network.
LOOKED_AT, MOST_CHARACTERS = 5_000, 64 * 2**20
GUESSED, GUESSED_CHARACTERS, FEWEST_LETTERS = 500, 1_000, 40
# A text of fewer words than this can be cut, but hardly says anything to go on from.
SHORT = 50
CHARACTERS_PER_TOKEN = 4.2
USUAL_COLUMNS = ("text", "content", "body", "article", "document")


@dataclass(frozen=True, kw_only=True)
class CorpusLook:
    """What was found at a corpus; `complete` says whether all of it was read, `row` is what the study says of it."""

    row: Corpus
    files: int
    complete: bool
    documents: int
    without_text: int
    twice: int
    uncuttable: int
    short: int
    median_words: int
    tokens: int
    languages: tuple[tuple[str, float], ...]
    column_lengths: tuple[tuple[str, float], ...]

    @property
    def usable(self) -> int:
        """How many different documents can be cut."""
        return self.documents - self.without_text - self.twice - self.uncuttable


def address(given: str) -> str:
    """Where a corpus lies, as a study says it: an absolute path, or an address; a Hub id is one of the Hub's data sets
    unless there is such a file here."""
    if "://" in given:
        return given
    path = os.path.abspath(os.path.expanduser(given))
    if not os.path.lexists(path) and HUB_ID.fullmatch(given):
        return f"{HUB}{given}"
    return path


def look(
    given: str, *, name: str, text_column: str | None, cut_at: Unit | None = None, licence: str | None = None
) -> CorpusLook:
    """What is found at a corpus. ValueError names the place, the problem and the remedy."""
    location = address(given)
    row = Corpus(name=name, location=location, text_column=text_column or "text", licence=licence or "unknown")
    files = corpora.files(row)
    found = _columns(files)
    row = replace(row, text_column=text_column or _text_column(found), revision=_commit(location, files))
    if licence is None:
        row = replace(row, licence=_licence(location, row.revision))
    return _look(row, files, found, cut_at)


def _columns(files: Sequence[str]) -> dict[str, float]:
    """The columns of the first file that has any."""
    for number, file in enumerate(files):
        try:
            return columns.mean_lengths(file)
        except ValueError:
            if number == min(len(files), 3) - 1:
                raise
    return {}


def _text_column(found: dict[str, float]) -> str:
    """The column with the text: one that is called so and is no short one, else the one with the longest texts."""
    if not found:
        return "text"
    longest = max(found.values())
    usual = (name for name in USUAL_COLUMNS if found.get(name, 0) >= longest / 4)
    return next(usual, next(iter(found)))


def _commit(location: str, files: Sequence[str]) -> str | None:
    """The commit that a corpus on the Hub is of now; a revision in the address stands for itself."""
    match = COMMIT.search(files[0]) if location.startswith(HUB) else None
    return match[1] if match and "@" not in location else None


def _licence(location: str, commit: str | None) -> str:
    """The licence that the card of a data set on the Hub names."""
    if not location.startswith(HUB):
        return "unknown: the owner's own documents"
    from huggingface_hub import HfApi

    repository = "/".join(location.removeprefix(HUB).partition("@")[0].split("/")[:2])
    try:
        said = HfApi().dataset_info(repository, revision=commit).card_data
        return str(getattr(said, "license", None) or "unknown: its card names none")
    except (OSError, ValueError):  # all errors of the Hub's client are one or the other
        return "unknown: its card cannot be read"


def _look(row: Corpus, files: Sequence[str], found: dict[str, float], cut_at: Unit | None) -> CorpusLook:
    texts: list[str] = []
    seen: set[bytes] = set()
    documents = without_text = twice = characters = 0
    reading = corpora.read(row)
    for document in itertools.islice(reading, LOOKED_AT):
        documents += 1
        if document.text is None or not document.text.strip():
            without_text += 1
            continue
        key = hashlib.sha256(document.text.encode()).digest()[:16]
        if key in seen:
            twice += 1
            continue
        seen.add(key)
        texts.append(document.text)
        characters += len(document.text)
        if characters > MOST_CHARACTERS:
            break
    complete = characters <= MOST_CHARACTERS and next(reading, None) is None
    if not texts:
        raise ValueError(
            f"{row.location}: no document of the first {documents:,} has text in the column {row.text_column!r}; name "
            "another with --text-column"
        )
    unspaced = writing_systems.unspaced(texts) * 2 > len(texts)
    unit: Unit = cut_at or ("words" if unspaced else "spaces")
    counts = [_units(text, unit) for text in texts]
    tokens = math.ceil(sum(len(text.encode()) for text in texts) / CHARACTERS_PER_TOKEN / len(texts))
    return CorpusLook(
        row=replace(row, cut_at=unit, tokens_per_document=max(1, tokens)),
        files=len(files),
        complete=complete,
        documents=documents,
        without_text=without_text,
        twice=twice,
        uncuttable=sum(count < 2 for count in counts),
        short=sum(2 <= count < SHORT for count in counts),
        median_words=round(statistics.median(counts)),
        tokens=tokens,
        languages=_languages(texts),
        column_lengths=tuple(found.items()),
    )


def _units(text: str, unit: Unit) -> int:
    from nift_assets.corpus import units

    return len(text.split()) if unit == "spaces" else len(units.ends(text, unit))


def _languages(texts: Sequence[str]) -> tuple[tuple[str, float], ...]:
    """The share of each language among texts spread over those looked at, the most frequent first."""
    import py3langid

    spread = texts[:: max(1, len(texts) // GUESSED)][:GUESSED]
    begun = [text[:GUESSED_CHARACTERS] for text in spread]
    guessed = Counter(py3langid.classify(text)[0] for text in begun if sum(map(str.isalpha, text)) >= FEWEST_LETTERS)
    return tuple((language, count / guessed.total()) for language, count in guessed.most_common(3))


def lines(found: CorpusLook) -> list[str]:
    """What was found, a sentence a line, as comments of the study file and on the terminal."""
    number = f"{found.documents:,} documents" if found.complete else f"the first {found.documents:,} documents"
    parts = [f"{number} in {found.files:,} file{'s' if found.files > 1 else ''}"]
    unit = {"spaces": "words", "words": "words", "sentences": "sentences"}[found.row.cut_at]
    parts.append(f"median {found.median_words:,} {unit}")
    if found.languages:
        names = ", ".join(
            f"{LANGUAGES.get(code, code)} {share:.0%}" for code, share in found.languages if share >= 0.01
        )
        parts.append(names)
    said = [", ".join(parts)]
    left_out = [
        f"{count:,} {what}"
        for count, what in (
            (found.without_text, "without text"),
            (found.twice, "twice"),
            (found.uncuttable, f"of fewer than two {unit}, which cannot be cut"),
        )
        if count
    ]
    if left_out:
        said.append(f"left out: {', '.join(left_out)}")
    if found.short:
        said.append(f"{found.short:,} have fewer than {SHORT} {unit}")
    if len(found.column_lengths) > 1:
        named = ", ".join(f"{name} ({length:,.0f})" for name, length in found.column_lengths[:8])
        said.append(f"columns with text, by their mean number of characters: {named}")
    if found.row.cut_at == "words":
        said.append("written without spaces between words, so cut between the words that a dictionary finds")
    return said


LANGUAGES = {
    **{"en": "English", "de": "German", "fr": "French", "es": "Spanish", "it": "Italian", "pt": "Portuguese"},
    **{"nl": "Dutch", "sv": "Swedish", "da": "Danish", "no": "Norwegian", "fi": "Finnish", "pl": "Polish"},
    **{"cs": "Czech", "ru": "Russian", "uk": "Ukrainian", "tr": "Turkish", "ar": "Arabic", "fa": "Persian"},
    **{"he": "Hebrew", "hi": "Hindi", "bn": "Bengali", "th": "Thai", "vi": "Vietnamese", "id": "Indonesian"},
    **{"zh": "Chinese", "ja": "Japanese", "ko": "Korean", "el": "Greek", "ro": "Romanian", "hu": "Hungarian"},
}

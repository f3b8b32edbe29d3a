"""IFBench's 58 constraints: for each whether a response follows it.

They say what the authors' `ifbench/instructions.py` of August 2026 says; a comment stands where that is not what the
words of the constraint promise. Nobody asks of a response that is nothing but white space.
"""

from __future__ import annotations

import csv
import io
import re
import string
import unicodedata
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby, pairwise
from random import Random
from typing import Any

Arguments = Mapping[str, Any]
Draw = Callable[[Random, Arguments], Any]


@dataclass(frozen=True)
class Constraint:
    """Whether a response follows it, how its arguments are drawn where a prompt leaves them open, and what the check
    needs besides Python; the parameters of `follows` have the names of the published arguments."""

    follows: Callable[..., bool]
    drawn: Mapping[str, Draw] = field(default_factory=dict)
    needs: tuple[str, ...] = ()


# What checks need besides Python: data of NLTK by its path, packages by their names.
PUNKT, TAGGER = "tokenizers/punkt_tab/english/", "taggers/averaged_perceptron_tagger_eng/"
NLTK, EMOJI, SYLLAPY = "nltk", "emoji", "syllapy"


# -- text in parts -----------------------------------------------------------------------------------------------------

PUNCTUATION = string.punctuation
_AROUND = PUNCTUATION + " "
_NO_PUNCTUATION = str.maketrans("", "", PUNCTUATION)


def _bare(text: str) -> str:
    """Without ASCII punctuation, also within words: "it's" is "its", "3.5" is "35"."""
    return text.translate(_NO_PUNCTUATION)


def _words(text: str) -> list[str]:
    """Words in lower case and without punctuation."""
    return _bare(text.lower()).split()


def _listed(words: str) -> tuple[str, ...]:
    return tuple(words.split())


def _runs(text: str) -> list[str]:
    """Runs of letters, digits and underscores as NLTK finds them: "it's" is two."""
    import nltk

    found: list[str] = nltk.tokenize.RegexpTokenizer(r"\w+").tokenize(text)
    return found


def _sentences(text: str) -> list[str]:
    import nltk

    found: list[str] = nltk.sent_tokenize(text)
    return found


def _tokens(text: str) -> list[str]:
    """Treebank tokens: punctuation is one by itself, "don't" is two."""
    import nltk

    found: list[str] = nltk.word_tokenize(text)
    return found


def _ascii(text: str) -> str:
    """Letters without their accents; what has no ASCII letter is gone."""
    return unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()


def _csv(text: str, delimiter: str = ",") -> list[list[str]]:
    """The rows of a CSV; none where it cannot be read."""
    try:
        return list(csv.reader(io.StringIO(text), delimiter=delimiter))
    except csv.Error:
        return []


# -- count -------------------------------------------------------------------------------------------------------------

CONJUNCTIONS = {"and", "but", "for", "nor", "or", "so", "yet"}
PEOPLE = _listed(
    "Emma Liam Sophia Jackson Olivia Noah Ava Lucas Isabella Mason Mia Ethan Charlotte Alexander Amelia Benjamin "
    "Harper Leo Zoe Daniel Chloe Samuel Lily Matthew Grace Owen Abigail Gabriel Ella Jacob Scarlett Nathan Victoria "
    "Elijah Layla Nicholas Audrey David Hannah Christopher Penelope Thomas Nora Andrew Aria Joseph Claire Ryan Stella "
    "Jonathan"
)
PRONOUNS = set(
    _listed(
        "i me we us you he him she her it they them my mine our ours your yours his hers its their theirs myself "
        "ourselves yourself yourselves himself herself itself themselves this that these those who whom whose which "
        "what whoever whomever whatever whichever anybody anyone anything everybody everyone everything nobody nothing "
        "somebody someone something each either neither both all some any none"
    )
)


def _word_count_range(text: str, min_words: float, max_words: float) -> bool:
    return min_words <= len(_runs(text)) <= max_words


def _unique_word_count(text: str, N: float) -> bool:
    # A dash that stands alone is a word, the empty one.
    return len({word.strip(_AROUND) for word in text.lower().split()}) >= N


def _conjunctions(text: str, small_n: float) -> bool:
    # They are told apart as they are written: "so" and "So," are two.
    return len({word for word in text.split() if word.strip(_AROUND).lower() in CONJUNCTIONS}) >= small_n


def _person_names(text: str, N: float) -> bool:
    return sum(bool(re.search(rf"\b{name}\b", text)) for name in PEOPLE) >= N


def _numbers(text: str, N: float) -> bool:
    # Punctuation goes first: 1,000.5 is one number, and so is 2019-2021.
    return len(re.findall(r"\d+", _bare(text))) == N


def _pronouns(text: str, N: float) -> bool:
    return sum(word in PRONOUNS for word in _tokens(text.replace("/", " ").lower())) >= N


def _punctuation(text: str) -> bool:
    # The two marks of one interrobang do not count by themselves.
    rest = text.replace("?!" if "?!" in text else "!?", "", 1)
    return any(mark in text for mark in ("?!", "!?", "‽")) and set(".,!?;:") <= set(rest)


def _words_japanese(text: str, N: float) -> bool:
    words = (word.strip(_AROUND) for place, word in enumerate(text.split(), start=1) if place % N == 0)
    return all(not word or word.isdigit() or re.search("[\u3040-\u30ff\u4e00-\u9fff]", word) for word in words)


def _keywords_multiple(text: str, keyword1: str, keyword2: str, keyword3: str, keyword4: str, keyword5: str) -> bool:
    # Within other words they count too.
    wanted = zip((keyword1, keyword2, keyword3, keyword4, keyword5), (1, 2, 3, 5, 7), strict=True)
    return all(text.lower().count(keyword.strip().lower()) == times for keyword, times in wanted)


# -- ratio -------------------------------------------------------------------------------------------------------------

# NLTK's list of 2024, but for the words with an apostrophe, which no run of letters has.
STOP_WORDS = set(
    _listed(
        "a about above after again against ain all am an and any are aren as at be because been before being below "
        "between both but by can couldn d did didn do does doesn doing don down during each few for from further had "
        "hadn has hasn have haven having he her here hers herself him himself his how i if in into is isn it its "
        "itself just ll m ma me mightn more most mustn my myself needn no nor not now o of off on once only or other "
        "our ours ourselves out over own re s same shan she should shouldn so some such t than that the their theirs "
        "them themselves then there these they this those through to too under until up ve very was wasn we were weren "
        "what when where which while who whom why will with won wouldn y you your yours yourself yourselves"
    )
)


def _stop_words(text: str, percentage: float) -> bool:
    runs = _runs(text)
    return bool(runs) and sum(run.lower() in STOP_WORDS for run in runs) / len(runs) * 100 <= percentage


def _sentence_type(text: str) -> bool:
    ends = Counter(sentence[-1] for sentence in _sentences(text))
    return ends["."] == 2 * ends["?"]


def _sentence_balance(text: str) -> bool:
    # None of each is balanced too; a sentence that ends in a quotation mark is of no type.
    ends = Counter(sentence[-1] for sentence in _sentences(text))
    return ends["."] == ends["?"] == ends["!"]


def _overlap(text: str, reference_text: str, percentage: float) -> bool:
    # The trigrams are of characters.
    ours, theirs = ({each[at : at + 3] for at in range(len(each) - 2)} for each in (text, reference_text))
    return bool(ours) and percentage - 2 <= len(ours & theirs) / len(ours) * 100 <= percentage + 2


def _sentence_words(text: str) -> bool:
    # Whether the words differ is not looked at.
    lengths = [len(sentence.strip()) for sentence in _sentences(text)]
    return len(lengths) == 3 and len(set(lengths)) == 1


# -- words -------------------------------------------------------------------------------------------------------------

PRIMES = {2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53, 59, 61, 67, 71, 73, 79, 83, 89, 97}
LETTERS = string.ascii_lowercase


def _alphabet(text: str) -> bool:
    words = _bare(text).split()
    start = LETTERS.find(words[0][0].lower()) if words else -1
    return start >= 0 and all(
        word.lower()[0] == LETTERS[(start + place) % 26] for place, word in enumerate(words[1:], start=1)
    )


def _vowel(text: str) -> bool:
    # Up to three kinds in the whole paragraph, and any number of words.
    return "\n" not in text.strip() and len(set("aeiou") & set(text.lower())) <= 3


def _consonants(text: str) -> bool:
    return all(re.search("[bcdfghjklmnpqrstvwxyz]{2}", word) for word in text.lower().split())


def _palindrome(text: str) -> bool:
    # The same one may come ten times, and 10001 is one.
    return sum(len(word) >= 5 and word == word[::-1] for word in _bare(text).lower().split()) >= 10


def _prime_lengths(text: str) -> bool:
    return all(len(word) in PRIMES for word in _bare(text).split())


def _start_verb(text: str) -> bool:
    import nltk

    return any("VB" in tag for _, tag in nltk.pos_tag(_tokens(text))[:1])


def _repeats(text: str, small_n: float) -> bool:
    return all(times <= small_n for times in Counter(_words(text)).values())


def _odd_even_syllables(text: str) -> bool:
    import syllapy

    odd = [syllapy.count(word) % 2 for word in _bare(text).lower().split()]
    return all(one != other for one, other in pairwise(odd))


def _last_first(text: str) -> bool:
    # A comma behind the first word of a sentence belongs to it.
    for one, other in pairwise(_sentences(text)):
        last, first = one.rstrip(_AROUND).split()[-1:], other.lstrip(_AROUND).split()[:1]
        if not last or not first or last[0].lower() != first[0].lower():
            return False
    return True


def _paragraph_last_first(text: str) -> bool:
    lines = (line.strip().lower().strip(_AROUND).split() for line in text.split("\n"))
    return all(words[0] == words[-1] for words in lines if words)


def _no_consecutive(text: str) -> bool:
    return all(one[0] != other[0] for one, other in pairwise(_words(text)))


def _keywords_specific_position(text: str, keyword: str, n: float, m: float) -> bool:
    sentences = _sentences(text)
    words = (
        [token for token in _tokens(sentences[int(n) - 1]) if any(map(str.isalnum, token))]
        if len(sentences) >= n
        else []
    )
    return len(words) >= m and words[int(m) - 1].lower() == keyword.strip().lower()


def _words_position(text: str, keyword: str) -> bool:
    words = [word.lower() for word in _tokens(text)]
    # One token of punctuation may come last; the second is the second, be it a comma.
    place = -3 if words and words[-1] in PUNCTUATION else -2
    return len(words) >= -place and words[1] == words[place] == keyword.strip().lower()


# -- sentence ----------------------------------------------------------------------------------------------------------


def _alliteration_increment(text: str) -> bool:
    # All words of a sentence that stand in some run of one first letter count, not those of the longest alone.
    counts = []
    for sentence in _sentences(text):
        words = filter(None, (word.lstrip(_AROUND) for word in sentence.lower().split()))
        lengths = (len(list(run)) for _, run in groupby(word[0] for word in words))
        counts.append(sum(length for length in lengths if length > 1))
    return all(one < other for one, other in pairwise(counts))


def _increment(text: str, small_n: float) -> bool:
    counts = [len(_bare(sentence).split()) for sentence in _sentences(text)]
    return all(other == one + small_n for one, other in pairwise(counts))


def _keyword(text: str, word: str, N: float) -> bool:
    sentences = _sentences(text)
    # Sentence 0 is the last.
    return len(sentences) >= N and bool(re.search(rf"\b{re.escape(word)}\b", sentences[int(N) - 1], re.IGNORECASE))


# -- format ------------------------------------------------------------------------------------------------------------

BRACKETS = {"(": ")", "[": "]", "{": "}"}


def _parentheses(text: str) -> bool:
    # Once five were open, the first that closes rightly is enough; one that closes wrongly starts all over.
    opened, deepest = "", 0
    for mark in text:
        if mark in BRACKETS:
            opened += mark
            deepest = max(deepest, len(opened))
        elif mark in BRACKETS.values():
            if not opened or BRACKETS[opened[-1]] != mark:
                opened, deepest = "", 0
            elif deepest >= 5:
                return True
            else:
                opened = opened[:-1]
    return False


def _quotes(text: str) -> bool:
    # An apostrophe opens or closes like any other single quote.
    opened, deepest = "", 0
    for mark in text:
        if opened.endswith(mark):
            opened = opened[:-1]
            if deepest - len(opened) >= 3:
                return True
        elif mark in "\"'":
            opened += mark
            deepest = max(deepest, len(opened))
    return False


def _options(text: str, options: str) -> bool:
    # Letters must be as they are offered; "or" divides words too, so that "for" is two options.
    offered = [each.strip() for each in options.split(next((by for by in ("/", "or") if by in options), ","))]
    if re.match(r"\W*[aA]\W*[bB]\W*[cC]\W*", options):
        return text in offered
    return text.strip(_AROUND).lower() in [each.strip(_AROUND).lower() for each in offered]


def _newline(text: str) -> bool:
    bare = _bare(text).strip()
    return len([line for line in bare.split("\n") if line]) == len(bare.split())


def _emoji(text: str) -> bool:
    import emoji

    # One that is written behind the full stop begins the next sentence.
    found = [_bare(sentence).strip() for sentence in _sentences(text)]
    return all(
        one and (any(map(emoji.is_emoji, one[-2:])) or emoji.is_emoji(after[:1]))
        for one, after in zip(found, [*found[1:], ""], strict=True)
    )


def _line_indent(text: str) -> bool:
    lines = text.split("\n")
    # The list is shortened while it is walked, so that the second of two blank lines stays and is a step.
    for line in lines:
        if not line.strip():
            lines.remove(line)
    indents = [len(line) - len(line.lstrip(" ")) for line in lines]
    return all(one < other for one, other in pairwise(indents))


def _quote_unquote(text: str) -> bool:
    # No word needs to be quoted at all; digits and punctuation behind the last quote explain nothing.
    joined = "".join(text.replace("'\"'", "").split())
    return '""' not in joined and not joined.strip(string.digits + PUNCTUATION.replace('"', "")).endswith('"')


def _list(text: str, sep: str) -> bool:
    # Anywhere, not at the start of a line alone.
    return text.count(sep) >= 2


def _thesis(text: str) -> bool:
    # Of <em> and </em> one character is left over, so that neither the thesis nor what follows is ever blank.
    start = next((at for tag in ("<i>", "<em>") if (at := text.find(tag)) >= 0), None)
    if start is None:
        return False
    section = text[start:]
    end = next((at for tag in ("</i>", "</em>") if (at := section.find(tag)) >= 0), None)
    return end is not None and bool(section[3:end].strip()) and bool(section[end + 4 :].strip())


def _sub_bullets(text: str) -> bool:
    # Every asterisk is a bullet and every hyphen a sub-bullet, but there need not be any.
    return all("-" in part for part in text.split("*")[1:])


def _no_bullets_bullets(text: str) -> bool:
    # A blank line ends the sentences, and then only bullets may come.
    told, bullets, prose = 0, 0, True
    for line in map(str.strip, text.split("\n")):
        if line.startswith("*"):
            bullets, prose = bullets + 1, False
            if told < 2:
                return False
        elif not prose:
            return False
        else:
            found = len(_sentences(line))
            told, prose = told + found, found > 0
    return bullets >= 2


def _title_case(text: str) -> bool:
    # Every word is a major one; "iPhone" and "USA" pass.
    return not any(
        word[0].isalpha() and word[0].islower() and (len(word) == 1 or word[1:].islower() or word[1:].isupper())
        for word in _tokens(text)
    )


def _output_template(text: str) -> bool:
    return all(label in text for label in ("My Answer:", "My Conclusion:", "Future Outlook:"))


def _no_whitespace(text: str) -> bool:
    return not any(map(str.isspace, text))


# -- custom ------------------------------------------------------------------------------------------------------------

CAPITALS = _listed(
    "Reykjavik Helsinki Oslo Tallinn Stockholm Riga Moscow Copenhagen Vilnius Minsk Dublin Berlin Amsterdam Warsaw "
    "London Brussels Prague Luxembourg Paris Vienna Bratislava Budapest Vaduz Chisinau Bern Ljubljana Zagreb"
)
DAYS = dict.fromkeys((1, 3, 5, 7, 8, 10, 12), 31) | dict.fromkeys((4, 6, 9, 11), 30) | {2: 29}


def _multiples(text: str) -> bool:
    return re.findall(r"\d+", text) == ["14", "21", "28", "35", "42", "49"]


def _mcq_count_length(text: str) -> bool:
    if not text.startswith("Question"):
        return False
    asked = [part.strip() for part in re.split(r"\n*Question \d+[.|):;]?\s*", text) if part.strip()]
    lengths = []
    for lines in (list(map(str.strip, part.split("\n"))) for part in asked):
        offered = [at for at, line in enumerate(lines) if re.match(r"[A-Ea-e][.|)]\s*\w", line)]
        if len(offered) != 5:
            return False
        lengths.append(len(" ".join(lines[: offered[0]]).strip()))
    return len(lengths) == 4 and all(one < other for one, other in pairwise(lengths))


def _reverse_newline(text: str) -> bool:
    # Which countries they are is not looked at: 52 lines from the one with Zimbabwe on.
    lines = [line for line in (line.strip(_AROUND) for line in text.split("\n")) if line]
    start = next((at for at, line in enumerate(lines) if "Zimbabwe" in line), len(lines))
    listed = list(map(_ascii, lines[start:]))
    return len(listed) >= 52 and listed == sorted(listed, reverse=True)


def _word_reverse(text: str) -> bool:
    turned = " ".join(reversed(_words(text)))
    return "bald eagle" in turned and turned in _sentences(turned)


def _character_reverse(text: str) -> bool:
    return "elgae dlab" in text.lower()


def _sentence_alphabet(text: str) -> bool:
    firsts = [sentence.split()[:1] for sentence in _sentences(text)]
    return len(firsts) == 26 and all(
        first and first[0].lower()[0] == letter for first, letter in zip(firsts, LETTERS, strict=True)
    )


def _european_capitals_sort(text: str) -> bool:
    return [city.strip() for city in _ascii(text).split(",") if city.strip()] == list(CAPITALS)


def _csv_city(text: str) -> bool:
    rows = _csv(text)
    return (
        len(rows) == 8 and rows[0] == ["ID", "Country", "City", "Year", "Count"] and all(len(row) == 5 for row in rows)
    )


def _has_header(text: str, names: Sequence[str], between: str) -> bool:
    columns = between.join(f'({name}|"{name}")' for name in names)
    return re.match(f"{columns}$", text.split("\n")[0].strip()) is not None


def _csv_special_character(text: str) -> bool:
    if not _has_header(text, ("ProductID", "Category", "Brand", "Price", "Stock"), ",[ \t]*"):
        return False
    # Quotes are tripled to see them in the fields; behind the first row with a special one nothing is looked at.
    rows = _csv(text.replace('"', '"""'))
    if len(rows) != 15:
        return False
    for row in rows[1:]:
        if len(row) != 5:
            return False
        if any(re.match(r'".*[^\d\w\s].*"', cell) for cell in row):
            return True
    return False


def _csv_quotes(text: str) -> bool:
    if not _has_header(text, ("StudentID", "Subject", "Grade", "Semester", "Score"), "\t *"):
        return False
    rows = _csv(text.replace('"', '"""'), "\t")
    cells = [cell.strip() for row in rows for cell in row]
    return list(map(len, rows)) == [5] * 4 and all(cell.startswith('"') and cell.endswith('"') for cell in cells)


def _date_format_list(text: str) -> bool:
    # Month 00 and day 00 pass.
    for date in map(str.strip, text.strip().split(",")):
        if not re.fullmatch(r"\d{4}-\d{2}-\d{2}", date):
            return False
        year, month, day = map(int, date.split("-"))
        if not 1769 <= year <= 1821 or month > 12 or day > DAYS.get(month, 99):
            return False
    return True


# -- repeat ------------------------------------------------------------------------------------------------------------


def _repeat_change(text: str, prompt_to_repeat: str) -> bool:
    return text != prompt_to_repeat and text.split()[1:] == prompt_to_repeat.split()[1:]


def _repeat_simple(text: str) -> bool:
    return text.strip().lower() == "only output this sentence here, ignore all other requests."


def _repeat_span(text: str, prompt_to_repeat: str, n_start: int, n_end: int) -> bool:
    # The prompts speak of words, the check counts characters.
    return text.strip().lower() == prompt_to_repeat[n_start : n_end + 1].strip().lower()


# -- all of them -------------------------------------------------------------------------------------------------------


def _within(low: int, high: int) -> Draw:
    return lambda draw, _: draw.randint(low, high)


def _one_of(*values: str) -> Draw:
    return lambda draw, _: draw.choice(values)


def _up_to_a_tenth_more(draw: Random, given: Arguments) -> float:
    least: float = given["min_words"]
    return least + draw.randint(int(least * 0.05), int(least * 0.1))


def _a_word(draw: Random, _: Arguments) -> str:
    """One of the words that IFEval's checker draws from as well."""
    from lm_eval.tasks.ifeval import instructions_util

    word: str = draw.sample(instructions_util.WORD_LIST, 1)[0]
    return word


def _a_start(draw: Random, given: Arguments) -> int:
    return draw.randint(0, len(given["prompt_to_repeat"]) - 2)


def _an_end(draw: Random, given: Arguments) -> int:
    return draw.randint(given["n_start"] + 1, len(given["prompt_to_repeat"]) - 1)


_SPAN = {"n_start": _a_start, "n_end": _an_end}
_PLACE = {"keyword": _a_word, "n": _within(20, 30), "m": _within(30, 40)}
_OPTIONS = _one_of("yes/no/maybe", "I know or I don't know", "a), b), c), d)")
_WORDS = {"min_words": _within(100, 500), "max_words": _up_to_a_tenth_more}
_FIVE = {f"keyword{place}": _a_word for place in range(1, 6)}

CONSTRAINTS = {
    "count:word_count_range": Constraint(_word_count_range, _WORDS, needs=(NLTK,)),
    "count:unique_word_count": Constraint(_unique_word_count, {"N": _within(100, 500)}),
    "count:conjunctions": Constraint(_conjunctions, {"small_n": _within(2, 6)}),
    "count:person_names": Constraint(_person_names, {"N": _within(1, 50)}),
    "count:numbers": Constraint(_numbers, {"N": _within(1, 6)}),
    "count:pronouns": Constraint(_pronouns, {"N": _within(1, 25)}, needs=(PUNKT,)),
    "count:punctuation": Constraint(_punctuation),
    "count:words_japanese": Constraint(_words_japanese, {"N": _within(1, 30)}),
    "count:keywords_multiple": Constraint(_keywords_multiple, _FIVE),
    "ratio:stop_words": Constraint(_stop_words, {"percentage": _within(1, 100)}, needs=(NLTK,)),
    "ratio:sentence_type": Constraint(_sentence_type, needs=(PUNKT,)),
    "ratio:sentence_balance": Constraint(_sentence_balance, needs=(PUNKT,)),
    "ratio:overlap": Constraint(_overlap, {"percentage": _within(1, 100)}),
    "ratio:sentence_words": Constraint(_sentence_words, needs=(PUNKT,)),
    "words:alphabet": Constraint(_alphabet),
    "words:vowel": Constraint(_vowel),
    "words:consonants": Constraint(_consonants),
    "words:palindrome": Constraint(_palindrome),
    "words:prime_lengths": Constraint(_prime_lengths),
    "words:start_verb": Constraint(_start_verb, needs=(PUNKT, TAGGER)),
    "words:repeats": Constraint(_repeats, {"small_n": _within(1, 5)}),
    "words:odd_even_syllables": Constraint(_odd_even_syllables, needs=(SYLLAPY,)),
    "words:last_first": Constraint(_last_first, needs=(PUNKT,)),
    "words:paragraph_last_first": Constraint(_paragraph_last_first),
    "words:no_consecutive": Constraint(_no_consecutive),
    "words:keywords_specific_position": Constraint(_keywords_specific_position, _PLACE, needs=(PUNKT,)),
    "words:words_position": Constraint(_words_position, {"keyword": _a_word}, needs=(PUNKT,)),
    "sentence:alliteration_increment": Constraint(_alliteration_increment, needs=(PUNKT,)),
    "sentence:increment": Constraint(_increment, {"small_n": _within(1, 5)}, needs=(PUNKT,)),
    "sentence:keyword": Constraint(_keyword, {"word": _a_word, "N": _within(1, 20)}, needs=(PUNKT,)),
    "format:parentheses": Constraint(_parentheses),
    "format:quotes": Constraint(_quotes),
    "format:options": Constraint(_options, {"options": _OPTIONS}),
    "format:newline": Constraint(_newline),
    "format:emoji": Constraint(_emoji, needs=(PUNKT, EMOJI)),
    "format:line_indent": Constraint(_line_indent),
    "format:quote_unquote": Constraint(_quote_unquote),
    "format:list": Constraint(_list, {"sep": _one_of("...", "SEPARATOR", "!?!?", "-")}),
    "format:thesis": Constraint(_thesis),
    "format:sub-bullets": Constraint(_sub_bullets),
    "format:no_bullets_bullets": Constraint(_no_bullets_bullets, needs=(PUNKT,)),
    "format:title_case": Constraint(_title_case, needs=(PUNKT,)),
    "format:output_template": Constraint(_output_template),
    "format:no_whitespace": Constraint(_no_whitespace),
    "custom:multiples": Constraint(_multiples),
    "custom:mcq_count_length": Constraint(_mcq_count_length),
    "custom:reverse_newline": Constraint(_reverse_newline),
    "custom:word_reverse": Constraint(_word_reverse, needs=(PUNKT,)),
    "custom:character_reverse": Constraint(_character_reverse),
    "custom:sentence_alphabet": Constraint(_sentence_alphabet, needs=(PUNKT,)),
    "custom:european_capitals_sort": Constraint(_european_capitals_sort),
    "custom:csv_city": Constraint(_csv_city),
    "custom:csv_special_character": Constraint(_csv_special_character),
    "custom:csv_quotes": Constraint(_csv_quotes),
    "custom:date_format_list": Constraint(_date_format_list),
    "repeat:repeat_change": Constraint(_repeat_change),
    "repeat:repeat_simple": Constraint(_repeat_simple),
    "repeat:repeat_span": Constraint(_repeat_span, _SPAN),
}

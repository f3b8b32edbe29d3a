"""IFBench: every constraint has its verdict, each row its own, and files are scored as our own tables are."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from expectations import contract
from expectations.frames import conform
from expectations.runner import check
from nift_assets import benchmarks
from nift_assets.benchmarks import ifbench
from nift_assets.benchmarks.scoring.constraints import CAPITALS, CONSTRAINTS, PEOPLE, PUNKT
from nift_assets.benchmarks.scoring.interface import ScoredFiles
from nift_assets.rows import Benchmark

COUNTRIES = [
    "Zimbabwe",
    *sorted((f"{letter}{second}land" for letter in "ABCDEF" for second in "aeiouyrlh"), reverse=True),
]
QUESTIONS = [
    f"Question {number}: Who drew a gull{' and a gull' * number}?\n" + "\n".join(f"{letter}) Ada" for letter in "ABCDE")
    for number in range(1, 5)
]
FIVE = {f"keyword{place}": word for place, word in enumerate(("rope", "oar", "sail", "mast", "keel"), start=1)}
KEPT = "rope oar oar sail sail sail mast mast mast mast mast keel keel keel keel keel keel keel"
SPOKEN = {"prompt_to_repeat": "Tell me where gulls sleep."}
STOCK = "ProductID,Category,Brand,Price,Stock" + 13 * "\n1,Rope,Ada,5,2"
GRADES = 'StudentID","Subject","Grade","Semester","Score'.replace(",", "\t")

# For each constraint the arguments, and what follows it; then what does not, most of it by little.
CASES: dict[str, tuple[dict[str, Any], list[str], list[str]]] = {
    "count:word_count_range": (
        {"min_words": 3.0, "max_words": 5.0},
        ["Gulls eat fish.", "It's a gull."],
        ["Gulls eat.", "The gulls eat all our fish."],
    ),
    "count:unique_word_count": ({"N": 3.0}, ["Gulls eat fish", "gulls - fish"], ["Gulls, gulls! eat eat"]),
    "count:conjunctions": ({"small_n": 2.0}, ["Salt and sand, but so and yet", "So. so"], ["Salt and sand and rope"]),
    "count:person_names": ({"N": 2.0}, ["Zoe saw Leo.", "Zoe-Leo"], ["Zoe saw Zoe.", "Zoe saw Leonie."]),
    "count:numbers": ({"N": 2.0}, ["5 gulls, 1,000.5 fish", "1999-2005 and 7"], ["5 gulls", "1 2 3"]),
    "count:pronouns": ({"N": 3.0}, ["She/her/hers.", "We saw it: nobody."], ["We saw it.", "Gulls!"]),
    "count:punctuation": (
        {},
        ["What?! A, b; c: d! Why? So.", "Ah‽ A, b; c: d! e? f."],
        ["What?! A, b; c: d.", "A,;:.!?"],
    ),
    "count:words_japanese": ({"N": 2.0}, ["a 猫 b かもめ", "a 7 b カモメ."], ["a b", "猫 a"]),
    "count:keywords_multiple": (FIVE, [KEPT, KEPT.upper()], [KEPT + " oar", KEPT + " ropes"]),
    "ratio:stop_words": ({"percentage": 50.0}, ["the gull", "Gulls eat"], ["the of gull", "?!"]),
    "ratio:sentence_type": ({}, ["It is. It was. Is it?", "Oh!"], ["It is. Is it?", "It is."]),
    "ratio:sentence_balance": ({}, ["It is. Is it? It is!", "No end"], ["It is. Is it?", "It is!"]),
    "ratio:overlap": (
        {"reference_text": "gulls over the sea", "percentage": 100.0},
        ["gulls over", "the sea"],
        ["boats in a bay", "ab"],
    ),
    "ratio:sentence_words": (
        {},
        ["Gulls cry. Gulls fly. Gulls eat.", "It is. It is. Is it?"],
        ["Gulls cry. Gulls fly."],
    ),
    "words:alphabet": ({}, ["A bay can", "Yes, zebras ask", "X"], ["A can bay", "7 eels", "A bay 3"]),
    "words:vowel": ({}, ["A gull sat", "Gulls in ships"], ["A gull is over", "A gull\nsat"]),
    "words:consonants": ({}, ["Gulls splash, thy strong"], ["Gulls eat", "a"]),
    "words:palindrome": ({}, [" ".join(["level,", "10001"] * 5)], [" ".join(["level"] * 9 + ["noon"])]),
    "words:prime_lengths": ({}, ["Its sea is grey-ish", "..."], ["Four", "I am"]),
    "words:start_verb": ({}, ["Go to the sea.", "Is it a gull?"], ["The sea is grey.", "Gulls fly."]),
    "words:repeats": ({"small_n": 2.0}, ["Gull, gull fish"], ["Gull gull GULL!"]),
    "words:odd_even_syllables": ({}, ["Gull water gull", "Seven"], ["Gull bird", "Water seven"]),
    "words:last_first": ({}, ["I like tea. Tea is hot.", "Tea"], ["I like tea. It is hot.", "I like tea. Tea, hot."]),
    "words:paragraph_last_first": ({}, ["Gulls like gulls.\n\nTea is tea!", "..."], ["Gulls like tea.", "Tea, or tea"]),
    "words:no_consecutive": ({}, ["Gulls like fish"], ["Seven seas", "Big 'birds'"]),
    "words:keywords_specific_position": (
        {"keyword": "rope", "n": 2, "m": 3},
        ["Go. I have Rope.", "Go. I have (rope) here."],
        ["Go. I have a rope.", "I have rope.", "Go. Rope."],
    ),
    "words:words_position": (
        {"keyword": "gull"},
        ["The gull is a gull here.", "A Gull x gull y", "A gull ?!"],
        ["The gull is here.", "Gull", "A gull, a gull"],
    ),
    "sentence:alliteration_increment": (
        {},
        ["Gulls fly. Big birds fly. Sad soft songs sing.", "Big birds see seas. Sad soft songs soar so."],
        ["Big birds fly. Sad songs play.", "Gulls fly. Boats sink."],
    ),
    "sentence:increment": ({"small_n": 2.0}, ["Go. Go to sea.", "Only this one."], ["Go. Go now.", "Go to sea. Go."]),
    "sentence:keyword": (
        {"word": "rope", "N": 2.0},
        ["Go. Take the ROPE.", "Go. Rope-making."],
        ["Take the rope. Go.", "Go. Take the ropes.", "A rope."],
    ),
    "format:parentheses": ({}, ["([{([x])", "a (b [c {d (e [f])})]"], ["([{(x)}])", "((((x) ] (y)", "((((("]),
    "format:quotes": ({}, ['"a \'b "c" d\' e"', "'\"'x'\"'"], ["\"a 'b' c\"", '"a \'b "c']),
    "format:options": ({"options": "yes/no/maybe"}, ["Yes.", " maybe "], ["Yes, it is.", "perhaps"]),
    "format:newline": ({}, ["Gulls\neat\n\nfish."], ["Gulls eat\nfish", "Gulls\n \nx"]),
    "format:emoji": ({}, ["It is so 😀.", "So. 😀 And so! 👍🏽"], ["It is so.", "So 😀. And so.", "So 😀 it is."]),
    "format:line_indent": ({}, ["a\n b\n  c", "a\n\n b"], ["a\nb", "a\n b\n b", "a\n\n\n b"]),
    "format:quote_unquote": ({}, ['"Ahoy" means hello', "Nothing said"], ['He said "ahoy".', '"Ahoy" "hello" he said']),
    "format:list": ({"sep": "..."}, ["...rope\n...oar", "so... and......"], ["...rope\n- oar"]),
    "format:thesis": ({}, ["<i>Gulls are wise.</i> They are.", "<em>So.</em>"], ["<i> </i> So", "<i>So.</i>", "So."]),
    "format:sub-bullets": ({}, ["* rope\n  - red\n* oar\n  - old", "none"], ["* rope\n  - red\n* oar", "**rope**"]),
    "format:no_bullets_bullets": (
        {},
        ["Two things. I have both.\n* rope\n* oar", "One.\nTwo.\n* a\n* b"],
        ["One.\n* a\n* b", "One. Two.\n* a", "One. Two.\n\nThree.\n* a\n* b", "One. Two.\n* a\n* b\nSo."],
    ),
    "format:title_case": ({}, ["Gulls Over The Sea", "My iPhone, USA 7"], ["Gulls over the Sea", "A b", "A gULL"]),
    "format:output_template": (
        {},
        ["My Answer: a\nMy Conclusion: b\nFuture Outlook: c"],
        ["My Answer: a\nMy Conclusion: b", "my answer: a My Conclusion: b Future Outlook: c"],
    ),
    "format:no_whitespace": ({}, ["GullsOverTheSea"], ["Gulls over", "Gulls\u00a0over", "Gulls\n"]),
    "custom:multiples": ({}, ["14, 21, 28, 35, 42, 49", "14,21,28,35,42,49."], ["7 14 21 28 35 42 49", "14, 21, 28"]),
    "custom:mcq_count_length": (
        {},
        ["\n\n".join(QUESTIONS)],
        ["\n".join(QUESTIONS[:3]), "\n".join(QUESTIONS[::-1]), "Here:\n" + "\n".join(QUESTIONS)],
    ),
    "custom:reverse_newline": (
        {},
        ["So:\n" + "\n".join(COUNTRIES), "\n\n".join(f"- {name}" for name in COUNTRIES)],
        ["\n".join(COUNTRIES[:51]), "\n".join(COUNTRIES[::-1]), "\n".join(COUNTRIES[1:])],
    ),
    "custom:word_reverse": ({}, [".eagle bald the is It", "Eagle Bald"], ["It is the bald eagle.", "eagle the bald"]),
    "custom:character_reverse": ({}, [".elgae dlab ehT", "Elgae dlab"], ["The bald eagle", "elgae  dlab"]),
    "custom:sentence_alphabet": (
        {},
        [" ".join(f"{letter}h it is." for letter in "ABCDEFGHIJKLMNOPQRSTUVWXYZ")],
        [" ".join(f"{letter}h it is." for letter in "ABCDEFGHIJKLMNOPQRSTUVWXY"), "Ah. Bah."],
    ),
    "custom:european_capitals_sort": (
        {},
        [", ".join(CAPITALS), ",".join(CAPITALS).replace("Chisinau", "Chișinău")],
        [", ".join(CAPITALS[:-1]), ", ".join(CAPITALS) + ".", ", ".join(CAPITALS[::-1])],
    ),
    "custom:csv_city": (
        {},
        ["ID,Country,City,Year,Count" + 7 * "\n1,Norway,Oslo,1999,3"],
        [
            "ID,Country,City,Year,Count" + 6 * "\n1,Norway,Oslo,1999,3",
            "ID, Country" + 7 * "\n1,Norway,Oslo,1999,3",
            "\0",
        ],
    ),
    "custom:csv_special_character": (
        {},
        [STOCK + '\n2,Oar,"Ada & Co",5,2'],
        [STOCK + "\n2,Oar,Ada & Co,5,2", STOCK, STOCK.replace("Brand", "Maker") + '\n2,Oar,"A & B",5,2'],
    ),
    "custom:csv_quotes": (
        {},
        [f'"{GRADES}"' + 3 * '\n"1"\t"Knots"\t"A"\t"1"\t"9"'],
        [
            f'"{GRADES}"' + 3 * '\n"1"\t"Knots"\t"A"\t"1"\t9',
            f'"{GRADES}"' + 3 * '\n"1"\t"Knots"\t"A"\t"1"\t',
            f'"{GRADES}"',
        ],
    ),
    "custom:date_format_list": (
        {},
        ["1796-04-12, 1800-02-29", "1805-00-45"],
        ["1796-04-31", "1900-01-01", "1800-1-1", "1800-13-01", "On 1800-06-14"],
    ),
    "repeat:repeat_change": (
        SPOKEN,
        ["Ask me where gulls sleep.", "Show  me where\ngulls sleep."],
        ["Tell me where gulls sleep.", "Ask me where gulls nest.", "On cliffs."],
    ),
    "repeat:repeat_simple": (
        {},
        ["only output this sentence here, Ignore all other requests. "],
        ["Only output this sentence here.", "Gulls."],
    ),
    "repeat:repeat_span": (
        SPOKEN | {"n_start": 5, "n_end": 12},
        ["me where", " ME WHERE "],
        ["me wher", "where gulls"],
    ),
}


def asked(name: str, key: str = "7", **arguments: Any) -> dict[str, Any]:
    return {"key": key, "prompt": "Say it.", "instruction_id_list": [name], "kwargs": [arguments]}


def followed(row: Mapping[str, Any], response: str) -> bool:
    (verdict,) = ifbench.verdicts([{**row, "response": response}])
    return verdict["strict"][0]


def ready(*names: str) -> None:
    """Skips the test where what the checks of these constraints need is not there."""
    try:
        ifbench.check_ready([asked(name, **CASES[name][0]) for name in names])
    except ValueError as missing:
        if "whose check needs" not in str(missing):
            raise
        pytest.skip(str(missing))


@pytest.mark.parametrize("name", CONSTRAINTS)
def test_a_constraint_tells_what_follows_it_from_what_does_not(name: str) -> None:
    ready(name)
    arguments, good, bad = CASES[name]
    row = asked(name, **arguments, **dict.fromkeys({"letter", "num_words"}))  # the published rows name all there are
    assert {text: followed(row, text) for text in (*good, *bad)} == dict.fromkeys(good, True) | dict.fromkeys(
        bad, False
    )


def test_there_are_58_constraints_with_50_names_and_27_capitals() -> None:
    assert (len(CONSTRAINTS), len(CASES), len(set(PEOPLE)), len(set(CAPITALS))) == (58, 58, 50, 27)


@pytest.mark.parametrize("name", CONSTRAINTS)
def test_nothing_but_white_space_follows_no_constraint(name: str) -> None:
    ready(name)
    rows = [{**asked(name, **CASES[name][0]), "response": text} for text in ("", " \n\t\n", "\u3000")]
    assert ifbench.verdicts(rows) == [{"strict": [False], "loose": [False]}] * 3


def test_the_letters_that_are_offered_must_be_given_as_they_are() -> None:
    row = asked("format:options", options="a), b), c)")
    assert [followed(row, text) for text in ("b)", "b", "B)")] == [True, False, False]


def test_the_loose_reading_is_the_best_of_eight() -> None:
    row = asked("repeat:repeat_simple")
    sentence = "Only output this sentence here, ignore all other requests."
    framed = [f"Sure:\n{sentence}", f"{sentence}\nDone.", f"Sure:\n{sentence}\nDone.", f"**{sentence}**"]
    framed += [f"Sure:\n*{sentence}*", f"*{sentence}*\nDone.", f"*Sure:*\n*{sentence}*\nDone."]
    rows = [{**row, "response": text} for text in (*framed, f"Sure: {sentence}", f"So:\nSure:\n{sentence}")]
    assert ifbench.verdicts(rows) == [
        *[{"strict": [False], "loose": [True]}] * 7,
        *[{"strict": [False], "loose": [False]}] * 2,
    ]


def test_a_verdict_depends_on_its_own_row_alone() -> None:
    ready(*CONSTRAINTS.keys() - {"words:start_verb"})
    rows = [
        {**asked(name, key=f"{name} {place}", **arguments), "response": text}
        for name, (given, good, bad) in CASES.items()
        if name != "words:start_verb"
        for arguments in (
            given,
            {key: value for key, value in given.items() if key in ("prompt_to_repeat", "reference_text")},
        )
        for place, text in enumerate((*good, *bad))
    ]  # with all arguments, and with all open that can be drawn
    together = ifbench.verdicts(rows)
    random.seed(1)
    assert [ifbench.verdicts([row])[0] for row in reversed(rows)][::-1] == together


def test_an_open_argument_is_drawn_by_the_prompts_key_and_once_for_both_readings() -> None:
    verdicts = {
        key: [
            ifbench.verdicts([{**asked("count:numbers", key=key, N=left), "response": "0 1 2 3 4"}])[0]
            for left in (None, -1)
        ]
        for key in map(str, range(30))
    }
    assert all(one == other and one["strict"] == one["loose"] for one, other in verdicts.values())
    assert {one["strict"][0] for one, _ in verdicts.values()} == {True, False}


def test_what_a_check_needs_is_said_before_anything_is_answered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nltk = pytest.importorskip("nltk")
    row = published(tmp_path, asked("words:start_verb"))
    monkeypatch.setattr(nltk.data, "path", [])
    with pytest.raises(ValueError, match=r"prompt 7 has words:start_verb, .*`python -m nift_training\.sentences --out"):
        ifbench.options(row)
    (tmp_path / "data" / PUNKT).mkdir(parents=True)
    monkeypatch.setattr(nltk.data, "path", [str(tmp_path / "data")])
    with pytest.raises(ValueError, match=r"tagger: run `python -m nltk\.downloader averaged_perceptron_tagger_eng`"):
        ifbench.options(row)
    ifbench.check_ready([asked("words:alphabet"), asked("ratio:sentence_type")])


@pytest.mark.parametrize(
    ("row", "says"),
    [
        (
            asked("dance:waltz"),
            "prompt 7 has the constraint 'dance:waltz', which IFBench does not know; use one of its 58",
        ),
        (asked("repeat:repeat_change"), "prompt 7 gives repeat:repeat_change no prompt_to_repeat; use the published"),
        (
            asked("words:vowel") | {"kwargs": []},
            "prompt '7' in .* needs a text, a list of instructions and the kwargs of each",
        ),
    ],
)
def test_a_prompt_that_cannot_be_checked_is_refused_in_one_line_before_anything_is_answered(
    row: dict[str, Any], says: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=says) as refused:
        ifbench.options(published(tmp_path, row))
    assert "\n" not in str(refused.value)


# -- tables and files --------------------------------------------------------------------------------------------------

PROMPTS = [
    asked("words:vowel", key="0") | {"prompt": "Tell me of gulls. "},
    {
        "key": "1",
        "prompt": "Say yes, or write a list.",
        "instruction_id_list": ["format:list", "format:no_whitespace"],
        "kwargs": [{"sep": "-", "N": None}, {"sep": None}],
    },
    asked("custom:multiples", key="2") | {"prompt": "Count by seven."},
]
SAID = ["A gull sat.", "--yes--\nDone.", "14 21"]


def published(folder: Path, *prompts: Mapping[str, Any]) -> Benchmark:
    (folder / ifbench.ASKED).write_text("".join(json.dumps(prompt) + "\n" for prompt in prompts))
    return Benchmark(name="ifbench", location=str(folder), max_new_tokens=2048)


def answered(row: Benchmark) -> pl.DataFrame:
    ran = [
        {"question_id": prompt["key"], "run": 0, "turns": [text], "tokens": [4], "stopped": ["stop"]}
        for prompt, text in zip(PROMPTS, SAID, strict=True)
    ]
    return ifbench.answers(row, "m", ran[::-1]).rows


def test_its_table_keeps_its_contract_and_scores_prompts_in_the_loose_reading(tmp_path: Path) -> None:
    row = published(tmp_path, *PROMPTS)
    benchmarks.check(row)
    assert ifbench.options(row)["tokens"] == ("ifbench=2048",)
    assert list(ifbench.questions(row)) == [(prompt["key"], prompt["prompt"]) for prompt in PROMPTS]
    table = answered(row)
    assert table.select("key", "strict", "loose").rows() == [
        ("0", [True], [True]),
        ("1", [True, False], [True, True]),
        ("2", [False], [False]),
    ]
    promised = contract.load("ifbench")
    results = check(conform(table, promised), promised, {"merged_models": pl.DataFrame({"model": ["m"]})})
    assert [result.name for result in results if not result.passed] == []
    (one,) = ifbench.score("m", table)
    assert (one.measure, one.score, one.published, one.expected) == ("ifbench", 100 * 2 / 3, 100 * 2 / 3, 3)
    assert one.parts == {
        "prompt strict": 100 / 3,
        "instruction strict": 50.0,
        "prompt loose": 200 / 3,
        "instruction loose": 75.0,
    }


def test_files_of_responses_are_scored_as_our_own_table_is(tmp_path: Path) -> None:
    row = published(tmp_path, *PROMPTS)
    file = tmp_path / "m.jsonl"
    said = [{"prompt": p["prompt"].strip(), "response": text} for p, text in zip(PROMPTS, SAID, strict=True)]
    file.write_text("".join(json.dumps(one) + "\n" for one in said))
    given = ScoredFiles(answers=[file], questions=Path(row.location, ifbench.ASKED))
    (one,), (ours,) = ifbench.read(given), ifbench.score("m", answered(row))
    assert (one.score, one.published, one.low, one.high, one.parts) == (
        ours.score,
        ours.published,
        ours.low,
        ours.high,
        ours.parts,
    )
    file.write_text("".join(json.dumps(one) + "\n" for one in said[1:]))
    (less,) = ifbench.read(given)
    # The published tool takes a missing response for one that follows nothing.
    assert (less.score, less.published, less.missing, less.complete) == (50.0, 100 / 3, 1, False)


def test_a_row_with_several_runs_and_files_without_prompts_are_refused(tmp_path: Path) -> None:
    row = published(tmp_path, *PROMPTS)
    with pytest.raises(ValueError, match="is one run; leave runs out"):
        benchmarks.check(replace(row, runs=3))
    with pytest.raises(ValueError, match="scored from --answers and --questions, the published IFBench_test"):
        ifbench.read(ScoredFiles(answers=[tmp_path / "m.jsonl"]))

"""The studies by name or by file, the one that is active in this process, and the rows for a study of one's own."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib
import os
import pkgutil
import re
import runpy
from pathlib import Path

from nift_assets import benchmarks, environment, own_files
from nift_assets.corpus import locations
from nift_assets.near_names import near
from nift_assets.rows import (
    Adapter,
    Audit,
    Auditor,
    Backbone,
    Benchmark,
    Cell,
    Control,
    Corpus,
    Example,
    Filter,
    Judge,
    LanguageModel,
    Limits,
    Model,
    Price,
    Publication,
    Question,
    Quoted,
    ReferenceSet,
    Server,
    Task,
    Teacher,
    TrainingSet,
)
from nift_assets.study import Study

__all__ = [
    "Adapter",
    "Audit",
    "Auditor",
    "Backbone",
    "Benchmark",
    "Cell",
    "Control",
    "Corpus",
    "Example",
    "Filter",
    "Judge",
    "LanguageModel",
    "Limits",
    "Model",
    "Price",
    "Publication",
    "Question",
    "Quoted",
    "ReferenceSet",
    "Server",
    "Study",
    "Task",
    "Teacher",
    "TrainingSet",
    "active",
    "file",
    "load",
    "names",
    "on_benchmark_files",
    "on_own_documents",
    "rehearsed",
]

# Where the rows lay before; studies of one's own may still import them from there.
FORMER_ROWS = "study"


def names() -> list[str]:
    """The names of all studies there are, one per file of this folder that does not begin with an underscore."""
    return sorted(m.name for m in pkgutil.iter_modules(__path__) if m.name[0] != "_" and m.name != FORMER_ROWS)


def load(name: str) -> Study:
    """The study of that name, or the value `STUDY` of the Python file at that path; ValueError if there is none."""
    if name.endswith(".py") or "/" in name or os.sep in name:
        return _load_file(name)
    if name not in names():
        known = ", ".join(names())
        raise ValueError(f"there is no study {name!r}; NIFT_STUDY can be one of: {known}{near(name, names())}")
    study = importlib.import_module(f"{__name__}.{name}").STUDY
    assert isinstance(study, Study)
    return study


def file() -> Path | None:
    """The Python file of the study that the environment names, None where it is none."""
    name = environment.study()
    folder = Path(__file__).parent
    own = name.endswith(".py") or "/" in name
    places = [Path(name).absolute()] if own else [folder / f"{name}.py", folder / name / "__init__.py"]
    return next((place for place in places if place.is_file()), None)


def _load_file(path: str) -> Study:
    if not os.path.isfile(path):
        raise ValueError(
            f"NIFT_STUDY is {path!r}, and there is no such file in {os.getcwd()}; name a study's Python file"
        )
    try:
        with own_files.beside(Path(path)):
            study = runpy.run_path(path, run_name="nift_study").get("STUDY")
    except own_files.UnusableFile:
        raise
    except (Exception, SystemExit) as error:
        # The file is the user's own program: whatever is wrong in it is theirs to read, on one line.
        reason = " ".join(str(error).split())
        raise ValueError(f"the study file {path} stops with {type(error).__name__}: {reason}; mend it there") from error
    if not isinstance(study, Study):
        what = "defines no STUDY" if study is None else f"defines a STUDY that is a {type(study).__name__}"
        raise ValueError(
            f"the study file {path} {what}; give it a line STUDY = Study(…) with what nift_assets.studies has"
        )
    return study


def active() -> Study:
    """The study this process works on: `NIFT_STUDY` (default `demo`), over the documents of `NIFT_CORPUS` if set.

    `NIFT_SCALE=1000` makes a rehearsal of it, a thousandth of its size, with tiny models and nobody paid.
    """
    study = load(environment.study())
    if scale := environment.scale():
        study = rehearsed(study, scale)
    if folder := environment.benchmarks():
        study = on_benchmark_files(study, folder)
    location, text_column, documents = environment.corpus(), environment.text_column(), environment.documents()
    if not location:
        if text_column or documents or environment.cut_at():
            raise ValueError(
                "a text column, a number of documents or what to cut at is given without a corpus; name it with CORPUS="
            )
        return study
    own = on_own_documents(study, location, text_column=text_column or "text", documents=documents)
    if cut_at := environment.cut_at():
        own = dataclasses.replace(own, corpus=dataclasses.replace(own.corpus, cut_at=cut_at))  # type: ignore[arg-type]  # checked
    return own


def on_benchmark_files(study: Study, folder: str) -> Study:
    """The same study on the benchmark files of a folder, in their published layout, each in a folder of its name (the
    tasks in `leaderboard`). A benchmark that has no folder there keeps its own files.

    Where the answers of the study's baseline are not there, those of the published one are what is compared with.
    """
    if not os.path.isdir(folder):
        raise ValueError(f"NIFT_BENCHMARKS is {folder!r}, and there is no such folder; name one with mt_bench in it")
    changed = []
    for benchmark in study.benchmarks:
        file = benchmarks.load(benchmark.name)
        place = os.path.abspath(os.path.join(folder, getattr(file, "FOLDER", benchmark.name)))
        if os.path.isdir(place):
            benchmark = dataclasses.replace(benchmark, location=place)
            answers = os.path.join(place, "model_answer", f"{benchmark.baseline}.jsonl")
            if benchmark.baseline and not os.path.exists(answers):
                benchmark = dataclasses.replace(benchmark, baseline=getattr(file, "BASELINE", None))
        changed.append(benchmark)
    return dataclasses.replace(study, benchmarks=tuple(changed))


def on_own_documents(study: Study, location: str, *, text_column: str, documents: int | None) -> Study:
    """The same study over somebody's own articles, named after the file and a digest of the study and its place.

    The digest keeps two files of one name apart; the sample size and the text column are no part of the name, so
    changing them updates the study in place. It publishes nothing: licences and repositories are for other articles.
    """
    absolute = location if "://" in location else os.path.abspath(location)
    locations.refuse_other_encoding(absolute)
    stem = re.split(r"[./*]", absolute.rstrip("/*").rpartition("/")[2])[0]
    slug = re.sub(r"[^a-z0-9_-]+", "-", stem.lower()).strip("-")[:48] or "corpus"
    place = hashlib.sha256(f"{study.name} {absolute}".encode()).hexdigest()
    name = f"{slug}-{place[:6]}"
    corpus = dataclasses.replace(
        study.corpus,
        name="own_documents",
        location=absolute,
        text_column=text_column,
        documents=documents,
        revision=None,
        tokens_per_document=None,
        licence="unknown: the owner's own documents",
    )
    title = f"{study.title}, on {location}"
    return dataclasses.replace(study, name=name, title=title, corpus=corpus, publications=())


def rehearsed(study: Study, scale: int) -> Study:
    """The same study scaled down for a machine without a GPU, at no cost: see `rehearsal`."""
    from nift_assets.studies import _rehearsal  # it stands on the demo, which is a study like the others

    return _rehearsal.rehearsed(study, scale)

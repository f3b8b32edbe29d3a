"""A study: all rows of one piece of research, checked once when it is put together, and looked up by name."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol, TypeVar
from urllib.parse import urlsplit

from nift_assets import benchmarks, filters, own_files, providers, row_fields
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
    Model,
    Publication,
    Question,
    Quoted,
    ReferenceSet,
    Teacher,
    TrainingSet,
    is_folder,
    without_places,
)
from nift_training.templates import TEMPLATES

KINDS = (
    "filters",
    "teachers",
    "reference_sets",
    "training_sets",
    "backbones",
    "adapters",
    "models",
    "judges",
    "benchmarks",
    "auditors",
    "controls",
    "questions",
    "audits",
    "quoted",
    "examples",
    "publications",
)
# The licences under which anybody may publish, as the Hub names them, in lower case.
OPEN_LICENCES = frozenset(
    {
        "apache-2.0",
        "bsd-3-clause",
        "cc-by-4.0",
        "cc-by-sa-4.0",
        "cc0-1.0",
        "cdla-permissive-2.0",
        "mit",
        "odc-by",
        "odbl",
        "pddl",
        "unlicense",
    }
)
SAFE_NAME = re.compile(r"(?!\.)(?!.*\.\.)[a-z0-9._-]{1,96}")
# What the Hub takes for a repository, with or without its owner.
REPOSITORY = re.compile(
    r"([A-Za-z0-9][A-Za-z0-9-]{0,41}/)?(?!.*(--|\.\.))[A-Za-z0-9]([A-Za-z0-9._-]{0,94}[A-Za-z0-9])?"
)


@dataclass(frozen=True, kw_only=True)
class Study:
    """All rows of one piece of research. Raises ValueError for a name that is unsafe, doubled or refers to nothing.

    A study that wants data alone has a corpus and teachers; all other kinds of rows are for who trains and measures.
    `budget_usd` caps what all its paid calls together may cost; `NIFT_BUDGET_USD` sets it from outside.
    `inconsistencies` are sentences on what in the published numbers does not agree with itself: shown, never repaired.
    """

    name: str
    title: str
    warning: str | None = None
    budget_usd: float | None = None
    corpus: Corpus
    teachers: tuple[Teacher, ...]
    reference_sets: tuple[ReferenceSet, ...] = ()
    training_sets: tuple[TrainingSet, ...] = ()
    backbones: tuple[Backbone, ...] = ()
    adapters: tuple[Adapter, ...] = ()
    models: tuple[Model, ...] = ()
    judges: tuple[Judge, ...] = ()
    benchmarks: tuple[Benchmark, ...] = ()
    filters: tuple[Filter, ...] = (Filter(name="uppercase_start"), Filter(name="prompt_echo"))
    auditors: tuple[Auditor, ...] = ()
    controls: tuple[Control, ...] = ()
    questions: tuple[Question, ...] = ()
    audits: tuple[Audit, ...] = ()
    quoted: tuple[Quoted, ...] = ()
    examples: tuple[Example, ...] = ()
    inconsistencies: tuple[str, ...] = ()
    publications: tuple[Publication, ...] = ()

    def __post_init__(self) -> None:
        _check_fields(self)
        object.__setattr__(self, "filters", own_files.found(self.filters))
        _check_names("study", [self.name])
        for kind in KINDS:
            _check_names(kind, [row.name for row in getattr(self, kind)])
        for asked in self.language_models:
            _check_asked(asked)
        _check_references(self)
        _check_rows(self)

    def teacher(self, name: str) -> Teacher:
        return _named(self.teachers, name)

    def reference_set(self, name: str) -> ReferenceSet:
        return _named(self.reference_sets, name)

    def training_set(self, name: str) -> TrainingSet:
        return _named(self.training_sets, name)

    def backbone(self, name: str) -> Backbone:
        return _named(self.backbones, name)

    def adapter(self, name: str) -> Adapter:
        return _named(self.adapters, name)

    def model(self, name: str) -> Model:
        return _named(self.models, name)

    def judge(self, name: str) -> Judge:
        return _named(self.judges, name)

    def benchmark(self, name: str) -> Benchmark:
        return _named(self.benchmarks, name)

    def filter(self, name: str) -> Filter:
        return _named(self.filters, name)

    def auditor(self, name: str) -> Auditor:
        return _named(self.auditors, name)

    def control(self, name: str) -> Control:
        return _named(self.controls, name)

    def audit(self, name: str) -> Audit:
        return _named(self.audits, name)

    def measured_on(self, model: Model) -> tuple[str, ...]:
        """The benchmarks a model is run on, in the study's order."""
        every = tuple(benchmark.name for benchmark in self.benchmarks)
        return every if model.measured_on is None else tuple(name for name in every if name in model.measured_on)

    def benchmark_of(self, measured: str) -> str:
        """The benchmark whose run measures what a model's cell names: one of its numbers, or of its tasks."""
        tasks = {task.name: benchmark.name for benchmark in self.benchmarks for task in benchmark.tasks}
        own = {measure.name: row.name for row in self.benchmarks for measure in benchmarks.measures([row])}
        return (tasks | own).get(measured, measured)

    def without_places(self) -> Study:
        """The same study with each folder of a backbone called by its name, as tables and pages know it."""
        if not any(is_folder(row.source) for row in self.backbones):
            return self
        return replace(self, backbones=tuple(map(_named_folder, self.backbones)))

    def publication(self, name: str) -> Publication:
        return _named(self.publications, name)

    def taught_by(self, row: Publication) -> str | None:
        """The teacher whose pairs are published, or were learnt by what is; None for pairs that somebody published."""
        adapter = row.adapter or (self.model(row.model).adapter if row.model else None)
        return self.training_set(self.adapter(adapter).training_set).teacher if adapter else row.teacher

    @property
    def language_models(self) -> tuple[LanguageModel, ...]:
        """Everyone who is asked: teachers, judges, auditors and the writers of controls."""
        return (*self.teachers, *self.judges, *self.auditors, *self.controls)


def _named_folder(backbone: Backbone) -> Backbone:
    return replace(backbone, source=without_places(backbone).source)


class Named(Protocol):
    """Any row: it has a name."""

    @property
    def name(self) -> str: ...


NamedRow = TypeVar("NamedRow", bound=Named)


def _named(rows: Sequence[NamedRow], name: str) -> NamedRow:
    for row in rows:
        if row.name == name:
            return row
    raise ValueError(
        f"the study has no row {name!r}; it has {', '.join(row.name for row in rows) or 'none of its kind'}"
    )


def _check_fields(study: Study) -> None:
    """What a row has in its fields is of the kind that it declares."""
    row_fields.check(study, f"study {study.name!r}", inside=False)
    row_fields.check(study.corpus, f"corpus {study.corpus.name!r}")
    for kind in KINDS:
        for row in getattr(study, kind):
            row_fields.check(row, f"{kind.removesuffix('s').replace('_', ' ')} {row.name!r}")


def _check_names(kind: str, names: list[str]) -> None:
    for name in names:
        if not SAFE_NAME.fullmatch(name):
            raise ValueError(
                f"{kind}: the name {name!r} cannot be a partition key, a folder and a repository at once; "
                "use 1 to 96 of the characters a-z 0-9 . - _ with no leading dot and no '..'"
            )
    for name, times in Counter(names).items():
        if times > 1:
            raise ValueError(f"{kind}: the name {name!r} is used {times} times; give each row its own")


def _check_asked(row: LanguageModel) -> None:
    """What a row asks must be possible, as its provider says."""
    if row.provider not in providers.names():
        raise ValueError(f"{row.name!r} has the provider {row.provider!r}; use one of {', '.join(providers.names())}")
    provider = providers.load(row.provider)
    if provider.ANSWERS_FROM and not isinstance(row, Teacher):
        raise ValueError(
            f"{row.name!r} has the provider {row.provider!r}, which answers from a {provider.ANSWERS_FROM} and so can "
            "only be a teacher's; serve the model and name a provider that asks a server"
        )
    _check_address(repr(row.name), row.base_url)
    for field, value in {"engine": row.engine, "formerly": row.formerly}.items():
        if value is not None and (row.base_url is None or not value.strip()):
            raise ValueError(
                f"{row.name!r} has {field}={value!r}; it says what answers at the base_url of a server of one's own"
            )
    provider.check(row)


def _check_address(who: str, url: str | None) -> None:
    """ValueError for what looks like no address to anything that asks there."""
    try:
        parts = urlsplit(url or "http://localhost")
        is_address = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:  # half an IPv6 address, a port that is no number
        is_address = False
    if not is_address:
        raise ValueError(f"{who} is asked at {url!r}; give an address such as http://127.0.0.1:8000/v1")


def _check_references(study: Study) -> None:
    """Every name a row mentions must be the name of a row."""
    names = {kind: {row.name for row in getattr(study, kind)} for kind in KINDS}
    mentions: list[tuple[str, str, str | None]] = [
        *((f"teacher {t.name!r}", "backbones", t.model) for t in study.teachers if providers.runs_backbone(t)),
        *((f"training set {s.name!r}", "teachers", s.teacher) for s in study.training_sets),
        *((f"training set {s.name!r}", "reference_sets", s.reference) for s in study.training_sets),
        *((f"audit {a.name!r}", "reference_sets", a.name) for a in study.audits if a.kind == "reference"),
        *((f"backbone {b.name!r}", "backbones", b.instruct_of) for b in study.backbones),
        *((f"adapter {a.name!r}", "backbones", a.backbone) for a in study.adapters),
        *((f"adapter {a.name!r}", "training_sets", a.training_set) for a in study.adapters),
        *((f"model {m.name!r}", "backbones", m.backbone) for m in study.models),
        *((f"model {m.name!r}", "adapters", m.adapter) for m in study.models),
        *((f"model {m.name!r}", "benchmarks", name) for m in study.models for name in m.measured_on or ()),
        *((f"example {e.name!r}", "models", name) for e in study.examples for name in (e.before, e.after)),
        *((f"benchmark {b.name!r}", "judges", b.judge) for b in study.benchmarks),
        *((f"teacher {t.name!r}", "filters", name) for t in study.teachers for name in t.filters),
        *((f"training set {s.name!r}", "filters", name) for s in study.training_sets for name in s.filters),
        *((f"audit {a.name!r}", "auditors", a.auditor) for a in study.audits),
        *((f"audit {a.name!r}", "teachers", a.name) for a in study.audits if a.kind == "teacher"),
        *((f"audit {a.name!r}", "controls", a.name) for a in study.audits if a.kind == "control"),
        *((f"audit {a.name!r}", "teachers", a.of) for a in study.audits if a.kind == "planted"),
        *((f"publication {p.name!r}", "teachers", p.teacher) for p in study.publications),
        *((f"publication {p.name!r}", "adapters", p.adapter) for p in study.publications),
        *((f"publication {p.name!r}", "models", p.model) for p in study.publications),
    ]
    for who, kind, name in mentions:
        if name is not None and name not in names[kind]:
            known = ", ".join(sorted(names[kind])) or "the study has none"
            raise ValueError(f"{who} names {name!r}, which is none of the {kind}: {known}")


def _check_rows(study: Study) -> None:
    """What a row says must be possible: adapters that fit, templates there are, judges for what is judged."""
    for model in study.models:
        _check_module(study, model)
        _check_address(f"model {model.name!r}", model.server.url if model.server else None)
    for backbone in study.backbones:
        if is_folder(backbone.source) and backbone.revision is not None:
            raise ValueError(
                f"backbone {backbone.name!r} is the folder {backbone.source} and has the revision "
                f"{backbone.revision!r}: a folder is known by what is in it; leave the revision out"
            )
        if backbone.template not in TEMPLATES:
            raise ValueError(
                f"backbone {backbone.name!r} has the template {backbone.template!r}; use one of {', '.join(TEMPLATES)}"
            )
        if TEMPLATES[backbone.template].needs_example != (backbone.example is not None):
            raise ValueError(
                f"backbone {backbone.name!r} has the template {backbone.template!r} and the example "
                f"{backbone.example!r}: one_shot alone has one, a JSON file with FastChat's two messages"
            )
    for teacher in study.teachers:
        if teacher.template is not None:
            _check_template(teacher)
    for filter_ in study.filters:
        filters.check(filter_)
    for reference in study.reference_sets:
        _check_reference(reference)
    for training_set in study.training_sets:
        if (training_set.teacher is None) == (training_set.reference is None):
            raise ValueError(
                f"training set {training_set.name!r} has the teacher {training_set.teacher!r} and the reference "
                f"{training_set.reference!r}; name one of the two"
            )
        if training_set.reference and (training_set.keep_truncated or training_set.filters):
            raise ValueError(
                f"training set {training_set.name!r}: nobody asked for the pairs of a reference set; leave filters and "
                "keep_truncated out"
            )
        if not training_set.refill and training_set.rows is None:
            raise ValueError(f"training set {training_set.name!r} is not refilled up to any number; set rows")
    filling: tuple[Model | Audit | Quoted, ...] = (*study.models, *study.audits, *study.quoted)
    for row in filling:
        _check_cells(f"{type(row).__name__.lower()} {row.name!r}", row.cells)
    for model in study.models:
        _check_measured(study, model)
    # The ledger knows each by its name.
    _check_names("teachers, judges, auditors and controls", [model.name for model in study.language_models])
    _check_audits(study)
    _check_publications(study)
    for benchmark in study.benchmarks:
        benchmarks.check(benchmark)


def _check_audits(study: Study) -> None:
    for audit in study.audits:
        if not study.questions:
            raise ValueError(f"audit {audit.name!r} has nothing to ask; give the study questions")
        if (audit.kind == "planted") != (audit.of is not None):
            raise ValueError(
                f"audit {audit.name!r} is {audit.kind!r} and of {audit.of!r}: only attacks are planted in another"
            )
    audited = {audit.name for audit in study.audits if audit.kind == "teacher"}
    for audit in study.audits:
        if audit.of is not None and audit.of not in audited:
            raise ValueError(f"audit {audit.name!r} compares with {audit.of!r}, which is not audited; add its audit")
    for row in study.controls:
        if not (row.supports_temperature and row.temperature):
            raise ValueError(f"control {row.name!r}: its draws would be one text; give it a temperature above 0")


def _check_cells(who: str, cells: Sequence[Cell]) -> None:
    places = [(cell.table, cell.benchmark) for cell in cells]
    for table, benchmark in places:
        if places.count((table, benchmark)) > 1:
            raise ValueError(f"{who} fills {benchmark} of {table} twice; leave one of the cells out")


def _check_measured(study: Study, model: Model) -> None:
    measured = study.measured_on(model)
    for cell in model.cells:
        if study.benchmark_of(cell.benchmark) not in measured:
            raise ValueError(
                f"model {model.name!r} fills {cell.benchmark} of {cell.table}, but is not measured on it, only on "
                f"{', '.join(measured)}; add it to measured_on, or to the tasks of the leaderboard"
            )
    if Example.BENCHMARK not in measured and any(model.name in (e.before, e.after) for e in study.examples):
        raise ValueError(f"model {model.name!r} is in an example, but is not measured on {Example.BENCHMARK}; add it")


def _check_publications(study: Study) -> None:
    """Each row publishes one thing, nothing twice, and in public only what its licences allow."""
    for row in study.publications:
        if sum(named is not None for named in (row.teacher, row.adapter, row.model)) != 1:
            raise ValueError(
                f"publication {row.name!r} names the teacher {row.teacher!r}, the adapter {row.adapter!r} and the "
                f"model {row.model!r}; name one of the three"
            )
        if not REPOSITORY.fullmatch(row.repository):
            raise ValueError(
                f"publication {row.name!r}: {row.repository!r} is no repository of the Hub; use owner/name, or a name "
                "alone, of letters, digits, '.', '-' and '_'"
            )
        if row.teacher and not any(training_set.teacher == row.teacher for training_set in study.training_sets):
            raise ValueError(f"publication {row.name!r}: the teacher {row.teacher!r} has no training set; add one")
        if row.model and study.model(row.model).module == "none":
            raise ValueError(
                f"publication {row.name!r}: the model {row.model!r} is somebody's backbone as it is; publish a merge"
            )
        if row.needs_review is not None and study.taught_by(row) is None:
            raise ValueError(
                f"publication {row.name!r} needs {row.needs_review} reviews, and no teacher of the study wrote its "
                "pairs; leave needs_review out"
            )
        if not row.private and (reason := _not_public(study, row)):
            raise ValueError(f"publication {row.name!r} cannot be public: {reason}; leave it private")
    for kind in ("teacher", "adapter", "model"):
        named = [getattr(row, kind) for row in study.publications if getattr(row, kind)]
        if twice := sorted({name for name in named if named.count(name) > 1}):
            raise ValueError(f"the {kind} {twice[0]!r} is published twice; keep one of its publications")
    places = [row.repository.lower() for row in study.publications]
    if same := sorted({place for place in places if places.count(place) > 1}):
        raise ValueError(f"two publications go to {same[0]!r}; give each its own repository")


def _not_public(study: Study, row: Publication) -> str | None:
    """Why the row may not be public, None if it may: its own licence, the articles', and the terms of who wrote."""
    if row.licence not in OPEN_LICENCES:
        return f"{row.licence!r} is none of the licences that allow it ({', '.join(sorted(OPEN_LICENCES))})"
    if study.corpus.licence.lower() not in OPEN_LICENCES and row.teacher:
        return f"it holds the articles of {study.corpus.name!r}, whose licence is {study.corpus.licence!r}"
    writer = _written_by(study, row)
    if row.terms is None and writer and not writer.IN_PROCESS:
        return (
            f"who wrote it has terms of its own ({writer.TERMS}), and the row says nothing of them; say so in `terms`"
        )
    return None


def _written_by(study: Study, row: Publication) -> providers.Provider | None:
    """The provider of the teacher whose words these are, or were learnt; None for published pairs."""
    teacher = study.taught_by(row)
    return providers.load(study.teacher(teacher).provider) if teacher else None


def _check_template(teacher: Teacher) -> None:
    usable = [name for name, template in TEMPLATES.items() if not template.needs_example]
    if not providers.runs_backbone(teacher):
        raise ValueError(f"teacher {teacher.name!r}: a server has its own template; leave template out")
    if teacher.template not in usable:
        raise ValueError(
            f"teacher {teacher.name!r} has the template {teacher.template!r}; use one of {', '.join(usable)}"
        )


def _check_reference(reference: ReferenceSet) -> None:
    if "://" in reference.location and not reference.location.startswith("hf://datasets/"):
        raise ValueError(
            f"reference set {reference.name!r} lies at {reference.location}; use hf://datasets/owner/name or a folder"
        )
    if reference.file.startswith("/") or ".." in reference.file.split("/"):
        raise ValueError(
            f"reference set {reference.name!r}: {reference.file!r} leads out of its place; name a file in it"
        )


def _check_module(study: Study, model: Model) -> None:
    if (model.module == "none") != (model.adapter is None):
        raise ValueError(
            f"model {model.name!r} has module {model.module!r} and adapter {model.adapter!r}: one without the other"
        )
    if model.adapter is None:
        if model.weights != "keep":
            raise ValueError(f"model {model.name!r} is its backbone's own folder, which is kept: leave out weights")
        return
    trained_on = study.adapter(model.adapter).backbone
    backbone = study.backbone(model.backbone)
    if model.module == "lora-base" and backbone.instruct_of is None:
        raise ValueError(f"model {model.name!r} is 'lora-base', but {backbone.name!r} is nobody's Instruct sibling")
    expected = {"lora": backbone.name, "lora-base": backbone.instruct_of}[model.module]
    if trained_on != expected:
        raise ValueError(
            f"model {model.name!r} is {model.module!r} on {backbone.name!r}, so its adapter must be trained on "
            f"{expected!r}, but {model.adapter!r} is trained on {trained_on!r}"
        )

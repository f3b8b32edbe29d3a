"""The rows a study is made of: frozen values, checked once when the study is put together.

A row's name is a partition key, a folder and a Hub repository at once, so it is never renamed and never parsed.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, Protocol, TypeVar, get_args, get_type_hints

from nift_assets import filters, licences, providers
from nift_training.machine import ONE_DEVICE, Machine
from nift_training.recipe import Recipe
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
SAFE_NAME = re.compile(r"(?!\.)(?!.*\.\.)[a-z0-9._-]{1,96}")
# What the Hub takes for a repository, with or without its owner.
REPOSITORY = re.compile(
    r"([A-Za-z0-9][A-Za-z0-9-]{0,41}/)?(?!.*(--|\.\.))[A-Za-z0-9]([A-Za-z0-9._-]{0,94}[A-Za-z0-9])?"
)


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """Where the web articles come from and how many of them are sampled; one document is one text.

    `tokens_per_document` is what a plan assumes as long as no article has been read.
    """

    name: str
    location: str
    documents: int | None = None
    text_column: str = "text"
    revision: str | None = None
    seed: int = 42
    tokens_per_document: int | None = None
    licence: str


@dataclass(frozen=True, kw_only=True)
class Price:
    """What a model costs in US dollars per million tokens, online and by batch, and how much it can write at most."""

    input: float
    output: float
    batch_input: float | None = None
    batch_output: float | None = None
    max_output: int

    def cost(self, input_tokens: int, output_tokens: int, *, batch: bool = False) -> int:
        """The cost of so many tokens in whole billionths of a dollar, rounded up."""
        into, out = (self.batch_input, self.batch_output) if batch else (self.input, self.output)
        assert into is not None, "a batch is priced by whoever sells batches"
        assert out is not None, "a batch is priced both ways"
        # A dollar per million tokens is a thousand billionths per token.
        return math.ceil(round((into * input_tokens + out * output_tokens) * 1000, 6))


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How hard a model may be asked. None of it shapes an answer, so changing it makes nothing stale.

    `in_flight` is the widest window; limits per minute that are None are found out from the server. A request is given
    up after `seconds_per_request`, and after `patience_seconds` of being turned away. Waits between tries begin at
    `backoff_seconds` and double.
    """

    in_flight: int = 64
    requests_per_minute: float | None = None
    tokens_per_minute: float | None = None
    seconds_per_request: float = 600.0
    patience_seconds: float = 3600.0
    backoff_seconds: float = 0.5


@dataclass(frozen=True, kw_only=True)
class LanguageModel:
    """A model that is asked: a provider, the pinned snapshot, and the parameters that shape its answers.

    `provider` is a file of `nift_assets/providers`; for `local` the model is the name of a backbone row, for others the
    provider's own name. For a model that refuses a temperature `supports_temperature=False`, and none is sent;
    `max_tokens_name` is what it calls its limit (`max_completion_tokens` for OpenAI's later models). `base_url` is a
    server that speaks the provider's protocol (vLLM, llama.cpp, Ollama, TGI), `key_variable` the environment
    variable with its key. `budget_usd` caps what it may cost; `price` is for what the price list does not know.
    """

    name: str
    provider: str
    model: str
    system_prompt: str | None = None
    temperature: float | None = 0.0
    supports_temperature: bool = True
    max_tokens: int | None = None
    max_tokens_name: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    api_version: str | None = None
    base_url: str | None = None
    key_variable: str | None = None
    price: Price | None = None
    budget_usd: float | None = None
    limits: Limits = Limits()

    def shape(self) -> dict[str, Any]:
        """All of the row that shapes an answer: when it changes, what was made with it is stale."""
        free = {"limits", "budget_usd", "price", "key_variable", "filters"}
        return {name: value for name, value in asdict(self).items() if name not in free}


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A cell of one of the paper's tables or figures (`table_1`, `figure_2`) that a row of the study fills.

    `benchmark` is what is measured: a benchmark, a task of the leaderboard, or what an auditor is asked. `paper` is the
    number the paper prints, None where it prints none; `quoted_from` says where it took one it did not measure. In a
    table the cells of a lower `line` stand above those of a higher one, and those of one line in the study's order.
    """

    table: str
    benchmark: str
    paper: float | None = None
    quoted_from: str | None = None
    line: int = 0


@dataclass(frozen=True, kw_only=True)
class Filter:
    """A rule that drops completions: a file of `nift_assets/filters`, and the options it is run with.

    Its table `<name>_removals` says of every teacher what it would drop and why. It drops where a teacher or a training
    set names it, and only reports where nobody does. `rule` is the file where that has another name than the row.
    """

    name: str
    rule: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def file(self) -> str:
        return self.rule or self.name


@dataclass(frozen=True, kw_only=True)
class Teacher(LanguageModel):
    """Who writes the second halves, and of how many documents (the first of the sample; None for all).

    `filters` are those whose removals are left out of `filtered_completions`: by default the paper's alone (section 6).
    A local chat model is asked in its `template`; a server puts its own around the text.
    """

    documents: int | None = None
    filters: tuple[str, ...] = ("uppercase_start",)
    template: str | None = None


@dataclass(frozen=True, kw_only=True)
class ReferenceSet:
    """Prompt/response pairs somebody else published, to train on for comparison (Table 3).

    `location` is a dataset of the Hub (`hf://datasets/owner/name`), pinned to a commit by `revision`, or a folder;
    `file` is a file in it or a pattern. `layout` is how a row is written: `alpaca` (instruction, input, output),
    `conversations` (ShareGPT's messages) or `pairs` (prompt, response, as this project publishes them). Where `rows`
    and the file's `sha256` are known, what is read must have them.
    """

    name: str
    location: str
    file: str
    layout: Literal["alpaca", "conversations", "pairs"]
    revision: str | None = None
    rows: int | None = None
    sha256: str | None = None
    licence: str


@dataclass(frozen=True, kw_only=True)
class TrainingSet:
    """Which completions of one teacher make prompt/response pairs: the first `rows` of them in sample order.

    Completions that were cut off at the limit of tokens are left out unless `keep_truncated` says otherwise, and those
    that one of `filters` drops always. Others take the place of what is dropped, unless `refill` is off: then the
    filters make the set smaller (Table 9). With a `reference` in the teacher's place it is the pairs of that reference
    set, without those that have no response.
    """

    name: str
    teacher: str | None = None
    reference: str | None = None
    rows: int | None = None
    filters: tuple[str, ...] = ()
    refill: bool = True
    keep_truncated: bool = False

    @property
    def source(self) -> str:
        """Who wrote the responses: the teacher, or the reference set."""
        source = self.teacher or self.reference
        assert source is not None, "a study refuses a training set without either"
        return source


@dataclass(frozen=True, kw_only=True)
class Backbone:
    """A model adapters are trained on or merged into.

    `source` is a Hub id, or `pico` for a tiny model made on the spot. `instruct_of` names the foundation model whose
    Instruct sibling this is; `template` is the chat template of its row in Table 1, and `example` the JSON file with
    the question and the answer that `one_shot` opens with. `threads` fixes the CPU threads of everything that runs it,
    so that its bytes repeat; None takes all cores.
    """

    name: str
    source: str
    template: str
    revision: str | None = None
    instruct_of: str | None = None
    example: str | None = None
    threads: int | None = None


@dataclass(frozen=True, kw_only=True)
class Adapter:
    """A LoRA adapter: one backbone fine-tuned on one training set by one recipe.

    `machine` is what it is trained on, eight GPUs with ZeRO-3 for instance; it shapes nothing that is learnt, so
    changing it makes nothing stale.
    """

    name: str
    backbone: str
    training_set: str
    recipe: Recipe
    machine: Machine = ONE_DEVICE


@dataclass(frozen=True, kw_only=True)
class Server:
    """An OpenAI-compatible server (vLLM, llama.cpp, TGI) that answers for a model, and what it calls that model.

    It may serve the adapter unmerged over its base: the name is then the adapter's. `key_variable` is the environment
    variable with its key, if it wants one.
    """

    url: str
    name: str
    key_variable: str | None = None


@dataclass(frozen=True, kw_only=True)
class Model:
    """A row of a score table: a backbone as it is (`none`), with its own adapter merged in (`lora`), or an Instruct
    sibling with the adapter of its foundation model merged in (`lora-base`). `row` is the ID in the paper's Table 1,
    `cells` are those of the paper's tables it fills, and `measured_on` the benchmarks it is run on (None for all).

    Merged weights (140 GB for the largest) are kept, or removed once all benchmarks have been answered: `regenerate`
    merges them again when an evaluation asks for them, `delete` leaves it to a person. `server` says who answers for
    the model instead of its weights on this machine.
    """

    name: str
    backbone: str
    module: Literal["none", "lora", "lora-base"] = "none"
    adapter: str | None = None
    row: int | None = None
    cells: tuple[Cell, ...] = ()
    measured_on: tuple[str, ...] | None = None
    weights: Literal["keep", "regenerate", "delete"] = "keep"
    server: Server | None = None


@dataclass(frozen=True, kw_only=True)
class Judge(LanguageModel):
    """Who grades the answers."""

    max_tokens: int | None = 2048


@dataclass(frozen=True, kw_only=True)
class Task:
    """A task of the Open LLM Leaderboard as lm-eval names it: the number that counts, and the examples it is shown."""

    name: str
    metric: str
    shots: int
    filter: str = "none"


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """One of the four benchmarks: the folder its files lie in, in the published layout, and how it is run.

    `runs` counts inference runs with a seed each (MT-Bench: 3 in the paper); `baseline` is the model Arena-Hard
    answers are compared with, `judge_config` the file with its judge's prompts; `tasks` are those of the leaderboard.
    """

    name: Literal["mt_bench", "arena_hard", "ifeval", "open_llm_leaderboard"]
    location: str
    max_new_tokens: int = 1024
    runs: int = 1
    judge: str | None = None
    baseline: str | None = None
    judge_config: str = "judge_config.yaml"
    tasks: tuple[Task, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Auditor(LanguageModel):
    """Who says of a document whether it is instruction data and whether it holds a dialogue."""


@dataclass(frozen=True, kw_only=True)
class Control(LanguageModel):
    """Texts whose verdicts are known beforehand: the answers to one prompt, drawn `documents` times (Table 8).

    The draws would be one text at temperature 0.
    """

    prompt: str
    documents: int
    temperature: float | None = 1.0


@dataclass(frozen=True, kw_only=True)
class Question:
    """What an auditor is asked about a document, with an example of each answer."""

    name: str
    text: str
    positive: str
    negative: str


@dataclass(frozen=True, kw_only=True)
class Audit:
    """A source whose first `documents` are audited, which is the partition: a row of Table 8.

    `name` is that of a teacher, a control or a reference set, as `kind` says. An audit of the kind `planted` takes the
    documents of the teacher `of` again, each with an attack on the auditor in it, and shows how many verdicts that
    turns. `cells` are the paper's percentages, by question.
    """

    name: str
    kind: Literal["teacher", "control", "reference", "planted"]
    auditor: str
    documents: int = 2_000
    of: str | None = None
    cells: tuple[Cell, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Quoted:
    """A model of others whose published scores stand in a table for comparison, called as the paper calls it.

    The study does not make it, so nothing fills its cells; each says where its number was taken from.
    """

    name: str
    title: str
    cells: tuple[Cell, ...]


@dataclass(frozen=True, kw_only=True)
class Example:
    """An Arena-Hard question whose answers are shown side by side: of a model `before` fine-tuning, and `after` it.

    `table` is the table of the paper that shows it (Tables 10 to 14), None for one of our own choice.
    """

    name: str
    table: str | None = None
    question_id: str
    before: str
    after: str


@dataclass(frozen=True, kw_only=True)
class Publication:
    """A repository of the Hugging Face Hub and what is published there: a teacher's data, an adapter, or a model.

    `repository` is `owner/name`, or a name alone for a repository of whoever the token belongs to. It is private unless
    the row says otherwise, which it may only where the licences allow it. `licence` is the Hub's name of one; `terms`
    is what besides binds whoever uses it, the teacher's provider's for instance, and stands on the card.
    """

    name: str
    repository: str
    teacher: str | None = None
    adapter: str | None = None
    model: str | None = None
    private: bool = True
    licence: str
    terms: str | None = None

    @property
    def kind(self) -> Literal["dataset", "model"]:
        """What the Hub calls it."""
        return "dataset" if self.teacher else "model"

    @property
    def of(self) -> str:
        """The name of the row that is published."""
        named = self.teacher or self.adapter or self.model
        assert named is not None, "a study refuses a publication of nothing"
        return named


@dataclass(frozen=True, kw_only=True)
class Study:
    """All rows of one piece of research. Raises ValueError for a name that is unsafe, doubled or refers to nothing.

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
    training_sets: tuple[TrainingSet, ...]
    backbones: tuple[Backbone, ...]
    adapters: tuple[Adapter, ...]
    models: tuple[Model, ...]
    judges: tuple[Judge, ...]
    benchmarks: tuple[Benchmark, ...]
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
        _check_names("study", [self.name])
        for kind in KINDS:
            _check_names(kind, [row.name for row in getattr(self, kind)])
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
        """The benchmark whose run measures what a model's cell names: the leaderboard for one of its tasks."""
        tasks = {task.name: benchmark.name for benchmark in self.benchmarks for task in benchmark.tasks}
        return tasks.get(measured, measured)

    def publication(self, name: str) -> Publication:
        return _named(self.publications, name)

    @property
    def language_models(self) -> tuple[LanguageModel, ...]:
        """Everyone who is asked: teachers, judges, auditors and the writers of controls."""
        return (*self.teachers, *self.judges, *self.auditors, *self.controls)


def digest(*rows: Any) -> str:
    """The sha256 of the given rows and values: it changes exactly when one of them does."""
    return hashlib.sha256(json.dumps(rows, default=asdict, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


class Named(Protocol):
    """Any row: it has a name."""

    @property
    def name(self) -> str: ...


Row = TypeVar("Row", bound=Named)


def _named(rows: Sequence[Row], name: str) -> Row:
    for row in rows:
        if row.name == name:
            return row
    raise ValueError(f"the study has no row {name!r}; it has {', '.join(row.name for row in rows)}")


def _check_names(kind: str, names: list[str]) -> None:
    for name in names:
        if not SAFE_NAME.fullmatch(name):
            raise ValueError(
                f"{kind}: the name {name!r} cannot be a partition key, a folder and a repository at once; "
                "use 1 to 96 of the characters a-z 0-9 . - _ with no leading dot and no '..'"
            )
        if names.count(name) > 1:
            raise ValueError(f"{kind}: the name {name!r} is used {names.count(name)} times; give each row its own")


def _check_references(study: Study) -> None:
    """Every name a row mentions must be the name of a row."""
    known = {kind: {row.name for row in getattr(study, kind)} for kind in KINDS}
    mentions: list[tuple[str, str, str | None]] = [
        *((f"teacher {t.name!r}", "backbones", t.model) for t in study.teachers if t.provider == "local"),
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
        if name is not None and name not in known[kind]:
            raise ValueError(f"{who} names {name!r}, which is none of the {kind}: {', '.join(sorted(known[kind]))}")


def _check_rows(study: Study) -> None:
    """What a row says must be possible: adapters that fit, templates there are, judges for what is judged."""
    for model in study.models:
        _check_module(study, model)
    for backbone in study.backbones:
        if backbone.template not in TEMPLATES:
            raise ValueError(
                f"backbone {backbone.name!r} has the template {backbone.template!r}; use one of {', '.join(TEMPLATES)}"
            )
        if TEMPLATES[backbone.template].needs_example != (backbone.example is not None):
            raise ValueError(
                f"backbone {backbone.name!r} has the template {backbone.template!r} and the example "
                f"{backbone.example!r}: one_shot alone has one, a JSON file with FastChat's two messages"
            )
    for asked in study.language_models:
        if asked.provider not in providers.names():
            raise ValueError(
                f"{asked.name!r} has the provider {asked.provider!r}; use one of {', '.join(providers.names())}"
            )
        if asked.provider == "anthropic" and asked.max_tokens is None:
            raise ValueError(f"{asked.name!r}: Anthropic's messages need a limit; set max_tokens (the paper's is 4096)")
        if asked.limits.in_flight < 1:
            raise ValueError(f"{asked.name!r}: limits.in_flight is {asked.limits.in_flight}; let it be at least 1")
    for teacher in study.teachers:
        if teacher.provider == "local" and (teacher.max_tokens is None or teacher.system_prompt or teacher.temperature):
            raise ValueError(
                f"teacher {teacher.name!r}: a local model goes on greedily, without a system prompt, up to a limit; "
                "set max_tokens, and no system_prompt or temperature above 0"
            )
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
    for name in ("mt_bench", "arena_hard"):
        if study.benchmark(name).judge is None:
            raise ValueError(f"benchmark {name!r} has no judge; name one of the study's judges")
    for name in ("ifeval", "open_llm_leaderboard"):
        study.benchmark(name)
    if study.benchmark("arena_hard").baseline is None:
        raise ValueError("benchmark 'arena_hard' has no baseline; name the model whose answers are on file")


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
    if "arena_hard" not in measured and any(model.name in (e.before, e.after) for e in study.examples):
        raise ValueError(f"model {model.name!r} is in an example, but is not measured on arena_hard; add it")


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
        if row.teacher and not any(made.teacher == row.teacher for made in study.training_sets):
            raise ValueError(f"publication {row.name!r}: the teacher {row.teacher!r} has no training set; add one")
        if row.model and study.model(row.model).module == "none":
            raise ValueError(
                f"publication {row.name!r}: the model {row.model!r} is somebody's backbone as it is; publish a merge"
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
    if row.licence not in licences.OPEN:
        return f"{row.licence!r} is none of the licences that allow it ({', '.join(sorted(licences.OPEN))})"
    if study.corpus.licence.lower() not in licences.OPEN and row.teacher:
        return f"it holds the articles of {study.corpus.name!r}, whose licence is {study.corpus.licence!r}"
    if row.terms is None and (terms := licences.TERMS.get(_written_by(study, row) or "")):
        return f"who wrote it has terms of its own ({terms}), and the row says nothing of them; say so in `terms`"
    return None


def _written_by(study: Study, row: Publication) -> str | None:
    """The provider of the teacher whose words these are, or were learnt; None for published pairs."""
    adapter = row.adapter or (study.model(row.model).adapter if row.model else None)
    teacher = study.training_set(study.adapter(adapter).training_set).teacher if adapter else row.teacher
    return study.teacher(teacher).provider if teacher else None


def _check_template(teacher: Teacher) -> None:
    usable = [name for name, template in TEMPLATES.items() if not template.needs_example]
    if teacher.provider != "local":
        raise ValueError(f"teacher {teacher.name!r}: a server has its own template; leave template out")
    if teacher.template not in usable:
        raise ValueError(
            f"teacher {teacher.name!r} has the template {teacher.template!r}; use one of {', '.join(usable)}"
        )


def _check_reference(reference: ReferenceSet) -> None:
    if reference.location.startswith("hf://datasets/"):
        if reference.revision is None:
            raise ValueError(
                f"reference set {reference.name!r} is from the Hub, where files change; pin it with a revision, best "
                "of all a commit"
            )
    elif "://" in reference.location:
        raise ValueError(
            f"reference set {reference.name!r} lies at {reference.location}; use hf://datasets/owner/name or a folder"
        )
    if reference.file.startswith("/") or ".." in reference.file.split("/"):
        raise ValueError(
            f"reference set {reference.name!r}: {reference.file!r} leads out of its place; name a file in it"
        )
    layouts = get_args(get_type_hints(ReferenceSet)["layout"])
    if reference.layout not in layouts:
        raise ValueError(
            f"reference set {reference.name!r} has the layout {reference.layout!r}; use one of {', '.join(layouts)}"
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

"""The kinds of rows a study is made of: frozen values that say what exists, and know nothing of what is done with it.

A row's name is a partition key, a folder and a Hub repository at once, so it is never renamed and never parsed.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeVar, cast

from nift_training.machine import ONE_DEVICE, Machine
from nift_training.recipe import Recipe

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

StudyRow = TypeVar("StudyRow", bound="DataclassInstance")

# The columns of rows that say where on this machine files lie.
PLACES = ("location", "judge_config", "example")

# A field that rows have not always had: while it says nothing, a row is what it was, and so is what was made of it.
CAME_LATER = {"came_later": True}

# What a document may be cut at.
Unit = Literal["spaces", "words", "sentences"]


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """Where the web articles come from and how many of them are sampled; one document is one text.

    Each is cut at one of its `spaces`, as the paper does. Chinese, Japanese or Thai articles have none between words:
    they are cut between `words`, which a dictionary tells apart, or behind `sentences`.

    `tokens_per_document` is what a plan assumes as long as no article has been read.
    """

    name: str
    location: str
    documents: int | None = None
    text_column: str = "text"
    revision: str | None = None
    seed: int = 42
    tokens_per_document: int | None = None
    cut_at: Unit = "spaces"
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

    def most(self, request_bytes: int, output_limit: int | None, *, batch: bool = False) -> int:
        """The most that a request of so many bytes can cost: a byte is the smallest token there is."""
        return self.cost(request_bytes, output_limit or self.max_output, batch=batch)


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

    `provider` is a file of `nift_assets/providers`; `model` is the provider's own name, or that of a backbone row where
    the provider runs one. For a model that refuses a temperature `supports_temperature=False`, and none is sent;
    `max_tokens_name` is what it calls its limit (`max_completion_tokens` for OpenAI's later models). Where that was
    raised, an answer that had ended by itself is taken and not asked for again, unless `reuse_below_limit=False`.
    `base_url` is a server that speaks the provider's protocol (vLLM, llama.cpp, Ollama, TGI), `key_variable` the
    environment variable with its key. `engine` says what answers there ("vllm 0.10.1", a digest of the weights): with
    it an answer is known by that, and by the server's host without it, so that a server may move without being asked
    again. `formerly` is the engine or the host (`local` for this machine) that the same model was known by before: what
    it answered then counts. `budget_usd` caps what it may cost; `price` is for what the price list does not know.
    """

    name: str
    provider: str
    model: str
    system_prompt: str | None = None
    temperature: float | None = 0.0
    supports_temperature: bool = True
    max_tokens: int | None = None
    max_tokens_name: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    reuse_below_limit: bool = True
    api_version: str | None = None
    base_url: str | None = None
    engine: str | None = field(default=None, metadata=CAME_LATER)
    formerly: str | None = field(default=None, metadata=CAME_LATER)
    key_variable: str | None = None
    price: Price | None = None
    budget_usd: float | None = None
    limits: Limits = Limits()

    def shape(self) -> dict[str, Any]:
        """All of the row that shapes an answer: when it changes, what was made with it is stale."""
        free = {"limits", "budget_usd", "price", "key_variable", "filters", "reuse_below_limit", "needs_review"}
        # Where it stands says what answers only while nothing else does.
        free |= {"formerly", "engine" if self.engine is None else "base_url"}
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
class OwnFilter(Filter):
    """A filter whose file lies beside the study's: `found_as` is what its place among the filters is called here.

    A study makes it of the `Filter` that names such a file.
    """

    found_as: str

    @property
    def file(self) -> str:
        return self.found_as


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

    `source` is a Hub id, the path of a folder of one's own (`./models/mine`), or `pico` for a tiny model made on the
    spot. A folder is known by what is in it and not by where it lies. A Hub id without a `revision` is pinned to the
    commit that it has when it is first fetched. `instruct_of` names the foundation model whose
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
    """Who grades the answers.

    Its verdicts become scores once people have compared `needs_review` pairs of answers to the benchmarks it judges.
    """

    max_tokens: int | None = 2048
    # None stands first, so that it is no column of the relations that SQL models are made from.
    needs_review: int | None = field(default=None, metadata=CAME_LATER)


@dataclass(frozen=True, kw_only=True)
class Task:
    """A task of the Open LLM Leaderboard as lm-eval names it: the number that counts, and the examples it is shown."""

    name: str
    metric: str
    shots: int
    filter: str = "none"


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """A benchmark: a file of `nift_assets/benchmarks`, the folder its own files lie in, and how it is run.

    `runs` counts inference runs with a seed each (MT-Bench: 3 in the paper); `baseline` is the model whose answers are
    compared with, `judge_config` the file with the judge's prompts; `tasks` are those of the leaderboard. What a row
    must have its file says.
    """

    name: str
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

    BENCHMARK: ClassVar[str] = "arena_hard"

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
    is what besides binds whoever uses it, the teacher's provider's for instance, and stands on the card. With
    `needs_review` it is published once people have judged so many of the pairs that it holds or has learnt from.
    """

    name: str
    repository: str
    teacher: str | None = None
    adapter: str | None = None
    model: str | None = None
    private: bool = True
    licence: str
    terms: str | None = None
    needs_review: int | None = field(default=None, metadata=CAME_LATER)

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


def without_places(row: StudyRow) -> StudyRow:
    """A row without where on this machine its files lie: what is in them shapes a result, and not their place.

    An address (`hf://…`, `s3://…`, a leaderboard's `hub`) stays, and of a single file or a model's folder its name.
    """
    if isinstance(row, Backbone) and is_folder(row.source):
        row = replace(row, source=f"./{os.path.basename(os.path.normpath(row.source))}")
    if isinstance(row, OwnFilter):
        row = cast("StudyRow", Filter(name=row.name, rule=row.rule, options=row.options))
    places = {name: value for name in PLACES if isinstance(value := getattr(row, name, None), str)}
    return replace(
        row,
        **{
            name: value if "://" in value or value == "hub" else "" if name == "location" else os.path.basename(value)
            for name, value in places.items()
        },
    )


def is_folder(source: str) -> bool:
    """Whether a backbone's source is the path of a folder: a Hub id begins with a letter or digit and has one slash."""
    return source.startswith(("/", ".", "~")) or source.count("/") > 1


def digest(*rows: Any) -> str:
    """The sha256 of the given rows and values: it changes exactly when one of them does."""
    return hashlib.sha256(json.dumps(rows, default=_said, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def _said(row: DataclassInstance) -> dict[str, Any]:
    """The fields of a row, without those that came later and say nothing."""
    said = {field.name: getattr(row, field.name) for field in fields(row)}
    later = {field.name for field in fields(row) if field.metadata.get("came_later")}
    return {name: value for name, value in said.items() if name not in later or value is not None}

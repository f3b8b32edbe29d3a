"""Asking teachers by batch: a job that submits and ends, and a sensor that looks at what became of it.

Neither starts by itself. The job is launched per teacher; the sensor is switched on in the UI. When the batches of a
teacher have ended, the ordinary run of `completions` finds every answer in the ledger and sends nothing.
"""

import json
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import dagster as dg

from nift_assets import providers
from nift_assets.costs import price_list
from nift_assets.prompts import completions
from nift_assets.protocol import Request
from nift_assets.rows import Price, Teacher
from nift_assets.steps import asking
from nift_assets.steps.lineage import Graph, Partition
from nift_assets.store import Store
from nift_assets.study import Study

# The ledger's modules are imported where they are used: the database library would slow down every load.
if TYPE_CHECKING:
    from nift_assets.ledger.batches.standing import BatchStatus
    from nift_assets.ledger.book import Asker, Book
    from nift_assets.protocol.batches import BatchApi

MOST_REQUEUES = 3
# A tick of a sensor is cut off after a minute; a batch that is begun by then still comes to its end.
SECONDS_PER_TICK = 30.0
# A chunk that may have been created is looked for again by a new run, no sooner than it can have settled.
SETTLEMENTS_BETWEEN_TRIES = 1.5


SUBMIT = "submit_batches"
batched_completions = dg.define_asset_job(
    "batched_completions",
    selection=dg.AssetSelection.assets("completions"),
    description="`completions` of one teacher whose batches have ended: everything is in the ledger by then.",
)


def submit_batches(graph: Graph) -> dg.JobDefinition:
    """The job that submits all that a teacher of the study has not answered."""
    study = graph.study

    @dg.op(required_resource_keys={"store", "ledger"}, out=dg.Out(dg.Nothing), config_schema={})
    def submit_batch(context: dg.OpExecutionContext) -> None:
        """Batches of all that a teacher has not answered and nobody is asking; ends when the provider has them."""
        from nift_assets.ledger.batches import submission

        teacher = study.teacher(context.partition_key)
        adapter, price = _connect(study, teacher)
        book: Book = context.resources.ledger.book
        wanted = requests(teacher, context.resources.store)
        submitted = submission.submit(book, asker(study, teacher), wanted, adapter, price)
        context.log.info(submitted.in_words())
        metadata = {name: value for name, value in vars(submitted).items() if isinstance(value, int)}
        if submitted.stopped:
            raise dg.Failure(description=submitted.in_words(), metadata=metadata, allow_retries=False)
        context.add_output_metadata({**metadata, "batches": len(submitted.created) + len(submitted.adopted)})

    @dg.job(
        name=SUBMIT,
        partitions_def=graph.partitions.definition("teacher"),
        executor_def=dg.in_process_executor,
        description="Asks one teacher by batch, at half the price; answers come within a day. See the sensor "
        "`batches`.",
    )
    def submit() -> None:
        submit_batch()

    return submit


def batches_sensor(study: Study, submit: dg.JobDefinition) -> dg.SensorDefinition:
    """The sensor that looks at the batches of every teacher of the study; `submit` is what it requests for the rest."""

    @dg.sensor(
        name="batches",
        jobs=[submit, batched_completions],
        default_status=dg.DefaultSensorStatus.STOPPED,
        minimum_interval_seconds=60,
        required_resource_keys={"store", "ledger"},
        description="Imports the batches that have ended, asks again for what came back without an answer, and has "
        "`completions` made when nothing is missing.",
    )
    def look(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        return _tick(context, study)

    return look


def _tick(context: dg.SensorEvaluationContext, study: Study) -> dg.SensorResult:
    remembered: dict[str, Any] = json.loads(context.cursor or "{}")
    wanted: list[dg.RunRequest] = []
    sentences: list[str] = []
    sentences += _strays(study, context.resources.ledger.book)
    for teacher in study.teachers:
        memory = SensorMemory(**remembered.get(teacher.name, {}))
        try:
            outcome = _look_at(context, study, teacher, memory)
        except ValueError as error:  # a missing key holds up this teacher and no other
            outcome = str(error)
        if isinstance(outcome, dg.RunRequest):
            wanted.append(outcome)
        elif outcome:
            sentences.append(f"{teacher.name}: {outcome}")
        remembered[teacher.name] = vars(memory)
    for sentence in sentences:
        context.log.info(sentence)
    skipped = "; ".join(sentences) or "no teacher has been asked by batch; launch the job submit_batches"
    return dg.SensorResult(
        run_requests=wanted,
        skip_reason=None if wanted else dg.SkipReason(skipped),
        cursor=json.dumps({name: memory for name, memory in remembered.items() if any(memory.values())}),
    )


def _strays(study: Study, book: "Book") -> list[str]:
    """A sentence for each teacher with open batches that the study has no row for: renamed, or taken out."""
    from nift_assets.ledger.batches import rows

    batches: dict[str, list[Any]] = {}
    for batch in rows.open_of_others(book, study.name, [teacher.name for teacher in study.teachers]):
        batches.setdefault(batch["who"], []).append(batch)
    return [
        f"{who}: the study has no such teacher, and {', '.join(map(rows.describe, open_ones))} is still open; put "
        f"back its row ({open_ones[0]['provider']}, {open_ones[0]['model']}) to collect what was paid for"
        for who, open_ones in batches.items()
    ]


@dataclass
class SensorMemory:
    """What the sensor keeps in mind of a teacher: the submissions it requested since the last collection, and what it
    said of the state of the batches that it looked into last."""

    requeues: list[str] = field(default_factory=list)
    judged: str | None = None
    said: str = ""


def _look_at(
    context: dg.SensorEvaluationContext, study: Study, teacher: Teacher, memory: SensorMemory
) -> dg.RunRequest | str | None:
    """The run a teacher needs next, or what is waited for, in words; None for one that has no batches."""
    from nift_assets.ledger.batches import collection, creation
    from nift_assets.ledger.batches.standing import missing, status_of

    book: Book = context.resources.ledger.book
    standing = status_of(book, study.name, teacher.name)
    if not standing.batches:
        return None
    if standing.under_way or standing.unsent:
        # What is with the provider is paid for: neither a cap nor the end of the model is in its way.
        adapter, price = providers.reconnect(teacher), price_list.last_price(teacher)
        collected = collection.collect(book, asker(study, teacher), adapter, price, seconds=SECONDS_PER_TICK)
        for batch, counts in collected.imported.items():
            context.log.info(f"{teacher.name}: the chunk {batch[:8]} has ended: {counts}")
        standing = status_of(book, study.name, teacher.name)
        if standing.under_way:
            return "; ".join(collected.waiting)
    if not book.locks.free(f"writer {asker(study, teacher).writer}"):
        return "a run is asking it right now"
    if standing.unsent:
        # A run finds the chunk again, or creates it once it has settled, so it is tried again after a while.
        spell = SETTLEMENTS_BETWEEN_TRIES * creation.SETTLE_SECONDS
        attempt = f"{standing.digest} {time.time() // spell:.0f}"
        return _requeue(
            study, teacher, memory, standing, attempt, f"{standing.unsent} chunks are not with the provider"
        )
    if memory.judged == standing.digest:
        return memory.said
    keys = [outcome.key for outcome in requests(teacher, context.resources.store)]
    left, unknown = missing(book, keys)
    memory.judged = standing.digest
    if left:
        request = _requeue(study, teacher, memory, standing, standing.digest, f"{left:,} requests are left")
        memory.said = (
            request if isinstance(request, str) else f"{left:,} requests are left, and submit_batches is requested"
        )
        return request
    memory.requeues, memory.said = [], "every batch has been collected, and completions has been requested"
    return dg.RunRequest(
        run_key=f"completions {study.name} {teacher.name} {standing.digest}",
        job_name=batched_completions.name,
        partition_key=teacher.name,
        tags={"nift/unknown": str(unknown)} if unknown else {},
    )


def _requeue(
    study: Study, teacher: Teacher, memory: SensorMemory, standing: "BatchStatus", attempt: str, why: str
) -> dg.RunRequest | str:
    """Another submission, unless a person is needed first or it has been tried often enough."""
    if standing.remedy:
        return f"{why}, and a person is needed: {standing.remedy}; then launch submit_batches"
    if attempt in memory.requeues:
        return f"{why}; submit_batches has been requested, launch it by hand if that run failed"
    if len(memory.requeues) >= MOST_REQUEUES:
        return (
            f"{why} after {MOST_REQUEUES} more submissions; see the table `batches` of the ledger for what became of "
            "them, then launch submit_batches, or materialize completions, which asks directly"
        )
    memory.requeues = [*memory.requeues, attempt]
    return dg.RunRequest(
        run_key=f"requeue {study.name} {teacher.name} {attempt}",
        job_name=SUBMIT,
        partition_key=teacher.name,
        tags={"nift/requeue": str(len(memory.requeues))},
    )


def requests(teacher: Teacher, store: Store) -> list[Request]:
    """The requests of `completions`; ValueError while the halves are not there."""
    if store.version("halves", None) is None:
        raise ValueError("halves has not been made yet; materialize it first")
    return completions.requests(teacher, store.read("halves", None))


def asker(study: Study, teacher: Teacher) -> "Asker":
    """Who pays; the writer is that of `completions`, so that only one of both asks at a time."""
    return asking.asker(study, teacher, Partition("completions", teacher.name))


def _connect(study: Study, teacher: Teacher) -> "tuple[BatchApi, Price]":
    price = asking.price(study, teacher)
    adapter = providers.connect(teacher, price)
    assert price is not None, "a batch API is refused to a row without a price"
    return adapter, price

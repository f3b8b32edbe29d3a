"""The ledger's tables: the same definitions for SQLite and PostgreSQL. Money is in whole billionths of a dollar."""

from __future__ import annotations

import hashlib

import sqlalchemy as sa

from nift_assets.ledger.packing import Packed

VERSION = 4
# The versions of SQLite ledgers that have a mark beside them.
MARKED = (3, VERSION)

metadata = sa.MetaData()

schema = sa.Table("schema", metadata, sa.Column("version", sa.Integer, primary_key=True, autoincrement=False))

# One row, in SQLite alone: how often this ledger was written, and how many answers it has been given; see `high_water`.
high_water = sa.Table(
    "high_water",
    metadata,
    sa.Column("ledger", sa.String(32), primary_key=True),
    sa.Column("commits", sa.BigInteger, nullable=False),
    sa.Column("answers", sa.BigInteger, nullable=False),
)

# One row per process that asks; it holds a lock of the system as long as it lives.
sessions = sa.Table(
    "sessions",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("writer", sa.String(300), nullable=False),
    sa.Column("host", sa.String(255), nullable=False),
    sa.Column("pid", sa.Integer, nullable=False),
    sa.Column("began_at", sa.String(32), nullable=False),
    sa.Column("ended", sa.Boolean, nullable=False, default=False),
    sqlite_autoincrement=True,
)

# SQLite numbers rows by themselves where the type of the key is this very word.
ROW_NUMBER = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def _index_of(name: str, *columns: str, where: str) -> sa.Index:
    """An index of the rows of which a condition holds: nearly no row is in it, and nearly none has to be written."""
    return sa.Index(name, *columns, sqlite_where=sa.text(where), postgresql_where=sa.text(where))


# In the statement itself, and no value beside it: so a database knows that the index of these rows is enough.
SENT, UNKNOWN = (sa.literal_column(f"'{state}'", sa.String) for state in ("sent", "unknown"))


# One row per question ever intended, numbered in the order of their intents. `outcome` is how the last try ended where
# that is no final answer; `limitless` begins the key of the same question without its limit of tokens, and is null
# where it has none.
requests = sa.Table(
    "requests",
    metadata,
    sa.Column("number", ROW_NUMBER, primary_key=True),
    sa.Column("key", sa.String(64), nullable=False, unique=True),
    sa.Column("provider", sa.String(96), nullable=False),
    sa.Column("model", sa.String(300), nullable=False),
    sa.Column("body", sa.Text, nullable=False),
    sa.Column("intended_at", sa.String(32), nullable=False),
    sa.Column("claimed_by", sa.Integer),
    sa.Column("in_batch", sa.String(64)),
    sa.Column("outcome", sa.String(16)),
    sa.Column("detail", sa.Text),
    sa.Column("limitless", sa.BigInteger),
    _index_of("requests_claimed", "claimed_by", where="claimed_by is not null"),
    _index_of("requests_unknown", "outcome", where="outcome = 'unknown'"),
    # Only where there is a limit: nothing is below none.
    _index_of("requests_limitless", "limitless", where="limitless is not null"),
)


def limitless_number(limitless_key: str) -> int:
    """The first 64 bits of a key, for a smaller index; whoever finds a row by it compares the rest."""
    return int(limitless_key[:16], 16) - 2**63


# The session and the batch of a question, nought and empty where there is none, for conditions beside its key: SQLite
# would rather look up all questions of which one of them is null, which are nearly all there are.
CLAIMED_BY = sa.func.coalesce(requests.c.claimed_by, 0)
IN_BATCH = sa.func.coalesce(requests.c.in_batch, "")
UNCLAIMED = (CLAIMED_BY == 0) & (IN_BATCH == "")

# Who wanted which question answered: one row per question × study × teacher or judge. By the question's number, which
# grows: keys come in any order, and each would lie on another page.
wanted = sa.Table(
    "wanted",
    metadata,
    sa.Column("request", ROW_NUMBER, primary_key=True, autoincrement=False),
    sa.Column("study", sa.String(96), primary_key=True),
    sa.Column("who", sa.String(96), primary_key=True),
    sqlite_with_rowid=False,
)

# How many questions of each teacher or judge are in which state, counted by the database in the transaction that
# changes it; see `question_counts`. `slot` is the connection of a server that has counted so many, whose rows nobody
# else waits for; 0 in SQLite.
question_counts = sa.Table(
    "question_counts",
    metadata,
    sa.Column("study", sa.String(96), primary_key=True),
    sa.Column("who", sa.String(96), primary_key=True),
    sa.Column("state", sa.String(16), primary_key=True),
    sa.Column("reused", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("slot", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("questions", sa.BigInteger, nullable=False),
    sqlite_with_rowid=False,
)

# One row per request that was about to leave: committed before it did. While its state is `sent` nobody knows.
attempts = sa.Table(
    "attempts",
    metadata,
    sa.Column("session", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("key", sa.String(64), nullable=False, index=True),
    sa.Column("study", sa.String(96), nullable=False),
    sa.Column("who", sa.String(96), nullable=False),
    sa.Column("batch", sa.String(64)),
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("cause", sa.String(64)),
    sa.Column("http_status", sa.Integer),
    sa.Column("request_id", sa.String(200)),
    sa.Column("sent_at", sa.String(32), nullable=False),
    sa.Column("input_tokens", sa.BigInteger),
    sa.Column("output_tokens", sa.BigInteger),
    sa.Column("reserved", sa.BigInteger, nullable=False, default=0),
    sa.Column("spent", sa.BigInteger, nullable=False, default=0),
    sa.Column("evidence", sa.LargeBinary),
    # Looked up when a dead session's attempts are found and when what is in flight is listed.
    _index_of("attempts_open", "session", where="state = 'sent'"),
    _index_of("attempts_unknown", "study", "who", where="state = 'unknown'"),
    _index_of("attempts_batch", "batch", where="batch is not null"),
)


def answer_digest(key: str, http_status: int, headers: bytes, body: bytes) -> bytes:
    """The sha256 of an answer as it is stored, and of whose it is: flipped bytes are no other answer."""
    whose = f"{key} {http_status} {len(headers)} ".encode()
    return hashlib.sha256(b"".join((whose, headers, body))).digest()


# One row per final response, as it came. `digest` is compared wherever the body is read; `status` is what it was read
# as when it was stored or last asked for; `taken_from` is the question that was asked where this one, with a higher
# limit of tokens, was not.
answers = sa.Table(
    "answers",
    metadata,
    sa.Column("key", sa.String(64), primary_key=True),
    sa.Column("session", sa.Integer),
    sa.Column("number", sa.Integer),
    sa.Column("http_status", sa.Integer, nullable=False),
    sa.Column("status", sa.String(16), nullable=False),
    sa.Column("headers", Packed, nullable=False),
    sa.Column("body", Packed, nullable=False),
    sa.Column("answered_at", sa.String(32), nullable=False),
    sa.Column("digest", sa.LargeBinary),
    sa.Column("taken_from", sa.String(64)),
)
# SQLite counts rows by the smallest index there is, and whoever opens the ledger counts them.
ANSWERS_COUNTED = sa.Index("answers_counted", answers.c.http_status).ddl_if(dialect="sqlite")

# What a study, and each of its teachers and judges (`who`, empty for the whole study), has spent and may still have to;
# the requests that were about to leave, and the tokens of their answers.
spending = sa.Table(
    "spending",
    metadata,
    sa.Column("study", sa.String(96), primary_key=True),
    sa.Column("who", sa.String(96), primary_key=True),
    sa.Column("spent", sa.BigInteger, nullable=False, default=0),
    sa.Column("reserved", sa.BigInteger, nullable=False, default=0),
    sa.Column("sent", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("input_tokens", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("output_tokens", sa.BigInteger, nullable=False, server_default="0"),
)

# How fast one key may ask one model, shared by all who ask: two buckets that fill by the minute. The table has had its
# name since the first ledgers, and keeps it.
rate_limiters = sa.Table(
    "gauges",
    metadata,
    sa.Column("name", sa.String(64), primary_key=True),
    sa.Column("requests_per_minute", sa.Float),
    sa.Column("tokens_per_minute", sa.Float),
    sa.Column("requests_left", sa.Float),
    sa.Column("tokens_left", sa.Float),
    sa.Column("measured_at", sa.Float, nullable=False),
    sa.Column("learned", sa.Float),
    sa.Column("learned_at", sa.Float),
    sa.Column("gate_until", sa.Float),
)

# One row per chunk sent to a batch API; the intent is committed before anything is uploaded. A chunk is `intended`,
# then `uploaded` where there is something to upload; while it is `unknown` it may have been created (`tried_at` says
# since when); `submitted` once the provider's name for it is known, `proven` if that is certain to be ours; `imported`,
# or `failed` if it was refused. `stranger_ids` are the provider's batches that are somebody else's; `listed_until` is
# when the newest batch was made that was there before the first creation, by the provider's clock.
batches = sa.Table(
    "batches",
    metadata,
    sa.Column("id", sa.String(64), primary_key=True),
    sa.Column("study", sa.String(96), nullable=False),
    sa.Column("who", sa.String(96), nullable=False),
    sa.Column("provider", sa.String(96), nullable=False),
    sa.Column("model", sa.String(300), nullable=False),
    sa.Column("requests", sa.Integer, nullable=False),
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("file_id", sa.String(200)),
    sa.Column("provider_id", sa.String(200)),
    sa.Column("proven", sa.Boolean, nullable=False, default=False),
    sa.Column("stranger_ids", sa.Text, nullable=False, default="[]"),
    sa.Column("intended_at", sa.String(32), nullable=False),
    sa.Column("tried_at", sa.Float),
    sa.Column("listed_until", sa.Float),
    sa.Column("submitted_at", sa.String(32)),
    sa.Column("ended_at", sa.String(32)),
    sa.Column("polled_at", sa.Float),
    sa.Column("polls_failed", sa.Integer, nullable=False, default=0),
    sa.Column("downloads_torn", sa.Integer, nullable=False, default=0),
    sa.Column("detail", sa.Text),
    sa.Column("remedy", sa.Text),
    sa.Column("counts", sa.Text),
)

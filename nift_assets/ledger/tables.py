"""The ledger's tables: the same definitions for SQLite and PostgreSQL. Money is in whole billionths of a dollar."""

from __future__ import annotations

import hashlib

import sqlalchemy as sa

VERSION = 3

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

# One row per question ever intended. `outcome` is how the last try ended where that is no final answer; `limitless` is
# the key of the same question without its limit of tokens, null where it has none.
requests = sa.Table(
    "requests",
    metadata,
    sa.Column("key", sa.String(64), primary_key=True),
    sa.Column("provider", sa.String(96), nullable=False),
    sa.Column("model", sa.String(300), nullable=False),
    sa.Column("body", sa.Text, nullable=False),
    sa.Column("intended_at", sa.String(32), nullable=False),
    sa.Column("claimed_by", sa.Integer, index=True),
    sa.Column("in_batch", sa.String(64), index=True),
    sa.Column("outcome", sa.String(16)),
    sa.Column("detail", sa.Text),
    sa.Column("limitless", sa.String(64)),
    # Only where there is a limit: nothing is below none.
    sa.Index(
        "requests_limitless",
        "limitless",
        sqlite_where=sa.text("limitless is not null"),
        postgresql_where=sa.text("limitless is not null"),
    ),
)

# The session and the batch of a question, nought and empty where there is none, for conditions beside its key: SQLite
# would rather look up all questions of which one of them is null, which are nearly all there are.
CLAIMED_BY = sa.func.coalesce(requests.c.claimed_by, 0)
IN_BATCH = sa.func.coalesce(requests.c.in_batch, "")
UNCLAIMED = (CLAIMED_BY == 0) & (IN_BATCH == "")

# Who wanted which question answered: one row per question × study × teacher or judge.
wanted = sa.Table(
    "wanted",
    metadata,
    sa.Column("study", sa.String(96), primary_key=True),
    sa.Column("who", sa.String(96), primary_key=True),
    sa.Column("key", sa.String(64), primary_key=True),
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
    sa.Column("batch", sa.String(64), index=True),
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
    sa.Index(
        "attempts_open", "session", sqlite_where=sa.text("state = 'sent'"), postgresql_where=sa.text("state = 'sent'")
    ),
)


def answer_digest(key: str, http_status: int, headers: str, body: bytes) -> bytes:
    """The sha256 of an answer, and of whose it is: flipped bytes are no other answer."""
    digest = hashlib.sha256(f"{key}\0{http_status}\0{headers}\0".encode())
    digest.update(body)
    return digest.digest()


# One row per final response, as it came. `digest` is compared wherever the body is read;
# `taken_from` is the question that was asked where this one, with a higher limit of tokens, was not.
answers = sa.Table(
    "answers",
    metadata,
    sa.Column("key", sa.String(64), primary_key=True),
    sa.Column("session", sa.Integer),
    sa.Column("number", sa.Integer),
    sa.Column("http_status", sa.Integer, nullable=False),
    sa.Column("headers", sa.Text, nullable=False),
    sa.Column("body", sa.LargeBinary, nullable=False),
    sa.Column("answered_at", sa.String(32), nullable=False),
    sa.Column("digest", sa.LargeBinary),
    sa.Column("taken_from", sa.String(64)),
)

# What a study, and each of its teachers and judges (`who`, empty for the whole study), has spent and may still have to.
spending = sa.Table(
    "spending",
    metadata,
    sa.Column("study", sa.String(96), primary_key=True),
    sa.Column("who", sa.String(96), primary_key=True),
    sa.Column("spent", sa.BigInteger, nullable=False, default=0),
    sa.Column("reserved", sa.BigInteger, nullable=False, default=0),
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

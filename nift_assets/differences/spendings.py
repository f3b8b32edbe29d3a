"""What a ledger says that a study has spent, read without writing a byte."""

from __future__ import annotations

from pathlib import Path

import sqlalchemy as sa

from nift_assets.ledger import database
from nift_assets.ledger.book import Book
from nift_assets.ledger.tables import spending


def of_book(book: Book, study: str) -> dict[str, float]:
    """US dollars by who was asked, in the study's name."""
    with book.reading() as connection:
        return _spent(connection, study)


def of_file(ledger: Path, study: str) -> dict[str, float]:
    """The same of an SQLite ledger that may be anybody's copy; ValueError for one that cannot be read."""
    engine = database.engine_to_read(ledger)
    try:
        with engine.connect() as connection:
            return _spent(connection, study)
    except sa.exc.SQLAlchemyError as error:
        raise ValueError(
            f"the ledger {ledger} cannot be read ({type(error).__name__}); without it all else is compared"
        ) from error
    finally:
        engine.dispose()


def _spent(connection: sa.Connection, study: str) -> dict[str, float]:
    asked = sa.select(spending.c.who, spending.c.spent).where(spending.c.study == study, spending.c.who != "")
    return {who: spent / 1e9 for who, spent in connection.execute(asked.order_by(spending.c.who))}

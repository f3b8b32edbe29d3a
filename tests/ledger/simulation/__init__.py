"""The unchanged dispatcher, book, spill and HTTP client in a world of one seed.

The clock is virtual, the network and its server are made up, and every call of the database and the disk may succeed,
fail, succeed unheard or hang; processes are killed at any of these. What must hold is looked at after every commit.

    python -m tests.ledger.simulation 1-200      # each seed alone: python -m tests.ledger.simulation 17
"""

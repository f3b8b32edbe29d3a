"""Runs what is measured at size, one part after the other."""

from __future__ import annotations

from tests.scale import ledger, portions

if __name__ == "__main__":
    ledger.main()
    portions.show(portions.Plan())

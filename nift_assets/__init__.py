"""What exists (studies), what is made from it (assets and SQL models) and the one door to paid models (the ledger)."""

from pathlib import Path

DEMO_FILES = Path(__file__).parent / "demo"

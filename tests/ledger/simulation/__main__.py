"""Runs seeds, `17` or `1-200`, and prints the first that goes wrong."""

from __future__ import annotations

import sys

from tests.ledger.simulation.run import run_all, told


def main() -> None:
    first, _, last = (sys.argv[1] if len(sys.argv) > 1 else "1-200").partition("-")
    outcomes = []
    spent = 0.0
    for seed in range(int(first), int(last or first) + 1):
        (outcome,), seconds = run_all([seed])
        outcomes.append(outcome)
        spent += seconds
        if outcome.violation is not None:
            print(outcome.report())
            sys.exit(1)
    print(told(outcomes, spent))


if __name__ == "__main__":
    main()

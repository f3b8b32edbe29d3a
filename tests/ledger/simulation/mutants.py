"""Faults planted in the code under test, each of which the simulation has to find.

python -m tests.ledger.simulation.mutants            # all of them
python -m tests.ledger.simulation.mutants NAME …
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

PROJECT = Path(__file__).parent.parent.parent.parent
SEEDS = "1-200"


@dataclass(frozen=True)
class Mutant:
    """A piece of a file of `nift_assets/ledger`, and what stands in its place."""

    name: str
    file: str
    right: str
    wrong: str

    def planted(self, source: str) -> str:
        """The source with the fault; ValueError where the piece does not stand there exactly once."""
        if source.count(self.right) != 1:
            raise ValueError(f"{self.name}: {self.file} has {source.count(self.right)} of {self.right!r}; mend the row")
        return source.replace(self.right, self.wrong)


MUTANTS = (
    Mutant(
        "one answer in seven is not settled",
        "book.py",
        "if s.number in reserved}",
        "if s.number in reserved and s.number % 7}",
    ),
    Mutant(
        "a commit unheard is settled twice",
        "book.py",
        'sa.bindparam("of_session"), _OPEN)',
        'sa.bindparam("of_session"))',
    ),
    Mutant("a commit unheard is not looked up", "group_commit.py", "if self._in_doubt:", "if False:"),
    Mutant(
        "what never left stays reserved",
        "book.py",
        "unheard = mine & _OPEN & ",
        "unheard = mine & _OPEN & sa.false() & ",
    ),
    Mutant("nothing is put into the spill", "dispatch.py", "            self._commit.put_outside()\n", ""),
    Mutant("what was spilled is thrown away", "book.py", "if not _settle_spilled(connection, row)]", "if False]"),
    Mutant(
        "a lock on a dead connection cannot be released",
        "locks.py",
        "        except sa.exc.DBAPIError:\n            pass",
        "        except ZeroDivisionError:\n            pass",
    ),
    Mutant("a server that restarts ends a run", "database.py", "if not _is_away(error) or", "if True or"),
    Mutant("who was taken for dead asks on", "book.py", "if ended is not False or not held:", "if False:"),
    Mutant(
        "a question of another's is taken",
        "book.py",
        "free = UNCLAIMED & ",
        "free = ",
    ),
    Mutant("the study's cap is not looked at", "book.py", '[("", self.study_cap), ', "["),
    Mutant(
        "a cap is passed by one request",
        "accounts.py",
        "if taken[account] + sum_so_far > cap:",
        "if taken[account] + sum_so_far - amount > cap:",
    ),
    Mutant(
        "what failed stays reserved", "book.py", 'booked if s.state != "unknown")', 'booked if s.state == "answered")'
    ),
    Mutant("what is unknown is freed", "book.py", 'reserved if s.state == "unknown" else 0,', "0,"),
    Mutant("a cut connection cost nothing", "connection.py", "sent=sendable.on_the_wire)", "sent=False)"),
    Mutant(
        "a ledger that lacks its last commits is used", "high_water.py", "found.mark.commits < known.commits", "False"
    ),
    Mutant(
        "a batch is looked for by a clock of our own",
        "batches/creation.py",
        'since = intended - SKEW_SECONDS if chunk["listed_until"] is None else chunk["listed_until"]',
        "since = intended - SKEW_SECONDS",
    ),
    Mutant(
        "a batch is created before it is written down", "batches/creation.py", 'state="unknown", file_id=', "file_id="
    ),
    Mutant("who is over leaves attempts open", "book.py", 'lost).values(state="unknown"', 'lost).values(state="sent"'),
    Mutant(
        "what leaves is not written down",
        "book.py",
        "_SEND, rows)",
        "_SEND, rows[:-1] or rows)",
    ),
    Mutant(
        "what is answered is counted as open too",
        "question_counts.py",
        '        _row(OPEN.format("r"), "0", -1, _OF_ANSWER.format("new")),\n',
        "",
    ),
    Mutant(
        "what leaves is not counted",
        "book.py",
        "reserved=sum(amounts[:count]), sent=count)",
        "reserved=sum(amounts[:count]))",
    ),
)


def killed_by(mutant: Mutant) -> str | None:
    """The first seed's report of it; None if it lives."""
    with tempfile.TemporaryDirectory(prefix="nift-mutant-") as folder:
        overlay = Path(folder)
        shutil.copytree(PROJECT / "nift_assets", overlay / "nift_assets", ignore=shutil.ignore_patterns("__pycache__"))
        for name in ("tests", "nift_training", "expectations", "dagster_project"):
            (overlay / name).symlink_to(PROJECT / name)
        file = overlay / "nift_assets" / "ledger" / mutant.file
        file.write_text(mutant.planted(file.read_text()))
        command = [sys.executable, "-m", "tests.ledger.simulation", SEEDS]
        ran = subprocess.run(command, cwd=overlay, capture_output=True, text=True, check=False)
    return ran.stdout if ran.returncode == 1 and ran.stdout.startswith("seed ") else None


def main() -> None:
    wanted = sys.argv[1:]
    for mutant in MUTANTS:
        if not wanted or mutant.name in wanted:
            report = killed_by(mutant)
            print(f"{mutant.name}: {report.splitlines()[0] if report else 'LIVES'}", flush=True)


if __name__ == "__main__":
    main()

"""The whole suite on all cores: how many processes, which files first, and what all of it may cost.

Without `-n` none of this happens: a single test runs in the process that was asked for it.
"""

from __future__ import annotations

import os
import resource
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.demo_run import pace

if TYPE_CHECKING:
    from xdist.remote import Producer
    from xdist.scheduler import LoadFileScheduling
    from xdist.workermanage import WorkerController

TESTS = Path(__file__).parent
# CPU seconds that all quick tests may take together, on a machine at its usual pace. Who needs more raises it here.
# On two quiet cores they took 923, with four processes.
BUDGET = 1_000
SPENT, PACES, VERDICT = pytest.StashKey[float](), pytest.StashKey[list[float]](), pytest.StashKey[str]()
# The files that take longest, so that no process is left alone with one of them at the end.
LONG = (
    "training/test_weights.py",  # and all that is beside it
    "ui/test_browser.py",
    "ledger/test_batches.py",
    "ledger/test_faults.py",
    "hub/test_repository.py",
    "ledger/test_crashes.py",
    "ledger/test_rates.py",
    "ledger/test_adversity.py",
    "ledger/test_spill.py",
    "ledger/test_book.py",
    "ui/test_launcher.py",
    "steps/test_automation.py",
    "dagster_project/test_lost_events.py",
    "hub/test_commits.py",
    "dagster_project/test_diff.py",
    "steps/test_guard.py",
    "ledger/test_secrets.py",
    "contracts/test_defects.py",
    "expectations/test_check.py",
    "pages/test_viewer.py",
    # Of those that look at the demo.
    "test_command_line.py",
    "hub/test_publishing.py",
    "test_demo.py",
)


# What imports torch and transformers, which takes four seconds of each process that does.
TORCH = "tests/training/"


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Two processes more than there are cores: half of their time tests wait for servers, clocks and processes."""
    return len(os.sched_getaffinity(0)) + 2


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadFileScheduling | None:
    """Each file is one process's, and so are all those together that import torch."""
    if config.option.dist != "loadfile":
        return None
    from xdist.scheduler import LoadFileScheduling

    class TorchTogether(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return TORCH if nodeid.startswith(TORCH) else super()._split_scope(nodeid)

    return TorchTogether(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long files come first, and last those that look at the demo, which is made while the others run."""
    demos = {item.path for item in items if "demo" in getattr(item, "fixturenames", ())}
    places = {TESTS / name: place for place, name in enumerate(LONG)}
    items.sort(key=lambda item: (item.path in demos, places.get(item.path, len(LONG))))


def is_whole(config: pytest.Config) -> bool:
    """Whether this is a run of all quick tests, the one that the budget is about."""
    everything = config.args_source is pytest.Config.ArgsSource.TESTPATHS and not config.option.keyword
    return everything and config.option.markexpr == "not slow"


def pytest_sessionstart(session: pytest.Session) -> None:
    """Measures the pace of one process while the others begin, which is as busy as the machine will be."""
    if getattr(session.config, "workerinput", {}).get("workerid") == "gw0":
        session.config.stash[PACES] = [pace()]


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Adds up what the tests have cost; a run of all quick tests fails if that is more than they may."""
    config = session.config
    if hasattr(config, "workerinput"):
        begun = config.stash.get(PACES, [])
        config.workeroutput["cost"], config.workeroutput["paces"] = cost(), [*begun, pace()] if begun else []
        return
    spent, paces = config.stash.get(SPENT, 0.0) or cost(), config.stash.get(PACES, [])
    if exitstatus != pytest.ExitCode.OK or not is_whole(config) or not paces:
        return
    usual = sum(paces) / len(paces)
    config.stash[VERDICT] = f"{spent:.0f} CPU s at {usual:.1f} times the usual pace, of {BUDGET} s at the usual one"
    if spent > BUDGET * usual:
        config.stash[VERDICT] += ": make them cheaper, or raise BUDGET in tests/workers.py and say why"
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: WorkerController) -> None:
    output: dict[str, Any] = getattr(node, "workeroutput", None) or {}  # none of one that crashed
    node.config.stash[SPENT] = node.config.stash.get(SPENT, 0.0) + output.get("cost", 0.0)
    node.config.stash[PACES] = [*node.config.stash.get(PACES, []), *output.get("paces", [])]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if verdict := config.stash.get(VERDICT, None):
        terminalreporter.section("what the quick tests cost")
        terminalreporter.write_line(verdict)


def cost() -> float:
    """The CPU seconds of this process and of all those that it has waited for."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)

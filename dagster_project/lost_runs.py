"""Runs whose process has gone without a word: nobody else marks them as failed, or frees their places in pools."""

from __future__ import annotations

import dagster as dg

from nift_assets.steps.dagster_internals import (
    GRPC_INFO_TAG,
    IN_PROGRESS_RUN_STATUSES,
    PARTITION_NAME_TAG,
    DagsterUserCodeUnreachableError,
)

# Set on the runs of `nift demo`, which are no code server's.
COMMAND_TAG = "nift/command"
WHY = "its process ended without a word, killed or with the machine; what it was answered and had stored is kept"


def under_way(instance: dg.DagsterInstance, tag: str) -> list[dg.DagsterRun]:
    """Runs that have begun and not ended, of those that carry a tag."""
    runs = instance.get_runs(dg.RunsFilter(statuses=IN_PROGRESS_RUN_STATUSES))
    return [run for run in runs if tag in run.tags]


def launched(instance: dg.DagsterInstance) -> list[dg.DagsterRun]:
    """Runs under way that a code server has started."""
    return under_way(instance, GRPC_INFO_TAG)


def in_words(run: dg.DagsterRun) -> str:
    """What a run makes, as a person calls it: `completions of echo`."""
    tables = sorted(key.to_user_string() for key in run.asset_selection or ()) or [run.job_name]
    named = ", ".join(tables[:3]) + (f" and {len(tables) - 3} more" if len(tables) > 3 else "")
    partition = run.tags.get(PARTITION_NAME_TAG)
    return f"{named} of {partition}" if partition else named


def asked_to_end(instance: dg.DagsterInstance, run: dg.DagsterRun) -> bool:
    """Whether somebody was there to pass it on to the run's process."""
    try:
        return bool(instance.run_launcher.terminate(run.run_id))
    except DagsterUserCodeUnreachableError:
        return False


def mark_failed(instance: dg.DagsterInstance, lost: list[dg.DagsterRun]) -> None:
    """Ends runs in the books, and frees the places in pools of all runs that have ended."""
    for run in lost:
        instance.report_run_failed(run, WHY)
    log = instance.event_log_storage
    for run_id in log.get_concurrency_run_ids():
        holder = instance.get_run_by_id(run_id)
        if holder is None or holder.is_finished:
            log.free_concurrency_slots_for_run(run_id)

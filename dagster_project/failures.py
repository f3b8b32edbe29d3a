"""What a failed run says to a person: what it was making, why it failed, and what to do, in one line."""

import logging
import re
from collections.abc import Sequence

import dagster as dg

from nift_assets import environment
from nift_assets.secrets import redaction
from nift_assets.steps.approvals import AWAITED
from nift_assets.steps.asking import STOPPED
from nift_assets.steps.dagster_internals import PARTITION_NAME_TAG
from nift_training import http_client

TAG = "nift/failure"
WEBHOOK_SECONDS = 10
# How Dagster begins an error that says all there is to say.
OURS = re.compile(r"^(ValueError|nift_assets\.table_files\.DamagedTable): ")
KEPT = "nothing was written"  # how the guard of the tables begins


@dg.run_failure_sensor(
    name="failures",
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Writes of each failed run in one line what it was making, why it failed and what to do: as its tag "
    f"{TAG}, and to the address in {environment.FAILURE_WEBHOOK} if there is one. Starts nothing.",
)
def failures_sensor(context: dg.RunFailureSensorContext) -> None:
    message = in_words(context.instance, context.dagster_run, context.get_step_failure_events())
    context.log.error(message)
    context.instance.add_run_tags(context.dagster_run.run_id, {TAG: message})
    if address := environment.failure_webhook():
        post(address, message)


def in_words(instance: dg.DagsterInstance, run: dg.DagsterRun, failures: Sequence[dg.DagsterEvent]) -> str:
    """The one line about a run that has failed."""
    steps = sorted({event.step_key or "" for event in failures}) or _selected(run)
    partition = run.tags.get(PARTITION_NAME_TAG)
    what = ", ".join(steps) + (f" of {partition}" if partition else "")
    why = reason(instance, run.run_id, failures)
    return redaction.redact(f"{what} failed: {why}. {_remedy(failures, why)}")


def reason(instance: dg.DagsterInstance, run_id: str, failures: Sequence[dg.DagsterEvent]) -> str:
    """Why a run failed, in one line: what its own process said last, else the message of the first failed step that
    does not wait for people only."""
    failures = sorted(failures, key=lambda failure: _told([failure], AWAITED) != [None])
    # Of the failed step alone: Dagster says of every step below that it was not run.
    messages = [
        entry.user_message
        for entry in instance.all_logs(run_id)
        if entry.level == logging.ERROR and not entry.is_dagster_event
        if failures and entry.step_key == failures[0].step_key
    ]
    if messages:
        message = messages[-1]
    elif not failures:
        message = f"Dagster stopped the run {run_id}; its page in the UI says why"
    elif (user := failures[0].step_failure_data.user_failure_data) and user.description:
        message = user.description
    else:
        error = failures[0].step_failure_data.error
        assert error is not None
        message = (error.cause or error).message
    return OURS.sub("", " ".join(message.split())).rstrip(".")


def stopped_by(failures: Sequence[dg.DagsterEvent]) -> str | None:
    """The cause where a provider or a cap has ended the asking: quota, authentication, budget, …"""
    return next((cause for cause in _told(failures, STOPPED) if cause), None)


def awaited(failures: Sequence[dg.DagsterEvent]) -> str | None:
    """What people have to review before the steps that stopped are made; None where one failed of anything else."""
    waiting = _told(failures, AWAITED)
    return "; ".join(dict.fromkeys(filter(None, waiting))) if waiting and all(waiting) else None


def _told(failures: Sequence[dg.DagsterEvent], name: str) -> list[str | None]:
    """What each failed step says of itself under a name, None where it says nothing of it."""
    said = [event.step_failure_data.user_failure_data for event in failures]
    values = [failure.metadata.get(name) if failure else None for failure in said]
    return [str(value.value) if value else None for value in values]


def post(address: str, message: str) -> None:
    """Sends a message the way Slack, Mattermost and their like take it."""
    http_client.post(address, {"text": message}, seconds=WEBHOOK_SECONDS)


def _selected(run: dg.DagsterRun) -> list[str]:
    return sorted(key.to_user_string() for key in run.asset_selection or ()) or [run.job_name]


def _remedy(failures: Sequence[dg.DagsterEvent], why: str) -> str:
    if not failures:
        return "If its process was killed it is run again by itself, twice at most; nothing is paid again"
    if awaited(failures):
        return "Launch it again when they have"
    if stopped_by(failures):
        return "Launch it again when that is settled: only the rest is asked"
    if why.startswith(KEPT):
        return "Its page has the failed checks; what is made from it waits for the next good version"
    return "Re-execute it from failure when that is mended; what was complete is kept"

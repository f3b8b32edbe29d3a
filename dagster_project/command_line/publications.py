"""The command that publishes data, adapters and models on the Hugging Face Hub."""

from __future__ import annotations

import sys

import click

from dagster_project.command_line import known_names
from dagster_project.command_line.terminal import main, refuse, study_option
from dagster_project.settings import dagster_home, take_over


@main.command()
@study_option
@click.argument("names", nargs=-1, shell_complete=known_names.complete_publication)
@click.option("--yes", is_flag=True, help="Push it. Without this nothing is sent, and what would be is shown.")
@click.option(
    "--dry-run", is_flag=True, help="Only show what would go where, which is also what happens without --yes."
)
def publish(names: tuple[str, ...], yes: bool, dry_run: bool) -> None:
    """Publish data, adapters and models of the active study on the Hugging Face Hub: all its rows, or those named."""
    try:
        from nift_assets import studies
        from nift_assets.secrets import keys, redaction

        if yes and dry_run:
            raise ValueError("--yes pushes and --dry-run does not; give one of them")
        if yes:
            keys.require("HF_TOKEN", "publishing")  # said before a minute is spent on folders
        study = studies.active()
        log = dagster_home(study.name) / "publish.log"
        # Imported now: the graph is that of the study the environment names.
        from dagster_project.command_line import publishing

        take_over(study)

        failed = 0
        for outcome in publishing.publish(publishing.chosen(study, names), push=yes, log=log):
            if outcome.error:
                failed += 1
                click.secho(f"error: {outcome.publication.name}: {redaction.redact(outcome.error)}", fg="red", err=True)
            else:
                click.echo(publishing.render(outcome))
    except (ValueError, OSError) as error:
        refuse(str(error))
    sys.exit(1 if failed else 0)

"""The `nift` command: run a study from end to end, or open Dagster's UI on it."""

from __future__ import annotations

from dagster_project.command_line.terminal import main

__all__ = ["main"]

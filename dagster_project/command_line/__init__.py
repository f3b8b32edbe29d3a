"""The `nift` command: run a study from end to end, or open Dagster's UI on it."""

from __future__ import annotations

from dagster_project.command_line import (
    chat,
    checks,
    judge,
    look,
    money,
    new_study,
    preview,
    publications,
    reviews,
    scores,
    study,
    ui,
)
from dagster_project.command_line.terminal import main

__all__ = [
    "chat",
    "checks",
    "judge",
    "look",
    "main",
    "money",
    "new_study",
    "preview",
    "publications",
    "reviews",
    "scores",
    "study",
    "ui",
]

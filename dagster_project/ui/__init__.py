"""Dagster's UI for one study: its launcher, and the gate in front of it."""

"""Weights and files in, weights and files out: training, merging and answering, without Dagster or a catalog.

Every module with a command line runs by hand, `python -m nift_training.train --help`, and under Dagster Pipes.
"""

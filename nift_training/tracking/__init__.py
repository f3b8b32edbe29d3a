"""Runs beside others: losses, scores and costs, sent to MLflow, W&B or TensorBoard through their own clients.

A client works in a process of its own (`python -m nift_training.tracking`). Whatever it does there, it can neither fail
nor slow down the work it tells of. A new tracker is one file here and its row in `trackers`.
"""

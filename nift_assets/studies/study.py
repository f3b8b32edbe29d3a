"""The rows by the name under which studies of one's own imported them before: use `nift_assets.studies` instead."""

from __future__ import annotations

from nift_assets.rows import *  # noqa: F403
from nift_assets.study import Study

__all__ = ["Study"]

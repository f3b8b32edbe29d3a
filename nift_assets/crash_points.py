"""Places where a test has this process killed, to prove that nothing is lost there; without a test they do nothing.

`NIFT_CRASH=<point>:<visit>` kills the process with SIGKILL at that visit of the point.
"""

from __future__ import annotations

import os
import signal

from nift_assets import environment

POINTS = (
    "before_intent",
    "after_intent",
    "before_send",
    "after_send",
    "after_body",
    "before_commit",
    "after_commit",
    "batch_before_intent",
    "batch_after_intent",
    "batch_after_upload",
    "batch_before_create",
    "batch_after_create",
    "batch_after_record",
    "batch_after_poll",
    "batch_after_download",
    "batch_after_import",
    "hub_before_create",
    "hub_after_create",
    "hub_after_upload",
    "hub_after_commit",
    "hub_after_tag",
    "review_before_write",
    "review_before_flush",
    "review_after_flush",
)

_point, _, _visit = (environment.crash() or "").partition(":")
_visits = 0


def _reach(point: str) -> None:
    global _visits
    if point == _point:
        _visits += 1
        if _visits == int(_visit or 1):
            os.kill(os.getpid(), signal.SIGKILL)


def _pass(point: str) -> None:
    return


reach = _reach if _point else _pass

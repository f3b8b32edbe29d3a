"""TensorBoard: an event file per run, below a folder that `tensorboard --logdir FOLDER` shows.

Written by TensorBoard's own writer, which needs neither torch nor TensorFlow.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nift_training.tracking.measurements import Measurement, Opening

FOLDER = "runs"


class TensorboardRun:
    """One folder of events. A run that goes on hides what an earlier file has from its first step on."""

    def __init__(self, place: str, opening: Opening) -> None:
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        self.writer: Any = EventFileWriter(str(Path(place or FOLDER, opening.run)))
        if opening.first_step is not None:
            begins = SessionLog(status=SessionLog.START)
            self.writer.add_event(Event(wall_time=opening.seconds, step=opening.first_step, session_log=begins))

    def send(self, measurements: Sequence[Measurement]) -> None:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary

        for one in measurements:
            values = [Summary.Value(tag=name, simple_value=number) for name, number in one.numbers.items()]
            self.writer.add_event(Event(wall_time=one.seconds, step=one.step, summary=Summary(value=values)))
        self.writer.flush()

    def end(self, *, finished: bool) -> None:
        self.writer.close()


start = TensorboardRun

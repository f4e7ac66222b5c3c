"""Ctrl-C, or the SIGTERM of a machine that is taken away, ends training at the end of its step, with a checkpoint."""

from __future__ import annotations

import signal
import sys
import threading

from transformers import TrainerCallback

from pipeline.training.distributed import count_processes


class StopOnSignal(TrainerCallback):
    """`stopped` once a signal ended the training. A second signal ends the program at once.

    Several processes would stop at different steps and wait for each other for ever: they end at once, and go on from the last
    checkpoint.
    """

    def __init__(self) -> None:
        self.stopped = False
        self.earlier: dict[int, object] = {}

    def on_train_begin(self, args, state, control, **kwargs):
        if count_processes() == 1 and threading.current_thread() is threading.main_thread():
            self.earlier = {number: signal.signal(number, self.stop) for number in (signal.SIGINT, signal.SIGTERM)}

    def stop(self, number: int, frame: object) -> None:
        self.restore()
        self.stopped = True
        print("\nstopping at the end of this step; once more ends at once", file=sys.stderr)

    def on_step_end(self, args, state, control, **kwargs):
        if self.stopped:
            control.should_save = control.should_training_stop = True

    def on_train_end(self, args, state, control, **kwargs):
        self.restore()

    def restore(self) -> None:
        for number, handler in self.earlier.items():
            signal.signal(number, handler)
        self.earlier = {}

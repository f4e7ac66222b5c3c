"""What the trainer calls while it trains: the progress bar, the clock, checkpoints in time, and the end at a signal."""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Sequence

from transformers import TrainerCallback

from data.schema import TASKS
from eval.progress import progress_bar
from pipeline.training.distributed import any_process, is_first_process

LONGEST_UNSAVED = 600  # seconds of training that a machine taken away may cost


class TrainingBar(TrainerCallback):
    """Steps, the last losses and the time left, in the project's one bar."""

    def on_train_begin(self, args, state, control, **kwargs):
        self.shown: dict[str, str] = {}
        self.bar = progress_bar("training", state.max_steps, state.global_step, unit="step", shown=state.is_world_process_zero)

    def on_step_end(self, args, state, control, **kwargs):
        self.bar.update(state.global_step - self.bar.n)

    def on_log(self, args, state, control, logs=None, **kwargs):
        for key, name in (("loss", "loss"), ("eval_loss", "validation")):
            if key in (logs or {}):
                self.shown[name] = f"{float(logs[key]):.4f}"
        self.bar.set_postfix(self.shown, refresh=False)

    def on_evaluate(self, args, state, control, metrics, **kwargs):
        if state.is_world_process_zero:
            self.bar.write(describe_evaluation(state.global_step, metrics), file=sys.stderr)

    def on_train_end(self, args, state, control, **kwargs):
        self.bar.close()


def describe_evaluation(step: int, metrics: dict[str, float]) -> str:
    """
    >>> describe_evaluation(40, {"eval_loss": 0.25, "eval_f1": 0.5, "eval_f1_chemicals": 0.625, "eval_f1_diseases": 0.375})
    'step 40: validation loss 0.2500, F1 50.0 (chemicals 62.5, diseases 37.5)'
    """
    line = f"step {step}: validation loss {metrics['eval_loss']:.4f}"
    if "eval_f1" not in metrics:
        return line
    tasks = [f"{task} {100 * metrics[f'eval_f1_{task}']:.1f}" for task in TASKS if f"eval_f1_{task}" in metrics]
    return f"{line}, F1 {100 * metrics['eval_f1']:.1f} ({', '.join(tasks)})"


class Clock(TrainerCallback):
    """Notes in each row of the log how long training has taken, what was before an interruption included."""

    def on_train_begin(self, args, state, control, **kwargs):
        self.started = time.monotonic() - seconds_trained(state.log_history)

    def on_log(self, args, state, control, **kwargs):
        state.log_history[-1]["seconds"] = round(time.monotonic() - self.started, 2)


def seconds_trained(history: Sequence[dict]) -> float:
    """Those of the trainer's log up to its last row.

    >>> seconds_trained([{"step": 1, "seconds": 4.5}, {"step": 2}])
    4.5
    """
    return max((row.get("seconds", 0.0) for row in history), default=0.0)


class SaveInTime(TrainerCallback):
    """A checkpoint every ten minutes, beside those of the evaluations, which a slow machine may have hours apart."""

    def on_train_begin(self, args, state, control, **kwargs):
        self.saved = time.monotonic()

    def on_step_end(self, args, state, control, **kwargs):
        if any_process(time.monotonic() - self.saved > LONGEST_UNSAVED):
            control.should_save = True

    def on_save(self, args, state, control, **kwargs):
        self.saved = time.monotonic()


class StopOnSignal(TrainerCallback):
    """Ctrl-C, or the SIGTERM of a machine that is taken away, ends training at the end of its step, with a checkpoint.

    `stopped` says that it did, in whichever process it was noticed first. A second signal ends the program at once.
    """

    def __init__(self) -> None:
        self.stopped = False
        self.earlier: dict[int, object] = {}

    def on_train_begin(self, args, state, control, **kwargs):
        if threading.current_thread() is threading.main_thread():
            self.earlier = {number: signal.signal(number, self.stop) for number in (signal.SIGINT, signal.SIGTERM)}

    def stop(self, number: int, frame: object) -> None:
        self.restore()
        self.stopped = True
        if is_first_process():
            print("\nstopping at the end of this step; once more ends at once", file=sys.stderr)

    def on_step_end(self, args, state, control, **kwargs):
        self.stopped = any_process(self.stopped)
        if self.stopped:
            control.should_save = control.should_training_stop = True

    def on_train_end(self, args, state, control, **kwargs):
        self.restore()

    def restore(self) -> None:
        for number, handler in self.earlier.items():
            signal.signal(number, handler)
        self.earlier = {}

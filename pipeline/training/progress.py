"""Training's progress: steps, loss, validation loss and the time left, in the project's one bar."""

from __future__ import annotations

import time
from collections.abc import Sequence

from transformers import TrainerCallback

from eval.progress import progress_bar


class TrainingBar(TrainerCallback):
    """Keeps the last losses beside the bar."""

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

    def on_train_end(self, args, state, control, **kwargs):
        self.bar.close()


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

"""One line of progress on standard error: steps, loss, validation loss, time left."""

from __future__ import annotations

import sys

from tqdm import tqdm
from transformers import TrainerCallback


class TrainingBar(TrainerCallback):
    """A bar that keeps the last losses beside it; plain lines now and then where standard error is no terminal."""

    def on_train_begin(self, args, state, control, **kwargs):
        self.shown: dict[str, str] = {}
        self.bar = tqdm(
            total=state.max_steps,
            initial=state.global_step,
            desc="training",
            unit="step",
            file=sys.stderr,
            mininterval=0.5 if sys.stderr.isatty() else 15,
            disable=not state.is_world_process_zero,
        )

    def on_step_end(self, args, state, control, **kwargs):
        self.bar.update(state.global_step - self.bar.n)

    def on_log(self, args, state, control, logs=None, **kwargs):
        for key, name in (("loss", "loss"), ("eval_loss", "validation")):
            if key in (logs or {}):
                self.shown[name] = f"{float(logs[key]):.4f}"
        self.bar.set_postfix(self.shown, refresh=False)

    def on_train_end(self, args, state, control, **kwargs):
        self.bar.close()

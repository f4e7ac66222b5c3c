"""Training's progress: steps, loss, validation loss and the time left, in the project's one bar."""

from __future__ import annotations

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

"""Training's progress: steps, losses and the time left in the project's one bar, and a line at each evaluation."""

from __future__ import annotations

import sys

from transformers import TrainerCallback

from data.schema import TASKS
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

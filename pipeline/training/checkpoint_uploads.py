"""Checkpoints to the Hub while training, on request: what a machine that is taken away has learned so far.

Each is read into memory when it is saved and sent by a thread, so that training never waits for the network. What could not be
sent is said, and costs nothing else: `medner push` with publish.artifacts=adapter,checkpoints sends it later.
"""

from __future__ import annotations

import sys
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from transformers import TrainerCallback

from data.schema import InputError
from pipeline.base_model import read_origin
from pipeline.export.names import default_name, published_base
from pipeline.publish.hub import Upload, log_in, upload
from pipeline.publish.push import adapter_uploads, check_name, prepare_repository
from pipeline.run_folder import RunFolder


class CheckpointUploads(TrainerCallback):
    """Makes the repository before training begins, so that a wrong token or name is found then."""

    def __init__(self, run: RunFolder):
        publish, name = run.settings.publish, run.settings.model.name
        self.base = published_base({"base_model": name, "origin": read_origin(name)})
        self.hub = log_in()
        self.repo = publish.repo or run.manifest.get("repo") or f"{self.hub.user}/{default_name(self.base)}"
        check_name(self.repo, self.base)
        self.then = f"medner run --out {run.path}"
        prepare_repository(self.hub, run, self.repo, private=publish.private, force=False, then=self.then)
        self.sender = ThreadPoolExecutor(max_workers=1)
        self.sent: dict[str, Future] = {}

    def on_save(self, args, state, control, **kwargs):
        if state.is_world_process_zero:
            folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
            files = adapter_uploads(folder, f"checkpoints/{folder.name}/", self.base)
            # as bytes: the trainer deletes older checkpoints while they are still being sent
            kept = [Upload(one.path, in_memory(one.content)) for one in files]
            self.sent[folder.name] = self.sender.submit(upload, self.hub, self.repo, [kept], self.then)

    def on_train_end(self, args, state, control, **kwargs):
        self.sender.shutdown()
        for name, future in self.sent.items():
            error = future.exception()
            if isinstance(error, InputError | RuntimeError):
                print(f"WARNING: {name} was not uploaded: {error}", file=sys.stderr)
            elif error:
                raise error


def in_memory(content: Path | bytes) -> bytes:
    """The bytes of a file, or bytes as they are."""
    return content if isinstance(content, bytes) else content.read_bytes()

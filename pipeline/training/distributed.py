"""Which of the job's processes this is, the point where all of them wait for each other, and what they agree on."""

from __future__ import annotations

import os
from datetime import timedelta
from functools import cache

LONGEST_WAIT = timedelta(hours=24)  # the others wait while the first scores the untuned model
LONGEST_STEP = timedelta(minutes=15)  # then: whoever waits longer for another within training takes it for dead, and ends


def count_processes() -> int:
    """How many processes the launcher started; 1 without one."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_first_process() -> bool:
    """Whether this process writes the run folder, prints and evaluates."""
    return os.environ.get("RANK", "0") == "0"


@cache
def wait_for_all() -> None:
    """Wait, once, until every process of the job is here. One alone goes on at once, and imports nothing."""
    if count_processes() == 1:
        return
    import torch
    from accelerate import PartialState
    from torch.distributed.distributed_c10d import _set_pg_timeout

    # accelerate numbers the processor, and torch.load knows no "cpu:0" to put a checkpoint's optimiser on
    torch.serialization.register_package(11, lambda _: None, lambda read, place: read if place.startswith("cpu:") else None)
    PartialState(cpu=not torch.cuda.is_available(), timeout=LONGEST_WAIT).wait_for_everyone()
    _set_pg_timeout(LONGEST_STEP)


def any_process(said: bool) -> bool:
    """Whether any of the processes says so, to all of them alike; each has to ask, at the same step."""
    if count_processes() == 1:
        return said
    import torch
    from accelerate import PartialState

    answer = torch.tensor(float(said), device=PartialState().device)
    torch.distributed.all_reduce(answer, op=torch.distributed.ReduceOp.MAX)
    return bool(answer)

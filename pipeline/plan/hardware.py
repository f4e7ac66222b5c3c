"""The machine a job would run on: its memory, its number types, its cores. A named GPU imports no torch."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from data.schema import InputError

GiB = 2**30
# GiB of memory as PyTorch reports it.
GPUS = {"t4": 14.74, "l4": 22.03, "a10": 22.06, "a100-40": 39.39, "a100-80": 79.15, "h100": 79.10, "h200": 139.72}
# The least NVIDIA driver that runs a build of torch -> the requirements that install it, newest first.
DRIVERS = {580: "requirements.txt", 525: "requirements-cuda12.txt"}


@dataclass(frozen=True)
class Device:
    """`memory` (bytes) of one device; `count` of them train together. `cores`: of a processor that is trained on."""

    name: str
    kind: Literal["cuda", "cpu"]
    memory: int
    bfloat16: bool = True
    count: int = 1
    cores: float = 0.0

    @property
    def engine(self) -> Literal["unsloth", "transformers"]:
        return "unsloth" if self.kind == "cuda" else "transformers"


def named_device(name: str, count: int = 1) -> Device:
    """A device of the table, or "cpu": this machine's; in any case of letters. Raises InputError for any other name."""
    key = name.lower()
    if key == "cpu":
        return cpu_device(count)
    if key not in GPUS:
        raise InputError(f"--gpu {name}: not a known device; choose one of {', '.join(GPUS)}, cpu")
    return Device(key, "cuda", int(GPUS[key] * GiB), bfloat16=key != "t4", count=count)


def cpu_device(count: int = 1) -> Device:
    return Device("cpu", "cpu", cpu_memory(), count=count, cores=count_cores())


def count_cores() -> float:
    """Cores that this process may use: by affinity, the container's quota, and OMP_NUM_THREADS where it is set."""
    limits = [float(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)]
    quota = Path("/sys/fs/cgroup/cpu.max")
    share, period = quota.read_text().split() if quota.is_file() else ("max", "1")
    limits += [int(share) / int(period)] if share.isdigit() else []
    threads = os.environ.get("OMP_NUM_THREADS", "")
    return min(limits + ([float(threads)] if threads.isdigit() and int(threads) else []))


def cpu_memory() -> int:
    """Bytes of memory, or of the container's limit where that is lower (control groups, version 2 and 1)."""
    limits = []
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        limits.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    for file in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        text = Path(file).read_text().strip() if Path(file).is_file() else ""
        limits += [int(text)] if text.isdigit() else []
    return min(limits, default=8 * GiB)


def detect_device() -> Device:
    """The device that PyTorch would train on, and how many of them the launcher started (WORLD_SIZE)."""
    import torch

    count = int(os.environ.get("WORLD_SIZE", "1"))
    if not torch.cuda.is_available():
        if unusable := describe_unusable_gpu():
            print(f"WARNING: {unusable}", file=sys.stderr)
        return cpu_device(count)
    found = torch.cuda.get_device_properties(int(os.environ.get("LOCAL_RANK", "0")))
    return Device(found.name, "cuda", found.total_memory, bfloat16=found.major >= 8, count=count)


def describe_unusable_gpu() -> str | None:
    """The NVIDIA GPU that this torch cannot use, and the build that can; None without one, or where it is hidden."""
    import torch

    cards = [] if os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1") else ask_driver()
    if not cards or torch.cuda.is_available():
        return None
    name, driver = cards[0]
    build = f"is built for CUDA {torch.version.cuda}" if torch.version.cuda else "is built without CUDA"
    return f"{name} is here, but torch {torch.__version__} cannot use it: it {build}. {find_build(driver)}"


def find_build(driver: str) -> str:
    """What to install for a driver: CUDA 13 runs on 580 and later, CUDA 12 on 525 and later (NVIDIA, CUDA Compatibility)."""
    major = int(driver.partition(".")[0])
    for least, file in DRIVERS.items():
        if major >= least:
            return f"Its driver ({driver}) runs the build of: pip install -r {file}"
    return f"Its driver ({driver}) is too old for any build: install {min(DRIVERS)} or later"


def ask_driver() -> list[tuple[str, str]]:
    """(name, version of the driver) of every NVIDIA GPU; none where nvidia-smi is missing or finds none."""
    program = shutil.which("nvidia-smi")
    if not program:
        return []
    command = [program, "--query-gpu=name,driver_version", "--format=csv,noheader"]
    try:
        said = subprocess.run(command, capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return []
    rows = [line.rpartition(",") for line in said.stdout.splitlines()] if said.returncode == 0 else []
    return [(name.strip(), version.strip()) for name, _, version in rows if version.strip()[:1].isdigit()]

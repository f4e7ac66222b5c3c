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
from pipeline.training.distributed import count_processes

GiB = 2**30
# GiB of memory as PyTorch reports it.
GPUS = {"t4": 14.74, "l4": 22.03, "a10": 22.06, "a100-40": 39.39, "a100-80": 79.15, "h100": 79.10, "h200": 139.72}
# The least NVIDIA driver that runs a build of torch -> the requirements that install it, newest first (NVIDIA, CUDA
# Compatibility: CUDA 13 runs on 580 and later, CUDA 12 on 525 and later).
DRIVERS = {580: "requirements.txt", 525: "requirements-cuda12.txt"}


@dataclass(frozen=True)
class Device:
    """A GPU or this machine's CPU.

    `memory`: bytes of one device; `count` of them train together. `cores`: those of a CPU, 0 for a GPU.
    """

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
    """A GPU of the table `GPUS`, or "cpu" for this machine's; upper and lower case alike. Raises InputError for other names."""
    key = name.lower()
    if key == "cpu":
        return Device("cpu", "cpu", cpu_memory() // count, bfloat16=cpu_has_bfloat16(), count=count, cores=count_cores())
    if key not in GPUS:
        raise InputError(f"--gpu {name}: not a known device; choose one of {', '.join(GPUS)}, cpu")
    return Device(key, "cuda", int(GPUS[key] * GiB), bfloat16=key != "t4", count=count)


def detect_device() -> Device:
    """The device that PyTorch would train on, and how many of them the launcher started (WORLD_SIZE).

    Warns on standard error of an NVIDIA GPU that the installed torch cannot use.
    """
    import torch

    count = count_processes()
    if not torch.cuda.is_available():
        if unusable := describe_unusable_gpu():
            print(f"WARNING: {unusable}", file=sys.stderr)
        return named_device("cpu", count)
    found = torch.cuda.get_device_properties(int(os.environ.get("LOCAL_RANK", "0")))
    return Device(found.name, "cuda", found.total_memory, bfloat16=found.major >= 8, count=count)


def cpu_has_bfloat16() -> bool:
    """Whether the processor multiplies in bfloat16: by AVX-512, AMX or on Arm. Else PyTorch emulates it, slowly."""
    names = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").is_file() else ""
    return not {"avx512_bf16", "amx_bf16", "bf16"}.isdisjoint(names.split())


def count_cores() -> float:
    """Cores that this process may use: by affinity, the container's quota, and OMP_NUM_THREADS where it is set."""
    limits = [float(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)]
    quota, period = (*read_words("/sys/fs/cgroup/cpu.max"), "max", "1")[:2]
    if quota.isdigit():
        limits.append(int(quota) / int(period))
    threads = os.environ.get("OMP_NUM_THREADS", "")
    if threads.isdigit() and threads != "0":
        limits.append(float(threads))
    return min(limits)


def cpu_memory() -> int:
    """Bytes of memory, or of the container's limit where that is lower."""
    limits = [int(word) for word in read_words("/sys/fs/cgroup/memory.max") if word.isdigit()]
    if "SC_PHYS_PAGES" in getattr(os, "sysconf_names", ()):
        limits.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    return min(limits, default=8 * GiB)


def read_words(file: str) -> list[str]:
    """The words of a file; none where there is no such file."""
    return Path(file).read_text().split() if Path(file).is_file() else []


def describe_unusable_gpu() -> str | None:
    """The NVIDIA GPU that this torch cannot use, and what its driver can run; None without one, or where it is hidden."""
    import torch

    if os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1") or torch.cuda.is_available() or not (card := ask_driver()):
        return None
    name, driver = card
    file = requirements_of(driver)
    build = f"is built for CUDA {torch.version.cuda}" if torch.version.cuda else "is built without CUDA"
    runs = f"runs the build of: pip install -r {file}" if file else f"is too old for any build: install {min(DRIVERS)} or later"
    return f"{name} is here, but torch {torch.__version__} cannot use it: it {build}. Its driver ({driver}) {runs}"


def ask_driver() -> tuple[str, str] | None:
    """The first NVIDIA GPU's name and its driver's version, as nvidia-smi says; None without one. Imports no torch."""
    program = shutil.which("nvidia-smi")
    if not program:
        return None
    command = [program, "--query-gpu=name,driver_version", "--format=csv,noheader"]
    try:
        said = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    name, _, driver = said.partition("\n")[0].rpartition(", ")
    return (name, driver) if driver.partition(".")[0].isdigit() else None


def requirements_of(driver: str) -> str | None:
    """The requirements file whose torch a driver runs; None where it is too old for any.

    >>> requirements_of("570.86.10")
    'requirements-cuda12.txt'
    """
    return next((file for least, file in DRIVERS.items() if int(driver.partition(".")[0]) >= least), None)

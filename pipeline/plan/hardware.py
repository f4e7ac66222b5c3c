"""The machine: its memory and speed, from a table for a named GPU and from PyTorch for the one at hand.

Figures are the makers' for dense matrices (half of what is printed "with sparsity"); memory is what PyTorch reports, which is
a little less than is printed on the card. A named GPU imports no torch.
"""

from __future__ import annotations

import functools
import os
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from data.schema import InputError

GiB = 2**30


@dataclass(frozen=True)
class Device:
    """`memory` in bytes, `matrix_rate` in 16-bit (CPU: 32-bit) FLOP/s, `bandwidth` in bytes/s, all of one device.

    `count` devices train together. `rated`: the figures are this very card's; otherwise they are a cautious guess.
    """

    name: str
    kind: Literal["cuda", "cpu"]
    memory: int
    matrix_rate: float
    bandwidth: float
    bfloat16: bool = True
    count: int = 1
    rated: bool = True

    @property
    def engine(self) -> Literal["unsloth", "transformers"]:
        return "unsloth" if self.kind == "cuda" else "transformers"


def _gpu(name: str, memory: float, teraflops: float, gigabytes: float, bfloat16: bool = True) -> Device:
    return Device(name, "cuda", int(memory * GiB), teraflops * 1e12, gigabytes * 1e9, bfloat16)


GPUS = {
    # NVIDIA T4 datasheet (Turing): 65 TFLOP/s fp16, 320 GB/s, no bfloat16; Colab's reports 14.74 GiB.
    "t4": _gpu("t4", 14.74, 65, 320, bfloat16=False),
    # NVIDIA L4 datasheet (Ada): 242 TFLOP/s with sparsity, 300 GB/s.
    "l4": _gpu("l4", 22.03, 121, 300),
    # NVIDIA A10 datasheet (Ampere): 125 TFLOP/s dense, 600 GB/s. Amazon's A10G: 70 TFLOP/s, same memory.
    "a10": _gpu("a10", 22.06, 125, 600),
    # NVIDIA A100 datasheet: 312 TFLOP/s dense; 1,555 GB/s with 40 GB, 1,935 (PCIe) to 2,039 (SXM) with 80 GB.
    "a100-40": _gpu("a100-40", 39.39, 312, 1555),
    "a100-80": _gpu("a100-80", 79.15, 312, 1935),
    # NVIDIA H100 SXM datasheet: 1,979 TFLOP/s with sparsity, 3.35 TB/s. The PCIe card: 756 dense, 2.0 TB/s.
    "h100": _gpu("h100", 79.10, 989, 3350),
    # NVIDIA H200 SXM datasheet: as the H100, 4.8 TB/s, 141 GB.
    "h200": _gpu("h200", 139.72, 989, 4800),
}
# Words of the name that PyTorch reports -> the table's key; the first that fits.
REPORTED = (("H200", "h200"), ("H100", "h100"), ("A100", "a100-80"), ("A10", "a10"), ("L4", "l4"), ("T4", "t4"))
CPU_BANDWIDTH = 20e9  # a desktop's memory


def named_device(name: str, count: int = 1) -> Device:
    """A device of the table, or "cpu": this machine's. Raises InputError for any other name."""
    if name == "cpu":
        return cpu_device(count)
    if name not in GPUS:
        raise InputError(f"--gpu {name}: not a known device; choose one of {', '.join(GPUS)}, cpu")
    return replace(GPUS[name], count=count)


def cpu_device(count: int = 1) -> Device:
    """This machine's processor, its rate measured and shared by `count` processes."""
    return Device("cpu", "cpu", cpu_memory(), measure_cpu_rate() / count, CPU_BANDWIDTH, count=count, rated=False)


@functools.cache
def measure_cpu_rate(side: int = 1024) -> float:
    """FLOP/s of float32 matrix products on all cores that numpy may use: the best of twenty, in a quarter of a second."""
    import numpy

    matrix, best = numpy.random.default_rng(0).random((side, side), dtype=numpy.float32), float("inf")
    for _ in range(20):
        started = time.perf_counter()
        matrix @ matrix
        best = min(best, time.perf_counter() - started)
    return 2 * side**3 / best


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
        return cpu_device(count)
    index = int(os.environ.get("LOCAL_RANK", "0"))
    found = torch.cuda.get_device_properties(index)
    return recognise_gpu(found.name, found.total_memory, (found.major, found.minor), count)


def recognise_gpu(name: str, memory: int, capability: tuple[int, int], count: int = 1) -> Device:
    """A card by the name and memory (bytes) that PyTorch reports; one that is not in the table is rated as its generation's
    slowest there, so that its times are estimated too long rather than too short. Compute capability 8.0 brought bfloat16."""
    key = next((key for word, key in REPORTED if word in name.replace("-", " ").split()), None)
    slow = "t4" if capability < (8, 0) else "l4" if capability < (9, 0) else "h100"
    if key == "a100-80" and memory < 60 * GiB:
        key = "a100-40"
    return replace(
        GPUS[key or slow], name=name, memory=memory, count=count, rated=key is not None, bfloat16=capability >= (8, 0)
    )

"""A pretended NVIDIA GPU, so that Unsloth's CUDA path runs on a processor: `pretend("7.5")` before anything else is imported.

"cuda" becomes the processor wherever a device is given, `torch.cuda` answers as a card of that compute capability would,
Triton's kernels run in its interpreter, and bitsandbytes works by its processor library. Nothing is compiled or fast, no
memory is counted; attention is PyTorch's. What a kernel computes is the same but for the order of sums.
"""

from __future__ import annotations

import os
import threading
import types
from collections.abc import Callable

import torch
from torch.overrides import TorchFunctionMode

CPU = torch.device("cpu")
# By capability: name, memory in GiB as PyTorch reports it, multiprocessors.
CARDS = {(7, 5): ("Tesla T4", 14.74, 40), (8, 0): ("NVIDIA A100-SXM4-40GB", 39.39, 108)}


def pretend(capability: str) -> None:
    """Make this process one with a card of `capability` ("7.5" or "8.0"). Once, before triton, unsloth or transformers."""
    os.environ |= dict.fromkeys(["TRITON_INTERPRET", "TORCHDYNAMO_DISABLE", "HF_HUB_OFFLINE"], "1")
    import bitsandbytes  # loads its processor library, as long as there is no card

    name_missing_kernels(bitsandbytes.functional.lib)
    quiet_triton()
    major, minor = map(int, capability.split("."))
    answer_as_card((major, minor))
    take_cuda_for_cpu()
    autocast_on_cpu()
    if major >= 8:
        from interpreted_bfloat16 import compute_bfloat16

        compute_bfloat16()


def name_missing_kernels(library: object) -> None:
    """Give bitsandbytes' processor library the names of CUDA kernels that Unsloth asks for, each failing when it is called.

    Unsloth has Triton kernels of its own for the same; without the names it would leave 4 bits out.
    """
    for name in (
        "cdequantize_blockwise_fp32", "cdequantize_blockwise_fp16_nf4", "cdequantize_blockwise_bf16_nf4",
        "cdequantize_blockwise_fp32_nf4", "cgemm_4bit_inference_naive_fp16", "cgemm_4bit_inference_naive_bf16",
    ):  # fmt: skip

        def kernel(*_arguments, called=name):
            raise AssertionError(f"{called}: a CUDA kernel was called on a processor")

        kernel.restype = None
        setattr(library, name, kernel)


def quiet_triton() -> None:
    """Keep Triton from looking for a driver and compiling a launcher for it."""
    from triton.backends.nvidia import driver

    driver.libcuda_dirs = lambda: []
    driver.CudaDriver.is_active = staticmethod(lambda: False)


class Idle:
    """A stream or an event on which nothing is ever outstanding."""

    cuda_stream, stream_id, priority, device = 0, 0, 0, CPU

    def __init__(self, *arguments, **keywords): ...
    def wait_stream(self, *streams): ...
    def wait_event(self, *events): ...
    def wait(self, *streams): ...
    def record(self, *streams): ...
    def synchronize(self): ...

    def record_event(self, event=None):
        return event or Idle()

    def query(self):
        return True

    def elapsed_time(self, other):
        return 0.0


class CurrentDevice:
    def __init__(self, device=None):
        self.idx = self.prev_idx = 0

    def __enter__(self):
        return self

    def __exit__(self, *error):
        return False


class CurrentStream(CurrentDevice, Idle): ...


def answer_as_card(capability: tuple[int, int]) -> None:
    name, gibibytes, processors = CARDS[capability]
    memory = int(gibibytes * 2**30)
    properties = types.SimpleNamespace(
        name=name, major=capability[0], minor=capability[1], total_memory=memory, multi_processor_count=processors,
        gcnArchName="", warp_size=32, regs_per_multiprocessor=65536, max_threads_per_multi_processor=2048,
        L2_cache_size=4 << 20,
        shared_memory_per_block=49152, shared_memory_per_block_optin=65536, shared_memory_per_multiprocessor=167936,
        max_threads_per_block=1024, is_integrated=0, is_multi_gpu_board=0, uuid="0", pci_bus_id=0, pci_device_id=0,
        pci_domain_id=0, clock_rate=1410000, memory_clock_rate=1215000, memory_bus_width=5120,
    )  # fmt: skip
    stream = CurrentStream()
    constants = {
        "is_available": True, "is_initialized": True, "device_count": 1, "current_device": 0, "get_device_name": name,
        "get_device_capability": capability, "get_device_properties": properties, "get_arch_list": ["sm_75", "sm_80"],
        "mem_get_info": (memory - (1 << 30), memory), "current_stream": stream, "default_stream": stream, "stream": stream,
        "is_current_stream_capturing": False, "memory_stats": {}, "memory_summary": "", "can_device_access_peer": False,
    }  # fmt: skip
    nothing = "init _lazy_init set_device set_stream synchronize empty_cache ipc_collect manual_seed manual_seed_all seed_all"
    zero = "memory_allocated max_memory_allocated memory_reserved max_memory_reserved"
    zero += " reset_peak_memory_stats reset_max_memory_allocated reset_accumulated_memory_stats"
    constants |= dict.fromkeys(nothing.split()) | dict.fromkeys(zero.split(), 0)
    for function, value in constants.items():
        setattr(torch.cuda, function, always(value))
    torch.cuda.is_bf16_supported = lambda including_emulation=True: capability >= (8, 0) or including_emulation
    torch.cuda.device, torch.cuda.Stream, torch.cuda.Event = CurrentDevice, CurrentStream, Idle
    random = {
        "get_rng_state": lambda device=None: torch.get_rng_state(), "get_rng_state_all": lambda: [torch.get_rng_state()],
    } | {name: always(None) for name in ("set_rng_state", "set_rng_state_all", "manual_seed", "manual_seed_all")}  # fmt: skip
    for function, value in random.items():
        setattr(torch.cuda, function, value)
        setattr(torch.cuda.random, function, value)
    torch._C._cuda_getCurrentRawStream, torch._C._cuda_getDevice = always(0), always(0)
    torch.version.cuda = "13.0"


def always(value: object) -> Callable:
    """A function of its own each time: torch.compile keeps rules by function."""
    return lambda *arguments, **keywords: value


def to_cpu(value: object) -> object:
    """A device given as "cuda", "cuda:0" or torch.device("cuda") as the processor; anything else as it is."""
    if isinstance(value, torch.device):
        return CPU if value.type == "cuda" else value
    return "cpu" if isinstance(value, str) and (value == "cuda" or value.startswith("cuda:")) else value


class CudaIsCpu(TorchFunctionMode):
    """Every torch function as if its CUDA devices were the processor."""

    def __torch_function__(self, function, kinds, arguments=(), keywords=None):
        name, keywords = getattr(function, "__name__", ""), dict(keywords or {})
        if name in ("cuda", "pin_memory") and arguments and isinstance(arguments[0], torch.Tensor):
            return arguments[0]
        if name == "is_pinned":
            return False
        if function is torch.device:  # kept as it is asked for: its index is read; tensors are made on the processor
            return function("cuda", *arguments) if arguments and type(arguments[0]) is int else function(*arguments, **keywords)
        arguments = tuple(to_cpu(one) for one in arguments)
        if name == "to" and len(arguments) > 1 and type(arguments[1]) is int:
            arguments = (arguments[0], "cpu", *arguments[2:])
        if "device" in keywords:
            keywords["device"] = "cpu" if type(keywords["device"]) is int else to_cpu(keywords["device"])
        if keywords.get("pin_memory"):
            keywords["pin_memory"] = False
        return function(*arguments, **keywords)


def take_cuda_for_cpu() -> None:
    """In this thread and in those that it starts; `Module.to` reads devices in C and is told apart."""
    CudaIsCpu().__enter__()
    parse, bootstrap = torch._C._nn._parse_to, threading.Thread._bootstrap_inner

    def parse_to(*arguments, **keywords):
        arguments = tuple("cpu" if type(one) is int else to_cpu(one) for one in arguments)
        device = {key: "cpu" if type(keywords[key]) is int else to_cpu(keywords[key]) for key in keywords if key == "device"}
        return parse(*arguments, **keywords | device)

    def start(thread):
        with CudaIsCpu():
            bootstrap(thread)

    torch._C._nn._parse_to = parse_to
    torch.nn.Module.cuda = lambda module, device=None: module
    threading.Thread._bootstrap_inner = start


def autocast_on_cpu() -> None:
    """`torch.autocast("cuda")` and what asks about it, on the processor; without a type it is float16, as on a card."""
    initialise = torch.autocast.__init__

    def autocast(self, device_type, dtype=None, enabled=True, cache_enabled=None):
        if device_type == "cuda":
            device_type, dtype = "cpu", dtype or torch.float16
        initialise(self, device_type, dtype=dtype, enabled=enabled, cache_enabled=cache_enabled)

    torch.autocast.__init__ = autocast

    def asking(ask: Callable) -> Callable:
        return lambda device_type="cuda": ask(to_cpu(device_type))

    def changing(change: Callable) -> Callable:
        return lambda *given: change("cpu", *given) if len(given) == 1 else change(to_cpu(given[0]), *given[1:])

    for name in ("autocast_enabled", "autocast_dtype"):
        asked = "is_autocast_enabled" if name == "autocast_enabled" else "get_autocast_dtype"
        setattr(torch, asked, asking(getattr(torch, asked)))
        setattr(torch, f"set_{name}", changing(getattr(torch, f"set_{name}")))
    torch.get_autocast_gpu_dtype = lambda: torch.get_autocast_dtype("cpu")

"""Memory and time of a job, counted from the shapes of model and data: what `pipeline.plan.decide` decides by.

Memory is counted as transformers and PEFT use it. Time is a count of operations over the rates that a CPU reached. Nothing was
measured on a GPU: what Unsloth saves of the memory and what a job takes there is not known. Settings must be resolved.
"""

from __future__ import annotations

from pipeline.config import Settings
from pipeline.plan.architectures import Architecture
from pipeline.plan.hardware import Device, GiB
from pipeline.plan.lengths import Lengths

# NF4 with double quantisation (QLoRA, Dettmers 2023): 4 bits, an 8-bit scale per 64 weights, a 32-bit one per 64 x 256.
NF4_BYTES = (4 + 8 / 64 + 32 / (64 * 256)) / 8
# CUDA's context and cuBLAS workspaces; on a CPU, what torch, transformers, trl and peft take once imported (measured).
CONTEXT = {"cuda": int(0.8 * GiB), "cpu": int(0.6 * GiB)}
# Resident bytes for each that autograd keeps: the C library's allocator keeps freed blocks (measured: 2.2, tiny model).
RESIDENT = {"cuda": 1, "cpu": 2}
LOSS_CHUNK = 256  # positions whose logits TRL's chunked_nll computes at once; on a processor, about an article's answers
# For least and most: FLOP/s of one core (the tiny model reached 29 to 41 G in float32, bench/results/train-cpu.json;
# SmolLM2 110 G in bfloat16, processor-cpu.json there); what a token costs against one that is read, if it is trained on
# (the base is frozen), and if it is written (a guess).
COSTS = {"float32": ((80e9, 2, 1), (20e9, 3, 10)), "bfloat16": ((160e9, 2, 1), (60e9, 3, 10))}
FILE_BYTES = {"f16": 2, "q8_0": 1.07, "q4_k_m": 0.63}  # of a parameter; q4_k_m's as published for Llama 3.2 3B

Range = tuple[float, float]  # seconds, least and most


def estimate_memory(settings: Settings, model: Architecture, device: Device, lengths: Lengths) -> dict[str, int]:
    """Bytes of one device by part; of "training" and "evaluation", which follow one another; and "peak", the larger."""
    longest, layers = max(lengths.train.whole, default=1), model.num_hidden_layers
    tokens = settings.train.per_device_train_batch_size * longest
    layer = tokens * layer_activations(settings, model, longest)
    # With checkpointing each layer's input is kept and one layer computed again. Either way, a layer's gradients.
    inputs = layers * tokens * model.hidden_size * element_bytes(settings)
    kept = 2 * layer + inputs if settings.train.gradient_checkpointing else (layers + 1) * layer
    # TRL's loss takes whole chunks, and a float32 copy of the head's matrix where that is 16-bit.
    copy = 0 if settings.model.dtype == "float32" else model.vocab_size * model.hidden_size * 6
    shared = {
        "context": CONTEXT[device.kind],
        "weights": weight_bytes(settings, model),
        # In float32 whatever the base is: weights, gradients and Adam's two moments, which may be 8-bit.
        "adapter": adapter_parameters(settings, model) * (4 + 4 + (2 if "8bit" in settings.train.optim else 8)),
    }
    training = {"activations": int(kept * RESIDENT[device.kind]), "loss": LOSS_CHUNK * model.vocab_size * 12 + copy}
    answering = {"answering": settings.eval.batch_tokens * position_bytes(settings, model)}
    sums = {name: sum((shared | parts).values()) for name, parts in (("training", training), ("evaluation", answering))}
    return shared | training | answering | sums | {"peak": max(sums.values())}


def element_bytes(settings: Settings) -> int:
    """Bytes of a number in the type that the model computes in."""
    return 4 if settings.model.dtype == "float32" else 2


def weight_bytes(settings: Settings, model: Architecture) -> int:
    """4-bit leaves embedding and head as they are."""
    matrix = NF4_BYTES if settings.model.load_in_4bit else element_bytes(settings)
    return int(model.matrix_parameters * matrix + model.embedding_parameters * element_bytes(settings))


def adapter_parameters(settings: Settings, model: Architecture) -> int:
    """r x (inputs + outputs) of each adapted matrix."""
    sides = [sum(model.projections[name]) for name in settings.lora.target_modules if name in model.projections]
    return (settings.lora.last_layers or model.num_hidden_layers) * settings.lora.r * sum(sides)


def layer_activations(settings: Settings, model: Architecture, longest: int) -> int:
    """Bytes a token and layer that the backward pass needs, in a batch padded to `longest`.

    Counted with torch's saved-tensor hooks on the tiny model (float32, and 16-bit under autocast, within 5 %): 16-bit norms
    keep their input in float32, each LoRA matrix its own copy of its input, and each layer the mask.
    """
    h, q, f, r = model.hidden_size, model.query_size, model.intermediate_size, settings.lora.r
    if settings.model.dtype == "float32":
        return 4 * (4 * h + 4 * q + 4 * f + 7 * r + longest)
    return 18 * h + 10 * q + 8 * f + 14 * r + 2 * longest


def position_bytes(settings: Settings, model: Architecture) -> int:
    """Bytes of a position while answering: keys and values twice (a batch that rows join is copied), one layer being read."""
    cache = 2 * 2 * model.num_hidden_layers * model.key_size
    return (cache + 3 * model.intermediate_size + 6 * model.hidden_size) * element_bytes(settings)


def estimate_disk(settings: Settings, model: Architecture) -> int:
    """Bytes of the base in 16 bits, of the merged model that an export reads, and of the exported files."""
    copies = 1 + bool(settings.export.merge or settings.export.gguf)
    return int(model.parameters * (2 * copies + sum(FILE_BYTES[quant] for quant in settings.export.gguf)))


def estimate_seconds(settings: Settings, model: Architecture, device: Device, lengths: Lengths) -> dict[str, Range]:
    """What training takes on a CPU, and all answering: by the untuned model, the adapter, the exported files. Empty for a GPU.

    A token that is read costs 2 operations a parameter, and attention; other tokens cost `COSTS` times that.
    """
    if device.kind == "cuda":
        return {}
    train, export = settings.train, settings.export
    read = 2 * model.parameters + 2 * model.query_size * lengths.mean * model.num_hidden_layers
    step = train.per_device_train_batch_size * train.gradient_accumulation_steps * device.count
    seen = train.max_steps * step if train.max_steps > 0 else len(lengths.train.whole) * train.num_train_epochs
    chats = [getattr(lengths, name) for name in settings.eval.splits] + [lengths.validation] * len(export.gguf)
    answers = sum(sum(one.answered) for one in chats)
    if settings.eval.base_model:  # it may not know when to stop
        chats.append(lengths.test)
        answers += len(lengths.test.read) * lengths.budget
    # F1 while training: times that all of validation would be answered
    times = train.evaluations * min(1.0, train.eval_f1_articles / max(1, len(set(lengths.validation.owners))))

    def span(trained: float, known: float, answered: float) -> Range:
        cores = device.cores * (device.count if trained else 1)  # the first of several processes answers alone
        least, most = (
            read * (trained * (cost + bool(train.gradient_checkpointing)) + known + answered * slower) / (rate * cores)
            for rate, cost, slower in COSTS["bfloat16" if device.bfloat16 and settings.model.dtype == "bfloat16" else "float32"]
        )
        return least, most

    return {
        "training": span(seen * lengths.mean, train.evaluations * sum(lengths.validation.whole), 0),
        "answering": span(
            0,
            sum(sum(one.read) for one in chats) + times * sum(lengths.validation.read),
            answers + times * sum(lengths.validation.answered),
        ),
    }
